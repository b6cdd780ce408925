"""Triplets drawn at random from a batch: by distance weights, semi-hard, soft-hard, or evenly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.miners.triplets import Triplets
from ecgfast.ops.mine_sampled import distance_weighted, random_triplets, semi_hard, soft_hard

Metric = Literal["euclidean", "sqeuclidean", "cosine"]
Policy = Literal["drop", "uniform", "hardest"]
Sides = dict[str, Tensor | None]


class _Drawn(nn.Module):
    """What these miners have in common: how they are called, and what they return."""

    @torch.no_grad()
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
        seed: Tensor | None = None,
    ) -> Triplets:
        """Mines a batch. The same seed draws the same triplets; no device is waited for.

        Args:
            embeddings: ``(N, D)``.
            labels: ``(N,)`` integers: equal ones are positives, others negatives.
            references: ``(M, D)``, from which positives and negatives are drawn instead.
            reference_labels: ``(M,)``, with references.
            groups: ``(N,)`` integers: rows of one group are never negatives of each other.
            reference_groups: ``(M,)``, with references and groups.
            places: ``(N,)`` int64, with references: which is the anchor itself, -1 for none.
            seed: ``(1,)`` int64 on the device; from torch's generator if None.

        Returns:
            S triplets for each anchor, side by side: N S of them, always. Positives and negatives
            index the references where there are any. What is not valid points at the anchor
            itself, or at 0 where the references do not hold it.
        """
        if seed is None:
            seed = torch.randint(2**63 - 1, (1,), device=embeddings.device)
        sides: Sides = {
            "references": references,
            "reference_labels": reference_labels,
            "groups": groups,
            "reference_groups": reference_groups,
            "places": places,
            "seed": seed,
        }
        positives, negatives, valid = self._draw(embeddings, labels, sides)
        anchors = torch.arange(len(embeddings), device=embeddings.device)
        itself = anchors
        if references is not None:
            itself = torch.zeros_like(anchors) if places is None else places.clamp(min=0)
        samples = valid.shape[1]
        return Triplets(
            anchors.repeat_interleave(samples),
            torch.where(valid, positives, itself[:, None]).flatten(),
            torch.where(valid, negatives, itself[:, None]).flatten(),
            valid.flatten(),
        )

    def _draw(
        self, embeddings: Tensor, labels: Tensor, sides: Sides
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positives, negatives and which are valid, ``(N, S)`` each."""
        raise NotImplementedError


class DistanceWeighted(_Drawn):
    """Negatives from all distances about equally often; positives at random.

    Wu, Manmatha, Smola, Krähenbühl, ICCV 2017: see :func:`ecgfast.ops.distance_weighted`. Every
    anchor that has a positive, and a negative inside the cut-off, keeps its triplets at any D.

    Args:
        samples: Triplets for each anchor, S, drawn with replacement.
        cutoff: Smaller distances of unit rows count as this one.
        nonzero_loss_cutoff: Negatives from this distance on are not drawn.
        no_negative: What an anchor gets whose negatives are all too far: ``drop`` nothing,
            ``uniform`` any of its negatives, ``hardest`` the nearest.

    Example:
        >>> miner = DistanceWeighted(samples=2)
        >>> miner(torch.randn(4, 16), torch.arange(4) // 2).anchors
        tensor([0, 0, 1, 1, 2, 2, 3, 3])
    """

    def __init__(
        self,
        samples: int = 1,
        cutoff: float = 0.5,
        nonzero_loss_cutoff: float = 1.4,
        no_negative: Policy = "drop",
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if not 0 < cutoff < nonzero_loss_cutoff:
            raise ValueError(
                "cutoff must be above 0 and below nonzero_loss_cutoff, got"
                f" {cutoff} and {nonzero_loss_cutoff}"
            )
        if no_negative not in ("drop", "uniform", "hardest"):
            raise ValueError(f"no_negative must be drop, uniform or hardest, got {no_negative!r}")
        self.samples = samples
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff
        self.no_negative = no_negative

    def _draw(
        self, embeddings: Tensor, labels: Tensor, sides: Sides
    ) -> tuple[Tensor, Tensor, Tensor]:
        negatives, near = distance_weighted(
            embeddings,
            labels,
            samples=self.samples,
            cutoff=self.cutoff,
            nonzero_loss_cutoff=self.nonzero_loss_cutoff,
            no_negative=self.no_negative,
            **sides,
        )
        positives, _, both = random_triplets(embeddings, labels, samples=self.samples, **sides)
        return positives, negatives, near & both


class SemiHard(_Drawn):
    """Any positive, and any negative that is farther than it by less than a margin.

    As SSL-DML's code has it, one triplet an anchor; see :func:`ecgfast.ops.semi_hard`.

    Args:
        margin: In the unit of the metric.
        metric: ``euclidean``, ``sqeuclidean`` or ``cosine``.
        normalise: Whether rows are brought to unit length before; for cosine they are.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [1.1], [5.0]])
        >>> SemiHard(margin=0.2)(line, torch.tensor([0, 0, 1, 1])).negatives[:1]
        tensor([2])
    """

    def __init__(
        self, margin: float = 0.2, metric: Metric = "euclidean", normalise: bool = False
    ) -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, got {margin}")
        _check_metric(metric)
        self.margin = margin
        self.metric = metric
        self.normalise = normalise

    def _draw(
        self, embeddings: Tensor, labels: Tensor, sides: Sides
    ) -> tuple[Tensor, Tensor, Tensor]:
        p, n, valid = semi_hard(
            embeddings,
            labels,
            margin=self.margin,
            metric=self.metric,
            normalise=self.normalise,
            **sides,
        )
        return p[:, None], n[:, None], valid[:, None]


class SoftHard(_Drawn):
    """A positive farther than the nearest negative, a negative nearer than the farthest positive.

    As SSL-DML's code has it, one triplet an anchor; see :func:`ecgfast.ops.soft_hard`.

    Args:
        metric: ``euclidean``, ``sqeuclidean`` or ``cosine``.
        normalise: Whether rows are brought to unit length before; for cosine they are.

    Example:
        >>> line = torch.tensor([[0.0], [0.1], [3.0], [1.0], [5.0]])
        >>> SoftHard()(line, torch.tensor([0, 0, 0, 1, 1])).positives[:1]
        tensor([2])
    """

    def __init__(self, metric: Metric = "euclidean", normalise: bool = False) -> None:
        super().__init__()
        _check_metric(metric)
        self.metric = metric
        self.normalise = normalise

    def _draw(
        self, embeddings: Tensor, labels: Tensor, sides: Sides
    ) -> tuple[Tensor, Tensor, Tensor]:
        p, n, valid = soft_hard(
            embeddings, labels, metric=self.metric, normalise=self.normalise, **sides
        )
        return p[:, None], n[:, None], valid[:, None]


class RandomTriplets(_Drawn):
    """Any positive and any negative: what SSL-DML calls ``npair``.

    Args:
        samples: Triplets for each anchor, S, drawn with replacement.

    Example:
        >>> triplets = RandomTriplets()(torch.randn(4, 2), torch.tensor([7, 7, 9, 3]))
        >>> triplets.positives.tolist(), triplets.valid.tolist()
        ([1, 0, 2, 3], [True, True, False, False])
    """

    def __init__(self, samples: int = 1) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        self.samples = samples

    def _draw(
        self, embeddings: Tensor, labels: Tensor, sides: Sides
    ) -> tuple[Tensor, Tensor, Tensor]:
        return random_triplets(embeddings, labels, samples=self.samples, **sides)


def _check_metric(metric: str) -> None:
    if metric not in ("euclidean", "sqeuclidean", "cosine"):
        raise ValueError(f"metric must be euclidean, sqeuclidean or cosine, got {metric!r}")
