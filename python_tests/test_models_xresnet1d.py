"""XResNet1d-101: size, lengths, start, pooling, what it refuses; trained and loaded as a run."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from ecgfast.cli import main
from ecgfast.config import Encoder
from ecgfast.models import xresnet1d
from ecgfast.models.xresnet1d import LEAST_SAMPLES, XResNet1d
from ecgfast.systems.model import load


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def expected_parameters(leads, width):
    """By hand: weights of the convolutions, and two numbers a channel of each batch norm."""
    half, out = width // 2, 4 * width
    stem = 5 * half * (leads + half + width) + 2 * (2 * half + width)
    total = stem + width * out + 2 * out  # with the way around the very first block
    for block in range(3 + 4 + 23 + 3):
        enters = width if block == 0 else out
        total += enters * width + 5 * width * width + width * out + 2 * (2 * width + out)
    return total


@pytest.mark.parametrize(("leads", "width"), [(12, 64), (12, 8), (1, 6), (8, 64)])
def test_has_as_many_parameters_as_the_architecture_says(leads, width):
    model = XResNet1d(leads, width=width)
    assert parameters(model) == expected_parameters(leads, width)
    with_layer = XResNet1d(leads, 7, width=width)
    assert parameters(with_layer) == parameters(model) + (8 * width + 1) * 7


def test_has_the_published_size():
    assert parameters(XResNet1d(12)) == 1_804_672
    assert XResNet1d(12).embedding_dim == 512
    convolutions = [m for m in XResNet1d(12).modules() if isinstance(m, nn.Conv1d)]
    assert len(convolutions) == 3 + 3 * 33 + 1  # 101 layers and a head's; one way around widens


def test_lengths_are_the_published_ones():
    seen, model = [], XResNet1d(12, width=4).eval()
    for layer in [model.stem[0], model.stem[-1], *model.blocks]:
        layer.register_forward_hook(lambda _m, _x, y: seen.append(y.shape[-1]))
    model(torch.zeros(1, 12, 1000))
    assert seen == [500, 250, 250, 125, 63, 32]


@pytest.mark.parametrize("samples", [LEAST_SAMPLES, 33, 97, 608, 2500])
def test_takes_any_length_from_the_least_on(samples):
    assert XResNet1d(2, 5, width=4)(torch.randn(2, 2, samples)).shape == (2, 5)


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
        XResNet1d(12, width=4)(torch.zeros(shape))


def test_refuses_sizes_that_are_none():
    with pytest.raises(ValueError, match="must be even, half of it is the stem's, got 5"):
        XResNet1d(width=5)
    for words in ({"num_leads": 0}, {"width": 0}, {"embedding_dim": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            XResNet1d(**words)


def test_every_block_starts_as_the_way_around_it():
    torch.manual_seed(0)
    model = XResNet1d(2, width=4)
    for stage in model.blocks:
        for block in stage:
            x = torch.rand(3, block.path[0].in_channels, 40)
            assert torch.equal(block(x), torch.relu(block.shortcut(x)))
    strides = model.blocks[1][0].shortcut
    x = torch.rand(1, 16, 5)
    pairs = torch.stack([x[..., :2].mean(-1), x[..., 2:4].mean(-1), x[..., 4]], dim=-1)
    torch.testing.assert_close(strides(x), pairs)  # the last, alone, is itself


def test_embeddings_are_maximum_and_mean_over_time():
    torch.manual_seed(1)
    model, seen = XResNet1d(3, width=4).eval(), []
    model.blocks[-1].register_forward_hook(lambda _m, _x, y: seen.append(y))
    embeddings = model(torch.randn(2, 3, 200))
    torch.testing.assert_close(embeddings[:, :16], seen[0].max(dim=-1).values)
    torch.testing.assert_close(embeddings[:, 16:], seen[0].mean(dim=-1))


def test_dropout_is_of_the_pooled_features_and_of_training_alone():
    torch.manual_seed(2)
    ecg = torch.randn(4, 2, 64)
    model = XResNet1d(2, width=16, dropout=0.5)
    share = (model(ecg) == 0).float().mean()  # maximum and mean of ReLU are rarely 0 themselves
    assert 0.3 < share < 0.7
    model.eval()
    assert torch.equal(model(ecg), model(ecg))


def test_gradients_reach_every_stage_once_the_blocks_have_left_the_identity():
    torch.manual_seed(3)
    model = XResNet1d(2, 4, width=4)
    for block in (block for stage in model.blocks for block in stage):
        nn.init.ones_(block.last.weight)
    model(torch.randn(4, 2, 128)).square().sum().backward()
    for stage in model.stages():
        grads = [p.grad for p in stage.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads)
        assert max(g.abs().max() for g in grads) > 0
    counted = sum(parameters(stage) for stage in model.stages())
    assert counted == parameters(model)  # no layer is in two stages, none in none


def test_batch_equals_records_one_by_one_when_evaluating():
    torch.manual_seed(4)
    model, ecg = XResNet1d(12, width=4).eval().double(), torch.randn(3, 12, 250).double()
    singly = torch.cat([model(ecg[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(ecg), singly)


def test_is_trained_and_loaded_as_a_run(tmp_path):
    run = tmp_path / "run"
    words = ["finetune", "--encoder.net", "xresnet101", "--encoder.width", "4"]
    words += ["--data.patients", "40", "--signal.seconds", "2", "--layer_decay", "0.9"]
    words += ["--fit.steps", "2", "--fit.batch_size", "8", "--fit.progress", "false"]
    main([*words, "--fit.out", str(run)])
    model = load(run)
    arguments = {"num_leads": 12, "embedding_dim": 32, "dropout": 0.2, "width": 4}
    assert model.contract.model == {"class": "XResNet1d", "arguments": arguments}
    assert model.embed(torch.randn(2, 12, 500)).shape == (2, 32)


def test_words_of_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"encoder\.init belongs to encoder\.net=resnet18"):
        Encoder(net="xresnet101", init="published")
    with pytest.raises(ValueError, match=r"belongs to encoder\.net=resnet18 or xresnet101 or"):
        Encoder(net="dual_attention", width=8)


def test_examples_run():
    assert doctest.testmod(xresnet1d).failed == 0
