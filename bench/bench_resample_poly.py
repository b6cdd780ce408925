"""resample_poly against scipy and torch's convolution: ``pytest bench/bench_resample_poly.py``."""

from __future__ import annotations

import functools

import pytest
import torch
from scipy import signal

from ecgfast.ops._polyphase import kaiser_filter
from ecgfast.ops.resample_poly import resample_poly
from ecgfast.testing import make_ecg

SHAPES = [(1, 12, 5000), (256, 12, 5000)]  # (N, L, T)
RATIOS = [(250, 500), (250, 257), (500, 257), (250, 400)]  # new rate, old rate


def scipy_form(x, up, down):
    return signal.resample_poly(x.numpy(), up, down, axis=-1)


def conv1d_form(x, up, down):
    """The taps of every phase as channels, where there is one phase: only to halve the rate."""
    taps = torch.from_numpy(kaiser_filter(up, down, 5.0)).to(x)
    y = torch.nn.functional.conv1d(
        x.flatten(0, 1)[:, None], taps[None, None], stride=down, padding=len(taps) // 2
    )
    return y.view(*x.shape[:2], -1)


PROVIDERS = {"ecgfast": resample_poly, "scipy": scipy_form, "torch": conv1d_form}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ratio", RATIOS, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, shape, ratio, provider):
    x = make_ecg(*shape, device=device)
    if provider == "scipy" and device.type != "cpu":
        pytest.skip("scipy runs on the CPU")
    up, down = ratio
    if provider == "torch":
        if down != 2 * up:
            pytest.skip("one phase of taps is a convolution, more are not")
        up, down = 1, 2
    y = resample_poly(x, up, down)
    taps = 20 * max(up, down) // up  # of an output, a multiply-add each
    form = functools.partial(PROVIDERS[provider], up=up, down=down)
    measure(form, x, least_bytes=x.nbytes + y.nbytes, least_flops=2 * taps * y.numel())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "torch"])
def bench_forward_and_backward(measure, device, shape, provider):
    x = make_ecg(*shape, device=device).requires_grad_()
    other = make_ecg(*shape[:2], shape[2] // 2, device=device)

    def step(x):
        return torch.autograd.grad(PROVIDERS[provider](x, 1, 2), x, other)

    measure(step, x, least_bytes=2 * (x.nbytes + other.nbytes))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_linear(measure, device, shape, provider):
    x = make_ecg(*shape, device=device)
    form = functools.partial(resample_poly, up=1, down=2, mode="linear")
    measure(form, x, least_bytes=3 * x.nbytes // 2)
