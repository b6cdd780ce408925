"""Losses by log-sum-exp over the partners of an anchor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import (
    angular_terms,
    info_nce_terms,
    multi_similarity_terms,
    nt_xent_terms,
    sup_con_terms,
)
from ecgfast.pml import _tuples
from ecgfast.pml._batch import Batch
from ecgfast.pml._segments import logsumexp_by, once_each, sums_by
from ecgfast.pml.distances import (
    BaseDistance,
    CosineSimilarity,
    DotProductSimilarity,
    similarity_words,
)
from ecgfast.pml.losses._loss import ListedLoss, sums_of
from ecgfast.pml.reducers import AvgNonZeroReducer, BaseReducer, LossDict


class NTXentLoss(ListedLoss):
    r"""Asks of every positive pair that it be more alike than all negative pairs of its anchor.

    .. math:: l_{ap} = -\log \frac{e^{s_{ap} / \tau}}
              {e^{s_{ap} / \tau} + \sum_{n} e^{s_{an} / \tau}}

    The other positives of the anchor are not in the denominator. With a list, a negative that
    stands in it twice is summed twice, and memory is that of the list: never positive pairs times
    negative pairs.

    Args:
        temperature: :math:`\tau`.
        reducer: Default: mean over the positive pairs.
        distance: Default: ``CosineSimilarity()``. A distance enters with its sign turned.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        self.temperature = temperature

    def fused(self, batch: Batch) -> LossDict | None:
        """The sum over the positive pairs of each anchor."""
        words = similarity_words(self.distance)
        if words is None or not self.sums_will_do("pairs"):
            return None
        sums, count = nt_xent_terms(**batch.as_words(), temperature=self.temperature, **words)
        return {"loss": sums_of(sums, count)}

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each listed positive pair."""
        anchors, positives, others, negatives = indices
        scale = (1 if self.distance.is_inverted else -1) / self.temperature
        near = self.values(batch, anchors, positives) * scale
        far = self.values(batch, others, negatives) * scale
        far = logsumexp_by(others, far, len(batch.embeddings))
        losses = torch.logaddexp(far[anchors] - near, torch.zeros_like(near))
        return _one(losses, (anchors, positives), "pos_pair")

    def get_default_distance(self) -> BaseDistance:
        """Cosine."""
        return CosineSimilarity()


class SupConLoss(ListedLoss):
    r"""Asks of all positives of an anchor that they be more alike than its other partners.

    .. math:: l_a = \log \sum_{j \in P_a \cup N_a} e^{s_{aj} / \tau}
              - \frac{1}{|P_a|} \sum_{p \in P_a} \frac{s_{ap}}{\tau}

    An anchor without positives has the loss 0. A pair that is listed twice counts once. Without a
    negative in the whole batch the formula holds all the same (Khosla et al. 2020).

    Args:
        temperature: :math:`\tau`.
        reducer: Default: mean over the anchors whose loss is above zero.
        distance: Default: ``CosineSimilarity()``. A distance enters with its sign turned.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        self.temperature = temperature

    def fused(self, batch: Batch) -> LossDict | None:
        """The loss of each anchor."""
        words = similarity_words(self.distance)
        if words is None:
            return None
        losses, _ = sup_con_terms(**batch.as_words(), temperature=self.temperature, **words)
        return _one(losses, _everyone(losses), "element")

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each anchor."""
        count = len(batch.embeddings)
        anchors, positives, others, negatives = _once(indices, len(batch.references))
        scale = (1 if self.distance.is_inverted else -1) / self.temperature
        near = self.values(batch, anchors, positives) * scale
        far = self.values(batch, others, negatives) * scale
        every = logsumexp_by(torch.cat([anchors, others]), torch.cat([near, far]), count)
        number = sums_by(anchors, torch.ones_like(near), count)
        mean = sums_by(anchors, near, count) / number.clamp(min=1)
        losses = torch.where(number > 0, every - mean, 0)
        return _one(losses, _everyone(losses), "element")

    def get_default_reducer(self) -> BaseReducer:
        """The mean of what is above zero."""
        return AvgNonZeroReducer()

    def get_default_distance(self) -> BaseDistance:
        """Cosine."""
        return CosineSimilarity()


class MultiSimilarityLoss(ListedLoss):
    r"""Weighs positive and negative pairs of an anchor by how they compare with its others.

    .. math:: l_a = \frac1\alpha \log\Bigl(1 + \sum_p e^{-\alpha (s_{ap} - \lambda)}\Bigr)
              + \frac1\beta \log\Bigl(1 + \sum_n e^{\beta (s_{an} - \lambda)}\Bigr)

    A pair that is listed twice counts once (Wang et al. 2019).

    Args:
        alpha: Of positive pairs.
        beta: Of negative pairs.
        base: :math:`\lambda`.
        reducer: Default: mean over all anchors.
        distance: Default: ``CosineSimilarity()``. A distance enters with its sign turned.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        alpha: float = 2,
        beta: float = 50,
        base: float = 0.5,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        self.alpha = alpha
        self.beta = beta
        self.base = base

    def fused(self, batch: Batch) -> LossDict | None:
        """The loss of each anchor."""
        words = similarity_words(self.distance)
        if words is None:
            return None
        words |= {"alpha": self.alpha, "beta": self.beta, "base": self.base}
        losses, _ = multi_similarity_terms(**batch.as_words(), **words)
        return _one(losses, _everyone(losses), "element")

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each anchor."""
        count = len(batch.embeddings)
        anchors, positives, others, negatives = _once(indices, len(batch.references))
        near = self.distance.margin(self.values(batch, anchors, positives), self.base)
        far = self.distance.margin(self.base, self.values(batch, others, negatives))
        near = logsumexp_by(anchors, self.alpha * near, count, add_one=True)
        far = logsumexp_by(others, self.beta * far, count, add_one=True)
        losses = near / self.alpha + far / self.beta
        return _one(losses, _everyone(losses), "element")

    def get_default_distance(self) -> BaseDistance:
        """Cosine."""
        return CosineSimilarity()


class AngularLoss(ListedLoss):
    r"""Bounds the angle at the negative of the triangle that it forms with a positive pair.

    .. math:: l_{ap} = \log\Bigl(1 + \sum_n e^{4 \tan^2 \alpha\, (x_a + x_p) \cdot x_n
              - 2 (1 + \tan^2 \alpha)\, x_a \cdot x_p}\Bigr)

    All rows are at length 1, as published (Wang et al. 2017). Negatives of a pair are all
    references under another label, whatever is listed.

    Args:
        alpha: Degrees.
        reducer: Default: mean over the positive pairs.
        distance: None, or ``LpDistance(p=2, power=1, normalize_embeddings=True)``.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        alpha: float = 40,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        _tuples.needs_euclidean(self, self.distance)
        self.alpha = torch.deg2rad(torch.tensor(alpha, dtype=torch.float64))
        self.degrees = alpha

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each listed positive pair."""
        labels, reference_labels = batch.labels, batch.reference_labels
        if labels is None or reference_labels is None:
            raise ValueError("labels must be given: AngularLoss takes its negatives by them")
        anchors, positives, _, _ = indices
        rows, row_labels, groups = batch.embeddings, labels, None
        if not batch.same:  # one set of rows, in which anchors have no negatives but references
            rows = torch.cat([rows, batch.references])
            row_labels = torch.cat([labels, reference_labels])
            groups = torch.zeros_like(row_labels)
            groups[len(labels) :] = 1
            positives = positives + len(labels)
        losses, _ = angular_terms(
            rows, anchors, positives, row_labels, groups=groups, alpha=self.degrees
        )
        return _one(losses, indices[:2], "pos_pair")


class NPairsLoss(ListedLoss):
    r"""Asks of one positive pair a class that its anchor know its partner among all classes'.

    .. math:: l_c = \log \sum_d e^{s(a_c, p_d)} - s(a_c, p_c)

    The pair of a class is its first in the list, or its first two rows (Sohn 2016). References
    other than the batch are refused.

    Args:
        reducer: Default: mean over the classes that have a pair.
        distance: Default: ``DotProductSimilarity()``, which normalises.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each class that has a pair."""
        if batch.labels is None:
            raise ValueError("labels must be given: NPairsLoss takes one pair a class")
        if not batch.same:
            raise ValueError("NPairsLoss takes no ref_emb other than the embeddings")
        anchors, positives, _, _ = indices
        classes, which = torch.unique(batch.labels[anchors], return_inverse=True)
        order = torch.arange(len(anchors), device=anchors.device)
        first = torch.full_like(classes, len(anchors), dtype=torch.int64)
        first = first.scatter_reduce(0, which, order, "amin")
        anchors, positives = anchors[first], positives[first]
        words = similarity_words(self.distance)
        if words is not None:
            rows = batch.embeddings
            losses, _ = info_nce_terms(rows[anchors], rows[positives], logit_scale=1.0, **words)
            return _one(losses, anchors, "element")
        alike = self.distance(batch.embeddings[anchors], batch.embeddings[positives])
        alike = alike if self.distance.is_inverted else -alike
        target = torch.arange(len(anchors), device=anchors.device)
        losses = nn.functional.cross_entropy(alike, target, reduction="none")
        return _one(losses, anchors, "element")

    def get_default_distance(self) -> BaseDistance:
        """The scalar product, of rows at length 1."""
        return DotProductSimilarity()


def _one(losses: Tensor, indices: Any, kind: str) -> LossDict:
    return {"loss": {"losses": losses, "indices": indices, "reduction_type": kind}}


def _everyone(losses: Tensor) -> Tensor:
    return torch.arange(len(losses), device=losses.device)


def _once(indices: tuple[Tensor, ...], width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs without repetitions; a pair on both sides is an error."""
    anchors, positives = once_each(indices[0], indices[1], width)
    others, negatives = once_each(indices[2], indices[3], width)
    both = torch.isin(anchors * width + positives, others * width + negatives).nonzero()
    if len(both):
        k = both[0, 0]
        raise ValueError(
            f"{len(both)} pairs of indices_tuple are positive and negative, the first"
            f" ({anchors[k].item()}, {positives[k].item()})"
        )
    return anchors, positives, others, negatives
