"""Losses that are sums of hinges over all pairs: contrastive, and margin over all triplets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ecgfast.ops._pair_metric import check_reduction, mean_of
from ecgfast.ops.pair_hinge import pair_hinge_terms, reduced


def contrastive(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean_active",
) -> Tensor:
    r"""Contrastive loss over all pairs (Hadsell, Chopra, LeCun 2006, with distances as they are).

    .. math:: L = \mathrm{mean}_{(i, p)} \max(0, d_{ip} - m_+)
              + \mathrm{mean}_{(i, q)} \max(0, m_- - d_{iq})

    The positives and the negatives have a mean each, so that the few positives are not lost among
    the negatives. :func:`pair_hinge` states arguments and edges.

    Args:
        embeddings: Anchors ``(N, D)``.
        labels: ``(N,)``.
        references: ``(M, D)``, or None.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)``, or None.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references, or None.
        positive_margin: The distance within which a positive costs nothing.
        negative_margin: The distance beyond which a negative costs nothing.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"``: the means are over hinges over 0; ``"mean"``: over all pairs;
            ``"sum"``; or ``"none"``: both sums of each anchor, added.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), in units
        of the distance. Differentiable once.

    Raises:
        ValueError: As :func:`pair_hinge`.
        TypeError: As :func:`pair_hinge`.

    Example:
        >>> import torch
        >>> contrastive(torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([0, 0, 1]))
        tensor(1.5000)
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
        positive_threshold=positive_margin,
        negative_threshold=negative_margin,
        metric=metric,
        normalise=normalise,
    )
    if reduction in ("sum", "none"):
        return reduced(terms, None, None, reduction)
    counts = terms[2:4] if reduction == "mean_active" else terms[4:]
    return mean_of(terms.positive_sums.sum(), counts[0].sum()) + mean_of(
        terms.negative_sums.sum(), counts[1].sum()
    )


def margin_all(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    beta: float | Tensor = 1.2,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    reduction: str = "mean_active",
) -> Tensor:
    r"""Margin loss (Wu, Manmatha, Smola, Kraehenbuehl 2017) over all triplets, none of them listed.

    .. math:: L = \frac{1}{A} \sum_i \Big(Q_i \sum_p \max(0, d_{ip} - \beta_i + m)
              + P_i \sum_q \max(0, \beta_i - d_{iq} + m)\Big)

    where anchor i has P positives and Q negatives, and A counts the terms over 0, as often as they
    are in a triplet. :func:`pair_hinge` states arguments and edges.

    Args:
        embeddings: Anchors ``(N, D)``.
        labels: ``(N,)``.
        references: ``(M, D)``, or None.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)``, or None.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references, or None.
        beta: Where positives and negatives part, in units of the distance; a tensor ``()``, or
            ``(N,)`` with that of each anchor (of its class), gets a gradient.
        margin: How far on their sides of it they should be.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"`` divides by A, ``"mean"`` by the number of triplets; ``"sum"``;
            or ``"none"`` for each anchor's share.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), in units
        of the distance. Differentiable once, with respect to beta too.

    Raises:
        ValueError: As :func:`pair_hinge`.
        TypeError: As :func:`pair_hinge`.

    Example:
        >>> import torch
        >>> margin_all(torch.tensor([[0.0], [1.5], [2.5]]), torch.tensor([0, 0, 1]))
        tensor(0.4667)
    """
    check_reduction(reduction)
    sums, active, triplets = margin_all_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        beta=beta,
        margin=margin,
        metric=metric,
        normalise=normalise,
    )
    if reduction == "none":
        return sums
    if reduction == "sum":
        return sums.sum()
    return mean_of(sums.sum(), (active if reduction == "mean_active" else triplets).sum())


def margin_all_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    beta: float | Tensor = 1.2,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    **references: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`margin_all` reduces: sums ``(N,)``, active terms and triplets ``(N,)`` int64."""
    terms = pair_hinge_terms(
        embeddings,
        labels,
        positive_threshold=beta - margin,
        negative_threshold=beta + margin,
        metric=metric,
        normalise=normalise,
        **references,
    )
    p, q = terms.positives, terms.negatives
    sums = q * terms.positive_sums + p * terms.negative_sums
    return sums, q * terms.positive_active + p * terms.negative_active, p * q
