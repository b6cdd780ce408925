"""Embeddings that keep distances: all of them teach, not the nearest alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LogRatioLoss(nn.Module):
    r"""Ratios of embedding distances against ratios of given distances (Kim et al., CVPR 2019).

    For anchor i and any two others j, k it squares how far the logarithms of the two ratios lie
    apart, and takes the mean over j, k and then over i:

    .. math:: L_i = \frac{1}{M_i (M_i - 1)} \sum_{j \ne k} \left( \log \frac{\lVert z_i - z_j
        \rVert}{\lVert z_i - z_k \rVert} - \log \frac{d_{ij}}{d_{ik}} \right)^2

    which is twice the variance of :math:`u_{ij} = \log \lVert z_i - z_j \rVert - \log d_{ij}` over
    the :math:`M_i` others, so that pairs are enough and no triplet is formed. It knows no margin
    and no scale: a factor on all embeddings or on all distances changes nothing. The paper has
    squared distances, which makes the loss of proportional distances 0 as well, and distances of
    labels for d. Holds N x N numbers.

    Args:
        eps: Added to squared distances of embeddings, so that equal ones have a gradient.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0]])
        >>> distances = torch.cdist(line, line)
        >>> bool(LogRatioLoss()(2 * line, distances, distances > 0) < 1e-6)
        True
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.eps = eps

    def forward(self, embeddings: Tensor, distances: Tensor, among: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: ``(N, D)``.
            distances: ``(N, N)``, no gradient; in any unit.
            among: ``(N, N)`` bool: pairs that count. The diagonal, pairs at a distance of 0 and
                those whose distance is not finite never do.

        Returns:
            Mean over the anchors that have two others or more, ``()``; 0 where none has.
        """
        n = len(embeddings)
        if embeddings.dim() != 2 or distances.shape != (n, n) or among.shape != (n, n):
            raise ValueError(
                "embeddings must be (N, D), distances and among (N, N), got "
                f"{tuple(embeddings.shape)}, {tuple(distances.shape)} and {tuple(among.shape)}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            z = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            itself = torch.eye(n, dtype=torch.bool, device=z.device)
            counts = among & ~itself & (distances > 0) & distances.isfinite()
            # differences, not products: near pairs are what a logarithm looks at
            square = (z[:, None] - z[None]).square().sum(dim=2) + self.eps
            given = torch.where(counts, distances.detach().to(z.dtype), 1).log()
            u = torch.where(counts, 0.5 * square.log() - given, 0)
            others = counts.sum(dim=1)
            mean = u.sum(dim=1) / others.clamp(min=1)
            spread = torch.where(counts, u - mean[:, None], 0).square().sum(dim=1)
            enough = others >= 2
            each = 2 * spread / (others - 1).clamp(min=1)
            return torch.where(enough, each, 0).sum() / enough.sum().clamp(min=1)
