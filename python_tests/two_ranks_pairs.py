"""One of two ranks: losses over all pairs of both, and their gradients."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.pairs import AllPairsMarginLoss, AllTripletsLoss, ContrastiveLoss
from ecgfast.ops import gather

# class 0 lies on rank 0 alone, class 3 has one row: the ranks count different pairs
LABELS = [0, 0, 0, 0, 0, 1, 1, 2, 1, 2, 2, 2, 1, 3, 2, 1]
GROUPS = [*range(13), 4, 5, 5]


def losses(gather_ranks):
    for reduction in ("mean_active", "mean", "sum"):
        words = dict(reduction=reduction, gather=gather_ranks, normalise=True)
        yield f"contrastive {reduction}", ContrastiveLoss(0.2, 1.3, **words)
        yield f"triplets {reduction}", AllTripletsLoss(0.3, **words)
        for classes in (None, 4):
            margin = AllPairsMarginLoss(
                0.1, 1.1, learn_beta=True, num_classes=classes, nu=0.01, **words
            )
            yield f"margin {classes} {reduction}", margin


class Model(torch.nn.Module):
    """An encoder and its loss, whose parameters DDP averages together."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
        )
        self.loss = loss

    def forward(self, rows, labels, groups):
        return self.loss(self.encoder(rows), labels, groups=groups)


def batch():
    rows = torch.randn(16, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return rows, torch.tensor(LABELS), torch.tensor(GROUPS)


def run(rank):
    ours = [tensor[rank * 8 : (rank + 1) * 8] for tensor in batch()]
    found = {}
    for name, loss in losses(True):
        network = DistributedDataParallel(Model(loss).double())
        value = network(*ours)
        value.backward()
        gradients = {key: p.grad for key, p in network.module.named_parameters()}
        found[name] = {"loss": gather(value.detach()[None]).mean(), "gradients": gradients}
    return found
