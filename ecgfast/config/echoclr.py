"""EchoCLR: videos of one study attract, and the network puts their frames in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Fit, Optim, Projector, Store
from ecgfast.config.clips import ClipNet, ClipViews


@dataclass(frozen=True, kw_only=True)
class Config:
    """Contrastive learning and frame order on echocardiograms (Holste et al., Commun Med 2024).

    docs/echo.md says what of it is published, and what is repaired.

    Attributes:
        data: Where videos come from.
        encoder: The network, and what a clip is.
        views: How a clip is moved while it trains.
        pair: study pairs two videos of a study, and the video of a study that has one with itself;
            video pairs each video with itself, which is SimCLR; both pairs any two videos of a
            study, a video with itself among them.
        moment: Of a video that is paired with itself: apart draws a clip for each view, same shows
            both views the same frames, otherwise moved.
        deal: studies takes one pair a study a batch, drawn anew; pairs takes every unordered pair
            of an epoch once, as published: a study of n videos has n (n - 1) / 2.
        mask: Clips of other pairs in the batch that do not repel each other: those of the same
            patient, those of the same study, or none, as published.
        order: Weight of the loss of the frames' order; 0 leaves frames in their order.
        projector: What the contrastive loss sees the embeddings through; its last layer has no
            bias.
        temperature: What cosines are divided by.
        gather: Take negatives from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to. A batch is half as many pairs, two clips of each.
    """

    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: ClipNet = field(default_factory=lambda: ClipNet(step=2, motion=True))
    views: ClipViews = field(default_factory=ClipViews)
    pair: Literal["study", "video", "both"] = "study"
    moment: Literal["apart", "same"] = "apart"
    deal: Literal["studies", "pairs"] = "studies"
    mask: Literal["none", "study", "patient"] = "patient"
    order: float = 1.0
    projector: Projector = field(default_factory=lambda: Projector(dim=128, hidden=256))
    temperature: float = 0.05
    gather: bool = True
    optim: Optim = field(default_factory=Optim)
    fit: Fit = field(default_factory=lambda: Fit(steps=20_000, out="runs/echoclr"))

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.order < float("inf"):
            raise ValueError(f"order must be 0 or more, and finite, got {self.order}")
        if self.encoder.net == "none":
            raise ValueError("encoder.net must be a network for clips, got none")
        if self.order and not 2 <= self.encoder.frames <= 6:
            raise ValueError(
                f"clips of {self.encoder.frames} frames cannot be put in order, 2 to 6 can: change "
                "--encoder.frames, or --order 0"
            )
        if self.fit.batch_size < 4 or self.fit.batch_size % 2:
            raise ValueError(
                "fit.batch_size counts clips, two of each pair: it must be even and 4 or more, got "
                f"{self.fit.batch_size}"
            )
        self._check_views()

    def _check_views(self) -> None:
        still = not (self.views.pad or self.views.flip or self.views.rotate)
        if still and not self.order and self.moment == "same" and self.pair != "study":
            raise ValueError(
                "views draw nothing and both show the same frames: they would be the same; add "
                "--moment apart"
            )
