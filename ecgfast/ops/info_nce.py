"""Losses that set an anchor's positives against all its negatives by a log-sum-exp.

Long, because five losses each say their whole contract to the user; the work is in _contrast.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecgfast.ops._contrast import (
    directions,
    log_sums,
    numbers_of,
    reduced,
    scale_of,
)
from ecgfast.ops._contrast_reference import angular_reference as angular_reference
from ecgfast.ops._contrast_reference import info_nce_reference as info_nce_reference
from ecgfast.ops._contrast_reference import multi_similarity_reference as multi_similarity_reference
from ecgfast.ops._contrast_reference import nt_xent_reference as nt_xent_reference
from ecgfast.ops._contrast_reference import sup_con_reference as sup_con_reference
from ecgfast.ops._native import sum_dtype
from ecgfast.ops._pairs import Pairs, all_pairs


def nt_xent(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    temperature: float = 0.07,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Asks of every positive pair that it be more alike than the anchor and all its negatives.

    .. math:: \ell_{ap} = -\log \frac{e^{z_{ap}}}{e^{z_{ap}} + \sum_{n \in Q(a)} e^{z_{an}}},
              \qquad z_{ij} = \cos(x_i, x_j) / \tau

    Other positives of the anchor are not in the denominator. The mean is over positive pairs, so an
    anchor with more of them weighs more. A pair without negatives has the loss 0 and no gradient;
    without a positive pair the loss is 0. A NaN row gives a NaN loss to every anchor that has it as
    positive or negative; a zero row stays zero, with a zero gradient. Autocast does not touch the
    op. Memory is one strip of rows and O((N + M) D), and backward makes the products again; only
    where all of them are 16 MB at most, 2,048 rows in float32, they are kept for it. Values and
    gradients are the same bits in every run.

    Args:
        embeddings: Anchors ``(N, D)``, any float dtype and strides.
        labels: ``(N,)`` integers: equal ones are positives of each other, others negatives.
        references: ``(M, D)``, what anchors are set against, of the same dtype; the anchors
            themselves if None, and no row is its own positive then.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of a group, such as a patient, are never negatives of each
            other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64: which reference is the anchor itself, -1 for none.
        temperature: tau, over 0.
        normalise: Products of unit rows, as above; otherwise of the rows as they are.
        reduction: ``"mean"`` over positive pairs, ``"sum"``, or ``"none"`` for the sum of each
            anchor.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), without
        unit. Differentiable once, with respect to embeddings and references.

    Raises:
        ValueError: If a shape, a device, the temperature or ``reduction`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> nt_xent(torch.eye(4), torch.tensor([0, 0, 1, 1]), temperature=1.0)
        tensor(1.0986)
    """
    _expect_reduction(reduction)
    sums, counts = nt_xent_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        temperature=temperature,
        normalise=normalise,
    )
    return reduced(sums, counts, reduction)


def nt_xent_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    temperature: float = 0.07,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`nt_xent` reduces: each anchor's sum ``(N,)`` and its positive pairs ``(N,)``.

    Ranks add up both, which they could not do with means.
    """
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    scale = scale_of(1 / _temperature(temperature), embeddings)
    return log_sums(_unit(pairs, normalise), scale, "nt_xent")[:2]


def sup_con(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    temperature: float = 0.1,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Asks of every anchor that its positives be more alike than all others, on the average.

    .. math:: \ell_a = -\frac{1}{|P(a)|} \sum_{p \in P(a)}
              \log \frac{e^{z_{ap}}}{\sum_{j \in P(a) \cup Q(a)} e^{z_{aj}}}

    Supervised contrastive learning (Khosla et al. 2020, the form with the sum outside the
    logarithm). The anchor itself and rows of its group under other labels are left out. An anchor
    without a positive has the loss 0 and is not counted in the mean; without negatives its
    positives are set against each other. For the rest see :func:`nt_xent`.

    Args:
        embeddings: Anchors ``(N, D)``.
        labels: ``(N,)`` integers.
        references: As in :func:`nt_xent`, like all that follow.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64.
        temperature: tau, over 0.
        normalise: Products of unit rows.
        reduction: ``"mean"`` over anchors with a positive, ``"sum"``, or ``"none"`` for each
            anchor's.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), without
        unit. Differentiable once, with respect to embeddings and references.

    Raises:
        ValueError: If a shape, a device, the temperature or ``reduction`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> sup_con(torch.eye(4), torch.tensor([0, 0, 1, 1]), temperature=1.0)
        tensor(1.0986)
    """
    _expect_reduction(reduction)
    sums, counts = sup_con_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        temperature=temperature,
        normalise=normalise,
    )
    return reduced(sums, counts, reduction)


def sup_con_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    temperature: float = 0.1,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`sup_con` reduces: each anchor's loss ``(N,)``, and 1 if it counts ``(N,)``."""
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    scale = scale_of(1 / _temperature(temperature), embeddings)
    return log_sums(_unit(pairs, normalise), scale, "sup_con")[:2]


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    groups: Tensor | None = None,
    key_groups: Tensor | None = None,
    logit_scale: float | Tensor = 1 / 0.07,
    symmetric: bool = True,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Asks of every query that its key be more alike than all other keys, and of keys likewise.

    .. math:: \ell_q = -\frac{1}{|P(q)|} \sum_{p \in P(q)}
              \log \frac{e^{z_{qp}}}{\sum_{j \in P(q) \cup Q(q)} e^{z_{qj}}},
              \qquad z_{ij} = s \cos(q_i, k_j)

    Query i belongs to key i. With labels, equal ones belong together instead, so that several keys
    may be positives of a query; with groups, pairs of one group that do not belong together are
    left out. What has no positive is 0 and not counted. One strip of products serves both
    directions in backward. For memory and edges see :func:`nt_xent`.

    Args:
        queries: ``(N, D)``, any float dtype and strides: signals, say.
        keys: ``(M, D)`` of the same dtype: their reports. Without labels, M is N.
        labels: ``(N,)`` integers of the queries.
        key_labels: ``(M,)``; those of the queries if None.
        groups: ``(N,)`` integers of the queries.
        key_groups: ``(M,)``; those of the queries if None.
        logit_scale: s, one over the temperature: a number, or a tensor ``()`` that gets its exact
            gradient.
        symmetric: The mean of both directions; otherwise of queries against keys alone.
        normalise: Products of unit rows; otherwise of the rows as they are.
        reduction: ``"mean"`` over what has a positive, in each direction, ``"sum"``, or ``"none"``
            for each query's, or the mean of query i's and key i's.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), without
        unit. Differentiable once, with respect to queries, keys and logit_scale.

    Raises:
        ValueError: If a shape, a device, the scale or ``reduction`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> info_nce(torch.eye(3), torch.eye(3), logit_scale=1.0)
        tensor(0.5514)
    """
    _expect_reduction(reduction)
    pairs, scale = _queries_and_keys(
        queries, keys, labels, key_labels, groups, key_groups, logit_scale, normalise
    )
    if reduction == "none" and symmetric and len(queries) != len(keys):
        raise ValueError(
            f"reduction 'none' of both directions needs as many keys as queries, got {len(keys)}"
            f" and {len(queries)}: take symmetric=False"
        )
    sums, counts, key_sums, key_counts = log_sums(pairs, scale, "sup_con", both=symmetric)
    loss = reduced(sums, counts, reduction)
    return (loss + reduced(key_sums, key_counts, reduction)) / 2 if symmetric else loss


def info_nce_terms(
    queries: Tensor,
    keys: Tensor,
    *,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    groups: Tensor | None = None,
    key_groups: Tensor | None = None,
    logit_scale: float | Tensor = 1 / 0.07,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`info_nce` reduces in the direction of queries.

    Each query's loss ``(N,)``, and 1 if it has a positive ``(N,)``. For the other direction give
    keys as queries.
    """
    pairs, scale = _queries_and_keys(
        queries, keys, labels, key_labels, groups, key_groups, logit_scale, normalise
    )
    return log_sums(pairs, scale, "sup_con")[:2]


def multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Pulls positives over a similarity and pushes negatives under it, the hardest most.

    .. math:: \ell_a = \frac{1}{\alpha} \log\Big(1 + \sum_{p \in P(a)} e^{-\alpha (s_{ap} -
              \lambda)}\Big) + \frac{1}{\beta} \log\Big(1 + \sum_{n \in Q(a)}
              e^{\beta (s_{an} - \lambda)}\Big), \qquad s_{ij} = \cos(x_i, x_j)

    The multi-similarity loss (Wang et al. 2019) without its mining of pairs. The mean is over all
    anchors, also those that have neither positives nor negatives and so a loss of 0. For memory and
    edges see :func:`nt_xent`.

    Args:
        embeddings: Anchors ``(N, D)``.
        labels: ``(N,)`` integers.
        references: As in :func:`nt_xent`, like all that follow.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64.
        alpha: Weight of positives in the exponent, over 0.
        beta: Weight of negatives in the exponent, over 0.
        base: lambda, a similarity.
        normalise: Products of unit rows.
        reduction: ``"mean"`` over anchors, ``"sum"``, or ``"none"`` for each anchor's.

    Returns:
        Tensor ``()``, or ``(N,)`` if ``reduction="none"``, float32 (float64 for float64), without
        unit. Differentiable once, with respect to embeddings and references.

    Raises:
        ValueError: If a shape, a device, a number or ``reduction`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> multi_similarity(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(0.6566)
    """
    _expect_reduction(reduction)
    sums, counts = multi_similarity_terms(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
        alpha=alpha,
        beta=beta,
        base=base,
        normalise=normalise,
    )
    return reduced(sums, counts, reduction)


def multi_similarity_terms(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`multi_similarity` reduces: each anchor's loss ``(N,)`` and ones ``(N,)``."""
    for name, weight in (("alpha", alpha), ("beta", beta)):
        if not 0 < weight < math.inf:
            raise ValueError(f"{name} must be over 0 and finite, got {weight}")
    if not -math.inf < base < math.inf:
        raise ValueError(f"base must be finite, got {base}")
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    pairs, scale = _unit(pairs, normalise), scale_of(1.0, embeddings)
    numbers = numbers_of(embeddings, alpha, beta, base)
    return log_sums(pairs, scale, "multi_similarity", numbers=numbers)[:2]


def angular(
    embeddings: Tensor,
    anchors: Tensor,
    positives: Tensor,
    labels: Tensor,
    *,
    valid: Tensor | None = None,
    groups: Tensor | None = None,
    alpha: float = 45.0,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Bounds the angle at the negative of a triangle of anchor, positive and negative.

    .. math:: \ell_k = \log\Big(1 + \sum_{n \in Q(a_k)} e^{4 \tan^2\alpha \, (x_a + x_p) \cdot x_n -
              2 (1 + \tan^2\alpha) \, x_a \cdot x_p}\Big)

    The angular loss (Wang et al. 2017) of listed pairs against all rows of other labels. A pair
    without negatives has the loss 0 and no gradient. An invalid pair contributes nothing, is not
    counted, and its indices are not looked at. K x N is never held. For the rest see
    :func:`nt_xent`.

    On the CPU an index outside is refused; under the compiler and on CUDA, where that would mean
    waiting, its pair has a NaN loss.

    Args:
        embeddings: ``(N, D)``, any float dtype and strides.
        anchors: Rows of ``embeddings``, ``(K,)`` int64.
        positives: Rows that belong to the anchors, likewise.
        labels: ``(N,)`` integers of all rows.
        valid: ``(K,)`` bool, which pairs count; all if None.
        groups: ``(N,)`` integers: rows of the anchor's group are not its negatives.
        alpha: The bound, in degrees, between 0 and 90.
        normalise: Of unit rows; otherwise of the rows as they are.
        reduction: ``"mean"`` over valid pairs, ``"sum"``, or ``"none"`` for each pair's.

    Returns:
        Tensor ``()``, or ``(K,)`` if ``reduction="none"``, float32 (float64 for float64), without
        unit. Differentiable once, with respect to embeddings.

    Raises:
        ValueError: If a shape, a device, alpha or ``reduction`` is not as above.
        TypeError: If a dtype is not as above.
        IndexError: If a valid pair has an index outside, on the CPU.

    Example:
        >>> angular(torch.eye(3), *torch.tensor([[0], [1]]), torch.tensor([0, 0, 1]))
        tensor(0.6931)
    """
    _expect_reduction(reduction)
    sums, counts = angular_terms(
        embeddings,
        anchors,
        positives,
        labels,
        valid=valid,
        groups=groups,
        alpha=alpha,
        normalise=normalise,
    )
    return reduced(sums, counts, reduction)


def angular_terms(
    embeddings: Tensor,
    anchors: Tensor,
    positives: Tensor,
    labels: Tensor,
    *,
    valid: Tensor | None = None,
    groups: Tensor | None = None,
    alpha: float = 45.0,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`angular` reduces: each pair's loss ``(K,)``, and 1 if it is valid ``(K,)``."""
    if not 0 < alpha < 90:
        raise ValueError(f"alpha must be between 0 and 90 degrees, got {alpha}")
    pairs = all_pairs(embeddings, labels, groups=groups)
    listed = {"anchors": anchors, "positives": positives}
    _expect_listed(embeddings, listed, valid)
    counted = torch.ones_like(anchors, dtype=torch.bool) if valid is None else valid
    inside = torch.ones_like(counted)
    kept = []
    for index in listed.values():
        there = (index >= 0) & (index < len(embeddings))
        inside = inside & (there | ~counted)
        kept.append(torch.where(there & counted, index, 0))
    if not embeddings.is_cuda and not torch.compiler.is_compiling() and not bool(inside.all()):
        raise IndexError(_first_fault(len(embeddings), listed, counted))

    if len(embeddings) == 0:  # no row to take where a pair is not valid
        nothing = (embeddings.sum() * 0).to(sum_dtype(embeddings))
        return torch.where(inside, nothing, math.nan), counted.long()
    rows = directions(embeddings) if normalise else embeddings.to(sum_dtype(embeddings))
    # embedding is the gather whose gradient is summed in one order, on every device
    a, p = (torch.nn.functional.embedding(index, rows) for index in kept)
    tan2 = math.tan(math.radians(alpha)) ** 2
    against = pairs._replace(
        rows=a + p,
        columns=rows,
        row_labels=pairs.row_labels[kept[0]],
        row_groups=None if pairs.row_groups is None else pairs.row_groups[kept[0]],
        places=torch.full_like(anchors, -1),
        same=False,
    )
    lse = log_sums(against, scale_of(4 * tan2, rows), "negatives")[0]
    pull = 2 * (1 + tan2) * (a.to(lse.dtype) * p.to(lse.dtype)).sum(dim=1)
    loss = torch.logaddexp(lse - pull, torch.zeros_like(lse))
    loss = torch.where(counted, loss, 0.0)
    return torch.where(inside, loss, math.nan), counted.long()


def _unit(pairs: Pairs, normalise: bool) -> Pairs:
    if not normalise:
        return pairs
    rows = directions(pairs.rows)
    return pairs._replace(rows=rows, columns=rows if pairs.same else directions(pairs.columns))


def _queries_and_keys(
    queries: Tensor,
    keys: Tensor,
    labels: Tensor | None,
    key_labels: Tensor | None,
    groups: Tensor | None,
    key_groups: Tensor | None,
    logit_scale: float | Tensor,
    normalise: bool,
) -> tuple[Pairs, Tensor]:
    for name, rows in (("queries", queries), ("keys", keys)):
        if rows.dim() != 2 or rows.shape[1] == 0:
            raise ValueError(f"{name} must be (rows, D) with D > 0, got {tuple(rows.shape)}")
    if keys.shape[1] != queries.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} columns, keys {keys.shape[1]}")
    if keys.dtype != queries.dtype or keys.device != queries.device:
        raise ValueError(
            f"keys must be {queries.dtype} on {queries.device} as queries, got {keys.dtype} on"
            f" {keys.device}"
        )
    for name, ids, other in (
        ("labels", labels, key_labels),
        ("groups", groups, key_groups),
    ):
        if ids is None and other is not None:
            raise ValueError(f"key_{name} are given, but no {name}")
        implied = other is None and (ids is not None or name == "labels")
        if implied and len(keys) != len(queries):
            raise ValueError(
                f"there are {len(queries)} queries and {len(keys)} keys: say by {name} and"
                f" key_{name} which belong together"
            )
    if labels is None:
        labels = torch.arange(len(queries), device=queries.device)
    if isinstance(logit_scale, Tensor):
        if logit_scale.dim() != 0 or not logit_scale.is_floating_point():
            raise ValueError(
                f"logit_scale must be a number or a float tensor (), got"
                f" {tuple(logit_scale.shape)} {logit_scale.dtype}"
            )
        if logit_scale.device != queries.device:
            raise ValueError(
                f"logit_scale must be on {queries.device} as queries, got {logit_scale.device}"
            )
    elif not -math.inf < logit_scale < math.inf:
        raise ValueError(f"logit_scale must be finite, got {logit_scale}")
    pairs = all_pairs(
        queries,
        labels,
        references=keys,
        reference_labels=labels if key_labels is None else key_labels,
        groups=groups,
        reference_groups=groups if key_groups is None else key_groups,
    )
    return _unit(pairs, normalise), scale_of(logit_scale, queries)


def _temperature(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be over 0 and finite, got {temperature}")
    return temperature


def _expect_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _expect_listed(embeddings: Tensor, listed: dict[str, Tensor], valid: Tensor | None) -> None:
    anchors = listed["anchors"]
    if anchors.dim() != 1:
        raise ValueError(f"anchors must be (K,), got {tuple(anchors.shape)}")
    masks = {} if valid is None else {"valid": valid}
    for name, tensor in (listed | masks).items():
        wanted = torch.bool if name == "valid" else torch.int64
        if tensor.shape != anchors.shape:
            raise ValueError(
                f"{name} must be {tuple(anchors.shape)} as anchors, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != wanted:
            raise TypeError(f"{name} must be {wanted}, got {tensor.dtype}")
        if tensor.device != embeddings.device:
            raise ValueError(
                f"{name} must be on {embeddings.device} as embeddings, got {tensor.device}"
            )


def _first_fault(count: int, listed: dict[str, Tensor], valid: Tensor) -> str:
    """Says which index is outside, and how many pairs have one."""
    outside = torch.stack([((row < 0) | (row >= count)) & valid for row in listed.values()])
    k = int(outside.any(dim=0).nonzero()[0])
    name = list(listed)[int(outside[:, k].nonzero()[0])]
    return (
        f"{name}[{k}] must be in [0, {count}), got {int(listed[name][k])};"
        f" {int(outside.any(dim=0).sum())} of {outside.shape[1]} pairs have an index outside: mend"
        " them, or mark them as not valid"
    )
