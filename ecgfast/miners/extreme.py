"""Triplets from the nearest and the farthest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.miners.distance import Distance, InputDistance
from ecgfast.miners.triplets import Triplets
from ecgfast.ops import batch_hard, label_distance, nearest_farthest

_STRIP_BYTES = 64 * 2**20  # of distances that are held at a time


class NearestFarthest(nn.Module):
    """Positive and negative of each record by its distances to the others in the batch.

    Distances are taken in input space, on whole records: all of them at once, of which symmetry
    spares half the work, or in strips of 64 MB where they are more than that. A record with a value
    that is not finite is nobody's neighbour and its own triplet is not valid; with fewer than three
    records left none is. Ties go to the lowest index. What is drawn is drawn on the generator's
    device, the CPU unless told otherwise, so that every device gets the same triplets.

    Args:
        distance: An :class:`InputDistance`, or a word for one.
        positive: ``nearest``, or ``two_farthest``, one of the two farthest (the published
            on-the-fly mode, defect B2).
        negative: ``farthest`` draws from the ``topk`` farthest, ``random`` from all; never the
            record itself nor its positive.
        topk: From how many farthest the negative is drawn. Where the positive is one of them, one
            fewer is left, but at least one.

    Example:
        >>> line = torch.tensor([0.0, 1.0, 3.0, 9.0]).reshape(4, 1, 1)
        >>> NearestFarthest(negative="farthest", topk=1)(line).positives
        tensor([1, 0, 1, 2])
    """

    def __init__(
        self,
        distance: Distance | InputDistance = "mean_l1",
        positive: Literal["nearest", "two_farthest"] = "nearest",
        negative: Literal["random", "farthest"] = "random",
        topk: int = 2,
    ) -> None:
        super().__init__()
        if positive not in ("nearest", "two_farthest"):
            raise ValueError(f"positive must be nearest or two_farthest, got {positive}")
        if negative not in ("random", "farthest"):
            raise ValueError(f"negative must be random or farthest, got {negative}")
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.distance = InputDistance(distance) if isinstance(distance, str) else distance
        self.positive = positive
        self.negative = negative
        self.topk = topk

    @torch.no_grad()
    def forward(self, ecg: Tensor, *, generator: torch.Generator | None = None) -> Triplets:
        """Mines a batch.

        Args:
            ecg: Records ``(N, L, T)``.
            generator: Of the draws; none takes torch's own on the CPU.

        Returns:
            N triplets.
        """
        _, rows, eligible = self.distance.compared(ecg)
        if 4 * len(ecg) ** 2 <= _STRIP_BYTES:
            return self.mine(self.distance.between(rows), eligible, generator=generator)
        strips = ((part, self.distance.between(rows[part], rows)) for part in _parts(len(rows)))
        return self._mine(strips, eligible, generator)

    @torch.no_grad()
    def mine(
        self, distances: Tensor, eligible: Tensor, *, generator: torch.Generator | None = None
    ) -> Triplets:
        """Mines a distance matrix that is already there.

        Args:
            distances: ``(N, N)``; the diagonal is not read.
            eligible: ``(N,)`` bool.
            generator: As in forward.
        """
        strips = ((part, distances[part]) for part in _parts(len(distances)))
        return self._mine(strips, eligible, generator)

    def _mine(
        self,
        strips: Iterable[tuple[slice, Tensor]],
        eligible: Tensor,
        generator: torch.Generator | None,
    ) -> Triplets:
        n, device = len(eligible), eligible.device
        itself = torch.arange(n, device=device)
        if n == 0:
            return Triplets(itself, itself, itself, eligible)
        valid = eligible & (eligible.sum() >= 3)
        draws = torch.rand(
            2,
            n,
            dtype=torch.float64,
            generator=generator,
            device="cpu" if generator is None else generator.device,
        ).to(device)

        # one more than the topk, if that is one: the positive may be the farthest
        k_far = max(self.topk, 2) if self.negative == "farthest" else 2
        k_far = 0 if (self.positive, self.negative) == ("nearest", "random") else min(k_far, n)
        positives = torch.empty_like(itself)
        farthest = torch.empty((n, k_far), dtype=torch.int64, device=device)
        for part, strip in strips:
            # overflown distances are far, not farther than what is excluded
            largest = torch.finfo(strip.dtype).max
            positives[part], farthest[part] = nearest_farthest(
                strip.nan_to_num(nan=largest, posinf=largest),
                eligible=eligible,
                places=itself[part],
                k_far=k_far,
            )
        others = eligible.sum() - 1
        if self.positive == "two_farthest":
            rank = (draws[0] * others.clamp(min=0, max=2)).long()
            positives = farthest.gather(1, rank.clamp(max=k_far - 1)[:, None])[:, 0]
        positives = torch.where(valid, positives, itself)
        if self.negative == "random":
            negatives = _any_other(draws[1], eligible, positives)
        else:
            negatives = _one_of(farthest, draws[1], others.clamp(max=self.topk), positives)
        return Triplets(itself, positives, torch.where(valid, negatives, itself), valid)


class BatchHard(nn.Module):
    """The farthest positive and the nearest negative of each anchor, or easier ones.

    :func:`ecgfast.ops.batch_hard` states what is exact, what is not valid, and what it costs.

    Args:
        metric: ``euclidean`` or ``cosine``.
        positive: ``hardest``, the farthest, or ``easiest``, the nearest.
        negative: ``hardest``, the nearest; ``semihard``, the nearest of those farther than the
            positive; or ``easiest``, the farthest.
        normalise: Brings embeddings to length 1 first.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> BatchHard(negative="semihard")(line, torch.tensor([0, 0, 1, 1])).valid
        tensor([ True,  True, False,  True])
    """

    def __init__(
        self,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        positive: Literal["hardest", "easiest"] = "hardest",
        negative: Literal["hardest", "easiest", "semihard"] = "hardest",
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.positive = positive
        self.negative = negative
        self.normalise = normalise

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        groups: Tensor | None = None,
        reference_groups: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Triplets:
        """Mines embeddings ``(N, D)`` by labels ``(N,)``, among themselves or references."""
        mined = batch_hard(
            embeddings,
            labels,
            references=references,
            reference_labels=reference_labels,
            groups=groups,
            reference_groups=reference_groups,
            places=places,
            metric=self.metric,
            normalise=self.normalise,
            positive=self.positive,
            negative=self.negative,
        )
        return Triplets(torch.arange(len(labels), device=labels.device), *mined)


class LabelDistance(nn.Module):
    """The nearest and the farthest label of each record: for continuous targets.

    The embeddings take no part. :func:`ecgfast.ops.label_distance` states what is not valid.

    Args:
        max_gap: How far the positive's label may lie, in the unit of the labels; None: anywhere.
        groups_apart: Records of a group are not positives of each other, as they are never
            negatives.

    Example:
        >>> pressures = torch.tensor([12.0, 14.0, 30.0, torch.nan])  # mmHg
        >>> LabelDistance(max_gap=5)(torch.randn(4, 8), pressures).positives
        tensor([1, 0, 2, 3])
    """

    def __init__(self, max_gap: float | None = None, groups_apart: bool = False) -> None:
        super().__init__()
        self.max_gap = max_gap
        self.groups_apart = groups_apart

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        groups: Tensor | None = None,
        reference_groups: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Triplets:
        """Mines by labels ``(N,)``, NaN where missing; arguments as of the other miners."""
        sides = ("embeddings", embeddings, labels), ("references", references, reference_labels)
        for name, rows, values in sides:
            if (rows is None) != (values is None):
                raise ValueError("reference_labels must be given with references, and only then")
            if rows is not None and values is not None and len(rows) != len(values):
                raise ValueError(f"{name} are {len(rows)}, their labels {len(values)}")
        mined = label_distance(
            labels,
            reference_values=reference_labels,
            groups=groups,
            reference_groups=reference_groups,
            places=places,
            max_gap=self.max_gap,
            groups_apart=self.groups_apart,
        )
        return Triplets(torch.arange(len(labels), device=labels.device), *mined)


def _parts(count: int) -> Iterator[slice]:
    """Strips of at most 64 MB of float32."""
    height = max(1, _STRIP_BYTES // (4 * max(count, 1)))
    for begin in range(0, count, height):
        yield slice(begin, min(begin + height, count))


def _any_other(draws: Tensor, eligible: Tensor, but: Tensor) -> Tensor:
    """One of the eligible, in the order of their index; neither the row itself nor ``but``."""
    n = len(eligible)
    in_order = (~eligible).byte().argsort(stable=True)
    rank_of = eligible.long().cumsum(0) - 1
    place = rank_of[but] - (rank_of[but] > rank_of).long()  # among the others of each row
    count = (eligible.sum() - 1 - (place < eligible.sum() - 1).long()).clamp(min=1)
    rank = (draws * count).long()
    rank += rank >= place  # step over it, and over the row itself
    rank += rank >= rank_of
    return in_order[rank.clamp(max=n - 1)]


def _one_of(farthest: Tensor, draws: Tensor, count: Tensor, but: Tensor) -> Tensor:
    """One of each row's first ``count`` farthest; ``but`` is taken out of these."""
    matches = farthest == but[:, None]
    place = torch.where(matches.any(dim=1), matches.int().argmax(dim=1), farthest.shape[1])
    left = (count - (place < count).long()).clamp(min=1)
    rank = (draws * left).long()
    rank += rank >= place  # step over it
    return farthest.gather(1, rank.clamp(max=farthest.shape[1] - 1)[:, None])[:, 0]
