"""All pairs or triplets on one side of a margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecgfast.pml._batch import Batch
from ecgfast.pml.distances import BaseDistance, CosineSimilarity
from ecgfast.pml.miners._miner import BaseMiner

_TABLE = 2**24  # pairs of pairs that are looked at in one go


class TripletMarginMiner(BaseMiner):
    """Lists the triplets by how they stand to a margin.

    With ``m = d_an - d_ap``: ``all`` are those with ``m <= margin``, ``hard`` those of them with
    ``m <= 0``, ``semihard`` the others of them, ``easy`` those with ``m > margin``. Besides the
    lists no memory of anchors times positives times negatives is used.

    Args:
        margin: The margin.
        type_of_triplets: ``all``, ``hard``, ``semihard`` or ``easy``.
        distance: Default: ``LpDistance()``.
        collect_stats: None or False.
    """

    def __init__(
        self,
        margin: float = 0.2,
        type_of_triplets: str = "all",
        *,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        if type_of_triplets not in ("all", "hard", "semihard", "easy"):
            raise ValueError(
                f"type_of_triplets must be all, hard, semihard or easy, got {type_of_triplets!r}"
            )
        self.margin = margin
        self.type_of_triplets = type_of_triplets

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        far, positive, negative = self._table(batch)
        anchors, positives = positive.nonzero().unbind(1)
        found = []
        for part in torch.arange(len(anchors), device=far.device).split(
            max(1, _TABLE // max(1, far.shape[1]))
        ):
            a, p = anchors[part], positives[part]
            margin = far[a] - far[a, p][:, None]
            pair, n = (self._wanted(margin) & negative[a]).nonzero().unbind(1)
            found.append((a[pair], p[pair], n))
        if not found:
            return anchors, anchors, anchors
        return tuple(torch.cat(lists) for lists in zip(*found, strict=True))

    def _wanted(self, margin: Tensor) -> Tensor:
        if self.type_of_triplets == "easy":
            return margin > self.margin
        wanted = margin <= self.margin
        if self.type_of_triplets == "hard":
            wanted &= margin <= 0
        elif self.type_of_triplets == "semihard":
            wanted &= margin > 0
        return wanted


class PairMarginMiner(BaseMiner):
    """Lists positive pairs farther apart than a margin and negative pairs nearer than another.

    Args:
        pos_margin: Of positive pairs; with a similarity, those below it are listed.
        neg_margin: Of negative pairs; with a similarity, those above it.
        distance: Default: ``LpDistance()``.
        collect_stats: None or False.
    """

    def __init__(
        self,
        pos_margin: float = 0.2,
        neg_margin: float = 0.8,
        *,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        far, positive, negative = self._table(batch)
        sign = -1 if self.distance.is_inverted else 1
        near = positive & (far > sign * self.pos_margin)
        remote = negative & (far < sign * self.neg_margin)
        return (*near.nonzero().unbind(1), *remote.nonzero().unbind(1))


class MultiSimilarityMiner(BaseMiner):
    """Lists positive pairs less alike than the anchor's nearest negative, and the reverse.

    Both with a slack (Wang et al. 2019). Anchors without a positive or without a negative are in
    no pair.

    Args:
        epsilon: The slack.
        distance: Default: ``CosineSimilarity()``.
        collect_stats: None or False.
    """

    def __init__(
        self,
        epsilon: float = 0.1,
        *,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        self.epsilon = epsilon

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        far, positive, negative = self._table(batch)
        if not far.shape[1]:
            empty = far.new_empty(0, dtype=torch.int64)
            return empty, empty, empty, empty
        nearest = far.masked_fill(~negative, math.inf).amin(dim=1, keepdim=True)
        farthest = far.masked_fill(~positive, -math.inf).amax(dim=1, keepdim=True)
        near = positive & (far + self.epsilon > nearest)
        remote = negative & (far - self.epsilon < farthest)
        return (*near.nonzero().unbind(1), *remote.nonzero().unbind(1))

    def get_default_distance(self) -> BaseDistance:
        """Cosine."""
        return CosineSimilarity()
