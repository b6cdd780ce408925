"""What all miners share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.miners.watch import EmptyWatch
from ecgfast.pml import _tuples
from ecgfast.pml._batch import Batch, as_batch
from ecgfast.pml.distances import BaseDistance, LpDistance


class BaseMiner(nn.Module):
    """Chooses pairs or triplets. A subclass gives ``mine``.

    An anchor is never its own partner where ``ref_emb`` is ``embeddings``, or is not given. A row
    with a NaN is in no pair. A miner that has found nothing in 50 calls in a row warns.

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
        self._watch = EmptyWatch()

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
            lists = self._mine(batch)
        self._note(batch, lists)
        return lists

    def _note(self, batch: Batch, lists: tuple[Tensor, ...]) -> None:
        """Warns after 50 batches in a row of which nobody was listed."""
        labels, partners = batch.labels, batch.reference_labels
        assert labels is not None
        assert partners is not None
        found = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        for anchors in lists[:3:2] if len(lists) == 4 else lists[:1]:
            found[anchors] = True
        same = count_of(labels, partners)
        itself = 0 if batch.places is None else (batch.places >= 0).long()
        self._watch(found, has_positive=same > itself, has_negative=same < len(partners))

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


def count_of(labels: Tensor, partners: Tensor) -> Tensor:
    """How many partners ``(M,)`` have each label ``(N,)``."""
    known = partners.sort().values
    return torch.searchsorted(known, labels, right=True) - torch.searchsorted(known, labels)
