"""Projectors and heads."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from ecgfast.models import heads
from ecgfast.models.heads import BatchDropout, Projector, RiskHead


def test_a_projector_has_its_layers():
    kinds = [type(part) for part in Projector(8, 4, hidden=6, layers=3, batch_norm=True).layers]
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*block, *block, nn.Linear]
    assert Projector(8, 4, hidden=6, layers=1).layers[0].weight.shape == (4, 8)


def test_without_layers_the_projection_is_the_embedding():
    x = torch.randn(3, 8)
    assert Projector(8, 8, hidden=6, layers=0)(x) is x
    with pytest.raises(ValueError, match="4 is not 8"):
        Projector(8, 4, hidden=6, layers=0)


def test_dropout_of_a_batch_has_one_mask():
    torch.manual_seed(0)
    drop = BatchDropout(0.5)
    x = torch.ones(6, 400)
    y = drop(x)
    assert (y == y[:1]).all()
    assert set(y[0].tolist()) == {0.0, 2.0}
    assert 0.4 < (y[0] == 0).float().mean() < 0.6
    assert not torch.equal(drop(x), y)
    assert torch.equal(drop.eval()(x), x)
    assert "p=0.5" in repr(drop)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        BatchDropout(1.0)


@pytest.mark.parametrize("hidden", [0, 3])
def test_a_risk_head_gives_hazards(hidden):
    torch.manual_seed(0)
    head = RiskHead(8, hidden, 0.25, outputs=4)
    assert head(torch.randn(5, 8)).shape == (5, 4)
    head.set_hazards([0.0, 0.5, 0.25, 1.0])
    with torch.no_grad():
        head.out.weight.zero_()
        found = head.eval()(torch.randn(2, 8)).sigmoid()
    torch.testing.assert_close(found, torch.tensor([[1e-6, 0.5, 0.25, 0.999]]).expand(2, 4))
    with pytest.raises(ValueError, match="must be positive"):
        RiskHead(0)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        Projector(8, 0, hidden=6)


def test_examples():
    assert doctest.testmod(heads).failed == 0
