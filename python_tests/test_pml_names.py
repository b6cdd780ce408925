"""One import line changes: names, words and their defaults are those of pytorch-metric-learning."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import pytorch_metric_learning
import torch

import ecgfast.pml

PLACES = {
    "losses": [
        "AngularLoss",
        "ContrastiveLoss",
        "CrossBatchMemory",
        "MarginLoss",
        "MultiSimilarityLoss",
        "NPairsLoss",
        "NTXentLoss",
        "SelfSupervisedLoss",
        "SupConLoss",
        "TripletMarginLoss",
        "VICRegLoss",
    ],
    "miners": [
        "BatchEasyHardMiner",
        "BatchHardMiner",
        "DistanceWeightedMiner",
        "MultiSimilarityMiner",
        "PairMarginMiner",
        "TripletMarginMiner",
    ],
    "distances": ["CosineSimilarity", "DotProductSimilarity", "LpDistance"],
    "reducers": [
        "AvgNonZeroReducer",
        "ClassWeightedReducer",
        "DivisorReducer",
        "DoNothingReducer",
        "MeanReducer",
        "MultipleReducers",
        "PerAnchorReducer",
        "SumReducer",
        "ThresholdReducer",
    ],
    "utils.distributed": ["DistributedLossWrapper", "DistributedMinerWrapper"],
}
EVERY = [(place, name) for place, names in PLACES.items() for name in names]


def words(function):
    """What a call may say by position, and the default of each."""
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in fixed and name != "self"
    }


@pytest.mark.parametrize(("place", "name"), EVERY)
def test_the_same_words_in_the_same_order(place, name):
    ours = getattr(importlib.import_module(f"ecgfast.pml.{place}"), name)
    theirs = getattr(importlib.import_module(f"pytorch_metric_learning.{place}"), name)
    assert getattr(ecgfast.pml, name) is ours
    expected = words(theirs.__init__)
    found = list(words(ours.__init__).items())[: len(expected)]
    assert [word for word, _ in found] == list(expected)
    for word, default in found:
        if not callable(default):
            assert default == expected[word], word


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("losses.NTXentLoss", "losses.NTXentLoss"),
        ("losses.CrossBatchMemory", "losses.CrossBatchMemory"),
        ("losses.SelfSupervisedLoss", "losses.SelfSupervisedLoss"),
        ("miners.BatchHardMiner", "miners.BatchHardMiner"),
        ("distances.LpDistance", "distances.LpDistance"),
    ],
)
def test_calls_take_the_same_words(ours, theirs):
    found, expected = ecgfast.pml, pytorch_metric_learning
    for part in ours.split("."):
        found = getattr(found, part)
    importlib.import_module(f"pytorch_metric_learning.{theirs.split('.')[0]}")
    for part in theirs.split("."):
        expected = getattr(expected, part)
    assert words(found.forward) == words(expected.forward)


def test_words_that_all_share():
    reducer, distance = ecgfast.pml.MeanReducer(), ecgfast.pml.LpDistance()
    for name in PLACES["losses"]:
        if name in ("CrossBatchMemory", "SelfSupervisedLoss", "VICRegLoss"):
            continue
        shared = {"reducer": reducer, "distance": distance, "collect_stats": False}
        shared |= {"embedding_regularizer": None, "embedding_reg_weight": 1}
        getattr(ecgfast.pml, name)(**shared)
    for name in PLACES["miners"]:
        getattr(ecgfast.pml, name)(distance=distance, collect_stats=None)


def test_the_package_does_not_import_its_peer():
    code = "import sys, ecgfast.pml; assert 'pytorch_metric_learning' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_batch_that_the_peer_cannot_hold():
    """2,048 rows, four a class: 6,144 positive by 4,188,160 negative pairs, 103 GB there."""
    labels = torch.arange(512).repeat(4)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2048, 16, generator=draw, requires_grad=True)
    value = ecgfast.pml.NTXentLoss(0.2)(x, labels)
    value.backward()
    rows = torch.nn.functional.normalize(x.detach().double())
    logits = rows @ rows.T / 0.2
    same = labels[:, None] == labels
    far = logits.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)
    expected = torch.nn.functional.softplus(far - logits)[same & ~torch.eye(2048).bool()].mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert x.grad.isfinite().all()
