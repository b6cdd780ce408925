"""Groups of patients for whom the numbers are given apart.

There are intervals and no p-values. Tests between bootstrap replicates of two groups, as published
code has them, find any difference significant if only the draws are many enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

AGE_BANDS = ((18.0, 35.0), (35.0, 50.0), (50.0, 75.0), (75.0, np.inf))  # years, [from, to)


def subgroups(
    *,
    sex: ArrayLike | None = None,
    age: ArrayLike | None = None,
    bands: Sequence[tuple[float, float]] = AGE_BANDS,
) -> dict[str, NDArray[np.bool_]]:
    """Masks by sex and age band.

    A record whose sex or age is NaN, or whose age is in no band, is in no group of that kind.

    Args:
        sex: ``(N,)`` 1 male, 0 female, NaN unknown.
        age: ``(N,)`` years, NaN unknown.
        bands: Each from a lower bound (within) to an upper one (without).

    Returns:
        Masks ``(N,)`` by names such as ``sex=male``, ``age=[35,50)``, ``age>=75``.

    Example:
        >>> {k: v.tolist() for k, v in subgroups(age=[20, 80], bands=[(18, 50)]).items()}
        {'age=[18,50)': [True, False]}
    """
    groups: dict[str, NDArray[np.bool_]] = {}
    if sex is not None:
        values = np.asarray(sex, np.float64)
        groups |= {"sex=female": values == 0, "sex=male": values == 1}
    if age is not None:
        years = np.asarray(age, np.float64)
        for low, high in bands:
            name = f"age>={low:g}" if np.isinf(high) else f"age=[{low:g},{high:g})"
            groups[name] = (years >= low) & (years < high)
    return groups
