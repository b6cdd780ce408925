"""Self-supervised deep metric learning."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.coordinates import CoordinateLoss
from ecgfast.losses.log_ratio import LogRatioLoss
from ecgfast.losses.mined import MinedMultiSimilarityLoss, MinedNTXentLoss
from ecgfast.losses.triplet import MarginLoss, TripletLoss
from ecgfast.miners.pools import Pool, Ring
from ecgfast.miners.rows import Ids, Negatives, Rows, may_repel
from ecgfast.miners.triplets import Triplets
from ecgfast.miners.watch import EmptyWatch
from ecgfast.train.batches import Batches
from ecgfast.train.method import Method

Loss = (
    TripletLoss
    | MarginLoss
    | MinedNTXentLoss
    | MinedMultiSimilarityLoss
    | LogRatioLoss
    | CoordinateLoss
)


class SSLDML(Method):
    """A record's neighbour attracts, records that are none repel; no label takes part.

    The prepared signals are what is mined; the encoder sees their augmented views. Where a sample
    is missing (NaN) the encoder gets 0, and the record is left out of all triplets. Logged are the
    loss, the share of rows that are ``valid``, of triplets that still pull (``active``, of the
    triplet loss), of positives that are of the anchor's own patient (``same_patient``, among those
    whose patient is known), ``embedding_std``, and the share of the time that goes into
    ``mining``. 50 steps without a valid triplet bring a warning.

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        pool: Gives each row its positive.
        negatives: Gives each row its negative; not asked where the loss takes all of them.
        loss: Of triplets, of all pairs, of all distances, or of coordinates: what the loss needs
            the pool must give.
        ids: Who the records are, ``(3, R)`` int64 as in :class:`Ids`, by their index; None knows
            no patients and no copies, and nobody but the positive is kept from repelling.
        projector: Between embeddings and loss, if there is one; it is not kept.
        augment: What the encoder sees in place of a record; None: the record.
        normalise: Bring what the loss sees to length 1.
        seed: Of the draws, where ranks mine together and must draw alike.
        optim: How the parameters move.
    """

    ids: Tensor | None

    def __init__(
        self,
        encoder: nn.Module,
        pool: Pool,
        negatives: Negatives,
        loss: Loss,
        *,
        ids: Tensor | None = None,
        projector: nn.Module | None = None,
        augment: nn.Module | None = None,
        normalise: bool = False,
        seed: int = 0,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.pool = pool
        self.negatives = negatives
        self.loss = loss
        self.projector = projector
        self.augment = augment
        self.normalise = normalise
        self.seed = seed
        self.register_buffer("ids", ids, persistent=False)
        self.empty = EmptyWatch()

    def on_train_start(self) -> None:
        """Fills the ring with the records of the steps before this one."""
        if not isinstance(self.pool, Ring):
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, Batches)
        records = self.pool.rows_of(data.batch_size) // 2
        begin = max(0, self.global_step - -(-self.pool.size // records))
        self.pool.begin(begin * records)
        for batch in data.past(begin):
            self.pool.add(batch["ecg"], self._ids(batch))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        with self.clock.part("mining", ecg.device):
            draws = self._draws(self.pool.rows_of(len(ecg))).to(ecg.device)
            rows = self.pool(ecg, self._ids(batch), draws[0])
        views = rows.ecg if self.augment is None else self.augment(rows.ecg)
        embeddings = self.embed(views)
        seen = embeddings if self.projector is None else self.projector(embeddings)
        if self.normalise:
            seen = nn.functional.normalize(seen, dim=1)
        seen = self.pool.all_rows(seen)
        if isinstance(self.loss, TripletLoss | MarginLoss):
            with self.clock.part("mining", ecg.device):
                triplets = self.negatives(rows, seen.detach(), draws[1])
            loss: Tensor = self.loss(seen, *triplets)
            valid = triplets.valid
            if isinstance(self.loss, TripletLoss):
                active = _active(seen.detach().float(), triplets, self.loss.margin)
                self.log_dict({"active": active})
        elif isinstance(self.loss, LogRatioLoss):
            if rows.distances is None:
                raise ValueError("LogRatioLoss needs a pool that gives the distances of its rows")
            another = rows.ids.record[:, None] != rows.ids.record
            valid = rows.eligible
            loss = self.loss(seen, rows.distances, valid[:, None] & valid & another)
        elif isinstance(self.loss, CoordinateLoss):
            if rows.coordinates is None:
                raise ValueError("CoordinateLoss needs a pool that gives coordinates: Landmarks")
            valid = rows.eligible
            loss = self.loss(seen, rows.coordinates, valid)
        else:
            repel = may_repel(rows)
            valid = rows.eligible & rows.found & repel.any(dim=1)
            loss = self.loss(seen, rows.positives, repel, valid)
        self.empty(valid)
        numbers = {
            "loss": loss.detach(),
            "valid": valid.float().mean(),
            "embedding_std": embeddings.detach().float().std(dim=0).mean(),
        }
        if self.ids is not None and rows.coordinates is None:
            numbers["same_patient"] = _same_patient(rows, valid)
        self.log_dict(numbers)
        return loss

    def _ids(self, batch: dict[str, Tensor]) -> Ids:
        if self.ids is not None:
            return Ids(*self.ids[:, batch["index"]].unbind())
        index = batch["index"]
        return Ids(index, index, torch.full_like(index, -1))

    def _draws(self, rows: int) -> Tensor:
        """Two numbers in [0, 1) a row; the same on all ranks if they mine together."""
        generator = None
        if self.pool.gathered:
            digest = hashlib.sha256(f"mining {self.seed} {self.global_step}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return torch.rand(2, rows, dtype=torch.float64, generator=generator)


def _active(embeddings: Tensor, triplets: Triplets, margin: float) -> Tensor:
    """Share of the valid triplets whose hinge is open."""
    anchors = embeddings[triplets.anchors]
    near = (anchors - embeddings[triplets.positives]).square().sum(dim=1)
    far = (anchors - embeddings[triplets.negatives]).square().sum(dim=1)
    pulling = triplets.valid & (near - far + margin > 0)
    return pulling.sum() / triplets.valid.sum().clamp(min=1)


def _same_patient(rows: Rows, valid: Tensor) -> Tensor:
    """Share of positives of the anchor's own patient; a record is no positive of itself here."""
    patient, record = rows.ids.patient, rows.ids.record
    known = valid & (patient >= 0) & (record != record[rows.positives])
    return (known & (patient == patient[rows.positives])).sum() / known.sum().clamp(min=1)
