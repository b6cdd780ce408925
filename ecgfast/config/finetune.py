"""Fine-tuning: from an encoder to a label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Augment, Encoder, Fit, Labelled, Optim, Signal
from ecgfast.config.clips import ClipViews
from ecgfast.config.pages import PageViews

MOST_INTERVALS = 1000  # of a discrete hazard


@dataclass(frozen=True, kw_only=True)
class Config(Labelled):
    """A head on an encoder: a value, a class at a threshold, one of several classes, or a hazard.

    Attributes:
        event: Of survival: column that is 1 where the label is the time of the event, and 0 where
            the record was censored then.
        hazard: Of survival: cox is proportional hazards, by the partial likelihood of each batch;
            discrete is a hazard of its own in each of so many intervals of time.
        intervals: Of discrete: how many at most, with as many training events in each.
        ties: Of cox: rule for events at one time.
        signal: The signal contract; with init, the encoder's own holds and a different one is
            refused.
        freeze: Train the head alone (linear probe).
        freeze_steps: Train the head alone for the first so many steps, then all.
        freeze_norms: Leave the encoder's batch norms as the pretraining left them.
        loss: Of a regression, on errors in units of the training labels' standard deviation (of the
            label, without zscore): their mean square; the Huber loss, which bends at 1; or the root
            of the mean square of a batch.
        head_lr: Learning rate of the head; none is that of optim.
        encoder_lr: Learning rate of the encoder, of its last stage with a layer_decay; none is that
            of optim. All rates follow the schedule of optim.
        layer_decay: Factor of the learning rate from each stage of the encoder to the one below
            it; 1 moves all alike.
        reconstruction: Weight of the squared error of the signal that a new decoder draws from the
            embedding, beside the loss of the label; of dual_attention alone. Published for time to
            heart failure: 1.
        augment: What training sees in place of a record; validation and test see the record.
        draw: Of a network for pages: alike draws training records as it draws all; anew as views
            say, and validation and test as it draws all. Of records that are pages already anew
            draws the faults of a scan alone. Of clips anew draws as clip_views say; which frames
            of a video a clip has is drawn either way.
        views: How a training record is drawn anew.
        clip_views: How a training clip is.
        encoder: The network; with init all but its dropout is that of the pretraining.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    event: str = ""
    hazard: Literal["cox", "discrete"] = "cox"
    intervals: int = 20
    ties: Literal["efron", "breslow"] = "efron"
    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    freeze: bool = False
    freeze_steps: int = 0
    freeze_norms: bool = False
    loss: Literal["mse", "huber", "rmse"] = "mse"
    head_lr: float | None = None
    encoder_lr: float | None = None
    layer_decay: float = 1.0
    reconstruction: float = 0.0
    augment: Augment = field(default_factory=Augment)
    draw: Literal["alike", "anew"] = "alike"
    views: PageViews = field(default_factory=PageViews)
    clip_views: ClipViews = field(default_factory=ClipViews)
    encoder: Encoder = field(default_factory=Encoder)
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-4, weight_decay=0.0))
    fit: Fit = field(default_factory=lambda: Fit(steps=2_000, batch_size=64, out="runs/finetune"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_survival()
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        for name in ("head_lr", "encoder_lr"):
            rate = getattr(self, name)
            if rate is not None and rate <= 0:
                raise ValueError(f"{name} must be positive, got {rate}")
        if not 0 <= self.reconstruction < float("inf"):
            raise ValueError(f"reconstruction must be 0 or more, got {self.reconstruction}")
        if self.freeze and self.reconstruction:
            raise ValueError("reconstruction moves the encoder, which freeze holds still")
        if self.freeze and self.layer_decay != 1:
            raise ValueError("layer_decay moves the encoder, which freeze holds still")
        if self.freeze and (self.freeze_steps or self.encoder_lr is not None):
            raise ValueError(
                "freeze_steps and encoder_lr are for an encoder that moves later; freeze holds it "
                "still: leave one of them out"
            )
        if not 0 <= self.freeze_steps < self.fit.steps:
            raise ValueError(
                f"freeze_steps must lie in [0, fit.steps = {self.fit.steps}), got "
                f"{self.freeze_steps}: --freeze true holds the encoder still to the end"
            )

    def _check_survival(self) -> None:
        if self.task != "survival":
            strange = [
                n for n in ("event", "hazard", "ties") if getattr(self, n) != getattr(Config, n)
            ]
            if strange:
                raise ValueError(f"{strange[0]} belongs to task=survival, got task={self.task}")
            return
        if not self.event:
            raise ValueError(
                f"task=survival needs to know of which records {self.label} is the time of the "
                "event: name the column of 0 and 1 with --event"
            )
        if self.event == self.label:
            raise ValueError(f"label is the time and event another column, got {self.label} twice")
        if self.dropout_at_test:
            raise ValueError("dropout_at_test is of the published mPCWP head, not of survival")
        if not 2 <= self.intervals <= MOST_INTERVALS:
            raise ValueError(f"intervals must lie in [2, {MOST_INTERVALS}], got {self.intervals}")
