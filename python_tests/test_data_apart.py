"""Partners some time apart: against the list of all pairs, at the edges, and read from tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ecgfast.data.apart import DAY, Apart, times_of
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Lists, PairSampler


def brute(group, time, gap):
    with np.errstate(invalid="ignore"):
        far = np.abs(time[:, None] - time[None]) >= gap
    return far & (group[:, None] == group[None])


@pytest.mark.parametrize("gap", [1.0, 7.0, 30.0])
def test_partners_are_those_of_the_list_of_all_pairs(gap):
    draws = np.random.default_rng(0)
    group = draws.integers(-3, 9, 80) * 10**18  # codes are hashes of 64 bits
    time = draws.integers(0, 60, 80).astype(float)
    time[draws.random(80) < 0.2] = np.nan
    apart = Apart.of_times(group, time * DAY, gap * DAY)
    truth = brute(group, time, gap)
    np.testing.assert_array_equal(apart.counts(), truth.sum(axis=1))
    everyone = np.arange(80)
    for record in everyone:
        count = int(apart.counts()[record])
        chance = (np.arange(count) + 0.5) / max(count, 1)
        drawn = apart.draw(np.full(count, record), chance)
        assert sorted(drawn) == np.flatnonzero(truth[record]).tolist()
    alone = apart.counts() == 0
    np.testing.assert_array_equal(apart.draw(everyone, draws.random(80))[alone], everyone[alone])
    assert alone[np.isnan(time)].all()
    assert (apart.draw(everyone, np.full(80, np.nextafter(1, 0))) >= 0).all()


def test_exactly_the_gap_is_enough_and_a_second_less_is_not():
    group = np.zeros(2, np.int64)
    for seconds, count in ((DAY, 1), (DAY - 1, 0)):
        time = np.array([1.7e9, 1.7e9 + seconds])
        assert Apart.of_times(group, time, DAY).counts().tolist() == [count] * 2


def test_no_time_at_all_is_no_partner():
    apart = Apart.of_times(np.zeros(3, np.int64), np.full(3, np.nan), DAY)
    assert apart.counts().tolist() == [0, 0, 0]
    assert apart.draw(np.arange(3), np.full(3, 0.5)).tolist() == [0, 1, 2]


def test_a_sampler_draws_by_it():
    group = np.repeat(np.arange(5), 3)
    time = np.tile([0.0, 1.0, 40.0], 5) * DAY
    pairs = PairSampler(Lists.of_groups(group), Apart.of_times(group, time, 30 * DAY), 8, seed=0)
    for step in range(30):
        firsts, seconds = np.array(pairs.batch(step)).reshape(2, 4)
        assert (group[firsts] == group[seconds]).all()
        assert (np.abs(time[firsts] - time[seconds]) >= 30 * DAY).all()


def test_dates_are_found_in_their_columns():
    table = pd.DataFrame(
        {
            "visit": [0, 1, 2],
            "recording_date": ["", "", ""],
            "date": ["1984-11-09 09:17:34", "1984-11-10", ""],
            "time": [1.0, 2.0, 3.0],
            "day": [0.0, 30.5, np.nan],
        }
    )
    name, seconds = times_of(table)
    assert name == "date"
    assert seconds[1] - seconds[0] == 14 * 3600 + 42 * 60 + 26
    assert np.isnan(seconds[2])
    name, seconds = times_of(table, "day")
    assert seconds[1] - seconds[0] == 30.5 * DAY
    assert times_of(table[["visit", "time", "recording_date"]]) is None  # hours? nobody said so


def test_a_column_that_holds_no_date_is_refused_by_name():
    table = pd.DataFrame({"site": ["north", "south"]})
    with pytest.raises(DataError, match=r"no column day \(there are site\)"):
        times_of(table, "day")
    with pytest.raises(DataError, match=r"none of the 2 values of column site is a date.*'north'"):
        times_of(table, "site")
