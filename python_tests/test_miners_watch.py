"""EmptyWatch: warns of a miner that finds nothing, once in a while, and of nothing else."""

from __future__ import annotations

import doctest
import warnings

import pytest
import torch

from ecgfast.miners import watch
from ecgfast.miners.watch import EmptyWatch

NOBODY, SOMEBODY = torch.zeros(8, dtype=torch.bool), torch.arange(8) == 3


def messages(steps, **words):
    """What is said, and at which step (from 1 on)."""
    told = EmptyWatch()
    said = []
    for step, valid in enumerate(steps, start=1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            told(valid, **words)
        said += [(step, str(w.message)) for w in caught]
        assert all(w.category is UserWarning for w in caught)
    return said


def test_50_empty_steps_are_told_with_their_count_and_reason():
    ((step, said),) = messages(
        [NOBODY] * 50, has_positive=torch.arange(8) < 5, has_negative=torch.arange(8) < 0
    )
    assert step == 50
    assert said.startswith(
        "0 of 8 anchors have had a triplet for 50 steps in a row: 3 have no positive, 8 have no"
        " negative. The loss is 0"
    )


def test_a_reason_that_nobody_knows():
    ((_, said),) = messages([NOBODY] * 50)
    assert "50 steps in a row: the miner does not say why." in said
    ((_, said),) = messages([NOBODY] * 50, has_negative=NOBODY)
    assert "in a row: 8 have no negative." in said


@pytest.mark.parametrize(
    "steps",
    [
        [NOBODY] * 49,
        [NOBODY] * 49 + [SOMEBODY] + [NOBODY] * 49,
        [SOMEBODY] * 120,
        [NOBODY, SOMEBODY] * 100,
    ],
)
def test_fewer_are_not_told(steps):
    assert not messages(steps)


def test_a_run_across_two_looks_is_told_at_the_second():
    # also if a triplet has come by then
    assert [step for step, _ in messages([SOMEBODY] * 30 + [NOBODY] * 70)] == [100]
    ((step, said),) = messages([SOMEBODY] * 30 + [NOBODY] * 60 + [SOMEBODY] * 60)
    assert step == 100
    assert "for 60 steps" in said


def test_it_is_told_again_while_it_lasts():
    said = messages([NOBODY] * 120 + [SOMEBODY] * 100)
    assert [step for step, _ in said] == [50, 100, 150]
    assert "for 120 steps" in said[-1][1]


def test_batches_may_be_empty():
    ((_, said),) = messages([NOBODY[:0]] * 50)
    assert said.startswith("0 of 0 anchors")


def test_the_device_is_asked_once_in_50_steps(monkeypatch):
    asked = []
    monkeypatch.setattr(EmptyWatch, "_look", lambda self: asked.append(self._steps))
    told = EmptyWatch()
    meta = torch.zeros(8, dtype=torch.bool, device="meta")  # a value of which nobody can ask
    for _ in range(120):
        told(meta, has_positive=meta)
    assert asked == [50, 100]


def test_refuses():
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EmptyWatch(0)


def test_the_example_runs():
    assert doctest.testmod(watch).failed == 0
