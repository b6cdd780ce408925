"""Callbacks that look at a run while it trains: no number, a collapse, the best weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import default_collate

from ecgfast.train.batches import Batches
from ecgfast.train.errors import RunError
from ecgfast.train.log import Log
from ecgfast.train.method import Method

Weights = dict[str, dict[str, Tensor]]


class Finite(Callback):
    """Stops the run at the first loss that is no number, before a checkpoint can hold its result.

    On the CPU every step is looked at. On a GPU a look waits for the device, so the losses of
    ``every`` steps are looked at together; the steps of a checkpoint always are.

    Args:
        every: Steps between two looks on a GPU.
        saved_every: Steps between two checkpoints.
    """

    def __init__(self, *, every: int, saved_every: int) -> None:
        self.every = every
        self.saved_every = saved_every
        self.unseen: list[tuple[int, Tensor, Tensor | None]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks, if it is time."""
        step, loss = trainer.global_step, outputs["loss"].detach()
        self.unseen.append((step, loss, batch.get("index")))
        due = step % self.every == 0 or step % self.saved_every == 0 or step == trainer.max_steps
        if due or loss.device.type == "cpu":
            finite = torch.stack([loss for _, loss, _ in self.unseen]).isfinite().tolist()
            if not all(finite):
                self._stop(trainer, *self.unseen[finite.index(False)])
            self.unseen.clear()

    def _stop(self, trainer: Trainer, step: int, loss: Tensor, index: Tensor | None) -> None:
        data: Batches = trainer.datamodule  # type: ignore[attr-defined]
        places = [] if index is None else index.tolist()
        found = [i for i in places if not _finite(data, i)]
        if found:
            what = (
                f"{len(found)} of its {len(places)} records have samples that are not finite: "
                f"{_list(data.names(found))}. Take them out or mend them: "
                "`ecgfast validate STORE` says what is wrong with each"
            )
        else:
            what = (
                "all samples of its records are finite, so the training itself diverged: lower "
                "--optim.lr, set --optim.clip, or take --fit.precision 32-true. "
                f"The records: {_list(data.names(places))}"
            )
        raise RunError(
            f"error[loss] the loss is {loss.item()} at step {step} (rank {trainer.global_rank}); "
            f"{what}. A checkpoint before it, if there is one, is kept"
        )


class KeepBest(Callback):
    """Scores the weights on the validation set and keeps a copy of the best.

    The score is ``val_loss`` as the method logs it; lower is better, ties keep the earlier. Copies
    travel in the checkpoint, so that a resumed run keeps what the whole run would have kept. (The
    published code kept references, that is, the last weights: B8.)

    Args:
        rows: Gets the numbers.
        every: Steps between two looks; the last step always has one.
        patience: Ends the run after so many looks in a row without a better score; 0 never does.
    """

    def __init__(self, rows: Log, *, every: int, patience: int = 0) -> None:
        self.rows = rows
        self.every = every
        self.patience = patience
        self.best: dict[str, Any] = {"val_loss": math.inf, "step": 0, "weights": {}, "worse": 0}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Scores, if it is time."""
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        with pl_module.clock.part("validation", pl_module.device, whole=True):
            self.rows.more = self._score(trainer, pl_module)
        loss = self.rows.more["val_loss"]
        if loss < self.best["val_loss"]:
            weights = weights_of(pl_module)
            self.best = {"val_loss": loss, "step": step, "weights": weights, "worse": 0}
        else:
            self.best["worse"] += 1
        trainer.should_stop = 0 < self.patience <= self.best["worse"]  # Save ends it with this step

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self.best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best so far."""
        self.best = {"worse": 0, **state_dict}

    @torch.no_grad()
    def _score(self, trainer: Trainer, method: Method) -> dict[str, float]:
        data: Batches = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.world_size > 1:  # running means differ between ranks; rank 0's are kept
            for buffer in method.buffers():
                torch.distributed.broadcast(buffer, src=0)
        modes = {module: module.training for module in method.modules()}
        method.eval()
        for i, batch in enumerate(data.validation_batches()):
            with trainer.precision_plugin.val_step_context():
                method.validation_step(batch, i)
        method.on_validation_epoch_end()
        for module, training in modes.items():
            module.training = training
        known = trainer.callback_metrics
        return {name: float(known[name]) for name in known if name.startswith("val_")}


class Collapse(Callback):
    """Logs how far the embeddings of a batch spread, and stops a run in which they no longer do.

    Two numbers, of the last embeddings of a step, with the mean over the ranks: ``spread_of`` and
    ``effective_rank``. Neither depends on the scale of the embeddings, which a hinge without
    normalisation may shrink many times over while it learns. A run has collapsed when at every look
    for so many steps the spread is below a bound, so that all records are one point, or the rank is
    below ``LINE``, so that they lie on one line, of the 4 dimensions or more that they could have.

    Args:
        rows: Gets the numbers.
        every: Steps between two looks.
        below: The bound; 0 never stops a run.
        patience: Steps.
    """

    LINE = 1.5

    def __init__(self, rows: Log, *, every: int, below: float, patience: int) -> None:
        self.rows = rows
        self.every = every
        self.below = below
        self.patience = patience
        self.since = -1  # the first step of those below, if the last was

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks, if it is time."""
        step = trainer.global_step
        if step % self.every and step not in (1, trainer.max_steps):
            return
        embeddings = pl_module.embedded
        if embeddings is None:
            return
        numbers = torch.stack([spread_of(embeddings), effective_rank(embeddings)])
        if trainer.world_size > 1:
            numbers = trainer.strategy.reduce(numbers.to(embeddings.device), reduce_op="mean")
        spread, rank = numbers.tolist()
        self.rows.more |= {"embedding_spread": spread, "embedding_rank": rank}
        line = rank < self.LINE and min(len(embeddings) - 1, embeddings.shape[1]) >= 4
        if not (self.below and (spread < self.below or line)):
            self.since = -1
            return
        self.since = step if self.since < 0 else self.since
        if step - self.since >= self.patience:
            raise RunError(
                f"error[collapse] the embeddings have collapsed: since step {self.since} they have "
                f"been one point (spread below {self.below:g}) or one line (effective rank below "
                f"{self.LINE:g}); at step {step} their spread is {spread:.2g}, their rank "
                f"{rank:.1f} of {embeddings.shape[1]}. Records hardly differ for the encoder, and "
                "little is learnt any more. Lower --optim.lr or "
                "--optim.weight_decay, take a loss of unit length (--normalise true, or --loss "
                "nt_xent) or negatives that are drawn (--negative random); --collapse_below 0 lets "
                "the run go on"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the count."""
        self.since = int(state_dict["since"])


def spread_of(embeddings: Tensor) -> Tensor:
    r"""The share of the embeddings' squares that tells them apart, in [0, 1].

    .. math:: 1 - \lVert \bar z \rVert^2 / \langle \lVert z \rVert^2 \rangle

    It is 0 when all are the same, or zero, and has no scale; for unit rows it is one minus their
    mean cosine, each with itself included.
    """
    z = embeddings.detach().double()
    mean = z.mean(dim=0)
    squares = z.square().sum(dim=1).mean()
    spread = (z - mean).square().sum(dim=1).mean() / squares
    return torch.where(squares > 0, spread, 0).to(torch.float32)


def effective_rank(embeddings: Tensor) -> Tensor:
    """In how many directions the embeddings differ: exp of the entropy of their singular values.

    Of the centred embeddings (Roy, Vetterli: The effective rank, EUSIPCO 2007): at most their
    dimension, and one less than their number; 0 where they are all the same.
    """
    z = embeddings.detach().double().cpu()
    if not z.isfinite().all():
        return torch.tensor(torch.nan)
    values = torch.linalg.svdvals(z - z.mean(dim=0))
    total = values.sum()
    if not total > 0:
        return torch.tensor(0.0)
    share = values / total
    return torch.special.entr(share).sum().exp().float()


def weights_of(method: Method) -> Weights:
    """Copies of what a checkpoint folder holds, on the CPU."""
    return {
        name: {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
        for name, module in method.kept().items()
    }


def _list(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _finite(data: Batches, index: int) -> bool:
    record = data.prepare(default_collate([data.dataset[index]]))["ecg"]
    return bool(record.isfinite().all())
