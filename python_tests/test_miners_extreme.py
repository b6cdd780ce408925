"""NearestFarthest against plain loops, its draws by counting."""

from __future__ import annotations

import doctest

import pytest
import torch

from ecgfast.miners import extreme
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.testing import make_ecg

RULES = [
    (positive, negative, topk)
    for positive in ("nearest", "two_farthest")
    for negative, topk in (("random", 1), ("farthest", 1), ("farthest", 2), ("farthest", 5))
]


def symmetric(n, seed, levels=None):
    """A random symmetric matrix; with few levels it is full of ties."""
    draw = torch.Generator().manual_seed(seed)
    if levels:
        matrix = torch.randint(levels, (n, n), generator=draw).float()
    else:
        matrix = torch.rand(n, n, generator=draw)
    return matrix.triu(1) + matrix.triu(1).T


def legal(distances, eligible, anchor, rule):
    """Every (positive, negative) that the rule allows, by loops."""
    positive_rule, negative_rule, topk = rule
    others = [j for j in range(len(distances)) if j != anchor and eligible[j]]
    if not eligible[anchor] or len(others) < 2:
        return set()
    row = [float(d) for d in distances[anchor]]
    farthest = sorted(others, key=lambda j: (-row[j], j))
    nearest = sorted(others, key=lambda j: (row[j], j))
    pairs = set()
    for p in nearest[:1] if positive_rule == "nearest" else farthest[:2]:
        pool = others if negative_rule == "random" else farthest[:topk]
        negatives = [j for j in pool if j != p] or [j for j in farthest if j != p][:1]
        pairs |= {(p, n) for n in negatives}
    return pairs


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("n", [0, 2, 3, 4, 6])
def test_draws_every_legal_pair_and_no_other(rule, levels, n):
    miner = NearestFarthest("mean_l1", *rule)
    distances = symmetric(n, seed=n, levels=levels)
    for left_out in ([], [1, 2]):
        eligible = torch.ones(n, dtype=torch.bool)
        eligible[[i for i in left_out if i < n]] = False
        draw = torch.Generator().manual_seed(1)
        seen = [set() for _ in range(n)]
        for _ in range(64):
            triplets = miner.mine(distances, eligible, generator=draw)
            for a, p, q, valid in zip(*(column.tolist() for column in triplets), strict=True):
                if valid:
                    seen[a].add((p, q))
                else:
                    assert a == p == q
        for anchor in range(n):
            # 64 draws miss one of at most 8 legal pairs in two cases of a thousand
            assert seen[anchor] == legal(distances, eligible, anchor, rule)


def test_published_fault_takes_the_two_farthest_for_both_sides():
    distances = symmetric(12, seed=5)
    miner = NearestFarthest(positive="two_farthest", negative="farthest", topk=2)
    for seed in range(20):
        triplets = miner.mine(
            distances,
            torch.ones(12, dtype=torch.bool),
            generator=torch.Generator().manual_seed(seed),
        )
        both = torch.stack([triplets.positives, triplets.negatives], dim=1).sort(dim=1).values
        farthest = distances.topk(2, dim=1).indices.sort(dim=1).values
        assert torch.equal(both, farthest)


@pytest.mark.parametrize(("negative", "topk", "choices"), [("random", 2, 98), ("farthest", 4, 4)])
def test_negatives_are_drawn_evenly(negative, topk, choices):
    n, repeats = 100, 1_000  # 1e5 draws
    miner = NearestFarthest(negative=negative, topk=topk)
    distances, eligible = symmetric(n, seed=3), torch.ones(n, dtype=torch.bool)
    draw, counts = torch.Generator().manual_seed(0), torch.zeros(n, n)
    rows = torch.arange(n)
    for _ in range(repeats):
        counts[rows, miner.mine(distances, eligible, generator=draw).negatives] += 1
    expected = repeats / choices
    drawn = counts > 0
    assert drawn.sum(dim=1).tolist() == [choices] * n
    chi_square = ((counts[drawn] - expected) ** 2 / expected).sum().item()
    freedom = n * (choices - 1)
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_draws_replay_and_follow_the_global_seed():
    ecg, miner = make_ecg(16, 12, 100), NearestFarthest()
    first = miner(ecg, generator=torch.Generator().manual_seed(4))
    again = miner(ecg, generator=torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.manual_seed(4)
    assert all(torch.equal(a, b) for a, b in zip(first, miner(ecg), strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("distance", ["mean_l1", "cosine", "dtw", "lead_dtw"])
def test_broken_records_are_nobodys_neighbour(value, distance):
    ecg = make_ecg(8, 12, 100)
    ecg[2] = ecg[3]  # would be nearest
    ecg[2, 5, 17] = value
    miner = NearestFarthest(distance, negative="farthest", topk=3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(30):
        triplets = miner(ecg, generator=draw)
        assert triplets.valid.tolist() == [i != 2 for i in range(8)]
        assert 2 not in triplets.positives[triplets.valid]
        assert 2 not in triplets.negatives[triplets.valid]


def test_overflown_distances_are_far_but_still_records():
    ecg = make_ecg(5, 12, 100)
    ecg[4] *= 1e30
    triplets = NearestFarthest("sqeuclidean", negative="farthest", topk=1)(ecg)
    assert triplets.valid.all()
    assert triplets.negatives[:4].tolist() == [4] * 4
    assert 4 not in triplets.positives[:4]


@pytest.mark.parametrize("distance", ["mean_l1", "l1", "sqeuclidean", "euclidean", "cosine"])
def test_nearest_is_nearest_in_input_space(distance):
    ecg = make_ecg(20, 12, 250)
    rows = ecg.flatten(1).double()
    if distance == "cosine":
        rows = torch.nn.functional.normalize(rows, dim=1)
    exact = torch.cdist(
        rows, rows, p=1 if "l1" in distance else 2, compute_mode="donot_use_mm_for_euclid_dist"
    ).fill_diagonal_(torch.inf)
    reached = exact.gather(1, NearestFarthest(distance)(ecg).positives[:, None])[:, 0]
    torch.testing.assert_close(reached, exact.min(dim=1).values, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"positive": "farthest"}, "nearest or two_farthest"),
        ({"negative": "nearest"}, "random or farthest"),
        ({"topk": 0}, "at least 1"),
        ({"distance": "warped"}, "warped"),
    ],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        NearestFarthest(**words)(make_ecg(4, 2, 10))


def test_refuses_rows():
    with pytest.raises(ValueError, match=r"must be \(N, L, T\), got \(4, 10\)"):
        NearestFarthest()(torch.zeros(4, 10))


def test_example_runs():
    assert doctest.testmod(extreme).failed == 0
