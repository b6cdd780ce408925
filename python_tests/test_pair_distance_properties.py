"""What must hold of pair_distance for any pairs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.pair_distance import METRICS, pair_distance
from python_tests.test_pair_distance import draw, gradients

problems = st.builds(
    lambda n, m, d, k, seed: draw(n, m, d, k, dtype=torch.float64, seed=seed),
    st.integers(1, 12),
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(0, 2**31),
)
metrics = st.sampled_from(METRICS)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from(["sqeuclidean", "euclidean"]), st.floats(-10, 10))
def test_moving_all_rows_changes_nothing(problem, metric, shift):
    x, y, pairs = problem
    moved = pair_distance(x + shift, *pairs, None if y is None else y + shift, metric=metric)
    still = pair_distance(x, *pairs, y, metric=metric)
    torch.testing.assert_close(moved, still, rtol=1e-10, atol=1e-10)
    total = sum(side.sum(dim=0) for side in gradients(x, y, pairs, metric=metric))
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(problems, metrics, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_scaling_all_rows(problem, metric, scale):
    x, y, pairs = problem
    scaled = pair_distance(x * scale, *pairs, None if y is None else y * scale, metric=metric)
    power = {"sqeuclidean": 2, "euclidean": 1, "cosine": 0, "dot": 2}[metric]
    expected = pair_distance(x, *pairs, y, metric=metric) * scale**power
    torch.testing.assert_close(scaled, expected, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(problems)
def test_cosine_is_between_0_and_2_and_its_gradient_turns_only(problem):
    x, y, pairs = problem
    distance = pair_distance(x, *pairs, y, metric="cosine")
    assert ((distance >= 0) & (distance <= 2 + 1e-14)).all()
    for side, moved in zip((x, y), gradients(x, y, pairs, metric="cosine"), strict=False):
        along = (side * moved).sum(dim=1)
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems, metrics, st.randoms(use_true_random=False))
def test_the_order_of_pairs_is_nothing(problem, metric, random):
    x, y, pairs = problem
    order = list(range(pairs.shape[1]))
    random.shuffle(order)
    mixed = pair_distance(x, *pairs[:, order], y, metric=metric)
    expected = pair_distance(x, *pairs, y, metric=metric)[order]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=0)
    moved = gradients(x, y, pairs[:, order], metric=metric)
    torch.testing.assert_close(moved, gradients(x, y, pairs, metric=metric))


@settings(max_examples=40, deadline=None)
@given(problems, metrics)
def test_invalid_pairs_are_as_if_they_were_not_listed(problem, metric):
    x, y, pairs = problem
    valid = torch.arange(pairs.shape[1]) % 2 == 0
    listed = pairs[:, valid]
    masked = pair_distance(x, *pairs, y, metric=metric, valid=valid)
    without = pair_distance(x, *listed, y, metric=metric)
    torch.testing.assert_close(masked[valid], without, rtol=0, atol=0)
    same = gradients(x, y, pairs, metric=metric, valid=valid)
    torch.testing.assert_close(same, gradients(x, y, listed, metric=metric), rtol=0, atol=0)
