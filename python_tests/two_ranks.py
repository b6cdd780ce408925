"""One of two ranks: gradient of a contrastive loss over both."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.ops import gather, places


def loss(anchors, rows, at):
    """Mean over the anchors of a log-softmax over all rows but the anchor itself."""
    similarities = anchors @ rows.T
    similarities = similarities.masked_fill(torch.arange(len(rows)) == at[:, None], -torch.inf)
    partners = at ^ 1  # rows 2i and 2i + 1 are a pair
    return torch.nn.functional.cross_entropy(similarities, partners)


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))


def batch():
    return torch.randn(16, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(rank):
    ours = batch()[rank * 8 : (rank + 1) * 8]
    network = DistributedDataParallel(model().double())
    rows = network(ours)
    every = gather(rows)
    assert every.shape == (16, 4)
    assert gather(torch.full((3,), rank)).tolist() == [0, 0, 0, 1, 1, 1]
    value = loss(rows, every, places(8))
    value.backward()
    gradients = {name: p.grad for name, p in network.module.named_parameters()}
    return {"gradients": gradients, "loss": gather(value.detach()[None]).mean()}
