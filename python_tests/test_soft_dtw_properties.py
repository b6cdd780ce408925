"""What must hold of soft_dtw for any records, bands, lengths and gammas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.dtw import dtw
from ecgfast.ops.soft_dtw import soft_dtw
from python_tests.test_soft_dtw import check, largest, make_sides

pytestmark = pytest.mark.filterwarnings("ignore:[xy] has .* leads of", "ignore:soft_dtw reaches")

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 13), st.integers(1, 70), st.integers(1, 3), st.integers(1, 70)
)
radii = st.one_of(st.none(), st.integers(0, 80), st.floats(0, 1))
gammas = st.floats(0.01, 100)
dtypes = st.sampled_from((torch.float32, torch.float64))


@settings(deadline=None, max_examples=30)  # the reference takes most of a second
@given(shapes, st.integers(0, 9), dtypes, gammas, radii, st.booleans())
def test_equals_the_recurrence_and_its_gradient(shape, seed, dtype, gamma, radius, divergence):
    x, y = make_sides(shape, dtype=dtype)
    check(x.roll(seed, dims=-1), y, gamma, radius=radius, divergence=divergence)


@settings(deadline=None, max_examples=50)
@given(shapes, dtypes, gammas, radii, st.data())
def test_is_the_same_from_either_side_and_for_crops(shape, dtype, gamma, radius, data):
    x, y = make_sides(shape, dtype=dtype)
    n = data.draw(st.lists(st.integers(1, shape[2]), min_size=len(x), max_size=len(x)))
    m = data.draw(st.lists(st.integers(1, shape[4]), min_size=len(y), max_size=len(y)))
    words = dict(gamma=gamma, radius=radius)
    there = soft_dtw(x, y, lengths=(n, m), **words)
    assert torch.equal(there, soft_dtw(y, x, lengths=(m, n), **words).T)
    for i, a in enumerate(n):
        for j, b in enumerate(m):
            alone = soft_dtw(x[i : i + 1, :, :a], y[j : j + 1, :, :b], **words)
            assert alone.item() == there[i, j].item()


@settings(deadline=None, max_examples=50)
@given(shapes, dtypes, gammas, radii, st.integers(-6, 6))
def test_scales_with_the_square_and_gamma(shape, dtype, gamma, radius, power):
    x, y = make_sides(shape, dtype=dtype)
    scale = 2.0**power
    value = soft_dtw(x, y, gamma, radius=radius)
    scaled = soft_dtw(x * scale, y * scale, gamma * scale**2, radius=radius)
    samples = x.shape[-1] + y.shape[-1]
    allowed = (samples + x.shape[1]) * torch.finfo(dtype).eps * largest(value, samples, gamma)
    assert ((scaled / scale**2 - value).abs() <= allowed).all()


@settings(deadline=None, max_examples=50)
@given(shapes, gammas, radii)
def test_lies_under_dtw_and_falls_with_gamma(shape, gamma, radius):
    x, y = make_sides(shape, dtype=torch.float64)
    hard = dtw(x, y, radius=radius, root=False)
    less, more = (soft_dtw(x, y, g, radius=radius) for g in (gamma, 2 * gamma))
    rounding = 1e-12 * (1 + hard + more.abs())
    assert (less <= hard + rounding).all()
    assert (more <= less + rounding).all()


@settings(deadline=None, max_examples=50)
@given(shapes, gammas, radii)
def test_gradients_of_both_sides_add_up_to_nothing(shape, gamma, radius):
    x, y = (side.requires_grad_() for side in make_sides(shape, dtype=torch.float64))
    value = soft_dtw(x, y, gamma, radius=radius)
    dx, dy = torch.autograd.grad(value.sum(), (x, y))  # a shift of both leaves every value
    both = dx.sum(dim=(0, 2)) + dy.sum(dim=(0, 2))
    assert (both.abs() <= 1e-11 * (1 + dx.abs().sum(dim=(0, 2)))).all()
