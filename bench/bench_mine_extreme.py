"""batch_hard, label_distance, nearest_farthest: ``pytest bench/bench_mine_extreme.py``.

The peer, pytorch-metric-learning, is timed where it is installed.
"""

from __future__ import annotations

import pytest
import torch

from ecgfast.ops import batch_hard, label_distance, nearest_farthest, triplet_loss

try:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
except ImportError:
    BatchHardMiner = None

SIZES = [(256, 128), (2048, 512), (8192, 128)]
GROWTH = [4096, 8192, 16384, 32768, 65536]  # of memory: N, at D = 128
MARGIN = 0.2


def fused(embeddings, labels):
    triplets = batch_hard(embeddings, labels)
    anchors = torch.arange(len(labels), device=labels.device)
    rows = (anchors, triplets.positives, triplets.negatives)
    return triplet_loss(embeddings, *rows, valid=triplets.valid, margin=MARGIN)


def plain(embeddings, labels):
    """As one writes it: all distances at once, two masks, two gathers."""
    norms = embeddings.square().sum(dim=1)
    apart = (norms[:, None] + norms - 2 * embeddings @ embeddings.T).clamp(min=0)
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = same & ~itself, ~same
    far = apart.masked_fill(~positive, -torch.inf).max(dim=1).values
    near = apart.masked_fill(~negative, torch.inf).min(dim=1).values
    valid = positive.any(dim=1) & negative.any(dim=1)
    hinges = torch.relu(far - near + MARGIN).where(valid, 0)
    return hinges.sum() / valid.sum()


def of_pml(embeddings, labels):
    distance = LpDistance(normalize_embeddings=False, power=2)
    miner, loss = BatchHardMiner(distance=distance), TripletMarginLoss(MARGIN, distance=distance)
    return loss(embeddings, labels, miner(embeddings, labels))


PROVIDERS = {"ecgfast": fused, "torch": plain, "compiled": plain}
if BatchHardMiner is not None:
    PROVIDERS["pml"] = of_pml


def draw(device, provider, n, d):
    """Embeddings and labels, four records a class."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator).to(device)
    function = PROVIDERS[provider]
    if provider == "compiled":
        torch._dynamo.reset()
        function = torch.compile(function, dynamic=False)
    return function, embeddings, (torch.arange(n) // 4).to(device)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_batch_hard_triplet_loss(measure, device, provider, size):
    """Mining, loss, gradient."""
    n, d = size
    function, embeddings, labels = draw(device, provider, n, d)
    embeddings.requires_grad_()

    def step(x, y):
        return torch.autograd.grad(function(x, y), x)

    measure(
        step,
        embeddings,
        labels,
        least_bytes=3 * embeddings.nbytes,  # twice read, and the gradient
        least_flops=2 * n * n * d,
    )


@pytest.mark.parametrize("n", GROWTH)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_memory(measure, device, provider, n):
    """Its peak is the number to read: linear in N."""
    _, embeddings, labels = draw(device, provider, n, 128)
    work = dict(least_bytes=embeddings.nbytes, least_flops=2 * n * n * 128)
    measure(batch_hard, embeddings, labels, **work)


def sorted_labels(values):
    """O(N log N), without groups, ties or a bound: the two ends and the two beside."""
    ascending, order = values.sort()
    before, after = (values.new_full((len(values),), torch.inf) for _ in range(2))
    before[1:] = ascending.diff()
    after[:-1] = ascending.diff()
    count = len(values)
    step = torch.where(before <= after, -1, 1)
    places = torch.arange(count, device=values.device)
    nearest = torch.empty_like(order).scatter(0, order, order[(places + step).clamp(0, count - 1)])
    low, high = values - ascending[0], ascending[-1] - values
    return nearest, torch.where(low >= high, order[0], order[-1])


def all_gaps(values):
    gaps = (values[:, None] - values).abs()
    return gaps.clone().fill_diagonal_(torch.inf).argmin(dim=1), gaps.argmax(dim=1)


LABELS = {"ecgfast": label_distance, "torch": all_gaps, "sorted": sorted_labels}


@pytest.mark.parametrize("n", [64, 1024, 8192])
@pytest.mark.parametrize("provider", LABELS)
def bench_label_distance(measure, device, provider, n):
    values = torch.randn(n, generator=torch.Generator().manual_seed(0)).to(device)
    measure(LABELS[provider], values, least_bytes=values.nbytes + 17 * n)


def argsorted(distances):
    order = distances.argsort(dim=1, descending=True, stable=True)
    return distances.argmin(dim=1), order[:, :2]


ROWS = {"ecgfast": nearest_farthest, "torch": argsorted}


@pytest.mark.parametrize("n", [64, 1024, 4096])
@pytest.mark.parametrize("provider", ROWS)
def bench_nearest_farthest(measure, device, provider, n):
    distances = torch.rand(n, n, generator=torch.Generator().manual_seed(0)).to(device)
    measure(ROWS[provider], distances, least_bytes=distances.nbytes)
