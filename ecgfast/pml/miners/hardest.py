"""The hardest and the easiest partners of an anchor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ecgfast.ops import batch_hard
from ecgfast.pml._batch import Batch
from ecgfast.pml.distances import BaseDistance, order_words
from ecgfast.pml.miners._miner import BaseMiner

# the words of batch_hard
_POSITIVE = {"hard": "hardest", "easy": "easiest"}
_NEGATIVE = {"hard": "hardest", "easy": "easiest", "semihard": "semihard"}


class BatchEasyHardMiner(BaseMiner):
    """One positive and one negative an anchor, by how hard they are.

    ``hard`` is the farthest positive and the nearest negative, ``easy`` the other way round;
    ``semihard`` is the hardest that still is on the right side of the partner chosen for the other
    role; ``all`` takes all pairs of that role. Anchors without one of the two are left out, unless
    a role takes all. Ties go to the lowest index.

    Args:
        pos_strategy: ``hard``, ``semihard``, ``easy`` or ``all``.
        neg_strategy: Likewise.
        allowed_pos_range: Bounds, both inside, on distances of positives.
        allowed_neg_range: Likewise of negatives.
        distance: Default: ``LpDistance()``.
        collect_stats: None or False.
    """

    HARD = "hard"
    SEMIHARD = "semihard"
    EASY = "easy"
    ALL = "all"

    def __init__(
        self,
        pos_strategy: str = EASY,
        neg_strategy: str = SEMIHARD,
        allowed_pos_range: tuple[float, float] | None = None,
        allowed_neg_range: tuple[float, float] | None = None,
        *,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        known = (self.HARD, self.SEMIHARD, self.EASY, self.ALL)
        for name, word in (("pos_strategy", pos_strategy), ("neg_strategy", neg_strategy)):
            if word not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")
        words = {pos_strategy, neg_strategy}
        if words == {self.SEMIHARD} or words == {self.SEMIHARD, self.ALL}:
            raise ValueError("semihard needs hard or easy as the other strategy")
        self.pos_strategy = pos_strategy
        self.neg_strategy = neg_strategy
        self.allowed_pos_range = allowed_pos_range
        self.allowed_neg_range = allowed_neg_range

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        ranged = self.allowed_pos_range is not None or self.allowed_neg_range is not None
        words = order_words(self.distance)
        if (
            words is not None
            and not ranged
            and self.pos_strategy in _POSITIVE
            and self.neg_strategy in _NEGATIVE
        ):
            words |= {"positive": _POSITIVE[self.pos_strategy]}
            words |= {"negative": _NEGATIVE[self.neg_strategy]}
            mined = batch_hard(**batch.as_words(), **words)
            anchors = mined.valid.nonzero()[:, 0]
            return anchors, mined.positives[anchors], anchors, mined.negatives[anchors]
        return self._mine_table(batch)

    def _mine_table(self, batch: Batch) -> tuple[Tensor, ...]:
        far, positive, negative = self._table(batch)
        raw = -far if self.distance.is_inverted else far
        everyone = torch.arange(len(far), device=far.device)
        near, remote = positive, negative
        if self.allowed_pos_range is not None:
            near = (
                positive & (raw >= self.allowed_pos_range[0]) & (raw <= self.allowed_pos_range[1])
            )
        if self.allowed_neg_range is not None:
            remote = negative & (raw >= self.allowed_neg_range[0])
            remote &= raw <= self.allowed_neg_range[1]
        takes_far = self.pos_strategy in (self.HARD, self.SEMIHARD)
        takes_near = self.neg_strategy in (self.HARD, self.SEMIHARD)
        if self.pos_strategy == self.SEMIHARD:
            n, chosen, has_n = _extreme(far, remote, farthest=not takes_near)
            p, _, has_p = _extreme(far, near & (far < chosen[:, None]), farthest=True)
        else:
            p, chosen, has_p = _extreme(far, near, farthest=takes_far)
            if self.neg_strategy == self.SEMIHARD:
                remote = remote & (far > chosen[:, None])
            n, _, has_n = _extreme(far, remote, farthest=not takes_near)
        if self.ALL not in (self.pos_strategy, self.neg_strategy):
            both = has_p & has_n
            return everyone[both], p[both], everyone[both], n[both]
        pairs = (everyone[has_p], p[has_p]), (everyone[has_n], n[has_n])
        if self.pos_strategy == self.ALL:
            pairs = (positive.nonzero().unbind(1), pairs[1])  # type: ignore[assignment]
        if self.neg_strategy == self.ALL:
            pairs = (pairs[0], negative.nonzero().unbind(1))  # type: ignore[assignment]
        return (*pairs[0], *pairs[1])


class BatchHardMiner(BatchEasyHardMiner):
    """The farthest positive and the nearest negative of each anchor that has both, as triplets.

    Args:
        distance: Default: ``LpDistance()``.
        **words: ``allowed_pos_range``, ``allowed_neg_range``, ``collect_stats``.
    """

    def __init__(self, *, distance: BaseDistance | None = None, **words: Any) -> None:
        super().__init__(self.HARD, self.HARD, distance=distance, **words)

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        anchors, positives, _, negatives = super()._mine(batch)
        return anchors, positives, negatives


def _extreme(far: Tensor, legal: Tensor, *, farthest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: the column of its extreme legal entry, the entry, whether there is one."""
    if not far.shape[1]:
        none = torch.zeros(len(far), dtype=torch.int64, device=far.device)
        return none, none.to(far), none.bool()
    ignored = -math.inf if farthest else math.inf
    values = far.masked_fill(~legal, ignored)
    columns = values.argmax(dim=1) if farthest else values.argmin(dim=1)
    return columns, values.gather(1, columns[:, None])[:, 0], legal.any(dim=1)
