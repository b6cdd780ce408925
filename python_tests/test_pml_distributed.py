"""Two ranks have the loss and the gradient of one process; with the peer they need not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ecgfast.pml import losses, miners
from ecgfast.pml.utils import distributed

SCRIPT = Path(__file__).parent / "two_ranks_pml.py"
_spec = importlib.util.spec_from_file_location("two_ranks_pml", SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-P", str(SCRIPT), str(folder / "store"), str(folder / "out")]
    processes = [
        subprocess.Popen([*words, rank], env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rank in "01"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [torch.load(folder / f"out{rank}", weights_only=True) for rank in "01"]


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
