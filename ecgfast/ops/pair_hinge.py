"""Hinges on the distances of all pairs: contrastive and margin losses, never listing a pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, register, view
from ecgfast.ops._pair_metric import (
    check_reduction,
    checked_pairs,
    distances_reference,
    ids,
    mean_of,
    per_anchor,
    sides,
    strips,
)
from ecgfast.ops._pairs import relations
from ecgfast.ops._strips import add_product


class HingeTerms(NamedTuple):
    """What the pairs of every anchor contribute; counts are exact.

    Attributes:
        positive_sums: ``(N,)``, sum of the hinges of the anchor's positives; differentiable.
        negative_sums: ``(N,)``, sum of those of its negatives.
        positive_active: ``(N,)`` int64, how many of the former are over 0.
        negative_active: ``(N,)`` int64, how many of the latter.
        positives: ``(N,)`` int64, how many positives it has.
        negatives: ``(N,)`` int64, how many negatives.
    """

    positive_sums: Tensor
    negative_sums: Tensor
    positive_active: Tensor
    negative_active: Tensor
    positives: Tensor
    negatives: Tensor


def pair_hinge_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    positive_threshold: float | Tensor,
    negative_threshold: float | Tensor,
    metric: str = "euclidean",
    normalise: bool = False,
) -> HingeTerms:
    """The sums and counts that :func:`pair_hinge` reduces, for each anchor.

    For losses over several ranks, which divide sums of their own by the counts of all, and for
    losses that weigh anchors in other ways. Arguments as there.

    Example:
        >>> z, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
        >>> terms = pair_hinge_terms(z, labels, positive_threshold=0.5, negative_threshold=2.5)
        >>> terms.positive_sums, terms.negative_sums
        (tensor([0.5000, 0.5000, 0.0000]), tensor([0.0000, 0.5000, 0.5000]))
    """
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
    thresholds = torch.stack(
        [
            per_anchor("positive_threshold", positive_threshold, pairs.rows),
            per_anchor("negative_threshold", negative_threshold, pairs.rows),
        ]
    )
    columns = None if pairs.same else pairs.columns
    sums, counts = _PairHinge.apply(pairs.rows, columns, thresholds, metric, *pairs[2:7])
    return HingeTerms(*sums, *counts)


def pair_hinge(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    positive_threshold: float | Tensor,
    negative_threshold: float | Tensor,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean",
) -> Tensor:
    r"""Asks that positives lie within one distance of the anchor and negatives beyond another.

    .. math:: L_i = v_i \sum_{p} \max(0, d_{ip} - a_i) + w_i \sum_{q} \max(0, b_i - d_{iq})

    over all positives p and negatives q of anchor i: rows of its label but itself, and rows of
    other labels and other groups. Distances come from strips of products, so that memory is
    O(N strip + N D); near pairs are measured directly from their rows, in values and gradients.
    A hinge of exactly 0 is not active and has no gradient. Equal rows have no gradient by their
    distance. A NaN embedding makes the loss and all gradients NaN. Autocast does not touch the op.

    Args:
        embeddings: Anchors ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers.
        references: ``(M, D)``, among which the partners are; None: the anchors themselves.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, the reference that is the anchor itself, -1 for none.
        positive_threshold: a, in units of the distance; ``()`` or ``(N,)`` tensors get gradients.
        negative_threshold: b, likewise.
        positive_weight: v, ``(N,)``; 1 if None. Differentiable.
        negative_weight: w, likewise.
        metric: ``"euclidean"``, ``"sqeuclidean"``, or ``"cosine"``: 1 - cosine similarity.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean"`` over all pairs, ``"mean_active"`` over those with a hinge over 0, both
            weighted, ``"sum"``, or ``"none"`` for the anchors' L. Without a pair it is 0.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), in units
        of the distance. Differentiable once, with respect to embeddings, references, thresholds.

    Raises:
        ValueError: If a shape, a word or what is given together is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> z, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
        >>> pair_hinge(z, labels, positive_threshold=0.5, negative_threshold=2.5, reduction="sum")
        tensor(2.)
    """
    check_reduction(reduction)
    terms = pair_hinge_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        positive_threshold=positive_threshold,
        negative_threshold=negative_threshold,
        metric=metric,
        normalise=normalise,
    )
    return reduced(terms, positive_weight, negative_weight, reduction)


def reduced(
    terms: HingeTerms, positive_weight: Tensor | None, negative_weight: Tensor | None, how: str
) -> Tensor:
    """The loss that :func:`pair_hinge` makes of its terms."""
    sums = terms.positive_sums
    v = 1 if positive_weight is None else per_anchor("positive_weight", positive_weight, sums)
    w = 1 if negative_weight is None else per_anchor("negative_weight", negative_weight, sums)
    each = v * terms.positive_sums + w * terms.negative_sums
    if how == "none":
        return each
    total = each.sum()
    if how == "sum":
        return total
    active = how == "mean_active"
    counts = (terms.positive_active, terms.negative_active) if active else terms[4:]
    return mean_of(total, (v * counts[0].double() + w * counts[1].double()).sum())


def pair_hinge_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    positive_threshold: float | Tensor,
    negative_threshold: float | Tensor,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean",
    **references: Any,
) -> Tensor:
    """The same in plain torch, all N x M distances at once: the truth for tests and benchmarks."""
    pairs = checked_pairs(embeddings, labels, metric, normalise, **references)
    distances = distances_reference(pairs, metric)
    a = per_anchor("positive_threshold", positive_threshold, distances)[:, None]
    b = per_anchor("negative_threshold", negative_threshold, distances)[:, None]
    positive, negative = relations(pairs)
    far = torch.where(positive, torch.relu(distances - a), 0)
    near = torch.where(negative, torch.relu(b - distances), 0)
    terms = [far, near, far > 0, near > 0, positive, negative]
    each = HingeTerms(*(term.sum(dim=1) for term in terms))
    return reduced(each, positive_weight, negative_weight, reduction)


def _forward_like(
    x: Tensor, y: Tensor | None, thresholds: Tensor, *words: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(thresholds), thresholds.new_empty((4, len(x)), dtype=torch.int64)


@register(
    "pair_hinge(Tensor x, Tensor? y, Tensor thresholds, str metric, Tensor row_labels,"
    " Tensor column_labels, Tensor? row_groups, Tensor? column_groups, Tensor places,"
    " int? height=None) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor,
    y: Tensor | None,
    thresholds: Tensor,
    metric: str,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    height: int | None = None,
) -> tuple[Tensor, Tensor]:
    sums, counts = _forward_like(x, y, thresholds)
    who = ids(row_labels, column_labels, row_groups, column_groups, places)
    for part, _, told in strips(sides(x, y), who, metric, height):
        tensors = thresholds[:, part], sums[:, part], counts[:, part]
        _C.pair_hinge_sums(told, *map(view, tensors), place(x))
    return sums, counts


def _backward_like(
    grads: Tensor, x: Tensor, y: Tensor | None, thresholds: Tensor, of_references: bool, *words: Any
) -> Tensor:
    return dense_like(y if of_references and y is not None else x)


@register(
    "pair_hinge_backward(Tensor grads, Tensor x, Tensor? y, Tensor thresholds, bool of_references,"
    " str metric, Tensor row_labels, Tensor column_labels, Tensor? row_groups,"
    " Tensor? column_groups, Tensor places, int? height=None) -> Tensor",
    _backward_like,
)
def _backward(
    grads: Tensor,
    x: Tensor,
    y: Tensor | None,
    thresholds: Tensor,
    of_references: bool,
    metric: str,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    height: int | None = None,
) -> Tensor:
    # Whose gradient it is, those are the rows. The anchors are rows, columns, or both.
    pairs, who = sides(x, y), ids(row_labels, column_labels, row_groups, column_groups, places)
    if of_references:
        pairs, who = pairs.swapped(), who.swapped()
    nothing = thresholds[:, :0]
    anchors = view(thresholds), view(grads := grads.contiguous())
    of_columns = of_references or y is None
    columns = anchors if of_columns else (view(nothing), view(nothing))
    total = torch.zeros_like(pairs.wide_rows, memory_format=torch.contiguous_format)
    for part, strip, told in strips(pairs, who, metric, height, by_column=of_references):
        rows = (nothing, nothing) if of_references else (thresholds[:, part], grads[:, part])
        _C.pair_hinge_coefficients(
            told,
            *map(view, rows),
            *columns,
            view(total[part]),
            not of_references,
            of_columns,
            place(x),
        )
        add_product(total[part], strip, pairs.wide_columns)
    return total.to(x.dtype)


class _PairHinge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        thresholds: Tensor,
        metric: str,
        *who: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        sums, counts = _forward(x, y, thresholds, metric, *who)
        ctx.save_for_backward(x, y, thresholds, counts, *who)
        ctx.metric = metric
        ctx.mark_non_differentiable(counts)
        return sums, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, y, thresholds, counts, *who = ctx.saved_tensors
        grad_x = grad_y = grad_thresholds = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grads, x, y, thresholds, False, ctx.metric, *who)
        if ctx.needs_input_grad[1]:
            grad_y = _backward(grads, x, y, thresholds, True, ctx.metric, *who)
        if ctx.needs_input_grad[2]:
            grad_thresholds = torch.stack([-counts[0] * grads[0], counts[1] * grads[1]])
        return grad_x, grad_y, grad_thresholds, *(None,) * 6
