"""One of two ranks: gradient of VICReg over both."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.vicreg import VICRegLoss


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    ).double()


def batch():
    return torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(rank):
    network = DistributedDataParallel(model())
    ours = batch()[:, rank * 6 : (rank + 1) * 6]
    views = network(ours.reshape(12, 6)).reshape(2, 6, 4)
    loss = VICRegLoss(gather=True)(*views)
    loss.backward()
    gradients = {name: p.grad for name, p in network.module.named_parameters()}
    return {"gradients": gradients, "loss": loss.detach()}
