"""What clip_transform draws is spread as its names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from ecgfast.ops import _clip_plan as at
from ecgfast.ops.clip_transform import ClipSpec, clip_transform

MANY, SIZE = 100_000, (30, 40)
SPEC = ClipSpec(pad=3, flip=0.3, rotate=0.6, rotation_degrees=(-10.0, 10.0))
FROZEN = [[1, 1, 1, -2], [1, 1, -4, -2], [1, 1, 2, 5]]  # turned, flip, top, left
FROZEN_COSINES = [0.99217883265, 0.99985028477, 0.99980870658]
LEAST = 1e-6  # of a p-value: draws are always the same, so that this is met once and for all


def plan_of(spec, *, seed=1, ids=None):
    ids = np.arange(MANY) if ids is None else ids
    return at.clip_plan(spec, seed, ids, np.zeros((len(ids), 1), np.int64), SIZE)


def degrees_of(plan):
    turned = plan[plan[:, at.TURNED] == 1]
    return np.degrees(np.arctan2(turned[:, at.MAP + 4], turned[:, at.MAP + 1]))


def test_windows_are_drawn_alike_and_rows_apart_from_columns():
    plan = plan_of(SPEC)
    top, left = plan[:, at.TOP] + 3, plan[:, at.LEFT] + 3
    counts = np.bincount(7 * top + left, minlength=49)
    assert len(counts) == 49  # both ends come up, of rows and columns
    assert stats.chisquare(counts).pvalue > LEAST


def test_flips_and_turns_are_as_many_as_asked_for_and_apart():
    plan = plan_of(SPEC)
    counts = np.bincount(2 * plan[:, at.FLIP] + plan[:, at.TURNED], minlength=4)
    shares = np.outer([0.7, 0.3], [0.4, 0.6]).ravel()
    assert stats.chisquare(counts, MANY * shares).pvalue > LEAST
    for share in (0.0, 1.0):
        plan = plan_of(ClipSpec(pad=1, flip=share, rotate=share))
        assert set(plan[:, at.FLIP]) == set(plan[:, at.TURNED]) == {share}


def test_angles_are_uniform():
    degrees = degrees_of(plan_of(SPEC))
    assert stats.kstest(degrees, stats.uniform(-10, 20).cdf).pvalue > LEAST
    degrees = degrees_of(plan_of(ClipSpec(rotate=1.0, rotation_degrees=(4.0, 5.0))))
    assert 4 <= degrees.min() < 4.01 < 4.99 < degrees.max() <= 5


def test_whole_degrees_are_whole_and_reach_both_ends():
    spec = ClipSpec(rotate=1.0, rotation_degrees=(-10.0, 10.0), whole_degrees=True)
    plan = plan_of(spec)
    degrees = np.zeros(MANY)  # none is not turned at all: it is copied
    degrees[plan[:, at.TURNED] == 1] = degrees_of(plan)
    np.testing.assert_allclose(degrees, np.rint(degrees), atol=1e-6)
    counts = np.bincount(np.rint(degrees).astype(int) + 10, minlength=21)
    assert len(counts) == 21
    assert stats.chisquare(counts).pvalue > LEAST
    some = dataclasses.replace(spec, rotation_degrees=(1.2, 4.9))
    assert set(np.rint(degrees_of(plan_of(some)))) == {2, 3, 4}


def test_seeds_and_records_are_apart():
    one, other = (plan_of(SPEC, seed=seed) for seed in (1, 2))
    for column in (at.TOP, at.LEFT, at.FLIP, at.TURNED):
        alike = (one[:, column] == other[:, column]).mean()
        counts = np.bincount(one[:, column] - one[:, column].min()) / MANY
        assert abs(alike - (counts**2).sum()) < 0.01  # an SD is 0.0016
        neighbours = np.corrcoef(one[:-1, column], one[1:, column])[0, 1]
        assert abs(neighbours) < 0.02  # an SD is 0.003


def test_what_is_switched_off_leaves_other_draws_alone():
    ids = np.arange(200)
    whole = plan_of(SPEC, ids=ids)
    for off, columns in (
        ({"pad": 0}, [at.FLIP, at.TURNED, *range(at.MAP, at.FRAMES)]),
        ({"flip": 0.0}, [at.TOP, at.LEFT, at.TURNED, *range(at.MAP, at.FRAMES)]),
        ({"rotate": 0.0}, [at.TOP, at.LEFT, at.FLIP]),
        ({"scale": "unit"}, list(range(at.FRAMES))),
    ):
        plan = plan_of(dataclasses.replace(SPEC, **off), ids=ids)
        assert np.array_equal(plan[:, columns], whole[:, columns])


def test_a_plan_does_not_know_its_batch():
    ids = np.array([5, -7, 2**50, *range(34), -(2**63), 2**63 - 1])
    whole = plan_of(SPEC, ids=ids)
    for n in range(len(ids)):
        assert np.array_equal(plan_of(SPEC, ids=ids[n : n + 1])[0], whole[n])
    assert len(np.unique(whole[:, : at.FRAMES], axis=0)) > len(ids) / 2


def test_draws_of_before_are_those_of_today():
    """Frozen: a run that is repeated must see the same views."""
    plan = plan_of(ClipSpec(pad=8, flip=0.5, rotate=1.0), seed=7, ids=np.arange(3))
    assert plan[:, : at.MAP].tolist() == FROZEN
    assert np.abs(plan[:, at.MAP + 1] / 2**32 - FROZEN_COSINES).max() < 1e-9


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_a_quarter_turn_counter_clockwise(device, turns):
    draw = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (2, 3, 4, 33, 33), generator=draw, dtype=torch.uint8).to(device)
    degrees = 90.0 * turns
    spec = ClipSpec(rotate=1.0, rotation_degrees=(degrees, degrees), scale="none")
    made = clip_transform(clips, spec=spec, seed=1)
    assert torch.equal(made, torch.rot90(clips, turns, (3, 4)).float())


def test_a_whole_turn_is_none(device):
    clips = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 1, 16, 16)
    for degrees in (-360.0, 0.0, 360.0):
        spec = ClipSpec(rotate=1.0, rotation_degrees=(degrees, degrees), scale="none")
        assert torch.equal(clip_transform(clips, spec=spec, seed=1), clips.float())
