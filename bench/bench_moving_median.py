"""moving_median against scipy and torch's median: ``pytest bench/bench_moving_median.py``."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import ndimage

from ecgfast.ops.moving_median import moving_median, moving_median_reference
from ecgfast.testing import make_ecg

SHAPES = [(1, 12, 5000), (64, 12, 5000)]  # (N, L, T)
WINDOWS = [3, 100, 300]  # a spike, 200 and 600 ms at 500 Hz


def scipy_form(x, window):
    """Row by row: scipy is fast in one dimension alone."""
    rows = x.flatten(0, 1).numpy()
    return np.stack([ndimage.median_filter(row, window, mode="nearest") for row in rows])


PROVIDERS = {
    "ecgfast": functools.partial(moving_median, mode="nearest"),
    "scipy": scipy_form,
    "torch": functools.partial(moving_median_reference, mode="nearest"),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward(measure, device, shape, window, provider):
    x = make_ecg(*shape, device=device)
    if provider == "scipy" and device.type != "cpu":
        pytest.skip("scipy runs on the CPU")
    if provider == "torch" and (window > 3 or shape[0] > 1) and device.type == "cpu":
        pytest.skip("torch sorts every window: seconds, and window times the memory")
    measure(functools.partial(PROVIDERS[provider], window=window), x, least_bytes=2 * x.nbytes)
