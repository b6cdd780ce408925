"""pairwise_distance against plain torch: ``pytest bench/bench_pairwise_distance.py``."""

from __future__ import annotations

import functools

import pytest
import torch

from ecgfast.ops.pairwise_distance import (
    METRICS,
    pairwise_distance,
    pairwise_distance_reference,
)

# (N, M, D), M = None for rows against themselves: batches of embeddings, as a miner sees them;
# embeddings against a memory of them; the batch of SSL-DML, 12 leads of 10 s at 250 Hz as one row
SHAPES = [(256, None, 128), (1024, None, 128), (4096, None, 128), (256, 4096, 128)]
SHAPES += [(64, None, 30000)]
MOST_BYTES = 2**31  # of the N M D numbers that the broadcast form makes; it makes them twice
COMPILED = [  # Inductor takes its time
    (metric, shape)
    for metric in ("euclidean", "mean_l1")
    for shape in [(1024, None, 128), (64, None, 30000)]
]


def best_plain(x, y=None, *, metric):
    """What a user who knows torch would pick: cdist, and a matrix product for cosine."""
    y = x if y is None else y
    if metric == "cosine":
        return 1 - torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    if metric in ("l1", "mean_l1"):
        distance = torch.cdist(x, y, p=1)
        return distance / x.shape[1] if metric == "mean_l1" else distance
    distance = torch.cdist(x, y)
    return distance.square() if metric == "sqeuclidean" else distance


PROVIDERS = {
    "ecgfast": pairwise_distance,
    "broadcast": pairwise_distance_reference,  # (x[:, None] - y).abs().mean(-1), as one writes it
    "compiled": pairwise_distance_reference,
    "cdist": best_plain,
}


def draw(device, provider, metric, n, m, d):
    if provider in ("broadcast", "compiled") and 4 * n * (m or n) * d > MOST_BYTES:
        pytest.skip(f"the broadcast form takes {8 * n * (m or n) * d / 2**30:.0f} GiB")
    if provider == "compiled" and (metric, (n, m, d)) not in COMPILED:
        pytest.skip("compiled for two metrics at two shapes only")
    generator = torch.Generator().manual_seed(0)
    x, y = (
        None if rows is None else torch.randn(rows, d, generator=generator).to(device)
        for rows in (n, m)
    )
    function = functools.partial(PROVIDERS[provider], metric=metric)
    if provider == "compiled":
        torch._dynamo.reset()
        function = torch.compile(function, dynamic=False)
    return function, [x] if y is None else [x, y]


def flops_a_column(metric):
    """A product of matrices needs one multiply-add; l1 a difference and an addition."""
    return 4 if metric in ("l1", "mean_l1") else 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, provider, metric, shape):
    n, m, d = shape
    function, sides = draw(device, provider, metric, *shape)
    pairs = n * (n - 1) // 2 if m is None else n * m
    measure(
        function,
        *sides,
        least_bytes=sum(rows.nbytes for rows in sides) + 4 * n * (m or n),
        least_flops=flops_a_column(metric) * pairs * d,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward_and_backward(measure, device, provider, metric, shape):
    n, m, d = shape
    function, sides = draw(device, provider, metric, *shape)
    for rows in sides:
        rows.requires_grad_()
    grad = torch.ones(n, m or n, device=device)

    def step(*rows):
        return torch.autograd.grad(function(*rows), rows, grad)

    pairs = n * (n - 1) // 2 + n * n if m is None else 3 * n * m  # forward, then once a side
    measure(
        step,
        *sides,
        least_bytes=3 * sum(rows.nbytes for rows in sides) + 8 * n * (m or n),
        least_flops=flops_a_column(metric) * pairs * d,
    )
