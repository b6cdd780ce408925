"""Choices from a matrix against plain loops, pools against NearestFarthest, a ring by hand."""

from __future__ import annotations

import doctest

import pytest
import torch

from ecgfast.miners import pools, rows
from ecgfast.miners.distance import EmbeddingDistance, InputDistance
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.miners.pools import Dealt, InBatch, Ring
from ecgfast.miners.rows import Ids, Negatives, Rows, any_of, by_distance, may_repel
from ecgfast.ops import distance_weighted
from ecgfast.testing import make_ecg

RULES = [  # positive, negative, topk: all that is published
    ("nearest", "random", 2),
    ("nearest", "farthest", 1),
    ("nearest", "farthest", 3),
    ("two_farthest", "random", 2),
    ("two_farthest", "farthest", 2),
]


def strangers(n, begin=0):
    own = torch.arange(begin, begin + n)
    return Ids(own, own, torch.full_like(own, -1))


def drawn(n, seed=0):
    return torch.rand(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mine(ecg, ids, *, negative="random", topk=2, seed=0, **words):
    draws = drawn(len(ecg), seed)
    made = InBatch(InputDistance("mean_l1"), **words)(ecg, ids, draws[0])
    return made, Negatives(negative, topk=topk)(made, torch.randn(len(ecg), 8), draws[1])


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("n", [2, 3, 4, 17])
@pytest.mark.parametrize("broken", [(), (1,), (0, 2)])
def test_strangers_are_mined_as_published_bit_for_bit(rule, n, broken):
    positive, negative, topk = rule
    ecg = make_ecg(n, 2, 40)
    ecg[[i for i in broken if i < n], 0, 5] = torch.nan
    for seed in range(5):
        expected = NearestFarthest("mean_l1", positive, negative, topk)(
            ecg, generator=torch.Generator().manual_seed(seed)
        )
        how = {"rule": positive, "negative": negative, "topk": topk, "seed": seed}
        _, found = mine(ecg, strangers(n), **how)
        for name, one, other in zip(found._fields, found, expected, strict=True):
            assert torch.equal(one, other), name


def test_nobody_of_the_group_or_of_the_positives_group_repels():
    ecg = make_ecg(12, 2, 40)
    group = torch.tensor([0, 0, 1, 1, 2, 3, 3, 3, 4, 5, 6, 7])
    ids = Ids(torch.arange(12), group, group)
    seen = set()
    for negative in ("random", "farthest", "distance_weighted"):
        for seed in range(30):
            made, found = mine(ecg, ids, negative=negative, topk=4, seed=seed)
            a, p, n, valid = found
            assert valid.all()
            assert (group[a] != group[n]).all()
            assert (group[p] != group[n]).all()
            seen |= {(negative, int(i), int(j)) for i, j in zip(a, n, strict=True)}
        repel = may_repel(made)
        assert not repel.diagonal().any()
        if negative != "farthest":
            pairs = {(int(i), int(j)) for i, j in repel.nonzero()}
            found_pairs = {(i, j) for kind, i, j in seen if kind == negative}
            assert found_pairs <= pairs
            assert len(found_pairs) > 0.7 * len(pairs)  # draws reach all over


def test_copies_are_no_positives_but_visits_are():
    ecg = make_ecg(6, 2, 40)
    ecg[1] = ecg[0]  # a copy
    ecg[3] = ecg[2] + 1e-4  # another record of the patient of 2
    record, group = torch.tensor([0, 0, 2, 3, 4, 5]), torch.tensor([0, 0, 2, 2, 4, 5])
    made, _ = mine(ecg, Ids(record, group, group))
    assert made.positives[2] == 3
    assert made.positives[3] == 2
    assert made.positives[0] not in (0, 1)


def test_knn_draws_each_of_the_nearest_as_often():
    line = torch.tensor([0.0, 1.0, 3.0, 6.0, 10.0, 100.0]).reshape(6, 1, 1)
    pool = InBatch(InputDistance("l1"), rule="knn", k=3)
    counts = torch.zeros(6)
    for seed in range(600):
        counts[pool(line, strangers(6), drawn(6, seed)[0]).positives[0]] += 1
    assert counts[[0, 4, 5]].sum() == 0
    assert ((counts[1:4] - 200).abs() < 5 * (600 * 2 / 9) ** 0.5).all()


def test_corrected_neighbours_are_not_so_often_one_hub():
    ecg = torch.randn(300, 50, 1, generator=torch.Generator().manual_seed(0))
    largest = []
    for how in ("none", "csls", "mutual_proximity"):
        pool = InBatch(InputDistance("euclidean"), correction=how)
        largest.append(int(pool(ecg, strangers(300), drawn(300)[0]).positives.bincount().max()))
    assert largest[0] >= 10
    assert max(largest[1:]) <= largest[0] / 2


def test_distance_weights_are_those_of_the_op():
    """Frequencies of both, where all others may repel; and nobody is drawn who may not."""
    torch.manual_seed(0)
    z, n, draws = torch.nn.functional.normalize(torch.randn(7, 4)), 7, 4_000
    allowed = ~torch.eye(n, dtype=torch.bool)
    found = torch.zeros(n, n)
    for chance in (torch.arange(draws, dtype=torch.float64) + 0.5) / draws:
        found[range(n), by_distance(z, allowed, chance.expand(n))[0]] += 1 / draws
    negatives, _ = distance_weighted(
        z, torch.arange(n), samples=draws, no_negative="uniform", seed=torch.tensor([5])
    )
    expected = torch.stack([row.bincount(minlength=n) for row in negatives]) / draws
    assert (found - expected).abs().max() < 5 * 0.5 / draws**0.5
    allowed[0, 1] = False
    assert (by_distance(z, allowed, torch.rand(n).double())[0][0] != 1).all()


def test_any_of_is_even_over_what_is_allowed():
    allowed = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    chance = torch.linspace(0, 0.999, 300, dtype=torch.float64)
    found = [any_of(allowed, torch.stack([c, c])) for c in chance]
    counts = torch.stack([columns for columns, _ in found])[:, 0].bincount(minlength=5)
    assert counts.tolist() == [0, 100, 0, 100, 100]
    assert found[0][1].tolist() == [True, False]


def test_no_negative_is_left_no_triplet():
    ecg = make_ecg(3, 2, 40)
    same = Ids(torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    for negative in ("random", "farthest", "distance_weighted"):
        _, found = mine(ecg, same, negative=negative)
        assert not found.valid.any()
        assert found.negatives.tolist() == [0, 1, 2]


def test_the_farthest_need_distances():
    n = torch.arange(4)
    lacking = Rows(make_ecg(4, 2, 8), strangers(4), n.flip(0), n >= 0, n >= 0, None)
    with pytest.raises(ValueError, match="need the distances"):
        Negatives("farthest")(lacking, torch.randn(4, 2), drawn(4)[1])


def test_partners_that_were_dealt_are_each_others_positives():
    ecg = make_ecg(8, 2, 40)
    ecg[1, 0, 3] = torch.nan  # and so its partner has none
    ids = strangers(8)
    ids.record[6] = ids.record[2]  # its own partner
    for itself in (False, True):
        made = Dealt(InputDistance("l1"), itself=itself)(ecg, ids, drawn(8)[0])
        assert made.distances is None
        assert made.found.tolist() == [True, False, itself, True] * 2
        expected = [4, 1, 6 if itself else 2, 7, 0, 5, 2 if itself else 6, 3]
        assert made.positives.tolist() == expected
    with pytest.raises(ValueError, match="must be as many, got 7"):
        Dealt(InputDistance("l1"))(ecg[:7], strangers(7), drawn(7)[0])


def test_a_ring_gives_the_nearest_of_the_batch_and_of_the_past():
    data, size, take = make_ecg(40, 2, 30, seed=1), 11, 4
    data[7, 0, 2] = torch.nan
    ring = Ring(InputDistance("mean_l1"), size=size)
    full = InputDistance("mean_l1")(data.nan_to_num())
    past: list[int] = []
    for step in range(9):
        own = [(step * take + i) % 37 for i in range(take)]  # records come again
        ids = strangers(37)
        made = ring(data[own], Ids(*(column[own] for column in ids)), drawn(2 * take, step)[0])
        record = made.ids.record
        assert record[:take].tolist() == own
        assert ring.rows_of(take) == len(record) == len(made.ecg) == 2 * take
        for i, anchor in enumerate(own):
            others = [r for r in dict.fromkeys(own + past) if r not in (anchor, 7)]
            if anchor == 7:
                assert not made.found[i]
                continue
            nearest = min(others, key=lambda r: float(full[anchor, r]))
            assert int(record[take + i]) == nearest
            assert torch.equal(made.ecg[take + i], data[nearest])  # the record, to be encoded now
            assert made.positives[i] == take + i
            assert made.positives[take + i] == i
        past = (past + own)[-size:]
    assert ring.filled == size


def test_a_ring_that_is_filled_again_goes_on_as_it_was():
    data = make_ecg(60, 2, 30, seed=2)
    for step in (2, 7):  # before and after it is full
        whole, resumed = (Ring(InputDistance("mean_l1", resample=(1, 2)), size=13) for _ in "ab")

        def batch(k):
            own = torch.arange(4) + 4 * k
            return data[own], Ids(own, own, own)

        for k in range(step):
            whole(*batch(k), drawn(8, k)[0])
        begin = max(0, step - -(-13 // 4))
        resumed.begin(4 * begin)
        for k in range(begin, step):
            resumed.add(*batch(k))
        assert resumed.filled == whole.filled
        assert resumed.at == whole.at
        for one, other in zip(resumed.held, whole.held, strict=True):
            assert torch.equal(one[: whole.filled], other[: whole.filled])
        both = [ring(*batch(step), drawn(8, step)[0]) for ring in (whole, resumed)]
        assert torch.equal(both[0].ids.record, both[1].ids.record)


def test_a_ring_holds_one_copy_where_records_are_compared_as_they_are():
    for factor, copies in (((1, 1), 1), ((1, 2), 2)):
        ring = Ring(InputDistance("mean_l1", resample=factor), size=8)
        ring(make_ecg(4, 2, 30), strangers(4), drawn(8)[0])
        assert len({held.data_ptr() for held in ring.held[:2]}) == copies
    with pytest.raises(ValueError, match="a ring of 8 records cannot take 9"):
        ring.add(make_ecg(9, 2, 30), strangers(9))


def test_embeddings_are_compared_by_a_frozen_encoder():
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 3), torch.nn.Dropout(0.5))
    distance = EmbeddingDistance(encoder)
    distance.train()
    ecg = make_ecg(6, 2, 30)
    expected = torch.cdist(*[encoder[1](ecg.flatten(1))] * 2)
    torch.testing.assert_close(distance(ecg), expected.detach(), atol=2e-3, rtol=1e-3)
    assert not list(distance.parameters())
    assert not distance.state_dict()
    assert (
        InBatch(distance)(ecg, strangers(6), drawn(6)[0]).positives[0]
        == (expected[0].topk(2, largest=False).indices[1])
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InBatch(InputDistance("l1"), rule="all"), "nearest, knn or two_farthest"),
        (lambda: InBatch(InputDistance("l1"), k=0), "k must be at least 1"),
        (lambda: Ring(InputDistance("l1"), size=0), "size must be at least 1"),
        (lambda: Negatives("hard"), "random, farthest or distance_weighted"),
        (lambda: Negatives(topk=0), "topk must be at least 1"),
        (
            lambda: InBatch(InputDistance("l1"))(torch.zeros(3, 4), strangers(3), drawn(3)[0]),
            "N, L",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_examples():
    assert doctest.testmod(rows).failed == doctest.testmod(pools).failed == 0


def test_pools_leave_out_records_of_which_the_view_has_nothing():
    def first(ecg):
        return ecg[:, :, :4], ecg[:, :, :4].abs().amax(dim=(1, 2)) > 0

    ecg, own = torch.randn(6, 2, 30), strangers(6)
    ecg[2, :, :4] = 0
    distance = InputDistance("l1", view=first)
    made = InBatch(distance)(ecg, own, torch.zeros(6))
    assert made.eligible.tolist() == [True, True, False, True, True, True]
    assert made.found.tolist() == made.eligible.tolist()
    assert not (made.positives[made.found] == 2).any()
    ring = Ring(distance, size=6)
    ring.add(ecg, own)
    again = ring(torch.randn(6, 2, 30), Ids(*(part + 6 for part in own)), torch.zeros(12))
    assert not (again.ids.record[6:] == 2).any()
