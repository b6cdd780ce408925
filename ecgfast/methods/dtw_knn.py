"""A baseline without training: the labels of the nearest records, as signals."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.miners.distance import InputDistance

Floats = NDArray[np.floating]
SAME = 1e-6  # of the median distance: what is nearer counts as this near


def vote(distance: Floats, label: Floats, *, k: int = 15) -> Floats:
    r"""Mean label of the k nearest labelled records, weighted by inverse distance.

    .. math:: \hat y_i = \frac{\sum_{j \in N_k(i)} y_j / d_{ij}}{\sum_{j \in N_k(i)} 1 / d_{ij}}

    Of labels that are 0 or 1 it is the probability of class 1.

    Args:
        distance: ``(N, M)`` of N records from M labelled ones; lower is nearer.
        label: ``(M,)`` values, or ``(M, C)`` with a one for each record's class.
        k: How many vote; all where M is less.

    Returns:
        ``(N,)`` or ``(N, C)``.

    Raises:
        ValueError: Shapes differ, or a distance is no number.

    Example:
        >>> vote(np.array([[1.0, 3.0, 9.0]]), np.array([1.0, 0.0, 0.0]), k=2)
        array([0.75])
    """
    distance, label = np.asarray(distance, np.float64), np.asarray(label, np.float64)
    if distance.ndim != 2 or len(label) != distance.shape[1] or not len(label) or k < 1:
        raise ValueError(
            f"distance must be (N, M), label (M,) or (M, C), k positive, got {distance.shape}, "
            f"{label.shape} and {k}"
        )
    wrong = np.argwhere(~np.isfinite(distance))
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {distance.size} distances are no numbers (first: row "
            f"{wrong[0][0]}, column {wrong[0][1]})"
        )
    k = min(k, len(label))
    # of equal distances the first records win, whatever else is in the row
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(distance, nearest, axis=1)
    floor = SAME * np.median(distance) if distance.size else 0.0
    weight = 1 / np.maximum(near, floor or 1.0)
    weight /= weight.sum(axis=1, keepdims=True)
    voted: Floats = np.einsum("nk,nk...->n...", weight, label[nearest])
    return voted


@torch.no_grad()
def distances(measure: InputDistance, x: Tensor, y: Tensor) -> Tensor:
    """Distances ``(N, M)`` of prepared records; a missing sample is 0, as an encoder sees it.

    Args:
        measure: Of signals.
        x: Records ``(N, L, T)``, already at the rate of the comparison.
        y: Records ``(M, L, T)``, also.
    """
    return measure.between(x.nan_to_num(0.0, 0.0, 0.0), y.nan_to_num(0.0, 0.0, 0.0))
