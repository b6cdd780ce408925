"""One of two ranks: gradient of the Cox loss over both."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses import CoxLoss


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)
    ).double()


def batch():
    """Rows; times with ties, of which some nobody knows; events in a third of the rows."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(24, 6, generator=draw, dtype=torch.float64)
    time = torch.randint(1, 8, (24,), generator=draw).double()
    time[[3, 17, 18]] = torch.nan
    return x, time, torch.rand(24, generator=draw) < 1 / 3


def run(rank):
    network = DistributedDataParallel(model())
    x, time, event = (rows[rank * 12 : (rank + 1) * 12] for rows in batch())
    loss = CoxLoss(gather=True)(network(x)[:, 0], time, event)
    loss.backward()
    gradients = {name: p.grad for name, p in network.module.named_parameters()}
    return {"gradients": gradients, "loss": loss.detach()}
