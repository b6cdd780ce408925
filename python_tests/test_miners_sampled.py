"""Miners that draw: what they return, and that they lose no anchor where the usual library does."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.miners import DistanceWeightedMiner

from ecgfast.miners.sampled import DistanceWeighted, RandomTriplets, SemiHard, SoftHard
from ecgfast.ops import triplet_loss
from ecgfast.ops._mine_sampled import distance_weighted_reference
from ecgfast.ops._pairs import all_pairs, relations
from python_tests.test_mine_sampled import frequencies, make, p_value

MINERS = [DistanceWeighted(samples=3), SemiHard(), SoftHard(), RandomTriplets(samples=2)]
NAMES = [type(miner).__name__ for miner in MINERS]


@pytest.mark.parametrize("miner", MINERS, ids=NAMES)
def test_triplets_of_a_batch(device, miner):
    x, labels = make(d=16, n=30, device=device)
    labels[7] = 99  # without a positive
    x[11] = torch.nan
    triplets = miner(x, labels)
    samples = getattr(miner, "samples", 1)
    assert triplets.anchors.tolist() == [i for i in range(30) for _ in range(samples)]
    assert all(field.shape == (30 * samples,) for field in triplets)
    anchors, positives, negatives, valid = triplets
    assert valid.tolist() == [i not in (7, 11) for i in anchors.tolist()]
    positive, negative = relations(all_pairs(x, labels))
    assert positive[anchors, positives][valid].all()
    assert negative[anchors, negatives][valid].all()
    assert torch.equal(positives[~valid], anchors[~valid])
    assert torch.equal(negatives[~valid], anchors[~valid])
    assert triplet_loss(x, anchors, positives, negatives, valid=valid).isfinite()


@pytest.mark.parametrize("miner", MINERS, ids=NAMES)
def test_seeds(device, miner):
    x, labels = make(d=16, n=60, device=device)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(miner(x, labels))
    assert all(map(torch.equal, results[0], results[1]))
    assert not torch.equal(results[0].negatives, results[2].negatives)
    seed = torch.tensor([2**60 + 1], device=device)
    assert all(map(torch.equal, miner(x, labels, seed=seed), miner(x, labels, seed=seed)))


@pytest.mark.parametrize("miner", MINERS, ids=NAMES)
def test_with_references(device, miner):
    x, labels = make(d=16, n=20, device=device)
    others, their_labels = make(d=16, n=50, device=device, seed=1)
    places = torch.full((20,), -1, device=device)
    others[40], their_labels[40], places[5] = x[5], labels[5], 40
    labels[9] = 77
    words = dict(references=others, reference_labels=their_labels, places=places)
    anchors, positives, negatives, valid = miner(x, labels, **words)
    positive, negative = relations(all_pairs(x, labels, **words))
    assert positive[anchors, positives][valid].all()
    assert negative[anchors, negatives][valid].all()
    assert valid.any()
    assert not valid[anchors == 9].any()
    assert not positives[~valid].any()
    assert not negatives[~valid].any()


@pytest.mark.parametrize("miner", MINERS, ids=NAMES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(miner, dynamic):
    def loss(x, labels, seed):
        anchors, positives, negatives, valid = miner(x, labels, seed=seed)
        return triplet_loss(x, anchors, positives, negatives, valid=valid)

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (12, 20):
        x, labels = make(d=8, n=n)
        x.requires_grad_()
        seed = torch.tensor([n])
        losses = compiled(x, labels, seed), loss(x, labels, seed)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(one, x)[0] for one in losses))


@pytest.mark.parametrize("miner", MINERS, ids=NAMES)
def test_compiles_with_a_seed_of_its_own(miner):
    torch._dynamo.reset()
    x, labels = make(d=8, n=20)
    compiled = torch.compile(miner, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    first, second = compiled(x, labels), compiled(x, labels)
    assert first.valid.any()
    assert not torch.equal(first.negatives, second.negatives)


@pytest.mark.parametrize(
    ("make_miner", "message"),
    [
        (lambda: DistanceWeighted(samples=0), "samples must be at least 1"),
        (lambda: DistanceWeighted(cutoff=1.4), "cutoff must be above 0 and below"),
        (lambda: DistanceWeighted(no_negative="all"), "drop, uniform or hardest, got 'all'"),
        (lambda: SemiHard(margin=-1), "margin must be at least 0"),
        (lambda: SemiHard(metric="l1"), "euclidean, sqeuclidean or cosine, got 'l1'"),
        (lambda: SoftHard(metric="l1"), "euclidean, sqeuclidean or cosine, got 'l1'"),
        (lambda: RandomTriplets(samples=0), "samples must be at least 1"),
    ],
)
def test_refuses(make_miner, message):
    with pytest.raises(ValueError, match=message):
        make_miner()


# The peer: what its one maximum for the whole batch does to the other rows.


@pytest.mark.parametrize(
    ("kind", "d", "most"),
    [("low_rank", 512, 0.1), ("low_rank", 2048, 0.1), ("near_duplicates", 512, 0.7)],
)
def test_every_legal_anchor_is_kept_where_the_peer_drops_most(kind, d, most):
    x, labels = make(kind, d, 512)
    legal = distance_weighted_reference(x.double(), labels).any(dim=1)
    ours = DistanceWeighted()(x, labels, seed=torch.tensor([0]))
    assert torch.equal(ours.valid, legal)
    assert legal.sum() >= 500
    torch.manual_seed(0)
    theirs = DistanceWeightedMiner()(x, labels)[0].unique()
    assert len(theirs) <= most * legal.sum()


def test_the_chi_square_that_ours_passes_refuses_the_peer():
    x, labels = make("low_rank", 512)
    truth = distance_weighted_reference(x.double(), labels).numpy()
    ours = DistanceWeighted(samples=2000)(x, labels, seed=torch.tensor([1]))
    assert ours.valid.all()
    assert len(ours.valid) >= 1e5
    assert p_value(frequencies(ours.negatives.reshape(60, -1), 60), truth) > 0.001

    torch.manual_seed(0)
    peer, counts = DistanceWeightedMiner(), torch.zeros(60, 60, dtype=torch.float64)
    for _ in range(40):  # an anchor that it keeps draws 4 times
        anchors, _, negatives = peer(x, labels)
        counts.index_put_((anchors, negatives), torch.ones(len(anchors)).double(), accumulate=True)
    # what it should have drawn, had every anchor drawn as often
    wanted = truth * counts.sum().item() / 60
    assert p_value(counts.numpy().reshape(1, -1), (wanted / wanted.sum()).reshape(1, -1)) < 1e-12
    assert (counts.sum(dim=1) == 0).sum() >= 15  # anchors that it never kept
