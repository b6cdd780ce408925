"""Miners agree with pytorch-metric-learning wherever that is right; elsewhere the test says why."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import pytorch_metric_learning.distances as their_distances
import pytorch_metric_learning.miners as theirs
import torch
from torch.nn.functional import normalize

from ecgfast.pml import distances, losses, miners

_spec = importlib.util.spec_from_file_location("cases", Path(__file__).parent / "pml_cases.py")
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

STRATEGIES = [
    {"pos_strategy": p, "neg_strategy": n}
    for p in ("hard", "semihard", "easy", "all")
    for n in ("hard", "semihard", "easy", "all")
    if {p, n} not in ({"semihard"}, {"semihard", "all"})
]
EVERY = [
    ("BatchHardMiner", {}),
    *(("BatchEasyHardMiner", words) for words in STRATEGIES),
    ("BatchEasyHardMiner", {"allowed_pos_range": (0.2, 1.3), "allowed_neg_range": (0.9, 1.6)}),
    ("TripletMarginMiner", {}),
    *(("TripletMarginMiner", {"type_of_triplets": t}) for t in ("hard", "semihard", "easy")),
    ("PairMarginMiner", {"pos_margin": 1.0, "neg_margin": 1.3}),
    ("MultiSimilarityMiner", {}),
    ("MultiSimilarityMiner", {"epsilon": 0.5}),
]


def as_set(lists):
    """Pairs or triplets, in no order."""
    if len(lists) == 3:
        return sorted(zip(*(x.tolist() for x in lists), strict=True))
    halves = lists[:2], lists[2:]
    return [sorted(zip(*(x.tolist() for x in half), strict=True)) for half in halves]


@pytest.mark.parametrize("pattern", cases.PATTERNS)
@pytest.mark.parametrize(("name", "words"), EVERY, ids=str)
def test_agrees_with_the_peer(name, words, pattern):
    labels = torch.tensor(cases.PATTERNS[pattern])
    embeddings = cases.rows(len(labels))
    for among in cases.REFERENCES:
        ref_emb, ref_labels = cases.references(among, embeddings, labels)
        case = embeddings, labels, ref_emb, ref_labels
        ours = getattr(miners, name)(**words)(*case)
        assert as_set(ours) == as_set(getattr(theirs, name)(**words)(*case)), among
        assert all(x.dtype == torch.int64 for x in ours)


@pytest.mark.parametrize("kind", ["CosineSimilarity", "LpDistance"])
@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY}))
def test_takes_other_distances(name, kind):
    labels = torch.tensor(cases.PATTERNS["unequal"])
    embeddings = cases.rows(len(labels))
    words = {} if kind == "CosineSimilarity" else {"normalize_embeddings": False, "power": 2}
    found = []
    for package, its in ((miners, distances), (theirs, their_distances)):
        mine = getattr(package, name)(distance=getattr(its, kind)(**words))
        found.append(as_set(mine(embeddings, labels)))
    assert found[0] == found[1]


def test_ties_go_to_the_lowest_index():
    x = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1], [-1, 0], [-1, 0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    a, p, n = miners.BatchHardMiner()(x, labels)
    assert a.tolist() == list(range(6))
    assert (p[0], n[0], n[3]) == (1, 3, 1)


@pytest.mark.parametrize("name", ["BatchHardMiner", "TripletMarginMiner", "DistanceWeightedMiner"])
def test_a_nan_row_is_in_no_triplet(name):
    """The peer's distance-weighted miner draws triplets with a row of NaN."""
    x = cases.rows(12, 8)
    x[5, 2] = torch.nan
    labels = torch.arange(3).repeat(4)
    found = torch.cat(getattr(miners, name)()(x, labels))
    assert len(found)
    assert not (found == 5).any()


@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY} | {"DistanceWeightedMiner"}))
def test_nothing_to_mine(name):
    miner = getattr(miners, name)()
    for labels in (torch.arange(4), torch.tensor([1])):
        lists = miner(cases.rows(len(labels)), labels)
        if name == "PairMarginMiner":
            lists = lists[:2]
        if name != "BatchEasyHardMiner":
            assert all(len(x) == 0 for x in lists)
    assert all(len(x) == 0 for x in miner(cases.rows(0), torch.zeros(0, dtype=torch.int64)))
    assert losses.TripletMarginLoss()(cases.rows(4), None, (torch.arange(0),) * 3) == 0


def test_warns_when_nothing_is_found():
    miner = miners.BatchHardMiner()
    x, labels = cases.rows(4), torch.arange(4)
    for _ in range(49):
        miner(x, labels)
    with pytest.warns(UserWarning, match="0 of 4 anchors .* 4 have no positive, 0 have no neg"):
        miner(x, labels)


# distance-weighted --------------------------------------------------------------------------------


def expected_weights(x, labels, cutoff=0.5, beyond=1.4):
    """Probability of each negative by brute force, in logarithms, row by row."""
    far = torch.cdist(normalize(x), normalize(x), compute_mode="donot_use_mm_for_euclid_dist")
    far = far.clamp(min=cutoff)
    dim = x.shape[1]
    weights = -((dim - 2) * far.log() + (dim - 3) / 2 * torch.log1p(-far.square() / 4))
    legal = (labels[:, None] != labels) & (far < beyond)
    return weights.masked_fill(~legal, -torch.inf).softmax(dim=1), legal


def low_rank(count, dim, rank, seed=0):
    """SYNTHETIC embeddings as a network's: few directions carry most of the variance."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, dim, generator=draw, dtype=torch.float64)
    return torch.randn(count, rank, generator=draw, dtype=torch.float64) @ basis


@pytest.mark.parametrize("dim", [16, 512])
def test_draws_by_distance(dim):
    """Chi-square over 1e5 draws of one anchor's negatives."""
    x = low_rank(64, dim, 12)
    labels = torch.arange(2).repeat(32)
    weights, _ = expected_weights(x, labels)
    torch.manual_seed(0)
    miner = miners.DistanceWeightedMiner()
    counts = torch.zeros(64, 64, dtype=torch.float64)
    for _ in range(50):
        a, p, n = miner(x, labels)
        assert (labels[a] == labels[p]).all()
        assert (a != p).all()
        counts.index_put_((a, n), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    assert counts.sum() >= 1e5
    expected = weights * counts.sum(dim=1, keepdim=True)
    often = expected > 5
    rare = torch.where(often, 0, expected).sum(), torch.where(often, 0, counts).sum()
    chi = ((counts - expected).square() / expected)[often].sum()
    chi += (rare[1] - rare[0]) ** 2 / rare[0].clamp(min=1)
    freedom = int(often.sum()) - 64
    assert (chi - freedom) / (2 * freedom) ** 0.5 < 4


def test_no_anchor_is_lost_to_another():
    """The peer subtracts one maximum of all log-weights: in 512 dimensions most rows underflow.

    One near negative pair is enough (issues 276 and 278 of pytorch-metric-learning).
    """
    x = low_rank(128, 512, 16)
    labels = torch.arange(32).repeat(4)
    _, legal = expected_weights(x, labels)
    torch.manual_seed(0)
    a, _, n = miners.DistanceWeightedMiner()(x, labels)
    assert set(a.tolist()) == set(legal.any(dim=1).nonzero()[:, 0].tolist())
    assert legal[a, n].all()
    kept = theirs.DistanceWeightedMiner()(x.float(), labels)[0].unique()
    assert len(kept) < 0.5 * len(a.unique())


def test_draws_as_many_as_the_peer():
    """As many triplets of an anchor as rows have its label; on a batch where the peer is right."""
    x = cases.rows(24, 6)
    labels = torch.tensor([0] * 12 + [1] * 8 + [2] * 3 + [3])
    ours = miners.DistanceWeightedMiner()(x, labels)[0]
    peer = theirs.DistanceWeightedMiner()(x, labels)[0]
    assert ours.bincount(minlength=24).tolist() == peer.bincount(minlength=24).tolist()
    assert ours.bincount(minlength=24).tolist() == [12] * 12 + [8] * 8 + [3] * 3 + [0]


def test_refuses():
    x, labels = cases.rows(4), torch.tensor([0, 0, 1, 1])
    for name, words, match in (
        ("BatchEasyHardMiner", {"pos_strategy": "semihard"}, "semihard needs"),
        ("BatchEasyHardMiner", {"neg_strategy": "soft"}, "must be one of"),
        ("TripletMarginMiner", {"type_of_triplets": "soft"}, "must be all"),
        ("BatchHardMiner", {"collect_stats": True}, "no statistics"),
        ("DistanceWeightedMiner", {"distance": distances.CosineSimilarity()}, "needs LpDistance"),
    ):
        with pytest.raises(ValueError, match=match):
            getattr(miners, name)(**words)
    with pytest.raises(ValueError, match="needs labels"):
        miners.BatchHardMiner()(x, labels, x.clone())
    with pytest.raises(ValueError, match=r"labels must be \(4,\)"):
        miners.BatchHardMiner()(x, labels[:2])


def test_halves_are_compared_in_float32():
    labels = torch.arange(4).repeat(4)
    x = cases.rows(16, 32).half()
    for name in ("BatchHardMiner", "MultiSimilarityMiner", "TripletMarginMiner"):
        miner = getattr(miners, name)()
        assert as_set(miner(x, labels)) == as_set(miner(x.float(), labels))
    torch.manual_seed(0)
    half = miners.DistanceWeightedMiner()(x, labels)
    torch.manual_seed(0)
    full = miners.DistanceWeightedMiner()(x.float(), labels)
    assert as_set(half) == as_set(full)
