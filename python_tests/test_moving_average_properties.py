"""What must hold of moving_average for any window, length, edge and strides."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ecgfast.ops.moving_average import moving_average
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
@given(signals, st.integers(1, 400), modes)
def test_equals_scipy(x, window, mode):
    truth = ndimage.uniform_filter1d(x.numpy(), window, axis=-1, mode=mode)
    y = moving_average(x, window, mode=mode)
    np.testing.assert_allclose(y.numpy(), truth, rtol=0, atol=1e-12 * (1 + x.abs().max().item()))
    near = moving_average(x.float(), window, mode=mode)
    allowed = 1e-6 * max(x.abs().max().item(), 1e-6)
    assert (near - moving_average(x.float().double(), window, mode=mode)).abs().max() <= allowed


@settings(deadline=None)
@given(signals, st.integers(1, 400), modes)
def test_gradient_is_the_transposed_map(x, window, mode):
    x = x.clone().requires_grad_()
    y = moving_average(x, window, mode=mode)
    other = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    (back,) = torch.autograd.grad(y, x, other)
    there, here = (y * other).sum().item(), (x * back).sum().item()
    assert abs(there - here) <= 1e-12 * max(x.norm().item() * other.norm().item(), 1e-6)
