"""The SYNTHETIC echo cohort: replay, labels that follow from numbers, images from both."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from ecgfast import testing
from ecgfast.data import synthetic_echo
from ecgfast.data.synthetic_echo import echo_table, make_echo_cohort
from ecgfast.testing import make_clip


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own operations down."""


@pytest.fixture(scope="module")
def table():
    """Some 5,000 studies, without their videos."""
    return echo_table(4000, fps=30.0, seed=0)[0]


def same(a, b):
    return np.array_equal(a[0], b[0]) and all(np.array_equal(a[1][k], b[1][k]) for k in a[1])


# replay


def test_a_seed_replays_and_another_differs():
    first = make_echo_cohort(2, size=32, frames=5, seed=5)
    assert same(first, make_echo_cohort(2, size=32, frames=5, seed=5))
    other = make_echo_cohort(2, size=32, frames=5, seed=6)
    assert not np.array_equal(first[0][:4], other[0][:4])


def test_fewer_patients_are_the_beginning_of_more():
    more, fewer = (make_echo_cohort(n, size=32, frames=3) for n in (7, 3))
    n = len(fewer[0])
    assert same(fewer, (more[0][:n], {k: v[:n] for k, v in more[1].items()}))
    assert len(set(fewer[1]["patient_id"])) == 3


def test_thread_count_does_not_show():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(make_echo_cohort(4, size=48, frames=6))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*results)


# patients


def test_labels_follow_from_the_numbers(table):
    septum, posterior, lvid = (table[n] / 10 for n in ("septum_mm", "posterior_mm", "lvid_mm"))
    mass = 0.8 * 1.04 * ((septum + posterior + lvid) ** 3 - lvid**3) + 0.6  # Devereux, g
    index = mass / table["bsa_m2"]
    assert np.abs(index - table["lv_mass_index"]).max() < 0.06
    assert ((table["lv_mass_index"] > np.where(table["sex"], 115, 95)) == table["lvh"]).all()
    assert ((table["valve_area_cm2"] < 1) == table["as_severe"]).all()


def test_made_clips_are_clips():
    clips = make_clip(3, frames=5, size=24, channels=3)
    assert clips.shape == (3, 3, 5, 24, 24)
    assert clips.dtype == torch.uint8
    assert torch.equal(clips, make_clip(3, frames=5, size=24, channels=3))
    assert torch.equal(clips[:, 0], clips[:, 2])
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[:, :, 0], clips[:, :, 1])
    assert not clips[..., 0, 0].any()  # outside of the fan


@pytest.mark.parametrize("module", [synthetic_echo, testing])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0
