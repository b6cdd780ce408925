"""A run of toys: `build` for tests, and a process of its own that may be killed at a step.

python toy_run.py OUT STEPS KILL_AT WHERE WORKERS; WHERE is step, or write for the checkpoint's.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import torch
from torch import nn

from ecgfast.config import Fit, Optim, Signal, Store
from ecgfast.config.ssl_dml import Config
from ecgfast.data.sampler import StepSampler
from ecgfast.train.batches import Batches
from ecgfast.train.contract import Contract, Records
from ecgfast.train.fit import Run, fit
from ecgfast.train.method import Method

RECORDS = 29  # batches of 8: three steps an epoch


class Toys(torch.utils.data.Dataset):
    """Records drawn by their index; one may be broken."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return RECORDS

    def __getitem__(self, index):
        ecg = torch.randn(2, 50, generator=torch.Generator().manual_seed(index))
        if index == self.broken:
            ecg[1, 7] = torch.nan
        return {"ecg": ecg, "index": torch.tensor(index)}


class Toy(Method):
    """Draws in the transform, in dropout and in the loss: all must come again."""

    def __init__(self, optim, at_step=None):
        super().__init__(optim)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(100, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 4)
        )
        self.at_step = at_step or (lambda method: None)

    def training_step(self, batch, batch_idx):
        self.at_step(self)
        embeddings = self.encoder(batch["ecg"])
        loss = (embeddings - torch.randn_like(embeddings)).square().mean()
        self.log_dict({"loss": loss.detach(), "spread": embeddings.detach().std()})
        return loss

    def validation_step(self, batch, batch_idx):
        self.seen = [*getattr(self, "seen", []), self.encoder(batch["ecg"])]

    def on_validation_epoch_end(self):
        self.log("val_loss", (torch.cat(self.seen).mean() - 0.01).abs())
        self.seen = []


class Noise(nn.Module):
    def forward(self, ecg):
        return ecg + 0.1 * torch.randn_like(ecg)


def config(out, *, steps=10, workers=0, **fields):
    how = {"batch_size": 8, "log_every": 1, "checkpoint_every": 2, "progress": False}
    how |= {"steps": steps, "accelerator": "cpu", "devices": 1, "out": str(out)}
    how |= {name: fields.pop(name) for name in list(fields) if hasattr(Fit(), name)}
    return Config(
        signal=Signal(leads=("I", "II"), fs=25.0, seconds=2.0),
        data=Store(workers=workers),
        optim=Optim(lr=1e-2, warmup_steps=2),
        fit=Fit(**how),
        **fields,
    )


def build(config, *, at_step=None, broken=None, validate=False, keep_best=False):
    how = config.fit
    data = Batches(
        Toys(broken),
        Noise(),
        partial(StepSampler, RECORDS, how.batch_size, seed=how.seed),
        seed=how.seed,
        batch_size=how.batch_size,
        workers=config.data.workers,
        validation=Toys() if validate else None,
        names=lambda rows: [f"toy-{row}" for row in rows],
    )
    contract = Contract(
        signal=config.signal,
        model={"class": "Toy", "arguments": {"embedding_dim": 4, "num_leads": 2}},
        synthetic=True,
        trained_on=Records.of([f"toy-{row}" for row in range(RECORDS)]),
    )
    return Run(
        Toy(config.optim, at_step), data, contract, config, keep_best=keep_best, validate_every=3
    )


def kill(method, *, at):
    if method.global_step == at:
        os.kill(os.getpid(), signal.SIGKILL)


def killed_save(save, checkpoint, file, *, at):
    """As torch.save, but the process dies half way through one checkpoint."""
    begin = file.tell()
    save(checkpoint, file)
    if checkpoint["global_step"] == at:
        file.flush()
        os.truncate(file.fileno(), begin + (file.tell() - begin) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    out, steps, at, where, workers = sys.argv[1:]
    at_step = partial(kill, at=int(at)) if where == "step" else None
    if where == "write":
        torch.save = partial(killed_save, torch.save, at=int(at))
    fit(
        partial(build, at_step=at_step, validate=True, keep_best=True),
        config(out, steps=int(steps), workers=int(workers)),
    )
