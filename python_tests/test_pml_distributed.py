"""Two ranks have the loss and the gradient of one process; with the peer they need not."""

from __future__ import annotations

import pytest
import torch

from ecgfast.pml import losses, miners
from ecgfast.pml.utils import distributed
from python_tests.ranks import load, two_ranks

script = load("two_ranks_pml")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two ranks found."""
    return two_ranks("two_ranks_pml", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", list(script.CASES))
def test_two_ranks_are_one_process(found, name):
    expected = script.case(name)
    values = torch.stack([rank[name]["value"] for rank in found])
    torch.testing.assert_close(values.mean(0), expected["value"], rtol=1e-10, atol=1e-10)
    if "efficient" not in name:
        assert torch.equal(values[0], values[1])
    for rank in found:
        torch.testing.assert_close(
            rank[name]["gradient"], expected["gradient"], rtol=1e-9, atol=1e-10
        )


def test_memories_agree(found):
    """In the peer each rank puts its own rows first: the memories differ (its issue 639)."""
    for name in ("embedding_memory", "label_memory", "next_slot", "filled"):
        assert torch.equal(found[0]["memory"][name], found[1]["memory"][name])


def test_the_efficient_peer_loses_half_of_the_gradient(found):
    """Its references are constants: what the other rank's anchors say of a row is not heard."""
    expected = script.case("NTXentLoss")["gradient"]
    for rank in found:
        assert (rank["peer"]["gradient"] - expected).norm() > 0.1 * expected.norm()
        assert not torch.isclose(rank["peer"]["value"], script.case("NTXentLoss")["value"])


def test_one_process_needs_no_group():
    rows, labels = script.batch()
    wrapped = distributed.DistributedLossWrapper(losses.NTXentLoss(), efficient=True)
    torch.testing.assert_close(wrapped(rows, labels), losses.NTXentLoss()(rows, labels))
    miner = distributed.DistributedMinerWrapper(miners.BatchHardMiner(), efficient=True)
    for one, other in zip(miner(rows, labels), miners.BatchHardMiner()(rows, labels), strict=True):
        assert torch.equal(one, other)
    memory = losses.CrossBatchMemory(losses.NTXentLoss(), 6, 32)
    assert distributed.DistributedLossWrapper(memory)(rows, labels).isfinite()


def test_refuses():
    with pytest.raises(TypeError, match="must be a loss"):
        distributed.DistributedLossWrapper(torch.nn.MSELoss())
    with pytest.raises(TypeError, match="must be a miner"):
        distributed.DistributedMinerWrapper(torch.nn.MSELoss())
    memory = losses.CrossBatchMemory(losses.NTXentLoss(), 4)
    with pytest.raises(ValueError, match="efficient=False"):
        distributed.DistributedLossWrapper(memory, efficient=True)
    rows, labels = script.batch()
    with pytest.raises(ValueError, match="enqueue_mask is for"):
        distributed.DistributedLossWrapper(losses.NTXentLoss())(
            rows, labels, enqueue_mask=labels > 0
        )
    with pytest.raises(ValueError, match="its own references"):
        distributed.DistributedLossWrapper(memory)(rows, labels, ref_emb=rows)
