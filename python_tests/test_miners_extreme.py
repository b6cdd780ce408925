"""NearestFarthest against plain loops, its draws by counting; BatchHard and LabelDistance."""

from __future__ import annotations

import doctest

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.miners import BatchEasyHardMiner, BatchHardMiner

from ecgfast.miners import extreme
from ecgfast.miners.extreme import BatchHard, LabelDistance, NearestFarthest
from ecgfast.ops import label_distance
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


def by_sorting(distances, eligible, rule, draws):
    """The rule as it was first written, which runs of old resume with: whole rows, sorted."""
    positive, negative, topk = rule
    n = len(distances)
    others = eligible & ~torch.eye(n, dtype=torch.bool)
    largest = torch.finfo(distances.dtype).max
    distances = distances.nan_to_num(nan=largest, posinf=largest)

    def pick(values, draw, first, but=None):
        order = values.masked_fill(~others, -torch.inf).argsort(dim=1, descending=True, stable=True)
        count = others.sum(dim=1).clamp(max=first)
        if but is None:
            return order.gather(1, (draw * count).long()[:, None])[:, 0]
        place = (order == but[:, None]).int().argmax(dim=1)
        rank = (draw * (count - (place < count).long()).clamp(min=1)).long()
        rank += rank >= place
        return order.gather(1, rank.clamp(max=n - 1)[:, None])[:, 0]

    if positive == "nearest":
        positives = distances.masked_fill(~others, torch.inf).argmin(dim=1)
    else:
        positives = pick(distances, draws[0], 2)
    if negative == "random":
        return positives, pick(torch.zeros_like(distances), draws[1], n, positives)
    return positives, pick(distances, draws[1], topk, positives)


@pytest.mark.parametrize("rule", [*RULES, ("nearest", "farthest", 60)], ids=str)
@pytest.mark.parametrize("levels", [None, 3])
def test_draws_are_those_of_a_sorted_matrix(rule, levels):
    n = 40
    distances, eligible = symmetric(n, seed=5, levels=levels), torch.arange(n) % 6 != 2
    distances[3, 7], distances[4, 9], distances[5, 6] = torch.nan, torch.inf, -torch.inf
    triplets = NearestFarthest("mean_l1", *rule).mine(
        distances, eligible, generator=torch.Generator().manual_seed(8)
    )
    draws = torch.rand(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    positives, negatives = by_sorting(distances, eligible, rule, draws)
    assert torch.equal(triplets.valid, eligible)
    assert torch.equal(triplets.positives[eligible], positives[eligible])
    assert torch.equal(triplets.negatives[eligible], negatives[eligible])


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("distance", ["mean_l1", "cosine", "dtw", "soft_dtw", "lead_dtw"])
def test_strips_of_distances_do_not_show(monkeypatch, rule, distance):
    ecg = make_ecg(13, 3, 40)
    ecg[5, 1, 7] = torch.nan
    miner = NearestFarthest(extreme.InputDistance(distance, resample=(1, 2)), *rule)
    whole = miner(ecg, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(extreme, "_STRIP_BYTES", 4 * 13 * 5)  # five rows, five, three
    strips = miner(ecg, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(whole, strips, strict=True))


def test_no_more_than_a_strip_of_distances_is_held(monkeypatch):
    monkeypatch.setattr(extreme, "_STRIP_BYTES", 2**16)
    ecg = make_ecg(600, 1, 20)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        NearestFarthest(negative="farthest")(ecg)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    # the strip, the same without NaN, a copy of the records, some numbers a record
    assert peak < 3 * 2**16 + 2 * ecg.nbytes + 600 * 8 * 12 < 600 * 600 * 4


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


def labelled(n, d, classes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    return torch.randn(n, d, generator=draw), labels


PEERS = {  # ours and theirs, away from ties
    ("euclidean", False): LpDistance(normalize_embeddings=False),
    ("euclidean", True): LpDistance(),
    ("cosine", False): CosineSimilarity(),
}


@pytest.mark.parametrize("distance", PEERS, ids=str)
@pytest.mark.parametrize("positive", ["hardest", "easiest"])
@pytest.mark.parametrize("negative", ["hardest", "easiest", "semihard"])
def test_batch_hard_agrees_with_pytorch_metric_learning(distance, positive, negative):
    peer = BatchEasyHardMiner(
        pos_strategy={"hardest": "hard", "easiest": "easy"}[positive],
        neg_strategy={"hardest": "hard", "easiest": "easy", "semihard": "semihard"}[negative],
        distance=PEERS[distance],
    )
    metric, normalise = distance
    miner = BatchHard(metric, positive, negative, normalise)
    for n, classes in ((60, 20), (50, 3), (8, 1), (6, 600)):
        embeddings, labels = labelled(n, 24, classes)
        references, reference_labels = labelled(n + 9, 24, classes, seed=1)
        found = miner(embeddings, labels)
        among = miner(embeddings, labels, references=references, reference_labels=reference_labels)
        for mined, theirs in (
            (found, peer(embeddings, labels)),
            (among, peer(embeddings, labels, references, reference_labels)),
        ):
            anchors, positives, _, negatives = theirs
            ours = [each[mined.valid] for each in mined[:3]]
            assert all(map(torch.equal, ours, (anchors, positives, negatives)))


def test_batch_hard_is_batch_hard():
    embeddings, labels = labelled(70, 16, 9)
    anchors, positives, negatives = BatchHardMiner()(embeddings, labels)
    mined = BatchHard(normalise=True)(embeddings, labels)
    assert torch.equal(mined.anchors[mined.valid], anchors)
    assert torch.equal(mined.positives[mined.valid], positives)
    assert torch.equal(mined.negatives[mined.valid], negatives)


def test_a_rank_mines_its_part_of_the_whole():
    embeddings, labels = labelled(24, 8, 5)
    groups = torch.arange(24) // 2
    for miner, values in ((BatchHard(), labels), (LabelDistance(0.5), embeddings[:, 0])):
        whole = miner(embeddings, values, groups=groups)
        for begin in (0, 12):
            part = slice(begin, begin + 12)
            mined = miner(
                embeddings[part],
                values[part],
                references=embeddings,
                reference_labels=values,
                groups=groups[part],
                reference_groups=groups,
                places=torch.arange(24)[part],
            )
            assert all(torch.equal(a, b[part]) for a, b in zip(mined[1:], whole[1:], strict=True))


def test_label_distance_takes_what_miners_take():
    embeddings, _ = labelled(9, 4, 2)
    pressures = torch.arange(9.0)
    mined = LabelDistance(max_gap=2.0)(embeddings, pressures)
    assert torch.equal(torch.stack(mined[1:3]), torch.stack(label_distance(pressures)[:2]))
    with pytest.raises(ValueError, match="embeddings are 9, their labels 8"):
        LabelDistance()(embeddings, pressures[:8])
    with pytest.raises(ValueError, match="reference_labels must be given with references"):
        LabelDistance()(embeddings, pressures, references=embeddings)


@pytest.mark.parametrize(
    "miner", [BatchHard("cosine"), LabelDistance(), BatchHard(negative="semihard")]
)
def test_miners_compile_without_a_graph_break(miner):
    embeddings, labels = labelled(12, 6, 3)
    labels = embeddings[:, 0].detach() if isinstance(miner, LabelDistance) else labels
    embeddings.requires_grad_()
    found = torch.compile(miner, fullgraph=True, backend="aot_eager")(embeddings, labels)
    assert all(torch.equal(a, b) for a, b in zip(found, miner(embeddings, labels), strict=True))


def test_example_runs():
    assert doctest.testmod(extreme).failed == 0
