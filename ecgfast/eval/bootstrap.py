"""Intervals from resampled patients, all draws of a block at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Mapping[str, Floats]]

BLOCK = 25  # draws held at a time: 20 MB of weights for 100,000 records
LEAST_PATIENTS = 10  # below this a percentile interval is known to be too narrow
LEAST_PATIENTS_OF_A_CLASS = 5
MOST_UNDEFINED = 0.05  # share of draws


def replicate(
    statistic: Statistic, patient: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Values of a statistic over draws of patients with replacement.

    A draw takes as many patients as there are, each with all of its records: records of one
    patient resemble each other, and drawing them one by one would count them as independent
    evidence. A draw is a row of weights (how often the record's patient was drawn), so that the
    statistic sees a block of draws as one matrix and no record is ever copied. Draw b depends on
    the seed, b and the number of patients alone.

    Args:
        statistic: Takes weights ``(B, N)`` (whole numbers, as float64) and gives for each name
            values ``(B, ...)``, NaN where a draw leaves it undefined.
        patient: ``(N,)`` ids, of any type that sorts.
        draws: How many.
        seed: Of the draws.

    Returns:
        For each name ``(draws, ...)`` values.

    Raises:
        ValueError: If there are no records, or draws is not positive.
    """
    if draws < 1:
        raise ValueError(f"draws must be positive, got {draws}")
    codes = np.unique(np.asarray(patient), return_inverse=True)[1].reshape(-1)
    if not len(codes):
        raise ValueError("no records to draw from")
    blocks = [dict(statistic(weights)) for weights in _weights(codes, draws, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _weights(codes: NDArray[np.int64], draws: int, seed: int) -> Iterator[Floats]:
    count = int(codes.max()) + 1
    for block in range(-(-draws // BLOCK)):
        # a block has a generator of its own: what is held at a time does not show in the numbers
        draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
        rows = np.arange(BLOCK)[:, None] * count
        taken = draw.integers(count, size=(BLOCK, count)) + rows
        times = np.bincount(taken.reshape(-1), minlength=BLOCK * count).reshape(BLOCK, count)
        yield times.astype(np.float64)[: draws - block * BLOCK, codes]


def interval(
    estimate: float, values: Floats, *, level: float = 0.95, pivotal: bool = False
) -> tuple[float | None, float | None, str | None]:
    r"""Bounds of an interval from replicates, or the reason why there are none.

    Percentile: the quantiles of the replicates. Pivotal: those quantiles mirrored at the estimate,
    :math:`[2\hat\theta - q_{hi}, 2\hat\theta - q_{lo}]`, for statistics whose replicates are
    shifted as much as the estimate itself is (the calibration error: noise only adds to it).

    Draws in which the statistic is undefined (one class only, say) are left out: the interval is
    conditional on drawing a sample in which it is defined, which is what redrawing would give.

    Args:
        estimate: Value on the sample; NaN if undefined.
        values: ``(B,)`` replicates.
        level: Of confidence, in (0, 1).
        pivotal: See above.

    Returns:
        Lower bound, upper bound, and the reason why both are None (None otherwise).
    """
    defined = values[np.isfinite(values)]
    missing = len(values) - len(defined)
    if not np.isfinite(estimate):
        return None, None, "undefined on these records"
    if missing > MOST_UNDEFINED * len(values):
        return None, None, f"undefined in {missing} of {len(values)} draws"
    if defined.min() == defined.max():
        return None, None, f"all draws give {defined[0]:.4g}: the bootstrap cannot bound it"
    lo, hi = (float(q) for q in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    return (2 * estimate - hi, 2 * estimate - lo, None) if pivotal else (lo, hi, None)


def row(
    name: str,
    estimate: float,
    values: Floats,
    patient: NDArray[Any],
    *,
    subgroup: str | None = None,
    positives: int | None = None,
    level: float = 0.95,
    support: Mapping[str, int] | None = None,
    pivotal: bool = False,
    undefined: str | None = None,
) -> dict[str, Any]:
    """One line of the table of metrics.

    Args:
        name: Of the metric.
        estimate: Its value on the sample; NaN if undefined.
        values: ``(B,)`` replicates.
        patient: ``(N,)`` ids.
        subgroup: As in ``sex=male``; None for all records.
        positives: Records of the positive class, where there are classes.
        level: Of confidence.
        support: Patients that carry each class the metric needs, by the name of the class.
        pivotal: As for `interval`.
        undefined: Reason to give where the estimate is NaN.

    Returns:
        name, subgroup, n, patients, positives, estimate, lo, hi, level, draws (those in which the
        metric is defined), reason (why a value is None; else None).
    """
    patients = len(np.unique(patient))
    lo, hi, reason = interval(estimate, values, level=level, pivotal=pivotal)
    scarce = {c: k for c, k in (support or {}).items() if k < LEAST_PATIENTS_OF_A_CLASS}
    if not np.isfinite(estimate):
        reason = undefined or reason
    elif patients < LEAST_PATIENTS:
        reason = f"an interval needs {LEAST_PATIENTS} patients, {patients} here"
    elif scarce:
        least = LEAST_PATIENTS_OF_A_CLASS
        found = ", ".join(f"{k} with {c}" for c, k in scarce.items())
        reason = f"an interval needs {least} patients of a class, here {found}"
    if reason is not None:
        lo = hi = None
    return {
        "name": name,
        "subgroup": subgroup,
        "n": len(patient),
        "patients": patients,
        "positives": positives,
        "estimate": float(estimate) if np.isfinite(estimate) else None,
        "lo": lo,
        "hi": hi,
        "level": level,
        "draws": int(np.isfinite(values).sum()),
        "reason": reason,
    }


def no_records(name: str, subgroup: str | None, level: float) -> dict[str, Any]:
    """The line of a metric for a group that nobody belongs to."""
    empty = {"n": 0, "patients": 0, "positives": None, "estimate": None, "lo": None, "hi": None}
    rest = {"level": level, "draws": 0, "reason": "no records"}
    return {"name": name, "subgroup": subgroup, **empty, **rest}


def checked(
    label: ArrayLike, score: ArrayLike, patient: ArrayLike, *, classes: bool
) -> tuple[Floats, Floats, NDArray[Any]]:
    """The arrays in one type, or an error that says what is wrong, where and how often."""
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    patient = np.asarray(patient)
    if not label.shape == score.shape == patient.shape or label.ndim != 1:
        shapes = f"{label.shape}, {score.shape}, {patient.shape}"
        raise ValueError(f"label, score and patient must be (N,) each, got {shapes}")
    if not len(label):
        raise ValueError("no records to score")
    for name, values in (("label", label), ("score", score)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            first = f"first: row {wrong[0]}, patient {patient[wrong[0]]}"
            raise ValueError(f"{len(wrong)} of {len(values)} {name}s are not finite ({first})")
    if classes:
        wrong = np.flatnonzero((label != 0) & (label != 1))
        if len(wrong):
            first = f"first: row {wrong[0]} has {label[wrong[0]]:g}"
            raise ValueError(f"{len(wrong)} of {len(label)} labels are not 0 or 1 ({first})")
    return label, score, patient
