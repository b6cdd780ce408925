"""Embeddings from which places in input space can be read."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateLoss(nn.Module):
    r"""Mean squared error of coordinates that were found in input space.

    .. math:: L = \frac{1}{N K} \sum_{i,k} (\hat c_{ik} - c_{ik})^2

    With coordinates of variance 1, 1 is what a constant gets, and 1 - L the share of the variance
    that is explained.

    Example:
        >>> CoordinateLoss()(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([True, False]))
        tensor(1.)
    """

    def forward(self, predicted: Tensor, coordinates: Tensor, valid: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            predicted: ``(N, K)``.
            coordinates: ``(N, K)``, no gradient.
            valid: ``(N,)`` bool: rows that count.

        Returns:
            The mean over the rows that count, ``()``; 0 where none does.
        """
        if predicted.shape != coordinates.shape or valid.shape != predicted.shape[:1]:
            raise ValueError(
                "predicted and coordinates must be (N, K), valid (N,), got "
                f"{tuple(predicted.shape)}, {tuple(coordinates.shape)} and {tuple(valid.shape)}"
            )
        with torch.autocast(predicted.device.type, enabled=False):
            apart = predicted - coordinates.to(predicted)
            apart = torch.where(valid[:, None], apart, 0)
            count = (valid.sum() * max(1, predicted.shape[1])).clamp(min=1)
            return apart.square().sum() / count
