"""Miners under the names and signatures of pytorch-metric-learning.

A miner is called as ``miner(embeddings, labels, ref_emb=None, ref_labels=None)`` and returns lists
of changing length: triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors,
negatives). Miners of fixed length, which compile, are in :mod:`ecgfast.miners`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import batch_hard, distance_weighted, random_triplets
from ecgfast.pml import _tuples
from ecgfast.pml._batch import Batch, as_batch
from ecgfast.pml.distances import BaseDistance, CosineSimilarity, LpDistance, order_words

_TABLE = 2**24  # pairs of pairs that are looked at in one go
# the words of batch_hard
_POSITIVE = {"hard": "hardest", "easy": "easiest"}
_NEGATIVE = {"hard": "hardest", "easy": "easiest", "semihard": "semihard"}


class BaseMiner(nn.Module):
    """Chooses pairs or triplets. A subclass gives ``mine``.

    An anchor is never its own partner where ``ref_emb`` is ``embeddings``, or is not given. A row
    with a NaN is in no pair.

    Args:
        distance: Between rows; None is the default of the miner.
        collect_stats: Statistics are not collected here: None or False.
    """

    def __init__(
        self, distance: BaseDistance | None = None, collect_stats: bool | None = None
    ) -> None:
        super().__init__()
        _tuples.refuse_statistics(collect_stats)
        self.distance = self.get_default_distance() if distance is None else distance

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Indices of anchors, rows of ``embeddings``, and of partners, rows of ``ref_emb``."""
        return self.of_batch(embeddings, labels, ref_emb, ref_labels)

    @torch.no_grad()
    def of_batch(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        places: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The same, where a reference may be the anchor itself: at ``places`` ``(N,)``, or -1."""
        if labels is None or (ref_emb is not None and ref_labels is None):
            raise ValueError("a miner needs labels, and ref_labels with ref_emb")
        batch = as_batch(embeddings, labels, ref_emb, ref_labels, places)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._mine(batch)

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        assert batch.labels is not None
        assert batch.reference_labels is not None
        return self.mine(batch.embeddings, batch.labels, batch.references, batch.reference_labels)

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, ...]:
        """The lists; ``ref_emb`` is ``embeddings`` itself where there are no others."""
        raise NotImplementedError

    def get_default_distance(self) -> BaseDistance:
        """The Euclidean distance of rows at length 1."""
        return LpDistance(p=2)

    def _table(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """How far apart ``(N, M)``, similarities negated; which pairs are positive, negative."""
        far = self.distance(batch.embeddings, batch.references)
        assert batch.labels is not None
        assert batch.reference_labels is not None
        positive, negative = _tuples.relations(batch.labels, batch.reference_labels, batch.places)
        known = ~far.isnan()
        sign = -1 if self.distance.is_inverted else 1
        return sign * far, positive & known, negative & known


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


class DistanceWeightedMiner(BaseMiner):
    r"""Draws negatives evenly over distances, instead of evenly over rows (Wu et al. 2017).

    On a sphere in D dimensions most rows are :math:`\sqrt2` apart. A negative at distance d is
    drawn with probability proportional to

    .. math:: 1 / q(d), \quad q(d) \propto d^{D - 2} (1 - d^2 / 4)^{(D - 3) / 2}

    of its anchor's negatives with ``d < nonzero_loss_cutoff``; below ``cutoff`` all distances
    count as that. The weights of an anchor are taken relative to its own largest, so that an
    anchor never loses its negatives to what lies around others. Of an anchor as many triplets are
    drawn as references have its label; positives evenly, with replacement. Anchors without a
    positive, or without a negative below the cut-off, are left out.

    Args:
        cutoff: Distances below are treated as this.
        nonzero_loss_cutoff: Negatives from this distance on are not drawn.
        distance: None, or ``LpDistance(p=2, power=1, normalize_embeddings=True)``.
        collect_stats: None or False.
    """

    def __init__(
        self,
        cutoff: float = 0.5,
        nonzero_loss_cutoff: float = 1.4,
        *,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        _tuples.needs_euclidean(self, self.distance)
        self.cutoff = float(cutoff)
        self.nonzero_loss_cutoff = float(nonzero_loss_cutoff)

    def _mine(self, batch: Batch) -> tuple[Tensor, ...]:
        labels, partners = batch.labels, batch.reference_labels
        assert labels is not None
        assert partners is not None
        known = partners.sort().values
        number = torch.searchsorted(known, labels, right=True) - torch.searchsorted(known, labels)
        samples = int(number.max()) if len(number) else 0
        if samples == 0:
            return (labels.new_empty(0, dtype=torch.int64),) * 3
        words = batch.as_words() | {"samples": samples}
        positives, _, paired = random_triplets(**words)
        negatives, legal = distance_weighted(
            **words, cutoff=self.cutoff, nonzero_loss_cutoff=self.nonzero_loss_cutoff
        )
        rank = torch.arange(samples, device=labels.device)
        valid = paired & legal & (rank < number[:, None])
        return valid.nonzero()[:, 0], positives[valid], negatives[valid]


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


def _extreme(far: Tensor, legal: Tensor, *, farthest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: the column of its extreme legal entry, the entry, whether there is one."""
    if not far.shape[1]:
        none = torch.zeros(len(far), dtype=torch.int64, device=far.device)
        return none, none.to(far), none.bool()
    ignored = -math.inf if farthest else math.inf
    values = far.masked_fill(~legal, ignored)
    columns = values.argmax(dim=1) if farthest else values.argmin(dim=1)
    return columns, values.gather(1, columns[:, None])[:, 0], legal.any(dim=1)
