"""Pairs of videos: every one of a study once, dealt as purely as records are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.data.sampler import StepSampler
from ecgfast.data.video_pairs import ListedPairs, OneMoment, pairs_within

STUDIES = np.array([4, 9, 4, 4, 2, 9, 7])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12), st.booleans())
def test_every_unordered_pair_of_a_group_comes_once(groups, own):
    found = pairs_within(np.array(groups, dtype=np.int64), own=own)
    expected = {
        (i, j) for i, j in combinations(range(len(groups)), 2) if groups[i] == groups[j]
    } | {(i, i) for i, group in enumerate(groups) if own or groups.count(group) == 1}
    assert found.shape == (len(expected), 2)
    assert {tuple(sorted(pair)) for pair in found.tolist()} == expected


def test_an_epoch_deals_each_pair_once_anchors_first():
    pairs = pairs_within(STUDIES)
    assert len(pairs) == 3 + 1 + 1 + 1
    dealt = ListedPairs(pairs, 4, seed=1)
    assert dealt.steps_per_epoch == 3
    seen = [np.array(dealt.batch(step)).reshape(2, 2).T for step in range(3)]
    assert sorted(map(tuple, np.concatenate(seen).tolist())) == sorted(map(tuple, pairs.tolist()))
    other = np.concatenate([np.array(dealt.batch(s)).reshape(2, 2).T for s in (3, 4, 5)])
    assert other.tolist() != np.concatenate(seen).tolist()  # another epoch, another order


def test_ranks_together_take_the_pairs_of_one_process_and_any_step_can_be_the_first():
    pairs = pairs_within(np.zeros(6, dtype=np.int64))
    whole = ListedPairs(pairs, 8, seed=3)
    ranks = [ListedPairs(pairs, 4, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(5):
        parts = [np.array(rank.batch(step)).reshape(2, -1) for rank in ranks]
        assert np.concatenate(parts, axis=1).ravel().tolist() == whole.batch(step)
    later = iter(ListedPairs(pairs, 8, seed=3, start_step=4))
    assert next(later) == whole.batch(4)


def test_what_cannot_be_dealt_is_refused():
    with pytest.raises(ValueError, match="even batch size of 2 or more, got 3"):
        ListedPairs(pairs_within(STUDIES), 3, seed=0)
    with pytest.raises(ValueError, match=r"4 records on each of 2 process\(es\)"):
        ListedPairs(pairs_within(STUDIES), 8, seed=0, world_size=2)


class Twice:
    """Deals videos 0 to 3, then 0, 1 again and two others."""

    start_step, steps_per_epoch = 0, 1

    def batch(self, step):
        return [0, 1, 2, 3, 0, 1, 4, 5]


def test_a_video_that_meets_itself_shows_one_moment_and_others_their_own():
    lengths = np.full(6, 400)
    moments = OneMoment(Twice(), lengths, 4, 2, seed=5)
    drawn = np.array([moments.batch(step) for step in range(20)]).reshape(20, 2, 4)
    video, first = np.divmod(drawn, 2**20)
    assert (video == [[0, 1, 2, 3], [0, 1, 4, 5]]).all()
    assert (first[:, 0, :2] == first[:, 1, :2]).all()
    assert (first[:, 0, 2:] != first[:, 1, 2:]).mean() > 0.9
    assert (first <= 400 - 7).all()
    assert len(np.unique(first[:, 0])) > 60
    base = OneMoment.__mro__[1](Twice(), lengths, 4, 2, seed=5)
    apart = np.array([base.batch(step) for step in range(20)]).reshape(20, 2, 4)
    assert (apart[:, 0] == drawn[:, 0]).all()
    assert (apart[:, 0, :2] != apart[:, 1, :2]).mean() > 0.9


def test_moments_of_records_that_are_no_pairs_are_left_to_the_base():
    with pytest.raises(ValueError, match="cannot reshape"):
        OneMoment(StepSampler(9, 3, seed=0), np.full(9, 20), 4, seed=0).batch(0)
