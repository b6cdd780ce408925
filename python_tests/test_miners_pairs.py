"""NPairs against pytorch-metric-learning."""

from __future__ import annotations

import doctest

import pytest
import torch
from pytorch_metric_learning.utils import loss_and_miner_utils as peer

from ecgfast.miners import pairs
from ecgfast.miners.pairs import NPairs


@pytest.mark.parametrize(("n", "classes"), [(0, 1), (1, 1), (7, 1), (9, 100), (64, 20)])
def test_each_class_gives_its_first_two(n, classes):
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(n)) - 2**40
    mined = NPairs()(torch.zeros(n, 3), labels)
    assert mined.anchors.tolist() == list(range(n))
    anchors, positives = peer.convert_to_pos_pairs_with_unique_labels(None, labels)
    theirs = sorted(zip(anchors.tolist(), positives.tolist(), strict=True))
    ours = zip(*(each[mined.valid].tolist() for each in mined[:2]), strict=True)
    assert sorted(ours) == theirs
    assert torch.equal(mined.positives[~mined.valid], mined.anchors[~mined.valid])


def test_compiles_without_a_graph_break():
    labels = torch.tensor([3, 1, 3, 1, 1, 2])
    miner = torch.compile(NPairs(), fullgraph=True, backend="aot_eager")
    assert miner(torch.zeros(6, 2), labels).positives.tolist() == [2, 3, 2, 3, 4, 5]


def test_refuses():
    with pytest.raises(ValueError, match=r"labels must be \(4,\) as embeddings, got \(3,\)"):
        NPairs()(torch.zeros(4, 2), torch.arange(3))
    with pytest.raises(TypeError, match="must be integers"):
        NPairs()(torch.zeros(4, 2), torch.zeros(4))


def test_example_runs():
    assert doctest.testmod(pairs).failed == 0
