"""Tables of what neighbours share, and of what they predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from cases import LABELS, AnyCase, Both, Case, Records, batches_of, distances
from neighbours import (
    APART,
    DRAWS,
    SEED,
    Batches,
    begin,
    bounded,
    estimated,
    largest_hub,
    line,
    middle,
    neighbours,
    predicted,
    rank_of_own,
    shared,
    statistic_of,
    written,
)

from ecgfast.eval.comparison import difference

NEAREST = 15  # of which a label is predicted


def print_shared(records: Records, cases: Sequence[AnyCase], out: Path) -> None:
    """What the nearest neighbour shares, who the farthest are."""
    count, labels = len(records.ecg), records.labels
    again = bool(np.isfinite(rank_of_own(np.ones((count, count)), records.patient)).any())
    heads = [f"{key} apart, {APART[key]}" if key in APART else f"same {key}" for key in labels]
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
                cells.append(written(values, records.patient, 1 if key in APART else 2))
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
    same = [f"{means.pop(0):.{1 if key in APART else 2}f}" for key in records.labels]
    own = [f"{means.pop(0):.3f}", f"{means.pop(0):.0f}"] if again else []
    return [*same, *same, *own, *(f"{hub:.0f}" for hub in means)]


def print_predicted(
    records: Records, cases: Sequence[AnyCase], pairs: Iterable[tuple[AnyCase, AnyCase]], out: Path
) -> None:
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
            cells.append(bounded(*estimated(of, how, records.patient[known]), 3))
        line([str(case), *cells])
    begin(["difference", *names])
    for a, b in pairs:
        cells = []
        for key, how in labels.items():
            value, first, patient = scores[a, key]
            row = difference(how, value, first, scores[b, key][1], patient, draws=DRAWS, seed=SEED)
            cells.append(bounded(row["estimate"], row["lo"], row["hi"], 3))
        line([f"{a} minus {b}", *cells])


def against(cases: Sequence[AnyCase], fs: float = 50.0) -> list[tuple[AnyCase, AnyCase]]:
    """Each case and DTW l1 of 0.5 s at a rate, of the same scale or of millivolts."""
    made: list[tuple[AnyCase, AnyCase]] = []
    for case in cases:
        scale = case.first.scale if isinstance(case, Both) else case.scale
        other = Case("lead" if scale == "lead" else "none", "dtw l1", fs, 0.5)
        if case != other:
            made.append((case, other))
    return made
