"""triplet_loss, fused against plain torch: ``pytest bench/bench_triplet_loss.py``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ecgfast.ops.triplet_loss import triplet_loss

# (N, D, K): one triplet an anchor, as SSL-DML mines them, and sixteen of wide embeddings
SHAPES = [(64, 128, 64), (1024, 128, 1024), (4096, 128, 4096), (4096, 512, 65536)]


def gathered(embeddings, anchors, positives, negatives):
    """As one writes it: three gathers, two distances, a hinge."""
    a, p, n = embeddings[anchors], embeddings[positives], embeddings[negatives]
    return torch.relu((a - p).square().sum(dim=1) - (a - n).square().sum(dim=1) + 0.2).mean()


def _squared(x, y):
    return (x - y).square().sum(dim=-1)


_peer = nn.TripletMarginWithDistanceLoss(distance_function=_squared, margin=0.2)


def of_torch(embeddings, *rows):
    """The module that torch has for it."""
    return _peer(*(embeddings[row] for row in rows))


PROVIDERS = {
    "ecgfast": triplet_loss,
    "gathered": gathered,
    "compiled": gathered,
    "torch.nn": of_torch,
}


def draw(device, provider, n, d, k):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator) / d**0.25  # about half are active
    rows = torch.randint(n, (3, k), generator=generator)
    function = PROVIDERS[provider]
    if provider == "compiled":
        torch._dynamo.reset()
        function = torch.compile(function, dynamic=False)
    return function, embeddings.to(device), rows.to(device)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, provider, shape):
    _, d, k = shape
    function, embeddings, rows = draw(device, provider, *shape)
    measure(
        function,
        embeddings,
        *rows,
        least_bytes=embeddings.nbytes + rows.nbytes,
        least_flops=8 * k * d,  # two differences, two multiply-adds
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward_and_backward(measure, device, provider, shape):
    _, d, k = shape
    function, embeddings, rows = draw(device, provider, *shape)
    active = int((triplet_loss(embeddings, *rows, reduction="none") > 0).sum())
    embeddings.requires_grad_()

    def step(x, *triplets):
        return torch.autograd.grad(function(x, *triplets), x)

    measure(
        step,
        embeddings,
        *rows,
        least_bytes=3 * embeddings.nbytes + 2 * rows.nbytes,  # x, indices; both again, and dx
        least_flops=(8 * k + 12 * active) * d,  # a difference and a multiply-add, three times
    )
