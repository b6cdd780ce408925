"""Choices from a matrix of distances: what may be found is a matrix too."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ecgfast.miners.hubs import Correction, corrected
from ecgfast.miners.triplets import Triplets
from ecgfast.ops import nearest_farthest


class Ids(NamedTuple):
    """Who rows are, int64 each.

    Attributes:
        record: ``(N,)``; rows of one number are one recording, or copies of it.
        group: ``(N,)``; rows of one number are never negatives of each other.
        patient: ``(N,)``; -1 where nobody knows.
    """

    record: Tensor
    group: Tensor
    patient: Tensor


class Rows(NamedTuple):
    """Records that a step encodes, and the positive of each.

    Under ranks that mine together all but ``ecg`` is of the rows of all ranks, N of them, the same
    on each.

    Attributes:
        ecg: This rank's records, prepared, in the order of its rows.
        ids: Who the rows are.
        positives: ``(N,)`` rows; a row without a positive is its own.
        found: ``(N,)`` bool: has a positive.
        eligible: ``(N,)`` bool: all of its samples are finite.
        distances: ``(N, N)``, where negatives are chosen by them.
        coordinates: ``(N, K)`` in input space, of a pool that finds them.
    """

    ecg: Tensor
    ids: Ids
    positives: Tensor
    found: Tensor
    eligible: Tensor
    distances: Tensor | None
    coordinates: Tensor | None = None


class Negatives(nn.Module):
    """The negative of every row, by one of three rules; never of the row's or its positive's group.

    Args:
        rule: ``random``; ``farthest``, one of the ``topk`` farthest in input space; or
            ``distance_weighted``, by the embeddings (Wu et al. 2017, see
            :class:`ecgfast.miners.DistanceWeighted`).
        topk: Of how many farthest. Where the positive is one of them, one fewer is left, but at
            least one.
        correction: Of hubs, before the farthest are looked for.
        hub_k: Neighbours, for ``csls``.
    """

    def __init__(
        self,
        rule: Literal["random", "farthest", "distance_weighted"] = "random",
        *,
        topk: int = 2,
        correction: Correction = "none",
        hub_k: int = 10,
    ) -> None:
        super().__init__()
        if rule not in ("random", "farthest", "distance_weighted"):
            raise ValueError(f"rule must be random, farthest or distance_weighted, got {rule!r}")
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.rule = rule
        self.topk = topk
        self.correction: Correction = correction
        self.hub_k = hub_k

    @torch.no_grad()
    def forward(self, rows: Rows, embeddings: Tensor, draws: Tensor) -> Triplets:
        """One triplet a row; what is not valid points at the row itself.

        Args:
            rows: With their positives.
            embeddings: ``(N, D)`` of all rows.
            draws: ``(N,)`` in [0, 1), float64.
        """
        itself = torch.arange(len(rows.positives), device=rows.positives.device)
        allowed = may_repel(rows)
        if self.rule == "random":
            negatives, there = any_of(allowed, draws)
        elif self.rule == "farthest":
            negatives, there = self._farthest(rows, allowed, draws)
        else:
            negatives, there = by_distance(embeddings, allowed, draws)
        valid = rows.eligible & rows.found & there
        return Triplets(
            itself,
            torch.where(valid, rows.positives, itself),
            torch.where(valid, negatives, itself),
            valid,
        )

    def _farthest(self, rows: Rows, allowed: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        if rows.distances is None:
            raise ValueError("the farthest need the distances between the rows")
        n = len(draws)
        pairs = rows.eligible[:, None] & rows.eligible & ~torch.eye(n, dtype=torch.bool).to(allowed)
        distances = corrected(rows.distances, self.correction, k=self.hub_k, counts=pairs)
        positive = torch.zeros_like(allowed).scatter(1, rows.positives[:, None], True)
        listed = allowed | (positive & rows.found[:, None])  # the positive takes a place, and goes
        far = farthest(distances, max(self.topk, 2), among=listed)
        count = (far >= 0).sum(dim=1).clamp(max=self.topk)
        matches = far == rows.positives[:, None]
        place = torch.where(matches.any(dim=1), matches.int().argmax(dim=1), far.shape[1])
        left = (count - (place < count).long()).clamp(min=1)
        rank = (draws * left).long()
        rank += rank >= place  # step over it
        chosen = far.gather(1, rank.clamp(max=far.shape[1] - 1)[:, None])[:, 0]
        return chosen.clamp(min=0), (chosen >= 0) & (chosen != rows.positives)


def may_repel(rows: Rows) -> Tensor:
    """``(N, N)`` bool: which columns may be negatives of each row.

    Not the row's own group, nor the group of its positive: rows of one record are never negatives.
    """
    group = rows.ids.group
    attracts = group[rows.positives][:, None] == group
    return rows.eligible & (group[:, None] != group) & ~attracts


def any_of(allowed: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One of each row's allowed columns, all as likely, and whether there is one."""
    so_far, count = allowed.long().cumsum(dim=1), allowed.sum(dim=1)
    rank = (draws * count.clamp(min=1)).long().clamp(max=(count - 1).clamp(min=0))
    chosen = (allowed & (so_far == rank[:, None] + 1)).byte().argmax(dim=1)
    return chosen, count > 0


def nearest(distances: Tensor, k: int, *, among: Tensor) -> Tensor:
    """The k nearest columns of each row ``(N, k)``, in order, ties by index; -1 where none is."""
    return nearest_farthest((-_tame(distances)).masked_fill(~among, torch.nan), k_far=k)[1]


def farthest(distances: Tensor, k: int, *, among: Tensor) -> Tensor:
    """The k farthest columns of each row, likewise."""
    return nearest_farthest(_tame(distances).masked_fill(~among, torch.nan), k_far=k)[1]


def one_of(listed: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One of each row's first columns, which -1 follows; and whether there is one."""
    count = (listed >= 0).sum(dim=1)
    rank = (draws * count).long().clamp(max=listed.shape[1] - 1)
    return listed.gather(1, rank[:, None])[:, 0].clamp(min=0), count > 0


def by_distance(
    embeddings: Tensor,
    allowed: Tensor,
    draws: Tensor,
    *,
    cutoff: float = 0.5,
    nonzero_loss_cutoff: float = 1.4,
) -> tuple[Tensor, Tensor]:
    """One of each row's allowed columns, so that all distances on the sphere are as frequent.

    The weights are those of :func:`ecgfast.ops.distance_weighted`, which draws for labels: here who
    may repel is a matrix. Where all that may are too far, any of them is drawn.

    Args:
        embeddings: ``(N, D)``; brought to length 1 here.
        allowed: ``(N, N)`` bool.
        draws: ``(N,)`` in [0, 1), float64.
        cutoff: Smaller distances count as this one.
        nonzero_loss_cutoff: Negatives from this distance on are not drawn.

    Returns:
        Columns ``(N,)``, and whether there is one.
    """
    d = embeddings.shape[1]
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = nn.functional.normalize(embeddings.detach().double(), dim=1)
        distances = (2 - 2 * unit @ unit.mT).clamp(min=0).sqrt().clamp(min=cutoff)
    weights = (2 - d) * distances.log() - (d - 3) / 2 * torch.log1p(-distances.square() / 4)
    near = allowed & (distances < nonzero_loss_cutoff)
    weights = torch.where(near.any(dim=1, keepdim=True), weights.masked_fill(~near, -torch.inf), 0)
    weights = weights.masked_fill(~allowed, -torch.inf)
    highest = weights.max(dim=1, keepdim=True).values.nan_to_num(neginf=0.0)
    so_far = (weights - highest).exp().cumsum(dim=1)
    wanted = draws[:, None] * so_far[:, -1:]
    chosen = (allowed & (so_far > wanted)).byte().argmax(dim=1)
    return chosen, allowed.any(dim=1)


def _tame(distances: Tensor) -> Tensor:
    """Overflown distances are far, not farther than what may not be found."""
    largest = torch.finfo(distances.dtype).max
    return distances.nan_to_num(nan=largest, posinf=largest, neginf=-largest)
