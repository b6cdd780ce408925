"""triplet_loss, fused against plain torch: ``pytest bench/bench_triplet_loss.py``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ecgfast.ops.triplet_loss import triplet_loss

SHAPES = [(64, 128, 64), (1024, 128, 1024), (4096, 128, 4096), (4096, 512, 65536)]  # (N, D, K)


def gathered(embeddings, anchors, positives, negatives):
    """As one writes it: three gathers, two distances, a hinge."""
    a, p, n = embeddings[anchors], embeddings[positives], embeddings[negatives]
    return torch.relu((a - p).square().sum(dim=1) - (a - n).square().sum(dim=1) + 0.2).mean()


def _squared(x, y):
    return (x - y).square().sum(dim=-1)


_peer = nn.TripletMarginWithDistanceLoss(distance_function=_squared, margin=0.2)


def peer(embeddings, *rows):
    return _peer(*(embeddings[row] for row in rows))


PROVIDERS = {
    "ecgfast": triplet_loss,
    "torch": gathered,
    "compiled": torch.compile(gathered, dynamic=False),
    "torch.nn": peer,
}


def draw(device, n, d, k):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator) / d**0.25  # about half are active
    return embeddings.to(device), torch.randint(n, (3, k), generator=generator).to(device)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, shape, provider):
    embeddings, rows = draw(device, *shape)
    measure(PROVIDERS[provider], embeddings, *rows, least_bytes=embeddings.nbytes + rows.nbytes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward_and_backward(measure, device, shape, provider):
    embeddings, rows = draw(device, *shape)
    embeddings.requires_grad_()

    def step(x, *triplets):
        return torch.autograd.grad(PROVIDERS[provider](x, *triplets), x)

    # x and the indices; then both again, and dx
    measure(step, embeddings, *rows, least_bytes=3 * embeddings.nbytes + 2 * rows.nbytes)
