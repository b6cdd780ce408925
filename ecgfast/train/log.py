"""What a run says of itself: metrics.csv, TensorBoard, the bar."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ecgfast.train.batches import Batches
from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.method import Method
from ecgfast.train.profile import PARTS, Breakdown, ordered

FIRST = ["step", "epoch"]  # columns; the others come as they turn up
# what every step has, whatever the method
STEP = PARTS.keys() - {"mining", "augment", "encoder"}


class Table:
    """A csv file of rows by step that survives a kill.

    A row is in the file before the checkpoint of its step is written; what a killed run wrote after
    its last checkpoint is taken out when the run goes on, since these steps come again. So no step
    is there twice and none is missing.

    Args:
        path: Of the file.
        step: Rows beyond this step are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns = list(FIRST)
        rows = [row for row in self._read() if int(row["step"]) <= step]
        self._write(rows)

    def add(self, row: dict[str, float]) -> None:
        """Appends a row; new columns are empty in the old ones."""
        new = [name for name in row if name not in self.columns]
        if new:
            rows = self._read()
            self.columns += new
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kill may cut the last one
        reader = csv.DictReader(whole)
        self.columns = list(reader.fieldnames or FIRST)
        return [row for row in reader if (row["step"] or "").isdigit()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_at_once(self.path, text.getvalue().encode())


class Log(Callback):
    """Writes what methods log: every so many steps, and the first and the last.

    Columns: ``step`` (done), ``epoch`` (passes over the training records), what the method logs,
    ``lr``, ``records_per_s`` of all processes, and shares of the time of the main process:
    ``waiting`` for records that were not loaded yet, and the parts that methods name, as ``mining``
    and ``encoder``. With a profile there is a column ``share_`` for every part of a step; these add
    up to 1. Losses are means over the ranks; where a loss compares the records of a batch, each
    rank's batch is one of its own.

    Args:
        out: Folder of the run.
        every: Steps between two rows.
        show: Shows a bar.
        profile: Writes the shares of all parts of a step, and a table of them at the end.
    """

    def __init__(self, out: Path, *, every: int, show: bool, profile: bool = False) -> None:
        self.out = out
        self.every = every
        self.show = show
        self.breakdown = Breakdown() if profile else None
        self.more: dict[str, float] = {}  # what other callbacks add to the row of this step

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Takes up the table, the curves and the bar where the run stands."""
        step = trainer.global_step
        self.row_at, self.row_step = time.perf_counter(), step
        if not trainer.is_global_zero:
            return
        self.table = Table(self.out / "metrics.csv", step)
        self.curves = SummaryWriter(str(self.out), purge_step=step + 1 if step else None)
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=step,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file wants fewer lines
            dynamic_ncols=True,
            disable=not self.show,
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reads the learning rate of this step; the schedule moves it before the step ends."""
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a row if it is time for one."""
        data = _data(trainer)
        step = trainer.global_step
        if step % self.every == 0 or step in (1, trainer.max_steps) or self.more:
            self._row(trainer, pl_module, outputs["loss"], data)
        if trainer.is_global_zero:
            self.bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Closes what is open, and prints the profile."""
        self._close()
        if self.breakdown is not None and trainer.is_global_zero:
            print(self.breakdown.table(), flush=True)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Closes what is open."""
        self._close()

    def _row(self, trainer: Trainer, method: Method, loss: Tensor, data: Batches) -> None:
        step, now = trainer.global_step, time.perf_counter()
        logged = {"loss": loss.detach()}
        for name, value in trainer.callback_metrics.items():
            if not name.startswith("val_"):  # these would stay from an earlier step
                logged[name] = value
        values = torch.stack([torch.as_tensor(v).float().to(loss.device) for v in logged.values()])
        if trainer.world_size > 1:
            values = trainer.strategy.reduce(values, reduce_op="mean")
        records = data.batch_size * trainer.world_size
        row = {
            "step": step,
            "epoch": round(step * records / len(data.dataset), 4),  # type: ignore[arg-type]
            **dict(zip(logged, values.tolist(), strict=True)),
            **self.more,
            "lr": self.lr,
            "records_per_s": round((step - self.row_step) * records / (now - self.row_at), 1),
        }
        seconds = method.clock.take()
        total = sum(seconds.values())
        shares = {name: round(seconds[name] / total, 4) for name in ordered(seconds)}
        row["waiting"] = shares.get("waiting", 0.0)
        own = {name: share for name, share in shares.items() if name not in STEP}
        row |= {name: share for name, share in own.items() if name not in row}
        if self.breakdown is not None:
            row |= {f"share_{name}": share for name, share in shares.items()}
            steps = step - self.row_step
            self.breakdown.add(seconds, steps=steps, records=steps * records)
        self.row_at, self.row_step, self.more = now, step, {}
        if not trainer.is_global_zero:
            return
        self.table.add(row)
        for name, value in row.items():
            if name != "step":
                self.curves.add_scalar(name, value, step)
        self.bar.set_postfix_str(f"loss {row['loss']:.4f}", refresh=False)

    def _close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
            self.curves.close()


def _data(trainer: Trainer) -> Batches:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, Batches)
    return data
