"""CLOCS-CMSC: contrastive multi-segment coding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.contrastive import InfoNCELoss
from ecgfast.methods.views import similarity, spread, view_labels
from ecgfast.train.method import Method


class CMSC(Method):
    r"""First halves find the second halves of their patient, and second halves the first.

    With first halves a, second halves b, P the rows of the same patient (or the record alone):

    .. math:: L = \frac{1}{2 N} \sum_i \Big[ \frac{1}{|P_i|} \sum_{p \in P_i}
              -\log \frac{e^{\cos(a_i, b_p) / \tau}}{\sum_j e^{\cos(a_i, b_j) / \tau}} +
              \text{the same with a and b exchanged} \Big]

    Halves are those of the prepared signal and do not overlap; the middle sample of an odd length
    is in neither. A missing sample (NaN) is 0 to the encoder; a record that has nothing else has no
    positive and is a flat line to the others. Logged are the loss, the spread of the embeddings,
    and the mean cosine of a record's two halves (``similarity``) and of different records' halves
    (``similarity_others``; records of one patient are among them).

    Args:
        encoder: ``(N, L, T) -> (N, D)``, of halves too.
        projector: ``(N, D) -> (N, P)``.
        augment: Draws a view of a half, anew at each call.
        temperature: Of the loss.
        by_patient: Halves of all records of a patient are positives of each other; otherwise those
            of one record.
        mask_patients: Other records of the patient are not negatives either.
        gather: The other halves are those of all ranks.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        augment: nn.Module,
        *,
        temperature: float,
        by_patient: bool,
        mask_patients: bool,
        gather: bool,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.augment = augment
        self.by_patient = by_patient
        self.mask_patients = mask_patients
        self.loss = InfoNCELoss(temperature, learnable=False, gather=gather)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        half = ecg.shape[-1] // 2
        with self.clock.part("augment", ecg.device):
            halves = self.augment(torch.cat([ecg[..., :half], ecg[..., -half:]]))
        embeddings = self.embed(halves)
        first, second = self.projector(embeddings).chunk(2)
        own = batch["patient"] if self.by_patient else batch["index"]
        labels, others = view_labels(own, batch["index"], ecg)
        patients = batch["patient"] if self.mask_patients else None
        loss: Tensor = self.loss(first, second, labels=labels, key_labels=others, groups=patients)
        self.log_dict({"loss": loss.detach(), **spread(embeddings), **similarity(first, second)})
        return loss
