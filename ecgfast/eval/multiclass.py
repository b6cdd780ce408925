"""How well scores of several classes tell them apart, each against the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats, Statistic, no_records, replicate, row
from ecgfast.eval.classification import Curve, auroc


def metric_names(classes: Sequence[str]) -> list[str]:
    """All metrics of this module, as rows are called."""
    return ["auroc_macro", "accuracy", "balanced_accuracy", *(f"auroc_of_{c}" for c in classes)]


def statistic(label: Floats, score: Floats, classes: Sequence[str]) -> Statistic:
    """All metrics of this module as a function of weights ``(B, N)``."""
    member = (label[:, None] == np.arange(len(classes))).astype(np.float64)
    curves = [Curve(member[:, c], score[:, c]) for c in range(len(classes))]
    right = (score.argmax(axis=1) == label).astype(np.float64)

    def of(weights: Floats) -> Mapping[str, Floats]:
        areas = np.stack([auroc(*curve(weights)) for curve in curves])
        inside = weights @ member
        nan = np.full_like(inside, np.nan)
        hit = np.divide(weights @ (member * right[:, None]), inside, out=nan, where=inside > 0)
        total = weights.sum(axis=1)
        nothing = np.full_like(total, np.nan)
        # a class that nobody has leaves its own area undefined, and with it the mean of all
        return {
            "auroc_macro": areas.mean(axis=0),
            "accuracy": np.divide(weights @ right, total, out=nothing, where=total > 0),
            "balanced_accuracy": hit.mean(axis=1),
            **{f"auroc_of_{name}": area for name, area in zip(classes, areas, strict=True)},
        }

    return of


def multiclass_rows(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    classes: Sequence[str],
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every metric of several classes, for all records and for each group, with its interval.

    - ``auroc_of_X``: chance that a record of class X has a higher score for X than another has.
    - ``auroc_macro``: their mean over the classes, each counting the same.
    - ``accuracy``: share of records whose highest score is that of their class (the first of equal
      ones); ``balanced_accuracy``: the mean of that share over the classes.

    Args:
        label: ``(N,)`` the number of the class, from 0.
        score: ``(N, C)``.
        patient: ``(N,)`` ids.
        classes: Names of the C classes.
        groups: Masks ``(N,)`` by name.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them; positives are counted for one class's rows.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or a label is no class.
    """
    label, score, patient = checked_classes(label, score, patient, len(classes))
    rows = []
    everyone = {None: np.ones(len(label), bool)}
    for group, mask in (everyone | dict(groups or {})).items():
        if not mask.any():
            rows += [no_records(name, group, level) for name in metric_names(classes)]
            continue
        y, s, p = label[mask], score[mask], patient[mask]
        of = statistic(y, s, classes)
        values = replicate(of, p, draws=draws, seed=seed)
        carriers = {name: len(np.unique(p[y == c])) for c, name in enumerate(classes)}
        rest = {name: len(np.unique(p[y != c])) for c, name in enumerate(classes)}
        for name, estimate in of(np.ones((1, len(y)))).items():
            mine = name.removeprefix("auroc_of_") if name.startswith("auroc_of_") else None
            needs = {c: carriers[c] for c in classes} if name != "accuracy" else {}
            if mine is not None:
                needs = {mine: carriers[mine], f"another class than {mine}": rest[mine]}
            missing = [c for c, count in needs.items() if not count]
            rows.append(
                row(
                    name,
                    float(estimate[0]),
                    values[name],
                    p,
                    subgroup=group,
                    positives=None if mine is None else int((y == classes.index(mine)).sum()),
                    level=level,
                    support=needs,
                    undefined=f"no record has {missing[0]}" if missing else None,
                )
            )
    return rows


def confusion_counts(label: ArrayLike, score: ArrayLike, classes: int) -> list[list[int]]:
    """Records by true class (rows) and class of the highest score (columns)."""
    truth, called = np.asarray(label).astype(np.int64), np.asarray(score).argmax(axis=1)
    counts = np.bincount(truth * classes + called, minlength=classes * classes)
    table: list[list[int]] = counts.reshape(classes, classes).tolist()
    return table


def checked_classes(
    label: ArrayLike, score: ArrayLike, patient: ArrayLike, classes: int
) -> tuple[Floats, Floats, NDArray[Any]]:
    """The arrays in one type, or an error that says what is wrong, where and how often."""
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    patient = np.asarray(patient)
    if label.ndim != 1 or patient.shape != label.shape or score.shape != (len(label), classes):
        shapes = f"{label.shape}, {score.shape}, {patient.shape}"
        raise ValueError(f"label and patient must be (N,) and score (N, {classes}), got {shapes}")
    if not len(label):
        raise ValueError("no records to score")
    for what, wrong in (
        (f"labels are none of 0 to {classes - 1}", ~np.isin(label, np.arange(classes))),
        ("scores are not finite", ~np.isfinite(score).all(axis=1)),
    ):
        if wrong.any():
            first = f"first: row {wrong.argmax()}, patient {patient[wrong.argmax()]}"
            raise ValueError(f"{int(wrong.sum())} of {len(label)} {what} ({first})")
    return label, score, patient
