"""What cost, band, rate and scale do to the neighbours that dtw finds on real records.

    python bench/dtw_neighbours.py ../shared OUT

Prints Markdown tables. OUT keeps the stores and the distances: the first run takes minutes, the
next one takes seconds. Nothing is trained.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from neighbours import (
    DRAWS,
    SEED,
    Batches,
    Floats,
    agreement,
    begin,
    bounded,
    largest_hub,
    least_warped,
    line,
    middle,
    neighbours,
    predicted,
    rank_of_own,
    removable,
    share_of_cells,
    shared,
    statistic_of,
    written,
)
from numpy.typing import NDArray
from torch import Tensor

from ecgfast import _C
from ecgfast.data.store import ECGStore
from ecgfast.eval.bootstrap import interval, replicate
from ecgfast.eval.comparison import difference
from ecgfast.miners.distance import lead_dtw
from ecgfast.ops import dtw, pairwise_distance, resample_poly
from ecgfast.ops.dtw import COSTS
from ecgfast.transforms.signal import Prepare

BAND = (0.5, 40.0)  # Hz, zero phase
BATCH, BATCHES = 64, 200
NEAREST = 15  # of which a label is predicted
ALIKE = 0.99  # correlation from which on two records are taken for one recording
RADII = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, None)  # seconds; None is the full window
WIDE = (0.2, 0.5, 1.0, None)
SCALES = {"none": "mV", "lead": "z", "record": "rec"}
LABELS = {"norm": "auroc", "sex": "auroc", "age": "pearson_r"}
SINUS_RHYTHM = "426783006"  # SNOMED CT, where it is a record's only code


class Records(NamedTuple):
    """A set: millivolts after the band-pass ``(N, 12, T)``, people, labels (NaN: unknown)."""

    name: str
    fs: float
    ecg: Tensor
    patient: NDArray[np.str_]
    labels: dict[str, Floats]


class Case(NamedTuple):
    """A distance: of what scale, by what metric, at what rate, with what radius in seconds."""

    scale: str
    metric: str
    fs: float
    radius: float | None = None

    @property
    def reach(self) -> int | None:
        """The radius in samples."""
        return None if self.radius is None else round(self.radius * self.fs)

    def __str__(self) -> str:
        where = "full" if self.radius is None else f"{self.radius:g} s"
        rate = "" if self.fs == 100 else f", {self.fs:g} Hz"
        plain = {"euclidean": "Euclidean", "mean_l1": "mean L1", "lead_dtw": "DTW over the leads"}
        how = plain.get(self.metric) or f"DTW {self.metric.removeprefix('dtw ')}, {where}"
        return f"{SCALES[self.scale]}, {how}{rate}"


def stores(shared: Path, out: Path) -> Iterator[tuple[str, ECGStore]]:
    """Converts what is not there yet."""
    data = shared / "data"
    ptbxl, challenge = data / "ptb-xl-500", data / "challenge-2021"
    sites = ("cpsc_2018", "cpsc_2018_extra", "georgia", "chapman_shaoxing", "ningbo")
    words = {
        "PTB-XL": ["--records", ptbxl / "RECORDS100", ptbxl],
        "Challenge 2021": ["--min-seconds", 10, *(challenge / site for site in sites)],
        "CODE-15": ["--seconds", 7, data / "code15-153"],
        "PTB-XL, 250 Hz": ["--fs", 250, "--records", ptbxl / "RECORDS500", ptbxl],
    }
    for name, how in words.items():
        store = out / name.lower().replace(", ", "-").replace(" ", "-")
        if not (store / "store.json").exists():
            usual = ["--fs", 100, "--seconds", 10]
            command = [sys.executable, "-m", "ecgfast", "convert", *usual, *how, store]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        yield name, ECGStore.open(store)


def records_of(name: str, store: ECGStore) -> tuple[Records, list[str]]:
    """What is left of a store without second copies, and a line of counts."""
    fs, table = store.signal.fs, store.manifest
    ecg = torch.from_numpy(np.stack([store.read(i) for i in range(len(store))]))
    ecg = Prepare(fs=fs, band=BAND)(ecg)
    ids = table["patient_id"].astype(str).to_numpy()
    patient = np.where(ids == "", "record " + table["record_id"].astype(str).to_numpy(), ids)
    flat = ecg.flatten(1).double()
    flat = flat / flat.norm(dim=1, keepdim=True)
    twin = (flat @ flat.mT).numpy() > ALIKE
    kept = np.flatnonzero(~np.tril(twin, -1).any(axis=1))
    if "dx" in table:
        table = table.assign(norm=(table["dx"] == SINUS_RHYTHM).astype(np.float64))
    labels = {key: table[key].to_numpy(np.float64)[kept] for key in LABELS if key in table}
    counts = np.unique(patient[kept], return_counts=True)[1]
    known = ", ".join(f"{key} {np.isfinite(value).sum()}" for key, value in labels.items())
    about = [
        name,
        *map(str, (len(store), len(store) - len(kept), len(kept), len(counts))),
        f"{(counts > 1).sum()} ({counts[counts > 1].sum()} records)",
        f"{ecg.shape[2] / fs:g} s at {fs:g} Hz",
        known,
    ]
    return Records(name, fs, ecg[torch.from_numpy(kept)], patient[kept], labels), about


def distances(records: Records, case: Case, out: Path) -> NDArray[np.float32]:
    """The matrix ``(N, N)`` of a case, from OUT if it is there."""
    place = "full" if case.radius is None else f"{case.radius:g}s"
    words = (records.name, case.scale, case.metric, f"{case.fs:g}Hz", place)
    path = out / "distances" / ("-".join(words).lower().replace(" ", "-") + ".npy")
    if path.exists():
        return np.load(path)
    ecg = Prepare(fs=records.fs, normalise=case.scale)(records.ecg)
    if case.fs != records.fs:
        ecg = resample_poly(ecg, round(case.fs), round(records.fs), padtype="line")
    made = measured(ecg, case).numpy()
    path.parent.mkdir(exist_ok=True)
    np.save(path, made)
    return made


def measured(ecg: Tensor, case: Case) -> Tensor:
    """All pairs of ``(N, L, T)`` that are prepared for the case."""
    if case.metric == "lead_dtw":
        return lead_dtw(ecg)
    if not case.metric.startswith("dtw "):
        return pairwise_distance(ecg.flatten(1), metric=case.metric)
    return dtw(ecg, cost=case.metric.removeprefix("dtw "), radius=case.reach)


def begun(case: Case, samples: int, full: int) -> list[str]:
    """Rate, radius and cells of a case."""
    width = "full" if case.radius is None else f"{case.radius:g} s"
    part = 100 * share_of_cells(samples, case.reach, full)
    return [f"{case.fs:g} Hz", width, f"{part:.0f} %" if part >= 10 else f"{part:.2g} %"]


def batches_of(count: int) -> Batches:
    """Random batches, the same for every distance."""
    draw = np.random.default_rng(SEED)
    return [draw.permutation(count)[:BATCH] for _ in range(BATCHES)]


def print_agreement(records: Records, cases: Sequence[Case], out: Path) -> None:
    """Nearest and farthest against the full window at the set's own rate, cost by cost."""
    count, samples = len(records.ecg), records.ecg.shape[2]
    metrics = list(dict.fromkeys(case.metric for case in cases))
    heads = [f"{m.removeprefix('dtw ')}: {w}" for m in metrics for w in ("nearest", "farthest 2")]
    everyone = [np.arange(count)]
    for scale in dict.fromkeys(case.scale for case in cases):
        for where, batches in (("whole set", everyone), ("batches of 64", batches_of(count))):
            print(f"\n**{records.name}, {SCALES[scale]}, {where}** (n = {count})")
            begin(["rate", "radius", "cells", *heads])
            whole = {m: distances(records, Case(scale, m, records.fs), out) for m in metrics}
            truth = {m: neighbours(distance, batches) for m, distance in whole.items()}
            for fs, radius in dict.fromkeys((c.fs, c.radius) for c in cases if c.scale == scale):
                if (fs, radius) == (records.fs, None):
                    continue
                cells = []
                for metric in metrics:
                    case = Case(scale, metric, fs, radius)
                    found = neighbours(distances(records, case, out), batches)
                    both = agreement(found, truth[metric], count)
                    cells += [written(values, records.patient) for values in both]
                line([*begun(case, round(samples * fs / records.fs), samples), *cells])


def print_shared(records: Records, cases: Sequence[Case], out: Path) -> None:
    """What the nearest neighbour shares, who the farthest are."""
    count, labels = len(records.ecg), records.labels
    again = bool(np.isfinite(rank_of_own(np.ones((count, count)), records.patient)).any())
    heads = [{"age": "age apart, years"}.get(key, f"same {key}") for key in labels]
    own = ["own patient nearest", "others nearer (median)"] * again
    columns = [*heads, *(f"{h}, batches" for h in heads), *own, "hub of nearest", "hub of farthest"]
    print(f"\n**{records.name}** (n = {count})")
    begin(["distance", *columns])
    everyone, batches = [np.arange(count)], batches_of(count)
    for case in cases:
        distance = distances(records, case, out)
        found = neighbours(distance, everyone)
        cells = []
        for which in (found, neighbours(distance, batches)):
            for key, values in shared(which, labels, count).items():
                cells.append(written(values, records.patient, 1 if key == "age" else 2))
        if again:
            rank = rank_of_own(distance, records.patient)
            first = np.where(np.isfinite(rank), rank == 0, np.nan)
            cells += [written(first, records.patient), written(rank, records.patient, 0, middle)]
        cells += [str(largest_hub(found.nearest)), str(largest_hub(found.farthest))]
        line([str(case), *cells])
    line(["chance", *_chance(records, everyone, again)])


def _chance(records: Records, everyone: Batches, again: bool) -> list[str]:
    """The same of distances that are drawn at random: means over 100 matrices."""
    count, draw, rows = len(records.ecg), np.random.default_rng(SEED), []
    for _ in range(100):
        distance = draw.random((count, count))
        distance += distance.T
        found = neighbours(distance, everyone)
        alike = shared(found, records.labels, count)
        row = [np.nanmean(values) for values in alike.values()]
        if again:
            rank = rank_of_own(distance, records.patient)
            row += [np.mean(rank[np.isfinite(rank)] == 0), np.nanmedian(rank)]
        rows.append([*row, largest_hub(found.nearest), largest_hub(found.farthest)])
    means = list(np.mean(rows, axis=0))
    same = [f"{means.pop(0):.{1 if key == 'age' else 2}f}" for key in records.labels]
    own = [f"{means.pop(0):.3f}", f"{means.pop(0):.0f}"] if again else []
    return [*same, *same, *own, *(f"{hub:.0f}" for hub in means)]


def print_predicted(records: Records, cases: Sequence[Case], out: Path) -> None:
    """Labels from the nearest records of other patients."""
    labels = {key: LABELS[key] for key in records.labels}
    names = [f"{'AUROC' if how == 'auroc' else 'Pearson r'} {key}" for key, how in labels.items()]
    print(f"\n**{records.name}** (n = {len(records.ecg)})")
    begin(["distance", *names])
    scores = {}
    for case in cases:
        distance, cells = distances(records, case, out), []
        for key, how in labels.items():
            value = records.labels[key]
            known = np.isfinite(value)
            score = predicted(distance, value, records.patient, NEAREST)[known]
            scores[case, key] = value[known], score, records.patient[known]
            of = statistic_of(how, value[known], score)
            estimate = float(of(np.ones((1, known.sum())))[how][0])
            draws = replicate(of, records.patient[known], draws=DRAWS, seed=SEED)[how]
            cells.append(bounded(estimate, *interval(estimate, draws)[:2], 3))
        line([str(case), *cells])
    begin(["difference", *names])
    for a, b in pairs(cases):
        cells = []
        for key, how in labels.items():
            value, first, patient = scores[a, key]
            row = difference(how, value, first, scores[b, key][1], patient, draws=DRAWS, seed=SEED)
            cells.append(bounded(row["estimate"], row["lo"], row["hi"], 3))
        line([f"{a} minus {b}", *cells])


def pairs(cases: Sequence[Case]) -> Iterator[tuple[Case, Case]]:
    """What is compared: warping against none, the costs, the band, the rate."""
    others = [("mean_l1", 100.0, None), ("dtw sqeuclidean", 100.0, 1.0)]
    others += [("dtw euclidean", 100.0, 1.0), ("dtw l1", 100.0, None), ("dtw l1", 100.0, 0.5)]
    others += [("dtw l1", 100.0, 0.2), ("dtw l1", 50.0, 1.0), ("dtw l1", 25.0, 1.0)]
    for scale in dict.fromkeys(case.scale for case in cases):
        for other in others:
            a, b = Case(scale, "dtw l1", 100.0, 1.0), Case(scale, *other)
            if a in cases and b in cases:
                yield a, b


def print_bounds(records: Records, out: Path) -> None:
    """What LB_Keogh, and the distance without warping from above, could spare in a batch."""
    begin(["scale", "cost", "radius", "for the nearest", "for the farthest 2"])
    for scale in ("none", "lead"):
        ecg = Prepare(fs=records.fs, normalise=scale)(records.ecg)
        for cost in ("sqeuclidean", "l1"):
            still = distances(records, Case(scale, f"dtw {cost}", records.fs, 0.0), out)
            for radius in WIDE[:-1]:
                case = Case(scale, f"dtw {cost}", records.fs, radius)
                distance, shares = distances(records, case, out), []
                for rows in batches_of(len(ecg))[:4]:
                    least = least_warped(ecg[torch.from_numpy(rows)], case.reach or 0, cost)
                    inside = np.ix_(rows, rows)
                    shares.append(removable(distance[inside], least.numpy(), still[inside]))
                mean_shares = (f"{100 * share:.1f} %" for share in np.mean(shares, axis=0))
                line([SCALES[scale], cost, f"{radius:g} s", *mean_shares])


def print_times(records: Records) -> None:
    """One batch: time of a core, the best of three."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ecg = records.ecg[:BATCH]
    begin(["rate", "radius", "cells", *COSTS])
    for fs in (100.0, 50.0, 25.0):
        x = resample_poly(ecg, round(fs), round(records.fs), padtype="line")
        for radius in reversed(WIDE):
            cells = []
            for cost in COSTS:
                case, times = Case("none", f"dtw {cost}", fs, radius), []
                for _ in range(3):
                    start = time.process_time()
                    measured(x, case)
                    times.append(time.process_time() - start)
                cells.append(f"{1000 * min(times):.0f} ms")
            line([*begun(case, x.shape[2], ecg.shape[2]), *cells])
    torch.set_num_threads(threads)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("shared", type=Path, help="the folder that holds data/")
    words.add_argument("out", type=Path, help="for stores and distances")
    given = words.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()},")
    print(f"{_C.build_info()['isa']}, {torch.get_num_threads()} threads, seed {SEED}")
    print("\n## Records")
    counted = ("stored", "second copies", "used", "patients", "patients with several")
    begin(["set", *counted, "signal", "known"])
    sets = []
    for name, store in stores(given.shared, given.out):
        records, about = records_of(name, store)
        sets.append(records)
        line(about)
    ptbxl, challenge, code15, fast = sets
    warped = [f"dtw {cost}" for cost in COSTS]
    scales = ("none", "lead")

    print("\n## Agreement with the full window at the full rate")
    slower = [(100.0, r) for r in RADII] + [(fs, r) for fs in (50.0, 25.0) for r in WIDE]
    print_agreement(
        ptbxl, [Case(s, m, *h) for s in scales for m in warped for h in slower], given.out
    )
    few = [(100.0, 0.2), (100.0, 0.5), (100.0, 1.0), (50.0, None), (50.0, 1.0), (25.0, 1.0)]
    print_agreement(challenge, [Case("none", m, *h) for m in warped for h in few], given.out)
    print_agreement(code15, [Case("none", m, *h) for m in warped for h in few], given.out)
    halved = [(250.0, r) for r in WIDE]
    halved += [(fs, r) for fs in (125.0, 50.0) for r in (0.5, 1.0, None)]
    two = ("dtw sqeuclidean", "dtw l1")
    print_agreement(fast, [Case("none", m, *h) for m in two for h in halved], given.out)

    print("\n## Time of a batch of 64")
    print_times(ptbxl)
    print("\n## Pairs of a batch that bounds could spare at best")
    print_bounds(ptbxl, given.out)

    plain = ("euclidean", "mean_l1", "lead_dtw")
    bands = {"none": WIDE, "lead": WIDE, "record": WIDE[:-1]}
    many = [
        case
        for scale, radii in bands.items()
        for case in (
            *(Case(scale, metric, 100.0) for metric in plain),
            *(Case(scale, metric, 100.0, radius) for metric in warped for radius in radii),
            *(Case(scale, "dtw l1", fs, 1.0) for fs in (50.0, 25.0) if scale in scales),
        )
    ]
    main_ones = [
        case
        for scale in scales
        for case in (
            *(Case(scale, metric, 100.0) for metric in plain),
            *(Case(scale, metric, 100.0, 1.0) for metric in warped),
            Case(scale, "dtw l1", 100.0, 0.5),
            Case(scale, "dtw l1", 50.0, 1.0),
        )
    ]
    print("\n## What neighbours share")
    print_shared(ptbxl, many, given.out)
    print_shared(challenge, main_ones, given.out)
    print_shared(code15, main_ones, given.out)
    print("\n## Labels from the 15 nearest records of other patients")
    print_predicted(ptbxl, many, given.out)
    print_predicted(challenge, main_ones, given.out)
    print_predicted(code15, main_ones, given.out)


if __name__ == "__main__":
    main()
