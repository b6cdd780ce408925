"""What of input space an encoder has learnt, and what a linear model reads of mPCWP from all of it.

``python bench/coordinates.py STORE SUBSETS RUN [RUN ...]``: STORE a SYNTHETIC store, SUBSETS the
``subsets.json`` of a label-efficiency folder, RUN folders of ``pretrain ssl-dml``, with landmarks,
and others. Coordinates are those of the landmarks of the first run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from torch.utils.data import default_collate

from ecgfast.data.source import open_source
from ecgfast.data.subsets import read_subsets
from ecgfast.eval.probe import linear_probe
from ecgfast.miners import InputDistance, Landmarks
from ecgfast.systems.finetune import load_run
from ecgfast.systems.parts import beats, preparation

GROUPS = ((0, 8), (8, 16), (16, 32))


def main() -> None:
    store, subsets, *runs = sys.argv[1:]
    first = load_run(runs[0])
    signal = first.contract.signal
    prepare = preparation(signal)
    parts = {
        name: open_source((store,), (name,), signal=signal, patients=0)
        for name in ("train", "test")
    }
    records = {name: prepared(source, prepare) for name, source in parts.items()}
    distance = InputDistance(
        "dtw", cost="l1", radius=round(0.03 * signal.fs), view=beats(signal.fs), zscore=True
    )
    state = torch.load(Path(runs[0]) / "last.ckpt", weights_only=True)["state_dict"]
    marks = state["pool.marks"]
    pool = Landmarks(distance, torch.cat([marks, marks.flip(0)]), dims=state["pool.shift"].numel())
    pool.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("pool.")})
    found, there = {}, {}
    for name, ecg in records.items():
        made = [pool._placed(some) for some in ecg.split(256)]
        found[name] = torch.cat([m[0] for m in made]).numpy()
        there[name] = torch.cat([m[1] for m in made]).numpy()
    print(f"records that can be compared: { ({k: int(v.sum()) for k, v in there.items()}) }\n")
    heads = " | ".join(f"{a + 1} to {b}" for a, b in GROUPS)
    print(f"| share of the variance of coordinates, test records | {heads} |")
    print("|---|" + "---|" * len(GROUPS))
    for folder in runs:
        embeddings = {name: embed(load_run(folder).encoder, ecg) for name, ecg in records.items()}
        train, test = (standardised(embeddings, name)[there[name]] for name in ("train", "test"))
        read = Ridge(10.0).fit(train, found["train"][there["train"]]).predict(test)
        truth = found["test"][there["test"]]
        share = 1 - ((truth - read) ** 2).mean(axis=0) / truth.var(axis=0)
        print(
            f"| {Path(folder).name} | "
            + " | ".join(f"{share[a:b].mean():.2f}" for a, b in GROUPS)
            + " |"
        )
    read_label(found, there, parts, subsets)


def read_label(found, there, parts, subsets):
    """Logistic regression on the true coordinates, on the subsets of the table."""
    saved = read_subsets(Path(subsets))
    train, test = (standardised(found, name) for name in ("train", "test"))
    cut = saved["about"]["threshold"]
    above = {name: (source.table["mpcwp"] > cut).to_numpy(int) for name, source in parts.items()}
    patients = parts["train"].table["patient_id"].to_numpy()
    rows = {}
    for shares in saved["subsets"].values():
        for share, who in shares.items():
            mine = np.isin(patients, who) & there["train"]
            probe = linear_probe(train[mine], above["train"][mine], patients[mine], classes=True)
            rows.setdefault(share, []).append(
                roc_auc_score(above["test"], probe.score(np.where(there["test"][:, None], test, 0)))
            )
    print(
        f"\n| AUROC of mPCWP > {cut:g} mmHg | " + " | ".join(f"{float(s):.0%}" for s in rows) + " |"
    )
    print("|---|" + "---|" * len(rows))
    print(
        "| the coordinates themselves | "
        + " | ".join(f"{np.mean(v):.3f}" for v in rows.values())
        + " |"
    )


def prepared(source, prepare):
    made = []
    for rows in np.array_split(np.arange(len(source)), -(-len(source) // 256)):
        batch = default_collate([source.dataset[int(row)] for row in rows])
        made.append(prepare(*[batch[name] for name in ("ecg", "gain") if name in batch]))
    return torch.cat(made)


@torch.inference_mode()
def embed(encoder, ecg):
    encoder.eval()
    return torch.cat([encoder(some.nan_to_num(0)) for some in ecg.split(256)]).double().numpy()


def standardised(features, name):
    train = features["train"]
    return (features[name] - train.mean(axis=0)) / (train.std(axis=0) + 1e-12)


if __name__ == "__main__":
    main()
