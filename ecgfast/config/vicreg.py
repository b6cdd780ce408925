"""VICReg: two augmented views of an ECG agree, in columns that vary and are not correlated."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecgfast.config import Augment, Encoder, Fit, Optim, Projector, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """VICReg (Bardes, Ponce, LeCun; ICLR 2022), with the same views of an ECG as SimCLR.

    docs/baselines.md says what of it is published, and where.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        augment: How a view is drawn.
        projector: The expander, whose columns the loss looks at.
        invariance: Weight of the squared distance of the two views.
        variance: Weight of the hinge on every column's standard deviation.
        covariance: Weight of the squared covariances of columns.
        gather: Take variances and covariances over the records of all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    augment: Augment = field(
        default_factory=lambda: Augment(crop_s=5.0, mask_count=(1, 1), mask_s=(1.0, 2.0))
    )
    projector: Projector = field(
        default_factory=lambda: Projector(dim=2048, hidden=2048, layers=3, batch_norm=True)
    )
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    gather: bool = True
    optim: Optim = field(default_factory=lambda: Optim(weight_decay=1e-6))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, out="runs/vicreg"))

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.augment.draws:
            raise ValueError("augment draws nothing: both views of a record would be the same")
        if self.fit.batch_size < 2:
            raise ValueError(f"a variance needs a batch of 2 or more, got {self.fit.batch_size}")
