"""Landmarks: coordinates whose distances are those in input space."""

from __future__ import annotations

import doctest

import pytest
import torch

from ecgfast.losses import CoordinateLoss, coordinates
from ecgfast.miners import Ids, InputDistance, Landmarks, landmarks
from ecgfast.ops import dtw
from ecgfast.testing import make_ecg


def points(n, dims=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1.0, dims + 1)
    return (torch.randn(n, dims, generator=generator) * spread)[..., None]


def own(n):
    numbers = torch.arange(n)
    return Ids(numbers, numbers, numbers)


def placed(pool, ecg, ids=None):
    return pool(ecg, ids or own(len(ecg)), torch.zeros(len(ecg)))


def test_examples_hold():
    assert doctest.testmod(landmarks).failed == 0
    assert doctest.testmod(coordinates).failed == 0


def test_unscaled_coordinates_keep_euclidean_distances():
    """Points of a plane that distances alone tell: scaling brings them back, up to a turn."""
    reference, new = points(80), points(30, seed=1)
    pool = Landmarks(InputDistance("euclidean"), reference, dims=4)
    values = -0.5 * _centred(_apart(reference[:40]).square())
    root = torch.linalg.eigvalsh(values).flip(0)[:4].sqrt()
    spread = 0.5 / root / torch.linalg.norm(pool.weights, dim=0)  # before they had variance 1
    found = _apart((pool.place(new) * spread)[..., None])
    torch.testing.assert_close(found, _apart(new), rtol=1e-4, atol=1e-4)  # distances are float32


def _apart(rows):
    rows = rows[..., 0].double()
    return torch.linalg.norm(rows[:, None] - rows, dim=2)


def _centred(squared):
    n = len(squared)
    j = torch.eye(n, dtype=torch.float64) - 1 / n
    return j @ squared @ j


def test_coordinates_have_mean_0_and_variance_1_where_they_were_fitted():
    reference = points(120)
    found = Landmarks(InputDistance("euclidean"), reference, dims=4).place(reference[60:])
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.std(dim=0), torch.ones(4).double())


def test_warped_records_stand_at_one_place():
    """What the distance does not see, coordinates do not: time that is shifted."""
    ecg = make_ecg(70, 3, 80)
    distance = InputDistance("dtw", cost="l1", radius=None)
    pool = Landmarks(distance, ecg[:60], dims=6)
    slow = ecg[60:].repeat_interleave(2, dim=2)[:, :, ::2]
    assert float(dtw(slow, ecg[60:], cost="l1").diagonal().max()) == 0
    assert torch.equal(pool.place(slow), pool.place(ecg[60:]))


def test_kept_coordinates_have_the_same_bits():
    ecg, distance = make_ecg(80, 3, 40), InputDistance("dtw", cost="l1", radius=3)
    fresh = Landmarks(distance, ecg[:64], dims=5)
    kept = Landmarks(distance, ecg[:64], dims=5, keep=1)
    first = placed(kept, ecg).coordinates
    assert torch.equal(first, placed(fresh, ecg).coordinates)
    again = placed(kept, torch.zeros_like(ecg)).coordinates  # known by their number alone
    assert torch.equal(first, again)


def test_a_broken_record_does_not_count():
    ecg = make_ecg(64, 3, 40)
    pool = Landmarks(InputDistance("mean_l1"), ecg, dims=5)
    ecg[3, 1, 7] = torch.nan
    rows = placed(pool, ecg)
    assert rows.eligible.tolist() == [i != 3 for i in range(64)]
    assert rows.coordinates.isfinite().all()
    predicted = torch.zeros_like(rows.coordinates).requires_grad_()
    CoordinateLoss()(predicted, rows.coordinates, rows.eligible).backward()
    assert (predicted.grad[3] == 0).all()
    assert (predicted.grad[2] != 0).any()


def test_state_brings_the_same_coordinates():
    ecg = make_ecg(64, 3, 40)
    pool = Landmarks(InputDistance("mean_l1"), ecg, dims=5)
    other = Landmarks(InputDistance("mean_l1"), ecg.flip(0), dims=5)
    assert not torch.equal(pool.place(ecg), other.place(ecg))
    other.load_state_dict(pool.state_dict())
    assert torch.equal(pool.place(ecg), other.place(ecg))


def test_too_few_records_and_too_many_coordinates_are_refused():
    line = points(60, dims=2)
    with pytest.raises(ValueError, match=r"7 coordinates need 18 reference records .* got 17"):
        Landmarks(InputDistance("euclidean"), line[:17], dims=7)
    with pytest.raises(ValueError, match=r"30 landmarks make 2 coordinates, not 7"):
        Landmarks(InputDistance("euclidean"), line.double(), dims=7)
    with pytest.raises(ValueError, match="dims must be at least 1"):
        Landmarks(InputDistance("euclidean"), line, dims=0)


def test_loss_is_the_mean_over_rows_that_count():
    torch.manual_seed(0)
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    valid = torch.tensor([True, True, False, True, False])
    a.requires_grad_()
    torch.testing.assert_close(CoordinateLoss()(a, b, valid), (a - b)[valid].square().mean())
    assert torch.autograd.gradcheck(lambda one: CoordinateLoss()(one, b, valid), [a])
    nobody = CoordinateLoss()(a, b.nan_to_num() * torch.nan, valid & False)
    nobody.backward()
    assert nobody == 0
    assert (a.grad == 0).all()
    with pytest.raises(ValueError, match=r"must be \(N, K\)"):
        CoordinateLoss()(a, b[:, :2], valid)
