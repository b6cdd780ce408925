"""Filters of second-order sections against scipy: ``pytest bench/bench_sosfiltfilt.py``.

scipy works in float64 on one thread, as its users run it; plain torch has no recursive filter but a
loop over samples, which takes seconds a batch, and is left out.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from ecgfast.ops.sosfiltfilt import sosfilt, sosfiltfilt
from ecgfast.testing import make_ecg

NOTCH = np.r_[scipy.signal.iirnotch(50, 30, fs=500)][None]
BAND = scipy.signal.butter(4, [0.5, 40], "bandpass", fs=500, output="sos")
FILTERS = {
    "K=5": np.vstack([BAND, NOTCH]),  # band-pass of order 4 and a notch
    "K=2": scipy.signal.butter(2, [0.05, 150], "bandpass", fs=500, output="sos"),
}
SHAPES = [(64, 12, 5000), (256, 12, 5000)]  # (N, L, T)


def _scipys(function):
    return lambda x, sos: torch.from_numpy(function(sos, x.numpy()).copy())  # strides are negative


PROVIDERS = {"ecgfast": sosfiltfilt, "scipy": _scipys(scipy.signal.sosfiltfilt)}
CAUSAL = {"ecgfast": sosfilt, "scipy": _scipys(scipy.signal.sosfilt)}


def _least_flops(sections: int, samples: int, directions: int, device: torch.device) -> int:
    """2 a multiply-add. A float64 one takes the place of two of float32, in which speed is told.

    A section needs 3 multiply-adds a sample (its b0 and b2 being 1), and one addition, which many
    processors have other units for; on CUDA, where states are scanned over chunks, 8 in float32.
    """
    each = 3 * 2 * 2 if device.type == "cpu" else 8 * 2
    return each * sections * samples * directions


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, provider, name, shape):
    if provider == "scipy" and device.type != "cpu":
        pytest.skip("scipy has no CUDA")
    ecg, sos = make_ecg(*shape, device=device), FILTERS[name]
    measure(
        lambda x: PROVIDERS[provider](x, sos),
        ecg,
        least_bytes=2 * ecg.nbytes,  # read x, write y
        least_flops=_least_flops(len(sos), ecg.numel(), 2, device),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("provider", ["ecgfast"])  # nobody else has a gradient
def bench_backward(measure, device, provider, name, shape):
    ecg = make_ecg(*shape, device=device).requires_grad_()
    sos = FILTERS[name]
    y = sosfiltfilt(ecg, sos)
    measure(
        lambda g: torch.autograd.grad(y, ecg, g, retain_graph=True),
        make_ecg(*shape, device=device),
        least_bytes=2 * ecg.nbytes,  # read g, write dx
        least_flops=_least_flops(len(sos), ecg.numel(), 2, device),
    )


@pytest.mark.parametrize("shape", SHAPES[:1], ids=str)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("provider", CAUSAL)
def bench_causal(measure, device, provider, name, shape):
    if provider == "scipy" and device.type != "cpu":
        pytest.skip("scipy has no CUDA")
    ecg, sos = make_ecg(*shape, device=device), FILTERS[name]
    measure(
        lambda x: CAUSAL[provider](x, sos),
        ecg,
        least_bytes=2 * ecg.nbytes,
        least_flops=_least_flops(len(sos), ecg.numel(), 1, device),
    )
