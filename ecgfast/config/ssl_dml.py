"""Self-supervised deep metric learning on 12-lead ECGs (SSL-DML)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Augment, Encoder, Fit, Optim, Signal, Store
from ecgfast.config.neighbours import Comparison

PAIRED = ("patient", "both")  # positives that are dealt with the batch, whatever the pool


@dataclass(frozen=True, kw_only=True)
class Config(Comparison):
    """SSL-DML (Jeong, Stultz, Ghassemi; MLHC 2023): triplets mined by distance in input space.

    The base numbers are the repaired method; recipe `faithful` is what the published code does.

    Attributes:
        signal: The signal contract.
        data: Where records come from.
        encoder: The network.
        distance: Between records in input space. dtw warps time, exactly, for every pair of the
            batch at every step; soft_dtw does so with a soft minimum. lead_dtw is what the
            published dynamic time warping computes: it aligns the leads in their order, not the
            samples in time (B1). embedding is the Euclidean distance of the embeddings that an
            earlier run gives. The others compare sample with sample.
        dtw_cost: Between samples, for dtw: the sum over the leads of differences' magnitudes, of
            their squares, or the root of that.
        soft_gamma: How soft the minimum of soft_dtw is, mV^2 (of normalised records, without unit);
            its costs are squares.
        dtw_radius: Seconds that a warping may shift a sample by; none for any number.
        mine_of: What of a record is compared: all of it, or its median beat (beat), all leads
            aligned on R: a fiftieth of the cells, blind to rhythm. dtw_radius 0.03 suits beats.
        mine_zscore: Bring every lead of what is compared to mean 0 and variance 1 first: its shape
            then counts, not its voltage.
        beat_memory: MB of median beats, or of coordinates by landmarks, that are kept on the
            device, so that each record's are found once and not in every epoch; 0 keeps none.
        mine_fs: Rate at which records are compared, Hz; none is that of the signal. The encoder
            sees them as they are.
        stage: Folder of the finished run whose encoder gives the embeddings, for distance
            embedding; it must expect the same signal.
        positive: nearest; knn, one of the k_positives nearest; patient, another record of the same
            patient; both, the patient's where there is one (see patient_share), else one of the
            k_positives nearest; or two_farthest, as the published on-the-fly mode has it (B2).
        k_positives: Of how many nearest.
        patient_share: Where a record has both, how often the positive is the patient's.
        pool: Where neighbours are looked for. batch; ring, the batch and the last ring_size
            records; graph, all records, as `ecgfast neighbours` has found them.
        ring_size: Records of past steps that lie on the device.
        graph: Folder that `ecgfast neighbours` wrote.
        negative: Any other record; one of the neg_topk farthest; or distance_weighted, drawn so
            that all distances of embeddings are about as frequent. Losses of all pairs take all.
        neg_topk: Of how many farthest.
        hub_correction: Before the farthest are looked for: none, csls or mutual_proximity.
        hub_nearest: Correct before the nearest are looked for, too.
        hub_k: Neighbours that csls takes a mean of.
        groups: Whose records are never negatives of each other: patient, with copies of records;
            or none, as published.
        loss: triplet, the hinge as published; margin, with a boundary of distances; nt_xent and
            multi_similarity set each positive against all negatives. Two take no positives and
            negatives: log_ratio, embeddings keep the ratios of all distances of the batch; and
            landmarks, of an embedding a linear layer reads where the record stands in input space,
            by its distances from fixed records.
        landmarks: How many fixed records, of landmarks; as many others give its scale.
        landmark_dims: Coordinates that their distances are made into.
        normalise: Bring what the loss sees to length 1; nt_xent and multi_similarity always do.
        margin: Of triplet, on squared distances, and of margin, on distances.
        beta: The boundary of margin.
        temperature: Of nt_xent.
        projection_dim: Size of a projection between embedding and loss; 0 has none.
        augment: What the encoder sees in place of a record; records are mined as they are.
        mine_over: rank mines each process's records alone, all mines those of all together.
        collapse_below: Stop when the spread of the embeddings stays below it, in [0, 1] and without
            scale, or when all of them stay on a line; 0 never stops.
        collapse_patience: So many steps below are a collapse.
        order: shuffled draws new batches every epoch; fixed repeats the same ones.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=Encoder)
    positive: Literal["nearest", "knn", "patient", "both", "two_farthest"] = "nearest"
    k_positives: int = 5
    patient_share: float = 0.5
    pool: Literal["batch", "ring", "graph"] = "batch"
    ring_size: int = 1024
    beat_memory: int = 1024
    graph: str = ""
    negative: Literal["random", "farthest", "distance_weighted"] = "random"
    neg_topk: int = 2
    hub_correction: Literal["none", "csls", "mutual_proximity"] = "none"
    hub_nearest: bool = False
    hub_k: int = 10
    groups: Literal["patient", "none"] = "patient"
    loss: Literal["triplet", "margin", "nt_xent", "multi_similarity", "log_ratio", "landmarks"] = (
        "triplet"
    )
    landmarks: int = 600
    landmark_dims: int = 32
    normalise: bool = False
    margin: float = 0.2
    beta: float = 1.2
    temperature: float = 0.1
    projection_dim: int = 0
    augment: Augment = field(default_factory=Augment)
    mine_over: Literal["rank", "all"] = "rank"
    collapse_below: float = 1e-4
    collapse_patience: int = 500
    order: Literal["shuffled", "fixed"] = "shuffled"
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-4))
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, batch_size=64, out="runs/ssl-dml"))

    @property
    def dealt(self) -> bool:
        """Whether positives come with the batch."""
        return self.pool == "graph" or self.positive in PAIRED

    @property
    def anchors(self) -> int:
        """How many of the records that a step encodes are anchors, of each process."""
        halves = self.dealt or self.pool == "ring"
        return self.fit.batch_size // 2 if halves else self.fit.batch_size

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("neg_topk", "k_positives", "hub_k", "ring_size", "collapse_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("margin", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("projection_dim", "collapse_below", "beat_memory"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.landmark_dims <= self.landmarks - 2:
            raise ValueError(
                f"landmark_dims must be 1 or more, and landmarks at least 2 more, got "
                f"{self.landmark_dims} and {self.landmarks}"
            )
        if self.loss == "landmarks" and (self.pool, self.positive) != ("batch", "nearest"):
            raise ValueError(
                "loss landmarks looks for no positives: leave pool and positive out, got pool "
                f"{self.pool} and positive {self.positive}"
            )
        if self.loss == "landmarks" and (self.projection_dim or self.normalise):
            raise ValueError(
                "loss landmarks has its own linear layer: leave projection_dim and normalise out"
            )
        if not 0 <= self.patient_share <= 1:
            raise ValueError(f"patient_share must lie in [0, 1], got {self.patient_share}")
        if self.fit.batch_size < 3:
            raise ValueError(f"a triplet needs a batch of 3 or more, got {self.fit.batch_size}")
        if self.anchors < self.fit.batch_size and (self.fit.batch_size % 2 or self.anchors < 2):
            raise ValueError(
                "half of a batch are anchors, half their positives: fit.batch_size must be even "
                f"and 4 or more, got {self.fit.batch_size}"
            )
        if (self.pool == "graph") != bool(self.graph):
            raise ValueError(
                "pool graph and graph DIR go together: make one by `ecgfast neighbours STORE --out "
                f"DIR`; got pool {self.pool} and graph {self.graph or 'none'}"
            )
        if self.positive == "both" and self.pool != "graph":
            raise ValueError(f"positive both needs pool graph, got pool {self.pool}")
        if self.positive == "patient" and self.pool != "batch":
            raise ValueError(f"positive patient looks in no pool: leave pool {self.pool} out")
        if self.positive == "two_farthest" and self.pool != "batch":
            raise ValueError(f"positive two_farthest needs pool batch, got pool {self.pool}")
        if self.pool == "ring" and self.ring_size < self.anchors:
            raise ValueError(
                f"ring_size must hold the {self.anchors} records of a step, got {self.ring_size}"
            )
        if self.dealt and self.order != "shuffled":
            raise ValueError("order fixed is for positives that are looked for in the batch")
        if self.hub_nearest and self.hub_correction == "none":
            raise ValueError("hub_nearest needs hub_correction csls or mutual_proximity")
        if self.hub_nearest and self.dealt:
            raise ValueError("hub_nearest is for positives that are looked for in batch or ring")
