"""What must hold of pairwise_distance for any rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.pairwise_distance import METRICS, pairwise_distance
from python_tests.test_pairwise_distance import make_rows

sides = st.builds(
    lambda n, m, d, seed: (
        make_rows(n, d, seed=seed, dtype=torch.float64),
        make_rows(m, d, seed=seed + 1, dtype=torch.float64),
    ),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 80),
    st.integers(0, 1000),
)


@settings(deadline=None)
@given(sides, st.sampled_from(METRICS))
def test_is_the_same_from_either_side(sides, metric):
    x, y = sides
    there, back = pairwise_distance(x, y, metric=metric), pairwise_distance(y, x, metric=metric)
    assert torch.equal(there, back.T)
    assert (there >= 0).all()


@settings(deadline=None)
@given(sides, st.sampled_from(METRICS), st.integers(-30, 30))
def test_a_power_of_two_scales_exactly(sides, metric, power):
    x, y = sides
    degree = {"sqeuclidean": 2, "cosine": 0}.get(metric, 1)
    scaled = pairwise_distance(x * 2.0**power, y * 2.0**power, metric=metric)
    assert torch.equal(scaled, pairwise_distance(x, y, metric=metric) * 2.0 ** (power * degree))


@settings(deadline=None)
@given(sides, st.sampled_from(("euclidean", "l1", "mean_l1")))
def test_a_detour_is_never_shorter(sides, metric):
    x, y = sides
    through = pairwise_distance(x, y, metric=metric)
    detour = (through[:, None] + through[None]).amin(dim=-1)  # x to x, by the best of y
    rounding = 4 * x.shape[1] * torch.finfo(torch.float64).eps  # D terms a sum, at either side
    assert (pairwise_distance(x, metric=metric) <= detour * (1 + rounding)).all()
