"""info_nce and its sisters against plain torch: ``pytest bench/bench_info_nce.py``.

pytorch-metric-learning is measured where it is installed, at sizes that it can hold. Embeddings are
SYNTHETIC: random directions, two rows a label.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ecgfast.ops import info_nce, nt_xent, sup_con

try:
    from pytorch_metric_learning import losses as peer
except ImportError:
    peer = None

TAU = 0.07


def dense_nt_xent(x, labels):
    """The best form for two rows a label: cross entropy with the anchor itself masked."""
    z = functional.normalize(x) @ functional.normalize(x).T / TAU
    z.fill_diagonal_(-math.inf)
    return functional.cross_entropy(z, torch.arange(len(x), device=x.device) ^ 1)


def dense_sup_con(x, labels):
    """As one writes it: the anchor itself masked, a mask of positives."""
    unit = functional.normalize(x)
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    z = (unit @ unit.T / 0.1).masked_fill(itself, -math.inf)
    positive = (labels[:, None] == labels) & ~itself
    count = positive.sum(dim=1)
    far = torch.where(positive, z.logsumexp(dim=1, keepdim=True) - z, 0).sum(dim=1)
    return (far / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def dense_info_nce(x, labels):
    """Cross entropy of rows and columns of one matrix."""
    q, k = functional.normalize(x).chunk(2)
    z, own = q @ k.T / TAU, torch.arange(len(q), device=x.device)
    return (functional.cross_entropy(z, own) + functional.cross_entropy(z.T, own)) / 2


def of_peer(name, **words):
    return None if peer is None else getattr(peer, name)(**words)


LOSSES = {
    "nt_xent": dict(
        ecgfast=nt_xent,
        torch=dense_nt_xent,
        compiled=dense_nt_xent,
        pml=of_peer("NTXentLoss", temperature=TAU),
    ),
    "sup_con": dict(
        ecgfast=sup_con,
        torch=dense_sup_con,
        compiled=dense_sup_con,
        pml=of_peer("SupConLoss", temperature=0.1),
    ),
    "info_nce": dict(
        ecgfast=lambda x, labels: info_nce(*x.chunk(2), logit_scale=1 / TAU),
        torch=dense_info_nce,
        compiled=dense_info_nce,
    ),
}
# (N, D): a batch of pairs; the real thing; wide rows; and how memory grows
SHAPES = {
    "nt_xent": [(384, 128), (2048, 512), (4096, 128), (8192, 128), (16384, 128), (65536, 128)],
    "sup_con": [(2048, 512)],
    "info_nce": [(8192, 128)],
}
MOST = {"torch": 8192, "compiled": 8192, "pml": {"nt_xent": 384, "sup_con": 2048}}
CASES = [
    (loss, shape, provider)
    for loss, providers in LOSSES.items()
    for shape in SHAPES[loss]
    for provider in providers
]


@pytest.mark.parametrize(("loss", "shape", "provider"), CASES, ids=str)
def bench_forward_and_backward(measure, device, loss, shape, provider):
    most = MOST.get(provider, math.inf)
    if shape[0] > (most[loss] if isinstance(most, dict) else most):
        pytest.skip("N x N, or more, does not fit")
    function = LOSSES[loss][provider]
    if function is None:
        pytest.skip("pytorch-metric-learning is not installed")
    n, d = shape
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(n, device=device) // 2
    x.requires_grad_()
    if provider == "compiled":
        torch._dynamo.reset()
        function = torch.compile(function, dynamic=False)

    def step(rows, ids):
        return torch.autograd.grad(function(rows, ids), rows)

    pairs = n * n if loss != "info_nce" else n * n // 4
    products = 1.5 if loss != "info_nce" else 3  # half of z, or z, and the gradient of each side
    measure(
        step,
        x,
        labels,
        least_bytes=3 * x.nbytes,  # x twice, its gradient once
        least_flops=int(2 * products * pairs * d),
    )
