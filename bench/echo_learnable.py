"""How hard the labels of the SYNTHETIC echo cohort are: a ceiling, a floor, and a small network.

python bench/echo_learnable.py [--patients 600] [--size 56] [--steps 600] [--shares 1 0.1 0.01]

Areas under the ROC curve of studies of test patients, each study's score the mean over its videos.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ecgfast.data.synthetic_echo import make_echo_cohort
from ecgfast.data.synthetic_echo_patients import echo_table

FRAMES, FPS = 16, 15.0  # a beat or more
LABELS = ("lvh", "as_severe")
BATCH = 32
Table = dict[str, NDArray[Any]]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--patients", type=int, default=600)
    words.add_argument("--size", type=int, default=56)
    words.add_argument("--steps", type=int, default=600)
    words.add_argument("--shares", type=float, nargs="*", default=[1.0, 0.1, 0.01])
    given = words.parse_args()
    videos, table = make_echo_cohort(given.patients, size=given.size, frames=FRAMES, fps=FPS)
    _, jobs = echo_table(given.patients, fps=FPS, seed=0)
    mean = videos.mean(axis=1).reshape(len(videos), -1) / 255.0
    train = table["split"] == "train"
    sizes = ("septum", "posterior", "lvid", "root", "atrium", "separation")
    heart = np.array([[getattr(h, name) for name in (*sizes, "calcium")] for h, _ in jobs])
    depth = np.array([[view.depth] for _, view in jobs])
    seen = np.concatenate([heart[:, :-1] / depth, heart[:, -1:]], axis=1)
    features = {
        "brightness": mean.mean(axis=1, keepdims=True),
        "40 components of the mean frame": PCA(40, random_state=0).fit(mean[train]).transform(mean),
        "age and sex": np.stack([table["age"], table["sex"]], axis=1),
        "the view's depth": depth,
        "heart as drawn, in parts of the depth": seen,
        "heart as drawn, in mm": heart,
    }
    print(f"{given.patients} patients, {len(videos)} videos of {FRAMES} x {given.size}^2")
    for name in LABELS:
        print(f"{name}: {table[name].mean():.1%} of the videos")
    for what, x in features.items():
        print(f"{what:48}", *(f"{name} {_linear(x, table, name):.3f}" for name in LABELS))
    for share in given.shares:
        begin = time.perf_counter()
        scores, count = _network(videos, table, share, given.steps)
        found = (f"{name} {s:.3f}" for name, s in zip(LABELS, scores, strict=True))
        print(
            f"network, {share:.0%} of the training patients ({count} videos):",
            *found,
            f"{time.perf_counter() - begin:.0f} s",
        )


def _linear(x: NDArray[Any], table: Table, name: str) -> float:
    train = table["split"] == "train"
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(x[train], table[name][train])
    return _auroc(model.decision_function(x), table, name)


def _auroc(scores: NDArray[Any], table: Table, name: str) -> float:
    test = table["split"] == "test"
    _, first, of = np.unique(table["study_id"][test], return_index=True, return_inverse=True)
    mean = np.bincount(of, scores[test]) / np.bincount(of)
    return float(roc_auc_score(table[name][test][first], mean))


def _network(
    videos: NDArray[np.uint8], table: Table, share: float, steps: int
) -> tuple[list[float], int]:
    """Areas of both labels, learnt together, and of how many videos."""
    torch.manual_seed(0)
    people = np.unique(table["patient_id"][table["split"] == "train"])
    some = np.random.default_rng(0).permutation(people)[: max(2, round(share * len(people)))]
    rows = np.isin(table["patient_id"], some).nonzero()[0]
    model = _layers()
    optim = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(optim, 3e-3, total_steps=steps)
    target = torch.from_numpy(np.stack([table[name] for name in LABELS], axis=1)).float()
    loss = nn.BCEWithLogitsLoss()
    draw = np.random.default_rng(1)
    for _ in range(steps):
        batch = draw.choice(rows, BATCH)
        clips = _moved(torch.from_numpy(videos[batch]), draw)
        optim.zero_grad()
        loss(model(_scaled(clips)), target[batch]).backward()
        optim.step()
        plan.step()
    model.eval()
    test = (table["split"] == "test").nonzero()[0]
    scores = np.zeros((len(videos), len(LABELS)))
    with torch.no_grad():
        for part in np.array_split(test, max(1, len(test) // 64)):
            scores[part] = model(_scaled(torch.from_numpy(videos[part]))).numpy()
    return [_auroc(s, table, name) for s, name in zip(scores.T, LABELS, strict=True)], len(rows)


def _moved(clips: Tensor, draw: np.random.Generator) -> Tensor:
    """Each by a few pixels."""
    shifts = draw.integers(-4, 5, (len(clips), 2))
    return torch.stack(
        [c.roll(tuple(map(int, s)), (1, 2)) for c, s in zip(clips, shifts, strict=True)]
    )


def _scaled(clips: Tensor) -> Tensor:
    x = clips.float()[:, None]
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    return (x - mean) / (x.std(dim=(2, 3, 4), keepdim=True) + 1)


def _layers() -> nn.Module:
    def block(inside: int, outside: int, stride: tuple[int, int, int]) -> list[nn.Module]:
        conv = nn.Conv3d(inside, outside, 3, stride, 1, bias=False)
        return [conv, nn.BatchNorm3d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(1, 12, (2, 2, 2)),
        *block(12, 32, (1, 2, 2)),
        *block(32, 64, (2, 2, 2)),
        *block(64, 96, (2, 2, 2)),
        _Pool(),
        nn.Dropout(0.2),
        nn.Linear(192, len(LABELS)),
    )


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4))], dim=1)


if __name__ == "__main__":
    main()
