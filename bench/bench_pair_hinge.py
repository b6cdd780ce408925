"""Contrastive and all-triplets losses over all pairs: ``pytest bench/bench_pair_hinge.py``.

All inputs are SYNTHETIC. The peer is pytorch-metric-learning, where it is installed.
"""

from __future__ import annotations

import pytest
import torch

from ecgfast.ops import all_triplets, contrastive

# (N, D, classes): batches of deep metric learning, four rows a class and two classes
TRIPLETS = [(256, 128, 64), (512, 128, 128), (512, 128, 2), (2048, 512, 512)]
PAIRS = [(384, 128, 96), (2048, 512, 512)]
LARGE = [4096, 16384, 65536]  # peak memory is linear in N
LISTED = 2**31  # bytes beyond which triplets are not listed here


def of_peer(name, **words):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    from pytorch_metric_learning.distances import LpDistance

    loss = getattr(losses, name)(distance=LpDistance(normalize_embeddings=False), **words)
    return lambda x, labels: loss(x, labels)


def plain_contrastive(x, labels):
    """As one writes it: all distances, two masks."""
    d = torch.cdist(x, x)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    pairs = torch.where(positive, d, 0), torch.where(same, 0, torch.relu(1 - d))
    return sum(h.sum() / (h > 0).sum().clamp(min=1) for h in pairs)


def plain_triplets(x, labels):
    """As one writes it: all N x N x N hinges."""
    d = torch.cdist(x, x)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    counted = positive[:, :, None] & ~same[:, None, :]
    hinges = torch.where(counted, torch.relu(d[:, :, None] - d[:, None, :] + 0.2), 0)
    return hinges.sum() / (hinges > 0).sum().clamp(min=1)


def draw(device, n, d, classes):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, d, generator=generator)
    labels = torch.arange(n) % classes
    x = centres[labels] + torch.randn(n, d, generator=generator)
    return (x / (2 * d) ** 0.5).to(device).requires_grad_(), labels.to(device)


def step(loss):
    return lambda x, labels: torch.autograd.grad(loss(x, labels), x)


def provider_of(name, ours, plain, peer, **words):
    if name == "ecgfast":
        return ours
    if name == "compiled":
        torch._dynamo.reset()
        return torch.compile(plain, dynamic=False)
    return plain if name == "torch" else of_peer(peer, **words)


@pytest.mark.parametrize("shape", PAIRS, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "torch", "compiled", "pml"])
def bench_contrastive(measure, device, provider, shape):
    x, labels = draw(device, *shape)
    loss = provider_of(provider, contrastive, plain_contrastive, "ContrastiveLoss")
    # S and S again, and C x
    measure(step(loss), x, labels, least_bytes=3 * x.nbytes, least_flops=6 * len(x) ** 2 * shape[1])


@pytest.mark.parametrize("shape", TRIPLETS, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "torch", "pml"])
def bench_all_triplets(measure, device, provider, shape):
    n, d, classes = shape
    listed = n * (n // classes) * n * 24  # three indices of 8 bytes a triplet
    if (provider == "pml" and listed > LISTED) or (provider == "torch" and n > 512):
        pytest.skip("its list of triplets would not fit here")
    x, labels = draw(device, *shape)

    def ours(rows, ids):
        return all_triplets(rows, ids).loss

    words = dict(margin=0.2, triplets_per_anchor="all")
    loss = provider_of(provider, ours, plain_triplets, "TripletMarginLoss", **words)
    # S and S again, C x and its transpose
    measure(step(loss), x, labels, least_bytes=3 * x.nbytes, least_flops=8 * n**2 * d)


@pytest.mark.parametrize("n", LARGE)
@pytest.mark.parametrize("op", ["contrastive", "all_triplets"])
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_peak_memory(measure, device, provider, op, n, benchmark):
    """Forward and backward at D = 128: look at the peak."""
    benchmark._min_rounds, benchmark._max_time, benchmark._warmup = 1, 0.0, False
    x, labels = draw(device, n, 128, n // 4)

    def loss(rows, ids):
        return contrastive(rows, ids) if op == "contrastive" else all_triplets(rows, ids).loss

    measure(step(loss), x, labels, least_bytes=3 * x.nbytes, least_flops=6 * n**2 * 128)
