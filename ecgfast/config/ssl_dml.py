"""Self-supervised deep metric learning on 12-lead ECGs (SSL-DML)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Encoder, Fit, Optim, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """SSL-DML (Jeong, Stultz, Ghassemi; MLHC 2023): triplets mined by distance in input space.

    The base numbers are the repaired method; recipe `faithful` is what the published code does.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        distance: Between records in input space. dtw warps time, exactly, for every pair of the
            batch at every step; soft_dtw does so with a soft minimum. lead_dtw is what the
            published dynamic time warping computes: it aligns the leads in their order, not the
            samples in time (B1). The others compare sample with sample.
        dtw_cost: Between samples, for dtw: the sum over the leads of differences' magnitudes, of
            their squares, or the root of that.
        soft_gamma: How soft the minimum of soft_dtw is, mV^2 (of normalised records, without unit);
            its costs are squares.
        dtw_radius: Seconds that a warping may shift a sample by; none for any number.
        mine_fs: Rate at which records are compared, Hz; none is that of the signal. The encoder
            sees them as they are.
        positive: nearest, or one of the two farthest, as the published on-the-fly mode has it (B2).
        negative: One of the k farthest, or any other record.
        neg_topk: k.
        margin: Of the hinge, on squared distances of embeddings that are not normalised.
        order: shuffled draws new batches every epoch; fixed repeats the same ones.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    distance: Literal[
        "dtw", "soft_dtw", "mean_l1", "l1", "sqeuclidean", "euclidean", "cosine", "lead_dtw"
    ] = "dtw"
    dtw_cost: Literal["l1", "sqeuclidean", "euclidean"] = "l1"
    soft_gamma: float = 0.1
    dtw_radius: float | None = 0.5
    mine_fs: float | None = None
    positive: Literal["nearest", "two_farthest"] = "nearest"
    negative: Literal["farthest", "random"] = "random"
    neg_topk: int = 2
    margin: float = 0.2
    order: Literal["shuffled", "fixed"] = "shuffled"
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-4))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, batch_size=64, out="runs/ssl-dml"))

    def __post_init__(self) -> None:
        if self.dtw_radius is not None and not self.dtw_radius >= 0:
            raise ValueError(f"dtw_radius must be at least 0 seconds, got {self.dtw_radius}")
        if not self.soft_gamma > 0:
            raise ValueError(f"soft_gamma must be positive, got {self.soft_gamma}")
        if self.mine_fs is not None and not self.mine_fs > 0:
            raise ValueError(f"mine_fs must be positive, got {self.mine_fs}")
        if self.neg_topk < 1:
            raise ValueError(f"neg_topk must be at least 1, got {self.neg_topk}")
        if self.margin <= 0:
            raise ValueError(f"margin must be positive, got {self.margin}")
        if self.fit.batch_size < 3:
            raise ValueError(f"a triplet needs a batch of 3 or more, got {self.fit.batch_size}")
