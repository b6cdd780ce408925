"""LogRatioLoss against its sum over triplets."""

from __future__ import annotations

import doctest

import pytest
import torch

from ecgfast.losses import LogRatioLoss, log_ratio


def over_triplets(z, d, among):
    """The formula, term by term."""
    each = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i and among[i, j] and 0 < d[i, j] < torch.inf]
        terms = [
            ((z[i] - z[j]).norm().log() - (z[i] - z[k]).norm().log() - (d[i, j] / d[i, k]).log())
            ** 2
            for j in others
            for k in others
            if j != k
        ]
        if terms:
            each.append(torch.stack(terms).mean())
    return torch.stack(each).mean()


def batch(n=7):
    torch.manual_seed(0)
    z = torch.randn(n, 4, dtype=torch.float64, requires_grad=True)
    d = torch.rand(n, n, dtype=torch.float64) + 0.1
    return z, d + d.T, torch.rand(n, n) < 0.8


def test_equals_the_sum_over_triplets_with_its_gradient():
    z, d, among = batch()
    d[2, 3] = d[3, 2] = 0
    d[1, 5] = torch.nan
    loss = LogRatioLoss(eps=1e-30)(z, d, among)
    expected = over_triplets(z, d, among)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (found,) = torch.autograd.grad(loss, z)
    (truth,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-13)


def test_gradcheck():
    z, d, among = batch(5)
    assert torch.autograd.gradcheck(lambda z: LogRatioLoss()(z, d, among), z)


def test_a_factor_changes_nothing_and_kept_distances_cost_nothing():
    z, d, among = batch()
    loss = LogRatioLoss(eps=1e-30)
    torch.testing.assert_close(loss(3 * z, 7 * d, among), loss(z, d, among))
    assert loss(z, 5 * torch.cdist(z, z).detach(), among) < 1e-25


def test_equal_embeddings_have_a_finite_gradient():
    z = torch.zeros(4, 3, requires_grad=True)
    _, d, _ = batch(4)
    LogRatioLoss()(z, d, torch.ones(4, 4, dtype=torch.bool)).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_without_two_others_it_is_zero(n):
    z = torch.randn(n, 3, requires_grad=True)
    loss = LogRatioLoss()(z, torch.ones(n, n), torch.ones(n, n, dtype=torch.bool))
    loss.backward()
    assert loss == 0


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="distances and among"):
        LogRatioLoss()(torch.randn(3, 2), torch.ones(3, 2), torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="eps"):
        LogRatioLoss(0)


def test_examples():
    assert doctest.testmod(log_ratio).failed == 0
