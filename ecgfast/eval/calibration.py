"""Whether a predicted probability is the share of positives among such records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torchmetrics.functional.classification import binary_calibration_error

from ecgfast.eval.bootstrap import Floats, Statistic, checked, interval, replicate, row

BINS = 10
LEAST_PROBABILITY = 1e-6  # 0 and 1 have no log-odds
NEWTON_STEPS = 40
WHY_UNDEFINED = {
    "ece": "scores lie outside [0, 1]: they are no probabilities",
    "calibration_slope": "scores do not vary, or separate the classes: no finite slope fits",
    "calibration_intercept": "one class only: no finite intercept fits",
}


def error_of(label: Floats, score: Floats) -> Statistic:
    """The expected calibration error as a function of weights ``(B, N)``."""
    # the bins of torchmetrics: [k/10, (k+1)/10), and one more for a score of exactly 1
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64).numpy()
    bins = np.searchsorted(edges, score, side="right") - 1
    gap = np.zeros((len(label), BINS + 1))
    gap[np.arange(len(label)), bins] = score - label
    return lambda weights: {"ece": np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1)}


def statistic(label: Floats, score: Floats) -> Statistic:
    """All metrics of this module as a function of weights ``(B, N)``."""
    probability = np.clip(score, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds = np.log(probability) - np.log1p(-probability)
    error = error_of(label, score)

    def of(weights: Floats) -> Mapping[str, Floats]:
        return dict(error(weights)) | {
            "calibration_slope": _slope(weights, label, odds),
            "calibration_intercept": _intercept(weights, label, odds),
        }

    return of


def calibration_rows(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Calibration error, slope and intercept, with intervals.

    - ``ece``: mean over ten equal bins of the score of |observed share - mean score|, weighted by
      the records in a bin. Noise only adds to it, in the sample and once more in each replicate,
      so its interval is the pivotal one, cut at 0. Still it is too high where calibration is
      good: slope and intercept answer whether that is so.
    - ``calibration_slope``: of a logistic regression of the label on the log-odds of the score.
      1 is right; below 1 the scores are too extreme.
    - ``calibration_intercept``: of that regression with the slope held at 1. 0 is right; below 0
      the scores are too high on the whole.

    Args:
        label: ``(N,)`` 0 or 1.
        score: ``(N,)`` probabilities.
        patient: ``(N,)`` ids.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them.
    """
    label, score, patient = checked(label, score, patient, classes=True)
    names = list(WHY_UNDEFINED)
    if score.min() < 0 or score.max() > 1:
        nothing, why = np.full(draws, np.nan), WHY_UNDEFINED["ece"]
        return [row(k, np.nan, nothing, patient, level=level, undefined=why) for k in names]
    of = statistic(label, score)
    values = replicate(of, patient, draws=draws, seed=seed)
    estimates = {k: float(v[0]) for k, v in of(np.ones((1, len(label)))).items()}
    target = torch.from_numpy(label).long()
    estimates["ece"] = float(binary_calibration_error(torch.from_numpy(score), target, n_bins=BINS))
    rows = []
    for name in names:
        line = row(
            name,
            estimates[name],
            values[name],
            patient,
            positives=int(label.sum()),
            level=level,
            support={f"label {c}": len(np.unique(patient[label == c])) for c in (0, 1)},
            pivotal=name == "ece",
            undefined=WHY_UNDEFINED[name],
        )
        if name == "ece" and line["lo"] is not None:
            line["lo"], line["hi"] = max(line["lo"], 0.0), max(line["hi"], 0.0)
        rows.append(line)
    return rows


def reliability(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    bins: int = BINS,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    classes: bool = True,
) -> list[dict[str, Any]]:
    """The reliability curve: records in groups of about equal size by their score.

    Groups are cut at quantiles of the score and stay the same in every draw; equal scores are
    never parted, so there may be fewer groups than asked for.

    Args:
        label: ``(N,)`` 0 or 1.
        score: ``(N,)`` probabilities.
        patient: ``(N,)`` ids.
        bins: Groups to aim at.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.
        classes: Whether labels must be 0 or 1; of measured values the mean is observed.

    Returns:
        For each group n, predicted (mean score), observed (share of label 1), lo, hi, reason.
    """
    label, score, patient = checked(label, score, patient, classes=classes)
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, score, side="left")
    member = (group[:, None] == np.unique(group)).astype(np.float64)

    def of(weights: Floats) -> Mapping[str, Floats]:
        inside = weights @ member
        hits = weights @ (member * label[:, None])
        nan = np.full_like(inside, np.nan)
        return {"observed": np.divide(hits, inside, out=nan, where=inside > 0)}

    values = replicate(of, patient, draws=draws, seed=seed)["observed"]
    points = []
    for column, inside in enumerate(member.T.astype(bool)):
        observed = float(label[inside].mean())
        lo, hi, reason = interval(observed, values[:, column], level=level)
        points.append(
            {
                "n": int(inside.sum()),
                "predicted": float(score[inside].mean()),
                "observed": observed,
                "lo": lo,
                "hi": hi,
                "reason": reason,
            }
        )
    return points


def _slope(weights: Floats, label: Floats, odds: Floats) -> Floats:
    """Newton's method for intercept and slope, every draw at once; NaN where it finds no end."""
    spread = odds.std()
    if spread == 0:
        return np.full(len(weights), np.nan)
    x = (odds - odds.mean()) / spread
    powers = np.stack([np.ones_like(x), x, x * x], axis=1)
    at = np.zeros((2, len(weights), 1))
    step = np.full(len(weights), np.inf)
    with np.errstate(all="ignore"):  # a draw without a solution runs off and ends as NaN
        for _ in range(NEWTON_STEPS):
            p = 1 / (1 + np.exp(-(at[0] + at[1] * x)))
            g0, g1 = ((weights * (label - p)) @ powers[:, :2]).T
            h0, h1, h2 = ((weights * p * (1 - p)) @ powers).T
            det = h0 * h2 - h1 * h1
            by = np.stack([h2 * g0 - h1 * g1, h0 * g1 - h1 * g0]) / det
            step = np.abs(by).max(axis=0)
            at += by[:, :, None]
            if not (step > 1e-10).any():
                break
    return np.where(step < 1e-6, at[1, :, 0] / spread, np.nan)


def _intercept(weights: Floats, label: Floats, odds: Floats) -> Floats:
    """The shift of all log-odds that makes the mean score the share of positives."""
    total, wanted = weights.sum(axis=1), weights @ label
    at = np.zeros((len(weights), 1))
    low, high = np.full_like(at, -40.0), np.full_like(at, 40.0)
    for _ in range(NEWTON_STEPS):  # Newton, kept inside a bracket that halves
        p = 1 / (1 + np.exp(-(at + odds)))
        excess = ((weights * p).sum(axis=1) - wanted)[:, None]
        low, high = np.where(excess < 0, at, low), np.where(excess < 0, high, at)
        slope = (weights * p * (1 - p)).sum(axis=1)[:, None]
        ahead = at - excess / np.maximum(slope, 1e-300)
        inside = (ahead >= low) & (ahead <= high)
        ahead = np.where(inside, ahead, (low + high) / 2)
        if np.abs(ahead - at).max() < 1e-12:
            break
        at = ahead
    return np.where((wanted > 0) & (wanted < total), at[:, 0], np.nan)
