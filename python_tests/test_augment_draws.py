"""What augment draws is spread as its names say: over 1e5 draws, with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from ecgfast.ops._augment import augment_reference
from ecgfast.ops.augment import AugmentSpec, augment


def test_noise_is_white_and_normal():
    z = augment(torch.zeros(5, 4, 5000), AugmentSpec(noise_mv=(1.0, 1.0)), 11).double()
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    count = z.numel()
    for lag in (1, 2, 16, 32, 48, 64):  # neighbours, and those of one counter
        r = (z[..., lag:] * z[..., :-lag]).mean()
        assert abs(r) < 4.5 / math.sqrt(count)
    leads = torch.corrcoef(z.reshape(20, -1))  # each of each record
    assert (leads - torch.eye(20)).abs().max() < 4.5 / math.sqrt(5000)


def test_radii_and_angles_are_as_float64_has_them():
    z = augment(torch.zeros(4, 12, 20000), AugmentSpec(noise_mv=(1.0, 1.0)), 2)
    truth = augment_reference(torch.zeros(4, 12, 20000).double(), AugmentSpec(noise_mv=(1, 1)), 2)
    assert (z.double() - truth).abs().max() < 1e-6  # 2 units of float32 at the largest, 5.9


def drawn(spec, count, read, *, leads=1, samples=64):
    """What ``read`` sees of ``count`` records of ones."""
    return read(augment(torch.ones(count, leads, samples, dtype=torch.float64), spec, 5))


def test_draws_of_records_are_as_they_are_named():
    many = 100_000

    def first(y):
        return y[:, 0, 0].numpy()

    log_gain = np.log(drawn(AugmentSpec(gain=(0.5, 2.0)), many, first))
    assert stats.kstest(log_gain, stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue > 1e-3
    signs = drawn(AugmentSpec(flip_p=0.3), many, first)
    assert stats.binomtest(int((signs < 0).sum()), many, 0.3).pvalue > 1e-3
    lead_gain = np.log(
        drawn(AugmentSpec(lead_gain=(0.5, 2.0)), 9000, lambda y: y[..., 0].numpy(), leads=12)
    )
    assert (
        stats.kstest(lead_gain.flatten(), stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue
        > 1e-3
    )
    ramp = torch.arange(1.0, 65, dtype=torch.float64).expand(many, 1, 64)
    starts = augment(ramp, AugmentSpec(fs=1.0, crop_s=40), 5)[:, 0, 0].long() - 1
    assert stats.chisquare(torch.bincount(starts, minlength=25)).pvalue > 1e-3
    shifted = augment(ramp, AugmentSpec(fs=1.0, shift_s=9), 6)[:, 0, 30].long() - 31
    assert stats.chisquare(torch.bincount(shifted + 9, minlength=19)).pvalue > 1e-3
    masked = drawn(
        AugmentSpec(fs=1.0, mask_count=(1, 1), mask_s=(3, 8)), many, lambda y: (y == 0).sum(-1)
    )
    assert stats.chisquare(torch.bincount(masked.flatten())[3:]).pvalue > 1e-3


def test_draws_of_leads_are_as_they_are_named():
    many = 20_000
    kept = drawn(AugmentSpec(lead_subset_p=1.0), many, lambda y: y[..., 0] != 0, leads=12)
    sizes = torch.bincount(kept.sum(-1), minlength=13)
    assert (
        stats.chisquare(
            sizes[[2, 3, 4, 6, 8, 12]], np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.5]) * many
        ).pvalue
        > 1e-3
    )
    assert sizes[[2, 3, 4, 6, 8, 12]].sum() == many
    pairs = kept[kept.sum(-1) == 2].double()
    together = torch.triu(pairs.T @ pairs, 1)
    assert stats.chisquare(together[together > 0]).pvalue > 1e-3
    assert (together > 0).sum() == 66  # every pair of leads
    spec = AugmentSpec(lead_dropout_p=0.4)
    dropped = drawn(spec, many, lambda y: y[..., 0] == 0, leads=12)
    assert stats.binomtest(int(dropped.sum()), 12 * many, 0.4).pvalue > 1e-3
    last = drawn(AugmentSpec(lead_dropout_p=1.0), many, lambda y: y[..., 0] != 0, leads=12)
    assert (last.sum(-1) == 1).all()
    assert stats.chisquare(last.sum(0)).pvalue > 1e-3
    half = drawn(AugmentSpec(lead_subset_p=0.5), many, lambda y: y[..., 0] != 0, leads=12)
    assert stats.binomtest(int((half.sum(-1) < 12).sum()), many, 0.25).pvalue > 1e-3
