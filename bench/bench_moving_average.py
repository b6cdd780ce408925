"""moving_average against scipy and torch's pooling: ``pytest bench/bench_moving_average.py``."""

from __future__ import annotations

import functools

import pytest
import torch
from scipy import ndimage

from ecgfast.ops.moving_average import moving_average
from ecgfast.testing import make_ecg

SHAPES = [(1, 12, 5000), (256, 12, 5000)]  # (N, L, T)
WINDOWS = [101, 301]  # 200 and 600 ms at 500 Hz


def scipy_form(x, window):
    return ndimage.uniform_filter1d(x.numpy(), window, axis=-1, mode="constant")


def avg_pool1d_form(x, window):
    return torch.nn.functional.avg_pool1d(x, window, stride=1, padding=window // 2)


PROVIDERS = {
    "ecgfast": functools.partial(moving_average, mode="constant"),
    "scipy": scipy_form,
    "torch": avg_pool1d_form,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, shape, window, provider):
    x = make_ecg(*shape, device=device)
    if provider == "scipy" and device.type != "cpu":
        pytest.skip("scipy runs on the CPU")
    measure(functools.partial(PROVIDERS[provider], window=window), x, least_bytes=2 * x.nbytes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "torch"])
def bench_forward_and_backward(measure, device, shape, provider):
    x = make_ecg(*shape, device=device).requires_grad_()

    def step(x):
        return torch.autograd.grad(PROVIDERS[provider](x, window=101), x, x.detach())

    measure(step, x, least_bytes=4 * x.nbytes)
