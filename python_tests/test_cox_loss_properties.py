"""What must hold of the partial likelihood, for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.cox_loss import TIES, cox_loss_reference
from python_tests.test_cox_loss import draw, step

batches = st.builds(
    lambda n, times, share, seed: draw(n, times, dtype=torch.float64, share=share, seed=seed),
    st.integers(1, 40),
    st.integers(1, 30),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
RULES = st.sampled_from(TIES)
MANY = settings(max_examples=60, deadline=None)


def assert_close(one, other, scale=1.0):
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13 * (1 + scale))


@MANY
@given(batches, RULES)
def test_it_is_the_definition(batch, ties):
    assert_close(step(*batch, ties)[0], cox_loss_reference(*batch, ties=ties))


@MANY
@given(batches, RULES, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(batch, ties, random):
    order = list(range(len(batch[0])))
    random.shuffle(order)
    loss, gradient = step(*batch, ties)
    mixed_loss, mixed_gradient = step(*(tensor[order] for tensor in batch), ties)
    assert_close(mixed_loss, loss)
    assert_close(mixed_gradient, gradient[order])


@MANY
@given(batches, RULES, st.floats(-1e4, 1e4))
def test_adding_a_constant_changes_nothing(batch, ties, constant):
    x, time, event = batch
    for moved, there in zip(
        step(x + constant, time, event, ties), step(x, time, event, ties), strict=True
    ):
        assert_close(moved, there, scale=abs(constant))


@MANY
@given(batches, RULES)
def test_times_count_by_their_order(batch, ties):
    x, time, event = batch
    for moved, there in zip(
        step(x, (time / 100 + 1).log() ** 3, event, ties), step(x, time, event, ties), strict=True
    ):
        assert torch.equal(moved, there)


@MANY
@given(batches, RULES)
def test_a_gradient_moves_nothing_as_a_whole(batch, ties):
    _, gradient = step(*batch, ties)
    assert abs(gradient.sum().item()) < 1e-13 * len(gradient)


@MANY
@given(batches)
def test_efron_never_costs_more_than_breslow(batch):
    efron, breslow = (step(*batch, ties)[0].item() for ties in TIES)
    assert efron <= breslow + 1e-13 * (1 + breslow)
    assert efron >= -1e-13
