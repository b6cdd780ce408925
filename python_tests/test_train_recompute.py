"""A batch in parts has the whole batch's gradient and a part's memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.losses.triplet import TripletLoss
from ecgfast.methods.ssl_dml import SSLDML
from ecgfast.miners.distance import InputDistance
from ecgfast.miners.pools import InBatch
from ecgfast.miners.rows import Negatives
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.train.method import Method

SOURCE = Path(__file__).parent.parent / "bench/conftest.py"
_spec = importlib.util.spec_from_file_location("bench_measures", SOURCE)
bench = importlib.util.module_from_spec(_spec)
sys.modules["bench_measures"] = bench  # its dataclasses look themselves up
_spec.loader.exec_module(bench)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def encoder(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return ResNet1d(2, 8, width=4, dropout=dropout).double()


def method(net, micro_batch=0):
    made = Method(Optim())
    made.encoder, made.micro_batch = net, micro_batch
    return made


def records(n=12, samples=64):
    ecg = torch.randn(n, 2, samples, generator=torch.Generator().manual_seed(1)).double()
    ecg[3, 1, 5] = torch.nan  # the encoder gets 0
    return ecg


def assert_same(found, expected):
    """To 1e-12 of the largest: some are zero but for rounding, as those of an offset."""
    largest = max(float(g.abs().max()) for g in expected)
    assert largest > 0
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-12 * largest


def gradients(made, ecg):
    """Of a loss that compares all records with all others."""
    made.zero_grad()
    embeddings = made.embed(ecg)
    torch.cdist(embeddings, embeddings.roll(1, 0)).square().tanh().mean().backward()
    return embeddings.detach(), [p.grad for p in made.encoder.parameters()]


@pytest.mark.parametrize("size", [1, 4, 5, 11, 12, 100])
def test_gradients_are_those_of_the_whole_batch(size):
    """Batch norm by its running statistics, as in a frozen norm or a net without one."""
    net = encoder().eval()
    expected, whole = gradients(method(net), records())
    found, parts = gradients(method(net, size), records())
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert_same(parts, whole)


def test_a_method_mines_and_compares_the_whole_batch():
    """The triplets of 12 records, not of 3 times 4: through a training step, as it is trained."""
    net, found = encoder().eval(), []
    for size in (0, 4):
        pool = InBatch(InputDistance("mean_l1"))
        loss = TripletLoss(0.2)
        made = SSLDML(net, pool, Negatives("farthest", topk=1), loss, optim=Optim())
        made.log_dict = lambda values: None
        made.micro_batch = size
        made.zero_grad()
        torch.manual_seed(3)
        loss = made.training_step({"ecg": records(), "index": torch.arange(12)}, 0)
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in net.parameters()]))
    (whole_loss, whole), (loss, parts) = found
    assert whole_loss > 0
    assert (loss - whole_loss).abs() <= 1e-12 * whole_loss
    assert_same(parts, whole)


def plain_parts(net, ecg, size):
    """The same parts with all activations kept."""
    parts = ecg.nan_to_num().tensor_split(-(-len(ecg) // size))
    return torch.cat([net(part) for part in parts])


def test_dropout_is_drawn_again_and_running_statistics_move_once():
    ecg, outcome = records(), []
    for again in (False, True):
        net = encoder(dropout=0.5).train()
        torch.manual_seed(7)
        made = method(net, 5)
        embeddings = made.embed(ecg) if again else plain_parts(net, ecg, 5)
        TripletLoss(0.5)(
            embeddings.float(), *torch.arange(12).repeat(3, 1).add(torch.arange(3)[:, None]) % 12
        ).backward()
        drawn = torch.rand(1)  # the second forward must not move the generator
        outcome.append((embeddings, [p.grad for p in net.parameters()], net.state_dict(), drawn))
    kept, recomputed = outcome
    assert torch.equal(kept[0], recomputed[0])
    assert all(torch.equal(a, b) for a, b in zip(kept[1], recomputed[1], strict=True))
    assert all(torch.equal(kept[2][name], recomputed[2][name]) for name in kept[2])
    assert torch.equal(kept[3], recomputed[3])
    assert recomputed[2]["stem.1.num_batches_tracked"] == 3  # once a part


def test_buffers_are_the_same_tensors_afterwards():
    """A copy left behind would cut the encoder off from what moves and saves its buffers."""
    net = encoder().train()
    before = {name: buffer.data_ptr() for name, buffer in net.named_buffers()}
    gradients(method(net, 4), records())
    assert before == {name: buffer.data_ptr() for name, buffer in net.named_buffers()}


def test_without_gradients_nothing_is_computed_twice():
    calls = []

    class Counted(nn.Module):
        def forward(self, ecg):
            calls.append(len(ecg))
            return ecg.mean(dim=2)

    made = method(Counted(), 5)
    with torch.no_grad():
        found = made.embed(records())
    assert torch.equal(found, records().nan_to_num().mean(dim=2))
    assert calls == [4, 4, 4]


def test_bfloat16_is_recomputed_as_bfloat16():
    net, ecg, found = encoder().float().eval(), records().float(), []
    for size in (0, 4):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = method(net, size).embed(ecg)
        assert embeddings.dtype == torch.bfloat16
        embeddings.float().square().sum().backward()
        found.append(net.stem[0].weight.grad)
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=0.02 * found[0].abs().max())


def test_memory_is_that_of_a_part():
    """64 records a part, 64 or 512 of them: embeddings and inputs grow, activations do not."""
    net = encoder().float().train()

    def peak(n, size):
        ecg = torch.randn(n, 2, 1000)

        def step():
            method(net, size).embed(ecg).square().sum().backward()

        step()  # gradients are there from now on
        return bench.peak_of(torch.device("cpu"), step)

    one, whole, parts = peak(64, 0), peak(512, 0), peak(512, 64)
    assert whole > 6 * one
    assert parts < 1.3 * one
