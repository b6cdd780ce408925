"""Fine-tuning: from an encoder to a label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Encoder, Fit, Optim, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """A head on an encoder: regression of a value, or classification at a threshold.

    Attributes:
        init: Folder of a pretrained encoder; empty starts from random weights.
        signal: The signal contract; with init, the encoder's own holds and a different one is
            refused.
        data: Where records come from; its splits are the ones to train on.
        validation: Part that chooses the weights to keep; empty needs keep=last.
        label: Column of the manifest.
        task: regression of the label, or classification.
        threshold: The positive class is label > threshold, strictly; none means that the label
            itself is 0 or 1.
        freeze: Train the head alone (linear probe).
        hidden: Width of the head's hidden layer; 0 is a linear head.
        head_dropout: Before the last layer.
        fraction: Share of the training patients whose labels are used; smaller shares are nested
            in larger ones.
        encoder: The network; with init all but its dropout is that of the pretraining.
        validate_every: Steps between two looks at the validation part; 0 takes an epoch, or a
            fiftieth of the run if that is more.
        keep: Weights that are kept: the best on the validation part, or the last (B8).
        dropout_at_test: Leaves the head's dropout on at test, as the published code does (B7).
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    init: str = ""
    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=Store)
    validation: str = "val"
    label: str = "mpcwp"
    task: Literal["regression", "classification"] = "regression"
    threshold: float | None = None
    freeze: bool = False
    hidden: int = 128
    head_dropout: float = 0.3
    fraction: float = 1.0
    encoder: Encoder = field(default_factory=Encoder)
    validate_every: int = 0
    keep: Literal["best", "last"] = "best"
    dropout_at_test: bool = False
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-4, weight_decay=0.0))
    fit: Fit = field(default_factory=lambda: Fit(steps=2_000, batch_size=64, out="runs/finetune"))

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")
        if not self.validation and self.keep == "best":
            raise ValueError("keep=best needs a validation part; name one, or take keep=last")
        if self.task == "regression" and self.threshold is not None:
            raise ValueError("threshold belongs to task=classification")
