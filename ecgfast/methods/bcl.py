"""BCL: biometric contrastive learning on pages."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.contrastive import NTXentLoss
from ecgfast.methods.views import similarity, spread, view_labels
from ecgfast.train.method import Method


class BCL(Method):
    """Two pages of a patient attract each other, and repel those of all other patients.

    With ``pair="patient"`` the first half of a batch are anchors, the second half their partners,
    other records of the same patients, and each is drawn once. With ``pair="record"`` each record
    is drawn twice, and records repel each other whoever they are of: SimCLR on pages. Layout, look
    and faults of a page are its own.

    The loss sees projections; the encoder's embeddings are what is kept. A missing sample is a gap
    on the page; a record that has nothing else makes its pair no positive one. Logged are the loss,
    the spread of the embeddings, and the mean cosine of the projections of a pair (``similarity``)
    and of different pairs (``similarity_others``).

    Args:
        encoder: ``(N, C, H, W) -> (N, D)``, of pages.
        projector: ``(N, D) -> (N, P)``.
        views: Draws pages of prepared signals, ``(N, L, T) -> (N, C, H, W)``, anew at each call.
        pair: See above.
        temperature: Of the loss.
        gather: Negatives are the records of all ranks.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        views: nn.Module,
        *,
        pair: Literal["patient", "record"],
        temperature: float,
        gather: bool,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.views = views
        self.pair = pair
        self.loss = NTXentLoss(temperature, gather=gather)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of N / 2 pairs, or of N."""
        ecg, twice = batch["ecg"], self.pair == "record"
        with self.clock.part("draw", ecg.device):
            pages = self.views(torch.cat([ecg, ecg]) if twice else ecg)
        embeddings = self.embed(pages)
        projections = self.projector(embeddings)
        own = batch["index"] if twice else batch["patient"]
        firsts, seconds = view_labels(own, batch["index"], ecg)
        if not twice:
            pairs = len(ecg) // 2
            firsts, seconds = firsts[:pairs], seconds[pairs:]
        loss: Tensor = self.loss(projections, torch.cat([firsts, seconds]))
        self.log_dict(
            {"loss": loss.detach(), **spread(embeddings), **similarity(*projections.chunk(2))}
        )
        return loss
