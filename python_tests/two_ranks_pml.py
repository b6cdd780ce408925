"""One of two ranks: losses of ecgfast.pml over the rows of both, and their gradients."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.pml import losses, miners, reducers
from ecgfast.pml.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper

EVERY = {
    "NTXentLoss": {},
    "SupConLoss": {},
    "MultiSimilarityLoss": {},
    "ContrastiveLoss": {},
    "TripletMarginLoss": {},
    "MarginLoss": {},
    "AngularLoss": {},
}
CASES = [
    *EVERY,
    *(f"{name} efficient" for name in EVERY),
    "SumReducer efficient",
    "miner",
    "miner efficient",
    "references",
    "references efficient",
    "memory",
]


def batch():
    """Ranks have unlike shares of the pairs: labels are drawn, and the last is alone."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (12,), generator=draw)
    labels[-1] = 9
    return torch.randn(12, 6, generator=draw, dtype=torch.float64), labels


def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 6)
    return torch.nn.Sequential(*layers).double()


def case(name, wrapper=DistributedLossWrapper, package=losses):
    """The value and the gradient of the first layer: of this rank's part, or of all."""
    several = torch.distributed.is_initialized()
    part = slice(None)
    if several:
        rank = torch.distributed.get_rank()
        part = slice(6 * rank, 6 * rank + 6)
    rows, labels = (x[part] for x in batch())
    model = network()
    apply = DistributedDataParallel(model) if several else model
    which, _, how = name.partition(" ")
    efficient = how == "efficient"
    words = {}
    if which == "SumReducer":
        words = {"reducer": reducers.SumReducer()}
    kind = which if which in EVERY else "NTXentLoss"
    loss = getattr(package, kind)(**words)
    embeddings = apply(rows)
    found = {}
    if which == "memory":
        loss = losses.CrossBatchMemory(loss, 6, 20)
        wrapped = wrapper(loss)
        for _ in range(3):
            value = wrapped(embeddings, labels)
        found = dict(loss.named_buffers())
    elif which == "references":
        value = wrapper(loss, efficient)(embeddings, labels, None, embeddings.tanh(), labels)
    elif which == "miner":
        mine = DistributedMinerWrapper(miners.MultiSimilarityMiner(), efficient)
        value = wrapper(loss, efficient)(embeddings, labels, mine(embeddings, labels))
    else:
        value = wrapper(loss, efficient)(embeddings, labels)
    value.backward()
    return {"value": value.detach(), "gradient": model[0].weight.grad, "found": found}


def run(rank):
    every = {name: case(name) for name in CASES}
    every["memory"], memory = {**every["memory"], "found": {}}, every["memory"]["found"]

    import pytorch_metric_learning.losses as theirs
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper as Peer

    peer = case("NTXentLoss efficient", Peer, theirs)
    return every | {"memory": every["memory"] | memory, "peer": peer}
