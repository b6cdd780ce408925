"""What all losses share: checks, who is compared with whom, the way to the reducer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.pml import _tuples
from ecgfast.pml._batch import Batch, as_batch
from ecgfast.pml.distances import BaseDistance, LpDistance
from ecgfast.pml.reducers import (
    BaseReducer,
    DoNothingReducer,
    LossDict,
    MeanReducer,
    MultipleReducers,
)


class BaseMetricLossFunction(nn.Module):
    """A loss of embeddings and labels.

    ``loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)``: anchors are the rows of
    ``embeddings``, their partners those of ``ref_emb``, or of ``embeddings``. Without
    ``indices_tuple`` all pairs are compared: equal labels attract, different ones repel. An anchor
    is its own partner where ``ref_emb`` is another tensor; where it is the same tensor, or is not
    given, it is not.

    A subclass of one's own gives ``compute_loss``, which returns a dictionary as the reducers take
    it, and the names of its parts if there are several.

    Args:
        reducer: From losses to one number; None is the default of the loss.
        distance: Between rows; None is the default of the loss.
        collect_stats: Statistics are not collected here: None or False.
        embedding_regularizer: From embeddings to a number that is added to the loss.
        embedding_reg_weight: Its factor.
    """

    def __init__(
        self,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
        embedding_regularizer: Callable[[Tensor], Tensor] | None = None,
        embedding_reg_weight: float = 1,
    ) -> None:
        super().__init__()
        _tuples.refuse_statistics(collect_stats)
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight
        self.distance = self.get_default_distance() if distance is None else distance
        names = self.sub_loss_names()
        if isinstance(reducer, (MultipleReducers, DoNothingReducer)):
            self.reducer: BaseReducer = reducer
        elif len(names) == 1:
            self.reducer = self._own(reducer)
        else:
            self.reducer = MultipleReducers({name: self._own(reducer) for name in names})

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Any:
        """The loss.

        Args:
            embeddings: Anchors ``(N, D)``, of any float dtype.
            labels: ``(N,)``; needed unless ``indices_tuple`` says who is compared.
            indices_tuple: Triplets (anchors, positives, negatives), or pairs (anchors, positives,
                anchors, negatives), as a miner gives them: anchors index ``embeddings``, partners
                ``ref_emb``. None compares all.
            ref_emb: Partners ``(M, D)``; None: the anchors are each other's.
            ref_labels: ``(M,)``, with ``ref_emb``.

        Returns:
            ``()``, float32, or float64 for float64; what the reducer makes of the losses.
        """
        return self.of_batch(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def of_batch(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        places: Tensor | None = None,
    ) -> Any:
        """The loss, where a reference may be the anchor itself: at ``places`` ``(N,)``, or -1."""
        batch = as_batch(embeddings, labels, ref_emb, ref_labels, places)
        with torch.autocast(embeddings.device.type, enabled=False):
            losses = self._losses(batch, indices_tuple)
            if self.embedding_regularizer is not None:
                penalty = self.embedding_regularizer(embeddings) * self.embedding_reg_weight
                losses["embedding_reg_loss"] = {
                    "losses": penalty,
                    "indices": None,
                    "reduction_type": "already_reduced",
                }
            return self.reducer(losses, batch.embeddings, batch.labels)

    def _losses(self, batch: Batch, indices_tuple: Sequence[Tensor] | None) -> LossDict:
        return self.compute_loss(
            batch.embeddings,
            batch.labels,
            indices_tuple,
            batch.references,
            batch.reference_labels,
        )

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Sequence[Tensor] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> LossDict:
        """The parts of the loss, before the reducer."""
        raise NotImplementedError

    def get_default_distance(self) -> BaseDistance:
        """The Euclidean distance of rows at length 1."""
        return LpDistance(p=2)

    def get_default_reducer(self) -> BaseReducer:
        """The mean."""
        return MeanReducer()

    def _sub_loss_names(self) -> list[str]:
        return ["loss"]

    def sub_loss_names(self) -> list[str]:
        """The names of the parts that the reducer is given."""
        regularised = self.embedding_regularizer is not None
        return self._sub_loss_names() + (["embedding_reg_loss"] if regularised else [])

    def zero_loss(self) -> dict[str, Any]:
        """A part that is 0."""
        return {"losses": 0, "indices": None, "reduction_type": "already_reduced"}

    def zero_losses(self) -> LossDict:
        """All parts, each 0."""
        return {name: self.zero_loss() for name in self.sub_loss_names()}

    def takes(self, what: str, part: str = "loss") -> bool:
        """Whether the reducer of a part can do with sums over anchors."""
        reducer = self.reducer
        if isinstance(reducer, MultipleReducers):
            reducer = reducer.of(part)
        return reducer.takes(what)

    def _own(self, reducer: BaseReducer | None) -> BaseReducer:
        return self.get_default_reducer() if reducer is None else copy.deepcopy(reducer)


class ListedLoss(BaseMetricLossFunction):
    """A loss of pairs or triplets: fused over all of them, or a formula over a list of them."""

    triplets_per_anchor: int | str | None = None  # None: the loss takes pairs

    def _losses(self, batch: Batch, indices_tuple: Sequence[Tensor] | None) -> LossDict:
        if indices_tuple is None:
            if batch.labels is None or batch.reference_labels is None:
                missing = "labels" if batch.labels is None else "ref_labels"
                raise ValueError(f"{missing} must be given, or indices_tuple")
            losses = self.fused(batch)
            if losses is not None:
                return losses
            lists = self._all(batch.labels, batch.reference_labels, batch.places)
        else:
            rows, references = len(batch.embeddings), len(batch.references)
            lists = _tuples.checked(indices_tuple, rows, references, batch.embeddings.device)
        convert = _tuples.as_pairs if self.triplets_per_anchor is None else _tuples.as_triplets
        return self.listed(batch, convert(lists))

    def _all(self, labels: Tensor, ref_labels: Tensor, places: Tensor | None) -> tuple[Tensor, ...]:
        per_anchor = self.triplets_per_anchor
        if per_anchor is None:
            return _tuples.all_pairs(labels, ref_labels, places)
        if per_anchor == "all":
            return _tuples.all_triplets(labels, ref_labels, places)
        assert isinstance(per_anchor, int)
        return _tuples.drawn_triplets(labels, ref_labels, places, per_anchor)

    def fused(self, batch: Batch) -> LossDict | None:
        """The loss of all pairs by an op that lists none; None where there is no such op."""
        return None

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of the listed pairs (four lists) or triplets (three)."""
        raise NotImplementedError

    def sums_will_do(self, *whats: str) -> bool:
        """Whether the reducers of all parts are content with sums over anchors."""
        return all(any(self.takes(what, part) for what in whats) for part in self._sub_loss_names())

    def values(self, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances ``(K,)`` of listed pairs."""
        return self.distance.listed(batch.embeddings, batch.references, rows, columns)


def sums_of(sums: Tensor, count: Tensor, nonzero: Tensor | None = None) -> dict[str, Any]:
    """A part of a loss as sums (N,) over the pairs or triplets of each anchor."""
    return {
        "losses": sums,
        "count": count,
        "nonzero": nonzero,
        "indices": None,
        "reduction_type": "anchor",
    }
