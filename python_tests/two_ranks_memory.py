"""One of two ranks with a memory of past batches: values, gradients and memory."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ecgfast.losses.memory import CrossBatchMemory


class Softmax(torch.nn.Module):
    def forward(self, embeddings, labels, *, references, reference_labels, places):
        same = labels[:, None] == reference_labels
        itself = places[:, None] == torch.arange(len(references))
        logits = (embeddings @ references.mT).masked_fill(itself, -torch.inf)
        near = (logits.logsumexp(dim=1, keepdim=True) - logits)[same & ~itself]
        return near.mean()


def train(part):
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    network = torch.nn.Sequential(*layers).double()
    several = torch.distributed.is_initialized()
    model = DistributedDataParallel(network) if several else network
    memory = CrossBatchMemory(Softmax(), memory_size=10, embedding_dim=4, gather=several).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(1)
    found = {}
    for step in range(4):
        ecg = torch.randn(8, 6, generator=draw, dtype=torch.float64)
        labels = torch.randint(3, (8,), generator=draw)
        optimizer.zero_grad()
        value = memory(model(ecg[part]), labels[part])
        value.backward()
        optimizer.step()
        found[f"value {step}"] = value.detach()
    found |= {name: p.detach() for name, p in network.named_parameters()}
    return found | {name: x.clone() for name, x in memory.named_buffers()}


def run(rank):
    return train(slice(4 * rank, 4 * rank + 4))
