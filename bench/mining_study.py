"""Whom do distances between ECGs call near and far? Every real record here, and a SYNTHETIC cohort.

    python bench/mining_study.py ../shared OUT > tables.md

Prints Markdown tables and draws two figures into OUT, which keeps the stores and the distances too:
the first run takes 20 minutes of CPU time, the next one a few for the intervals. Nothing is
trained.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cases import (
    AnyCase,
    Both,
    Case,
    Records,
    batches_of,
    distances,
    records_of,
    sinus_rhythm,
    stores,
    viewed,
)
from neighbours import (
    CORRECTIONS,
    SEED,
    begin,
    bounded,
    by_anchor,
    corrected,
    estimated,
    largest_hub,
    line,
    middle,
    neighbours,
    occurrence,
    rank_of_own,
    shared,
    skewness,
    statistic_of,
    written,
)
from study_figures import draw_hubs, draw_main
from study_synthetic import print_synthetic
from tables import against, print_predicted, print_shared

from ecgfast import _C

TWO = ("none", "lead")  # mV, z
MV, Z = (Case(scale, "dtw l1", 50.0, 0.5) for scale in TWO)
MV_L1, Z_L1 = (Case(scale, "mean_l1") for scale in TWO)
MV_BEAT, Z_BEAT = (Case(scale, "mean_l1", view="beat") for scale in TWO)
PLAIN = ("euclidean", "mean_l1", "spectrum", "spectrum l1")
KEEP = ["--policy", "flat_line=keep,unit_suspect=keep"]

FAMILIES: dict[str, list[AnyCase]] = {
    "Distance": [
        *(Case(scale, metric) for scale in ("lead", "none", "record") for metric in PLAIN),
        *(Case(s, "dtw sqeuclidean", 50.0, 0.5) for s in ("lead", "none")),
        *(Case(s, "dtw l1", 50.0, r) for s in ("lead", "none") for r in (0.2, 0.5, 1.0)),
        Case("record", "dtw l1", 50.0, 0.5),
        *(Case("robust", metric) for metric in ("euclidean", "mean_l1")),
        Case("robust", "dtw l1", 50.0, 0.5),
    ],
    "Median beats": [
        *(Case(s, m, view="beat") for s in ("lead", "none", "record") for m in PLAIN[:2]),
        *(Case(s, "dtw l1", 100.0, r, "beat") for s in ("lead", "none") for r in (0.03, 0.1)),
        *(Both(Case(s, "dtw l1", 50.0, 0.5), Case(s, "mean_l1", view="beat")) for s in TWO),
    ],
    "Slopes": [Case(s, "dtw l1", 50.0, 0.5, "slope") for s in TWO],
    "Millivolts and z together": [Both(MV, Z, share) for share in (0.25, 0.5, 0.75)],
    "Leads": [
        Case(s, m, fs, r, view, leads)
        for s in TWO
        for leads in ("8", "limb", "V1-V6", "I", "II")
        for m, fs, r, view in (("dtw l1", 50.0, 0.5, "record"), ("mean_l1", 100.0, None, "beat"))
    ],
    "Pass band": [
        Case(s, "dtw l1", 50.0, 0.5, band=band)
        for s in TWO
        for band in (None, (0.5, 25.0), (0.5, 15.0))
    ],
}
SOFT: list[AnyCase] = [
    *(Case("lead", f"soft_dtw {g:g}", 25.0, 0.5) for g in (1, 10)),
    *(Case("none", f"soft_dtw {g:g}", 25.0, 0.5) for g in (0.01, 0.1)),
    *(Case(s, m, 25.0, 0.5) for s in TWO for m in ("dtw sqeuclidean", "dtw l1")),
]
FAST: list[AnyCase] = [Case("none", "dtw l1", fs, 0.5) for fs in (25.0, 50.0, 100.0, 250.0)]
MAIN: list[AnyCase] = [
    *(Case(s, metric) for s in TWO for metric in PLAIN[:3]),
    *(Case(s, "dtw l1", 50.0, r) for s in TWO for r in (0.2, 0.5, 1.0)),
    *(Case(s, "dtw l1", 50.0, 0.5, "slope") for s in TWO),
    MV_BEAT,
    Z_BEAT,
    *(Case(s, "dtw l1", 100.0, 0.1, "beat") for s in TWO),
    Both(MV, Z),
    Both(MV, MV_BEAT),
]
HUBS = [MV_L1, Z_L1, MV, Z, Case("robust", "dtw l1", 50.0, 0.5), MV_BEAT, Z_BEAT]
HUB_PANELS: list[tuple[str, AnyCase, bool]] = [
    ("Mean L1, mV:", MV_L1, False),
    ("DTW l1, mV:", MV, False),
    ("DTW l1, mV:", MV, True),
    ("DTW l1, z:", Z, True),
]


def sets(shared: Path, out: Path) -> Iterable[tuple[Records, list[str]]]:
    """Every set of records that have neighbours."""
    data = shared / "data"
    ptbxl, followup, quality = (
        data / name for name in ("ptb-xl-500", "code15-10-followup", "cinc2011-quality")
    )
    order = "I,II,III,aVR,aVF,aVL,V1,V2,V3,V4,V5,V6"  # not as its readme has it: docs/data.md
    text = ["--format", "text", "--fs-source", 500, "--gain", 200, "--leads-source", order]
    scipy = ["--fs-source", 400, "--units", "mV", "--id-pattern", r"code_15_(\d+)"]
    words = {
        "PTB-XL": ["--records", ptbxl / "RECORDS100", ptbxl],
        "PTB-XL, 500 Hz": ["--fs", 500, "--records", ptbxl / "RECORDS500", ptbxl],
        "Challenge, six sites": ["--min-seconds", 10, *KEEP, data / "challenge-2021"],
        "CODE-15": ["--seconds", 7, data / "code15-153"],
        "CODE-15 followup": [
            *("--seconds", 7, *scipy, "--labels", followup / "meta.csv"),
            *("--id-column", "exam_id", followup),
        ],
        "CinC 2011": [
            *(*KEEP, *text, "--labels", quality / "labels.csv", "--id-column", "record"),
            quality / "set-a-300.tar.xz",
        ],
        "ECG-ID": ["--leads", "I", "--policy", "checksum_mismatch=keep", data / "ecg-id"],
    }
    ptb, fast, challenge, code, more, cinc, ecg_id = stores(words, out)
    yield records_of("PTB-XL", [ptb])
    yield records_of("PTB-XL, 500 Hz", [fast])
    yield records_of("Challenge, six sites", [challenge], sinus_rhythm)
    yield records_of("CODE-15", [code, more])
    yield records_of("CinC 2011", [cinc], acceptable)
    yield records_of("ECG-ID", [ecg_id], persons)


def acceptable(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(unacceptable=(table["quality"] == "unacceptable") * 1.0)


def persons(table: pd.DataFrame) -> pd.DataFrame:
    """ECG-ID: the folder of a record is the person's."""
    return table.assign(patient_id=table["source"].str.extract(r"(Person_\d+)")[0])


def print_both(records: Records, cases: Sequence[AnyCase], out: Path, fs: float = 50.0) -> None:
    """What neighbours share and predict, and how that differs from DTW l1 of 0.5 s."""
    cases = [*cases, *dict.fromkeys(b for _, b in against(cases, fs) if b not in cases)]
    print_shared(records, cases, out)
    print_predicted(records, cases, against(cases, fs), out)


def print_hubs(records: Records, cases: Sequence[AnyCase], out: Path) -> None:
    """Who is far and who is everybody's neighbour, before and after a correction."""
    count, patient, labels = len(records.ecg), records.patient, records.labels
    several = bool(np.isfinite(rank_of_own(np.ones((count, count)), patient)).any())
    key = next(iter(labels))
    heads = [*(["own patient nearest"] * several), f"same {key}", f"same {key}, batches"]
    heads += ["gain, batches"]
    heads += ["10-NN hub", "10-NN of nobody", "10-NN skewness", "farthest 2: hub"]
    heads += ["farthest 2: records ever", f"farthest 2: same {key}", "the same, batches"]
    print(f"\n**{records.name}** (n = {count})")
    begin(["distance", "correction", *heads])
    for case in cases:
        distance = np.asarray(distances(records, case, out), np.float64)
        for name, correct in CORRECTIONS.items():
            whole = corrected(distance, name)
            rank = rank_of_own(whole, patient)
            first = np.where(np.isfinite(rank), rank == 0, np.nan)
            near, far, hub = [written(first, patient)] * several, [], []
            for batches in ([np.arange(count)], batches_of(count)):
                found = neighbours(distance, batches, correct)
                same = shared(found, labels, count)[key]
                near.append(written(same, patient))
                value = labels[key]
                alike = value[found.farthest] == value[found.anchor][:, None]
                far.append(written(by_anchor(found.anchor, alike.mean(axis=1), count), patient))
                ever = str(len(np.unique(found.farthest)))
                hub = hub or [str(largest_hub(found.farthest)), ever]
            if correct is None:
                before = same  # in batches, the last of both
            near.append("" if correct is None else written(same - before, patient))
            often = occurrence(whole, 10)
            crowd = [str(often.max()), str((often == 0).sum()), f"{skewness(often):.1f}"]
            line([str(case), name, *near, *crowd, *hub, *far])


def print_pools(records: Records, cases: Sequence[AnyCase], out: Path) -> None:
    """How good the nearest is, the more records there are to choose from."""
    count, labels = len(records.ecg), records.labels
    print(f"\n**{records.name}** (n = {count})")
    begin(["distance", "pool", *(f"same {key}" for key in ("norm", "sex")), "age apart, years"])
    for case in cases:
        distance = distances(records, case, out)
        for size in (16, 32, 64, 128, 256, count):
            batches = batches_of(count, size) if size < count else [np.arange(count)]
            values = shared(neighbours(distance, batches), labels, count)
            cells = [written(values[key], records.patient) for key in ("norm", "sex")]
            line([str(case), str(size), *cells, written(values["age"], records.patient, 1)])


def print_outliers(records: Records, cases: Sequence[AnyCase], out: Path) -> None:
    """Whether bad records are the far ones."""
    count, patient, bad = len(records.ecg), records.patient, records.labels["unacceptable"]
    print(f"\n**{records.name}** (n = {count}, {bad.mean():.2f} of them unacceptable)")
    begin(["distance", "correction", "farthest 2 unacceptable", "the same, batches", "AUROC"])
    for case in cases:
        distance = np.asarray(distances(records, case, out), np.float64)
        for name, correct in CORRECTIONS.items():
            cells = []
            for batches in ([np.arange(count)], batches_of(count)):
                found = neighbours(distance, batches, correct)
                share = bad[found.farthest].mean(axis=1)
                cells.append(written(by_anchor(found.anchor, share, count), patient))
            whole = corrected(distance, name)
            of = statistic_of("auroc", bad, np.nanmedian(whole, axis=1))
            cells.append(bounded(*estimated(of, "auroc", patient), 3))
            line([str(case), name, *cells])


def print_persons(records: Records, cases: Sequence[AnyCase], out: Path) -> None:
    """The person found again: by any other record, and by one of another day."""
    if records.day is None:
        raise ValueError(f"{records.name} has no days")
    nothing = np.ones((len(records.ecg), len(records.ecg)))
    who = [
        records.patient[np.isfinite(rank_of_own(nothing, records.patient, day))]
        for day in (None, records.day)
    ]
    some, other = (f"{len(rows)} of {len(np.unique(rows))} persons" for rows in who)
    print(f"\n**{records.name}** (n = {len(records.ecg)}; with another record {some}, on another")
    print(f"day {other})")
    kinds = [f"{how}, {when}" for when in ("any day", "another day") for how in ("top 1", "top 5")]
    begin(["distance", *kinds, "records of others nearer (median), another day"])
    for case in cases:
        distance, cells = distances(records, case, out), []
        for day in (None, records.day):
            rank = rank_of_own(distance, records.patient, day)
            for most in (1, 5):
                found = np.where(np.isfinite(rank), rank < most, np.nan)
                cells.append(written(found, records.patient))
        line([str(case), *cells, written(rank, records.patient, 0, middle)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shared", type=Path, help="the folder that holds data/")
    parser.add_argument("out", type=Path, help="for stores, distances and figures")
    parser.add_argument("--only", help="part of a heading, for a look at less")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()},")
    print(f"{_C.build_info()['isa']}, {torch.get_num_threads()} threads, seed {SEED}")
    found = list(sets(given.shared, out))
    ptbxl, fast, challenge, code15, cinc, ecg_id = (records for records, _ in found)

    def head(title: str) -> bool:
        wanted = given.only is None or given.only in title
        if wanted:
            print(f"\n## {title}")
            sys.stdout.flush()
        return wanted

    if head("Records"):
        columns = ["stored", "second copies", "used", "patients", "with several", "", "known"]
        begin(["set", *columns, "of fewer than 3 beats"])
        for records, about in found:
            beats = viewed(records, Case("none", "mean_l1", records.fs, view="beat"))
            line([*about, str(int(beats.isnan().any(2).any(1).sum()))])
    for title, cases in FAMILIES.items():
        if head(f"{title}: PTB-XL"):
            print_both(ptbxl, cases, out)
    if head("Soft minimum: PTB-XL"):
        print_both(ptbxl, SOFT, out, 25.0)
    if head("Rate: PTB-XL at 500 Hz"):
        print_both(fast, FAST, out, 100.0)
    if head("Pool: PTB-XL"):
        print_pools(ptbxl, [MV_L1, MV, Z], out)
    if head("Hubs"):
        print_hubs(ptbxl, HUBS, out)
        print_hubs(challenge, HUBS[:4], out)
    for records in (challenge, code15):
        if head(f"Main distances: {records.name}"):
            print_both(records, MAIN, out)
    if head("Main distances: CinC 2011"):
        print_both(cinc, MAIN, out)
        print_outliers(cinc, HUBS, out)
    if head("Persons: ECG-ID, lead I"):
        print_persons(ecg_id, MAIN, out)
        print_predicted(ecg_id, MAIN, against(MAIN), out)
    if head("SYNTHETIC cohort"):
        print_synthetic(out)
    if head("Figures"):
        draw_main(ptbxl, ecg_id, out)
        draw_hubs(ptbxl, HUB_PANELS, out)


if __name__ == "__main__":
    main()
