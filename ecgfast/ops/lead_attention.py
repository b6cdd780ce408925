"""Attention among the tokens of each lead: the many tiny attentions of a signal, in one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import place, ready, register, view

_MOST_COLUMNS, _MOST_QUERIES = 8, 4096  # as in csrc/lead_attention/contract.h


def lead_attention(qkv: Tensor, *, heads: int) -> Tensor:
    r"""Lets the tokens of each lead attend to each other, in several heads.

    .. math:: y_i = \sum_j p_{ij} v_j, \quad
        p_{ij} = \mathrm{softmax}_j (q_i \cdot k_j / \sqrt{D / \mathrm{heads}})

    This is the middle of multi-head attention (Vaswani et al. 2017): the projections around it,
    which may be another one for each lead, are matrix products and stay with the caller. So does
    dropout: none is applied to the weights. There is no mask either. Leads and records never mix,
    so a batch gives what its records give one by one, to the bit. Neither scores nor weights are
    ever held, and nothing is kept for backward but ``qkv``. Autocast does not touch it: sums are
    made in float32 at least.

    It is for many short rows of narrow heads, as in the temporal attention of the dual-attention
    network (Chen et al., IEEE Transactions on Big Data 2025, arXiv 2403.10581): 12 leads, 19
    tokens, 8 heads of 2 columns.

    Args:
        qkv: Queries, keys and values of tokens, ``(N, L, S, 3 D)`` without unit: along the last
            axis D columns of queries, D of keys, D of values, as ``nn.MultiheadAttention`` packs
            its input projection; head h takes the h-th ``D / heads`` columns of each. Any float
            dtype and strides.
        heads: Number of heads, a divisor of D; 8 columns a head at most, and ``heads * S`` 4096
            at most.

    Returns:
        Tensor ``(N, L, S, D)`` of the dtype of ``qkv``, without unit. Differentiable once.

    Raises:
        ValueError: If ``qkv`` is not ``(N, L, S, 3 D)`` with S and D positive, ``heads`` does not
            divide D, a head has more than 8 columns, or ``heads * S`` is more than 4096.
        TypeError: If ``qkv`` is not of a float dtype.

    Example:
        >>> lead_attention(torch.randn(8, 12, 19, 48), heads=8).shape
        torch.Size([8, 12, 19, 16])
    """
    _expect(qkv, heads)
    y, _ = _LeadAttention.apply(qkv, heads, False)
    return y


def lead_attention_maps(qkv: Tensor, *, heads: int) -> tuple[Tensor, Tensor]:
    r"""The same as :func:`lead_attention`, and who attended to whom.

    The first output is that of :func:`lead_attention`, bit for bit. The maps are for looking at:
    they have no gradient.

    Args:
        qkv: As in :func:`lead_attention`.
        heads: As in :func:`lead_attention`.

    Returns:
        Tensor ``(N, L, S, D)``, differentiable once, and the weights :math:`p`, ``(N, L, heads, S,
        S)``: query by key, each query's weights sum to 1. Both of the dtype of ``qkv``.

    Raises:
        ValueError: As :func:`lead_attention`.
        TypeError: As :func:`lead_attention`.

    Example:
        >>> _, maps = lead_attention_maps(torch.zeros(1, 1, 4, 6), heads=1)
        >>> maps[0, 0, 0, 2]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    _expect(qkv, heads)
    return _LeadAttention.apply(qkv, heads, True)


def lead_attention_reference(qkv: Tensor, *, heads: int) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    return lead_attention_maps_reference(qkv, heads=heads)[0]


def lead_attention_maps_reference(qkv: Tensor, *, heads: int) -> tuple[Tensor, Tensor]:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).transpose(2, 4).unbind(3)  # (N, L, heads, S, h)
    maps = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1)
    return (maps @ v).transpose(2, 3).flatten(-2), maps


def _expect(qkv: Tensor, heads: int) -> None:
    if qkv.dim() != 4 or qkv.shape[3] % 3 or 0 in qkv.shape[2:]:
        raise ValueError(
            f"qkv must be (N, L, S, 3 D) with S and D positive, got {tuple(qkv.shape)}"
        )
    if not qkv.is_floating_point():
        raise TypeError(f"qkv must be of a float dtype, got {qkv.dtype}")
    tokens, width = qkv.shape[2], qkv.shape[3] // 3
    if heads < 1 or width % heads:
        raise ValueError(f"heads must divide D = {width}, got {heads}")
    if width // heads > _MOST_COLUMNS or heads * tokens > _MOST_QUERIES:
        raise ValueError(
            f"a head may have {_MOST_COLUMNS} columns and a lead {_MOST_QUERIES} = heads * S"
            f" queries at most, got {width // heads} and {heads * tokens}:"
            " torch's scaled_dot_product_attention is for larger ones"
        )


def _scratch(qkv: Tensor, backward: bool) -> Tensor:
    threads = place(qkv)[2]  # none on CUDA
    shape = threads, _C.lead_attention_scratch(view(qkv), backward) if threads else 0
    return qkv.new_empty(shape, dtype=torch.uint8)


def _forward_like(qkv: Tensor, heads: int, maps: bool) -> tuple[Tensor, Tensor]:
    records, leads, tokens, columns = qkv.shape
    shape = (records, leads, heads, tokens, tokens) if maps else (0,)
    return qkv.new_empty((records, leads, tokens, columns // 3)), qkv.new_empty(shape)


@register(
    "lead_attention(Tensor qkv, SymInt heads, bool maps) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(qkv: Tensor, heads: int, maps: bool) -> tuple[Tensor, Tensor]:
    dtype, qkv = qkv.dtype, ready(qkv)
    (y, weights), scratch = _forward_like(qkv, heads, maps), _scratch(qkv, False)
    views = map(view, (qkv, y, weights, scratch))
    _C.lead_attention_forward(*views, heads, place(qkv))
    return y.to(dtype), weights.to(dtype)


def _backward_like(qkv: Tensor, grad_y: Tensor, heads: int) -> Tensor:
    return qkv.new_empty(qkv.shape)


@register(
    "lead_attention_backward(Tensor qkv, Tensor grad_y, SymInt heads) -> Tensor", _backward_like
)
def _backward(qkv: Tensor, grad_y: Tensor, heads: int) -> Tensor:
    dtype, qkv, grad_y = qkv.dtype, ready(qkv), ready(grad_y)
    grad_qkv, scratch = _backward_like(qkv, grad_y, heads), _scratch(qkv, True)
    views = map(view, (qkv, grad_y, grad_qkv, scratch))
    _C.lead_attention_backward(*views, heads, place(qkv))
    return grad_qkv.to(dtype)


class _LeadAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, maps: bool) -> tuple[Tensor, Tensor]:
        y, weights = _forward(qkv, heads, maps)
        ctx.mark_non_differentiable(weights)
        ctx.save_for_backward(qkv)
        ctx.heads = heads
        return y, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return _backward(*ctx.saved_tensors, grad_y, ctx.heads), None, None
