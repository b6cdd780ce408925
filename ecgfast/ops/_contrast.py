"""Log-sum-exps over all pairs of rows as torch ops: what the losses of info_nce are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import place, ready, register, sum_dtype, view
from ecgfast.ops._pairs import Pairs, unit_rows
from ecgfast.ops._strips import add_product, fits, products

_KINDS = ("nt_xent", "sup_con", "multi_similarity", "negatives")  # as in the contract


def directions(rows: Tensor) -> Tensor:
    """Unit rows as products take them: halves stay halves on CUDA, where the GEMM reads them."""
    unit = unit_rows(rows)
    return unit.to(rows.dtype) if rows.is_cuda else unit


def scale_of(scale: float | Tensor, rows: Tensor) -> Tensor:
    """The scale of the products as ops take it: a tensor () in the dtype of sums."""
    if isinstance(scale, Tensor):
        return scale.to(sum_dtype(rows))
    return torch.full((), scale, dtype=sum_dtype(rows), device=rows.device)


def log_sums(
    pairs: Pairs,
    scale: Tensor,
    kind: str,
    *,
    numbers: Tensor | None = None,
    both: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each anchor, its sum of the loss and how many pairs or anchors it counts for.

    The numbers of multi_similarity come as a tensor, since Dynamo traces two calls of one Function
    with floats that it takes as dynamic into an error.

    With ``both`` the references are anchors, too, set against the rows; else their sums and counts
    are empty.
    """
    same = pairs.same
    return _LogSums.apply(
        pairs.rows,
        None if same else pairs.columns,
        scale,
        pairs.row_labels,
        None if same else pairs.column_labels,
        pairs.row_groups,
        None if same else pairs.column_groups,
        pairs.places,
        kind,
        numbers,
        both,
    )


def numbers_of(rows: Tensor, *values: float) -> Tensor:
    """Numbers of a loss as ops take them: float64, where the rows are."""
    each = [torch.full((), v, dtype=torch.float64, device=rows.device) for v in values]
    return torch.stack(each)


def reduced(sums: Tensor, counts: Tensor, reduction: str) -> Tensor:
    """The sums, their sum, or that over all counts; 0 where nothing counts."""
    if reduction == "none":
        return sums
    total = sums.sum(dtype=torch.float64)
    if reduction == "mean":
        total = total / counts.sum().clamp(min=1)
    return total.to(sums.dtype)


def _forward_like(
    rows: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    kind: str,
    numbers: Tensor | None,
    height: int | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count, dtype = rows.shape[:1], sum_dtype(rows)
    return (
        rows.new_empty(count, dtype=dtype),
        rows.new_empty(count, dtype=torch.int64),
        rows.new_empty(count, dtype=dtype),
        rows.new_empty(count, dtype=dtype),
        rows.new_empty(_kept_shape(rows, columns, keep), dtype=dtype),
    )


def _kept_shape(rows: Tensor, columns: Tensor | None, keep: bool) -> tuple[int, int]:
    """Of the products that wait for backward; none if they are many."""
    columns = rows if columns is None else columns
    return (len(rows), len(columns)) if keep and fits(rows, columns) else (0, 0)


_INPUTS = (
    "Tensor rows, Tensor? columns, Tensor scale, Tensor row_labels, Tensor? column_labels,"
    " Tensor? row_groups, Tensor? column_groups, Tensor places, str kind, Tensor? numbers,"
    " int? height=None"
)


@register(
    f"info_nce({_INPUTS}, bool keep=False) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _forward_like,
)
def _forward(
    rows: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    kind: str,
    numbers: Tensor | None,
    height: int | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x = ready(rows)
    y = x if columns is None else ready(columns)
    sides = _sides(row_labels, column_labels, row_groups, column_groups, places)
    nothing = (None, None, None, places, kind, None)
    *found, kept = _forward_like(x, y, scale, row_labels, *nothing, keep=keep)
    for part, strip in products(x, y, height=height, kept=kept if len(kept) else None):
        _C.info_nce_forward(
            view(strip),
            view(scale),
            *_views(part, *sides),
            _KINDS.index(kind),
            None if numbers is None else view(numbers),
            *(view(each[part]) for each in found),
            place(x),
        )
    return *found, kept  # type: ignore[return-value]


def _sides(
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """All of them dense, and those of the columns there."""
    dense = [
        ids if ids is None else ids.contiguous()
        for ids in (row_labels, column_labels, row_groups, column_groups, places)
    ]
    if column_labels is None:  # the columns are the rows
        dense[1], dense[3] = dense[0], dense[2]
    return tuple(dense)  # type: ignore[return-value]


def _views(
    part: slice,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
) -> tuple[Any, ...]:
    """Of a strip: places, ids of its rows and of all columns."""
    return (
        view(places[part]),
        view(row_labels[part]),
        view(column_labels),
        None if row_groups is None else view(row_groups[part]),
        None if column_groups is None else view(column_groups),
    )


def _backward_like(
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    column_grad: Tensor | None,
    column_first: Tensor | None,
    column_second: Tensor | None,
    kept: Tensor,
    rows: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        rows.new_empty(rows.shape),
        rows.new_empty((0, rows.shape[1]) if columns is None else columns.shape),
        torch.empty_like(scale),
    )


@register(
    "info_nce_backward(Tensor grad, Tensor first, Tensor second, Tensor? column_grad,"
    f" Tensor? column_first, Tensor? column_second, Tensor kept, {_INPUTS})"
    " -> (Tensor, Tensor, Tensor)",
    _backward_like,
)
def _backward(
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    column_grad: Tensor | None,
    column_first: Tensor | None,
    column_second: Tensor | None,
    kept: Tensor,
    rows: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    kind: str,
    numbers: Tensor | None,
    height: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    x = ready(rows)
    y = x if columns is None else ready(columns)
    sides = _sides(row_labels, column_labels, row_groups, column_groups, places)
    anchors: tuple[Tensor, ...] = (grad.contiguous(), first, second)
    others: tuple[Tensor, ...] | None = None
    if column_grad is not None and column_first is not None and column_second is not None:
        others = (column_grad.contiguous(), column_first, column_second)
    largest = None
    if x.dtype in (torch.float16, torch.bfloat16):
        # Coefficients become halves for the product: weights that keep them near 1 at most.
        largest = _largest(kind, anchors, others)
        anchors = (anchors[0] / largest, *anchors[1:])
        others = others and (others[0] / largest, *others[1:])
    if columns is None:
        others = anchors  # a pair has one coefficient, to which both its anchors add
    sums = sum_dtype(x)
    dx = torch.zeros(x.shape, dtype=sums, device=x.device)
    dy = torch.zeros((0, x.shape[1]) if columns is None else y.shape, dtype=sums, device=x.device)
    dots = torch.empty(len(x), dtype=torch.float64, device=x.device)
    # a copy of what was kept: coefficients overwrite it, and backward may be asked for again
    strips = [(slice(0, len(x)), kept.clone())] if len(kept) else products(x, y, height=height)
    for part, strip in strips:
        _C.info_nce_backward(
            view(strip),
            view(scale),
            *_views(part, *sides),
            _KINDS.index(kind),
            None if numbers is None else view(numbers),
            tuple(view(each[part]) for each in anchors),
            None if others is None else tuple(map(view, others)),
            view(dots[part]),
            place(x),
        )
        add_product(dx[part], strip, y)
        if columns is not None:
            add_product(dy, strip.mT, x[part])
    factor = scale if largest is None else scale * largest
    along = dots.sum() * (0.5 if columns is None else 1.0)  # a pair is in two dots then
    if largest is not None:
        along = along * largest
    if columns is not None:
        dy.mul_(factor)
    return dx.mul_(factor).to(rows.dtype), dy.to(rows.dtype), along.to(scale.dtype)


def _largest(kind: str, *sides: tuple[Tensor, ...] | None) -> Tensor:
    """A bound of the coefficients, 1 where they are all 0."""
    bounds = [
        (side[0] * side[2].clamp(min=1)).abs().max() if kind == "nt_xent" else side[0].abs().max()
        for side in sides
        if side is not None and len(side[0])
    ]
    most = torch.stack(bounds).max() if bounds else torch.ones(())
    return torch.where(most > 0, most, 1.0)


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor | None,
        scale: Tensor,
        row_labels: Tensor,
        column_labels: Tensor | None,
        row_groups: Tensor | None,
        column_groups: Tensor | None,
        places: Tensor,
        kind: str,
        numbers: Tensor | None,
        both: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sides = (row_labels, column_labels, row_groups, column_groups, places)
        of = (kind, numbers)
        keep = any(ctx.needs_input_grad[:3])
        sums, counts, first, second, kept = _forward(rows, columns, scale, *sides, *of, keep=keep)
        others: tuple[Tensor, ...] = (sums.new_empty(0), counts.new_empty(0))
        column_numbers: tuple[Tensor | None, ...] = (None, None)
        if both and columns is not None and column_labels is not None:
            nowhere = torch.full_like(column_labels, -1, dtype=torch.int64)
            turned = (column_labels, row_labels, column_groups, row_groups, nowhere)
            *others, a, b, _ = _forward(columns, rows, scale, *turned, *of)
            column_numbers = (a, b)
        ctx.save_for_backward(
            first, second, *column_numbers, kept, numbers, rows, columns, scale, *sides
        )
        ctx.kind = kind
        ctx.mark_non_differentiable(counts, others[1])
        return sums, counts, *others

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _: Tensor, column_grad: Tensor, __: Tensor
    ) -> tuple[Tensor | None, ...]:
        first, second, a, b, kept, numbers, rows, columns, *rest = ctx.saved_tensors
        dx, dy, dscale = _backward(
            grad,
            first,
            second,
            None if a is None else column_grad,
            a,
            b,
            kept,
            rows,
            columns,
            *rest,
            ctx.kind,
            numbers,
        )
        return dx, None if columns is None else dy, dscale, *(None,) * 8
