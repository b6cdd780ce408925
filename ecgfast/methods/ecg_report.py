"""ECG and report: alignment of ECGs with what is written of them, and reconstruction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.alignment import AlignmentLoss, reconstruction_loss
from ecgfast.methods.views import blank, similarity, spread
from ecgfast.train.method import Method
from ecgfast.train.watch import spread_of


class ECGReport(Method):
    """An ECG attracts its text's embedding; a decoder draws the ECG from its own.

    The encoder sees a subset of the leads; what is to be drawn is the whole prepared record. The
    alignment leaves records out of which nothing is written, and records without a single sample,
    which are not drawn either; other missing samples are 0 to the encoder and are not drawn.

    Logged are the loss and its parts as they are before they are weighted (``reconstruction``,
    ``alignment``, ``guard``), the spread of the embeddings, ``projection_spread`` (0: the ECGs'
    projections have collapsed to one direction), the mean cosine of an ECG and its text
    (``similarity``) and of an ECG and another's (``similarity_others``), ``recall_at_1``, how often
    the nearest text of this rank's batch is an ECG's own or the same, and the temperature.

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        projectors: ``ecg`` ``(N, D) -> (N, P)`` and ``text`` ``(N, E) -> (N, P)``; none is
            reconstruction alone.
        decoder: ``(N, D) -> (N, L, T)``; none draws nothing.
        augment: From a prepared signal to what the encoder sees, drawn at each call.
        loss: Of projections; with the projectors.
        same_text: Whether records of the same text are positives of each other or negatives.
        mask_patients: Records of one patient are not negatives of each other.
        reconstruction: Weight of the squared error.
        vicreg: Weight of the guard.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projectors: dict[str, nn.Module] | None,
        decoder: nn.Module | None,
        augment: nn.Module,
        loss: AlignmentLoss | None,
        *,
        same_text: Literal["positive", "negative"],
        mask_patients: bool,
        reconstruction: float,
        vicreg: float,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projectors = nn.ModuleDict(projectors or {})
        self.decoder = decoder
        self.augment = augment
        self.loss = loss
        self.same_text = same_text
        self.mask_patients = mask_patients
        self.reconstruction = reconstruction
        self.vicreg = vicreg

    def kept(self) -> dict[str, nn.Module]:
        """The encoder and both projectors."""
        return super().kept() | {f"{name}_projector": p for name, p in self.projectors.items()}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` and ``text`` ``(N, E)``.

        ``text_id`` ``(N,)`` is the same for the same text, and -1 where there is none.
        """
        ecg = batch["ecg"]
        with self.clock.part("augment", ecg.device):
            seen = self.augment(ecg)
        embeddings = self.embed(seen)
        told = spread(embeddings)
        total = embeddings.new_zeros(())
        if self.decoder is not None:
            error = reconstruction_loss(self.decoder(embeddings), ecg)
            total = total + self.reconstruction * error
            told["reconstruction"] = error.detach()
        if self.loss is not None:
            valid = (batch["text_id"] >= 0) & ~blank(ecg)
            ours = self.projectors["ecg"](embeddings)
            theirs = self.projectors["text"](batch["text"])
            parts = self.loss(
                ours,
                theirs,
                valid=valid,
                labels=batch["text_id" if self.same_text == "positive" else "index"],
                groups=batch["patient"] if self.mask_patients else None,
            )
            total = total + parts.alignment + self.vicreg * parts.guard
            told |= {"alignment": parts.alignment.detach()}
            if self.loss.guard is not None:
                told["guard"] = parts.guard.detach()
            if self.loss.info_nce is not None:
                told["temperature"] = (-self.loss.info_nce.log_scale.detach()).exp()
            told |= seen_together(ours, theirs, valid, batch["text_id"])
        self.log_dict({"loss": total.detach(), **told})
        return total


@torch.no_grad()
def seen_together(ecg: Tensor, texts: Tensor, valid: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """What tells whether an alignment learns, of projections ``(N, P)``; 0 where no row counts."""
    kept = valid.nonzero()[:, 0]
    ecg, texts, ids = ecg[kept].float(), texts[kept].float(), ids[kept]
    nothing = ecg.new_zeros(())
    names = ("projection_spread", "similarity", "similarity_others", "recall_at_1")
    if not len(kept):
        return dict.fromkeys(names, nothing)
    unit = nn.functional.normalize(ecg)
    nearest = (unit @ nn.functional.normalize(texts).T).argmax(dim=1)
    return {
        "projection_spread": spread_of(unit),
        **similarity(ecg, texts),
        "recall_at_1": (ids[nearest] == ids).float().mean(),
    }
