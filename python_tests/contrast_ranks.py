"""One of some ranks: losses that gather, their values and gradients, written by rank 0."""

from __future__ import annotations

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.contrastive import InfoNCELoss, MultiSimilarityLoss, NTXentLoss, SupConLoss
from ecgfast.ops import gather

ROWS = 24
# Most of the positive pairs lie in the first rows, so that ranks have unequal numbers of them.
LABELS = torch.tensor(
    [5, 5, 5, 5, 5, 7, 7, 9, 5, 1, 2, 3, 7, 4, 9, 11, 12, 13, 1, 14, 15, 16, 17, 2]
)
GROUPS = torch.arange(ROWS) % 5


class Task(torch.nn.Module):
    """A small network with a loss behind it, so that DDP sees all parameters."""

    def __init__(self, name, gathers):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
        )
        made = dict(
            nt_xent=NTXentLoss,
            nt_xent_sum=lambda gather: NTXentLoss(reduction="sum", gather=gather),
            sup_con=SupConLoss,
            multi_similarity=MultiSimilarityLoss,
            info_nce=InfoNCELoss,
            info_nce_labels=InfoNCELoss,
            info_nce_one_way=lambda gather: InfoNCELoss(symmetric=False, gather=gather),
        )
        self.name = name
        self.loss = made[name](gather=gathers)

    def forward(self, batch, labels, groups):
        rows = self.network(batch)
        if not self.name.startswith("info_nce"):
            return self.loss(rows, labels, groups=groups)
        keys = torch.sin(3 * rows)
        words = dict(labels=labels, groups=groups) if self.name == "info_nce_labels" else {}
        return self.loss(rows, keys, **words)


NAMES = [
    "nt_xent",
    "nt_xent_sum",
    "sup_con",
    "multi_similarity",
    "info_nce",
    "info_nce_labels",
    "info_nce_one_way",
]


def batch():
    return torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def main(store, out, world):
    rank, world = int(os.environ["RANK"]), int(world)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world
    )
    count = ROWS // world
    ours = slice(rank * count, (rank + 1) * count)
    found = {}
    for name in NAMES:
        task = DistributedDataParallel(Task(name, gathers=True).double())
        value = task(batch()[ours], LABELS[ours], GROUPS[ours])
        value.backward()
        values = gather(value.detach()[None])
        gradients = {key: p.grad for key, p in task.module.named_parameters()}
        found[name] = {"loss": values.mean(), "gradients": gradients}
    if rank == 0:
        torch.save(found, out)
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
