"""Who is nearest and farthest in a matrix of distances, what they share, and that in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool1d

from ecgfast.eval import classification, regression
from ecgfast.eval.bootstrap import Statistic, interval, replicate
from ecgfast.miners import hubs

Floats = NDArray[np.float64]
Batches = Sequence[NDArray[np.int64]]
Correction = Callable[[Floats], Floats]
Estimate = tuple[float, float | None, float | None]

DRAWS, SEED = 1000, 0  # of patients
APART = {"age": "years", "mpcwp": "mmHg"}  # numbers, in their units; other labels are classes


class Found(NamedTuple):
    """Who is nearest and who are the two farthest, of each record of each batch."""

    anchor: NDArray[np.int64]
    nearest: NDArray[np.int64]
    farthest: NDArray[np.int64]  # (K, 2)


def neighbours(
    distance: NDArray[np.floating],
    batches: Batches,
    correct: Correction | None = None,
    patient: NDArray[np.str_] | None = None,
) -> Found:
    """Looks in each batch alone; of records equally far the first counts.

    Distances are corrected in each batch, if at all; with ``patient`` the nearest is another's.
    """
    parts = []
    for rows in batches:
        inside = np.array(distance[np.ix_(rows, rows)], np.float64)
        if correct is not None:
            inside = correct(inside)
        who = rows if patient is None else patient[rows]
        inside[who[:, None] == who] = np.inf
        nearest = rows[inside.argmin(axis=1)]
        inside[who[:, None] == who] = -np.inf
        farthest = rows[np.argsort(-inside, axis=1, kind="stable")[:, :2]]
        parts.append((rows, nearest, farthest))
    return Found(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _hubless(how: hubs.Correction) -> Correction:
    """A correction of ``ecgfast.miners.hubs``; the diagonal has no part in it.

    A record that is equally far from all has no proximity: it stays the farthest of all.
    """

    def correct(distance: Floats) -> Floats:
        counts = ~torch.eye(len(distance), dtype=torch.bool)
        made = hubs.corrected(torch.from_numpy(distance), how, counts=counts)
        made[counts & made.isnan()] = made[~made.isnan()].max() + 1
        return made.numpy()

    return correct


CORRECTIONS: dict[str, Correction | None] = {
    "none": None,
    "mutual proximity": _hubless("mutual_proximity"),
    "CSLS": _hubless("csls"),
}


def corrected(distance: NDArray[np.floating], name: str) -> Floats:
    """All distances of a set corrected together."""
    correct, whole = CORRECTIONS[name], np.asarray(distance, np.float64)
    return whole if correct is None else correct(whole)


def summed(first: NDArray[np.floating], second: NDArray[np.floating], share: float) -> Floats:
    """Two distances in the units of their medians, ``share`` of the first."""
    pair = np.triu_indices(len(first), 1)
    scaled = (np.asarray(d, np.float64) / np.median(d[pair]) for d in (first, second))
    return share * next(scaled) + (1 - share) * next(scaled)


def occurrence(distance: Floats, k: int) -> NDArray[np.int64]:
    """How many records have each among their k nearest."""
    apart = np.array(distance, np.float64)
    np.fill_diagonal(apart, np.inf)
    chosen = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.bincount(chosen.reshape(-1), minlength=len(apart))


def skewness(values: NDArray[np.int64]) -> float:
    """Third standardised moment: of k-occurrence, the usual measure of hubs."""
    moved = values - values.mean()
    spread = np.sqrt((moved**2).mean())
    return float((moved**3).mean() / spread**3) if spread > 0 else 0.0


def by_anchor(anchor: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """The mean of each record over the batches that it was in; unknown values do not count."""
    known = np.isfinite(values)
    total = np.bincount(anchor[known], values[known], count)
    times = np.bincount(anchor[known], minlength=count)
    return np.divide(total, times, out=np.full(count, np.nan), where=times > 0)


def agreement(found: Found, truth: Found, count: int) -> tuple[Floats, Floats]:
    """By record: same nearest, and share of the two farthest kept."""
    same = (found.nearest == truth.nearest).astype(np.float64)
    kept = (found.farthest[:, :, None] == truth.farthest[:, None]).any(axis=2).mean(axis=1)
    return by_anchor(truth.anchor, same, count), by_anchor(truth.anchor, kept, count)


def shared(found: Found, labels: dict[str, Floats], count: int) -> dict[str, Floats]:
    """By record: whether the nearest has its label, or how far it is."""
    made = {}
    for key, value in labels.items():
        apart = np.abs(value[found.nearest] - value[found.anchor])
        alike = np.where(np.isfinite(apart), apart == 0, np.nan)
        made[key] = by_anchor(found.anchor, apart if key in APART else alike, count)
    return made


def rank_of_own(
    distance: NDArray[np.floating],
    patient: NDArray[np.str_],
    day: NDArray[np.str_] | None = None,
) -> Floats:
    """How many records of others are nearer than the patient's nearest other one; NaN: no other.

    With ``day`` the patient's records of the same day have no part in it.
    """
    same = patient[:, None] == patient
    others = np.where(same, np.inf, distance)
    own = same & ~np.eye(len(same), dtype=bool) if day is None else same & (day[:, None] != day)
    best = np.where(own, distance, np.inf).min(axis=1)
    return np.where(own.any(axis=1), (others < best[:, None]).sum(axis=1), np.nan)


def largest_hub(chosen: NDArray[np.int64]) -> int:
    """How often the same record is chosen."""
    return int(np.bincount(chosen.reshape(-1)).max())


def predicted(
    distance: NDArray[np.floating], value: Floats, patient: NDArray[np.str_], k: int
) -> Floats:
    """Mean of the k nearest with a known value, own patient left out, by inverse distance."""
    usable = (patient[:, None] != patient) & np.isfinite(value)
    apart = np.where(usable, np.asarray(distance, np.float64), np.inf)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :k]
    weight = 1 / np.maximum(np.take_along_axis(apart, nearest, axis=1), 1e-12)
    used = np.where(weight > 0, value[nearest], 0)
    return (weight * used).sum(axis=1) / weight.sum(axis=1)


def middle(values: Floats) -> Statistic:
    """The (lower) median under weights."""
    order = np.argsort(values)
    ordered = values[order]

    def of(weights: Floats) -> dict[str, Floats]:
        heap = weights[:, order].cumsum(axis=1)
        return {"x": ordered[(heap >= heap[:, -1:] / 2).argmax(axis=1)]}

    return of


def mean(values: Floats) -> Statistic:
    """The mean under weights."""
    return lambda weights: {"x": weights @ values / weights.sum(axis=1)}


def least_warped(x: Tensor, reach: int, cost: str) -> Tensor:
    """LB_Keogh of all pairs ``(N, N)``, the larger of both ways: no warping is nearer.

    What of a record lies outside the envelope of the other, lead by lead (Keogh, VLDB 2002).
    """
    width = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    above, below = max_pool1d(x, **width), -max_pool1d(-x, **width)
    bound = torch.stack(
        [
            outside.square().sum((1, 2)).sqrt() if cost == "sqeuclidean" else outside.sum((1, 2))
            for outside in (
                (x - a).clamp(min=0) + (b - x).clamp(min=0)
                for a, b in zip(above, below, strict=True)
            )
        ]
    )
    return torch.maximum(bound, bound.mT)


def removable(
    distance: NDArray[np.floating], least: NDArray[np.floating], most: NDArray[np.floating]
) -> tuple[float, float]:
    """Shares of pairs that bounds can spare, at best, of a search for the nearest, the farthest.

    A pair is spared where both its records know, from the bounds alone, that it is not their
    nearest, or not among their two farthest: with these known before, as no order could do better.
    """
    apart = np.array(distance, np.float64)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    np.fill_diagonal(apart, -np.inf)
    second = np.sort(apart, axis=1)[:, -2]
    pair = np.triu_indices(len(apart), 1)
    spared = (
        (least > np.maximum(nearest[:, None], nearest))[pair],
        (most < np.minimum(second[:, None], second))[pair],
    )
    return float(spared[0].mean()), float(spared[1].mean())


def share_of_cells(samples: int, reach: int | None, full: int) -> float:
    """Cells inside the band of two records of ``samples``, over ``full ** 2``."""
    outside = 0 if reach is None else max(samples - reach - 1, 0) * max(samples - reach, 0)
    return (samples**2 - outside) / full**2


def estimated(of: Statistic, name: str, patient: NDArray[np.str_]) -> Estimate:
    """A statistic of all records, and its interval over patients."""
    estimate = float(of(np.ones((1, len(patient))))[name][0])
    draws = replicate(of, patient, draws=DRAWS, seed=SEED)[name]
    return estimate, *interval(estimate, draws)[:2]


def written(
    values: Floats,
    patient: NDArray[np.str_],
    digits: int = 2,
    statistic: Callable[[Floats], Statistic] = mean,
) -> str:
    """Estimate and interval over patients; records with no value have no part."""
    known = np.isfinite(values)
    if not known.any():
        return "-"
    return bounded(*estimated(statistic(values[known]), "x", patient[known]), digits)


def bounded(estimate: float, low: float | None, high: float | None, digits: int) -> str:
    """In words for a table."""
    if low is None or high is None:
        return f"{estimate:.{digits}f}"
    return f"{estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def statistic_of(how: str, value: Floats, score: Floats) -> Statistic:
    """The metric as a function of weights."""
    if how == "auroc":
        return classification.statistic(value, score, threshold=0.5)
    return regression.statistic(value, score)


def begin(columns: Sequence[str]) -> None:
    """The first two lines of a table."""
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def line(cells: Sequence[str]) -> None:
    """Another one."""
    print(f"| {' | '.join(cells)} |", flush=True)
