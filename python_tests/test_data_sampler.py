"""The batches of a step are a pure function of the step."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfast.data import sampler
from ecgfast.data.sampler import (
    BalancedSampler,
    Lists,
    PairSampler,
    Partners,
    StepSampler,
    StratifiedSampler,
)

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


GROUPS = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array)


@given(GROUPS)
def test_lists_of_groups_hold_each_record_of_a_group_that_is_large_enough(group):
    lists = Lists.of_groups(group, least=2)
    found = [sorted(lists.members[a:b]) for a, b in itertools.pairwise(lists.starts)]
    expected = [list(np.flatnonzero(group == g)) for g in np.unique(group)]
    assert found == [members for members in expected if len(members) >= 2]


@given(GROUPS, st.integers(0, 2**31))
def test_partners_of_a_group_are_its_other_records(group, seed):
    partners, records = Partners.of_groups(group), np.arange(len(group))
    drawn = partners.draw(records, np.random.default_rng(seed).random(len(group)))
    alone = np.bincount(group)[group] == 1
    assert (group[drawn] == group).all()
    assert ((drawn == records) == alone).all()
    assert (partners.counts() == np.bincount(group)[group] - 1).all()


def test_every_partner_is_drawn_as_often_as_the_others():
    partners = Partners.of_groups(np.array([5, 5, 9, 5, 5]))
    drawn = partners.draw(np.full(40_000, 1), np.random.default_rng(0).random(40_000))
    counts = np.bincount(drawn, minlength=5)
    assert counts[[1, 2]].sum() == 0
    assert np.abs(counts[[0, 3, 4]] - 40_000 / 3).max() < 5 * np.sqrt(40_000 * 2 / 9)


def test_partners_of_rows_leave_out_nobody():
    partners = Partners.of_rows(np.array([[1, 2], [0, -1], [-1, -1]]))
    assert partners.counts().tolist() == [2, 1, 0]
    drawn = [partners.draw(np.arange(3), np.full(3, c)).tolist() for c in (0.0, 0.999)]
    assert drawn == [[1, 0, 2], [2, 0, 2]]
    nobody = Partners.of_rows(np.full((3, 2), -1))
    assert nobody.draw(np.arange(3), np.zeros(3)).tolist() == [0, 1, 2]


def pairs_of_visits(**how):
    patient = np.random.default_rng(1).integers(0, 30, 100)
    units = Lists.of_groups(patient, least=2)
    return patient, PairSampler(units, Partners.of_groups(patient), 8, seed=3, **how)


@pytest.mark.parametrize("step", [0, 1, 17])
def test_pairs_are_of_one_patient_and_no_two_pairs_of_the_same(step):
    patient, sampler = pairs_of_visits()
    anchors, partners = np.array(sampler.batch(step)).reshape(2, 4)
    assert (patient[anchors] == patient[partners]).all()
    assert (anchors != partners).all()
    assert len(set(patient[anchors])) == 4


def test_a_stream_of_pairs_begun_late_is_the_rest_of_the_stream():
    whole, rest = (iter(pairs_of_visits(start_step=start)[1]) for start in (0, 5))
    assert list(itertools.islice(whole, 5, 9)) == list(itertools.islice(rest, 4))


def test_ranks_take_other_patients():
    patient, first = pairs_of_visits(rank=0, world_size=2)
    _, second = pairs_of_visits(rank=1, world_size=2)
    for step in range(5):
        assert not set(patient[first.batch(step)]) & set(patient[second.batch(step)])


def test_pairs_refuse_what_cannot_be():
    units, partners = Lists.of_rows(np.arange(3)[:, None]), Partners.of_rows(np.arange(3)[:, None])
    with pytest.raises(ValueError, match="even batch size of 2 or more, got 3"):
        PairSampler(units, partners, 3, seed=0)
    with pytest.raises(ValueError, match="2 pairs on each of 2 process"):
        PairSampler(units, partners, 4, seed=0, world_size=2)


def test_examples():
    assert doctest.testmod(sampler).failed == 0


@given(
    st.lists(st.integers(0, 3), min_size=12, max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_every_batch_has_its_share_of_each_stratum(strata, size, world, epoch):
    strata = np.array(strata)
    deal = [
        StratifiedSampler(strata, size, seed=1, rank=rank, world_size=world)
        for rank in range(world)
    ]
    steps = deal[0].steps_per_epoch
    batches = [one.batch(epoch * steps + k) for k in range(steps) for one in deal]
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen)
    kinds = len(set(strata.tolist()))
    for batch in batches:  # a stratum is one record more or less, for each place that others move
        for stratum in set(strata.tolist()):
            share = size * (strata == stratum).mean()
            assert abs((strata[batch] == stratum).sum() - share) <= kinds


def test_rare_events_are_dealt_evenly_and_anew():
    events = np.zeros(1000, np.int64)
    events[:40] = 1
    deal = StratifiedSampler(events, 100, seed=0)
    counts = [int(events[deal.batch(k)].sum()) for k in range(40)]
    assert set(counts) <= {3, 4, 5}
    assert deal.batch(0) != deal.batch(10)  # another epoch
    late = StratifiedSampler(events, 100, seed=0, start_step=7)
    assert next(iter(late)) == deal.batch(7)


def test_balanced_batches_have_as_many_of_each_class_and_forget_nobody():
    classes = np.array([5] * 40 + [2] * 7 + [9] * 3)
    deal = BalancedSampler(classes, 6, seed=3)
    stream = [deal.batch(step) for step in range(40)]
    for batch in stream:
        assert sorted(classes[batch]) == [2, 2, 5, 5, 9, 9]
    counts = np.bincount(np.concatenate(stream), minlength=50)
    assert set(counts[:40]) == {2}  # 80 places for 40 records: two rounds
    assert set(counts[40:47]) <= {11, 12}
    assert set(counts[47:]) <= {26, 27}
    rounds = np.concatenate(stream)
    rounds = rounds[classes[rounds] == 5]
    assert sorted(rounds[:40]) == sorted(rounds[40:]) == list(range(40))
    assert rounds[:40].tolist() != rounds[40:].tolist()


def test_balanced_batches_depend_on_seed_and_step_alone():
    classes = np.arange(30) % 4
    deal = BalancedSampler(classes, 5, seed=1)
    late = iter(BalancedSampler(classes, 5, seed=1, start_step=7))
    assert [next(late) for _ in range(3)] == [deal.batch(step) for step in (7, 8, 9)]
    assert deal.batch(0) != BalancedSampler(classes, 5, seed=2).batch(0)
    ranks = [BalancedSampler(classes, 5, seed=1, rank=r, world_size=2) for r in range(2)]
    whole = BalancedSampler(classes, 10, seed=1)
    for step in range(5):
        assert [i for rank in ranks for i in rank.batch(step)] == whole.batch(step)


@pytest.mark.parametrize(
    "words", [{"batch_size": 0}, {"start_step": -1}, {"rank": 2, "world_size": 2}, {"classes": []}]
)
def test_balanced_batches_of_nothing_are_refused(words):
    words = {"classes": np.zeros(4, dtype=np.int64), "batch_size": 2, **words}
    with pytest.raises(ValueError, match="batch_size must be positive"):
        BalancedSampler(seed=0, **words)
