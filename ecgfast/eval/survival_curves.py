"""Kaplan-Meier curves, tests between groups and hazard ratios, by lifelines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats
from ecgfast.eval.survival import checked_follow_up

THIRDS = ("low", "middle", "high")


class Curve(NamedTuple):
    """A step function: from each time on (0, then the times of events) its value and bounds."""

    time: Floats
    survival: Floats
    lo: Floats
    hi: Floats


def check_lifelines() -> None:
    """Raises an ImportError that says what to install."""
    try:
        import lifelines  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"curves of survival are drawn by lifelines ({error}): pip install 'ecgfast[survival]'"
        ) from error


def kaplan_meier(time: ArrayLike, event: ArrayLike, *, level: float = 0.95) -> Curve:
    """The share without event over time (Kaplan and Meier, JASA 53, 1958, 457).

    Bounds are pointwise: Greenwood's variance on the scale of log(-log S).

    Args:
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        level: Of confidence.

    Raises:
        ImportError: lifelines is missing.
        ValueError: As `ecgfast.eval.c_index` does.

    Example:
        >>> kaplan_meier([1.0, 2.0, 3.0], [1, 0, 1]).survival.round(3).tolist()
        [1.0, 0.667, 0.0]
    """
    check_lifelines()
    from lifelines import KaplanMeierFitter

    _, time, event, _ = checked_follow_up(np.zeros(np.shape(time)), time, event, time)
    with warnings.catch_warnings():  # of pandas, inside lifelines
        warnings.simplefilter("ignore")
        fitted = KaplanMeierFitter(alpha=1 - level).fit(time, event)
        bounds = fitted.confidence_interval_survival_function_.to_numpy(np.float64)
    at = fitted.survival_function_.index.to_numpy(np.float64)
    value = fitted.survival_function_.to_numpy(np.float64)[:, 0]
    falls = np.flatnonzero(np.isin(at, time[event == 1]) | (at == 0))
    return Curve(at[falls], value[falls], bounds[falls, 0], bounds[falls, 1])


def median(time: ArrayLike, event: ArrayLike) -> float | None:
    """When half have had the event, by Kaplan and Meier; None where it does not come to that.

    Of one minus the event it is the median follow-up (Schemper and Smith, Control. Clin. Trials
    17, 1996, 343).

    Example:
        >>> median([1.0, 2.0, 3.0], [1, 1, 0])
        2.0
    """
    curve = kaplan_meier(time, event)
    half = np.flatnonzero(curve.survival <= 0.5 + 1e-12)
    return float(curve.time[half[0]]) if len(half) else None


def at_risk(time: ArrayLike, at: ArrayLike) -> NDArray[np.int64]:
    """How many are still observed just before each of M times, ``(M,)``.

    Example:
        >>> at_risk([1.0, 2.0, 3.0], [0, 2, 4]).tolist()
        [3, 2, 0]
    """
    sorted_times = np.sort(np.asarray(time, np.float64))
    return len(sorted_times) - np.searchsorted(sorted_times, np.asarray(at), side="left")


def log_rank(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> dict[str, Any]:
    """Whether groups have one curve (Mantel, 1966; of several groups Peto and Peto, 1972).

    Records count as independent: with several records of a patient p is too small.

    Args:
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        group: ``(N,)`` names.

    Returns:
        statistic, df, p and reason (why there are none; None otherwise).

    Raises:
        ImportError: lifelines is missing.
        ValueError: As `ecgfast.eval.c_index` does.
    """
    check_lifelines()
    from lifelines.statistics import multivariate_logrank_test

    _, time, event, group = checked_follow_up(np.zeros(np.shape(time)), time, event, group)
    several = len(np.unique(group))
    nothing = {"statistic": None, "df": max(several - 1, 0), "p": None}
    if several < 2:
        return nothing | {"reason": "a test needs two groups, one here"}
    if not event.any():
        return nothing | {"reason": f"none of {len(time)} records has an event"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = multivariate_logrank_test(time, group, event)
    value, p = float(found.test_statistic), float(found.p_value)
    if not np.isfinite([value, p]).all():
        return nothing | {"reason": "all events come when one group alone is observed"}
    return {"statistic": value, "df": several - 1, "p": p, "reason": None}


def cox(
    x: ArrayLike, time: ArrayLike, event: ArrayLike, patient: ArrayLike, *, level: float = 0.95
) -> dict[str, Any]:
    """The coefficient of one covariate in a Cox model (J. R. Stat. Soc. B 34, 1972, 187).

    Ties after Efron; the interval is Wald's with the sandwich variance of Lin and Wei (JASA 84,
    1989, 1074) with patients as clusters.

    Args:
        x: ``(N,)``.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        patient: ``(N,)`` ids.
        level: Of confidence.

    Returns:
        estimate (a log hazard ratio), lo, hi, p and reason (why there are none; None otherwise).

    Raises:
        ImportError: lifelines is missing.
        ValueError: As `ecgfast.eval.c_index` does.
    """
    check_lifelines()
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning
    from pandas import DataFrame

    x, time, event, patient = checked_follow_up(x, time, event, patient)
    nothing = {"estimate": None, "lo": None, "hi": None, "p": None}
    if not event.any() or np.ptp(x) == 0:
        what = "no record has an event" if not event.any() else "the covariate does not vary"
        return nothing | {"reason": what}
    patients = np.unique(patient, return_inverse=True)[1].reshape(-1)
    table = DataFrame({"x": x, "time": time, "event": event, "patient": patients})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = CoxPHFitter(alpha=1 - level).fit(
                table, "time", "event", cluster_col="patient", robust=True
            )
        except (ConvergenceError, ConvergenceWarning):
            return nothing | {"reason": "the covariate parts events from the rest: no finite slope"}
    line = fitted.summary.loc["x"]
    share = f"{100 * level:g}%"
    names = ("coef", f"coef lower {share}", f"coef upper {share}", "p")
    estimate, lo, hi, p = (float(line[name]) for name in names)
    return {"estimate": estimate, "lo": lo, "hi": hi, "p": p, "reason": None}


def cut_points(score: ArrayLike) -> list[float]:
    """Where a third of the scores ends, and where two thirds do.

    Example:
        >>> cut_points([0.0, 1.0, 2.0, 3.0])
        [1.0, 2.0]
    """
    return [float(q) for q in np.quantile(np.asarray(score, np.float64), [1 / 3, 2 / 3])]


def risk_groups(
    score: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    patient: ArrayLike,
    *,
    cuts: Sequence[float],
    level: float = 0.95,
) -> dict[str, Any]:
    """Curves of those of low, middle and high predicted risk, and whether they differ.

    Args:
        score: ``(N,)`` log hazards.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        patient: ``(N,)`` ids.
        cuts: Two scores; one that equals a cut belongs to the group above it.
        level: Of confidence.

    Returns:
        cuts; curves (of each group that has records: name, n, events, time, survival, lo, hi, last
        (its longest time)); at_risk (time ``(M,)``, and counts by name); log_rank; hazard_ratio of
        the high against the low group (estimate, lo, hi, p, reason).

    Raises:
        ImportError: lifelines is missing.
        ValueError: As `ecgfast.eval.c_index` does.
    """
    score, time, event, patient = checked_follow_up(score, time, event, patient)
    group = np.searchsorted(np.asarray(cuts, np.float64), score, side="right")
    ticks = _ticks(float(time.max()))
    curves, counts = [], {}
    for place, name in enumerate(THIRDS):
        mine = group == place
        if not mine.any():
            continue
        curve = kaplan_meier(time[mine], event[mine], level=level)
        told: dict[str, Any] = {
            "name": name,
            "n": int(mine.sum()),
            "events": int(event[mine].sum()),
        }
        told |= {key: _plain(values) for key, values in curve._asdict().items()}
        curves.append(told | {"last": float(time[mine].max())})
        counts[name] = at_risk(time[mine], ticks).tolist()
    ends = group != 1
    ratio: dict[str, Any] = dict.fromkeys(("estimate", "lo", "hi", "p"))
    ratio["reason"] = "a group has no records"
    if (group == 0).any() and (group == 2).any():
        ratio = cox(group[ends] == 2, time[ends], event[ends], patient[ends], level=level)
    for key in ("estimate", "lo", "hi"):
        ratio[key] = None if ratio[key] is None else float(np.exp(ratio[key]))
    return {
        "cuts": list(cuts),
        "curves": curves,
        "at_risk": {"time": ticks.tolist(), "counts": counts},
        "log_rank": log_rank(time, event, group),
        "hazard_ratio": ratio,
    }


def _plain(values: Floats) -> list[float | None]:
    """As a file can hold it: a curve at 0 has no bounds."""
    return [float(v) if np.isfinite(v) else None for v in values]


def _ticks(last: float) -> Floats:
    """Round times from 0 on, five or so, none beyond the last."""
    rough = last / 5
    size = 10.0 ** np.floor(np.log10(rough))
    step = size * min((1, 2, 2.5, 5, 10), key=lambda k: abs(k * size - rough))
    return step * np.arange(int(last / step) + 1)
