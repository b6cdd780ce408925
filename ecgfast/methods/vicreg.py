"""VICReg: variance, invariance and covariance of two augmented views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.methods.views import similarity, spread
from ecgfast.train.method import Method


class VICReg(Method):
    """Two views of a record agree, while the columns of the expander vary and do not repeat.

    The encoder's embeddings are what is kept; nothing repels, so patients play no part. A missing
    sample (NaN) is 0 to the encoder; the views of a record that has nothing else are equal, so that
    it weighs in the variances and covariances alone, as one row of them. Logged are the loss, the
    spread of the embeddings, and the mean cosine of the projections of a record's two views
    (``similarity``) and of different records' (``similarity_others``).

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        projector: The expander, ``(N, D) -> (N, P)``.
        augment: Draws a view of prepared signals, anew at each call.
        loss: Of two views ``(N, P)``.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        augment: nn.Module,
        loss: VICRegLoss,
        *,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.augment = augment
        self.loss = loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        with self.clock.part("augment", ecg.device):
            views = torch.cat([self.augment(ecg), self.augment(ecg)])
        embeddings = self.embed(views)
        one, other = self.projector(embeddings).chunk(2)
        loss: Tensor = self.loss(one, other)
        self.log_dict({"loss": loss.detach(), **spread(embeddings), **similarity(one, other)})
        return loss
