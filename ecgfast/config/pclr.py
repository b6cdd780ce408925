"""PCLR: two ECGs of one patient attract, those of all other patients repel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Augment, Encoder, Fit, Optim, Projector, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """Patient contrastive learning of representations (Diamant et al., PLOS Comput Biol 2022).

    docs/baselines.md says what of it is published, and where.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        augment: What is drawn for each record; published: nothing.
        projector: What the loss sees the embeddings through.
        temperature: What cosines are divided by.
        lone: What becomes of patients with one record: drop leaves them out, as published; augment
            pairs the record with itself, both augmented.
        gather: Take negatives from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to. A batch is half as many patients, two records of each.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    augment: Augment = field(default_factory=Augment)
    projector: Projector = field(default_factory=Projector)
    temperature: float = 0.1
    lone: Literal["drop", "augment"] = "drop"
    gather: bool = True
    optim: Optim = field(default_factory=lambda: Optim(weight_decay=0.0))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, out="runs/pclr"))

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.lone == "augment" and not self.augment.draws:
            raise ValueError(
                "lone: augment pairs a record with itself, but augment draws nothing: set "
                "augment.crop_s, augment.mask_count or augment.noise_mv, say"
            )
        if self.fit.batch_size < 4 or self.fit.batch_size % 2:
            raise ValueError(
                "fit.batch_size counts records, two of each patient: it must be even and 4 or "
                f"more, got {self.fit.batch_size}"
            )
