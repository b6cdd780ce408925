"""What labels are worth: curves over the share of labelled patients, and how one reaches another.

Seeds draw the labelled patients (and all else in training), the bootstrap draws test patients: two
sources of doubt, each with an interval of its own. Neither holds the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student
from sklearn.isotonic import isotonic_regression

from ecgfast.eval import regression
from ecgfast.eval.bootstrap import Floats, Statistic, checked, interval, replicate
from ecgfast.eval.classification import Curve, auprc, auroc

REACHED, BELOW, NEVER = "reached", "at the smallest", "not reached"


def statistic(task: str, label: ArrayLike, score: ArrayLike, patient: ArrayLike) -> Statistic:
    """The metrics of a task as a function of weights ``(B, N)``.

    Args:
        task: classification (auroc, auprc), multiclass (auroc_macro: the mean over the classes of
            each against the rest) or regression (mae, rmse, pearson_r, r2).
        label: ``(N,)``; classes from 0 on.
        score: ``(N,)``, or ``(N, C)`` of more than two classes.
        patient: ``(N,)`` ids.

    Raises:
        ValueError: An entry is not finite, or is no class.
    """
    if task == "multiclass":
        return _macro(np.asarray(label, np.float64), np.asarray(score, np.float64), patient)
    y, s, _ = checked(label, score, patient, classes=task == "classification")
    if task == "classification":
        curve = Curve(y, s)

        def of_classes(weights: Floats) -> Mapping[str, Floats]:
            tp, fp = curve(weights)
            return {"auroc": auroc(tp, fp), "auprc": auprc(tp, fp)}

        return of_classes
    inner = regression.statistic(y, s)

    def of_values(weights: Floats) -> Mapping[str, Floats]:
        found = inner(weights)
        return {name: found[name] for name in ("mae", "rmse", "pearson_r", "r2")}

    return of_values


def _macro(label: Floats, score: Floats, patient: ArrayLike) -> Statistic:
    if score.ndim != 2 or score.shape[1] < 2:
        raise ValueError(f"scores of classes must be (N, C), got {score.shape}")
    curves = [
        Curve(*checked(label == c, score[:, c], patient, classes=True)[:2])
        for c in range(score.shape[1])
    ]

    def of(weights: Floats) -> Mapping[str, Floats]:
        areas = [auroc(*curve(weights)) for curve in curves]
        return {"auroc_macro": np.mean(areas, axis=0)}

    return of


def over_seeds(values: ArrayLike, *, level: float = 0.95) -> dict[str, Any]:
    r"""Mean of a number that each seed gave, with Student's interval.

    .. math:: \bar v \pm t_{S - 1} \, s / \sqrt S

    It speaks of other draws of labelled patients (and of training), not of other test patients.

    Args:
        values: ``(S,)``; those that are not finite are left out and counted.
        level: Of confidence.

    Returns:
        estimate, lo, hi (None where there is none), sd, seeds (how many gave a number), reason
        (why there is no interval; else None).
    """
    given = np.asarray(values, np.float64)
    known = given[np.isfinite(given)]
    n = len(known)
    mean = float(known.mean()) if n else None
    sd = float(known.std(ddof=1)) if n > 1 else None
    row = {"estimate": mean, "lo": None, "hi": None, "sd": sd, "seeds": n, "reason": None}
    if mean is None or sd is None:
        return row | {"reason": f"an interval needs two seeds, {n} of {len(given)} gave a number"}
    if sd <= 1e-12 * max(1.0, abs(mean)):
        return row | {"reason": f"all {n} seeds gave the same: nothing was drawn"}
    half = float(student.ppf((1 + level) / 2, n - 1)) * sd / n**0.5
    return row | {"lo": mean - half, "hi": mean + half}


def over_patients(
    statistics: Sequence[Sequence[Statistic]],
    patient: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Floats]:
    """Replicates of the mean over the seeds of each cell, all cells on the same drawn patients.

    Differences of two cells' replicates are therefore paired.

    Args:
        statistics: For each cell one statistic a seed.
        patient: ``(N,)`` ids of the test records.
        draws: How many.
        seed: Of the draws.

    Returns:
        For each metric ``(draws, cells)``.
    """

    def of(weights: Floats) -> Mapping[str, Floats]:
        cells = []
        for seeds in statistics:
            found = [one(weights) for one in seeds]
            cells.append({name: np.mean([f[name] for f in found], axis=0) for name in found[0]})
        return {name: np.stack([cell[name] for cell in cells], axis=1) for name in cells[0]}

    return replicate(of, patient, draws=draws, seed=seed)


def bounds(estimate: float | None, values: Floats, level: float = 0.95) -> dict[str, Any]:
    """Percentile interval of replicates ``(B,)``, or why there is none."""
    value = np.nan if estimate is None else estimate
    lo, hi, reason = interval(value, values, level=level)
    return {"lo": lo, "hi": hi, "reason": reason}


def monotone(values: ArrayLike, *, falling: bool = False) -> Floats:
    """The nearest curve that never gets worse with more labels (isotonic, by least squares).

    Args:
        values: ``(F,)`` by growing fraction.
        falling: Whether less is better.
    """
    return np.asarray(isotonic_regression(np.asarray(values, np.float64), increasing=not falling))


def reach(
    fraction: ArrayLike, values: ArrayLike, target: float, *, falling: bool = False
) -> tuple[float | None, str]:
    """The least share of labels with which a curve is as good as a target.

    The curve is made monotone and then straight between its points, over the logarithm of the
    share. Outside its points nothing is assumed.

    Args:
        fraction: ``(F,)``, growing, in (0, 1].
        values: ``(F,)``.
        target: What is to be reached.
        falling: Whether less is better.

    Returns:
        The share, or None; and ``reached``, ``at the smallest`` (its least share is as good
        already) or ``not reached``.

    Example:
        >>> reach([0.01, 0.1, 1.0], [0.6, 0.7, 0.8], 0.7)
        (0.1, 'reached')
    """
    x = np.asarray(fraction, np.float64)
    y = monotone(values, falling=falling)
    if x.shape != y.shape or x.ndim != 1 or not len(x) or (np.diff(x) <= 0).any() or x[0] <= 0:
        raise ValueError(
            f"fraction and values must be (F,) each, fractions growing, got {x.shape} and {y.shape}"
        )
    return _reach(x, y, target, falling)


def _reach(x: Floats, y: Floats, target: float, falling: bool) -> tuple[float | None, str]:
    """``reach`` on a curve that is monotone already."""
    if falling:
        y, target = -y, -target
    tolerance = 1e-12 * max(1.0, abs(target))
    if y[0] > target + tolerance:
        return None, BELOW
    if y[-1] < target - tolerance:
        return None, NEVER
    at = int(np.argmax(y >= target - tolerance))
    if at == 0 or y[at] <= target + tolerance:
        return float(x[at]), REACHED
    share = (target - y[at - 1]) / (y[at] - y[at - 1])
    return float(np.exp(np.log(x[at - 1]) + share * np.log(x[at] / x[at - 1]))), REACHED


def label_ratio(
    fraction: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    falling: bool = False,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """With how many labels A is as good as B: A with x % equals B with y %.

    Both mean curves are made monotone; B's value at each of its fractions is looked up on A's. The
    interval draws seeds, the same for both: with few seeds it is rough, and a bound may lie outside
    the curve. Then the bound says so instead of a number.

    Args:
        fraction: ``(F,)``, growing.
        a: ``(S, F)`` values by seed.
        b: ``(S, F)``, seed by seed those of the same subsets.
        falling: Whether less is better.
        draws: Of seeds.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        For each fraction of B: ``b_fraction``, ``value`` (B's, on its monotone curve), ``state``
        (see ``reach``), ``a_fraction``, ``ratio`` (a_fraction / b_fraction; below 1 A needs
        fewer), ``lo`` and ``hi`` of ``a_fraction`` (a number; or the state that the bound is in;
        None with one seed), ``draws_reached`` (share of the draws).
    """
    x = np.asarray(fraction, np.float64)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1:] != x.shape:
        raise ValueError(
            f"a and b must be (S, F) each with F fractions, got {first.shape}, {second.shape} and "
            f"{x.shape}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a or b has values that are not finite")
    targets = monotone(second.mean(0), falling=falling)
    seeds = len(first)
    drawn = np.random.default_rng(seed).integers(seeds, size=(draws, seeds))
    found = np.empty((draws, len(x)))
    for i, rows in enumerate(drawn if seeds > 1 else ()):
        goals = monotone(second[rows].mean(0), falling=falling)
        curve = monotone(first[rows].mean(0), falling=falling)
        found[i] = [_place(*_reach(x, curve, goal, falling)) for goal in goals]
    rows_out = []
    for j, (share, target) in enumerate(zip(x, targets, strict=True)):
        at, state = reach(x, first.mean(0), float(target), falling=falling)
        row = {
            "b_fraction": float(share),
            "value": float(target),
            "state": state,
            "a_fraction": at,
            "ratio": None if at is None else at / float(share),
        }
        lo = hi = reached = None
        if seeds > 1:
            # no interpolation between draws: one of two neighbours may be beyond the curve
            quantiles = [(1 - level) / 2, (1 + level) / 2]
            ends = np.quantile(found[:, j], quantiles, method="inverted_cdf")
            lo, hi = (_word(float(end)) for end in ends)
            reached = float(np.isfinite(found[:, j]).mean())
        rows_out.append({**row, "lo": lo, "hi": hi, "draws_reached": reached})
    return rows_out


def _place(at: float | None, state: str) -> float:
    if at is not None:
        return at
    return -np.inf if state == BELOW else np.inf


def _word(value: float) -> float | str:
    if np.isfinite(value):
        return value
    return NEVER if value > 0 else BELOW
