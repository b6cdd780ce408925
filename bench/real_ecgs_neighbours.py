"""How often a record's nearest neighbour has its label.

``python bench/real_ecgs_neighbours.py OUT``; OUT is the folder of bench/real_ecgs.sh.
Distance and filter are those of its pretraining.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from ecgfast.data.store import ECGStore
from ecgfast.ops import pairwise_distance
from ecgfast.transforms.signal import Prepare

BATCH, BATCHES = 64, 200


def main(out: Path) -> None:
    """Prints shares among all PTB-XL records and within random batches, and chance."""
    store = ECGStore.open(out / "ptb-xl")
    ecg = torch.from_numpy(np.stack([store.read(i) for i in range(len(store))]))
    ecg = Prepare(fs=store.signal.fs, band=(0.5, 40.0), notch=None, normalise="none")(ecg)
    distance = pairwise_distance(ecg.flatten(1), metric="mean_l1").fill_diagonal_(torch.inf)
    nearest = distance.argmin(dim=1)
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randperm(len(ecg), generator=draw)[:BATCH] for _ in range(BATCHES)]
    within = [(rows, rows[distance[rows][:, rows].argmin(dim=1)]) for rows in batches]
    print(f"{len(ecg)} records: share whose mean_l1 neighbour has the same label")
    for label in ("norm", "sex"):
        value = torch.from_numpy(store.manifest[label].to_numpy(np.float64))
        share = float(value.mean())
        every = float((value[nearest] == value).double().mean())
        hits = torch.stack(
            [(value[rows] == value[found]).double().mean() for rows, found in within]
        )
        chance = share**2 + (1 - share) ** 2
        print(
            f"  {label}: all {every:.3f}, batches of {BATCH} {hits.mean():.3f}, chance {chance:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
