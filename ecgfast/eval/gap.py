"""How far groups lie apart in a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import MOST_UNDEFINED, Floats, Statistic, replicate

HIGH_IS_BETTER = {
    *("auroc", "auprc", "accuracy", "f1", "sensitivity", "specificity", "ppv", "npv"),
    *("pearson_r", "r2", "auroc_macro", "balanced_accuracy", "c_index"),
}
LOW_IS_BETTER = {"mae", "rmse", "brier"}


def gap_rows(
    statistic_of: Callable[[NDArray[np.bool_]], Statistic],
    names: Sequence[str],
    groups: Mapping[str, NDArray[np.bool_]],
    patient: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    r"""The largest and the mean difference between two groups, of each metric.

    A draw of patients is shared by all groups. The largest of several noisy differences is too
    large on the whole, and so are its replicates; percentiles would not cover it. Instead the
    differences of all pairs of groups are bounded at once: with :math:`d` those of the sample,
    :math:`d^*` those of a draw and :math:`s` the standard deviations of the latter, q is the
    quantile of :math:`\max |d^* - d| / s`, and all :math:`d \pm q s` hold together. So the true
    gap lies between the largest lower bound (or 0) and the largest upper bound, in at least the
    share of cohorts that is stated. ``p`` is the share of draws whose :math:`\max |d^* - d| / s`
    reaches :math:`\max |d| / s`: how often groups that do not differ would lie so far apart. The
    interval leaves out 0 where p is below one minus the level.

    Args:
        statistic_of: From a mask ``(N,)`` to the metrics of those records, which are a function of
            weights.
        names: Metrics to compare.
        groups: Masks ``(N,)``; those for whom the metric has an interval.
        patient: ``(N,)`` ids.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        For each metric name, groups (how many), highest and lowest (their names), better (high,
        low or zero), estimate (the largest difference), lo, hi, mean_gap, mean_lo, mean_hi (of all
        pairs), chance (the mean largest difference among groups that do not differ), p, level,
        draws, and reason (why there is no interval; None otherwise).
    """
    patient = np.asarray(patient)
    masks = list(groups.values())
    if len(masks) < 2:
        why = "a gap needs two groups whose metric has an interval"
        return [_nothing(name, len(masks), why, level) for name in names]
    of_each = [statistic_of(mask) for mask in masks]

    def of(weights: Floats) -> Mapping[str, Floats]:
        found = [one(weights[:, mask]) for one, mask in zip(of_each, masks, strict=True)]
        return {name: np.stack([f[name] for f in found], axis=1) for name in names}

    values, once = replicate(of, patient, draws=draws, seed=seed), of(np.ones((1, len(patient))))
    return [_gap(name, once[name][0], values[name], list(groups), level) for name in names]


def _gap(
    name: str, value: Floats, drawn: Floats, groups: list[str], level: float
) -> dict[str, Any]:
    defined = drawn[np.isfinite(drawn).all(axis=1)]
    missing = len(drawn) - len(defined)
    if not np.isfinite(value).all():
        return _nothing(name, len(groups), "undefined in one of the groups", level)
    if missing > MOST_UNDEFINED * len(drawn):
        why = f"undefined in {missing} of {len(drawn)} draws"
        return _nothing(name, len(groups), why, level)
    pairs = np.array(list(combinations(range(len(groups)), 2)))
    apart = value[pairs[:, 0]] - value[pairs[:, 1]]
    noise = defined[:, pairs[:, 0]] - defined[:, pairs[:, 1]] - apart
    spread = noise.std(axis=0)
    if not (spread > 0).all():
        return _nothing(name, len(groups), "all draws give the same difference", level)
    worst = np.abs(noise / spread).max(axis=1)
    reach = float(np.quantile(worst, level)) * spread
    mean, around = float(np.abs(apart).mean()), np.abs(noise).mean(axis=1)
    mean_reach = float(np.quantile(around, level))
    centred = defined - value
    found = float((np.abs(apart) / spread).max())
    return {
        "name": name,
        "groups": len(groups),
        "highest": groups[int(value.argmax())],
        "lowest": groups[int(value.argmin())],
        "better": _better(name),
        "estimate": float(np.ptp(value)),
        "lo": max(0.0, float((np.abs(apart) - reach).max())),
        "hi": float((np.abs(apart) + reach).max()),
        "mean_gap": mean,
        "mean_lo": max(0.0, mean - mean_reach),
        "mean_hi": mean + mean_reach,
        "chance": float(np.ptp(centred, axis=1).mean()),
        "p": (1 + int((worst >= found).sum())) / (1 + len(worst)),
        "level": level,
        "draws": len(defined),
        "reason": None,
    }


def _better(name: str) -> str:
    if name in LOW_IS_BETTER:
        return "low"
    return "high" if name in HIGH_IS_BETTER else "zero"


def _nothing(name: str, groups: int, why: str, level: float) -> dict[str, Any]:
    numbers = ("highest", "lowest", "estimate", "lo", "hi", "mean_gap", "mean_lo", "mean_hi")
    line = dict.fromkeys((*numbers, "chance", "p"))
    rest = {"better": _better(name), "level": level, "draws": 0, "reason": why}
    return {"name": name, "groups": groups, **line, **rest}
