"""Distances between all rows of two sets."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, ready, register, sum_dtype, view

METRICS = ("sqeuclidean", "euclidean", "cosine", "l1", "mean_l1")  # numbered as in contract.h
_SEGMENT = 1024  # kSegment of contract.h
_MOST_SEGMENTS = 65535  # of a grid, along y
_SPLIT_BELOW = 256  # tiles of pairs that leave some of a device idle
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def pairwise_distance(x: Tensor, y: Tensor | None = None, *, metric: str = "sqeuclidean") -> Tensor:
    r"""Measures how far every row of ``x`` lies from every row of ``y``, or of ``x`` itself.

    .. math::
        d_{ij} = \sum_d (x_{id} - y_{jd})^2 \;(\text{sqeuclidean}), \quad
        \sqrt{\textstyle\sum_d (x_{id} - y_{jd})^2} \;(\text{euclidean}), \quad
        1 - \tfrac{\langle x_i, y_j \rangle}{|x_i| |y_j|} \;(\text{cosine}), \quad
        \sum_d |x_{id} - y_{jd}| \;(\text{l1}), \quad
        \tfrac1D \sum_d |x_{id} - y_{jd}| \;(\text{mean\_l1})

    ``mean_l1`` over the samples of whole ECGs is the distance that SSL-DML mines its triplets
    with, there under the name "euclidean" (Jeong, Stultz, Ghassemi: Deep metric learning for the
    hemodynamics inference with electrocardiogram signals, MLHC 2023).

    Differences are taken before sums, so near rows lose no digits and equal rows are at 0 exactly,
    where the gradient is 0, as in torch. Without ``y`` the matrix is symmetric bit for bit with a
    diagonal of zeros, at half the work. A pair's distance does not depend on the other rows. What
    is not held: the triangle inequality for ``sqeuclidean`` and ``cosine``; memory beyond the
    result (never ``N M D``; ``cosine`` makes one copy of the rows at length 1). A zero row is at
    cosine distance 1 from every other row, with gradient 0. A NaN stays in its row and column.
    Autocast does not touch it.

    Args:
        x: Rows, ``(N, D)``: embeddings, or signals flattened to ``(N, L * T)``. Any float dtype
            and strides.
        y: Rows to compare with, ``(M, D)``, of the dtype and device of ``x``; None is ``x``.
        metric: One of sqeuclidean, euclidean, cosine, l1, mean_l1.

    Returns:
        Tensor ``(N, M)`` in the unit of ``x`` (sqeuclidean: its square; cosine: none), float32,
        or float64 for float64: a half would make ties of near neighbours. Differentiable once.

    Raises:
        ValueError: If ``x`` or ``y`` is not 2-D, has no columns, the columns or devices of both
            differ, or ``metric`` is unknown.
        TypeError: If ``x`` is not of a float dtype or ``y`` not of the same.

    Example:
        >>> pairwise_distance(torch.randn(8, 12, 500).flatten(1), metric="mean_l1").shape
        torch.Size([8, 8])
    """
    if metric not in METRICS:
        near = difflib.get_close_matches(str(metric), METRICS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"metric must be one of {', '.join(METRICS)}, got {metric!r}; did you mean {near}?"
        )
    for name, rows in (("x", x), ("y", x if y is None else y)):
        if rows.dim() != 2:
            raise ValueError(f"{name} must be (rows, D), got {tuple(rows.shape)}")
        if rows.shape[1] == 0:
            raise ValueError(f"{name} has no columns, got {tuple(rows.shape)}")
        if rows.dtype not in _DTYPES:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, got {rows.dtype}"
            )
    if y is not None:
        if y.shape[1] != x.shape[1]:
            raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}")
        if y.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype} and y is {y.dtype}: cast one of them")
        if y.device != x.device:
            raise ValueError(f"x is on {x.device} and y on {y.device}: move one of them")
    return _PairwiseDistance.apply(x, y, metric)


def pairwise_distance_reference(
    x: Tensor, y: Tensor | None = None, *, metric: str = "sqeuclidean"
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    if metric == "cosine":
        return _cosine_reference(x, y)
    apart = x[:, None] - (x if y is None else y)
    if metric == "sqeuclidean":
        return apart.square().sum(dim=-1)
    if metric == "euclidean":
        return torch.linalg.vector_norm(apart, dim=-1)
    return apart.abs().sum(dim=-1) if metric == "l1" else apart.abs().mean(dim=-1)


def _cosine_reference(x: Tensor, y: Tensor | None) -> Tensor:
    other = x if y is None else y
    norms = torch.linalg.vector_norm(x, dim=-1)[:, None] * torch.linalg.vector_norm(other, dim=-1)
    undefined = norms == 0
    similarity = torch.where(undefined, 0, x @ other.mT) / torch.where(undefined, 1, norms)
    return (1 - similarity) if y is not None else (1 - similarity).fill_diagonal_(0)


def _forward_like(x: Tensor, y: Tensor | None, metric: str) -> Tensor:
    return x.new_empty((len(x), len(x if y is None else y)), dtype=sum_dtype(x))


@register("pairwise_distance(Tensor x, Tensor? y, str metric) -> Tensor", _forward_like)
def _forward(x: Tensor, y: Tensor | None, metric: str) -> Tensor:
    distance = _forward_like(x, y, metric)
    (x, norm_x), (y, norm_y), same = _sides(x, y, metric)
    segments = _segments(x, distance)
    partial = distance.new_empty((segments, *distance.shape))
    views = view(x), view(y), view(norm_x), view(norm_y), view(distance), view(partial)
    _C.pairwise_distance_forward(*views, METRICS.index(metric), same, place(x))
    return distance


def _segments(x: Tensor, distance: Tensor) -> int:
    """How many blocks of a device share a tile's columns: few pairs of long rows need many."""
    tiles = -(-distance.shape[0] // 64) * -(-distance.shape[1] // 64)
    segments = -(-x.shape[1] // _SEGMENT)
    return segments if x.is_cuda and tiles < _SPLIT_BELOW and segments <= _MOST_SEGMENTS else 0


def _backward_like(
    grad: Tensor, x: Tensor, y: Tensor | None, distance: Tensor, metric: str
) -> Tensor:
    return dense_like(x)


@register(
    "pairwise_distance_backward(Tensor grad, Tensor x, Tensor? y, Tensor distance, str metric)"
    " -> Tensor",
    _backward_like,
)
def _backward(grad: Tensor, x: Tensor, y: Tensor | None, distance: Tensor, metric: str) -> Tensor:
    dtype = x.dtype
    grad_x = torch.empty(x.shape, dtype=sum_dtype(x), device=x.device)
    (x, norm_x), (y, norm_y), same = _sides(x, y, metric)
    views = view(x), view(y), view(norm_x), view(norm_y), view(distance), view(grad)
    _C.pairwise_distance_backward(*views, view(grad_x), METRICS.index(metric), same, place(x))
    if metric == "cosine":
        _C.pairwise_distance_project(view(x), view(norm_x), view(grad_x), place(x))
    return grad_x.to(dtype)


def _sides(
    x: Tensor, y: Tensor | None, metric: str
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], bool]:
    """Both sides as kernels take them, with the norms for cosine, and whether they are one."""
    own = _rows(x, metric)
    return own, own if y is None else _rows(y, metric), y is None


def _rows(x: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    x = ready(x)
    if metric != "cosine":
        return x, x.new_empty(0, dtype=torch.float64)
    unit = torch.empty(x.shape, dtype=sum_dtype(x), device=x.device)
    norm = x.new_empty(len(x), dtype=torch.float64)
    _C.pairwise_distance_unit_rows(view(x), view(unit), view(norm), place(x))
    return unit, norm


class _PairwiseDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, metric: str) -> Tensor:
        distance = _forward(x, y, metric)
        ctx.save_for_backward(x, y, distance)
        ctx.metric = metric
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y, distance = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad, x, y, distance, ctx.metric)
        if ctx.needs_input_grad[1]:
            grad_y = _backward(grad.mT, y, x, distance.mT, ctx.metric)
        return grad_x, grad_y, None
