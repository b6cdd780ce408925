"""One of two ranks: gradient of the alignment over both."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.alignment import AlignmentLoss


class Model(nn.Module):
    """Two maps and the loss, whose temperature is trained, too."""

    def __init__(self, kind, both):
        super().__init__()
        torch.manual_seed(0)
        self.ecg, self.text = nn.Linear(6, 4).double(), nn.Linear(6, 4).double()
        self.loss = AlignmentLoss(kind, guard=True, gather=both)

    def forward(self, ecg, text, valid, labels, groups):
        words = {"valid": valid, "labels": labels, "groups": groups}
        parts = self.loss(self.ecg(ecg), self.text(text), **words)
        return parts.alignment + 0.3 * parts.guard


def batch():
    draw = torch.Generator().manual_seed(1)
    ecg, text = torch.randn(2, 12, 6, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, -1, 0, 3, 1, 1, 4, 5, 6, 2])
    groups = torch.tensor([0, 1, 1, 2, 3, 4, 5, 4, 6, 6, 7, 8])
    return ecg, text, labels >= 0, labels, groups


def run(rank, kind):
    network = DistributedDataParallel(Model(kind, True))
    loss = network(*(part[rank * 6 : (rank + 1) * 6] for part in batch()))
    loss.backward()
    gradients = {name: p.grad for name, p in network.module.named_parameters()}
    return {"gradients": gradients, "loss": loss.detach()}
