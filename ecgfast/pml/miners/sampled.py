"""Negatives that are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfast.ops import distance_weighted, random_triplets
from ecgfast.pml import _tuples
from ecgfast.pml._batch import Batch
from ecgfast.pml.distances import BaseDistance
from ecgfast.pml.miners._miner import BaseMiner, count_of


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
        number = count_of(labels, partners)
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
