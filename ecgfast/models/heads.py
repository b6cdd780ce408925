"""What sits on an encoder."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn


class BatchDropout(nn.Module):
    """Dropout of columns: one mask for all records of a batch.

    In a Cox loss records are compared with each other; with masks of their own they would be
    compared through different networks (Chen et al., arXiv 2403.10581).

    Args:
        p: Share of the columns that are set to 0; the others grow by 1 / (1 - p).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``(N, D) -> (N, D)``."""
        return x * nn.functional.dropout(x.new_ones(x.shape[1:]), self.p, self.training)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"p={self.p}"


class Projector(nn.Module):
    """From an embedding to what a loss compares, ``(N, D) -> (N, P)``; pretraining alone has one.

    Linear layers with ReLU between them; the last is linear alone.

    Args:
        embedding_dim: D.
        projection_dim: P.
        hidden: Width of the layers between.
        layers: How many linear layers; 0 hands embeddings on (P must be D), 1 is one linear map.
        batch_norm: After each layer but the last, before the ReLU; these have no bias then.
        last_bias: Whether the last layer has a bias.

    Example:
        >>> Projector(128, 64, hidden=128, layers=2)(torch.zeros(4, 128)).shape
        torch.Size([4, 64])
    """

    def __init__(
        self,
        embedding_dim: int,
        projection_dim: int,
        *,
        hidden: int,
        layers: int = 2,
        batch_norm: bool = False,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        if min(embedding_dim, projection_dim, hidden) < 1 or layers < 0:
            raise ValueError(
                "sizes must be positive and layers at least 0, got "
                f"{embedding_dim}, {projection_dim}, {hidden} and {layers}"
            )
        if layers == 0 and projection_dim != embedding_dim:
            raise ValueError(
                f"without layers the projection is the embedding: {projection_dim} is not "
                f"{embedding_dim}"
            )
        sizes = [embedding_dim, *[hidden] * (layers - 1), projection_dim] if layers else []
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes[:-1]):
            parts.append(nn.Linear(before, after, bias=not batch_norm))
            parts += [nn.BatchNorm1d(after)] * batch_norm + [nn.ReLU(inplace=True)]
        parts += [nn.Linear(sizes[-2], sizes[-1], bias=last_bias)] if layers else []
        self.layers = nn.Sequential(*parts)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings ``(N, D)`` to projections ``(N, P)``."""
        projections: Tensor = self.layers(embeddings)
        return projections


class OrderHead(nn.Linear):
    """From the embedding of a clip to logits of its frames' orders, ``(N, D) -> (N, F!)``.

    One linear layer, as published for EchoCLR (Holste et al., Commun Med 2024): what it tells apart
    must lie in the embedding itself.

    Args:
        embedding_dim: D.
        frames: F.

    Example:
        >>> OrderHead(512, 4)(torch.zeros(2, 512)).shape
        torch.Size([2, 24])
    """

    def __init__(self, embedding_dim: int, frames: int) -> None:
        super().__init__(embedding_dim, math.factorial(frames))


class Head(nn.Module):
    """From an embedding to a value or a logit, ``(N, D) -> (N, outputs)``.

    Linear, batch norm, ReLU, dropout, linear; with ``hidden=0`` one linear layer, the linear probe.
    What comes out is scaled to the label's unit by ``set_scale``; the scale is stored and loaded
    with the weights. A class has no unit: its logits are left alone.

    Args:
        embedding_dim: D.
        hidden: Width of the hidden layer; 0 has none.
        dropout: Before the last layer; without a hidden layer there is none.
        outputs: Values a record.

    Example:
        >>> Head(128, hidden=64)(torch.zeros(4, 128)).shape
        torch.Size([4, 1])
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, embedding_dim: int, hidden: int = 128, dropout: float = 0.3, outputs: int = 1
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or hidden < 0 or outputs < 1:
            raise ValueError(
                "embedding_dim and outputs must be positive, hidden at least 0, "
                f"got {embedding_dim}, {outputs} and {hidden}"
            )
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(
                nn.Linear(embedding_dim, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
        self.out = nn.Linear(hidden or embedding_dim, outputs)
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("scale", torch.tensor(1.0))

    def set_scale(self, mean: float, sd: float) -> None:
        """Lets the last layer work on z-scores: mean and standard deviation of training labels.

        Raises:
            ValueError: Not finite, or all labels are equal.
        """
        if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
            raise ValueError(f"labels must differ and be finite, got mean {mean} and sd {sd}")
        self.mean.fill_(mean)
        self.scale.fill_(sd)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings ``(N, D)`` to values or logits ``(N, outputs)``."""
        values: Tensor = self.out(self.hidden(embeddings))
        return values * self.scale + self.mean


class RiskHead(nn.Module):
    """From an embedding to a hazard, ``(N, D) -> (N, outputs)``.

    Batch norm, dropout with one mask for the batch, linear, ReLU, batch norm, linear: the head of
    Chen et al., arXiv 2403.10581, which has 3 hidden units. Without hidden ones it is batch norm,
    dropout and one linear layer.

    Args:
        embedding_dim: D.
        hidden: Width of the hidden layer; 0 has none.
        dropout: Of the embedding's columns.
        outputs: 1 for a log hazard, or a logit for each interval of time.

    Example:
        >>> RiskHead(128)(torch.zeros(4, 128)).shape
        torch.Size([4, 1])
    """

    scale = 1.0  # a hazard has no unit

    def __init__(
        self, embedding_dim: int, hidden: int = 3, dropout: float = 0.25, outputs: int = 1
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or hidden < 0 or outputs < 1:
            raise ValueError(
                "embedding_dim and outputs must be positive, hidden at least 0, "
                f"got {embedding_dim}, {outputs} and {hidden}"
            )
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(
                nn.Linear(embedding_dim, hidden), nn.ReLU(inplace=True), nn.BatchNorm1d(hidden)
            )
        self.norm = nn.BatchNorm1d(embedding_dim)
        self.dropout = BatchDropout(dropout)
        self.out = nn.Linear(hidden or embedding_dim, outputs)

    def set_hazards(self, shares: ArrayLike) -> None:
        """Begins at hazards ``(outputs,)`` of intervals, those of all training records say."""
        hazards = torch.as_tensor(np.asarray(shares), dtype=self.out.bias.dtype).clamp(1e-6, 0.999)
        with torch.no_grad():
            self.out.bias.copy_(hazards.logit())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings ``(N, D)`` to log hazards or logits ``(N, outputs)``."""
        values: Tensor = self.out(self.hidden(self.dropout(self.norm(embeddings))))
        return values
