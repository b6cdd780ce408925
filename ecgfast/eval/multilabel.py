"""How well scores of several labels, of which a record may have any number, find each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats, checked, replicate, row
from ecgfast.eval.classification import Curve, auroc


def multilabel_rows(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    *,
    classes: Sequence[str],
    least: int = 10,
    macro: str = "auroc_macro",
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The area under each label's ROC curve and their mean, with intervals over patients.

    Args:
        label: ``(N, C)`` 0 or 1; NaN where nobody knows, and the record is left out for this label.
        score: ``(N, C)`` higher means more likely 1.
        patient: ``(N,)`` ids.
        classes: Names of the C labels.
        least: Patients that have a label, and patients that have it not, below which it is left
            out: with 10, one draw of patients in 20,000 misses it.
        macro: What the row of the mean is called; each label counts the same in it.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them, ``auroc_of_X`` and last the mean; and why
        other labels are left out, by their names.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or a label is none of the above.

    Example:
        >>> rows, without = multilabel_rows(
        ...     [[1, 0], [0, 0]], [[0.9, 0.2], [0.1, 0.3]], [1, 2], classes=["a", "b"], least=1
        ... )
        >>> [(r["name"], r["estimate"]) for r in rows], without
        ([('auroc_of_a', 1.0), ('auroc_macro', 1.0)], {'b': '0 patients with it, 2 without'})
    """
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    patient = np.asarray(patient)
    if label.shape != score.shape or label.shape != (len(patient), len(classes)):
        raise ValueError(
            f"label and score must be (N, C) = ({len(patient)}, {len(classes)}), got "
            f"{label.shape} and {score.shape}"
        )
    curves: dict[str, tuple[Curve, NDArray[np.bool_]]] = {}
    support: dict[str, dict[str, int]] = {}
    without: dict[str, str] = {}
    for c, name in enumerate(classes):
        known = ~np.isnan(label[:, c])
        y, p = label[known, c], patient[known]
        has, lacks = (len(np.unique(p[y == v])) for v in (1, 0))
        if min(has, lacks) < least:
            without[name] = f"{has} patients with it, {lacks} without"
            continue
        checked(y, score[known, c], p, classes=True)
        curves[name] = Curve(y, score[known, c]), known
        support[name] = {name: has, f"no {name}": lacks}
    if not curves:
        return [], without

    def of(weights: Floats) -> Mapping[str, Floats]:
        areas = {n: auroc(*curve(weights[:, known])) for n, (curve, known) in curves.items()}
        return {**areas, macro: np.stack(list(areas.values())).mean(axis=0)}

    values = replicate(of, patient, draws=draws, seed=seed)
    estimates = of(np.ones((1, len(patient))))
    rows = []
    for name, (curve, known) in curves.items():
        rows.append(
            row(
                f"auroc_of_{name}",
                float(estimates[name][0]),
                values[name],
                patient[known],
                positives=int(curve.label.sum()),
                level=level,
                support=support[name],
            )
        )
    rows.append(row(macro, float(estimates[macro][0]), values[macro], patient, level=level))
    return rows, without
