"""Positives and negatives of the SYNTHETIC cohort, whose mPCWP is known for every record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cases import BATCH, AnyCase, Both, Case, Records, batches_of, distances
from neighbours import (
    CORRECTIONS,
    SEED,
    Floats,
    begin,
    bounded,
    by_anchor,
    estimated,
    largest_hub,
    line,
    neighbours,
    occurrence,
    predicted,
    rank_of_own,
    skewness,
    statistic_of,
    written,
)

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort

PATIENTS = 400
NEAREST = 15
NEAR, HIGH = 3.0, 18.0  # mmHg: what counts as alike, and the threshold of a task
TWO = ("none", "lead")
PLAIN = ("euclidean", "mean_l1", "spectrum", "spectrum l1")
CASES: list[AnyCase] = [
    *(Case(scale, metric) for scale in TWO for metric in PLAIN),
    Case("none", "dtw l1", 100.0, 0.5),
    *(Case(scale, "dtw l1", 50.0, radius) for scale in TWO for radius in (0.2, 0.5, 1.0)),
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


def cohort() -> Records:
    """SYNTHETIC patients with 1 to 4 records each, 10 s at 100 Hz."""
    ecg, table = make_cohort(PATIENTS, signal=Signal(fs=100.0))
    labels = {key: table[key].astype(np.float64) for key in ("mpcwp", "sex", "age")}
    name = "SYNTHETIC cohort"
    return Records(name, 100.0, torch.from_numpy(ecg), table["patient_id"].astype(str), labels)


def alike(chosen: np.ndarray, anchor: np.ndarray, mpcwp: Floats) -> dict[str, Floats]:
    """By anchor: how far mPCWP is, whether it is near, and on the same side of the threshold."""
    first, second = mpcwp[anchor], mpcwp[chosen]
    apart = np.abs(first - second)
    same = (first > HIGH) == (second > HIGH)
    return {"apart": apart, "near": (apart <= NEAR) * 1.0, "same": same * 1.0}


def cells_of(distance: Floats, records: Records, correction: str) -> dict[str, list[str]]:
    """Of the whole set and of batches: who is near, and who is far."""
    count, patient, mpcwp = len(distance), records.patient, records.labels["mpcwp"]
    correct = CORRECTIONS[correction]
    whole = distance if correct is None else correct(np.asarray(distance, np.float64))
    rank = rank_of_own(whole, patient)
    near = [written(np.where(np.isfinite(rank), rank == 0, np.nan), patient)]
    far = []
    for batches in ([np.arange(count)], batches_of(count)):
        found = neighbours(distance, batches, correct, patient)
        values = alike(found.nearest, found.anchor, mpcwp)
        for key in ("apart", "near", "same"):
            by_record = by_anchor(found.anchor, values[key], count)
            near.append(written(by_record, patient, 1 if key == "apart" else 2))
        wrong = [alike(found.farthest[:, k], found.anchor, mpcwp)["near"] for k in (0, 1)]
        far.append(written(by_anchor(found.anchor, np.mean(wrong, axis=0), count), patient))
        if len(batches) == 1:
            far.append(str(largest_hub(found.farthest)))
    often = occurrence(whole, 10)
    return {"near": near, "far": [f"{often.max()}", f"{skewness(often):.1f}", *far]}


def print_synthetic(out: Path) -> None:
    """All tables of the cohort."""
    records = cohort()
    patient, mpcwp = records.patient, records.labels["mpcwp"]
    count, people = len(patient), len(np.unique(patient))
    matrices = {str(case): distances(records, case, out) for case in CASES}
    draw = np.random.default_rng(SEED).random((count, count))
    matrices["chance"] = draw + draw.T
    print(
        f"\nSYNTHETIC: {count} records of {people} made patients, 10 s at 100 Hz, seed 0;"
        f" mPCWP over {HIGH:g} mmHg in {(mpcwp > HIGH).sum()}."
    )
    many = [f"{h}{w}" for w in ("", f", batches of {BATCH}") for h in HEADS]
    hubs = ["records of 10-NN hub", "skewness of 10-NN"]
    hubs += [f"farthest 2 within {NEAR:g} mmHg", "hub of farthest 2"]
    hubs += [f"farthest 2 within {NEAR:g} mmHg, batches of {BATCH}"]
    for correction in CORRECTIONS:
        made = {name: cells_of(d, records, correction) for name, d in matrices.items()}
        for kind, heads in (("near", ["own patient nearest", *many]), ("far", hubs)):
            print(f"\n**SYNTHETIC, {kind}, correction: {correction}** (n = {count})")
            begin(["distance", *heads])
            for name, cells in made.items():
                line([name, *cells[kind]])
    print(f"\n**SYNTHETIC, from the {NEAREST} nearest records of other patients** (n = {count})")
    begin(["distance", "mPCWP, Pearson r", f"mPCWP > {HIGH:g}, AUROC", "sex, AUROC", "age, r"])
    tasks = [("pearson_r", mpcwp), ("auroc", (mpcwp > HIGH) * 1.0)]
    tasks += [("auroc", records.labels["sex"]), ("pearson_r", records.labels["age"])]
    for name, distance in matrices.items():
        cells = []
        for how, value in tasks:
            of = statistic_of(how, value, predicted(distance, value, patient, NEAREST))
            cells.append(bounded(*estimated(of, how, patient), 3))
        line([name, *cells])


HEADS = ("mPCWP apart, mmHg", f"within {NEAR:g}", f"same side of {HIGH:g}")

if __name__ == "__main__":
    import sys

    print_synthetic(Path(sys.argv[1]))
