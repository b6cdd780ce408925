"""Kept: rows that were made once are those that would be made anew, whatever came before."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.miners import kept as module
from ecgfast.miners.distance import InputDistance
from ecgfast.miners.kept import Kept
from ecgfast.systems.parts import beats


class Counted:
    """Makes rows of numbers, and counts of how many."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, ecg):
        self.made += len(ecg)
        return 3 * ecg.expand(-1, 1000), ecg[:, 0] > 5


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 400), max_size=90), max_size=8),
    megabytes=st.sampled_from([1, 2]),  # of 4 kB rows: 250 or 500 of the 401
)
def test_what_is_kept_is_what_would_be_made(batches, megabytes):
    kept, make = Kept(megabytes), Counted()
    seen: set[int] = set()
    for batch in batches:
        ecg = torch.tensor(batch, dtype=torch.float32).reshape(-1, 1)
        rows, there = kept(torch.tensor(batch, dtype=torch.int64), ecg, make)
        assert torch.equal(rows, 3 * ecg.expand(-1, 1000))
        assert torch.equal(there, ecg[:, 0] > 5)
        seen |= set(batch)
    assert len(kept.slots) == min(len(seen), 250 * megabytes)
    if kept.rows is not None:
        assert kept.rows.nbytes <= megabytes * 10**6
    if len(seen) <= 250 * megabytes:  # none twice, but for copies that came in one batch
        before: set[int] = set()
        anew = 0
        for batch in batches:
            anew += sum(n not in before for n in batch)
            before |= set(batch)
        assert make.made == anew


def test_an_empty_batch_has_the_shape_of_rows():
    kept = Kept(1)
    rows, there = kept(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1), Counted())
    assert rows.shape == (0, 1000)
    assert there.shape == (0,)


def test_refuses_no_room():
    with pytest.raises(ValueError, match="megabytes must be 1 or more, got 0"):
        Kept(0)


def test_a_row_that_does_not_fit_is_made_every_time():
    kept, make = Kept(1), Counted()
    big = lambda ecg: (make(ecg)[0].repeat(1, 300), ecg[:, 0] > 5)  # noqa: E731
    for _ in range(2):
        rows, _ = kept(torch.tensor([1]), torch.ones(1, 1), big)
        assert rows.shape == (1, 300_000)
    assert make.made == 2
    assert not kept.slots


@pytest.mark.parametrize("zscore", [False, True])
def test_median_beats_that_are_kept_give_the_same_distances_to_the_bit(zscore):
    ecg, _ = make_cohort(10, signal=Signal(fs=100.0), seed=1)  # SYNTHETIC
    ecg = torch.from_numpy(ecg)[:20]
    ecg[3] = 0  # no beat
    ecg[4, 0, 0] = torch.nan
    how = {"distance": "dtw", "radius": 3, "view": beats(100.0), "zscore": zscore}
    anew, kept = InputDistance(**how), InputDistance(**how, keep=10)
    draw = np.random.default_rng(0)
    for _ in range(6):
        who = torch.from_numpy(draw.choice(20, 8))
        expected, found = anew.compared(ecg[who], who), kept.compared(ecg[who], who)
        assert torch.equal(found.rows, expected.rows)
        assert torch.equal(found.eligible, expected.eligible)
        assert torch.equal(found.clean, expected.clean)
        assert torch.equal(kept.between(found.rows), anew.between(expected.rows))
    assert not anew.compared(ecg[3:5]).eligible.any()


def test_without_numbers_nothing_is_kept():
    ecg = torch.from_numpy(make_cohort(4, signal=Signal(fs=100.0), seed=1)[0])
    distance = InputDistance("dtw", view=beats(100.0), keep=10)
    distance(ecg)
    assert distance.kept is not None
    assert not distance.kept.slots


def test_docstring_example():
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
