"""One of two ranks: gradient of the Cox loss over both, written to a file by rank 0."""

from __future__ import annotations

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses import CoxLoss
from ecgfast.ops import gather


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


def main(store, out):
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    network = DistributedDataParallel(model())
    x, time, event = (rows[rank * 12 : (rank + 1) * 12] for rows in batch())
    loss = CoxLoss(gather=True)(network(x)[:, 0], time, event)
    loss.backward()
    both = gather(loss.detach()[None])
    if rank == 0:
        gradients = {name: p.grad for name, p in network.module.named_parameters()}
        torch.save({"gradients": gradients, "losses": both}, out)
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
