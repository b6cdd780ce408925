"""Checkpoints to resume from, and how a run ends when it is told to."""

from __future__ import annotations

import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.errors import RunError


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are there entirely or not at all, and hold plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes beside the old checkpoint and takes its place in one move."""
        write_at_once(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads tensors and plain values; refuses anything that would run code."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors mapped from the file.

    Raises:
        RunError: The file is damaged or is no checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict) or "global_step" not in content:
            raise ValueError("there is no global_step in it")
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise RunError(
            f"error[resume] {path} cannot be read ({str(error).splitlines()[0]}). Delete it to "
            "start anew, or take another folder with --fit.out",
            code=2,
        ) from error
    return content


class Interrupt:
    """Lets the step that runs come to its end: Ctrl-C and SIGTERM ask, a second Ctrl-C insists.

    Entering it remembers the handlers that leaving it puts back.
    """

    def __init__(self) -> None:
        self.by: int | None = None

    def __enter__(self) -> Interrupt:
        self.before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._handle(self.before)

    def listen(self) -> None:
        """Begins to; after Lightning has set handlers of its own, which do not wait for a step."""
        self._handle(dict.fromkeys(self.before, self._ask))

    def _handle(self, handlers: dict[signal.Signals, Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by = number


class Save(Callback):
    """Writes ``last.ckpt`` every so many steps, at the end, and when the run is told to stop.

    Stands behind all callbacks that keep a state or write a row for this step.

    Args:
        path: Of the checkpoint.
        every: Steps between two.
        interrupt: Whether to stop.
    """

    def __init__(self, path: Path, *, every: int, interrupt: Interrupt) -> None:
        self.path = path
        self.every = every
        self.interrupt = interrupt
        self.ended = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """From now on a signal waits for the end of its step."""
        self.interrupt.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves, if it is time."""
        step, stop = trainer.global_step, self.interrupt.by is not None
        self.ended = trainer.should_stop  # by a callback before: validation improves no more
        if trainer.world_size > 1:  # all ranks save and stop at the same step
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop or self.ended or step % self.every == 0 or step == trainer.max_steps:
            trainer.save_checkpoint(self.path)
        if self.ended:
            return
        if stop and step < trainer.max_steps:
            self.interrupt.by = self.interrupt.by or signal.SIGINT
            trainer.should_stop = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Adds on how many processes the run trains, and whether it has ended early."""
        checkpoint["world_size"] = trainer.world_size
        checkpoint["ended"] = self.ended

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Says when the run goes on with a global batch of another size."""
        before = checkpoint["world_size"]
        if before != trainer.world_size and trainer.is_global_zero:
            print(
                f"note: the run trained on {before} process(es) so far, now on "
                f"{trainer.world_size}: from here it is another run than the uninterrupted one"
            )
