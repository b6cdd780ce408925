"""Triplet loss over all triplets of a batch, counted by ranks and never listed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, register, sum_dtype, view
from ecgfast.ops._pair_metric import (
    check_reduction,
    checked_pairs,
    distances_reference,
    ids,
    mean_of,
    sides,
    strips,
)
from ecgfast.ops._pairs import relations
from ecgfast.ops._strips import add_product


class AllTriplets(NamedTuple):
    """A loss over all triplets, and how many there are.

    Attributes:
        loss: ``()``; with ``reduction="none"``, and of :func:`all_triplets_terms`, the sum of the
            hinges of each anchor, ``(N,)``. Differentiable.
        active: int64 alike, how many hinges are over 0; exact.
        triplets: int64 alike, how many triplets there are; exact.
    """

    loss: Tensor
    active: Tensor
    triplets: Tensor


def all_triplets(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean_active",
) -> AllTriplets:
    r"""Asks of all triplets that the anchor be nearer to its positive than to its negative.

    .. math:: L = \frac{1}{A} \sum_i \sum_{p} \sum_{q} \max(0, d_{ip} - d_{iq} + m)

    over all positives p and negatives q of each anchor i; A counts the hinges over 0, as Hermans,
    Beyer, Leibe 2017 divide ("batch all"). An anchor's positives are sorted, and each negative
    finds by its rank how many it violates and by how much: O((P + Q) log P) an anchor, where P Q
    triplets are counted exactly. Memory is O(N strip + N D). Near pairs are measured directly from
    their rows, in values and gradients. A hinge of exactly 0 is not active and has no gradient. A
    NaN embedding makes the loss and all gradients NaN. Autocast does not touch the op.

    Args:
        embeddings: Anchors ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers.
        references: ``(M, D)``, among which the partners are; None: the anchors themselves.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, the reference that is the anchor itself, -1 for none.
        margin: By how much the negative should be farther, in units of the distance.
        metric: ``"euclidean"``, ``"sqeuclidean"``, or ``"cosine"``: 1 - cosine similarity.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"`` over hinges over 0, ``"mean"`` over all triplets, ``"sum"``,
            or ``"none"`` for each anchor's. Without a triplet the loss is 0.

    Returns:
        The loss, float32 (float64 for float64), in units of the distance, differentiable once with
        respect to embeddings and references; and the numbers of active and of all triplets.

    Raises:
        ValueError: If a shape, a word or what is given together is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> z, labels = torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([0, 0, 1])
        >>> all_triplets(z, labels, margin=0.5)
        AllTriplets(loss=tensor(1.), active=tensor(1), triplets=tensor(2))
    """
    check_reduction(reduction)
    terms = all_triplets_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        margin=margin,
        metric=metric,
        normalise=normalise,
    )
    return _reduced(terms, reduction)


def all_triplets_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
) -> AllTriplets:
    """The sums and counts of each anchor ``(N,)``, which :func:`all_triplets` reduces."""
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    pairs = checked_pairs(
        embeddings,
        labels,
        metric,
        normalise,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    columns = None if pairs.same else pairs.columns
    sums, counts = _AllTriplets.apply(pairs.rows, columns, float(margin), metric, *pairs[2:7])
    return AllTriplets(sums, counts[0], counts[1])


def _reduced(terms: AllTriplets, how: str) -> AllTriplets:
    if how == "none":
        return terms
    loss, active, triplets = (term.sum() for term in terms)
    if how != "sum":
        loss = mean_of(loss, active if how == "mean_active" else triplets)
    return AllTriplets(loss, active, triplets)


def all_triplets_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean_active",
    **references: Any,
) -> AllTriplets:
    """The same in plain torch, all N x M x M triplets at once: the truth for tests."""
    pairs = checked_pairs(embeddings, labels, metric, normalise, **references)
    distances = distances_reference(pairs, metric)
    positive, negative = relations(pairs)
    counted = positive[:, :, None] & negative[:, None, :]
    hinges = torch.relu(distances[:, :, None] - distances[:, None, :] + margin)
    hinges = torch.where(counted, hinges, 0)
    terms = [hinges, hinges > 0, counted]
    return _reduced(AllTriplets(*(term.sum(dim=(1, 2)) for term in terms)), reduction)


def _forward_like(x: Tensor, *words: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), dtype=sum_dtype(x)), x.new_empty((2, len(x)), dtype=torch.int64)


@register(
    "all_triplets(Tensor x, Tensor? y, float margin, str metric, Tensor row_labels,"
    " Tensor column_labels, Tensor? row_groups, Tensor? column_groups, Tensor places,"
    " int? height=None) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor,
    y: Tensor | None,
    margin: float,
    metric: str,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    height: int | None = None,
) -> tuple[Tensor, Tensor]:
    sums, counts = _forward_like(x)
    who = ids(row_labels, column_labels, row_groups, column_groups, places)
    for part, strip, told in strips(sides(x, y), who, metric, height):
        tensors = sums[part], counts[:, part], *_scratch(strip)
        _C.pair_hinge_triplet_sums(told, *map(view, tensors), margin, place(x))
    return sums, counts


def _scratch(strip: Tensor) -> tuple[Tensor, Tensor]:
    rows, values, numbers = _C.pair_hinge_scratch(*strip.shape, place(strip))
    return strip.new_empty((rows, values)), strip.new_empty((rows, numbers), dtype=torch.int32)


def _backward_like(
    grads: Tensor, x: Tensor, y: Tensor | None, *words: Any
) -> tuple[Tensor, Tensor]:
    return dense_like(x), x.new_empty((0, x.shape[1])) if y is None else dense_like(y)


@register(
    "all_triplets_backward(Tensor grads, Tensor x, Tensor? y, float margin, str metric,"
    " Tensor row_labels, Tensor column_labels, Tensor? row_groups, Tensor? column_groups,"
    " Tensor places, int? height=None) -> (Tensor, Tensor)",
    _backward_like,
)
def _backward(
    grads: Tensor,
    x: Tensor,
    y: Tensor | None,
    margin: float,
    metric: str,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    height: int | None = None,
) -> tuple[Tensor, Tensor]:
    grads, pairs = grads.contiguous(), sides(x, y)
    who = ids(row_labels, column_labels, row_groups, column_groups, places)
    of_rows = torch.zeros_like(pairs.wide_rows, memory_format=torch.contiguous_format)
    of_columns = of_rows
    if y is not None:
        of_columns = torch.zeros_like(pairs.wide_columns, memory_format=torch.contiguous_format)
    for part, strip, told in strips(pairs, who, metric, height):
        tensors = grads[part], of_rows[part], of_columns, *_scratch(strip)
        _C.pair_hinge_triplet_coefficients(told, *map(view, tensors), margin, place(x))
        # A row's ranks say nothing of its columns as anchors: both sides of a strip are products.
        add_product(of_rows[part], strip, pairs.wide_columns)
        add_product(of_columns, strip.mT, pairs.wide_rows[part])
    if y is None:
        return of_rows.to(x.dtype), x.new_empty((0, x.shape[1]))
    return of_rows.to(x.dtype), of_columns.to(x.dtype)


class _AllTriplets(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor | None, margin: float, metric: str, *who: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        sums, counts = _forward(x, y, margin, metric, *who)
        ctx.save_for_backward(x, y, *who)
        ctx.words = margin, metric
        ctx.mark_non_differentiable(counts)
        return sums, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *who = ctx.saved_tensors
        grad_x, grad_y = _backward(grads, x, y, *ctx.words, *who)
        return grad_x, None if y is None else grad_y, *(None,) * 7
