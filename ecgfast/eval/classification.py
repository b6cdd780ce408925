"""How well scores tell two classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from ecgfast.eval.bootstrap import Floats, Statistic, checked, no_records, replicate, row

FIXED_SENSITIVITY = 0.9
# metric: the classes that it cannot do without
NEEDS: dict[str, tuple[str, ...]] = {
    "auroc": ("label 1", "label 0"),
    "auprc": ("label 1",),
    "brier": (),
    "accuracy": (),
    "f1": ("label 1",),
    "sensitivity": ("label 1",),
    "specificity": ("label 0",),
    "ppv": (),
    "npv": (),
    "threshold_at_90_sensitivity": ("label 1",),
    "specificity_at_90_sensitivity": ("label 1", "label 0"),
    "ppv_at_90_sensitivity": ("label 1",),
    "npv_at_90_sensitivity": ("label 1", "label 0"),
    "prevalence": (),
}
WHY_UNDEFINED = {
    "ppv": "no record is called positive",
    "npv": "no record is called negative",
    "npv_at_90_sensitivity": "no record lies below the threshold",
}


class Curve:
    """Weight of both classes at and above each distinct score, from the highest down.

    Equal scores are one step, so ties count half in the area under the curve, whatever the order
    in which records came.
    """

    def __init__(self, label: Floats, score: Floats) -> None:
        self.order = np.argsort(-score, kind="stable")
        ranked = score[self.order]
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self.thresholds = ranked[self.ends]
        self.label = label[self.order]

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """True and false positives, ``(B, G)`` each, for weights ``(B, N)``."""
        weights = weights[:, self.order]
        positive = np.cumsum(weights * self.label, axis=1)[:, self.ends]
        # sums of whole numbers are exact, so the difference is, too
        return positive, np.cumsum(weights, axis=1)[:, self.ends] - positive


def auroc(tp: Floats, fp: Floats) -> Floats:
    """Area under the ROC curve ``(B,)``, ties at half; NaN where a class is missing."""
    before = np.pad(tp, ((0, 0), (1, 0)))[:, :-1]
    area = (np.diff(fp, prepend=0, axis=1) * (tp + before)).sum(axis=1) / 2
    return _ratio(area, tp[:, -1] * fp[:, -1])


def auprc(tp: Floats, fp: Floats) -> Floats:
    """Average precision ``(B,)``: precision at each step, weighted by the gain in recall."""
    gained = np.diff(tp, prepend=0, axis=1)
    precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
    return _ratio((gained * precision).sum(axis=1), tp[:, -1])


def step_at_sensitivity(tp: Floats, sensitivity: float) -> NDArray[np.int64]:
    """First step ``(B,)``, so the highest threshold, that finds this share of the positives."""
    wanted = sensitivity * tp[:, -1:] * (1 - 1e-12)  # 0.9 is not a binary number
    return np.argmax(tp >= wanted, axis=1)


def threshold_at_sensitivity(
    label: ArrayLike, score: ArrayLike, *, sensitivity: float = FIXED_SENSITIVITY
) -> float:
    """The highest threshold at which at least this share of the positives is found.

    A record is called positive if its score is at or above the threshold. Choose it on other
    records than those it is judged by.

    Raises:
        ValueError: If there are no positives, or an entry is not finite.

    Example:
        >>> threshold_at_sensitivity([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1])
        0.4
    """
    label, score, _ = checked(label, score, np.zeros(np.shape(label)), classes=True)
    if not label.any():
        raise ValueError(f"none of {len(label)} labels is 1: sensitivity is undefined")
    curve = Curve(label, score)
    tp, _ = curve(np.ones((1, len(label))))
    return float(curve.thresholds[step_at_sensitivity(tp, sensitivity)[0]])


def statistic(label: Floats, score: Floats, *, threshold: float) -> Statistic:
    """All metrics of this module but the point estimates, as a function of weights ``(B, N)``."""
    curve = Curve(label, score)
    called = (score >= threshold).astype(np.float64)
    parts = np.stack([label * called, label, called, (score - label) ** 2, np.ones_like(label)], 1)

    def of(weights: Floats) -> Mapping[str, Floats]:
        tp, fp = curve(weights)
        step = step_at_sensitivity(tp, FIXED_SENSITIVITY)[:, None]
        hit, false_alarm = (np.take_along_axis(x, step, 1)[:, 0] for x in (tp, fp))
        both, positive, predicted, squares, all_ = (weights @ parts).T
        negative = all_ - positive
        undefined = np.where(positive > 0, 0.0, np.nan)
        below = all_ - hit - false_alarm
        return {
            "auroc": auroc(tp, fp),
            "auprc": auprc(tp, fp),
            "brier": _ratio(squares, all_),
            "accuracy": _ratio(all_ - positive - predicted + 2 * both, all_),
            "f1": _ratio(2 * both, positive + predicted) + undefined,
            "sensitivity": _ratio(both, positive),
            "specificity": _ratio(negative - predicted + both, negative),
            "ppv": _ratio(both, predicted),
            "npv": _ratio(negative - predicted + both, all_ - predicted),
            "threshold_at_90_sensitivity": curve.thresholds[step[:, 0]] + undefined,
            "specificity_at_90_sensitivity": _ratio(negative - false_alarm, negative) + undefined,
            "ppv_at_90_sensitivity": _ratio(hit, hit + false_alarm) + undefined,
            "npv_at_90_sensitivity": _ratio(negative - false_alarm, below) + undefined,
            "prevalence": _ratio(positive, all_),
        }

    return of


def _estimates(label: Floats, score: Floats, threshold: float) -> dict[str, float]:
    """By scikit-learn where it has the metric."""
    ours = {
        k: float(v[0])
        for k, v in statistic(label, score, threshold=threshold)(np.ones((1, len(label)))).items()
    }
    called = score >= threshold
    theirs = {
        "accuracy": metrics.accuracy_score(label, called),
        "brier": float(np.mean((score - label) ** 2)),  # scikit-learn refuses a score beyond 1
    }
    if label.any():
        theirs["auprc"] = metrics.average_precision_score(label, score)
        theirs["sensitivity"] = metrics.recall_score(label, called)
        theirs["f1"] = metrics.f1_score(label, called)
    if not label.all():
        theirs["specificity"] = metrics.recall_score(label, called, pos_label=0)
    if label.any() and not label.all():
        theirs["auroc"] = metrics.roc_auc_score(label, score)
    return ours | {name: float(value) for name, value in theirs.items()}


def classification_rows(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    threshold: float = 0.5,
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every metric of two classes, for all records and for each group, with its interval.

    Args:
        label: ``(N,)`` 0 or 1.
        score: ``(N,)`` higher means more likely 1; a probability, for brier to have a meaning.
        patient: ``(N,)`` ids.
        threshold: A record is called positive if its score is at or above it.
        groups: Masks ``(N,)`` by name.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them. The metrics ``*_at_90_sensitivity`` choose
        their threshold anew in each draw: they describe the ROC curve, not a fixed decision.

    Raises:
        ValueError: If the arrays differ in length, are empty, hold a value that is not finite, or
            a label is neither 0 nor 1.
    """
    label, score, patient = checked(label, score, patient, classes=True)
    rows = []
    everyone = {None: np.ones(len(label), bool)}
    for group, mask in (everyone | dict(groups or {})).items():
        if not mask.any():
            rows += [no_records(name, group, level) for name in NEEDS]
            continue
        y, s, p = label[mask], score[mask], patient[mask]
        values = replicate(statistic(y, s, threshold=threshold), p, draws=draws, seed=seed)
        carriers = {f"label {c}": len(np.unique(p[y == c])) for c in (0, 1)}
        for name, estimate in _estimates(y, s, threshold).items():
            missing = [c for c in NEEDS[name] if not carriers[c]]
            rows.append(
                row(
                    name,
                    estimate,
                    values[name],
                    p,
                    subgroup=group,
                    positives=int(y.sum()),
                    level=level,
                    support={c: carriers[c] for c in NEEDS[name]},
                    undefined=f"no record has {missing[0]}" if missing else WHY_UNDEFINED.get(name),
                )
            )
    return rows


def roc_band(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    at: Sequence[float] | Floats,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Floats, Floats]:
    """Pointwise band of the ROC curve: bounds of the sensitivity at given false positive rates.

    Pointwise means that each place is covered with the given confidence, not the whole curve.

    Args:
        label: ``(N,)`` 0 or 1, both present.
        score: ``(N,)``.
        patient: ``(N,)`` ids.
        at: ``(K,)`` false positive rates, rising.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Lower and upper bounds ``(K,)``.
    """
    label, score, patient = checked(label, score, patient, classes=True)
    curve, places = Curve(label, score), np.asarray(at, np.float64)

    def of(weights: Floats) -> Mapping[str, Floats]:
        values = np.full((len(weights), len(places)), np.nan)
        for out, tp, fp in zip(values, *curve(weights), strict=True):
            if tp[-1] and fp[-1]:
                # the curve has upright pieces: at a jump its upper end counts
                x, y = np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1]
                last = np.append(x[1:] != x[:-1], True)
                out[:] = np.interp(places, x[last], y[last])
        return {"tpr": values}

    values = replicate(of, patient, draws=draws, seed=seed)["tpr"]
    values = values[np.isfinite(values[:, 0])]
    if not len(values):
        raise ValueError("no draw holds both classes: the ROC curve has no band")
    lo, hi = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return lo, hi


def _ratio(a: Floats, b: Floats) -> Floats:
    """Their quotient, NaN where the denominator is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
