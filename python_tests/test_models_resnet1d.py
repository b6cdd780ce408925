"""The signal encoder and its heads: size, lengths, start, what they refuse."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from ecgfast.models import heads, resnet1d
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import LEAST_SAMPLES, ResNet1d


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_has_the_published_number_of_parameters():
    assert parameters(ResNet1d(12, 128)) == 8_803_072


def test_lengths_are_the_published_ones():
    seen = []
    model = ResNet1d(12, 8).eval()
    layers = [model.stem[0], model.stem[3], *model.blocks[1::2]]
    for layer in layers:
        layer.register_forward_hook(lambda _m, _x, y: seen.append(y.shape[-1]))
    model(torch.zeros(1, 12, 2500))
    assert seen == [1250, 625, 625, 313, 157, 79]


@pytest.mark.parametrize("samples", [LEAST_SAMPLES, 33, 500, 2496, 5000])
def test_takes_any_length_from_the_least_on(samples):
    model = ResNet1d(2, 5)
    assert model(torch.randn(2, 2, samples)).shape == (2, 5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 12, 31), "32 samples or more"),
        ((2, 8, 500), r"must be \(N, 12, T\), got \(2, 8, 500\)"),
        ((12, 500), r"must be \(N, 12, T\), got \(12, 500\)"),
    ],
)
def test_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        ResNet1d(12, 4)(torch.zeros(shape))


def test_refuses_unknown_start_and_no_leads():
    with pytest.raises(ValueError, match="he or published"):
        ResNet1d(init="xavier")
    with pytest.raises(ValueError, match="must be positive"):
        ResNet1d(0)


@pytest.mark.parametrize(("init", "power"), [("he", 1), ("published", 2)])
def test_weights_start_with_the_stated_spread(init, power):
    torch.manual_seed(0)
    for conv in ResNet1d(12, 4, init=init).modules():
        if isinstance(conv, nn.Conv1d):
            expected = (2 / (conv.kernel_size[0] ** power * conv.out_channels)) ** 0.5
            # four standard errors of a standard deviation of so many draws
            allowed = 4 * expected / (2 * conv.weight.numel()) ** 0.5
            assert abs(conv.weight.std().item() - expected) < allowed


def test_batch_equals_records_one_by_one_when_evaluating():
    torch.manual_seed(1)
    model, ecg = ResNet1d(12, 16).eval().double(), torch.randn(3, 12, 250).double()
    singly = torch.cat([model(ecg[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(ecg), singly)


def test_every_parameter_gets_a_gradient():
    model = ResNet1d(3, 4)
    model(torch.randn(4, 3, 128)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_head_has_the_stated_layers():
    kinds = [type(m) for m in Head(16, 8, 0.3).modules() if not list(m.children())]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert parameters(Head(16, 8)) == 16 * 8 + 8 + 2 * 8 + 8 + 1
    assert parameters(Head(16, 0, outputs=3)) == 16 * 3 + 3


def test_head_refuses_no_outputs():
    with pytest.raises(ValueError, match="outputs must be positive"):
        Head(16, 8, outputs=0)


@pytest.mark.parametrize("module", [resnet1d, heads])
def test_examples_run(module):
    assert doctest.testmod(module).failed == 0
