"""SimCLR: two augmented views of an ECG attract, all others of the batch repel."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecgfast.config import Augment, Encoder, Fit, Optim, Projector, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """SimCLR (Chen et al., ICML 2020), with views of ECGs after Mehari and Strodthoff (2022).

    docs/baselines.md says what of it is published, and where.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        augment: How a view is drawn.
        projector: What the loss sees the embeddings through.
        temperature: What cosines are divided by.
        mask_patients: Records of one patient do not repel each other; published: they do.
        gather: Take negatives from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    augment: Augment = field(
        default_factory=lambda: Augment(crop_s=5.0, mask_count=(1, 1), mask_s=(1.0, 2.0))
    )
    projector: Projector = field(default_factory=lambda: Projector(dim=128))
    temperature: float = 0.1
    mask_patients: bool = False
    gather: bool = True
    optim: Optim = field(default_factory=lambda: Optim(weight_decay=1e-6))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, out="runs/simclr"))

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.augment.draws:
            raise ValueError("augment draws nothing: both views of a record would be the same")
        if self.fit.batch_size < 2:
            raise ValueError(f"a negative needs a batch of 2 or more, got {self.fit.batch_size}")
