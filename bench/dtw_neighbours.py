"""What cost, band, rate and scale do to the neighbours that dtw finds on real records.

    python bench/dtw_neighbours.py ../shared OUT

Prints Markdown tables. OUT keeps the stores and the distances: the first run takes minutes, the
next one takes seconds. Nothing is trained.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from cases import (
    BAND,
    BATCH,
    SCALES,
    Case,
    Records,
    batches_of,
    distances,
    measured,
    records_of,
    sinus_rhythm,
    stores,
)
from neighbours import (
    SEED,
    agreement,
    begin,
    least_warped,
    line,
    neighbours,
    removable,
    share_of_cells,
    written,
)
from tables import print_predicted, print_shared

from ecgfast import _C
from ecgfast.ops import resample_poly
from ecgfast.ops.dtw import COSTS
from ecgfast.transforms.signal import Prepare

RADII = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, None)  # seconds; None is the full window
WIDE = (0.2, 0.5, 1.0, None)


def converted(shared: Path) -> dict[str, list[str | int | Path]]:
    """What the conversion of each set is told."""
    data = shared / "data"
    ptbxl, challenge = data / "ptb-xl-500", data / "challenge-2021"
    sites = ("cpsc_2018", "cpsc_2018_extra", "georgia", "chapman_shaoxing", "ningbo")
    return {
        "PTB-XL": ["--records", ptbxl / "RECORDS100", ptbxl],
        "Challenge 2021": ["--min-seconds", 10, *(challenge / site for site in sites)],
        "CODE-15": ["--seconds", 7, data / "code15-153"],
        "PTB-XL, 250 Hz": ["--fs", 250, "--records", ptbxl / "RECORDS500", ptbxl],
    }


def begun(case: Case, samples: int, full: int) -> list[str]:
    """Rate, radius and cells of a case."""
    width = "full" if case.radius is None else f"{case.radius:g} s"
    part = 100 * share_of_cells(samples, case.reach, full)
    return [f"{case.fs:g} Hz", width, f"{part:.0f} %" if part >= 10 else f"{part:.2g} %"]


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
        ecg = Prepare(fs=records.fs, band=BAND, normalise=scale)(records.ecg)
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
    ecg = Prepare(fs=records.fs, band=BAND)(records.ecg[:BATCH])
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
    parser = argparse.ArgumentParser()
    parser.add_argument("shared", type=Path, help="the folder that holds data/")
    parser.add_argument("out", type=Path, help="for stores and distances")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()},")
    print(f"{_C.build_info()['isa']}, {torch.get_num_threads()} threads, seed {SEED}")
    print("\n## Records")
    counted = ("stored", "second copies", "used", "patients", "patients with several")
    begin(["set", *counted, "signal", "known"])
    sets = []
    words = converted(given.shared)
    for name, store in zip(words, stores(words, given.out), strict=True):
        records, about = records_of(name, [store], sinus_rhythm)
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
    print_predicted(ptbxl, many, pairs(many), given.out)
    print_predicted(challenge, main_ones, pairs(main_ones), given.out)
    print_predicted(code15, main_ones, pairs(main_ones), given.out)


if __name__ == "__main__":
    main()
