"""What must hold of resample_poly for any ratio, length, filter and strides."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from ecgfast.ops.resample_poly import resample_poly
from ecgfast.testing import make_ecg

signals = st.builds(
    lambda n, leads, samples, step, seed: make_ecg(
        n, leads, samples * step, seed=seed, dtype=torch.float64
    )[..., ::step],
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(2, 300),
    st.integers(1, 2),
    st.integers(0, 1000),
)
terms = st.integers(1, 30)
windows = st.one_of(
    st.just(("kaiser", 5.0)),
    st.tuples(st.just("kaiser"), st.floats(0, 12)),
    st.lists(st.floats(-1, 1), min_size=1, max_size=90).map(np.array),
)
padtypes = st.sampled_from(["constant", "line", "mean", "median", "maximum", "minimum"])


@settings(deadline=None)
@given(signals, terms, terms, windows, padtypes)
def test_equals_scipy(x, up, down, window, padtype):
    truth = signal.resample_poly(x.numpy(), up, down, axis=-1, window=window, padtype=padtype)
    y = resample_poly(x, up, down, window=window, padtype=padtype)
    gain = 1 if isinstance(window, tuple) else max(1, up * np.abs(window).sum())
    allowed = 1e-13 * gain * max(1, x.abs().max().item())
    np.testing.assert_allclose(y.numpy(), truth, rtol=0, atol=allowed)


@settings(deadline=None)
@given(signals, terms, terms)
def test_linear_equals_interp(x, up, down):
    y = resample_poly(x, up, down, mode="linear")
    divisor = np.gcd(up, down)
    at = np.arange(y.shape[-1]) * (down // divisor) / (up // divisor)
    truth = [np.interp(at, np.arange(x.shape[-1]), row) for row in x.flatten(0, 1).numpy()]
    np.testing.assert_allclose(y.flatten(0, 1).numpy(), truth, rtol=0, atol=1e-13)


@settings(deadline=None)
@given(signals, terms, terms, windows, st.sampled_from(["constant", "line", "mean"]))
def test_gradient_is_the_transposed_map(x, up, down, window, padtype):
    x = x.clone().requires_grad_()
    y = resample_poly(x, up, down, window=window, padtype=padtype)
    other = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    (back,) = torch.autograd.grad(y, x, other)
    there, here = (y * other).sum().item(), (x * back).sum().item()
    size = max(y.norm().item() * other.norm().item(), x.norm().item() * back.norm().item())
    assert abs(there - here) <= 1e-12 * max(size, 1e-6)


@settings(deadline=None)
@given(signals, terms, terms)
def test_float32_is_near_float64(x, up, down):
    exact = resample_poly(x, up, down)
    near = resample_poly(x.float(), up, down)
    exact_of_rounded = resample_poly(x.float().double(), up, down)
    peak = max(exact.abs().max().item(), x.abs().max().item())
    assert (near - exact_of_rounded).abs().max() <= 1e-6 * peak
