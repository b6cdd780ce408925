"""Losses of mined positives: those of the ops where the positives are pairs, and by loops."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from ecgfast.losses import mined
from ecgfast.losses.mined import MinedMultiSimilarityLoss, MinedNTXentLoss
from ecgfast.ops import multi_similarity, nt_xent


def rows(n=12, d=5):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=draw, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", ["nt_xent", "multi_similarity"])
def test_of_pairs_it_is_the_op(kind, grouped):
    n = 12
    labels = torch.arange(n) % 6
    groups = torch.where(labels == 4, 1, labels) if grouped else None  # two pairs of one patient
    apart = labels[:, None] != labels
    if grouped:
        apart &= groups[:, None] != groups
    z = rows()
    positives = torch.arange(n).roll(6)
    valid = torch.ones(n, dtype=torch.bool)
    if kind == "nt_xent":
        found = MinedNTXentLoss(0.2)(z, positives, apart, valid)
        expected = nt_xent(z, labels, groups=groups, temperature=0.2)
    else:
        found = MinedMultiSimilarityLoss()(z, positives, apart, valid)
        expected = multi_similarity(z, labels, groups=groups)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    one, other = (torch.autograd.grad(value, z)[0] for value in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_positive_need_not_return_the_favour():
    z, tau = rows(4), 0.3
    positives, valid = torch.tensor([1, 2, 1, 0]), torch.tensor([True, True, True, False])
    repel = torch.ones(4, 4, dtype=torch.bool).fill_diagonal_(False)
    repel[torch.arange(4), positives] = False
    unit = torch.nn.functional.normalize(z.detach())
    s = (unit @ unit.T / tau).tolist()
    expected = 0.0
    for i in range(3):
        p = int(positives[i])
        others = sum(math.exp(s[i][j]) for j in range(4) if j not in (i, p))
        expected -= math.log(math.exp(s[i][p]) / (math.exp(s[i][p]) + others)) / 3
    assert MinedNTXentLoss(tau)(z, positives, repel, valid).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [MinedNTXentLoss(), MinedMultiSimilarityLoss()])
def test_nobody_valid_gives_zero_and_no_gradient(loss):
    z = rows(4)
    none = torch.zeros(4, dtype=torch.bool)
    value = loss(z, torch.arange(4), none.expand(4, 4), none)
    value.backward()
    assert value == 0
    assert (z.grad == 0).all()


def test_halves_are_compared_in_float32():
    z = rows().detach().bfloat16()
    apart = ~torch.eye(12, dtype=torch.bool)
    positives, valid = torch.arange(12).roll(6), torch.ones(12, dtype=torch.bool)
    apart[torch.arange(12), positives] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = MinedNTXentLoss()(z, positives, apart, valid)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, MinedNTXentLoss()(z.float(), positives, apart, valid))


def test_refuses():
    with pytest.raises(ValueError, match="temperature must be over 0"):
        MinedNTXentLoss(0)
    with pytest.raises(ValueError, match="alpha and beta"):
        MinedMultiSimilarityLoss(alpha=0)


def test_examples():
    assert doctest.testmod(mined).failed == 0
