"""PCLR: patient contrastive learning of representations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.contrastive import NTXentLoss
from ecgfast.methods.views import similarity, spread, view_labels
from ecgfast.train.method import Method


class PCLR(Method):
    """Two records of a patient attract each other, and repel those of all other patients.

    The first half of a batch are anchors, the second half their partners, one pair a patient. The
    loss sees projections; the encoder's embeddings are what is kept. A missing sample (NaN) is 0 to
    the encoder; a record that has nothing else makes its pair no positive one, and is a flat line
    to the others. Logged are the loss, the spread of the embeddings, and the mean cosine of the
    projections of a patient's two records (``similarity``) and of different patients'
    (``similarity_others``).

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        projector: ``(N, D) -> (N, P)``.
        augment: Draws a view of prepared signals, anew for each record of a batch.
        temperature: Of the loss.
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
        gather: bool,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.augment = augment
        self.loss = NTXentLoss(temperature, gather=gather)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of N / 2 pairs."""
        ecg = batch["ecg"]
        with self.clock.part("augment", ecg.device):
            views = self.augment(ecg)
        embeddings = self.embed(views)
        projections = self.projector(embeddings)
        anchors, partners = view_labels(batch["patient"], batch["index"], ecg)
        pairs = len(ecg) // 2
        labels = torch.cat([anchors[:pairs], partners[pairs:]])
        loss: Tensor = self.loss(projections, labels)
        self.log_dict(
            {"loss": loss.detach(), **spread(embeddings), **similarity(*projections.chunk(2))}
        )
        return loss
