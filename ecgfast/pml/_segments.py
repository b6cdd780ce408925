"""Sums over the pairs of an anchor, where pairs are a list."""

from __future__ import annotations

import torch
from torch import Tensor


def logsumexp_by(rows: Tensor, values: Tensor, count: int, *, add_one: bool = False) -> Tensor:
    """Log of the sum of ``exp(values)`` over the pairs (K,) of each of ``count`` rows.

    With ``add_one``, of the sum plus 1. Without, a row with no pairs is at -inf. The gradient of
    a row with no pairs is 0, not NaN.
    """
    most = torch.full((count,), 0.0 if add_one else -torch.inf, dtype=values.dtype)
    most = most.to(values.device).scatter_reduce(0, rows, values.detach(), "amax")
    shift = torch.where(most.isinf(), 0, most)
    sums = sums_by(rows, torch.exp(values - shift[rows]), count)
    return shift + torch.log(sums + torch.exp(-shift) if add_one else sums)


def sums_by(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """The sum of ``values`` over the pairs (K,) of each of ``count`` rows, in their order."""
    order = rows.argsort(stable=True)  # index_add would add in any order on CUDA
    lengths = rows.bincount(minlength=count)
    return torch.segment_reduce(values[order], "sum", lengths=lengths, initial=0, unsafe=True)


def once_each(rows: Tensor, columns: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The pairs (K,) without repetitions."""
    keys = torch.unique(rows * width + columns)
    return keys // width, keys % width
