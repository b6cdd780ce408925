"""Positives and negatives of the SYNTHETIC cohort, whose mPCWP is known for every record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cases import AnyCase, Both, Case, Records, batches_of, distances
from neighbours import (
    CORRECTIONS,
    SEED,
    Floats,
    begin,
    by_anchor,
    corrected,
    largest_hub,
    line,
    neighbours,
    occurrence,
    rank_of_own,
    skewness,
    written,
)
from tables import against, print_predicted

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort

PATIENTS = 400
NEAR, HIGH = 3.0, 18.0  # mmHg: what counts as alike, and the threshold of a task
TWO = ("none", "lead")
PLAIN = ("euclidean", "mean_l1", "spectrum", "spectrum l1")
CASES: list[AnyCase] = [
    *(Case(scale, metric) for scale in TWO for metric in PLAIN),
    Case("none", "dtw l1", 100.0, 0.5),
    *(Case(scale, "dtw l1", 50.0, radius) for scale in TWO for radius in (0.2, 0.5)),
    Case("none", "dtw l1", 50.0, 1.0),
    *(Case(scale, "dtw l1", 50.0, 0.5) for scale in ("record", "robust")),
    *(Case(scale, "dtw l1", 25.0, 0.5) for scale in TWO),
    Case("none", "soft_dtw 0.01", 25.0, 0.5),
    Case("lead", "soft_dtw 1", 25.0, 0.5),
    *(Case(scale, "dtw l1", 50.0, 0.5, "slope") for scale in TWO),
    *(Case(s, m, view="beat") for s in (*TWO, "record") for m in ("mean_l1", "euclidean")),
    *(Case(scale, "dtw l1", 100.0, r, "beat") for scale in TWO for r in (0.03, 0.1)),
    *(Both(Case(s, "dtw l1", 50.0, 0.5), Case(s, "mean_l1", view="beat")) for s in TWO),
    Both(Case("none", "dtw l1", 50.0, 0.5), Case("lead", "dtw l1", 50.0, 0.5)),
]
FEW = [
    Case("none", "mean_l1"),
    *(Case(scale, "dtw l1", 50.0, 0.5) for scale in TWO),
    *(Case(scale, "dtw l1", 100.0, 0.03, "beat") for scale in TWO),
]
HEADS = ("mPCWP apart, mmHg", f"within {NEAR:g}", f"same side of {HIGH:g}")


def cohort() -> Records:
    """SYNTHETIC patients with 1 to 4 records each, 10 s at 100 Hz."""
    ecg, table = make_cohort(PATIENTS, signal=Signal(fs=100.0))
    labels = {key: table[key].astype(np.float64) for key in ("mpcwp", "sex", "age")}
    labels["high"] = (labels["mpcwp"] > HIGH) * 1.0
    name = "SYNTHETIC cohort"
    return Records(name, 100.0, torch.from_numpy(ecg), table["patient_id"].astype(str), labels)


def alike(chosen: np.ndarray, anchor: np.ndarray, mpcwp: Floats) -> dict[str, Floats]:
    """By anchor: how far mPCWP is, whether it is near, and on the same side of the threshold."""
    first, second = mpcwp[anchor], mpcwp[chosen]
    apart = np.abs(first - second)
    same = (first > HIGH) == (second > HIGH)
    return {"apart": apart, "near": (apart <= NEAR) * 1.0, "same": same * 1.0}


def near_cells(distance: Floats, records: Records, correction: str) -> list[str]:
    """Who is nearest: of the whole set, of other patients there, of other patients in a batch."""
    count, patient, mpcwp = len(distance), records.patient, records.labels["mpcwp"]
    correct, everyone = CORRECTIONS[correction], [np.arange(count)]
    rank = rank_of_own(corrected(distance, correction), patient)
    cells = [written(np.where(np.isfinite(rank), rank == 0, np.nan), patient)]
    for batches, who in ((everyone, None), (everyone, patient), (batches_of(count), patient)):
        found = neighbours(distance, batches, correct, who)
        for key, value in alike(found.nearest, found.anchor, mpcwp).items():
            by_record = by_anchor(found.anchor, value, count)
            cells.append(written(by_record, patient, 1 if key == "apart" else 2))
    return cells


def far_cells(distance: Floats, records: Records, correction: str) -> list[str]:
    """Who is in everybody's neighbourhood, and who is farthest."""
    count, mpcwp = len(distance), records.labels["mpcwp"]
    often = occurrence(corrected(distance, correction), 10)
    cells = [str(often.max()), f"{skewness(often):.1f}"]
    for batches in ([np.arange(count)], batches_of(count)):
        found = neighbours(distance, batches, CORRECTIONS[correction])
        cells += [str(largest_hub(found.farthest))] * (len(batches) == 1)
        alike_ones = np.abs(mpcwp[found.farthest] - mpcwp[found.anchor][:, None]) <= NEAR
        wrong = by_anchor(found.anchor, alike_ones.mean(axis=1), count)
        cells.append(written(wrong, records.patient))
    return cells


def print_synthetic(out: Path) -> None:
    """All tables of the cohort."""
    records = cohort()
    patient, mpcwp = records.patient, records.labels["mpcwp"]
    count, people = len(patient), len(np.unique(patient))
    chance = np.random.default_rng(SEED).random((count, count))
    chance += chance.T
    print(
        f"\nSYNTHETIC: {count} records of {people} made patients, 10 s at 100 Hz, seed 0;"
        f" mPCWP over {HIGH:g} mmHg in {(mpcwp > HIGH).sum()}."
    )
    own = neighbours(np.where(patient[:, None] == patient, 0, 1 + chance), [np.arange(count)])
    words = []
    for head, (key, value) in zip(
        HEADS, alike(own.nearest, own.anchor, mpcwp).items(), strict=True
    ):
        theirs = np.where(patient[own.nearest] == patient, value, np.nan)
        words.append(f"{head} {written(theirs, patient, 1 if key == 'apart' else 2)}")
    print(f"Another record of the same patient: {'; '.join(words)}.")
    heads = [f"{who}: {head}" for who in ("any", "another's", "batch, another's") for head in HEADS]
    far_heads = ["10-NN hub", "10-NN skewness", "farthest 2: hub"]
    far_heads += [f"farthest 2: within {NEAR:g} mmHg", "the same, batches"]
    cases: dict[str, Sequence[AnyCase]] = {"none": CASES, "mutual proximity": FEW, "CSLS": FEW}
    for title, columns, cells in (
        ("nearest", ["own patient", *heads], near_cells),
        ("hubs and farthest", far_heads, far_cells),
    ):
        print(f"\n**SYNTHETIC cohort, {title}** (n = {count})")
        begin(["distance", "correction", *columns])
        for correction, some in cases.items():
            for case in some:
                cell = cells(np.asarray(distances(records, case, out)), records, correction)
                line([str(case), correction, *cell])
        line(["chance", "none", *cells(chance, records, "none")])
    print_predicted(records, CASES, against(CASES), out)


if __name__ == "__main__":
    import sys

    print_synthetic(Path(sys.argv[1]))
