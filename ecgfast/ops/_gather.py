"""Embeddings of all ranks, with the exact gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as ranks
from torch.autograd.function import once_differentiable


def gather(rows: Tensor) -> Tensor:
    r"""Stacks the rows of all ranks in the order of the ranks.

    The backward pass adds up what the losses of all ranks say of this rank's rows. So if every rank
    takes the mean loss of its own N anchors against all W N rows, and DDP averages the gradients of
    the parameters over the ranks, the result is the gradient of one process on the whole batch:

    .. math:: \frac{1}{W} \sum_r \frac{\partial \sum_s L_s}{\partial z_r}
              \frac{\partial z_r}{\partial \theta} =
              \frac{\partial}{\partial \theta} \frac{1}{W} \sum_s L_s

    The number L_s that a rank logs is its own share; the loss of the step is the mean over the
    ranks. Every rank must call this with rows of the same shape, and every rank must call backward.

    Args:
        rows: ``(N, ...)``, the same shape on every rank; ids as well as embeddings.

    Returns:
        ``(W N, ...)``; rank r's rows are r N to (r + 1) N - 1. Without process group, or with one
        process, the rows themselves. Differentiable once.
    """
    if not (ranks.is_available() and ranks.is_initialized()) or ranks.get_world_size() == 1:
        return rows
    if not rows.requires_grad:
        return _stack(rows)
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def places(count: int, *, device: torch.device | None = None) -> Tensor:
    """Where this rank's rows lie in what ``gather`` gives: ``(N,)`` int64, for N rows a rank."""
    initialized = ranks.is_available() and ranks.is_initialized()
    begin = ranks.get_rank() * count if initialized else 0
    return torch.arange(begin, begin + count, device=device)


def _stack(rows: Tensor) -> Tensor:
    rows = rows.contiguous()
    stacked = rows.new_empty((ranks.get_world_size() * len(rows), *rows.shape[1:]))
    ranks.all_gather_into_tensor(stacked, rows)
    return stacked


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return _stack(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        if ranks.get_backend() == "nccl":  # each rank gets its own slice of the sum
            mine = grad.new_empty((ctx.count, *grad.shape[1:]))
            ranks.reduce_scatter_tensor(mine, grad)
            return mine
        grad = grad.clone()  # autograd may give this memory to others
        ranks.all_reduce(grad)
        return grad[places(ctx.count, device=grad.device)]
