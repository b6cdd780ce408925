"""Metrics of a hazard, and of chances over time, with censoring weighed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.eval import survival
from ecgfast.eval.bootstrap import Floats, Statistic, replicate, row
from ecgfast.eval.product_limit import ProductLimit

LEAST_SHARE = 0.1  # of the records still observed at tau: no weight is above one over it
LEAST_ON_A_SIDE = 5  # patients with an event before a horizon, and patients observed beyond it
POINTS = 100  # of the integral of the Brier score
YEARS = (1, 3, 5)
A_YEAR = {"days": 365.25, "weeks": 365.25 / 7, "months": 12.0, "years": 1.0}
Chances = Callable[[ArrayLike], Floats]


def truncation(time: ArrayLike) -> float:
    """The time tau up to which a metric of all times looks: 10 % of records are observed until it.

    Late events are known of few, who stand for all that were lost before. Up to tau no record
    stands for more than ten.

    Example:
        >>> truncation(range(1, 101))
        91.0
    """
    values = np.sort(np.asarray(time, np.float64))
    return float(values[len(values) - max(1, int(np.ceil(LEAST_SHARE * len(values))))])


def usual_horizons(unit: str) -> list[float]:
    """1, 3 and 5 years in a unit of time; none if the unit is not known."""
    return [years * A_YEAR[unit] for years in YEARS] if unit in A_YEAR else []


def unfit(
    at: float, time: Floats, event: Floats, patient: ArrayLike, last: float = np.inf
) -> str | None:
    """Why nothing can be said at a horizon, or None.

    Args:
        at: The horizon.
        time: ``(N,)``.
        event: ``(N,)``.
        patient: ``(N,)``.
        last: The longest time that predictions reach.
    """
    patient = np.asarray(patient)
    before = len(np.unique(patient[(time <= at) & (event == 1)]))
    beyond = len(np.unique(patient[time > at]))
    if not np.isfinite(at) or at <= 0:
        return f"a horizon is a finite time above 0, got {at:g}"
    if beyond < LEAST_ON_A_SIDE:
        return (
            f"follow-up does not reach: {beyond} patients are observed beyond {at:g}, "
            f"{LEAST_ON_A_SIDE} are needed (the longest time is {time.max():g})"
        )
    if before < LEAST_ON_A_SIDE:
        return (
            f"{before} patients have an event until {at:g}, {LEAST_ON_A_SIDE} are needed: take a "
            "later horizon, or more records"
        )
    if at > last:
        return f"predictions reach to {last:g} only"
    return None


def statistic(
    score: Floats,
    time: Floats,
    event: Floats,
    *,
    tau: float,
    horizons: Sequence[float] = (),
    chances: Chances | None = None,
) -> Statistic:
    """All metrics of this module as a function of weights ``(B, N)``.

    The censoring curve is estimated anew in each draw. See `follow_up_rows` for the metrics.
    """
    censoring = ProductLimit(time, event, censoring=True)
    plain = survival.statistic(score, time, event)

    def inverse(weights: Floats, power: int = 1) -> Floats:
        """Of events, one over the chance that they were still observed; 0 of other records."""
        reached = censoring.before(weights)
        known = (reached > 0) & (event == 1)
        return np.divide(1.0, reached**power, out=np.zeros_like(reached), where=known)

    uno = survival.statistic(
        score,
        time,
        event,
        name="uno_c",
        factor=lambda weights: inverse(weights, 2) * (time < tau),
    )
    order = np.argsort(score, kind="stable")
    levels = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # first of equal scores

    def area(cases: Floats, controls: Floats) -> Floats:
        ahead, those = (np.add.reduceat(w[:, order], levels, axis=1) for w in (cases, controls))
        below = np.cumsum(those, axis=1) - those / 2
        pairs = ahead.sum(axis=1) * those.sum(axis=1)
        won = np.einsum("bl,bl->b", ahead, below)
        return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)

    scores = [] if chances is None else _brier(time, event, censoring, tau, horizons, chances)

    def of(weights: Floats) -> Mapping[str, Floats]:
        found = {**plain(weights), **uno(weights)}
        once = weights * inverse(weights)
        for at in horizons:
            found[f"auc_at_{at:g}"] = area(once * (time <= at), weights * (time > at))
        for brier in scores:
            found |= brier(weights, once)
        return found

    return of


def _brier(
    time: Floats,
    event: Floats,
    censoring: ProductLimit,
    tau: float,
    horizons: Sequence[float],
    chances: Chances,
) -> list[Callable[[Floats, Floats], dict[str, Floats]]]:
    """Brier scores of predictions, and the integral also of one curve for all."""
    grid = np.linspace(0, tau, POINTS + 1)[1:]
    everyone = ProductLimit(time, event).after(np.ones((1, len(time))), grid)

    def at(points: Floats, alive: Floats) -> Callable[[Floats, Floats], Floats]:
        gone = np.where(time[:, None] <= points, alive**2, 0.0)
        still = np.where(time[:, None] > points, (1 - alive) ** 2, 0.0)

        def score(weights: Floats, once: Floats) -> Floats:
            stays = censoring.after(weights, points)
            left = weights @ still
            # without anybody observed beyond a time, nothing is known there
            beyond = np.divide(left, stays, out=np.zeros_like(left), where=stays > 0)
            value = (once @ gone + beyond) / weights.sum(axis=1, keepdims=True)
            return np.where(stays > 0, value, np.nan)

        return score

    def whole(name: str, alive: Floats) -> Callable[[Floats, Floats], dict[str, Floats]]:
        score = at(grid, alive)

        def integral(weights: Floats, once: Floats) -> dict[str, Floats]:
            values = score(weights, once)  # and 0 at time 0, where all are without event
            return {name: (values.sum(axis=1) - values[:, -1] / 2) / POINTS}

        return integral

    ends = np.asarray(horizons, np.float64)
    some = at(ends, chances(ends)) if len(ends) else None

    def each(weights: Floats, once: Floats) -> dict[str, Floats]:
        values = np.zeros((len(weights), 0)) if some is None else some(weights, once)
        return {f"brier_at_{h:g}": values[:, i] for i, h in enumerate(horizons)}

    alive = np.broadcast_to(everyone, (len(time), POINTS))
    return [each, whole("ibs", chances(grid)), whole("ibs_km", alive)]


def follow_up_rows(
    score: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    patient: ArrayLike,
    *,
    tau: float | None = None,
    horizons: Sequence[float] = (),
    chances: Chances | None = None,
    last: float = np.inf,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    r"""How well hazards, and chances over time, agree with what happened.

    With G the Kaplan-Meier curve of censoring, G(t-) the chance to be observed until just before t:

    - ``uno_c``: C over pairs whose event is before tau, each counting :math:`G(t_i-)^{-2}` (Uno et
      al., Stat. Med. 30, 2011, 1105). Unlike Harrell's it does not depend on who was censored when.
    - ``auc_at_H``: chance that one with an event until H has a higher hazard than one without;
      cases count :math:`1 / G(t_i-)` (cumulative/dynamic; Uno et al., JASA 102, 2007, 527).
    - ``brier_at_H``: mean squared difference between the chance to be without event at H and
      whether one was (Graf et al., Stat. Med. 18, 1999, 2529).
    - ``ibs``: the mean of the Brier score over times from 0 to tau; ``ibs_km`` is that of the
      Kaplan-Meier curve of these records for everybody, which knows nothing of anybody.

    Args:
        score: ``(N,)`` log hazards.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        patient: ``(N,)`` ids.
        tau: As `truncation` finds it if None; never beyond ``last``.
        horizons: Times H.
        chances: From times ``(M,)`` to the predicted chances ``(N, M)`` to be without event; None
            leaves the Brier scores out.
        last: The longest time that ``chances`` reach.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them, with ``at`` (the horizon, or tau).

    Raises:
        ValueError: As `ecgfast.eval.c_index` does.
    """
    s, time, event, patient = survival.checked_follow_up(score, time, event, patient)
    limit = np.inf if chances is None else last
    tau = min(truncation(time) if tau is None else tau, limit)
    reasons: dict[str, str | None] = {}
    for at in horizons:
        reasons[f"auc_at_{at:g}"] = unfit(at, time, event, patient)
        reasons[f"brier_at_{at:g}"] = unfit(at, time, event, patient, limit)
    good = [at for at in horizons if reasons[f"auc_at_{at:g}"] is None]
    of = statistic(s, time, event, tau=tau, horizons=good, chances=chances)
    values = replicate(of, patient, draws=draws, seed=seed)
    once = {name: float(value[0]) for name, value in of(np.ones((1, len(time)))).items()}
    nothing = np.full(draws, np.nan)
    kinds = ["auc"] + (["brier"] if chances is not None else [])
    names = [("uno_c", tau)] + [(f"{kind}_at_{at:g}", at) for kind in kinds for at in horizons]
    names += [("ibs", tau), ("ibs_km", tau)] if chances is not None else []
    rows = []
    for name, at in names:
        cases = (time <= at) & (event == 1)
        line = row(
            name,
            once.get(name, np.nan),
            values.get(name, nothing),
            patient,
            positives=int(cases.sum()),
            level=level,
            support={f"an event until {at:g}": len(np.unique(patient[cases]))},
            undefined=reasons.get(name, survival.NO_PAIR),
        )
        rows.append(line | {"at": float(at)})
    return rows
