"""Whether so many have the event until a time as were predicted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.eval.bootstrap import Floats, interval, replicate, row
from ecgfast.eval.product_limit import ProductLimit
from ecgfast.eval.survival import checked_follow_up
from ecgfast.eval.survival_curves import cox

MOST_GROUPS = 10
LEAST_EVENTS = 20  # of a group, on the average


def calibration_at(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    patient: ArrayLike,
    *,
    at: float,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Predicted and observed risk at a horizon: of all, and in groups by predicted risk.

    Observed is one minus the Kaplan-Meier estimate. Groups are cut at quantiles of the predicted
    risk and stay the same in every draw; there are at most 10, and no more than one for every 20
    events until the horizon. Equal risks are never parted. A group whose last record was lost
    before the horizon has no observed risk.

    Args:
        risk: ``(N,)`` predicted chances of an event until the horizon.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        patient: ``(N,)`` ids.
        at: The horizon.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        A row as `ecgfast.eval.bootstrap.row` gives it, ``observed_expected_at_H``: the observed
        risk of all over their mean predicted risk, 1 is right, below 1 the predictions are too
        high. And for each group n, events (until the horizon), predicted (mean), observed, lo, hi,
        reason.

    Raises:
        ValueError: As `ecgfast.eval.c_index` does, or a risk lies outside [0, 1].
    """
    risk, time, event, patient = checked_follow_up(risk, time, event, patient)
    if wrong := int(((risk < 0) | (risk > 1)).sum()):
        raise ValueError(f"risks must lie in [0, 1]: {wrong} of {len(risk)} do not")
    cases = (time <= at) & (event == 1)
    several = int(np.clip(cases.sum() // LEAST_EVENTS, 1, MOST_GROUPS))
    edges = np.unique(np.quantile(risk, np.linspace(0, 1, several + 1)[1:-1]))
    group = np.searchsorted(edges, risk, side="left")
    masks = [group == g for g in np.unique(group)]
    curves = [ProductLimit(time[mask], event[mask]) for mask in masks]
    whole = ProductLimit(time, event)
    # a curve that ends in censoring before the horizon says nothing there
    known = [bool((time[mask] >= at).any()) or _all_gone(time[mask], event[mask]) for mask in masks]

    def of(weights: Floats) -> Mapping[str, Floats]:
        expected = weights @ risk / weights.sum(axis=1)
        seen = 1 - whole.after(weights, [at])[:, 0]
        ratio = np.divide(seen, expected, out=np.full_like(seen, np.nan), where=expected > 0)
        observed = [
            np.where(
                weights[:, mask].any(axis=1), 1 - curve.after(weights[:, mask], [at])[:, 0], np.nan
            )
            for mask, curve in zip(masks, curves, strict=True)
        ]
        return {"ratio": ratio, "observed": np.stack(observed, axis=1)}

    values, once = replicate(of, patient, draws=draws, seed=seed), of(np.ones((1, len(time))))
    line = row(
        f"observed_expected_at_{at:g}",
        float(once["ratio"][0]),
        values["ratio"],
        patient,
        positives=int(cases.sum()),
        level=level,
        support={f"an event until {at:g}": len(np.unique(patient[cases]))},
        undefined="no risk was predicted for anybody",
    )
    points = []
    for place, mask in enumerate(masks):
        seen = float(once["observed"][0, place])
        lo, hi, reason = interval(seen, values["observed"][:, place], level=level)
        if not known[place]:
            lo, hi, reason = None, None, f"nobody of this group is observed until {at:g}"
        points.append(
            {
                "n": int(mask.sum()),
                "events": int((mask & cases).sum()),
                "predicted": float(risk[mask].mean()),
                "observed": seen if known[place] else None,
                "lo": lo,
                "hi": hi,
                "reason": reason,
            }
        )
    return line | {"at": float(at)}, points


def _all_gone(time: Floats, event: Floats) -> bool:
    """Whether the curve ends at 0."""
    return bool(event[time == time.max()].all())


def slope_row(
    log_hazard: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    patient: ArrayLike,
    *,
    level: float = 0.95,
) -> dict[str, Any]:
    """The slope of a Cox model on the log hazard: 1 is right, below 1 it is too extreme.

    After van Houwelingen (Stat. Med. 19, 2000, 3401); the interval is that of
    `ecgfast.eval.survival_curves.cox`, not of a bootstrap.

    Args:
        log_hazard: ``(N,)``.
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        patient: ``(N,)`` ids.
        level: Of confidence.

    Returns:
        A row as `ecgfast.eval.bootstrap.row` gives them; draws is 0.
    """
    x, time, event, patient = checked_follow_up(log_hazard, time, event, patient)
    found = cox(x, time, event, patient, level=level)
    known = found["reason"] is None
    bounds = np.array([found["lo"], found["hi"]] if known else [np.nan])
    line = row(
        "calibration_slope",
        found["estimate"] if known else np.nan,
        bounds,
        patient,
        positives=int(event.sum()),
        level=level,
        support={"an event": len(np.unique(patient[event == 1]))},
        undefined=found["reason"],
    )
    if line["lo"] is not None:
        line |= {"lo": found["lo"], "hi": found["hi"]}
    return line | {"draws": 0}
