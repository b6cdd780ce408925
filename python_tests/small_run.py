"""A finished run with random weights, and a small SYNTHETIC store, for tests of what uses runs."""

from __future__ import annotations

import torch

from ecgfast.config import Signal
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.train.checkpoint import save_encoder
from ecgfast.train.contract import Contract, Records

SIGNAL = Signal(seconds=2.0, band=(0.5, 40.0))
ENCODER = {"num_leads": 12, "embedding_dim": 16, "dropout": 0.0, "width": 8}
HEAD = {"embedding_dim": 16, "hidden": 8, "dropout": 0.3}


def make_run(path, task="regression", *, seed=0, signal=SIGNAL, seen=("a",), **told):
    """Writes a run; without a task it has no head."""
    torch.manual_seed(seed)
    arguments = {**ENCODER, "num_leads": len(signal.leads)}
    encoder, head = ResNet1d(**arguments), Head(**HEAD)
    for module in encoder.modules():  # as if it had seen data: batch norms that do something
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    if task == "regression":
        head.set_scale(16.0, 8.0)
    about = {"kind": task, "label": "mpcwp", "threshold": None, "mean": 16.0, "sd": 8.0}
    about |= {"dropout_at_test": False, **told}
    contract = Contract(
        signal=signal,
        model={"class": "ResNet1d", "arguments": arguments},
        head={"class": "Head", "arguments": HEAD} if task else None,
        task=about if task else None,
        synthetic=True,
        trained_on=Records.of(seen),
    )
    path.mkdir(parents=True)
    save_encoder(path, encoder.state_dict(), contract, head.state_dict() if task else None)
    return path
