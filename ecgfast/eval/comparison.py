"""One run against another on the same records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.eval import classification, regression
from ecgfast.eval.bootstrap import Floats, Statistic, checked, replicate, row


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
        name: A metric of `classification_rows` or `regression_rows`.
        label: ``(N,)``.
        a: Scores ``(N,)`` of one run, or ``(S, N)`` of runs that differ in their seed alone.
        b: Scores of the other, ``(N,)`` or ``(R, N)``; records in the same order.
        patient: ``(N,)`` ids.
        threshold: For metrics that need one.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        A row as `ecgfast.eval.bootstrap.row` gives it, with the metric of each seed under ``a``
        and ``b``.

    Raises:
        ValueError: If the metric is unknown, or the arrays are not fit for it.
    """
    classes = name in classification.NEEDS
    sides: list[list[Statistic]] = []
    for scores in (a, b):
        side: list[Statistic] = []
        for one in np.atleast_2d(np.asarray(scores, np.float64)):
            y, s, p = checked(label, one, patient, classes=classes)
            if classes:
                side.append(classification.statistic(y, s, threshold=threshold))
            else:
                side.append(regression.statistic(y, s))
        sides.append(side)

    def each(side: list[Statistic], weights: Floats) -> Floats:
        return np.stack([of(weights)[name] for of in side])

    def of(weights: Floats) -> Mapping[str, Floats]:
        return {name: each(sides[0], weights).mean(0) - each(sides[1], weights).mean(0)}

    once = np.ones((1, len(y)))
    known = sides[0][0](once)
    if name not in known:
        raise ValueError(f"no metric {name!r}: one of {', '.join([*classification.NEEDS, *known])}")
    return row(
        name,
        float(of(once)[name][0]),
        replicate(of, p, draws=draws, seed=seed)[name],
        p,
        positives=int(y.sum()) if classes else None,
        level=level,
        support=_carriers(y, p, classification.NEEDS[name]) if classes else None,
    ) | {k: each(side, once)[:, 0].tolist() for k, side in zip("ab", sides, strict=True)}


def _carriers(label: Floats, patient: Any, classes: tuple[str, ...]) -> dict[str, int]:
    return {c: len(np.unique(patient[label == int(c[-1])])) for c in classes}
