"""Lead subsets: which leads stay, how often, and that nothing else changes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from ecgfast.transforms.leads import SHARES, SUBSETS, LeadSubsets


def test_subsets_come_as_often_as_published_and_leave_the_other_leads_alone():
    torch.manual_seed(0)
    ecg = torch.randn(20_000, 12, 2)
    shown = LeadSubsets(0.5)(ecg)
    kept = (shown != 0).all(dim=2)
    assert torch.equal(shown, torch.where(kept[:, :, None], ecg, 0.0))
    found = Counter(tuple(row.nonzero()[:, 0].tolist()) for row in kept)
    assert set(found) == set(SUBSETS)
    for leads, share in zip(SUBSETS, SHARES, strict=True):
        wanted = 0.5 * share + 0.5 * (len(leads) == 12)
        # five standard deviations of a binomial
        assert abs(found[leads] / len(ecg) - wanted) < 5 * (wanted * (1 - wanted) / len(ecg)) ** 0.5


def test_none_draws_at_0_and_all_draw_at_1():
    ecg = torch.randn(500, 12, 3)
    assert torch.equal(LeadSubsets(0.0)(ecg), ecg)
    torch.manual_seed(0)
    hidden = (LeadSubsets(1.0)(ecg) == 0).all(dim=2).any(dim=1)
    assert 0.4 < hidden.float().mean() < 0.6


def test_a_gap_in_a_hidden_lead_is_hidden_and_draws_repeat():
    ecg = torch.full((50, 12, 3), torch.nan)
    torch.manual_seed(3)
    one = LeadSubsets(1.0)(ecg)
    torch.manual_seed(3)
    assert torch.equal(one.isnan(), LeadSubsets(1.0)(ecg).isnan())
    assert (one.isnan() | (one == 0)).all()
    assert not one.isnan().all()


def test_other_leads_and_shares_are_refused():
    with pytest.raises(ValueError, match=r"ecg must be \(N, 12, T\), got \(1, 8, 4\)"):
        LeadSubsets()(torch.zeros(1, 8, 4))
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        LeadSubsets(1.5)
