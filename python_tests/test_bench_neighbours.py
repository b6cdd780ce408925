"""The arithmetic of bench/neighbours.py, against loops, on SYNTHETIC distances."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgfast.ops import dtw
from ecgfast.testing import make_ecg

pytest.importorskip("sklearn")  # ecgfast.eval

SOURCE = Path(__file__).parent.parent / "bench/neighbours.py"
_spec = importlib.util.spec_from_file_location("bench_neighbours", SOURCE)
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)

COUNT = 12
PATIENT = np.array(list("aabcdefgghij"))


@pytest.fixture
def distance():
    made = np.random.default_rng(3).random((COUNT, COUNT))
    made += made.T
    np.fill_diagonal(made, 0)
    return made


@pytest.mark.parametrize("rows", [range(COUNT), [7, 2, 9, 4], [1, 0]], ids=str)
def test_neighbours_are_those_of_the_batch(distance, rows):
    rows = np.array(rows)
    found = bench.neighbours(distance, [rows])
    for anchor, nearest, farthest in zip(*found, strict=True):
        others = sorted((distance[anchor, j], j) for j in rows if j != anchor)
        assert nearest == others[0][1]
        assert farthest[0] == others[-1][1]
        assert len(rows) == 2 or farthest[1] == others[-2][1]
    assert found.anchor.tolist() == rows.tolist()


def test_agreement_counts_what_is_kept(distance):
    every = [np.arange(COUNT)]
    truth = bench.neighbours(distance, every)
    same, kept = bench.agreement(truth, truth, COUNT)
    assert (same == 1).all()
    assert (kept == 1).all()
    changed = distance.copy()
    changed[0, truth.nearest[0]] += 9  # the nearest becomes the farthest
    same, kept = bench.agreement(bench.neighbours(changed, every), truth, COUNT)
    assert (same[0], kept[0]) == (0, 0.5)
    assert (same[1:] == 1).all()


def test_a_record_counts_by_its_batches_and_its_known_values():
    anchor, values = np.array([0, 1, 0, 2]), np.array([1.0, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(bench.by_anchor(anchor, values, 3), [0.5, 0.0, np.nan])


def test_labels_and_ages_are_compared_where_both_are_known():
    found = bench.Found(np.arange(3), np.array([1, 2, 0]), np.zeros((3, 2), int))
    labels = {"norm": np.array([1.0, 1.0, 0.0]), "age": np.array([50.0, np.nan, 80.0])}
    made = bench.shared(found, labels, 3)
    np.testing.assert_array_equal(made["norm"], [1, 0, 0])
    np.testing.assert_array_equal(made["age"], [np.nan, np.nan, 30])


def test_rank_of_own_counts_nearer_records_of_others(distance):
    rank = bench.rank_of_own(distance, PATIENT)
    for i in range(COUNT):
        own = [distance[i, j] for j in range(COUNT) if j != i and PATIENT[j] == PATIENT[i]]
        others = [distance[i, j] for j in range(COUNT) if PATIENT[j] != PATIENT[i]]
        assert np.isnan(rank[i]) if not own else rank[i] == sum(d < min(own) for d in others)


def test_prediction_leaves_the_own_patient_and_unknown_values_out(distance):
    value = np.arange(COUNT, dtype=float)
    value[5] = np.nan
    made = bench.predicted(distance, value, PATIENT, 3)
    for i in range(COUNT):
        usable = [j for j in range(COUNT) if PATIENT[j] != PATIENT[i] and j != 5]
        near = sorted(usable, key=lambda j: distance[i, j])[:3]
        weight = 1 / distance[i, near]
        np.testing.assert_allclose(made[i], (weight * value[near]).sum() / weight.sum())


def test_prediction_takes_fewer_neighbours_where_there_are_no_more(distance):
    value = np.where(np.arange(COUNT) < 4, np.arange(COUNT), np.nan)
    made = bench.predicted(distance, value, PATIENT, 15)
    weight = 1 / distance[4, :4]
    np.testing.assert_allclose(made[4], (weight * value[:4]).sum() / weight.sum())


def test_the_median_takes_weights_as_copies():
    values, weights = np.array([5.0, 1.0, 3.0]), np.array([[1.0, 1, 1], [0, 5, 2], [3, 1, 0]])
    assert bench.middle(values)(weights)["x"].tolist() == [3, 1, 5]


@pytest.mark.parametrize("reach", [None, 0, 1, 4, 9, 30], ids=str)
def test_cells_are_counted_as_the_band_has_them(reach):
    s, t = np.indices((10, 10))
    inside = np.abs(t - s) <= (99 if reach is None else reach)
    assert bench.share_of_cells(10, reach, 20) == inside.sum() / 400


def test_hub_is_counted_over_anchors():
    assert bench.largest_hub(np.array([[3, 2], [3, 0], [3, 1], [0, 1]])) == 3


def test_words_hold_estimate_and_interval():
    patient = np.arange(40)
    assert bench.written(np.full(40, np.nan), patient) == "-"
    assert bench.written(np.ones(40), patient) == "1.00"  # no draw differs
    assert bench.written(np.arange(40.0), patient, 0, bench.middle).startswith("19 [")


@pytest.mark.parametrize("cost", ["sqeuclidean", "l1"])
@pytest.mark.parametrize("reach", [0, 3, 20])
def test_bounds_enclose_the_distance(reach, cost):
    x = make_ecg(6, 2, 80)
    warped = dtw(x, cost=cost, radius=reach)
    least = bench.least_warped(x, reach, cost)
    assert (least <= warped * (1 + 1e-5)).all()
    assert (least > 0).sum() == 30
    if reach == 0:
        torch.testing.assert_close(least, warped)


def test_a_pair_is_spared_where_both_its_records_can_do_without():
    distance = np.array([[0, 1, 5, 6], [1, 0, 7, 8], [5, 7, 0, 2], [6, 8, 2, 0]], float)
    pairs = 6
    none, all_ = np.zeros((4, 4)), np.full((4, 4), 99.0)
    assert bench.removable(distance, none, all_) == (0, 0)
    # nearest: 1 and 2 are needed; two farthest: every record needs all but its nearest
    assert bench.removable(distance, distance, distance) == (4 / pairs, 2 / pairs)
