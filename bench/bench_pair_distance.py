"""pair_distance and losses on lists against torch: ``pytest bench/bench_pair_distance.py``."""

from __future__ import annotations

import pytest
import torch

from ecgfast.losses.triplet import MarginLoss, TripletLoss
from ecgfast.ops.pair_distance import pair_distance

# (N, D, K): one pair an anchor, and sixteen of wide embeddings
SHAPES = [(64, 128, 64), (4096, 128, 4096), (4096, 512, 65536)]


def gathered(x, rows, columns, *, metric):
    """As one writes it: two gathers, a distance."""
    a, b = x[rows], x[columns]
    if metric == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(a, b)
    return torch.linalg.vector_norm(a - b, dim=1)


def gathered_triplet(x, anchors, positives, negatives):
    """TripletLoss(metric="euclidean") as one writes it."""
    near = gathered(x, anchors, positives, metric="euclidean")
    far = gathered(x, anchors, negatives, metric="euclidean")
    return torch.relu(near - far + 0.2).mean()


def gathered_margin(x, anchors, positives, negatives):
    """MarginLoss as one writes it."""
    near = torch.relu(gathered(x, anchors, positives, metric="euclidean") - 1.0)
    far = torch.relu(1.4 - gathered(x, anchors, negatives, metric="euclidean"))
    active = (near > 0).sum() + (far > 0).sum()
    return (near + far).sum() / active.clamp(min=1)


LOSSES = {
    "triplet": (TripletLoss(metric="euclidean"), gathered_triplet),
    "margin": (MarginLoss(), gathered_margin),
}
PROVIDERS = ["ecgfast", "gathered", "compiled"]


def provided(provider, own, plain):
    if provider == "compiled":
        torch._dynamo.reset()
        return torch.compile(plain, dynamic=False)
    return own if provider == "ecgfast" else plain


def draw(device, n, d, k, lists):
    """Rows of about length 1: distances lie about 1.4 and half of the hinges are open."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator) / d**0.5
    rows = torch.randint(n, (lists, k), generator=generator)
    return embeddings.to(device), rows.to(device)


def forward_and_backward(function):
    def step(x, *rows):
        return torch.autograd.grad(function(x, *rows).sum(), x)

    return step


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, provider, metric, shape):
    _, d, k = shape
    embeddings, rows = draw(device, *shape, 2)
    measure(
        provided(
            provider,
            lambda x, *pair: pair_distance(x, *pair, metric=metric),
            lambda x, *pair: gathered(x, *pair, metric=metric),
        ),
        embeddings,
        *rows,
        least_bytes=embeddings.nbytes + rows.nbytes,
        least_flops={"euclidean": 3, "cosine": 6}[metric] * k * d,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward_and_backward(measure, device, provider, metric, shape):
    _, d, k = shape
    embeddings, rows = draw(device, *shape, 2)
    function = provided(
        provider,
        lambda x, *pair: pair_distance(x, *pair, metric=metric),
        lambda x, *pair: gathered(x, *pair, metric=metric),
    )
    measure(
        forward_and_backward(function),
        embeddings.requires_grad_(),
        *rows,
        least_bytes=3 * embeddings.nbytes + 2 * rows.nbytes,
        least_flops={"euclidean": 9, "cosine": 20}[metric] * k * d,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_loss_forward_and_backward(measure, device, provider, loss, shape):
    _, d, k = shape
    embeddings, rows = draw(device, *shape, 3)
    function = provided(provider, *LOSSES[loss])
    measure(
        forward_and_backward(function),
        embeddings.requires_grad_(),
        *rows,
        least_bytes=3 * embeddings.nbytes + 2 * rows.nbytes,
        least_flops=2 * 3 * k * d,  # what no hinge can leave out: both distances, once
    )
