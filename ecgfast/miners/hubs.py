"""Distances without hubs: records that are near to, or far from, a great many others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Correction = Literal["none", "csls", "mutual_proximity"]


def csls(distances: Tensor, *, k: int = 10, counts: Tensor | None = None) -> Tensor:
    r"""Cross-domain similarity local scaling, of distances.

    .. math:: c_{ij} = 2 d_{ij} - r_i - r'_j

    with :math:`r_i` the mean distance of row i to its k nearest columns and :math:`r'_j` that of
    column j to its k nearest rows (Conneau, Lample, Ranzato, Denoyer, Jégou: Word translation
    without parallel data, ICLR 2018; there of similarities, which changes the signs). A record far
    from all has a large r and is no longer the farthest of all.

    Args:
        distances: ``(N, M)``.
        k: Neighbours; fewer where there are not as many.
        counts: ``(N, M)`` bool, the pairs that are looked at, a record with itself is none; all if
            None.

    Returns:
        ``(N, M)`` in the unit of the distances, of any sign. NaN where a pair is not looked at.

    Example:
        >>> csls(torch.tensor([[1.0, 4.0], [2.0, 9.0]]), k=1)
        tensor([[ 0.,  3.],
                [ 1., 12.]])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    distances, counts = _checked(distances, counts)
    rows = _mean_of_nearest(distances, counts, k)
    columns = _mean_of_nearest(distances.mT, counts.mT, k)
    return (2 * distances - rows[:, None] - columns).masked_fill(~counts, torch.nan)


def mutual_proximity(distances: Tensor, *, counts: Tensor | None = None) -> Tensor:
    r"""How unlikely it is that a pair is near for both of its records, from 0 upwards.

    .. math:: c_{ij} = -\log \bigl( P(X_i > d_{ij}) \, P(X'_j > d_{ij}) \bigr)

    Mutual proximity (Schnitzer, Flexer, Schedl, Widmer: Local and global scaling reduce hubs in
    space, JMLR 2012) in its Gaussian form with independence: :math:`X_i` has the mean and the
    standard deviation of row i, :math:`X'_j` those of column j. Its negative logarithm keeps the
    order and tells far pairs apart, whose proximities all round to 0. Computed in float64.

    Args:
        distances: ``(N, M)``.
        counts: As in :func:`csls`.

    Returns:
        ``(N, M)`` of the dtype of the distances, without unit. NaN where a pair is not looked at,
        or where a row or column has a single value.

    Example:
        >>> near = mutual_proximity(torch.tensor([[1.0, 4.0], [2.0, 9.0]]))
        >>> near.argmin().item(), near.argmax().item()
        (0, 3)
    """
    distances, counts = _checked(distances, counts)
    wide = distances.double()
    beyond = [
        torch.special.log_ndtr(-_z_scores(wide, counts, dim)) for dim in (1, 0)
    ]  # log P(X > d)
    return (-beyond[0] - beyond[1]).masked_fill(~counts, torch.nan).to(distances.dtype)


def corrected(
    distances: Tensor, how: Correction, *, k: int = 10, counts: Tensor | None = None
) -> Tensor:
    """The distances, as a word says."""
    if how == "csls":
        return csls(distances, k=k, counts=counts)
    if how == "mutual_proximity":
        return mutual_proximity(distances, counts=counts)
    if how != "none":
        raise ValueError(f"correction must be none, csls or mutual_proximity, got {how!r}")
    return distances


def _checked(distances: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    if distances.dim() != 2 or not distances.is_floating_point():
        raise ValueError(
            f"distances must be (N, M) of a float dtype, got {tuple(distances.shape)}"
            f" {distances.dtype}"
        )
    if counts is None:
        counts = torch.ones_like(distances, dtype=torch.bool)
    if counts.shape != distances.shape:
        raise ValueError(
            f"counts must be {tuple(distances.shape)} as distances, got {tuple(counts.shape)}"
        )
    return distances.detach(), counts & ~distances.isnan()


def _mean_of_nearest(distances: Tensor, counts: Tensor, k: int) -> Tensor:
    """Of each row ``(N,)``; 0 where nothing counts, since then nothing is made of it."""
    some = min(k, distances.shape[1])
    if not some:
        return distances.new_zeros(len(distances))
    nearest = distances.masked_fill(~counts, torch.inf).topk(some, dim=1, largest=False).values
    there = counts.sum(dim=1).clamp(max=some)
    kept = torch.arange(some, device=distances.device) < there[:, None]
    return nearest.where(kept, 0).sum(dim=1) / there.clamp(min=1)


def _z_scores(distances: Tensor, counts: Tensor, dim: int) -> Tensor:
    number = counts.sum(dim=dim, keepdim=True)
    mean = distances.where(counts, 0).sum(dim=dim, keepdim=True) / number.clamp(min=1)
    centred = distances - mean
    squares = centred.square().where(counts, 0).sum(dim=dim, keepdim=True)
    return centred / (squares / number.clamp(min=1)).sqrt()
