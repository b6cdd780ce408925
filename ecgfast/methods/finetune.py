"""From an encoder to a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.methods.task import Kind, Loss, Task
from ecgfast.train.method import Method


class Finetune(Method):
    """A head on an encoder, for a value or for a class; frozen, it is a linear probe.

    A record whose label is NaN is counted (``labelled`` is the share that has one) and otherwise
    left out of the loss; a sample that is missing (NaN) reaches the encoder as 0.

    Validation gathers all predictions of an epoch and logs what :class:`methods.task.Task` makes of
    them, ``val_loss`` among it, the number that chooses the best weights.

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        head: ``(N, D) -> (N, 1)``, or a logit a class; a ``models.heads.Head``: for a regression
            its scale is that of the training labels, so that what it gives is in the label's unit.
        task: What the label is.
        threshold: For a class: positive is label > threshold, strictly; none takes a label that is
            0 or 1.
        loss: Of a regression, on errors in units of the head's scale.
        class_weights: What a record of each class counts, ``(C,)``.
        freeze: Trains the head alone; the encoder stays in eval mode, batch norms included.
        dropout_at_test: Leaves the head's dropout on at test, as published (defect B7).
        layer_decay: The encoder's last stage learns at so many times the head's rate, the one below
            at so many times that, down to the first. The encoder names its ``stages``.
        head_lr: Learning rate of the head, where it is not that of ``optim``.
        augment: What training sees in place of a record; None: the record.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        task: Kind,
        threshold: float | None = None,
        loss: Loss = "mse",
        class_weights: Tensor | None = None,
        freeze: bool = False,
        dropout_at_test: bool = False,
        layer_decay: float = 1.0,
        head_lr: float | None = None,
        augment: nn.Module | None = None,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder.requires_grad_(not freeze)
        self.head: nn.Module = head
        self.task = Task(task, threshold=threshold, loss=loss, class_weights=class_weights)
        self.freeze_encoder = freeze
        self.dropout_at_test = dropout_at_test
        self.layer_decay = layer_decay
        self.head_lr = head_lr
        self.augment = augment

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

    def rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The head first; then, if their rates differ, the encoder's stages from the last on."""
        base = 1.0 if self.head_lr is None else self.head_lr / self.optim.lr
        if base == 1.0 and self.layer_decay == 1.0:
            return super().rates()
        head = [p for p in self.head.parameters() if p.requires_grad]
        encoder: Any = self.encoder
        stages = [encoder] if self.layer_decay == 1.0 else reversed(encoder.stages())
        below = [[p for p in stage.parameters() if p.requires_grad] for stage in stages]
        groups = [(self.layer_decay ** (i + 1), part) for i, part in enumerate(below) if part]
        return [(base, head), *groups]

    def forward(self, ecg: Tensor) -> tuple[Tensor, Tensor]:
        """What the head says and what it saw.

        Args:
            ecg: Prepared signals ``(N, L, T)``.

        Returns:
            Values in the label's unit or logits ``(N,)``, or logits of several classes ``(N, C)``;
            and embeddings ``(N, D)``.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            embeddings = self.embed(ecg)
        return self.task.output(self.head(embeddings)), embeddings.float()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of the records that have a label; 0 where none has."""
        ecg = batch["ecg"] if self.augment is None else self.augment(batch["ecg"])
        output, _ = self(ecg)
        label = batch["label"]
        loss: Tensor = self.task(output, label, self._scale)
        labelled = (~label.isnan()).float().mean()
        self.log_dict({"loss": loss.detach(), "labelled": labelled})
        return loss

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of every record, ``(N,)``; NaN where there is no label, with a gradient of zero."""
        output, _ = self(batch["ecg"])
        return self.task.losses(output, batch["label"], self._scale)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keeps what was said and what was true."""
        output, _ = self(batch["ecg"])
        self.task.keep(output, batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Judges all predictions of the epoch, of all ranks, at once."""
        self.log_dict(self.task.judge(), prog_bar=True, sync_dist=True)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Scores and embeddings of a batch, with all that is known of its records but the signal.

        Returns:
            ``score`` ``(N,)``: the value in the label's unit, or the probability of the class, of
            several classes ``(N, C)``; ``embedding`` ``(N, D)``; and what else the batch held.
        """
        output, embeddings = self(batch["ecg"])
        known = {name: column for name, column in batch.items() if name != "ecg"}
        return {**known, "score": self.task.score(output), "embedding": embeddings}

    @property
    def _scale(self) -> Any:
        return self.head.scale
