"""Who is whose positive, for ops on all pairs of rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast.ops._native import sum_dtype

_EPS = 1e-12
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Pairs(NamedTuple):
    """All pairs of N anchors and M references, as ops take them.

    Positive is a pair of equal labels, negative one of different labels and different groups; the
    anchor itself and what is in its group under another label is neither.

    Attributes:
        rows: Anchors ``(N, D)``.
        columns: References ``(M, D)``; the anchors where there are no others.
        row_labels: ``(N,)`` int32: equal where labels are equal, on both sides.
        column_labels: ``(M,)`` int32.
        row_groups: ``(N,)`` int32, or None: no two labels share a group.
        column_groups: ``(M,)`` int32, or None with the other.
        places: ``(N,)`` int64, the column that is the anchor itself; -1 where none is.
        same: The columns are the rows.
    """

    rows: Tensor
    columns: Tensor
    row_labels: Tensor
    column_labels: Tensor
    row_groups: Tensor | None
    column_groups: Tensor | None
    places: Tensor
    same: bool


def all_pairs(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
) -> Pairs:
    """Checks what the user gave and numbers the labels and groups. Waits for no device.

    Args:
        embeddings: Anchors ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers.
        references: ``(M, D)`` of the same dtype and device; None: the anchors, each of which then
            is not its own positive.
        reference_labels: ``(M,)``, given with references and only then.
        groups: ``(N,)`` integers: rows of a group are never negatives of each other.
        reference_groups: ``(M,)``, given with groups and references and only then.
        places: ``(N,)`` int64: row of the references that is the anchor itself, -1 for none; only
            with references. None: no anchor is among them.
    """
    same = references is None
    columns = embeddings if references is None else references
    for name, rows in (("embeddings", embeddings), ("references", columns)):
        if rows.dim() != 2 or rows.shape[1] == 0:
            raise ValueError(f"{name} must be (rows, D) with D > 0, got {tuple(rows.shape)}")
        if rows.dtype not in _FLOATS:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, got {rows.dtype}"
            )
    if columns.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"embeddings have {embeddings.shape[1]} columns, references {columns.shape[1]}"
        )
    if columns.dtype != embeddings.dtype or columns.device != embeddings.device:
        raise ValueError(
            f"references must be {embeddings.dtype} on {embeddings.device} as embeddings, got"
            f" {columns.dtype} on {columns.device}"
        )
    for name, given, wanted in (
        ("reference_labels", reference_labels, not same),
        ("reference_groups", reference_groups, not same and groups is not None),
    ):
        if (given is not None) != wanted:
            why = "references" if name == "reference_labels" else "references and groups"
            raise ValueError(f"{name} must be given with {why}, and only then")
    if places is not None and same:
        raise ValueError("places say where anchors lie among references: there are no references")

    row_labels, column_labels = numbered("labels", labels, reference_labels, embeddings, columns)
    row_groups = column_groups = None
    if groups is not None:
        row_groups, column_groups = numbered(
            "groups", groups, reference_groups, embeddings, columns
        )
    places = where(places, embeddings, same)
    return Pairs(
        embeddings, columns, row_labels, column_labels, row_groups, column_groups, places, same
    )


def where(places: Tensor | None, rows: Tensor, same: bool) -> Tensor:
    """The column that is each row itself, -1 for none: ``places``, checked, or made."""
    count = len(rows)
    if same:
        return torch.arange(count, device=rows.device)
    if places is None:
        return torch.full((count,), -1, device=rows.device)
    if places.shape != (count,) or places.dtype != torch.int64:
        raise ValueError(
            f"places must be ({count},) int64, got {tuple(places.shape)} {places.dtype}"
        )
    if places.device != rows.device:
        raise ValueError(f"places must be on {rows.device} as embeddings, got {places.device}")
    return places


def unit_rows(rows: Tensor) -> Tensor:
    """Rows over their norms, in the dtype of sums; a zero row stays and has a zero gradient."""
    if not torch.compiler.is_compiling():
        return _UnitRows.apply(rows)
    wide = rows.to(sum_dtype(rows))
    return wide * _inverse_lengths(wide)


def relations(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Which pairs are positive and which negative, ``(N, M)`` bool each: for references alone."""
    positive = pairs.row_labels[:, None] == pairs.column_labels
    negative = ~positive
    if pairs.row_groups is not None and pairs.column_groups is not None:
        negative &= pairs.row_groups[:, None] != pairs.column_groups
    itself = pairs.places[:, None] == torch.arange(len(pairs.columns), device=pairs.places.device)
    return positive & ~itself, negative & ~itself


def numbered(
    name: str, ids: Tensor, reference_ids: Tensor | None, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Both sides' ids as int32 from 0 on, equal where they were equal."""
    for what, given, side in ((name, ids, rows), (f"reference_{name}", reference_ids, columns)):
        if given is None:
            continue
        if given.shape != (len(side),):
            raise ValueError(f"{what} must be ({len(side)},), got {tuple(given.shape)}")
        if given.is_floating_point() or given.is_complex():
            raise TypeError(
                f"{what} must be integers, got {given.dtype}; continuous labels are mined with"
                " label_distance"
            )
        if given.device != side.device:
            raise ValueError(f"{what} must be on {side.device} as embeddings, got {given.device}")
    every = ids if reference_ids is None else torch.cat([ids.long(), reference_ids.long()])
    values, order = every.long().sort()
    steps = torch.zeros_like(values)
    steps[1:] = values[1:] != values[:-1]
    numbers = torch.empty_like(values).scatter(0, order, steps.cumsum(0)).int()
    return numbers[: len(ids)], numbers if reference_ids is None else numbers[len(ids) :]


def _inverse_lengths(rows: Tensor) -> Tensor:
    """``(N, 1)``: 0 where there is no length, NaN where it is too large to be squared."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    norm = norm.masked_fill(norm == math.inf, math.nan)  # not silent
    return norm.masked_fill(norm <= _EPS, math.inf).reciprocal()


class _UnitRows(torch.autograd.Function):
    """By hand: autograd takes three times as many passes, and small batches notice.

    The compiler merges them itself, and has trouble with a second call of one function.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        wide = rows.to(sum_dtype(rows))
        inverse = _inverse_lengths(wide)
        unit = wide * inverse
        ctx.save_for_backward(unit, inverse)
        ctx.dtype = rows.dtype
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = (unit * grad).sum(dim=1, keepdim=True)
        return torch.addcmul(grad, unit, along, value=-1).mul_(inverse).to(ctx.dtype)
