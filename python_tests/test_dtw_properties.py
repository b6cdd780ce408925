"""What must hold of dtw for any records, bands, lengths and costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.dtw import COSTS, dtw, dtw_reference
from python_tests.test_dtw import assert_right, make_sides

pytestmark = pytest.mark.filterwarnings("ignore:[xy] has .* leads of")

shapes = st.tuples(
    st.integers(1, 4), st.integers(1, 13), st.integers(1, 70), st.integers(1, 4), st.integers(1, 70)
)
radii = st.one_of(st.none(), st.integers(0, 80), st.floats(0, 1))
dtypes = st.sampled_from((torch.float32, torch.float64))


@settings(deadline=None)
@given(shapes, st.integers(0, 9), dtypes, st.sampled_from(COSTS), radii, st.booleans())
def test_equals_the_recurrence(shape, seed, dtype, cost, radius, root):
    x, y = make_sides(shape, dtype=dtype)
    x = x.roll(seed, dims=-1)
    words = dict(cost=cost, radius=radius, root=root)
    truth = dtw_reference(x.double(), y.double(), **words)
    assert_right(dtw(x, y, **words), truth, x.shape[-1] + y.shape[-1], x.shape[1])


@settings(deadline=None)
@given(shapes, dtypes, st.sampled_from(COSTS), radii, st.data())
def test_is_the_same_from_either_side_and_for_crops(shape, dtype, cost, radius, data):
    x, y = make_sides(shape, dtype=dtype)
    n = data.draw(st.lists(st.integers(1, shape[2]), min_size=len(x), max_size=len(x)))
    m = data.draw(st.lists(st.integers(1, shape[4]), min_size=len(y), max_size=len(y)))
    words = dict(cost=cost, radius=radius)
    there = dtw(x, y, lengths=(n, m), **words)
    assert torch.equal(there, dtw(y, x, lengths=(m, n), **words).T)
    for i, a in enumerate(n):
        for j, b in enumerate(m):
            alone = dtw(x[i : i + 1, :, :a], y[j : j + 1, :, :b], **words)
            assert alone.item() == there[i, j].item()


@settings(deadline=None)
@given(shapes, dtypes, st.sampled_from(COSTS), radii, st.integers(-12, 12))
def test_a_power_of_two_scales_exactly(shape, dtype, cost, radius, power):
    x, y = make_sides(shape, dtype=dtype)
    words = dict(cost=cost, radius=radius, root=False)
    degree = 2 if cost == "sqeuclidean" else 1
    scaled = dtw(x * 2.0**power, y * 2.0**power, **words)
    assert torch.equal(scaled, dtw(x, y, **words) * 2.0 ** (power * degree))


@settings(deadline=None)
@given(shapes, st.sampled_from(COSTS), st.integers(1, 4))
def test_repeated_samples_cost_nothing(shape, cost, times):
    x, _ = make_sides(shape)
    assert not dtw(x, x.repeat_interleave(times, dim=-1), cost=cost).diagonal().any()


@settings(deadline=None)
@given(shapes, st.sampled_from(COSTS), st.integers(0, 40))
def test_lies_between_its_bounds(shape, cost, radius):
    x, _ = make_sides(shape, dtype=torch.float64)
    y = x.flip(-1) + 0.5
    words = dict(cost=cost, root=False)
    straight = dtw(x, y, radius=0, **words)
    warped = dtw(x, y, radius=radius, **words)
    assert (warped <= straight).all()
    ends = dtw(x[..., :1], y[..., :1], **words)  # every path has its first pair of samples
    assert (warped >= ends).all()


@settings(deadline=None)
@given(shapes, dtypes, radii, st.data())
def test_fast_is_exact_for_whole_numbers(shape, dtype, radius, data):
    x, y = (side.round() for side in make_sides(shape, dtype=dtype))  # sums stay under 2^24
    n = data.draw(st.lists(st.integers(1, shape[2]), min_size=len(x), max_size=len(x)))
    m = data.draw(st.lists(st.integers(1, shape[4]), min_size=len(y), max_size=len(y)))
    words = dict(radius=radius, lengths=(n, m))
    assert torch.equal(dtw(x, y, precision="fast", **words), dtw(x, y, **words))


@settings(deadline=None)
@given(shapes, dtypes, radii, st.integers(-12, 12))
def test_fast_is_symmetric_and_scales_exactly(shape, dtype, radius, power):
    x, y = make_sides(shape, dtype=dtype)
    words = dict(radius=radius, root=False, precision="fast")
    there = dtw(x, y, **words)
    assert torch.equal(there, dtw(y, x, **words).T)
    scaled = dtw(x * 2.0**power, y * 2.0**power, **words)
    assert torch.equal(scaled, there * 2.0 ** (2 * power))
