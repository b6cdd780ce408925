"""A graph of every record's neighbours in input space, made once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Signal


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two records are compared in input space.

    Attributes:
        distance: dtw warps time, exactly; soft_dtw does so with a soft minimum. lead_dtw is what
            the published dynamic time warping computes: it aligns the leads in their order, not
            the samples in time (B1). embedding is the Euclidean distance of the embeddings that
            another run gives. The others compare sample with sample.
        dtw_cost: Between samples, for dtw: the sum over the leads of differences' magnitudes, of
            their squares, or the root of that.
        soft_gamma: How soft the minimum of soft_dtw is, mV^2 (of normalised records, without unit);
            its costs are squares.
        dtw_radius: Seconds that a warping may shift a sample by; none for any number.
        mine_of: What of a record is compared: all of it, or its median beat (beat), all leads
            aligned on R: a fiftieth of the cells, blind to rhythm. dtw_radius 0.03 suits beats.
        mine_zscore: Bring every lead of what is compared to mean 0 and variance 1 first: its shape
            then counts, not its voltage.
        mine_fs: Rate at which records are compared, Hz; none is that of the signal. The encoder
            sees them as they are.
        stage: Folder of the finished run whose encoder gives the embeddings, for distance
            embedding; it must expect the same signal.
    """

    distance: Literal[
        "dtw",
        "soft_dtw",
        "mean_l1",
        "l1",
        "sqeuclidean",
        "euclidean",
        "cosine",
        "lead_dtw",
        "embedding",
    ] = "dtw"
    dtw_cost: Literal["l1", "sqeuclidean", "euclidean"] = "l1"
    soft_gamma: float = 0.1
    dtw_radius: float | None = 0.5
    mine_of: Literal["record", "beat"] = "record"
    mine_zscore: bool = False
    mine_fs: float | None = None
    stage: str = ""

    def __post_init__(self) -> None:
        if self.dtw_radius is not None and not self.dtw_radius >= 0:
            raise ValueError(f"dtw_radius must be at least 0 seconds, got {self.dtw_radius}")
        if not self.soft_gamma > 0:
            raise ValueError(f"soft_gamma must be positive, got {self.soft_gamma}")
        if self.mine_fs is not None and not self.mine_fs > 0:
            raise ValueError(f"mine_fs must be positive, got {self.mine_fs}")
        if (self.distance == "embedding") != bool(self.stage):
            raise ValueError(
                "distance embedding and stage RUN go together: the run gives the embeddings; got "
                f"distance {self.distance} and stage {self.stage or 'none'}"
            )
        if self.stage and self.mine_of == "beat":
            raise ValueError("distance embedding is of whole records: leave mine_of beat out")
        if self.stage and self.mine_zscore:
            raise ValueError("distance embedding is not of signals: leave mine_zscore out")


@dataclass(frozen=True, kw_only=True)
class Config(Comparison):
    """Every record's nearest and farthest records, found once: `ecgfast neighbours`.

    Attributes:
        signal: The signal contract under which records are compared.
        distance: dtw warps time, exactly; soft_dtw does so with a soft minimum. lead_dtw is what
            the published dynamic time warping computes: it aligns the leads in their order, not
            the samples in time (B1). embedding is the Euclidean distance of the embeddings that
            another run gives. The others compare sample with sample.
        dtw_cost: Between samples, for dtw: the sum over the leads of differences' magnitudes, of
            their squares, or the root of that.
        soft_gamma: How soft the minimum of soft_dtw is, mV^2 (of normalised records, without unit);
            its costs are squares.
        dtw_radius: Seconds that a warping may shift a sample by; none for any number.
        mine_of: What of a record is compared: all of it, or its median beat (beat), all leads
            aligned on R: a fiftieth of the cells, blind to rhythm. dtw_radius 0.03 suits beats.
        mine_zscore: Bring every lead of what is compared to mean 0 and variance 1 first: its shape
            then counts, not its voltage.
        mine_fs: Rate at which records are compared, Hz; none is that of the signal.
        stage: Folder of the finished run whose encoder gives the embeddings, for distance
            embedding; it must expect the same signal.
        splits: Which parts of the stores; `all` takes every record that is not in a test part.
        patients: Patients of the SYNTHETIC cohort; used when no store is named.
        limit: Use the first so many records; 0 uses all.
        k: Nearest records that are kept.
        k_far: Farthest records that are kept.
        min_distance: Pairs that are nearer are not kept: they are copies. Records with equal
            samples never are.
        block: Records that are compared with as many at a time.
        label: A numeric column, to say how alike the labels of neighbours are; empty is none.
        threshold: Of the label: how many neighbours lie on the same side of it.
        device: As torch names it; auto takes a GPU if there is one.
        save_every: Seconds between two states on the disk; a run that was killed goes on from the
            last.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    mine_fs: float | None = 50.0
    splits: tuple[str, ...] = ("all",)
    patients: int = 400
    limit: int = 0
    k: int = 15
    k_far: int = 5
    min_distance: float = 0.0
    block: int = 256
    label: str = ""
    threshold: float = 18.0
    device: str = "auto"
    save_every: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "k_far", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("patients", "limit", "min_distance", "save_every"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
