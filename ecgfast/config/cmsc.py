"""CLOCS-CMSC: the halves of an ECG, and of all ECGs of its patient, attract each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Augment, Encoder, Fit, Optim, Projector, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """Contrastive multi-segment coding (CLOCS; Kiyasseh, Zhu, Clifton, ICML 2021).

    docs/baselines.md says what of it is published, and where.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        augment: What is drawn for each half; published: nothing.
        projector: What the loss sees the embeddings through; published: nothing.
        temperature: What cosines are divided by.
        positives: patient takes halves of all records of a patient in the batch for positives of
            each other; record those of one record alone, as the code of SSL-DML has it (B5).
        mask_patients: With positives of a record: records of one patient do not repel each other.
        gather: Take the other halves from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    augment: Augment = field(default_factory=Augment)
    projector: Projector = field(default_factory=lambda: Projector(layers=0))
    temperature: float = 0.1
    positives: Literal["patient", "record"] = "patient"
    mask_patients: bool = False
    gather: bool = True
    optim: Optim = field(
        default_factory=lambda: Optim(
            kind="adam", lr=1e-4, weight_decay=0.0, warmup_steps=0, schedule="constant", clip=0.0
        )
    )
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, out="runs/cmsc"))

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.mask_patients and self.positives == "patient":
            raise ValueError(
                "positives: patient has no negatives of one patient to mask; mask_patients goes "
                "with positives: record"
            )
        if self.signal.samples < 2:
            raise ValueError(f"{self.signal.seconds} s at {self.signal.fs} Hz has no two halves")
        if self.fit.batch_size < 2:
            raise ValueError(f"a negative needs a batch of 2 or more, got {self.fit.batch_size}")
