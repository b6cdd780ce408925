"""One of two ranks: gradient of a contrastive loss over both, written to a file by rank 0."""

from __future__ import annotations

import os
import sys

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


def main(store, out):
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    ours = batch()[rank * 8 : (rank + 1) * 8]
    network = DistributedDataParallel(model().double())
    rows = network(ours)
    every = gather(rows)
    assert every.shape == (16, 4)
    assert gather(torch.full((3,), rank)).tolist() == [0, 0, 0, 1, 1, 1]
    value = loss(rows, every, places(8))
    value.backward()
    values = gather(value.detach()[None])
    if rank == 0:
        gradients = {name: p.grad for name, p in network.module.named_parameters()}
        torch.save({"gradients": gradients, "loss": values.mean()}, out)
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
