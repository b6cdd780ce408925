"""The parts of a step, and a table of what they take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning import Callback, Trainer

# in their order in a step; further parts that a method names end up before the loss
PARTS = {
    "waiting": "for records that are not loaded yet",
    "transfer": "to the device",
    "prepare": "millivolts, filters, normalisation",
    "mining": "of pairs or triplets",
    "augment": "of views",
    "encoder": "forward",
    "loss": "and all else of the step's forward pass",
    "backward": "and recomputation, and exchange between processes",
    "optimiser": "clipping, step, schedule",
    "validation": "all of it",
    "rest": "log, checkpoints, the trainer's own work",
}


class StepParts(Callback):
    """Tells the clock what part of the step begins: stands before all other callbacks."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """The first thing is to wait for records."""
        pl_module.clock.start("waiting", pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """What a step does between its other parts is its loss."""
        pl_module.clock.turn_to("loss")

    def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """The loss is there."""
        pl_module.clock.turn_to("optimiser")

    def on_before_backward(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Gradients begin."""
        pl_module.clock.turn_to("backward")

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        """Gradients are there."""
        pl_module.clock.turn_to("optimiser")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """The other callbacks come now."""
        pl_module.clock.turn_to("rest")


class EndOfStep(Callback):
    """Ends the step for the clock: stands behind all other callbacks."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """What passes from here to the next batch is waiting."""
        pl_module.clock.turn_to("waiting")


class Breakdown:
    """Adds up what the rows of a log say of the parts, but for the first row.

    The first row holds what happens once: memory that is asked for, code that is compiled.
    """

    def __init__(self) -> None:
        self.first = True
        self.steps = self.records = 0
        self.seconds: dict[str, float] = {}

    def add(self, seconds: dict[str, float], *, steps: int, records: int) -> None:
        """Takes a row in."""
        if self.first:
            self.first = False
            return
        self.steps += steps
        self.records += records
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def table(self) -> str:
        """Lines for a terminal; shares add up to 1."""
        total = sum(self.seconds.values())
        if not self.steps or not total:
            return "profile: one row of the log is not enough for a table; take more --fit.steps"
        lines = [
            f"profile of {self.steps} steps ({total:.1f} s, {self.records / total:.1f} records/s); "
            "without the first row of the log"
        ]
        for name in ordered(self.seconds):
            taken = self.seconds[name]
            lines.append(
                f"  {name:<12}{1e3 * taken / self.steps:12.3f} ms a step{taken / total:9.1%}"
                f"  {PARTS.get(name, '')}".rstrip()
            )
        return "\n".join(lines)


def ordered(names: Iterable[str]) -> list[str]:
    """Names of parts in their order in a step."""
    known = list(PARTS)
    own = known.index("loss") - 0.5
    return sorted(names, key=lambda name: (known.index(name) if name in known else own, name))
