"""A convolutional variational autoencoder of ECGs: its encoder, and what decodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROWTH = (1, 1, 2, 2)  # of the width, stage by stage; each halves the length
SHRINK = 2 ** len(GROWTH)
KERNEL = 7  # samples, of the encoder; the decoder's have 4, so that each doubles the length


class ConvVAE(nn.Module):
    """The encoder: means of the latent variables, ``(N, L, T) -> (N, D)``.

    Four convolutions of stride 2, each with batch norm and ReLU, and a linear layer on all that is
    left of them, so that T is fixed. A convolutional VAE after the ECG branch of Beetz et al.
    (Frontiers in Physiology 13, 2022); sizes are this package's own. Nothing is drawn here: the
    posterior's spread (`Latent`) and the way back (`Decoder`) belong to training.
    Leads mix in the first convolution. At 12 leads, T = 608 and D = 128 it has 829,568 parameters.

    Args:
        num_leads: L.
        embedding_dim: D.
        samples: T.
        dropout: Before the linear layer.
        width: Channels of the first stage.

    Raises:
        ValueError: A size is not positive, or T is below 16.

    Example:
        >>> ConvVAE(12, 8, samples=608, width=4)(torch.zeros(2, 12, 608)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        num_leads: int = 12,
        embedding_dim: int = 128,
        *,
        samples: int = 608,
        dropout: float = 0.0,
        width: int = 64,
    ) -> None:
        super().__init__()
        if num_leads < 1 or embedding_dim < 1 or width < 1:
            raise ValueError(
                "num_leads, embedding_dim and width must be positive, "
                f"got {num_leads}, {embedding_dim} and {width}"
            )
        if samples < SHRINK:
            raise ValueError(f"samples must be {SHRINK} or more, got {samples}")
        self.num_leads, self.samples, self.embedding_dim = num_leads, samples, embedding_dim
        self.blocks = nn.ModuleList()
        before = num_leads
        for growth in GROWTH:
            conv = nn.Conv1d(before, growth * width, KERNEL, stride=2, padding=3, bias=False)
            norm = nn.BatchNorm1d(growth * width)
            self.blocks.append(nn.Sequential(conv, norm, nn.ReLU(inplace=True)))
            before = growth * width
        self.features_dim = before * -(-samples // SHRINK)
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Linear(self.features_dim, embedding_dim)

    def stages(self) -> list[nn.Module]:
        """From the signal to the embedding: four convolutions, the linear layer."""
        return [*self.blocks, self.embed]

    def features(self, ecg: Tensor) -> Tensor:
        """What means and spreads are linear in, ``(N, features_dim)``.

        Raises:
            ValueError: The shape is not ``(N, L, T)`` with this network's L and T.
        """
        if ecg.dim() != 3 or ecg.shape[1:] != (self.num_leads, self.samples):
            raise ValueError(
                f"ecg must be (N, {self.num_leads}, {self.samples}), got {tuple(ecg.shape)}"
            )
        x = ecg
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.dropout(x.flatten(1))
        return features

    def forward(self, ecg: Tensor) -> Tensor:
        """Embeds a batch.

        Args:
            ecg: Prepared signals ``(N, L, T)``.

        Returns:
            Means of the posterior ``(N, D)``.

        Raises:
            ValueError: The shape is not ``(N, L, T)`` with this network's L and T.
        """
        embeddings: Tensor = self.embed(self.features(ecg))
        return embeddings


class Decoder(nn.Module):
    """The way back, ``(N, D) -> (N, L, T)``: a linear layer and five convolutions.

    Args:
        num_leads: L.
        embedding_dim: D.
        samples: T.
        width: Channels before the last convolution, as the encoder's after its first.
    """

    def __init__(self, num_leads: int, embedding_dim: int, *, samples: int, width: int) -> None:
        super().__init__()
        self.samples = samples
        self.start = GROWTH[-1] * width, -(-samples // SHRINK)
        self.begin = nn.Linear(embedding_dim, self.start[0] * self.start[1])
        layers: list[nn.Module] = []
        before = self.start[0]
        for growth in GROWTH[::-1]:
            out = growth * width
            layers += [
                nn.ConvTranspose1d(before, out, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm1d(out),
                nn.ReLU(inplace=True),
            ]
            before = out
        self.layers = nn.Sequential(*layers, nn.Conv1d(before, num_leads, KERNEL, padding=3))

    def forward(self, latent: Tensor) -> Tensor:
        """Signals ``(N, L, T)`` of latent variables ``(N, D)``."""
        signals: Tensor = self.layers(self.begin(latent).unflatten(1, self.start))
        return signals[..., : self.samples]


class Latent(nn.Module):
    """Log variances of the posterior, ``(N, features_dim) -> (N, D)``, in [-10, 10].

    They start at -4: the first steps learn to decode, not to fight noise.

    Args:
        encoder: Whose features it reads.
    """

    def __init__(self, encoder: ConvVAE) -> None:
        super().__init__()
        self.log_variance = nn.Linear(encoder.features_dim, encoder.embedding_dim)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -4.0)

    def forward(self, features: Tensor) -> Tensor:
        """Log variances ``(N, D)``."""
        return torch.clamp(self.log_variance(features), -10.0, 10.0)
