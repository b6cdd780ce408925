"""What a linear model can read from frozen embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from ecgfast.eval.bootstrap import Floats

PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)  # strongest first
FALLBACK = 1.0
FOLDS = 5
LEAST_FOLDS = 3  # fewer patients of a class than this cannot choose a penalty
LEAST_PATIENTS = 6  # of a value
WORSE = 2  # penalties in a row that are worse than the best by MARGIN end the search
MARGIN = 0.01  # of the loss; where the strongest penalties fit nothing, all losses are nearly equal


class LinearProbe(NamedTuple):
    """A fitted linear model.

    Attributes:
        model: Of scikit-learn.
        penalty: On half the squared weights, beside the mean loss of a record.
        folds: Of patients, by which the penalty was chosen; 0 where they were too few for that.
    """

    model: Any
    penalty: float
    folds: int

    def score(self, features: ArrayLike) -> Floats:
        """Values, or the probability of class 1 ``(N,)``; of more classes each one's ``(N, C)``."""
        x = np.asarray(features, np.float64)
        if isinstance(self.model, Ridge):
            return np.asarray(self.model.predict(x))
        chances = np.asarray(self.model.predict_proba(x))
        return chances[:, 1] if chances.shape[1] == 2 else chances


def linear_probe(
    features: ArrayLike, label: ArrayLike, patient: ArrayLike, *, classes: bool
) -> LinearProbe:
    r"""Fits a logistic regression to classes, or a ridge regression to values.

    Both minimise the mean loss of a record plus :math:`\lambda |w|^2 / 2`, the bias being free. The
    penalty is the power of 10 from 1e-4 to 100 with the least loss on patients that were left out,
    tried from the strongest on until two in a row are worse than the best by 1 %. With fewer than 3
    patients of a class (6 for a value) it is 1, which tells no more than which way the classes lie
    apart.

    Args:
        features: ``(N, D)``, standardised.
        label: ``(N,)`` classes from 0 on, or values.
        patient: ``(N,)`` ids: records of one patient are never on both sides.
        classes: Which of the two.

    Raises:
        ValueError: Shapes differ, or there is one class alone.
    """
    x, y = np.asarray(features, np.float64), np.asarray(label, np.float64)
    group = np.unique(np.asarray(patient), return_inverse=True)[1].reshape(-1)
    if x.ndim != 2 or y.shape != (len(x),) or group.shape != y.shape or not len(x):
        raise ValueError(
            f"features must be (N, D), label and patient (N,), got {x.shape}, {y.shape} and "
            f"{group.shape}"
        )
    if classes and len(np.unique(y)) < 2:
        raise ValueError(f"all {len(y)} labels are {y[0]:g}: a class needs both kinds")
    folds = _folds(y, group, classes)
    penalty = FALLBACK
    if folds:
        penalty, folds = _choose(x, y, group, folds, classes)
    return LinearProbe(next(_path(x, y, (penalty,), classes)), penalty, folds)


def _folds(y: Floats, group: NDArray[np.int64], classes: bool) -> int:
    """How many folds of patients there can be."""
    if not classes:
        count = len(np.unique(group))
        return min(FOLDS, count) if count >= LEAST_PATIENTS else 0
    fewest = min(len(np.unique(group[y == c])) for c in np.unique(y))
    return min(FOLDS, fewest) if fewest >= LEAST_FOLDS else 0


def _choose(
    x: Floats, y: Floats, group: NDArray[np.int64], folds: int, classes: bool
) -> tuple[float, int]:
    """The penalty with the least loss on held-out patients, and how many folds spoke."""
    kind = StratifiedGroupKFold if classes else GroupKFold
    parts = [
        (inside, outside)
        for inside, outside in kind(folds, shuffle=True, random_state=0).split(x, y, group)
        # a fold that took all patients of a class teaches nothing
        if not classes or len(np.unique(y[inside])) == len(np.unique(y))
    ]
    if not parts:
        return FALLBACK, 0
    paths = [_path(x[inside], y[inside], PENALTIES, classes) for inside, _ in parts]
    losses: list[float] = []
    for models in zip(*paths, strict=True):
        losses.append(
            sum(
                _loss(model, x[outside], y[outside], classes)
                for model, (_, outside) in zip(models, parts, strict=True)
            )
        )
        # weak penalties take by far the longest, and what they fit no longer helps
        if len(losses) > WORSE and min(losses[-WORSE:]) > (1 + MARGIN) * min(losses):
            break
    return PENALTIES[int(np.argmin(losses))], len(parts)


def _loss(model: Any, x: Floats, y: Floats, classes: bool) -> float:
    """Of held-out records, all together."""
    if not classes:
        return float(((model.predict(x) - y) ** 2).sum())
    own = model.predict_proba(x)[np.arange(len(x)), np.searchsorted(model.classes_, y)]
    return -float(np.log(np.maximum(own, 1e-12)).sum())


def _path(x: Floats, y: Floats, penalties: tuple[float, ...], classes: bool) -> Iterator[Any]:
    """A model for each penalty; of a class each begins where the one before it ended."""
    n, before = len(y), None
    for penalty in penalties:
        if not classes:
            yield Ridge(alpha=penalty * n).fit(x, y)
            continue
        model = LogisticRegression(C=1 / (penalty * n), max_iter=2000, warm_start=True)
        if before is not None:
            model.coef_, model.intercept_ = before.coef_.copy(), before.intercept_.copy()
            model.classes_ = before.classes_
        before = model.fit(x, y)
        yield before
