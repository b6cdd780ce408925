"""Distances of listed pairs of rows."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, ready, register, sum_dtype, view

METRICS = ("sqeuclidean", "euclidean", "cosine", "dot")  # numbered as in contract.h
_NOBODY = 2**31 - 1  # kNobody of contract.h
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def pair_distance(
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "euclidean",
    valid: Tensor | None = None,
) -> Tensor:
    r"""Measures how far ``x[rows[k]]`` lies from ``y[columns[k]]``, or ``x[columns[k]]``.

    With :math:`a = x_{rows_k}` and :math:`b = y_{columns_k}`:

    .. math::
        d_k = \sum_d (a_d - b_d)^2 \;(\text{sqeuclidean}), \quad
        \sqrt{\textstyle\sum_d (a_d - b_d)^2} \;(\text{euclidean}), \quad
        1 - \tfrac{\langle a, b \rangle}{|a| |b|} \;(\text{cosine}), \quad
        \langle a, b \rangle \;(\text{dot})

    The words mean what they mean in :func:`pairwise_distance`; ``cosine`` is a distance, 1 minus
    the similarity, while ``dot`` is a product: the larger, the nearer. Losses on what a miner
    returns are made of this: no copy of size K x D is gathered, and nothing of size N x M made.

    Differences are taken before sums, so near rows lose no digits and equal rows are at 0 exactly,
    where the gradient of ``euclidean`` is 0. A zero row has cosine similarity 0 with every row,
    itself too, with gradient 0. Rows may repeat, and a pair may be of a row with itself. A NaN
    shows in the pairs that use it. Autocast does not touch the op. Values and gradients are the
    same bits in every run, whatever the number of threads. A pair whose incoming gradient is 0
    takes no part in backward: a hinge that is closed costs nothing there.

    An invalid pair has distance 0 and no gradient, and its indices are not looked at. On the CPU a
    valid index outside is refused. On CUDA that would mean waiting for the device: there its pair
    reads no memory, and its distance is NaN without gradient.

    Args:
        x: ``(N, D)``, any float dtype and strides.
        rows: Rows of ``x``, ``(K,)`` int64, each in ``[0, N)``.
        columns: Rows of ``y``, ``(K,)`` int64, each in ``[0, M)``.
        y: ``(M, D)``, of the dtype and device of ``x``; None is ``x``.
        metric: One of sqeuclidean, euclidean, cosine, dot.
        valid: ``(K,)`` bool, which pairs count; all if None.

    Returns:
        Tensor ``(K,)`` in the unit of ``x`` (sqeuclidean, dot: its square; cosine: none), float32,
        or float64 for float64. Differentiable once, with respect to ``x`` and ``y``.

    Raises:
        ValueError: If a shape or ``metric`` is not as above, or tensors are on two devices.
        TypeError: If a dtype is not as above.
        IndexError: If a valid pair has an index outside, on the CPU.

    Example:
        >>> pair_distance(torch.eye(3), torch.tensor([0, 1]), torch.tensor([1, 1]))
        tensor([1.4142, 0.0000])
    """
    if metric not in METRICS:
        near = difflib.get_close_matches(str(metric), METRICS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"metric must be one of {', '.join(METRICS)}, got {metric!r}; did you mean {near}?"
        )
    for name, side in (("x", x), ("y", x if y is None else y)):
        if side.dim() != 2:
            raise ValueError(f"{name} must be (rows, D), got {tuple(side.shape)}")
        if side.dtype not in _DTYPES:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, got {side.dtype}"
            )
    if y is not None:
        if y.shape[1] != x.shape[1]:
            raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}")
        if y.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype} and y is {y.dtype}: cast one of them")
    if rows.dim() != 1:
        raise ValueError(f"rows must be (K,), got {tuple(rows.shape)}")
    for name, tensor in (("rows", rows), ("columns", columns), ("valid", valid), ("y", y)):
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise ValueError(f"{name} must be on {x.device} as x, got {tensor.device}")
        if tensor is y:
            continue
        if tensor.shape != rows.shape:
            raise ValueError(
                f"{name} must be {tuple(rows.shape)} as rows, got {tuple(tensor.shape)}"
            )
        wanted = torch.bool if name == "valid" else torch.int64
        if tensor.dtype != wanted:
            raise TypeError(f"{name} must be {wanted}, got {tensor.dtype}")
    return _PairDistance.apply(x, y, rows, columns, valid, metric)


def pair_distance_reference(
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "euclidean",
    valid: Tensor | None = None,
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    counted = torch.ones_like(rows, dtype=torch.bool) if valid is None else valid
    a, b = x[rows[counted]], (x if y is None else y)[columns[counted]]
    if metric == "dot":
        distance = (a * b).sum(dim=-1)
    elif metric == "cosine":
        norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
        undefined = norms == 0
        product = (a * b).sum(dim=-1)
        distance = 1 - torch.where(undefined, 0, product) / torch.where(undefined, 1, norms)
    elif metric == "euclidean":
        distance = torch.linalg.vector_norm(a - b, dim=-1)
    else:
        distance = (a - b).square().sum(dim=-1)
    return distance.new_zeros(len(rows)).masked_scatter(counted, distance)


def _forward_like(
    x: Tensor, y: Tensor | None, rows: Tensor, columns: Tensor, valid: Tensor | None, metric: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cosine = metric == "cosine"
    return (
        x.new_empty(rows.shape, dtype=sum_dtype(x)),
        x.new_empty((2, *rows.shape), dtype=torch.int32),
        x.new_empty(len(x) if cosine else 0, dtype=torch.float64),
        x.new_empty(len(y) if cosine and y is not None else 0, dtype=torch.float64),
    )


@register(
    "pair_distance(Tensor x, Tensor? y, Tensor rows, Tensor columns, Tensor? valid, str metric)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor, y: Tensor | None, rows: Tensor, columns: Tensor, valid: Tensor | None, metric: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, owners, norm_x, norm_y = _forward_like(x, y, rows, columns, valid, metric)
    x = ready(x)
    y = None if y is None else ready(y)
    if metric == "cosine":
        _C.pair_distance_norms(view(x), view(norm_x), place(x))
        if y is not None:
            _C.pair_distance_norms(view(y), view(norm_y), place(y))
    others, their_norm = (x, norm_x) if y is None else (y, norm_y)
    outside = None if x.is_cuda else torch.zeros((), dtype=torch.int32)
    _C.pair_distance_forward(
        *map(view, (x, others, rows, columns)),
        None if valid is None else view(valid.view(torch.uint8)),
        *map(view, (norm_x, their_norm, distance, owners)),
        None if outside is None else view(outside),
        METRICS.index(metric),
        place(x),
    )
    if outside is not None and outside.item():
        raise IndexError(_first_fault(len(x), len(others), rows, columns, valid))
    return distance, owners, norm_x, norm_y


def _first_fault(n: int, m: int, rows: Tensor, columns: Tensor, valid: Tensor | None) -> str:
    """Says which index is outside, and how many pairs have one."""
    counts = torch.tensor([[n], [m]])
    indices = torch.stack([rows, columns])
    outside = (indices < 0) | (indices >= counts)
    if valid is not None:
        outside &= valid
    k = int(outside.any(dim=0).nonzero()[0])
    which = int(outside[:, k].nonzero()[0])
    return (
        f"{('rows', 'columns')[which]}[{k}] must be in [0, {(n, m)[which]}), got"
        f" {int(indices[which, k])}; {int(outside.any(dim=0).sum())} of {len(rows)} pairs have an"
        " index outside: mend them, or mark them as not valid"
    )


def _backward_like(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    distance: Tensor,
    norm_x: Tensor,
    norm_y: Tensor,
    metric: str,
) -> Tensor:
    return dense_like(x)


@register(
    "pair_distance_backward(Tensor grad, Tensor x, Tensor? y, Tensor rows, Tensor columns,"
    " Tensor owners, Tensor distance, Tensor norm_x, Tensor norm_y, str metric) -> Tensor",
    _backward_like,
)
def _backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    distance: Tensor,
    norm_x: Tensor,
    norm_y: Tensor,
    metric: str,
) -> Tensor:
    """The gradient for x. Owners are (2, K) for y = x, else (K,): those of this side."""
    dtype = x.dtype
    x = ready(x)
    others, their_norm = (x, norm_x) if y is None else (ready(y), norm_y)
    grad_x = dense_like(x)
    owners = torch.where(grad == 0, _NOBODY, owners).flatten()
    # Stable, so that each row finds its parts in one order; and no device waits for it.
    in_order, slots = owners.sort(stable=True)
    views = (x, others, rows, columns, norm_x, their_norm, distance, in_order, slots, grad, grad_x)
    _C.pair_distance_backward(*map(view, views), METRICS.index(metric), place(x))
    return grad_x.to(dtype)


class _PairDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        valid: Tensor | None,
        metric: str,
    ) -> Tensor:
        distance, *kept = _forward(x, y, rows, columns, valid, metric)
        ctx.save_for_backward(x, y, rows, columns, distance, *kept)
        ctx.metric = metric
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, rows, columns, distance, owners, norm_x, norm_y = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            own = owners if y is None else owners[0]
            grad_x = _backward(grad, x, y, rows, columns, own, distance, norm_x, norm_y, ctx.metric)
        if ctx.needs_input_grad[1]:
            grad_y = _backward(
                grad, y, x, columns, rows, owners[1], distance, norm_y, norm_x, ctx.metric
            )
        return grad_x, grad_y, None, None, None, None
