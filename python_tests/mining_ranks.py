"""One of two ranks that mine together: loss and gradient, written to a file by rank 0.

python mining_ranks.py STORE OUT KIND; KIND names a case of `build`.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ecgfast.config import Optim
from ecgfast.losses.mined import MinedMultiSimilarityLoss, MinedNTXentLoss
from ecgfast.losses.triplet import MarginLoss, TripletLoss
from ecgfast.methods.ssl_dml import SSLDML
from ecgfast.miners.distance import InputDistance
from ecgfast.miners.pools import Dealt, InBatch, Ring
from ecgfast.miners.rows import Negatives
from ecgfast.ops import gather

CASES = ["batch", "far", "ring", "dealt", "weighted"]
TAKE, STEPS = 12, 3  # records of a step, of all ranks


def build(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    distance, together = InputDistance("mean_l1"), {"gathered": True}
    pool = {
        "batch": lambda: InBatch(distance, rule="knn", k=3, **together),
        "far": lambda: InBatch(distance, between_rows=True, **together),
        "ring": lambda: Ring(distance, size=20, between_rows=True, **together),
        "dealt": lambda: Dealt(distance, **together),
        "weighted": lambda: InBatch(distance, **together),
    }[kind]()
    negatives = {
        "batch": lambda: Negatives("random"),
        "far": lambda: Negatives("farthest", topk=3, correction="csls"),
        "ring": lambda: Negatives("farthest", topk=2),
        "dealt": lambda: Negatives("random"),
        "weighted": lambda: Negatives("distance_weighted"),
    }[kind]()
    loss = {
        "batch": lambda: TripletLoss(0.2),
        "far": lambda: TripletLoss(0.2),
        "ring": lambda: MinedNTXentLoss(0.2),
        "dealt": lambda: MinedMultiSimilarityLoss(),
        "weighted": lambda: MarginLoss(),
    }[kind]()
    group = torch.arange(60) // 2
    ids = torch.stack([torch.arange(60), group, group])
    made = SSLDML(net, pool, negatives, loss, ids=ids, normalise=True, seed=3, optim=Optim())
    made.log_dict = lambda numbers: None
    return made


def records(step, rank=0, world=1, kind="batch"):
    """What a rank reads; dealt partners follow their anchors on each rank."""
    index = torch.arange(TAKE) + (TAKE * step) % 48
    parts = index.reshape(2, -1) if kind == "dealt" else index[None]
    size = parts.shape[1] // world
    index = parts[:, rank * size : (rank + 1) * size].flatten()
    ecg = torch.randn(60, 2, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ecg[4, 0, 3] = torch.nan
    return {"ecg": ecg[index], "index": index}


class Step(nn.Module):
    """So that DistributedDataParallel sees the whole step."""

    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, batch):
        return self.method.training_step(batch, 0)


def run(kind, rank=0, world=1):
    step = Step(build(kind))
    module = DistributedDataParallel(step, broadcast_buffers=False) if world > 1 else step
    losses = []
    for k in range(STEPS):  # a ring holds the past
        module.zero_grad()
        value = module(records(k, rank, world, kind))
        value.backward()
        losses.append(gather(value.detach()[None]).mean())
    gradients = {name: p.grad for name, p in step.method.encoder.named_parameters()}
    return {"losses": torch.stack(losses), "gradients": gradients}


def main(store, out, kinds):
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    found = {kind: run(kind, rank, 2) for kind in kinds.split(",")}
    if rank == 0:
        torch.save(found, out)
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
