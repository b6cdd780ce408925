"""The memory of past batches: who is compared, what resumes, what ranks agree on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ecgfast.losses import contrastive, pairs
from ecgfast.losses.memory import CrossBatchMemory, Ring
from ecgfast.losses.triplet import TripletLoss
from ecgfast.miners.extreme import BatchHard
from ecgfast.ops._pairs import all_pairs, relations
from python_tests.ranks import load, two_ranks


class Softmax(nn.Module):
    """A loss of all pairs by brute force; remembers what it was given."""

    def forward(self, embeddings, labels, **words):
        self.words = words
        given = all_pairs(embeddings, labels, **words)
        positive, negative = relations(given)
        logits = given.rows @ given.columns.mT
        far = logits.masked_fill(~negative, -torch.inf)
        near = torch.logaddexp(logits, far.logsumexp(dim=1, keepdim=True)) - logits
        return near[positive].sum() / max(1, int(positive.sum()))


def batches(count, rows=6, width=4):
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(rows, width, generator=draw, dtype=torch.float64, requires_grad=True),
            torch.randint(5, (rows,), generator=draw),
            torch.randint(8, (rows,), generator=draw),
        )


@pytest.mark.parametrize("size", [1, 4, 6, 7, 15, 18, 40])
@pytest.mark.parametrize("groups", [False, True])
def test_compares_with_the_batch_and_the_rows_before_it(size, groups):
    """Sizes that batches of 6 divide and do not, smaller than a batch and never filled."""
    memory = CrossBatchMemory(Softmax(), memory_size=size, embedding_dim=4, groups=groups).double()
    past = [torch.zeros(0, 4, dtype=torch.float64), *torch.zeros(2, 0, dtype=torch.int64)]
    for rows, labels, ids in batches(7):
        value = memory(rows, labels, *([ids] if groups else []))
        gradient = torch.autograd.grad(value, rows)[0]

        copy = rows.detach().clone().requires_grad_()
        new = [copy, labels, ids]
        known = [torch.cat(both) for both in zip(new, past, strict=True)]
        words = {"references": known[0], "reference_labels": known[1], "places": torch.arange(6)}
        if groups:
            words |= {"groups": ids, "reference_groups": known[2]}
        expected = Softmax()(copy, labels, **words)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, copy)[0])
        past = [torch.cat([old, x.detach()])[-size:] for old, x in zip(past, new, strict=True)]
        held = memory.ring.held()
        oldest = int(memory.ring.next_slot) if memory.ring.count() == size else 0
        for found, wanted in zip(held, past, strict=False):
            assert torch.equal(found.roll(-oldest, dims=0), wanted)


def test_an_anchor_is_never_its_own_partner():
    """Equal rows lie in the memory again and again; the anchor itself is left out by its place."""
    memory = CrossBatchMemory(Softmax(), memory_size=5, embedding_dim=3)
    rows, labels = torch.ones(3, 3), torch.arange(3)
    for step in range(4):
        memory(rows, labels)
        words = memory.loss.words
        assert words["places"].tolist() == [0, 1, 2]
        positive, _ = relations(all_pairs(rows, labels, **words))
        assert not positive[:, :3].any()
        assert positive.sum() == min(5, 3 * step)


def test_rows_of_the_memory_carry_no_gradient():
    memory = CrossBatchMemory(Softmax(), memory_size=12, embedding_dim=4).double()
    (first, labels, _), (second, others, _) = batches(2)
    memory(first, labels)
    memory(second, others).backward()
    assert first.grad is None
    assert second.grad is not None


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(tmp_path):
    def steps(memory, some):
        return [memory(rows, labels, ids).detach() for rows, labels, ids in some]

    def new():
        words = {"memory_size": 10, "embedding_dim": 4, "groups": True}
        return CrossBatchMemory(Softmax(), **words).double()

    every = list(batches(9))
    whole = steps(new(), every)
    for stop in (1, 2, 5):  # filling, just full, wrapped around
        memory = new()
        parts = steps(memory, every[:stop])
        torch.save(memory.state_dict(), tmp_path / "memory.pt")
        resumed = new()
        resumed.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
        parts += steps(resumed, every[stop:])
        assert all(torch.equal(a, b) for a, b in zip(parts, whole, strict=True))
        names = {"ring.embeddings", "ring.labels", "ring.groups", "ring.next_slot", "ring.filled"}
        assert names == set(memory.state_dict())


class Hardest(nn.Module):
    """Farthest positive and nearest negative, by brute force."""

    def forward(self, embeddings, labels, **words):
        positive, negative = relations(all_pairs(embeddings, labels, **words))
        far = torch.cdist(embeddings, words["references"])
        p = far.masked_fill(~positive, -1).argmax(dim=1)
        n = far.masked_fill(~negative, torch.inf).argmin(dim=1)
        return words["places"], p, n, positive.any(dim=1) & negative.any(dim=1)


def test_mines_in_the_memory():
    memory = CrossBatchMemory(
        TripletLoss(margin=9), memory_size=9, embedding_dim=4, miner=Hardest()
    ).double()
    past, past_labels = torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    for rows, labels, _ in batches(4):
        known, known_labels = torch.cat([rows, past]), torch.cat([labels, past_labels])
        hinges = []
        for i in range(6):
            far = (known - rows[i]).square().sum(dim=1)
            same = known_labels == labels[i]
            near = far[same & (torch.arange(len(known)) != i)]
            if len(near) and not same.all():
                hinges.append((near.max() - far[~same].min() + 9).clamp(min=0))
        value = memory(rows, labels)
        torch.testing.assert_close(value, torch.stack(hinges).mean())
        past = torch.cat([past, rows.detach()])[-9:]
        past_labels = torch.cat([past_labels, labels])[-9:]


@pytest.mark.parametrize(
    "loss",
    [
        contrastive.NTXentLoss(0.3),
        contrastive.SupConLoss(0.3),
        contrastive.MultiSimilarityLoss(),
        pairs.ContrastiveLoss(negative_margin=3.0),
        pairs.AllTripletsLoss(margin=1.0),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("groups", [False, True])
def test_takes_the_losses_of_the_house(loss, groups):
    """The loss of the newest rows alone, of a batch of all that the memory and the batch hold."""
    memory = CrossBatchMemory(loss, memory_size=12, embedding_dim=4, groups=groups).double()
    every = list(batches(3))
    for rows, labels, ids in every:
        value = memory(rows, labels, *([ids] if groups else []))
    known = [torch.cat(columns).detach() for columns in zip(every[2], *every[:2], strict=True)]
    leaf = every[2][0].detach().clone().requires_grad_()
    words = {
        "references": torch.cat([leaf, known[0][6:]]),
        "reference_labels": known[1],
        "places": torch.arange(6),
    }
    if groups:
        words |= {"groups": every[2][2], "reference_groups": known[2]}
    expected = loss(leaf, every[2][1], **words)
    assert expected > 0
    for found, wanted in zip(
        (value, *torch.autograd.grad(value, rows)),
        (expected, *torch.autograd.grad(expected, leaf)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_takes_the_miners_of_the_house():
    found = []
    for miner in (Hardest(), BatchHard()):
        memory = CrossBatchMemory(
            TripletLoss(margin=9), memory_size=9, embedding_dim=4, miner=miner
        ).double()
        found.append([memory(rows, labels).item() for rows, labels, _ in batches(4)])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_halves_are_compared_as_halves_and_kept_in_float32():
    memory = CrossBatchMemory(Softmax(), memory_size=8, embedding_dim=4)
    for _ in range(2):
        memory(torch.ones(4, 4, dtype=torch.bfloat16), torch.arange(4))
    assert memory.loss.words["references"].dtype == torch.bfloat16
    assert memory.ring.embeddings.dtype == torch.float32


def test_compiles_without_a_graph_break():
    def run(compiled):
        memory = CrossBatchMemory(contrastive.NTXentLoss(0.3), memory_size=10, embedding_dim=4)
        memory.double()
        step = torch.compile(memory, fullgraph=True, backend="aot_eager") if compiled else memory
        return [step(rows.detach(), labels) for rows, labels, _ in batches(5)]

    for found, wanted in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(found, wanted)


def test_two_ranks_are_one_process(tmp_path):
    found = two_ranks("two_ranks_memory", tmp_path)
    expected = load("two_ranks_memory").train(slice(None))
    for rank in found:
        assert set(rank) == set(expected)
        for name in expected:
            torch.testing.assert_close(rank[name], expected[name], rtol=1e-10, atol=1e-10)
    for name in expected:
        assert torch.equal(found[0][name], found[1][name]), name


def test_refuses():
    for words in ({"memory_size": 0, "embedding_dim": 3}, {"memory_size": 3, "embedding_dim": 0}):
        with pytest.raises(ValueError, match="slots and columns"):
            CrossBatchMemory(Softmax(), **words)
    memory = CrossBatchMemory(Softmax(), memory_size=4, embedding_dim=3)
    with pytest.raises(ValueError, match="made without groups"):
        memory(torch.ones(2, 3), torch.arange(2), torch.arange(2))
    grouped = CrossBatchMemory(Softmax(), memory_size=4, embedding_dim=3, groups=True)
    with pytest.raises(ValueError, match="made with groups"):
        grouped(torch.ones(2, 3), torch.arange(2))
    with pytest.raises(ValueError, match="rows of 3 numbers"):
        memory(torch.ones(2, 4), torch.arange(2))
    gathering = Softmax()
    gathering.gather = True
    with pytest.raises(ValueError, match="gather=False"):
        CrossBatchMemory(gathering, memory_size=4, embedding_dim=3)


def test_more_rows_than_slots_leave_the_last():
    ring = Ring(3, 2, ("labels",))
    assert ring.put(torch.arange(10.0).reshape(5, 2), torch.arange(5)).tolist() == [0, 1, 2, 0, 1]
    rows, labels = ring.held()
    assert sorted(labels.tolist()) == [2, 3, 4]
    assert torch.equal(rows[:, 0], 2.0 * labels)
    ring.put(torch.full((1, 2), 9.0), torch.tensor([9]))
    assert sorted(ring.held()[1].tolist()) == [3, 4, 9]
    ring.clear()
    assert ring.count() == 0
    assert len(ring.held()[0]) == 0
