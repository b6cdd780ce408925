"""The batches of a step are a pure function of the step."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfast.data.sampler import StepSampler

LAYOUTS = st.tuples(
    st.integers(1, 5),  # batch size
    st.integers(1, 4),  # world size
    st.integers(0, 40),  # records beyond one global batch
    st.integers(0, 2**31),  # seed
    st.sampled_from(["shuffled", "fixed"]),
)


def ranks(batch_size, world_size, more, seed, order, start_step=0):
    how = {"seed": seed, "order": order, "world_size": world_size, "start_step": start_step}
    n = batch_size * world_size + more
    return [StepSampler(n, batch_size, rank=rank, **how) for rank in range(world_size)]


@given(LAYOUTS)
def test_no_record_comes_twice_in_an_epoch_and_the_rest_is_dropped(layout):
    samplers = ranks(*layout)
    steps = samplers[0].steps_per_epoch
    for epoch in (0, 1, 3):
        seen = [i for s in samplers for k in range(steps) for i in s.batch(epoch * steps + k)]
        assert len(seen) == len(set(seen)) == steps * layout[0] * layout[1]
        assert set(seen) <= set(range(samplers[0].num_records))


@given(LAYOUTS, st.integers(0, 60))
def test_a_stream_begun_late_is_the_rest_of_the_stream(layout, start):
    for whole, rest in zip(ranks(*layout), ranks(*layout, start_step=start), strict=True):
        expected = list(itertools.islice(whole, start, start + 7))
        assert list(itertools.islice(rest, 7)) == expected
        assert [rest.batch(k) for k in range(start, start + 7)] == expected


@given(LAYOUTS)
def test_ranks_together_read_what_one_process_reads(layout):
    batch_size, world_size, more, seed, order = layout
    n = batch_size * world_size + more
    alone = StepSampler(n, batch_size * world_size, seed=seed, order=order)
    samplers = ranks(*layout)
    for step in range(5):
        assert [i for s in samplers for i in s.batch(step)] == alone.batch(step)


def test_order_of_asking_does_not_show():
    sampler = StepSampler(50, 4, seed=3)
    forward = [sampler.batch(k) for k in range(40)]
    assert [sampler.batch(k) for k in reversed(range(40))] == forward[::-1]


def test_epochs_and_seeds_differ_but_fixed_order_repeats():
    shuffled = StepSampler(64, 64, seed=1)
    assert shuffled.batch(0) != shuffled.batch(1)
    assert shuffled.batch(0) != StepSampler(64, 64, seed=2).batch(0)
    fixed = StepSampler(70, 32, seed=1, order="fixed")
    assert fixed.batch(0) == fixed.batch(2) == list(range(32))
    assert fixed.batch(1) == list(range(32, 64))


def test_every_record_has_its_turn():
    sampler = StepSampler(10, 4, seed=0)
    assert {i for k in range(40) for i in sampler.batch(k)} == set(range(10))


def test_too_few_records_say_so():
    with pytest.raises(ValueError, match=r"takes 8 records on each of 2 process.* only 15"):
        StepSampler(15, 8, seed=0, world_size=2)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        StepSampler(15, 1, seed=0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="order must be"):
        StepSampler(15, 1, seed=0, order="random")
