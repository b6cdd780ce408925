"""Supervised deep metric learning: a metric from labels, and a head beside it (sup-DML)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Encoder, Fit, Labelled, Optim, Signal


@dataclass(frozen=True, kw_only=True)
class Config(Labelled):
    """Supervised DML (Jeong, Stultz, Ghassemi; MLHC 2023): alpha times metric loss, plus task loss.

    The base numbers are the repaired method; recipe `faithful` is what the published code does.

    Attributes:
        signal: The signal contract; with init, the encoder's own holds and a different one is
            refused.
        encoder: The network; with init all but its dropout is that of the pretraining.
        alpha: Weight of the metric loss; 0 leaves the task alone.
        task_weight: Weight of the task loss; 0 leaves the metric alone, and no head. The weights
            that are kept are then those whose nearest neighbours tell the label best.
        mining: Of triplets. For classes any positive and any negative (npair, the default),
            semihard or softhard; for a value the nearest and the farthest label (label).
        metric: Loss on the embeddings. margin and triplet take triplets; angular takes the
            positives of these and all negatives; multi_similarity takes all pairs. The last two
            are for classes.
        margin: Of margin and triplet, and of semihard mining.
        beta: Of margin: the distance that positives and negatives should be parted by.
        learn_beta: Makes it a parameter, one a class.
        nu: Weight of a learned beta in the loss.
        normalise: Compare embeddings of length 1; published without. multi_similarity always does.
        loss: Of a regression: root mean square of a batch, mean square, or Huber's.
        unit: Its errors are in standard deviations of the training labels, or in the label's unit,
            as published.
        train_head: Gives the head to the optimiser, which the published code forgets (B6).
        balance: For classes: batches with as many records of each, of the rarer ones again and
            again (the published sampler is built and not used, B6).
        collapse_below: Stop when the spread of the embeddings stays below it; 0 never does.
        collapse_patience: So many steps below are a collapse.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    encoder: Encoder = field(default_factory=Encoder)
    alpha: float = 1.0
    task_weight: float = 1.0
    mining: Literal["auto", "npair", "semihard", "softhard", "label"] = "auto"
    metric: Literal["margin", "triplet", "angular", "multi_similarity"] = "margin"
    margin: float = 0.2
    beta: float = 1.2
    learn_beta: bool = False
    nu: float = 0.0
    normalise: bool = False
    loss: Literal["rmse", "mse", "huber"] = "rmse"
    unit: Literal["sd", "label"] = "sd"
    train_head: bool = True
    balance: bool = True
    collapse_below: float = 1e-4
    collapse_patience: int = 500
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-4))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, batch_size=64, out="runs/sup-dml"))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "task_weight", "margin", "nu", "collapse_below"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if self.alpha == self.task_weight == 0:
            raise ValueError("alpha and task_weight are both 0: there is nothing to learn")
        if self.task == "survival":
            raise ValueError("task=survival is for finetune: a time that is cut off is no metric")
        value = self.task == "regression"
        if value and self.mining not in ("auto", "label"):
            raise ValueError(f"mining={self.mining} is for classes; a regression takes label")
        if not value and self.mining == "label":
            raise ValueError("mining=label is for a regression; classes take npair, say")
        if value and self.metric in ("angular", "multi_similarity"):
            raise ValueError(
                f"metric={self.metric} is for classes; a regression takes margin or triplet"
            )
        if self.learn_beta and (self.metric != "margin" or self.alpha == 0):
            raise ValueError("learn_beta belongs to metric=margin with an alpha over 0")
        if self.nu and not self.learn_beta:
            raise ValueError("nu is the price of a learned beta: add learn_beta=true")
        if self.collapse_patience < 1:
            raise ValueError(f"collapse_patience must be 1 or more, got {self.collapse_patience}")
        if self.fit.batch_size < 3:
            raise ValueError(f"a triplet needs a batch of 3 or more, got {self.fit.batch_size}")
