"""Distances of all pairs from strips of products: what faces, bodies and references share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ecgfast.ops._native import ready, sum_dtype, view
from ecgfast.ops._pairs import Pairs, all_pairs, unit_rows
from ecgfast.ops._strips import products

METRICS = ("euclidean", "sqeuclidean", "cosine")  # as in csrc/pair_hinge/contract.h
REDUCTIONS = ("mean", "mean_active", "sum", "none")


def checked_pairs(
    embeddings: Tensor, labels: Tensor, metric: str, normalise: bool, **references: Any
) -> Pairs:
    """Checks what the user gave; the pairs, of rows that are normalised where they shall be."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    pairs = all_pairs(embeddings, labels, **references)
    if not normalise and metric != "cosine":
        return pairs
    rows = unit_rows(pairs.rows)
    return pairs._replace(rows=rows, columns=rows if pairs.same else unit_rows(pairs.columns))


def check_reduction(reduction: str) -> None:
    """Refuses a reduction that is none."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, 0 where there is nothing to count."""
    return total / torch.where(count == 0, 1, count).to(total.dtype)


def per_anchor(name: str, given: float | Tensor, rows: Tensor) -> Tensor:
    """A number or tensor as one number for each anchor, in the dtype of sums."""
    dtype = sum_dtype(rows)
    if not isinstance(given, Tensor):
        return torch.full((len(rows),), given, dtype=dtype, device=rows.device)
    if given.shape not in ((), (1,), (len(rows),)):
        raise ValueError(f"{name} must be a number or ({len(rows)},), got {tuple(given.shape)}")
    if given.device != rows.device:
        raise ValueError(f"{name} must be on {rows.device} as embeddings, got {given.device}")
    return given.to(dtype).expand(len(rows))


def distances_reference(pairs: Pairs, metric: str) -> Tensor:
    """All distances ``(N, M)`` in plain torch, of rows that are normalised where they shall be."""
    x, y = pairs.rows.to(sum_dtype(pairs.rows)), pairs.columns.to(sum_dtype(pairs.columns))
    if metric == "cosine":
        return 1 - x @ y.mT
    distances = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
    return distances.square() if metric == "sqeuclidean" else distances


class Sides(NamedTuple):
    """Rows and columns as a body takes them: for products, and widened for kernels."""

    rows: Tensor
    columns: Tensor
    wide_rows: Tensor
    wide_columns: Tensor
    row_squares: Tensor
    column_squares: Tensor

    def swapped(self) -> Sides:
        """The columns as rows."""
        return Sides(self[1], self[0], self[3], self[2], self[5], self[4])


def sides(x: Tensor, y: Tensor | None) -> Sides:
    """Both sides with their squared norms, which are of the rows as they are stored, rounded."""
    rows = ready(x)
    wide = rows.to(sum_dtype(rows))
    squares = wide.square().sum(dim=1)
    if y is None:
        return Sides(rows, rows, wide, wide, squares, squares)
    columns = ready(y)
    wide_columns = columns.to(sum_dtype(columns))
    return Sides(rows, columns, wide, wide_columns, squares, wide_columns.square().sum(dim=1))


class Ids(NamedTuple):
    """Who is whose positive, dense, as ``_pairs`` numbers it; without groups the labels serve."""

    row_labels: Tensor
    column_labels: Tensor
    row_groups: Tensor
    column_groups: Tensor
    places: Tensor

    def swapped(self) -> Ids:
        """The columns as rows; places stay the anchors', then columns."""
        return Ids(self[1], self[0], self[3], self[2], self[4])


def ids(
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
) -> Ids:
    """The ids as kernels take them."""
    given = (
        row_labels,
        column_labels,
        row_labels if row_groups is None else row_groups,
        column_labels if column_groups is None else column_groups,
        places,
    )
    return Ids(*(tensor.contiguous() for tensor in given))


def strips(
    pairs: Sides, who: Ids, metric: str, height: int | None, *, by_column: bool = False
) -> Iterator[tuple[slice, Tensor, Any]]:
    """Yields strips: which rows, their products, and both as a kernel is told of them.

    Args:
        pairs: The rows and the columns.
        who: Their ids.
        metric: One of METRICS.
        height: Of a strip; None for what suits the device.
        by_column: The columns are the anchors, so that places are theirs.
    """
    code = METRICS.index(metric)
    for part, strip in products(pairs.rows, pairs.columns, height=height):
        tensors = (
            strip,
            pairs.wide_rows[part],
            pairs.wide_columns,
            pairs.row_squares[part],
            pairs.column_squares,
            who.row_labels[part],
            who.column_labels,
            who.row_groups[part],
            who.column_groups,
            who.places if by_column else who.places[part],
        )
        yield part, strip, (list(map(view, tensors)), by_column, part.start, code)
