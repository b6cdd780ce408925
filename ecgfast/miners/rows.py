"""Choices from a matrix of distances: what may be found is a matrix too."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ecgfast.miners.hubs import Correction, corrected
from ecgfast.miners.triplets import Triplets
from ecgfast.ops import distance_weighted, nearest_farthest

_TRIES = 8  # draws by distance weights, of which the first that may be is taken


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
    """

    ecg: Tensor
    ids: Ids
    positives: Tensor
    found: Tensor
    eligible: Tensor
    distances: Tensor | None


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
            negatives, there = _weighted(rows, embeddings, allowed, draws)
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


def _weighted(
    rows: Rows, embeddings: Tensor, allowed: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """The first of some draws that may be a negative: labels cannot say who else attracts."""
    own = torch.arange(len(draws), device=draws.device)
    seed = (draws[:1] * 2**53).long()  # on the device, and that of a step
    found, there = distance_weighted(
        embeddings, own, groups=rows.ids.group, samples=_TRIES, no_negative="uniform", seed=seed
    )
    good = there & allowed.gather(1, found)
    chosen = found.gather(1, good.byte().argmax(dim=1)[:, None])[:, 0]
    return chosen, good.any(dim=1)


def _tame(distances: Tensor) -> Tensor:
    """Overflown distances are far, not farther than what may not be found."""
    largest = torch.finfo(distances.dtype).max
    return distances.nan_to_num(nan=largest, posinf=largest, neginf=-largest)
