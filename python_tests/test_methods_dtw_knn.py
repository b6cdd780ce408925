"""Votes of neighbours: by hand, and on warped records."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecgfast.methods.dtw_knn import distances, vote
from ecgfast.miners.distance import InputDistance


def test_the_nearest_vote_with_inverse_distances():
    distance = np.array([[1.0, 2.0, 4.0, 9.0], [8.0, 4.0, 2.0, 1.0]])
    label = np.array([10.0, 20.0, 30.0, 40.0])
    three = [(10 + 20 / 2 + 30 / 4) / 1.75, (40 + 30 / 2 + 20 / 4) / 1.75]
    np.testing.assert_allclose(vote(distance, label, k=3), three)
    np.testing.assert_array_equal(vote(distance, label, k=1), [10, 40])
    np.testing.assert_allclose(vote(distance, label, k=99), vote(distance, label, k=4))


def test_classes_get_probabilities():
    draw = np.random.default_rng(0)
    distance, kind = draw.random((7, 30)), draw.integers(0, 3, 30)
    chance = vote(distance, np.eye(3)[kind], k=5)
    assert chance.shape == (7, 3)
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    np.testing.assert_allclose(chance[:, 1], vote(distance, (kind == 1).astype(float), k=5))


def test_an_equal_record_has_the_say_and_all_equal_ones_share_it():
    assert vote(np.array([[0.0, 1.0, 1.0]]), np.array([5.0, 0.0, 0.0]), k=3)[0] > 4.99
    assert vote(np.zeros((1, 2)), np.array([0.0, 1.0]), k=2)[0] == 0.5


def test_what_is_no_distance_is_refused():
    with pytest.raises(ValueError, match=r"1 of 2 distances .* row 0, column 1"):
        vote(np.array([[1.0, np.nan]]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"\(N, M\)"):
        vote(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="k positive"):
        vote(np.ones((2, 3)), np.ones(3), k=0)


def test_warping_finds_the_shifted_copy_and_gaps_are_zeros():
    draw = torch.Generator().manual_seed(0)
    wave = torch.cumsum(torch.randn(4, 2, 120, generator=draw), -1)
    shifted = torch.roll(wave, 6, dims=-1)
    found = distances(InputDistance("dtw", cost="l1", radius=12), wave, shifted)
    assert found.argmin(1).tolist() == [0, 1, 2, 3]
    wave[1, 0, 50:60] = torch.nan
    filled = wave.nan_to_num(0.0)
    measure = InputDistance("mean_l1")
    assert torch.equal(distances(measure, wave, wave), distances(measure, filled, filled))
