"""Losses with a margin: of pairs and of triplets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import all_triplets_terms, margin_all_terms, pair_hinge_terms
from ecgfast.pml._batch import Batch
from ecgfast.pml.distances import BaseDistance, hinge_words
from ecgfast.pml.losses._loss import ListedLoss, sums_of
from ecgfast.pml.reducers import AvgNonZeroReducer, BaseReducer, DivisorReducer, LossDict


class ContrastiveLoss(ListedLoss):
    r"""Asks of positive pairs to be near, of negative pairs to be far, each up to a margin.

    .. math:: l_{ap} = \max(0, d_{ap} - m_+), \quad l_{an} = \max(0, m_- - d_{an})

    With a similarity the margins are bounds on that: positives above ``pos_margin`` and negatives
    below ``neg_margin`` cost nothing. The positive and the negative part are reduced each for
    itself, and added.

    Args:
        pos_margin: :math:`m_+`.
        neg_margin: :math:`m_-`.
        reducer: Of each part. Default: mean over what is above zero.
        distance: Default: ``LpDistance()``: Euclidean, of rows at length 1.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        pos_margin: float = 0,
        neg_margin: float = 1,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin

    def fused(self, batch: Batch) -> LossDict | None:
        """The sums over the positive and over the negative pairs of each anchor."""
        words = hinge_words(self.distance)
        if words is None or not self.sums_will_do("pairs", "nonzero"):
            return None
        near, far = (
            1 - margin if self.distance.is_inverted else margin
            for margin in (self.pos_margin, self.neg_margin)
        )
        words |= {"positive_threshold": near, "negative_threshold": far}
        terms = pair_hinge_terms(**batch.as_words(), **words)
        return {
            "pos_loss": sums_of(terms.positive_sums, terms.positives, terms.positive_active),
            "neg_loss": sums_of(terms.negative_sums, terms.negatives, terms.negative_active),
        }

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each listed pair."""
        near = self.values(batch, *indices[:2])
        far = self.values(batch, *indices[2:])
        return {
            "pos_loss": {
                "losses": torch.relu(self.distance.margin(near, self.pos_margin)),
                "indices": indices[:2],
                "reduction_type": "pos_pair",
            },
            "neg_loss": {
                "losses": torch.relu(self.distance.margin(self.neg_margin, far)),
                "indices": indices[2:],
                "reduction_type": "neg_pair",
            },
        }

    def get_default_reducer(self) -> BaseReducer:
        """The mean of what is above zero."""
        return AvgNonZeroReducer()

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]


class TripletMarginLoss(ListedLoss):
    r"""Asks that every anchor be nearer to its positive than to its negative, by a margin.

    .. math:: l_{apn} = \max(0, d_{ap} - d_{an} + m)

    Without a list these are all triplets.

    Args:
        margin: :math:`m`.
        swap: The distance between positive and negative takes the place of the anchor's to the
            negative, where it is smaller.
        smooth_loss: ``log(1 + exp(.))`` instead of ``max(0, .)``.
        triplets_per_anchor: ``"all"``, or how many are drawn of each anchor, if none are listed.
        reducer: Default: mean over what is above zero.
        distance: Default: ``LpDistance()``: Euclidean, of rows at length 1.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: int | str = "all",
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        _check_per_anchor(triplets_per_anchor)
        self.margin = margin
        self.swap = swap
        self.smooth_loss = smooth_loss
        self.triplets_per_anchor = triplets_per_anchor

    def fused(self, batch: Batch) -> LossDict | None:
        """The sum over the triplets of each anchor."""
        words = hinge_words(self.distance)
        plain = self.triplets_per_anchor == "all" and not self.swap and not self.smooth_loss
        if words is None or not plain or self.margin < 0:
            return None
        if not self.sums_will_do("triplets", "nonzero"):
            return None
        terms = all_triplets_terms(**batch.as_words(), **words, margin=self.margin)
        return {"loss": sums_of(terms.loss, terms.triplets, terms.active)}

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each listed triplet."""
        anchors, positives, negatives = indices
        near = self.values(batch, anchors, positives)
        far = self.values(batch, anchors, negatives)
        if self.swap:
            references = batch.references
            between = self.distance.listed(references, references, positives, negatives)
            far = self.distance.smallest_dist(far, between)
        violation = self.distance.margin(near, far) + self.margin
        if self.smooth_loss:
            losses = torch.logaddexp(violation, torch.zeros_like(violation))
        else:
            losses = torch.relu(violation)
        return {"loss": {"losses": losses, "indices": indices, "reduction_type": "triplet"}}

    def get_default_reducer(self) -> BaseReducer:
        """The mean of what is above zero."""
        return AvgNonZeroReducer()


class MarginLoss(ListedLoss):
    r"""Asks of positives to be within, of negatives beyond a boundary that may be learned.

    .. math:: l_{apn} = \max(0, d_{ap} - \beta + m) + \max(0, \beta - d_{an} + m)

    The sum over the triplets is divided by the number of terms above zero. A learned boundary is
    charged :math:`\nu \beta` (Wu et al. 2017). Without a list these are all triplets.

    Args:
        margin: :math:`m`.
        nu: :math:`\nu`.
        beta: :math:`\beta`, or where it starts.
        triplets_per_anchor: ``"all"``, or how many are drawn of each anchor, if none are listed.
        learn_beta: Make it a parameter.
        num_classes: One boundary for each label of an anchor, 0 to ``num_classes - 1``.
        reducer: Default: divides by the number of terms above zero.
        distance: Default: ``LpDistance()``: Euclidean, of rows at length 1.
        **words: ``collect_stats``, ``embedding_regularizer``, ``embedding_reg_weight``.
    """

    def __init__(
        self,
        margin: float = 0.2,
        nu: float = 0,
        beta: float = 1.2,
        triplets_per_anchor: int | str = "all",
        learn_beta: bool = False,
        num_classes: int | None = None,
        *,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        **words: Any,
    ) -> None:
        super().__init__(reducer, distance, **words)
        _check_per_anchor(triplets_per_anchor)
        self.margin = margin
        self.nu = nu
        self.learn_beta = learn_beta
        self.triplets_per_anchor = triplets_per_anchor
        start = torch.full((num_classes or 1,), float(beta))
        self.beta: Tensor
        if learn_beta:
            self.beta = nn.Parameter(start)
        else:
            self.register_buffer("beta", start, persistent=False)

    def fused(self, batch: Batch) -> LossDict | None:
        """The sum over the triplets of each anchor, and the charge of the boundary."""
        words = hinge_words(self.distance)
        if words is None or self.triplets_per_anchor != "all":
            return None
        if not self.sums_will_do("triplets", "divisor"):
            return None
        everyone = torch.arange(len(batch.embeddings), device=batch.embeddings.device)
        beta = self._of(batch, everyone)
        words["beta"] = 1 - beta if self.distance.is_inverted else beta
        sums, active, triplets = margin_all_terms(**batch.as_words(), **words, margin=self.margin)
        divisor = active.sum()
        charge = self._charge(beta, everyone, triplets, divisor)
        if "divisor" in charge:  # each triplet is charged for the boundary of its anchor
            charge |= sums_of(charge["losses"] * triplets, triplets)
        return {
            "margin_loss": sums_of(sums, triplets) | {"divisor": divisor},
            "beta_reg_loss": charge,
        }

    def listed(self, batch: Batch, indices: tuple[Tensor, ...]) -> LossDict:
        """The loss of each listed triplet, and the charge of the boundary."""
        anchors, positives, negatives = indices
        beta = self._of(batch, anchors)
        near = self.values(batch, anchors, positives)
        far = self.values(batch, anchors, negatives)
        near = torch.relu(self.distance.margin(near, beta) + self.margin)
        far = torch.relu(self.distance.margin(beta, far) + self.margin)
        divisor = (near > 0).sum() + (far > 0).sum()
        return {
            "margin_loss": {
                "losses": near + far,
                "indices": indices,
                "reduction_type": "triplet",
                "divisor": divisor,
            },
            "beta_reg_loss": self._charge(beta, anchors, torch.ones_like(anchors), divisor),
        }

    def _of(self, batch: Batch, anchors: Tensor) -> Tensor:
        """The boundary of each anchor."""
        beta = self.beta.to(batch.embeddings)
        if len(beta) == 1:
            return beta
        if batch.labels is None:
            raise ValueError("labels must be given: every class has a boundary of its own")
        return beta[batch.labels[anchors]]

    def _charge(
        self, beta: Tensor, anchors: Tensor, triplets: Tensor, divisor: Tensor
    ) -> dict[str, Any]:
        """Of anchors with so many triplets each; a batch without any charges nothing."""
        if not self.learn_beta:
            return self.zero_loss()
        charge = {"losses": beta * self.nu, "indices": None, "reduction_type": "already_reduced"}
        if len(self.beta) == 1:
            return charge | {"losses": beta * self.nu * (triplets.sum() > 0)}
        return charge | {"indices": anchors, "reduction_type": "element", "divisor": divisor}

    def get_default_reducer(self) -> BaseReducer:
        """Divides by the number of terms above zero."""
        return DivisorReducer()

    def _sub_loss_names(self) -> list[str]:
        return ["margin_loss", "beta_reg_loss"]


def _check_per_anchor(triplets_per_anchor: int | str) -> None:
    whole = isinstance(triplets_per_anchor, int) and triplets_per_anchor > 0
    if triplets_per_anchor != "all" and not whole:
        raise ValueError(
            f'triplets_per_anchor must be "all" or a number above 0, got {triplets_per_anchor!r}'
        )
