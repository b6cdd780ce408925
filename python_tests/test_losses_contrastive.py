"""Modules of contrastive losses: what they call, ranks, and pytorch-metric-learning."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import losses as peer
from pytorch_metric_learning.distances import DotProductSimilarity

from ecgfast import ops
from ecgfast.losses.contrastive import (
    AngularLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
)

SCRIPT = Path(__file__).parent / "contrast_ranks.py"


def draw(n, classes, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(classes, (n,), generator=generator)


def assert_same(ours, theirs, *leaves):
    # In float64 both are right to some units in the last place of the logits, 50 at most.
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    gradients = [torch.autograd.grad(each, leaves, retain_graph=True) for each in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


# (N, classes): pairs, some alone, two classes, nobody alike but two, many
BATCHES = [(8, 4), (30, 17), (30, 2), (12, 60), (90, 30)]


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NTXentLoss(), peer.NTXentLoss()),
        (NTXentLoss(0.5), peer.NTXentLoss(0.5)),
        (SupConLoss(), peer.SupConLoss()),
        (SupConLoss(0.05), peer.SupConLoss(0.05)),
        (MultiSimilarityLoss(), peer.MultiSimilarityLoss()),
        (MultiSimilarityLoss(1.0, 20.0, 0.2), peer.MultiSimilarityLoss(1.0, 20.0, 0.2)),
    ],
    ids=lambda module: str(module)[:24],
)
def test_pytorch_metric_learning_agrees(ours, theirs, with_references, batch):
    x, labels = draw(*batch, 8)
    if not with_references:
        assert_same(ours(x, labels), theirs(x, labels), x)
        return
    y, ids = draw(batch[0] + 5, batch[1], 8, seed=1)
    value = ours(x, labels, references=y, reference_labels=ids)
    assert_same(value, theirs(x, labels, ref_emb=y, ref_labels=ids), x, y)


def all_positive_pairs(labels):
    same = labels[:, None] == labels
    return same.fill_diagonal_(False).nonzero().T


@pytest.mark.parametrize("alpha", [20.0, 40.0, 45.0])
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_pytorch_metric_learning_agrees_on_angular(alpha, batch):
    x, labels = draw(*batch, 8)
    # The peer normalises anchors and positives alone: unit rows are what the paper has.
    unit = torch.nn.functional.normalize(x)
    pairs = all_positive_pairs(labels)
    theirs = peer.AngularLoss(alpha)(unit, labels)
    # Its angle is a float32
    value = AngularLoss(math.degrees(float(torch.tensor(math.radians(alpha)))))(x, *pairs, labels)
    torch.testing.assert_close(value, theirs, rtol=1e-6, atol=1e-12)
    gradients = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (value, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 7, 20])
def test_pytorch_metric_learning_agrees_on_n_pairs(classes):
    x, labels = draw(2 * classes, 1, 8)
    labels = torch.arange(classes).repeat(2)
    pairs = (torch.arange(classes), torch.arange(classes) + classes)
    # Plain products, as in the paper: the peer's default is unit rows.
    theirs = peer.NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    assert_same(NPairLoss()(x, *pairs), theirs(x, labels), x)
    assert_same(NPairLoss()(x, *pairs, labels), theirs(x, labels), x)


def test_n_pair_by_hand():
    x, _ = draw(8, 1, 5)
    anchors, positives = torch.tensor([[0, 2, 4], [1, 3, 5]])
    z = x[anchors] @ x[positives].T
    entropy = torch.nn.functional.cross_entropy(z, torch.arange(3))
    squares = (x[:6] ** 2).sum() / 6
    assert_same(NPairLoss(0.1)(x, anchors, positives), entropy + 0.1 * squares, x)
    # Two pairs of one class leave each other out.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    masked = z.masked_fill(torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool(), -math.inf)
    expected = torch.nn.functional.cross_entropy(masked, torch.arange(3))
    assert_same(NPairLoss()(x, anchors, positives, labels), expected, x)
    valid = torch.tensor([True, False, True])
    kept = NPairLoss(0.1)(x, anchors[valid], positives[valid])
    assert_same(NPairLoss(0.1)(x, anchors, positives, valid=valid), kept, x)
    nobody = anchors[:0]
    assert NPairLoss(0.1)(x, nobody, nobody).item() == 0


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_have_the_value_and_gradient_of_one(tmp_path, world):
    words = [sys.executable, "-P", str(SCRIPT), str(tmp_path / "store"), str(tmp_path / "out.pt")]
    processes = [
        subprocess.Popen(
            [*words, str(world)], env={**os.environ, "RANK": str(rank), "OMP_NUM_THREADS": "1"}
        )
        for rank in range(world)
    ]
    assert [process.wait(timeout=180) for process in processes] == [0] * world
    found = torch.load(tmp_path / "out.pt", weights_only=True)

    spec = importlib.util.spec_from_file_location("contrast_ranks", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    own = script.LABELS[: script.ROWS // world]
    assert len(own.unique()) < len(own)  # where the pairs lie
    for name in script.NAMES:
        task = script.Task(name, gathers=False).double()
        loss = task(script.batch(), script.LABELS, script.GROUPS)
        loss.backward()
        close = dict(rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found[name]["loss"], loss.detach(), **close)
        assert set(found[name]["gradients"]) == {key for key, _ in task.named_parameters()}
        for key, parameter in task.named_parameters():
            assert parameter.grad.abs().max() > 0
            torch.testing.assert_close(found[name]["gradients"][key], parameter.grad, **close)


def test_gather_in_one_process_changes_nothing():
    x, labels = draw(12, 4, 5)
    for kind in (NTXentLoss, SupConLoss, MultiSimilarityLoss):
        for reduction in ("mean", "sum", "none"):
            alone, together = (kind(gather=g, reduction=reduction) for g in (False, True))
            torch.testing.assert_close(together(x, labels), alone(x, labels))
    alone, together = (InfoNCELoss(gather=g) for g in (False, True))
    torch.testing.assert_close(together(x, x.cos()), alone(x, x.cos()))
    torch.testing.assert_close(
        together(x, x.cos(), labels=labels), alone(x, x.cos(), labels=labels)
    )


def test_the_scale_learns_and_stays_under_its_maximum():
    x, _ = draw(12, 4, 5)
    x = x.detach().float()
    loss = InfoNCELoss(init_temperature=0.5, max_scale=4.0)
    assert loss.log_scale.exp().item() == pytest.approx(2.0)
    optimiser = torch.optim.SGD(loss.parameters(), lr=50.0)
    for _ in range(3):  # the keys are the queries: a larger scale is always better
        optimiser.zero_grad()
        loss(x, x).backward()
        assert loss.log_scale.grad < 0
        optimiser.step()
    assert loss.log_scale.exp() > 4.0
    value = loss(x, x)
    assert loss.log_scale.exp().item() == pytest.approx(4.0)
    torch.testing.assert_close(value, ops.info_nce(x, x, logit_scale=4.0))
    value.backward()
    assert loss.log_scale.grad < 0  # and no gradient of 0 keeps it there
    fixed = InfoNCELoss(learnable=False)
    assert not list(fixed.parameters())
    assert "log_scale" in fixed.state_dict()


def test_angular_is_the_op():
    x, labels = draw(12, 4, 5)
    pairs = all_positive_pairs(labels)
    valid = torch.arange(pairs.shape[1]) % 2 == 0
    for reduction in ("mean", "none"):
        module = AngularLoss(30.0, reduction=reduction)
        expected = ops.angular(x, *pairs, labels, valid=valid, alpha=30.0, reduction=reduction)
        torch.testing.assert_close(module(x, *pairs, labels, valid), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTXentLoss(reduction="max"), "'mean', 'sum' or 'none'"),
        (lambda: InfoNCELoss(init_temperature=0), "init_temperature must be over 0"),
        (lambda: InfoNCELoss(init_temperature=0.001), "max_scale must be at least 1 /"),
        (lambda: NPairLoss(-1), "l2_weight must be at least 0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gather_takes_no_references():
    x, labels = draw(4, 2, 3)
    with pytest.raises(ValueError, match="give none"):
        NTXentLoss(gather=True)(x, labels, references=x, reference_labels=labels)


def test_modules_say_what_they_are():
    assert "temperature=0.07, gather=False, reduction='mean'" in repr(NTXentLoss())
    assert "alpha=2.0, beta=50.0, base=0.5" in repr(MultiSimilarityLoss())
    assert "learnable=True, max_scale=100.0" in repr(InfoNCELoss())
    assert "alpha=45.0" in repr(AngularLoss())
    assert "l2_weight=0.5" in repr(NPairLoss(0.5))
