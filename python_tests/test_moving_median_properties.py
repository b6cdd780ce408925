"""What must hold of moving_median for any window, length, edge and strides."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ecgfast.ops.moving_median import moving_median
from ecgfast.testing import make_ecg

signals = st.builds(
    lambda n, leads, samples, step, seed, steps: rounded(
        make_ecg(n, leads, samples * step, seed=seed, dtype=torch.float64)[..., ::step], steps
    ),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 300),
    st.integers(1, 2),
    st.integers(0, 1000),
    st.sampled_from([0, 10, 1000]),
)
modes = st.sampled_from(["nearest", "reflect", "mirror", "constant", "wrap"])


def rounded(x, steps):
    """As an ADC would give it, with many equal samples."""
    return (x * steps).round() / steps if steps else x


@settings(deadline=None)
@given(signals, st.integers(1, 400), modes, st.booleans())
def test_equals_numpy_and_scipy_bit_for_bit(x, window, mode, wide):
    x = x if wide else x.float()
    y = moving_median(x, window, mode=mode).numpy()
    before = window // 2
    pad = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}.get(mode, mode)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (before, window - 1 - before)], mode=pad)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)
    np.testing.assert_array_equal(y, np.sort(windows, axis=-1)[..., before])
    if before < x.shape[-1]:  # scipy errs where a window reaches round the signal more than once
        truth = ndimage.median_filter(x.numpy(), size=(1, 1, window), mode=mode)
        np.testing.assert_array_equal(y, truth)


@settings(deadline=None)
@given(signals, st.integers(1, 40), modes)
def test_only_the_order_counts(x, window, mode):
    """What keeps the order and 0 does to the median what it does to the samples."""
    y = moving_median(x, window, mode=mode)
    assert torch.equal(moving_median(x * 8, window, mode=mode), y * 8)
