"""Two AUROCs on the same records: their difference and its variance, without a bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ecgfast.eval.bootstrap import (
    LEAST_PATIENTS,
    LEAST_PATIENTS_OF_A_CLASS,
    Floats,
    checked,
)


def placements(label: Floats, score: Floats) -> tuple[Floats, Floats]:
    r"""How far each record stands among those of the other class, ties at half.

    With m positives x and n negatives y, :math:`\psi(x, y)` being 1, 1/2 or 0 as x is above, at
    or below y, these are :math:`\frac1n\sum_y \psi(x, y)` for each positive and
    :math:`\frac1m\sum_x \psi(x, y)` for each negative. The mean of either is the AUROC. Midranks
    give them in O(N log N): a record's rank among all less its rank within its class counts the
    others below it.

    Args:
        label: ``(N,)`` 0 or 1, both present.
        score: ``(N,)``.

    Returns:
        Of the positives ``(m,)`` and the negatives ``(n,)``, in the order of the records.
    """
    positive = label == 1
    among_all = rankdata(score)
    below = among_all[positive] - rankdata(score[positive])
    above = positive.sum() - (among_all[~positive] - rankdata(score[~positive]))
    return below / (~positive).sum(), above / positive.sum()


def clustered_variance(
    of_positives: Floats, of_negatives: Floats, label: Floats, patient: NDArray[Any]
) -> float:
    r"""Variance of a mean of placements whose records come from patients.

    With a patient's sums over their own records, :math:`X_i = \sum_j (v_{ij} - \hat\theta)` over
    positives and :math:`Y_i` over negatives,

    .. math:: \frac{I_1}{I_1 - 1}\frac{\sum X_i^2}{m^2} + \frac{I_0}{I_0 - 1}\frac{\sum Y_i^2}{n^2}
              + \frac{I}{I - 1}\frac{2\sum X_i Y_i}{m n}

    where of I patients :math:`I_1` have a positive and :math:`I_0` a negative record. A record a
    patient makes the last term 0 and the rest DeLong's variance.

    Args:
        of_positives: ``(m,)`` placements, or differences of two scores' placements.
        of_negatives: ``(n,)``.
        label: ``(N,)`` 0 or 1.
        patient: ``(N,)`` ids.

    Returns:
        The variance; NaN if one of the classes has fewer than two patients.
    """
    codes = np.unique(patient, return_inverse=True)[1].reshape(-1)
    count = int(codes.max()) + 1
    positive = label == 1
    sums, terms = [], 0.0
    for values, rows in ((of_positives, positive), (of_negatives, ~positive)):
        carriers = len(np.unique(codes[rows]))
        if carriers < 2:
            return math.nan
        inside = np.bincount(codes[rows], values - values.mean(), minlength=count) / len(values)
        terms += carriers / (carriers - 1) * float(inside @ inside)
        sums.append(inside)
    return terms + count / (count - 1) * 2 * float(sums[0] @ sums[1])


def delong(
    label: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    patient: ArrayLike,
    *,
    level: float = 0.95,
) -> dict[str, Any]:
    """Whether two scores rank the same records equally well: AUROC of a minus AUROC of b.

    The two curves are correlated, since they are of the same records, and so are the records of
    one patient. Both are in the variance: that of DeLong et al. (1988) in the form of Sun and Xu
    (2014), with the sums over patients of Obuchowski (1997). The difference over its standard
    error is taken for normal.

    Args:
        label: ``(N,)`` 0 or 1.
        a: ``(N,)`` scores.
        b: ``(N,)`` scores of the same records.
        patient: ``(N,)`` ids.
        level: Of confidence.

    Returns:
        estimate, a and b (the areas), lo, hi, level, se, z, p, n, patients, and reason (why there
        is no p; None otherwise).

    Raises:
        ValueError: If the arrays differ in length, are empty or hold a value that is not finite.

    Example:
        >>> label, patient = [0, 1] * 10, range(20)
        >>> found = delong(label, [0.1, 0.9] * 10, [0.1, 0.9] * 10, patient)
        >>> found["estimate"], found["p"], found["reason"]
        (0.0, None, 'both scores rank these records alike')
    """
    label, first, patient = checked(label, a, patient, classes=True)
    second = checked(label, b, patient, classes=True)[1]
    carriers = [len(np.unique(patient[label == c])) for c in (0, 1)]
    found: dict[str, Any] = {
        **dict.fromkeys(("estimate", "a", "b", "lo", "hi", "se", "z", "p", "reason")),
        "n": len(label),
        "patients": len(np.unique(patient)),
        "level": level,
    }
    if not min(carriers):
        return found | {"reason": f"no record has label {carriers.index(0)}"}
    (pa, na), (pb, nb) = placements(label, first), placements(label, second)
    found |= {
        "a": float(pa.mean()),
        "b": float(pb.mean()),
        "estimate": float(pa.mean() - pb.mean()),
    }
    if found["patients"] < LEAST_PATIENTS or min(carriers) < LEAST_PATIENTS_OF_A_CLASS:
        least = f"{LEAST_PATIENTS} patients, {LEAST_PATIENTS_OF_A_CLASS} of a class"
        have = f"{found['patients']}, {carriers[1]} with label 1, {carriers[0]} with label 0"
        return found | {"reason": f"a test needs {least}; here {have}"}
    variance = clustered_variance(pa - pb, na - nb, label, patient)
    if not variance > 0:
        return found | {"reason": "both scores rank these records alike"}
    se = math.sqrt(variance)
    z = found["estimate"] / se
    reach = NormalDist().inv_cdf((1 + level) / 2) * se
    return found | {
        "se": se,
        "z": z,
        "p": math.erfc(abs(z) / math.sqrt(2)),
        "lo": found["estimate"] - reach,
        "hi": found["estimate"] + reach,
    }
