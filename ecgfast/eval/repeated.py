"""Two ways of training, over repeated splits of the same records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student


def corrected_resampled_t(
    differences: ArrayLike, *, trained_on: int, tested_on: int, level: float = 0.95
) -> dict[str, Any]:
    r"""Whether a difference over J splits is 0, though the splits share most of their records.

    Nadeau and Bengio (Machine Learning 52, 2003, 239): the variance of the mean is
    :math:`(1 / J + n_{test} / n_{train}) s^2`, as training sets overlap; Student's t has J - 1
    degrees of freedom. For k folds repeated r times, J = k r (Bouckaert and Frank, PAKDD 2004).
    It speaks of training on another sample of this size and testing on another.

    Args:
        differences: ``(J,)``, the metric of one less that of the other in each split.
        trained_on: Records (patients, where they are what is split) of a training part.
        tested_on: Of a test part.
        level: Of confidence.

    Returns:
        estimate (the mean), lo, hi, t, df, p, splits, and reason (why there is no test; else None).

    Raises:
        ValueError: A difference is not finite, or a part is empty.

    Example:
        >>> found = corrected_resampled_t([0.1, 0.2, 0.3], trained_on=80, tested_on=20)
        >>> round(found["t"], 4), found["df"]
        (2.6186, 2)
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1:
        raise ValueError(f"differences must be (J,), got {d.shape}")
    wrong = np.flatnonzero(~np.isfinite(d))
    if len(wrong):
        raise ValueError(
            f"differences must be finite, got {d[wrong[0]]:g} in split {wrong[0]} ({len(wrong)} of "
            f"{len(d)} splits): a split in which a metric is undefined makes the whole test so"
        )
    if trained_on < 1 or tested_on < 1:
        raise ValueError(f"both parts need records, got {trained_on} and {tested_on}")
    n = len(d)
    mean = float(d.mean()) if n else None
    nothing = {"estimate": mean, "lo": None, "hi": None, "t": None, "df": max(n - 1, 0), "p": None}
    nothing["splits"] = n
    if n < 2:
        return nothing | {"reason": f"a test needs two splits, got {n}"}
    sd = float(d.std(ddof=1))
    if sd <= 1e-12 * max(1.0, abs(d.mean())):
        return nothing | {"reason": f"all {n} splits gave the same difference"}
    error = sd * (1 / n + tested_on / trained_on) ** 0.5
    half = float(student.ppf((1 + level) / 2, n - 1)) * error
    t = float(d.mean()) / error
    p = float(2 * student.sf(abs(t), n - 1))
    found = {"lo": float(d.mean()) - half, "hi": float(d.mean()) + half, "t": t, "p": p}
    return nothing | found | {"reason": None}
