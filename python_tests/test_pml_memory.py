"""CrossBatchMemory agrees with pytorch-metric-learning wherever that is right."""

from __future__ import annotations

import pytest
import pytorch_metric_learning.losses as theirs
import pytorch_metric_learning.miners as their_miners
import torch
from torch.nn.functional import normalize

from ecgfast.pml import losses, miners


def batches(count, rows=6, classes=3, width=5):
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(rows, width, generator=draw, dtype=torch.float64),
            torch.randint(classes, (rows,), generator=draw),
        )


def step(memory, rows, labels, *more):
    leaf = rows.clone().requires_grad_()
    value = memory(leaf, labels, *more)
    if not value.requires_grad:
        return value, torch.zeros_like(rows)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("size", [6, 13, 40])
@pytest.mark.parametrize("miner", [None, "BatchHardMiner", "MultiSimilarityMiner"])
@pytest.mark.parametrize(
    "name",
    [
        "NTXentLoss",
        "SupConLoss",
        "ContrastiveLoss",
        "MultiSimilarityLoss",
        "TripletMarginLoss",
        "MarginLoss",
    ],
)
def test_agrees_with_the_peer(name, miner, size):
    """The memory is exactly a batch, wraps around within a batch, is never full."""
    found = []
    for package, its_miners in ((losses, miners), (theirs, their_miners)):
        mine = None if miner is None else getattr(its_miners, miner)()
        memory = package.CrossBatchMemory(getattr(package, name)(), 5, size, mine)
        found.append([step(memory, *batch) for batch in batches(6)])
        assert memory.queue_idx == 36 % size
        assert memory.has_been_filled == (size != 40)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_agrees_where_other_rows_are_enqueued():
    masks = [torch.arange(6) < k for k in (4, 6 - 1, 3, 4, 2)]
    found = []
    for package in (losses, theirs):
        memory = package.CrossBatchMemory(package.NTXentLoss(), 5, 7)
        found.append([step(memory, *b, None, m) for b, m in zip(batches(5), masks, strict=True)])
        found[-1].append((memory.embedding_memory, memory.label_memory))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_a_batch_of_one_is_not_its_own_partner():
    """The peer finds the anchor by where the batch begins and ends: for one row, nowhere."""
    rows, labels = torch.eye(3)[:1], torch.tensor([4])
    negative = torch.tensor([[0.6, 0.8, 0.0]])
    for package, wanted in ((losses, 0.0), (theirs, None)):
        memory = package.CrossBatchMemory(package.NTXentLoss(0.5), 3, 4)
        for _ in range(2):
            memory(negative, torch.tensor([5]))
        value = memory(rows, labels)
        if wanted is None:
            assert value > 0.5  # log(exp(2) + 2 exp(1.2)) - 2: against itself
        else:
            assert value.item() == wanted  # there is no other row with its label


def test_nothing_enqueued_fills_nothing():
    """The peer takes a step that puts nothing in for one around the ring: zeros become rows."""
    rows, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
    for package, filled in ((losses, False), (theirs, True)):
        memory = package.CrossBatchMemory(package.ContrastiveLoss(), 4, 8)
        memory(rows, labels, None, torch.zeros(4, dtype=torch.bool))
        assert memory.has_been_filled is filled


def test_an_easy_positive_is_another_row():
    """The peer mines the anchor itself, then takes it out: no anchor keeps an easy positive."""
    found = []
    for package, its_miners in ((losses, miners), (theirs, their_miners)):
        mine = its_miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="hard")
        memory = package.CrossBatchMemory(package.TripletMarginLoss(margin=2), 5, 12, mine)
        found.append([step(memory, *batch)[0] for batch in batches(3)])
    assert all(value > 0 for value in found[0])
    assert all(value == 0 for value in found[1])


def test_further_pairs_are_rows_of_the_batch():
    """The peer reads them as slots of the memory: other rows, once the first batch is past."""
    memory = losses.CrossBatchMemory(losses.ContrastiveLoss(neg_margin=3), 5, 20)
    for rows, labels in batches(3):
        seen = memory.embedding_memory.double()[: memory.count()], memory.label_memory.clone()
        further = torch.tensor([1]), torch.tensor([2]), torch.tensor([0, 0]), torch.tensor([5, 5])
        value = memory(rows, labels, further)
    old, old_labels = seen[0], seen[1][: len(seen[0])]
    known, known_labels = torch.cat([old, rows]), torch.cat([old_labels, labels])
    far = torch.cdist(normalize(rows), normalize(known))
    same = labels[:, None] == known_labels
    itself = torch.arange(12, 18)[:, None] == torch.arange(18)
    near = torch.cat([far[same & ~itself], far[1, 14, None]])
    remote = 3 - torch.cat([far[~same], far[0, 17].expand(2)])
    torch.testing.assert_close(value, near.mean() + remote.mean())
    # and as triplets, which join a list of pairs as pairs
    one = torch.tensor([0])
    assert memory(rows, labels, (one, one + 1, one + 2)).isfinite()


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_resumes(stop):
    """The peer's place in the ring is no part of its state: it would begin again at slot 0."""

    def new():
        return losses.CrossBatchMemory(losses.NTXentLoss(), 5, 15).double()

    every = list(batches(7))
    whole = new()
    expected = [step(whole, *batch) for batch in every]
    memory = new()
    found = [step(memory, *batch) for batch in every[:stop]]
    resumed = new()
    resumed.load_state_dict(memory.state_dict())
    found += [step(resumed, *batch) for batch in every[stop:]]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert resumed.queue_idx == 42 % 15
    resumed.reset_queue()
    assert resumed.queue_idx == 0
    assert not resumed.has_been_filled


def test_takes_a_loss_and_a_miner_of_the_peer():
    """Whoever has a loss that is not here keeps it, and still gets the ring."""
    found = []
    for package in (losses, theirs):
        memory = package.CrossBatchMemory(
            theirs.CircleLoss(), 5, 13, their_miners.TripletMarginMiner(margin=1)
        )
        found.append([step(memory, *batch) for batch in batches(4)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_refuses():
    memory = losses.CrossBatchMemory(losses.NTXentLoss(), 5, 4)
    rows, labels = torch.ones(6, 5), torch.arange(6)
    with pytest.raises(ValueError, match="does not fit a memory of 4"):
        memory(rows, labels)
    with pytest.raises(ValueError, match="not both"):
        memory(rows, labels, (labels,) * 3, labels > 2)
    with pytest.raises(ValueError, match=r"\(6,\) bool"):
        memory(rows, labels, None, labels)
    with pytest.raises(ValueError, match="rows of 5 numbers"):
        memory(torch.ones(2, 4), labels[:2])
    with pytest.raises(ValueError, match="VICRegLoss does not"):
        losses.CrossBatchMemory(losses.VICRegLoss(), 5)
