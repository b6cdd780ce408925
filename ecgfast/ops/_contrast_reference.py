"""The losses of info_nce in plain torch: slow, obvious, the truth for tests and benchmarks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ecgfast.ops._native import sum_dtype
from ecgfast.ops._pairs import all_pairs, relations, unit_rows


def _similarities(
    embeddings: Tensor, labels: Tensor, normalise: bool = True, **others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """All products ``(N, M)``, which are positive, which negative."""
    pairs = all_pairs(embeddings, labels, **others)
    rows, columns = (x.to(sum_dtype(x)) for x in (pairs.rows, pairs.columns))
    if normalise:
        rows, columns = unit_rows(rows), unit_rows(columns)
    return rows @ columns.T, *relations(pairs)


def _log_sum(z: Tensor, legal: Tensor) -> Tensor:
    """Log sum exp over the legal columns, ``(N, 1)``; -inf where there are none."""
    some = legal.any(dim=1, keepdim=True)
    filled = torch.where(some, z.masked_fill(~legal, -math.inf), 0.0)
    lse = filled.logsumexp(dim=1, keepdim=True) if z.shape[1] else z.new_zeros(len(z), 1)
    return torch.where(some, lse, -math.inf)


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _reduced(sums: Tensor, counts: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return sums
    return sums.sum() / counts.sum().clamp(min=1) if reduction == "mean" else sums.sum()


def nt_xent_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.07,
    reduction: str = "mean",
    **others: Any,
) -> Tensor:
    """nt_xent in plain torch."""
    s, positive, negative = _similarities(embeddings, labels, **others)
    z = s / temperature
    pairs = torch.where(positive, _softplus(_log_sum(z, negative) - z), 0.0)
    return _reduced(pairs.sum(dim=1), positive.sum(dim=1), reduction)


def _sup_con(z: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    lse = _log_sum(z, positive | negative)
    count = positive.sum(dim=1)
    far = torch.where(positive, lse - z, 0.0).sum(dim=1) / count.clamp(min=1)
    return far, count > 0


def sup_con_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    **others: Any,
) -> Tensor:
    """sup_con in plain torch."""
    s, positive, negative = _similarities(embeddings, labels, **others)
    return _reduced(*_sup_con(s / temperature, positive, negative), reduction)


def info_nce_reference(
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
    """info_nce in plain torch."""
    rows = torch.arange(len(queries), device=queries.device) if labels is None else labels
    columns = rows if key_labels is None else key_labels
    s, positive, negative = _similarities(
        queries,
        rows,
        normalise,
        references=keys,
        reference_labels=columns,
        groups=groups,
        reference_groups=groups if key_groups is None else key_groups,
    )
    z = s * logit_scale
    loss = _reduced(*_sup_con(z, positive, negative), reduction)
    if not symmetric:
        return loss
    return (loss + _reduced(*_sup_con(z.T, positive.T, negative.T), reduction)) / 2


def multi_similarity_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    reduction: str = "mean",
    **others: Any,
) -> Tensor:
    """multi_similarity in plain torch."""
    s, positive, negative = _similarities(embeddings, labels, **others)
    near = _softplus(_log_sum(-alpha * (s - base), positive)) / alpha
    far = _softplus(_log_sum(beta * (s - base), negative)) / beta
    loss = (near + far).squeeze(1)
    return _reduced(loss, torch.ones_like(loss), reduction)


def angular_reference(
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
    """Angular in plain torch."""
    counted = torch.ones_like(anchors, dtype=torch.bool) if valid is None else valid
    rows = embeddings.to(sum_dtype(embeddings))
    rows = unit_rows(rows) if normalise else rows
    a, p = anchors[counted], positives[counted]
    negative = labels[a][:, None] != labels
    if groups is not None:
        negative &= groups[a][:, None] != groups
    tan2 = math.tan(math.radians(alpha)) ** 2
    lse = _log_sum(4 * tan2 * (rows[a] + rows[p]) @ rows.T, negative).squeeze(1)
    loss = _softplus(lse - 2 * (1 + tan2) * (rows[a] * rows[p]).sum(dim=1))
    losses = rows.new_zeros(len(anchors)).masked_scatter(counted, loss)
    return _reduced(losses, counted, reduction)
