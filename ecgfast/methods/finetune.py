"""From an encoder to a label."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, mse_loss
from torchmetrics import CatMetric
from torchmetrics.functional.classification import binary_auroc

from ecgfast.config import Optim
from ecgfast.train.method import Method


class Finetune(Method):
    """A head on an encoder, for a value or for a class; frozen, it is a linear probe.

    A record whose label is NaN is counted (``labelled`` is the share that has one) and otherwise
    left out of the loss; a sample that is missing (NaN) reaches the encoder as 0.

    Validation gathers all predictions of an epoch and logs ``val_loss``, the number that chooses
    the best weights: the root mean squared error in the label's unit (also as ``val_rmse``), or
    the binary cross-entropy, with ``val_auroc`` beside it (NaN as long as one class is missing).

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        head: ``(N, D) -> (N, 1)``, a ``models.heads.Head``: for a regression its scale is that of
            the training labels, so that what it gives is in the label's unit.
        task: What the label is.
        threshold: For a class: positive is label > threshold, strictly; none takes a label that is
            0 or 1.
        loss: Of a regression, on errors in units of the head's scale (Huber bends at 1).
        freeze: Trains the head alone; the encoder stays in eval mode, batch norms included.
        dropout_at_test: Leaves the head's dropout on at test, as published (defect B7).
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        task: Literal["regression", "classification"],
        threshold: float | None = None,
        loss: Literal["mse", "huber"] = "mse",
        freeze: bool = False,
        dropout_at_test: bool = False,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        if task not in ("regression", "classification"):
            raise ValueError(f"task must be regression or classification, got {task}")
        if loss not in ("mse", "huber"):
            raise ValueError(f"loss must be mse or huber, got {loss}")
        self.encoder = encoder.requires_grad_(not freeze)
        self.head: nn.Module = head
        self.task = task
        self.threshold = threshold
        self.criterion = mse_loss if loss == "mse" else huber_loss
        self.freeze_encoder = freeze
        self.dropout_at_test = dropout_at_test
        # nothing to say about NaN: a record without label never gets here
        self.val_outputs = CatMetric(nan_strategy="disable")
        self.val_targets = CatMetric(nan_strategy="disable")

    def train(self, mode: bool = True) -> Finetune:
        """As any module, but a frozen encoder stays in eval mode (and dropout on, for B7)."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        if self.dropout_at_test:
            for module in self.head.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
        return self

    def forward(self, ecg: Tensor) -> tuple[Tensor, Tensor]:
        """What the head says and what it saw.

        Args:
            ecg: Prepared signals ``(N, L, T)``.

        Returns:
            Values in the label's unit or logits ``(N,)``, and embeddings ``(N, D)``.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            embeddings = self.embed(ecg)
        return self.head(embeddings)[:, 0].float(), embeddings.float()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of the records that have a label; 0 where none has."""
        losses = self.losses(batch)
        labelled = ~batch["label"].isnan()
        loss = torch.where(labelled, losses, 0.0).sum() / labelled.sum().clamp(min=1)
        self.log_dict({"loss": loss.detach(), "labelled": labelled.float().mean()})
        return loss

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of every record, ``(N,)``; NaN where there is no label, with a gradient of zero."""
        output, _ = self(batch["ecg"])
        target = self.targets(batch["label"])
        known = ~target.isnan()
        losses = self._criterion(output, torch.where(known, target, output.detach()))
        return torch.where(known, losses, torch.nan)

    def targets(self, label: Tensor) -> Tensor:
        """What is learnt from labels ``(N,)``: themselves, or 0 and 1; NaN stays NaN.

        Raises:
            ValueError: Classes without a threshold are not 0 or 1.
        """
        if self.task == "regression":
            return label.float()
        if self.threshold is not None:
            return torch.where(label.isnan(), label, (label > self.threshold).to(label)).float()
        wrong = ~(label.isnan() | (label == 0) | (label == 1))
        if wrong.any():
            raise ValueError(
                f"labels of a class must be 0 or 1, got {label[wrong].tolist()[:5]} in "
                f"{int(wrong.sum())} of {len(label)} records: set --threshold, or --task regression"
            )
        return label.float()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keeps what was said and what was true."""
        output, _ = self(batch["ecg"])
        target = self.targets(batch["label"])
        known = ~target.isnan()
        self.val_outputs.update(output[known])
        self.val_targets.update(target[known])

    def on_validation_epoch_end(self) -> None:
        """Judges all predictions of the epoch, of all ranks, at once."""
        outputs, targets = _whole(self.val_outputs), _whole(self.val_targets)
        if len(targets) == 0:
            raise ValueError(
                "no record of the validation part has a label: choose another label or part"
            )
        if self.task == "regression":
            rmse = mse_loss(outputs, targets).sqrt()
            numbers = {"val_loss": rmse, "val_rmse": rmse}
        else:
            both = 0 < targets.sum() < len(targets)
            auroc = binary_auroc(outputs.sigmoid(), targets.long()) if both else torch.nan
            loss = binary_cross_entropy_with_logits(outputs, targets)
            numbers = {"val_loss": loss, "val_auroc": torch.as_tensor(auroc)}
        self.log_dict(numbers, prog_bar=True, sync_dist=True)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Scores and embeddings of a batch, with all that is known of its records but the signal.

        Returns:
            ``score`` ``(N,)``: the value in the label's unit, or the probability of the class;
            ``embedding`` ``(N, D)``; and what else the batch held.
        """
        output, embeddings = self(batch["ecg"])
        score = output if self.task == "regression" else output.sigmoid()
        known = {name: column for name, column in batch.items() if name != "ecg"}
        return {**known, "score": score, "embedding": embeddings}

    def _criterion(self, output: Tensor, target: Tensor) -> Tensor:
        if self.task == "classification":
            return binary_cross_entropy_with_logits(output, target, reduction="none")
        scale: Any = self.head.scale
        return self.criterion(output / scale, target / scale, reduction="none")


def _whole(kept: CatMetric) -> Tensor:
    """All that a metric kept, of all ranks; the metric is empty afterwards."""
    values = torch.as_tensor(kept.compute()) if kept.update_called else torch.zeros(0)
    kept.reset()
    return values.flatten()
