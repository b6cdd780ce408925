"""Projectors and heads."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from ecgfast.models import heads
from ecgfast.models.heads import Projector


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


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        Projector(8, 0, hidden=6)


def test_examples():
    assert doctest.testmod(heads).failed == 0
