"""Losses on triplets of embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfast.ops import triplet_loss


class TripletLoss(nn.Module):
    """Asks that every anchor be nearer to its positive than to its negative, by a margin.

    The distances are squared L2, and the mean is over all valid triplets, as published for SSL-DML
    (Jeong, Stultz, Ghassemi 2023). It takes what a miner gives: ``loss(embeddings, *triplets)``.
    :func:`ecgfast.ops.triplet_loss` states the edges.

    Args:
        margin: By how much the negative should be farther, in squared units of the embeddings.
        reduction: ``"mean"`` over valid triplets, ``"sum"``, or ``"none"`` for the hinges.
    """

    def __init__(self, margin: float = 0.2, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction

    def forward(
        self,
        embeddings: Tensor,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings ``(N, D)`` by rows ``(K,)`` and, if given, their valid mask."""
        return triplet_loss(
            embeddings,
            anchors,
            positives,
            negatives,
            valid=valid,
            margin=self.margin,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"margin={self.margin}, reduction={self.reduction!r}"
