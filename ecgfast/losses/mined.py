"""Losses over all pairs of a batch whose positives were mined, one a row.

The losses of `contrastive` take labels: equal ones attract. A mined positive is no label: that j is
the nearest of i says nothing of whom j attracts, and the record that attracts i may stand in other
rows too. So these take the rows and who may repel whom. They hold N x N numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinedNTXentLoss(nn.Module):
    r"""Normalised temperature-scaled cross entropy of one mined positive a row.

    .. math:: \ell_i = -\log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{n \in Q(i)} e^{s_{in}}},
              \qquad s_{ij} = \cos(z_i, z_j) / \tau

    With pairs as positives and all other rows as negatives it is :class:`NTXentLoss` (Chen et al.
    2020). The mean is over the rows that have a positive.

    Args:
        temperature: :math:`\tau`, over 0.

    Example:
        >>> apart = ~torch.eye(2, dtype=torch.bool)
        >>> MinedNTXentLoss()(torch.eye(2), torch.tensor([1, 0]), apart & False, apart.any(dim=1))
        tensor(0.)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be over 0, got {temperature}")
        self.temperature = temperature

    def forward(
        self, embeddings: Tensor, positives: Tensor, repel: Tensor, valid: Tensor
    ) -> Tensor:
        """The loss of embeddings ``(N, D)``.

        Args:
            embeddings: They are brought to length 1 here.
            positives: ``(N,)`` rows.
            repel: ``(N, N)`` bool, who are the negatives of each row; never its positive.
            valid: ``(N,)`` bool, which rows count.
        """
        similarities = _cosines(embeddings) / self.temperature
        near = similarities.gather(1, positives[:, None])
        far = similarities.masked_fill(~repel, -torch.inf)
        terms = torch.cat([near, far], dim=1).logsumexp(dim=1) - near[:, 0]
        return _mean(terms, valid)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"temperature={self.temperature}"


class MinedMultiSimilarityLoss(nn.Module):
    """Multi-similarity loss (Wang et al. 2019) of one mined positive a row.

    :func:`ecgfast.ops.multi_similarity` has the formula. The mean is over the rows that have a
    positive.

    Args:
        alpha: Weight of the positive in the exponent, over 0.
        beta: Weight of negatives in the exponent, over 0.
        base: The similarity that both are measured from.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5) -> None:
        super().__init__()
        if not (alpha > 0 and beta > 0):
            raise ValueError(f"alpha and beta must be over 0, got {alpha} and {beta}")
        self.alpha = alpha
        self.beta = beta
        self.base = base

    def forward(
        self, embeddings: Tensor, positives: Tensor, repel: Tensor, valid: Tensor
    ) -> Tensor:
        """The loss of embeddings ``(N, D)``; arguments as of :class:`MinedNTXentLoss`."""
        above = _cosines(embeddings) - self.base
        near = nn.functional.softplus(-self.alpha * above.gather(1, positives[:, None])[:, 0])
        weighted = (self.beta * above).masked_fill(~repel, -torch.inf)
        none = weighted.new_zeros(len(weighted), 1)
        far = torch.cat([none, weighted], dim=1).logsumexp(dim=1)
        return _mean(near / self.alpha + far / self.beta, valid)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}"


def _cosines(embeddings: Tensor) -> Tensor:
    with torch.autocast(embeddings.device.type, enabled=False):
        wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        unit = nn.functional.normalize(wide, dim=1)
        return unit @ unit.mT


def _mean(terms: Tensor, valid: Tensor) -> Tensor:
    return terms.where(valid, 0).sum() / valid.sum().clamp(min=1)
