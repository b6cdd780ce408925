"""From an encoder to a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.alignment import reconstruction_loss
from ecgfast.methods.task import Kind, Loss, Task, survival
from ecgfast.methods.views import blank
from ecgfast.train.method import Method


class Finetune(Method):
    """A head on an encoder, for a value, a class or a hazard; frozen, it is a linear probe.

    A record whose label is NaN, or that has not a single sample, is counted (``labelled`` is the
    share of the others) and otherwise left out of the loss; a sample that is missing (NaN) reaches
    the encoder as 0.

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
        edges: Of survival, and ties: as of the task.
        freeze: Trains the head alone; the encoder stays in eval mode, batch norms included.
        freeze_steps: The same for the first so many steps of the run; then all is trained.
        freeze_norms: The encoder's batch norms stay as they are, also when the rest moves.
        dropout_at_test: Leaves the head's dropout on at test, as published (defect B7).
        layer_decay: Each stage of the encoder learns at so many times the rate of the one above it,
            the last at so many times that of ``optim``, or at ``encoder_lr``. The encoder names its
            ``stages``.
        head_lr: Learning rate of the head, where it is not that of ``optim``.
        encoder_lr: That of the encoder, or of its last stage. Both follow the schedule of the run.
        augment: What training sees in place of a record; None: the record.
        decoder: ``(N, D) -> (N, L, T)``, draws the record from its embedding, all of it whatever
            the encoder sees; None draws nothing. It is not kept.
        reconstruction: Weight of its squared error beside the loss of the label.
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
        edges: Tensor | None = None,
        ties: str = "efron",
        freeze: bool = False,
        freeze_steps: int = 0,
        freeze_norms: bool = False,
        dropout_at_test: bool = False,
        layer_decay: float = 1.0,
        head_lr: float | None = None,
        encoder_lr: float | None = None,
        augment: nn.Module | None = None,
        decoder: nn.Module | None = None,
        reconstruction: float = 0.0,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder.requires_grad_(not freeze)
        self.head: nn.Module = head
        self.task = Task(
            task,
            threshold=threshold,
            loss=loss,
            class_weights=class_weights,
            edges=edges,
            ties=ties,
        )
        self.freeze_encoder = freeze
        self.freeze_steps = freeze_steps
        found = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.still = [norm.requires_grad_(False) for norm in found] if freeze_norms else []
        self.dropout_at_test = dropout_at_test
        self.layer_decay = layer_decay
        self.head_lr = head_lr
        self.encoder_lr = encoder_lr
        self.augment = augment
        self.decoder = decoder
        self.reconstruction = reconstruction

    @property
    def frozen(self) -> bool:
        """Whether the encoder stands still at this step."""
        return self.freeze_encoder or self.global_step < self.freeze_steps

    def train(self, mode: bool = True) -> Finetune:
        """As any module, but a frozen encoder stays in eval mode (and dropout on, for B7)."""
        super().train(mode)
        self._settle()
        if self.dropout_at_test:
            for module in self.head.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
        return self

    def rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The head first; then, if their rates differ, the encoder's stages from the last on."""
        base = 1.0 if self.head_lr is None else self.head_lr / self.optim.lr
        last = self.layer_decay if self.encoder_lr is None else self.encoder_lr / self.optim.lr
        if base == last == self.layer_decay == 1.0:
            return super().rates()
        above = [self.head] if self.decoder is None else [self.head, self.decoder]
        head = [p for part in above for p in part.parameters() if p.requires_grad]
        encoder: Any = self.encoder
        stages = [encoder] if self.layer_decay == 1.0 else reversed(encoder.stages())
        below = [[p for p in stage.parameters() if p.requires_grad] for stage in stages]
        groups = [(last * self.layer_decay**i, part) for i, part in enumerate(below) if part]
        return [(base, head), *groups]

    def forward(self, ecg: Tensor) -> tuple[Tensor, Tensor]:
        """What the head says and what it saw.

        Args:
            ecg: Prepared signals ``(N, L, T)``.

        Returns:
            Values in the label's unit or logits ``(N,)``, or logits of several classes ``(N, C)``;
            and embeddings ``(N, D)``.
        """
        still = self.freeze_encoder or (self.frozen and not self._several)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not still):
            embeddings = self.embed(ecg)
        return self.task.output(self.head(embeddings)), embeddings.float()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of the records that have a label; 0 where none has."""
        if self.freeze_steps:  # the phase depends on the step alone: a run that resumes is in it
            self._settle()
        ecg = batch["ecg"] if self.augment is None else self.augment(batch["ecg"])
        output, embeddings = self(ecg)
        label = _labels(batch)
        loss: Tensor = self.task(output, label, self._scale)
        told = {"labelled": (~label.isnan()).float().mean()}
        if self.decoder is not None:
            error = reconstruction_loss(self.decoder(embeddings), batch["ecg"])
            told |= {"label_loss": loss.detach(), "reconstruction": error.detach()}
            loss = loss + self.reconstruction * error
        self.log_dict({"loss": loss.detach(), **told})
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An encoder that stands still has no gradient, neither to clip nor to step by."""
        if self.frozen:
            for parameter in self.encoder.parameters():
                parameter.grad = None

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of every record, ``(N,)``; NaN where there is no label, with a gradient of zero."""
        output, _ = self(batch["ecg"])
        return self.task.losses(output, _labels(batch), self._scale)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keeps what was said and what was true."""
        output, _ = self(batch["ecg"])
        self.task.keep(output, _labels(batch))

    def on_validation_epoch_end(self) -> None:
        """Judges all predictions of the epoch, of all ranks, at once."""
        self.log_dict(self.task.judge(), prog_bar=True, sync_dist=True)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Scores and embeddings of a batch, with all that is known of its records but the signal.

        Returns:
            ``score`` ``(N,)``: the value in the label's unit, the probability of the class, of
            several classes ``(N, C)``, or the log hazard; ``survival`` ``(N, K)`` where hazards are
            of intervals; ``embedding`` ``(N, D)``; and what else the batch held.
        """
        output, embeddings = self(batch["ecg"])
        known = {name: column for name, column in batch.items() if name != "ecg"}
        if self.task.edges is not None:
            known["survival"] = survival(output)
        return {**known, "score": self.task.score(output), "embedding": embeddings}

    def _settle(self) -> None:
        """Brings what stands still into eval mode, and the rest of the encoder into the run's."""
        self.encoder.train(self.training and not self.frozen)
        for norm in self.still:
            norm.eval()

    @property
    def _several(self) -> bool:
        """Processes that share gradients; these wait for one of every parameter that may move."""
        return self._trainer is not None and self._trainer.world_size > 1

    @property
    def _scale(self) -> Any:
        return self.head.scale


def _labels(batch: dict[str, Tensor]) -> Tensor:
    """Labels ``(N,)``; a record of which nothing is left teaches none."""
    return batch["label"].masked_fill(blank(batch["ecg"]), torch.nan)
