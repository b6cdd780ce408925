"""One run against another on the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.eval import classification, follow_up, multiclass, regression
from ecgfast.eval.bootstrap import Floats, Statistic, checked, replicate, row
from ecgfast.eval.survival import checked_follow_up, from_signed

# a difference of these says nothing of which run is better
LEFT_OUT = {"prevalence", "threshold_at_90_sensitivity"}


def difference(
    name: str,
    label: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    patient: ArrayLike,
    *,
    threshold: float = 0.5,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Metric of a minus metric of b, each draw of patients being shared by both.

    With several training seeds a side, a draw compares the means over the seeds. The interval then
    speaks of other patients, not of other seeds: the values of each seed are given beside it.

    Args:
        name: A metric of `classification_rows` or `regression_rows`, c_index or uno_c.
        label: ``(N,)``; of survival signed times.
        a: Scores ``(N,)`` of one run, or ``(S, N)`` of runs that differ in their seed alone.
        b: Scores of the other, ``(N,)`` or ``(R, N)``; records in the same order.
        patient: ``(N,)`` ids.
        threshold: For metrics that need one.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        A row as `ecgfast.eval.bootstrap.row` gives it, with the metric of each seed under ``a``
        and ``b``, and ``p`` as `differences` has it.

    Raises:
        ValueError: If the metric is unknown, or the arrays are not fit for it.
    """
    task = "classification" if name in classification.NEEDS else "regression"
    task = "survival" if name in ("c_index", "uno_c") else task
    found = differences(
        task,
        label,
        np.atleast_2d(np.asarray(a, np.float64)),
        np.atleast_2d(np.asarray(b, np.float64)),
        patient,
        names=(name,),
        thresholds=(threshold, threshold),
        draws=draws,
        seed=seed,
        level=level,
    )
    return found[0]


def differences(
    task: str,
    label: ArrayLike,
    a: Sequence[ArrayLike] | Floats,
    b: Sequence[ArrayLike] | Floats,
    patient: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    thresholds: tuple[float, float] = (0.5, 0.5),
    classes: Sequence[str] = (),
    tau: float | None = None,
    horizons: Sequence[float] = (),
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    r"""Every metric of a minus that of b, all from the same draws of patients.

    ``p`` is the smallest level of which the percentile interval leaves out 0, from both sides:
    :math:`\min(1, 2 (1 + \min(\#\{d \le 0\}, \#\{d \ge 0\})) / (B + 1))` over B draws d. It is no
    smaller than 2 / (B + 1), however many draws.

    Args:
        task: classification, regression, multiclass or survival.
        label: ``(N,)``; of survival signed times, as `ecgfast.eval.survival.from_signed` has them.
        a: Scores of runs that differ in their seed alone, ``(S, N)``, or ``(S, N, C)``.
        b: Scores of the other, ``(R, N)`` or ``(R, N, C)``; records in the same order.
        patient: ``(N,)`` ids.
        names: Metrics; none takes all that can be compared.
        thresholds: Of a and of b, for classes of a score.
        classes: Names of several classes.
        tau: Of Uno's C; None takes `ecgfast.eval.follow_up.truncation`.
        horizons: Of AUCs of survival; those must be fit for these records.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them, with ``p``, and the metric of each seed
        under ``a`` and ``b``.

    Raises:
        ValueError: If a metric is unknown, or the arrays are not fit for it.
    """
    sides: list[list[Statistic]] = []
    for scores, threshold in zip((a, b), thresholds, strict=True):
        side: list[Statistic] = []
        for one in scores:
            if task == "multiclass":
                y, s, p = multiclass.checked_classes(label, one, patient, len(classes))
                side.append(multiclass.statistic(y, s, classes))
                continue
            if task == "survival":
                time, y = from_signed(label)
                s, time, y, p = checked_follow_up(one, time, y, patient)
                until = follow_up.truncation(time) if tau is None else tau
                side.append(follow_up.statistic(s, time, y, tau=until, horizons=horizons))
                continue
            y, s, p = checked(label, one, patient, classes=task == "classification")
            if task == "classification":
                side.append(classification.statistic(y, s, threshold=threshold))
            else:
                side.append(regression.statistic(y, s))
        sides.append(side)
    once = np.ones((1, len(y)))
    known = [name for name in sides[0][0](once) if name not in LEFT_OUT]
    chosen = list(names or known)
    if unknown := [name for name in chosen if name not in {*known, *LEFT_OUT}]:
        every = ", ".join(dict.fromkeys([*classification.NEEDS, *known]))
        raise ValueError(f"no metric {unknown[0]!r}: one of {every}")

    def each(weights: Floats) -> list[dict[str, Floats]]:
        """Of both sides, the metrics ``(S, B)``."""
        found = []
        for side in sides:
            values = [of(weights) for of in side]
            found.append({name: np.stack([v[name] for v in values]) for name in chosen})
        return found

    def of(weights: Floats) -> Mapping[str, Floats]:
        first, second = each(weights)
        return {name: first[name].mean(0) - second[name].mean(0) for name in chosen}

    values, estimates = replicate(of, p, draws=draws, seed=seed), of(once)
    alone = each(once)
    rows = []
    for name in chosen:
        needs = classification.NEEDS[name] if task == "classification" else ()
        support = {c: len(np.unique(p[y == int(c[-1])])) for c in needs}
        if task == "survival":
            support = {"an event": len(np.unique(p[y == 1]))}
        line = row(
            name,
            float(estimates[name][0]),
            values[name],
            p,
            positives=int(y.sum()) if task in ("classification", "survival") else None,
            level=level,
            support=support,
        )
        line["p"] = None if line["lo"] is None else _two_sided(values[name])
        rows.append(line | {k: s[name][:, 0].tolist() for k, s in zip("ab", alone, strict=True)})
    return rows


def _two_sided(values: Floats) -> float:
    defined = values[np.isfinite(values)]
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (len(defined) + 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: below a level where the family-wise error stays below it.

    Args:
        p: Of a family of tests; None where there was none, which then does not count.

    Returns:
        Adjusted values in the same places.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    tested = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * value))
        adjusted[place] = highest
    return adjusted
