"""One pair a class, for the n-pair loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.miners.triplets import PositivePairs


class NPairs(nn.Module):
    """The first two records of each class: an anchor and its positive, one pair a class.

    The n-pair loss (Sohn: Improved deep metric learning with multi-class N-pair loss objective,
    2016) takes the positives of the other classes as negatives. The first record of a class holds
    its pair; all others, and classes of one record, are not valid. Nothing is drawn: shuffle the
    batch for other pairs. The embeddings take no part.

    Example:
        >>> NPairs()(torch.randn(5, 8), torch.tensor([7, 3, 7, 7, 3])).positives
        tensor([2, 4, 2, 3, 4])
    """

    @torch.no_grad()
    def forward(self, embeddings: Tensor, labels: Tensor) -> PositivePairs:
        """Mines labels ``(N,)``, any integers."""
        if labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"labels must be ({len(embeddings)},) as embeddings, got {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"labels must be integers, got {labels.dtype}")
        anchors = torch.arange(len(labels), device=labels.device)
        values, order = labels.sort(stable=True)
        same = torch.zeros(len(labels) + 1, dtype=torch.bool, device=labels.device)
        same[1:-1] = values[1:] == values[:-1]  # as the one before
        valid = ~same[:-1] & same[1:]
        positives = torch.where(valid, order.roll(-1), order)
        return PositivePairs(
            anchors, torch.empty_like(order).scatter(0, order, positives), valid[order.argsort()]
        )
