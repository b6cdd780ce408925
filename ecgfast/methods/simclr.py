"""SimCLR: contrastive learning from two augmented views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.contrastive import NTXentLoss
from ecgfast.methods.views import similarity, spread, view_labels
from ecgfast.train.method import Method


class SimCLR(Method):
    """Two views of a record attract each other, and repel both views of all other records.

    The loss sees projections; the encoder's embeddings are what is kept. A missing sample (NaN) is
    0 to the encoder; a record that has nothing else has no positive pair and is a flat line to the
    others. Logged are the loss, the spread of the embeddings, and the mean cosine of the
    projections of a record's two views (``similarity``) and of different records'
    (``similarity_others``).

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        projector: ``(N, D) -> (N, P)``.
        augment: Draws a view of prepared signals, anew at each call.
        temperature: Of the loss.
        mask_patients: Records of one patient are not negatives of each other.
        gather: Negatives are the records of all ranks.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        augment: nn.Module,
        *,
        temperature: float,
        mask_patients: bool,
        gather: bool,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.augment = augment
        self.mask_patients = mask_patients
        self.loss = NTXentLoss(temperature, gather=gather)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        with self.clock.part("augment", ecg.device):
            views = torch.cat([self.augment(ecg), self.augment(ecg)])
        embeddings = self.embed(views)
        projections = self.projector(embeddings)
        labels = torch.cat(view_labels(batch["index"], batch["index"], ecg))
        patients = batch["patient"].repeat(2) if self.mask_patients else None
        loss: Tensor = self.loss(projections, labels, groups=patients)
        self.log_dict(
            {"loss": loss.detach(), **spread(embeddings), **similarity(*projections.chunk(2))}
        )
        return loss
