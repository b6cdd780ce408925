"""What mine_sampled draws from: distributions in plain torch, slow and obvious, for tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ecgfast.ops._pairs import Pairs, all_pairs, relations


def distance_weighted_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    cutoff: float = 0.5,
    nonzero_loss_cutoff: float = 1.4,
    no_negative: str = "drop",
    **others: Tensor,
) -> Tensor:
    """Its distribution, in plain torch: probabilities ``(N, M)``, rows of 0 where there is none."""
    pairs, _, negative = _sides(embeddings, labels, **others)
    d = pairs.columns.shape[1]
    cosine = (normalize(pairs.rows, dim=1) @ normalize(pairs.columns, dim=1).mT).clamp(-1, 1)
    legal = negative & (cosine > 1 - nonzero_loss_cutoff**2 / 2)
    distance = (2 - 2 * cosine).sqrt().clamp(min=cutoff)
    beyond = math.sqrt(2 * (2 - 1e-15 if cosine.dtype == torch.float64 else 2 - 2**-23))
    distance = distance.clamp(max=beyond)
    logs = -(d - 2) * distance.log() - (d - 3) / 2 * torch.log1p(-distance.square() / 4)
    weights = logs.masked_fill(~legal, -torch.inf).softmax(dim=1).nan_to_num(nan=0.0)
    if no_negative == "drop":
        return weights
    if no_negative == "uniform":
        instead = _evenly(negative, cosine)
    else:
        nearest = cosine.masked_fill(~negative, -torch.inf)
        instead = torch.zeros_like(weights)
        if len(pairs.columns):
            instead.scatter_(1, nearest.argmax(dim=1, keepdim=True), 1.0)
        instead *= negative
    return torch.where(legal.any(dim=1, keepdim=True), weights, instead)


def semi_hard_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    **others: Tensor,
) -> tuple[Tensor, Tensor]:
    """Its distribution: of positives ``(N, M)``, of negatives given each of them ``(N, M, M)``."""
    pairs, positive, negative = _sides(embeddings, labels, **others)
    d = _distances(pairs, metric, normalise)
    farther = (d[:, None] > d[..., None]) & (d[:, None] < d[..., None] + margin)
    some = farther & negative[:, None]
    there = some.any(dim=2, keepdim=True)
    chosen = torch.where(there, some, negative[:, None].expand_as(some))
    valid = (positive.any(dim=1) & negative.any(dim=1))[:, None]
    return _evenly(positive & valid, d), _evenly(chosen & (positive & valid)[..., None], d)


def soft_hard_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    metric: str = "euclidean",
    normalise: bool = False,
    **others: Tensor,
) -> tuple[Tensor, Tensor]:
    """Its distribution: of positives and of negatives, ``(N, M)`` each."""
    pairs, positive, negative = _sides(embeddings, labels, **others)
    d = _distances(pairs, metric, normalise)
    if d.shape[1] == 0:
        return d, d
    nearest = d.masked_fill(~negative, torch.inf).amin(dim=1, keepdim=True)
    farthest = d.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)
    sides = []
    for every, some in (
        (positive, positive & (d > nearest)),
        (negative, negative & (d < farthest)),
    ):
        sides.append(torch.where(some.any(dim=1, keepdim=True), some, every))
    valid = (positive.any(dim=1) & negative.any(dim=1))[:, None]
    return _evenly(sides[0] & valid, d), _evenly(sides[1] & valid, d)


def random_triplets_reference(
    embeddings: Tensor, labels: Tensor, **others: Tensor
) -> tuple[Tensor, Tensor]:
    """Its distribution: of positives and of negatives, ``(N, M)`` each."""
    pairs, positive, negative = _sides(embeddings, labels, **others)
    valid = (positive.any(dim=1) & negative.any(dim=1))[:, None]
    return _evenly(positive & valid, pairs.rows), _evenly(negative & valid, pairs.rows)


def _evenly(members: Tensor, like: Tensor) -> Tensor:
    """The uniform distribution on each row's members; 0 where there are none."""
    return members.to(like.dtype) / members.sum(dim=-1, keepdim=True).clamp(min=1)


def _sides(embeddings: Tensor, labels: Tensor, **others: Tensor) -> tuple[Pairs, Tensor, Tensor]:
    pairs = all_pairs(embeddings, labels, **others)
    positive, negative = relations(pairs)
    there = pairs.rows.isfinite().all(dim=1)[:, None] & pairs.columns.isfinite().all(dim=1)
    return pairs, positive & there, negative & there


def _distances(pairs: Pairs, metric: str, normalise: bool) -> Tensor:
    x, y = pairs.rows, pairs.columns
    if normalise or metric == "cosine":
        x, y = normalize(x, dim=1), normalize(y, dim=1)
    squares = (x[:, None] - y).square().sum(dim=2)
    return {"euclidean": squares.sqrt(), "sqeuclidean": squares, "cosine": squares / 2}[metric]
