"""Miners that draw, plain torch and the usual library: ``pytest bench/bench_mine_sampled.py``."""

from __future__ import annotations

import functools

import pytest
import torch

from ecgfast.miners.sampled import DistanceWeighted
from ecgfast.ops.mine_sampled import distance_weighted, random_triplets, semi_hard, soft_hard

try:
    from pytorch_metric_learning.miners import DistanceWeightedMiner
except ImportError:
    DistanceWeightedMiner = None

SHAPES = [(256, 128), (1024, 128), (1024, 512), (4096, 512)]  # classes of four
LONG = [4096, 16384, 65536]  # at D = 64: for the memory


def plain(embeddings, labels):
    """The same distribution as one writes it: all pairs, a softmax a row, one multinomial."""
    d = embeddings.shape[1]
    x = torch.nn.functional.normalize(embeddings, dim=1)
    cosine = x @ x.T
    other = labels[:, None] != labels
    legal = other & (cosine > 1 - 1.4**2 / 2)
    cosine = cosine.clamp(max=0.875)
    logs = (3 - d) / 2 * torch.log1p(-cosine.square()) - 0.5 * torch.log1p(-cosine)
    weights = logs.masked_fill(~legal, -torch.inf).softmax(dim=1).nan_to_num(nan=0.0)
    valid = legal.any(dim=1)
    negatives = torch.multinomial(weights + ~valid[:, None], 1)
    same = (~other).float().fill_diagonal_(0)
    positives = torch.multinomial(same + 1e-30, 1)
    return positives, negatives, valid


def draw(device, n, d):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator)
    return embeddings.to(device), torch.arange(n, device=device) // 4


PROVIDERS = {"ecgfast": DistanceWeighted(), "torch": plain}
if DistanceWeightedMiner is not None:
    PROVIDERS["pytorch_metric_learning"] = DistanceWeightedMiner()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_distance_weighted(measure, device, provider, shape):
    n, d = shape
    if provider == "pytorch_metric_learning" and n > 1024:
        pytest.skip("minutes")
    embeddings, labels = draw(device, n, d)
    measure(
        PROVIDERS[provider],
        embeddings,
        labels,
        least_bytes=embeddings.nbytes + 4 * labels.nbytes,
        least_flops=2 * n * n * d + 2 * n * n * 20,  # products; two logarithms and a power
    )


@pytest.mark.parametrize("n", LONG)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_memory(measure, device, provider, n):
    embeddings, labels = draw(device, n, 64)
    measure(
        PROVIDERS[provider],
        embeddings,
        labels,
        least_bytes=embeddings.nbytes + 4 * labels.nbytes,
        least_flops=2 * n * n * 64 + 2 * n * n * 20,
    )


RULES = {"random": random_triplets, "semi_hard": semi_hard, "soft_hard": soft_hard}
RULES["distance_weighted_16"] = functools.partial(distance_weighted, samples=16)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_rules(measure, device, provider, rule):
    embeddings, labels = draw(device, 1024, 128)
    measure(
        RULES[rule],
        embeddings,
        labels,
        least_bytes=embeddings.nbytes + 4 * labels.nbytes,
        least_flops=0 if rule == "random" else 2 * 1024 * 1024 * 128,
    )
