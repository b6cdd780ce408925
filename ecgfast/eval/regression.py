"""How far predicted values are from measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics
from torchmetrics.functional.regression import pearson_corrcoef

from ecgfast.eval.bootstrap import Floats, Statistic, checked, no_records, replicate, row

NORMAL_95 = 1.959963984540054  # share of a normal distribution within +- this many deviations: 95 %
WHY_UNDEFINED = {
    "pearson_r": "labels or scores do not vary",
    "r2": "labels do not vary",
    "loa_lower": "a spread needs two records",
    "loa_upper": "a spread needs two records",
    "calibration_slope": "scores do not vary",
    "calibration_intercept": "scores do not vary",
}
NAMES = (
    *("rmse", "mae", "pearson_r", "r2", "bias", "loa_lower", "loa_upper"),
    *("calibration_slope", "calibration_intercept"),
)


def statistic(label: Floats, score: Floats) -> Statistic:
    """All metrics of this module as a function of weights ``(B, N)``; sums of powers do it all."""
    error = score - label
    bias = error.mean()
    y, label_unit = _standard(label)
    s, score_unit = _standard(score)
    e = error - bias  # everything is centred, so that no digits cancel in the powers
    ones = np.ones_like(y)
    parts = np.stack([ones, y, s, y * y, s * s, y * s, e, e * e, error**2, np.abs(error)], axis=1)

    def of(weights: Floats) -> Mapping[str, Floats]:
        n, *sums = (weights @ parts).T
        n = np.where(n > 0, n, np.nan)
        y1, s1, yy, ss, ys, e1, ee, square, size = (x / n for x in sums)
        # what is left of a variance when all drawn values are the same is rounding
        y_var, s_var = (np.where(v < 1e-12, np.nan, v) for v in (yy - y1**2, ss - s1**2))
        spread = np.sqrt(np.maximum(ee - e1**2, 0) * n / np.where(n > 1, n - 1, np.nan))
        slope = (ys - y1 * s1) / s_var * (label_unit / score_unit)
        measured, predicted = label.mean() + label_unit * y1, score.mean() + score_unit * s1
        return {
            "rmse": np.sqrt(square),
            "mae": size,
            "pearson_r": np.clip((ys - y1 * s1) / np.sqrt(y_var * s_var), -1, 1),
            "r2": 1 - square / (y_var * label_unit**2),
            "bias": bias + e1,
            "loa_lower": bias + e1 - NORMAL_95 * spread,
            "loa_upper": bias + e1 + NORMAL_95 * spread,
            "calibration_slope": slope,
            "calibration_intercept": measured - slope * predicted,
        }

    return of


def _standard(values: Floats) -> tuple[Floats, float]:
    """Values of mean 0 and variance 1 (0 if all are the same), and what divided them."""
    if np.ptp(values) == 0:
        return np.zeros_like(values), 1.0
    return (values - values.mean()) / values.std(), float(values.std())


def _estimates(label: Floats, score: Floats) -> dict[str, float]:
    """By scikit-learn and torchmetrics where they have the metric."""
    error = score - label
    deviation = error.std(ddof=1) if len(error) > 1 else np.nan
    r = r2 = np.nan
    if np.ptp(label) > 0:
        r2 = metrics.r2_score(label, score)
        if np.ptp(score) > 0:
            r = float(pearson_corrcoef(torch.from_numpy(score), torch.from_numpy(label)))
    ours = statistic(label, score)(np.ones((1, len(label))))
    return {
        "rmse": float(np.sqrt(metrics.mean_squared_error(label, score))),
        "mae": float(metrics.mean_absolute_error(label, score)),
        "pearson_r": r,
        "r2": float(r2),
        "bias": float(error.mean()),
        "loa_lower": float(error.mean() - NORMAL_95 * deviation),
        "loa_upper": float(error.mean() + NORMAL_95 * deviation),
        **{k: float(ours[k][0]) for k in ("calibration_slope", "calibration_intercept")},
    }


def regression_rows(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every metric of a predicted value, for all records and for each group, with its interval.

    rmse, mae, bias (predicted minus measured) and the Bland-Altman limits of agreement (bias +-
    1.96 standard deviations of the difference) are in the unit of the label. r2 is 1 minus the
    mean squared error over the variance: below 0 the mean of the label would have done better.
    calibration_slope and calibration_intercept are those of the least-squares line of the measured
    on the predicted value: 1 and 0 are right, a slope below 1 says that predictions spread too far.

    Args:
        label: ``(N,)`` measured.
        score: ``(N,)`` predicted.
        patient: ``(N,)`` ids.
        groups: Masks ``(N,)`` by name.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them.

    Raises:
        ValueError: If the arrays differ in length, are empty or hold a value that is not finite.
    """
    label, score, patient = checked(label, score, patient, classes=False)
    rows = []
    everyone = {None: np.ones(len(label), bool)}
    for group, mask in (everyone | dict(groups or {})).items():
        if not mask.any():
            rows += [no_records(name, group, level) for name in NAMES]
            continue
        y, s, p = label[mask], score[mask], patient[mask]
        values = replicate(statistic(y, s), p, draws=draws, seed=seed)
        for name, estimate in _estimates(y, s).items():
            why = WHY_UNDEFINED.get(name)
            rows.append(
                row(name, estimate, values[name], p, subgroup=group, level=level, undefined=why)
            )
    return rows
