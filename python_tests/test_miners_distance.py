"""InputDistance against scipy and the ops' references, lead_dtw by its recursion."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from scipy import signal

from ecgfast.miners import distance as module
from ecgfast.miners.distance import InputDistance, lead_dtw, rate_factor
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.ops.dtw import dtw_reference
from ecgfast.ops.soft_dtw import soft_dtw_reference
from ecgfast.testing import make_ecg


@pytest.mark.parametrize("cost", ["l1", "sqeuclidean", "euclidean"])
@pytest.mark.parametrize("radius", [None, 0, 6])
def test_dtw_is_that_of_the_resampled_records(cost, radius):
    ecg = make_ecg(5, 3, 120, dtype=torch.float64)
    slower = signal.resample_poly(ecg.numpy(), 2, 5, axis=-1, padtype="line")
    found = InputDistance("dtw", cost=cost, radius=radius, resample=(2, 5))(ecg.float())
    expected = dtw_reference(torch.from_numpy(slower), cost=cost, radius=radius)
    # what float32 keeps of the resampled samples: 1e-6 of their peak, in each of up to 96 cells
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_soft_dtw_is_a_divergence():
    ecg = make_ecg(5, 3, 60)
    ecg[3] = ecg[1]
    found = InputDistance("soft_dtw", radius=10, gamma=0.1)(ecg)
    expected = soft_dtw_reference(ecg.double(), gamma=0.1, radius=10, divergence=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert NearestFarthest(InputDistance("soft_dtw", radius=10))(ecg).positives[3] == 1


def test_sample_by_sample_distances_are_resampled_too():
    ecg = make_ecg(5, 3, 120, dtype=torch.float64)
    slower = torch.from_numpy(signal.resample_poly(ecg.numpy(), 1, 2, axis=-1, padtype="line"))
    rows = slower.flatten(1)
    found = InputDistance("l1", resample=(1, 2))(ecg.float())
    torch.testing.assert_close(found.double(), torch.cdist(rows, rows, p=1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("distance", ["dtw", "l1"])
def test_a_zscore_forgets_gain_and_offset_of_leads(distance):
    ecg = make_ecg(5, 3, 120, dtype=torch.float64)
    other = ecg * torch.tensor([0.5, 2.0, 3.0])[:, None] + torch.tensor([1.0, 0.0, -4.0])[:, None]
    plain, scaled = InputDistance(distance), InputDistance(distance, zscore=True)
    for given in (ecg, other):
        z = given - given.mean(-1, keepdim=True)
        z /= (given.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(scaled(given), plain(z), rtol=1e-9, atol=1e-9)
    # what is added to variances, of 1e-4 and more here, is all that they differ by
    torch.testing.assert_close(scaled(other), scaled(ecg), rtol=1e-6 / (2 * 1e-4), atol=0)
    assert not torch.allclose(plain(other), plain(ecg), rtol=1e-2)


def test_a_flat_lead_has_no_zscore_to_speak_of():
    ecg = make_ecg(3, 2, 60)
    ecg[1, 0] = 0.7  # its mean is off by a rounding, 6e-8, which is divided by 1e-3
    assert InputDistance("l1", zscore=True).compared(ecg).rows[1, 0].abs().max() < 1e-4


def test_dtw_finds_the_shifted_beat_and_l1_does_not():
    """What the whole method is about: the same heart, recorded from another moment on."""
    at = torch.arange(400.0)

    def beats(start, width):
        peaks = torch.exp(-(((at - start) % 100 - 50) ** 2) / width)
        return torch.stack([peaks, -0.5 * peaks])

    heart, later, other = beats(0, 20.0), beats(20, 20.0), beats(0, 60.0)
    ecg = torch.stack([heart, later, other])
    assert NearestFarthest("mean_l1")(ecg).positives[0] == 2
    warped = InputDistance("dtw", cost="l1", radius=25)
    assert NearestFarthest(warped)(ecg).positives[0] == 1


def test_no_gradient_and_no_records():
    ecg = make_ecg(3, 2, 40).requires_grad_()
    assert not InputDistance("dtw")(ecg).requires_grad
    assert InputDistance("dtw", resample=(1, 2))(torch.zeros(0, 12, 40)).shape == (0, 0)


@pytest.mark.parametrize(
    ("fs", "mine_fs", "factor"),
    [
        (250, None, (1, 1)),
        (250, 250, (1, 1)),
        (250, 125, (1, 2)),
        (500, 62.5, (1, 8)),
        (257, 100, (100, 257)),
        (360.0, 100.0, (5, 18)),
    ],
)
def test_rate_factor(fs, mine_fs, factor):
    assert rate_factor(fs, mine_fs) == factor


@pytest.mark.parametrize("mine_fs", [0, -1.0, 251, 99.98765])
def test_refuses_a_rate(mine_fs):
    with pytest.raises(ValueError, match="mine_fs must be"):
        rate_factor(250, mine_fs)


@pytest.mark.parametrize("resample", [(2, 1), (0, 1)])
def test_refuses_a_factor(resample):
    with pytest.raises(ValueError, match=r"factor in \(0, 1\]"):
        InputDistance("dtw", resample=resample)


def test_example_runs():
    assert doctest.testmod(module).failed == 0


def plain_lead_dtw(a, b):
    """The recursion as a textbook has it."""
    best = np.full((len(a) + 1, len(b) + 1), np.inf)
    best[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            step = min(best[i, j], best[i, j + 1], best[i + 1, j])
            best[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + step
    return best[-1, -1] ** 0.5


@pytest.mark.parametrize("shape", [(5, 12, 200), (4, 1, 30), (3, 3, 7)], ids=str)
def test_lead_dtw_is_the_plain_recursion(shape):
    draw = torch.Generator().manual_seed(0)
    ecg = torch.randn(shape, generator=draw, dtype=torch.float64)
    ecg[1] = ecg[0].roll(1, dims=0)  # leads out of step: the path must bend
    plain = [[plain_lead_dtw(a, b) for b in ecg.numpy()] for a in ecg.numpy()]
    torch.testing.assert_close(
        lead_dtw(ecg), torch.tensor(plain, dtype=torch.float64), atol=1e-9, rtol=1e-9
    )


def test_lead_dtw_warps_leads_and_not_time():
    """Defect B1 in one picture: a shift in time costs, a repeated lead does not."""
    t = torch.arange(200.0)
    wave = torch.stack([torch.sin(t / (7 + lead)) for lead in range(12)])
    shifted = wave.roll(5, dims=1)
    doubled = wave[[0, 0, *range(1, 11)]].clone()
    between = lead_dtw(torch.stack([wave, shifted, doubled]))
    apart = (wave - doubled).square().sum().sqrt()
    assert between[0, 1] > 5
    assert between[0, 2] < 0.5 * apart


def test_lead_dtw_is_not_differentiated_and_takes_no_records():
    assert lead_dtw(torch.zeros(0, 12, 10)).shape == (0, 0)
    assert not lead_dtw(torch.zeros(2, 12, 10, requires_grad=True)).requires_grad


def beats_of(ecg):
    """The first 20 samples stand for a beat; a record that begins with a flat line has none."""
    return ecg[:, :, :20], ecg[:, :, :20].std(dim=-1).amax(dim=1) > 0


def test_a_view_is_compared_in_the_place_of_the_record():
    ecg = torch.randn(5, 2, 60)
    ecg[1, :, :20] = 0
    ecg[3, 0, 50] = torch.nan
    compared = InputDistance("l1", view=beats_of).compared(ecg)
    assert compared.rows.shape == (5, 2, 20)
    assert compared.eligible.tolist() == [True, False, True, False, True]
    assert compared.clean[3].abs().sum() == 0
    whole = InputDistance("l1")
    expected = whole(torch.where(ecg.isnan(), 0, ecg)[[0, 2, 4], :, :20])
    found = InputDistance("l1", view=beats_of)(ecg[[0, 2, 4]])
    assert torch.equal(found, expected)


def test_a_record_without_the_view_is_nobodys_neighbour():
    ecg = torch.randn(6, 2, 60)
    ecg[1, :, :20] = 0
    triplets = NearestFarthest(InputDistance("l1", view=beats_of))(ecg)
    assert triplets.valid.tolist() == [True, False, True, True, True, True]
    assert not (triplets.positives[[0, 2, 3, 4, 5]] == 1).any()
