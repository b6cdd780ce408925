"""VAE: an ECG through a few normal variables and back."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecgfast.config import Encoder, Fit, Optim, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """A convolutional variational autoencoder of median beats, or of any prepared signal.

    docs/baselines.md says what of it is published.

    Attributes:
        signal: The signal contract; by default median beats of z-scored leads.
        data: Where records come from.
        encoder: The network, conv_vae; its decoder has the same widths.
        beta: What the divergence from the standard normal weighs beside the mean squared error; 2
            over leads times samples is the bound on the likelihood for noise of variance 1.
        beta_steps: Steps over which it rises to that from 0.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(recipe="dual_attention"))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=lambda: Encoder(net="conv_vae", dropout=0.0))
    beta: float = 1e-4
    beta_steps: int = 1000
    optim: Optim = field(default_factory=lambda: Optim(weight_decay=1e-6))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, out="runs/vae"))

    def __post_init__(self) -> None:
        if self.beta < 0 or self.beta_steps < 0:
            raise ValueError(
                f"beta and beta_steps must not be negative, got {self.beta} and {self.beta_steps}"
            )
        if self.encoder.net != "conv_vae":
            raise ValueError(f"encoder.net must be conv_vae, got {self.encoder.net}")
        if self.fit.micro_batch:
            raise ValueError(
                "fit.micro_batch: records of a VAE need no others, take a smaller batch_size"
            )
        if self.fit.batch_size < 2:
            raise ValueError(f"batch norm needs a batch of 2 or more, got {self.fit.batch_size}")
