"""One of two ranks: gradient of VICReg over both, written to a file by rank 0."""

from __future__ import annotations

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.ops import gather


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    ).double()


def batch():
    return torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def main(store, out):
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    network = DistributedDataParallel(model())
    ours = batch()[:, rank * 6 : (rank + 1) * 6]
    views = network(ours.reshape(12, 6)).reshape(2, 6, 4)
    loss = VICRegLoss(gather=True)(*views)
    loss.backward()
    both = gather(loss.detach()[None])
    if rank == 0:
        gradients = {name: p.grad for name, p in network.module.named_parameters()}
        torch.save({"gradients": gradients, "losses": both}, out)
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
