"""From log hazards to the chance of no event: a baseline, or the ends of intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.eval.bootstrap import Floats
from ecgfast.eval.survival import checked_follow_up


@dataclass(frozen=True)
class Baseline:
    """The cumulative hazard at a log hazard of 0, a step function.

    Attributes:
        time: ``(K,)`` times of events, rising.
        log_cumulative: ``(K,)``, the logarithm of the cumulative hazard from each time on.
        last: The longest follow-up it was estimated from; beyond it nothing is known.
        records: It was estimated from.
        events: Of these.
    """

    time: Floats
    log_cumulative: Floats
    last: float
    records: int
    events: int

    def survival(self, log_hazard: ArrayLike, at: ArrayLike) -> Floats:
        r"""The chance ``(N, M)`` of no event until each of M times.

        :math:`S(t \mid x) = \exp(-H_0(t) e^{x})`; NaN beyond the last time of follow-up.
        """
        at = np.asarray(at, np.float64)
        steps = np.concatenate([[-np.inf], self.log_cumulative])
        log = steps[np.searchsorted(self.time, at, side="right")]
        with np.errstate(over="ignore"):  # a hazard beyond all bounds leaves no chance: exp(-inf)
            alive = np.exp(-np.exp(np.asarray(log_hazard, np.float64)[:, None] + log))
        return np.where(at <= self.last, alive, np.nan)


def breslow(log_hazard: ArrayLike, time: ArrayLike, event: ArrayLike) -> Baseline:
    r"""Breslow's baseline of given log hazards (J. R. Stat. Soc. B 34, 1972, 216).

    :math:`H_0(t) = \sum_{t_i \le t} d_i / \sum_{t_j \ge t_i} e^{x_j}`, with :math:`d_i` the events
    at a time.

    Args:
        log_hazard: ``(N,)``, on the scale of a Cox model.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.

    Raises:
        ValueError: As `ecgfast.eval.c_index` does; or nobody had the event.

    Example:
        >>> baseline = breslow([0.0, 0.0], [1.0, 2.0], [1, 1])
        >>> baseline.survival([0.0], [0.5, 1.0, 2.0]).round(3).tolist()
        [[1.0, 0.607, 0.223]]
    """
    x, time, event, _ = checked_follow_up(log_hazard, time, event, np.zeros(np.shape(time)))
    if not event.any():
        raise ValueError(
            f"no baseline hazard without an event: all {len(time)} records are censored; take a "
            "longer follow-up, or more records"
        )
    order = np.argsort(time, kind="stable")
    high = x.max()  # taken out, so that no sum is beyond the numbers
    risk = np.cumsum(np.exp(x[order][::-1] - high))[::-1]
    at, deaths = np.unique(time[event == 1], return_counts=True)
    # sums from the end lose no precision where few are left
    steps = deaths / risk[np.searchsorted(time[order], at, side="left")]
    log = np.log(np.cumsum(steps)) - high
    return Baseline(at, log, float(time.max()), len(time), int(event.sum()))


def between(survival: ArrayLike, edges: ArrayLike, at: ArrayLike) -> Floats:
    """Chances ``(N, M)`` of no event until M times, from those ``(N, K)`` at the ends of intervals.

    Within an interval the hazard is taken as constant: the logarithm of the chance is a line, from
    1 at time 0. NaN beyond the last end.

    Raises:
        ValueError: Shapes differ, edges do not rise from above 0, or chances lie outside [0, 1].

    Example:
        >>> between([[0.5, 0.25]], [2.0, 4.0], [1.0, 2.0, 5.0]).round(3).tolist()
        [[0.707, 0.5, nan]]
    """
    chance, edges, at = (np.asarray(v, np.float64) for v in (survival, edges, at))
    if chance.ndim != 2 or edges.shape != chance.shape[1:]:
        raise ValueError(f"survival must be (N, K) and edges (K,): {chance.shape}, {edges.shape}")
    if not len(edges) or not (np.diff(edges, prepend=0) > 0).all() or not np.isfinite(edges).all():
        raise ValueError(f"edges must rise from above 0, got {edges.tolist()}")
    wrong = np.flatnonzero(~((chance >= 0) & (chance <= 1)).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"survival must lie in [0, 1]: {len(wrong)} of {len(chance)} rows do not (first: row "
            f"{wrong[0]})"
        )
    log = np.log(np.maximum(chance, np.finfo(np.float64).tiny))
    log = np.concatenate([np.zeros((len(log), 1)), log], axis=1)
    ends = np.concatenate([[0.0], edges])
    right = np.clip(np.searchsorted(ends, at, side="left"), 1, len(edges))
    share = (at - ends[right - 1]) / (ends[right] - ends[right - 1])
    alive = np.exp(log[:, right - 1] * (1 - share) + log[:, right] * share)
    return np.where((at >= 0) & (at <= edges[-1]), alive, np.nan)
