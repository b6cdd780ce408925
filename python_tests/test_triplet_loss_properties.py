"""What must hold of triplet_loss for any triplets."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.triplet_loss import triplet_loss
from python_tests.test_triplet_loss import draw, gradient

problems = st.builds(
    lambda n, d, k, seed: draw(n, d, k, dtype=torch.float64, seed=seed),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(0, 2**31),
)


@settings(max_examples=40, deadline=None)
@given(problems, st.floats(0, 2), st.floats(0, 2))
def test_a_wider_margin_never_costs_less(problem, margin, more):
    embeddings, rows = problem
    narrow, wide = (triplet_loss(embeddings, *rows, margin=m) for m in (margin, margin + more))
    assert narrow <= wide <= narrow + more + 1e-12


@settings(max_examples=40, deadline=None)
@given(problems, st.floats(-10, 10))
def test_moving_all_embeddings_changes_nothing(problem, shift):
    embeddings, rows = problem
    moved = triplet_loss(embeddings + shift, *rows)
    torch.testing.assert_close(moved, triplet_loss(embeddings, *rows), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(  # so the gradient has no part along a common shift
        gradient(embeddings, rows).sum(dim=0), torch.zeros_like(embeddings[0]), rtol=0, atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(problems, st.randoms(use_true_random=False))
def test_the_order_of_triplets_is_nothing(problem, random):
    embeddings, rows = problem
    order = list(range(rows.shape[1]))
    random.shuffle(order)
    mixed = triplet_loss(embeddings, *rows[:, order])
    torch.testing.assert_close(mixed, triplet_loss(embeddings, *rows), rtol=1e-14, atol=0)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_scaling_embeddings_scales_the_loss_by_the_square(problem, scale):
    embeddings, rows = problem
    scaled = triplet_loss(embeddings * scale, *rows, margin=0.2 * scale**2)
    expected = triplet_loss(embeddings, *rows) * scale**2
    torch.testing.assert_close(scaled, expected, rtol=0, atol=0)
