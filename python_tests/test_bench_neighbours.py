"""The arithmetic of bench/neighbours.py, against loops, on SYNTHETIC distances."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from statistics import NormalDist
from types import ModuleType

import numpy as np
import pytest
import torch

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.ops import dtw
from ecgfast.testing import make_ecg

pytest.importorskip("sklearn")  # ecgfast.eval

BENCH = Path(__file__).parent.parent / "bench"


def loaded(name: str) -> ModuleType:
    """A module of bench/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = sys.modules["neighbours"] = loaded("neighbours")  # the others import it by this name
cases = loaded("cases")

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


def test_the_nearest_of_another_patient(distance):
    found = bench.neighbours(distance, [np.arange(COUNT)], patient=PATIENT)
    for anchor, nearest, farthest in zip(*found, strict=True):
        others = [j for j in range(COUNT) if PATIENT[j] != PATIENT[anchor]]
        assert nearest == min(others, key=lambda j: distance[anchor, j])
        assert farthest[0] == max(others, key=lambda j: distance[anchor, j])


def test_distances_are_corrected_within_a_batch(distance):
    rows = np.array([7, 2, 9, 4])
    found = bench.neighbours(distance, [rows], lambda inside: -inside)
    away = bench.neighbours(distance, [rows])
    np.testing.assert_array_equal(found.nearest, away.farthest[:, 0])


def test_rank_of_own_leaves_the_same_day_out():
    distance = np.array([[0, 1, 3, 2], [1, 0, 4, 5], [3, 4, 0, 6], [2, 5, 6, 0]], float)
    patient, day = np.array(list("aaab")), np.array(list("1121"))
    # 0: its other record 1 is of the same day, 2 is not, and 3 is nearer; 2: 0 is before 3
    made = bench.rank_of_own(distance, patient, day)
    np.testing.assert_array_equal(made, [1, 0, 0, np.nan])
    np.testing.assert_array_equal(bench.rank_of_own(distance, patient), [0, 0, 0, np.nan])


def test_mutual_proximity_is_the_chance_of_farther_ones(distance):
    made = bench.corrected(distance, "mutual proximity")
    normal = NormalDist()
    for i in range(COUNT):
        for j in range(COUNT):
            chance = 1.0
            for k in (i, j):
                others = np.delete(distance[k], k)
                chance *= normal.cdf((others.mean() - distance[i, j]) / others.std())
            assert i == j or np.exp(-made[i, j]) == pytest.approx(chance, rel=1e-9)


def test_csls_takes_the_crowd_around_both_off(distance):
    made = bench.corrected(distance, "CSLS")
    crowd = [np.sort(np.delete(distance[i], i))[:10].mean() for i in range(COUNT)]
    wanted = 2 * distance - np.add.outer(crowd, crowd)
    pairs = ~np.eye(COUNT, dtype=bool)
    np.testing.assert_allclose(made[pairs], wanted[pairs])


@pytest.mark.parametrize("name", ["mutual proximity", "CSLS"])
def test_a_record_equally_far_from_all_stays_the_farthest(distance, name):
    distance[3], distance[:, 3] = 9, 9
    found = bench.neighbours(distance, [np.arange(COUNT)], bench.CORRECTIONS[name])
    others = np.arange(COUNT) != 3
    assert (found.farthest[others, 0] == 3).all()
    assert (found.nearest[others] != 3).all()


@pytest.mark.parametrize("name", ["mutual proximity", "CSLS"])
def test_corrections_take_a_hub_away(name):
    """A record in the middle of two groups is near to all of both."""
    draw = np.random.default_rng(0)
    points = np.concatenate([np.full((10, 1), 4.0), np.full((10, 1), -4.0), np.zeros((1, 1))])
    points = np.concatenate([points, draw.normal(size=(21, 30))], axis=1)
    points[20] = 0  # the middle of all
    distance = np.sqrt(np.square(points[:, None] - points).sum(axis=2))
    correct = bench.CORRECTIONS[name]
    before, after = (bench.occurrence(d, 3) for d in (distance, correct(distance)))
    assert before[20] > 15
    assert after[20] <= before[20] / 2
    assert bench.skewness(after) < bench.skewness(before)


def test_occurrence_counts_who_chose_a_record():
    distance = np.abs(np.subtract.outer([0.0, 1.0, 3.0, 7.0], [0.0, 1.0, 3.0, 7.0]))
    np.testing.assert_array_equal(bench.occurrence(distance, 1), [1, 2, 1, 0])
    assert bench.skewness(np.array([0, 0, 0, 4])) == pytest.approx(6 / 3**1.5)
    assert bench.skewness(np.array([2, 2])) == 0


def test_two_distances_are_added_in_units_of_their_medians():
    first = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]], float)
    second = np.array([[0, 40, 20], [40, 0, 10], [20, 10, 0]], float)
    made = bench.summed(first, second, 0.25)
    np.testing.assert_allclose(made[0, 1], 0.25 * 1 / 2 + 0.75 * 40 / 20)
    np.testing.assert_allclose(made, made.T)


def records():
    ecg, table = make_cohort(4, signal=Signal(fs=100.0), visits=(1, 1))
    return cases.Records("SYNTHETIC", 100.0, torch.from_numpy(ecg), table["patient_id"], {})


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        (("none", "dtw l1", 50.0, 0.5), (4, 12, 500)),
        (("lead", "mean_l1", 100.0, None, "beat"), (4, 12, 75)),
        (("record", "mean_l1", 100.0, None, "slope", "8"), (4, 8, 1000)),
        (("robust", "mean_l1", 100.0, None, "record", "V1-V6", None), (4, 6, 1000)),
    ],
)
def test_a_case_sees_what_it_says(case, shape):
    made = cases.viewed(records(), cases.Case(*case))
    assert made.shape == shape
    assert made.isfinite().all()


def test_robust_levels_know_no_spike():
    ecg = torch.linspace(0, 1, 101).repeat(1, 2, 1)
    ecg[0, 1, 50:53] = torch.tensor([900.0, 0.5, -900.0])
    made = cases.robust(ecg)
    torch.testing.assert_close(made[0, 0], (ecg[0, 0] - 0.5) / 0.9)
    assert (made[0, 1, [0, 100]] - made[0, 0, [0, 100]]).abs().max() < 0.05


def test_a_record_without_beats_is_far_from_all():
    held = records()
    held.ecg[1] = 0
    made = cases.measured(
        cases.viewed(held, beats := cases.Case("none", "mean_l1", view="beat")), beats
    )
    assert made.isfinite().all()
    known = made[[0, 0, 2], [2, 3, 3]]
    assert made[1, [0, 2, 3]].min() > known.max()


def test_spectra_do_not_see_when_a_record_begins():
    ecg = make_ecg(3, 12, 400, seed=1)
    shifted = torch.cat([ecg, ecg.roll(37, dims=2)])
    made = cases.measured(shifted, cases.Case("none", "spectrum"))
    assert made.diagonal(3).max() < 1e-3 * made[0, 1]


def test_distances_are_kept_and_found_again(tmp_path):
    held, case = records(), cases.Case("lead", "mean_l1", view="beat", leads="II")
    first = cases.distances(held, case, tmp_path)
    held.ecg[:] = 0
    np.testing.assert_array_equal(cases.distances(held, case, tmp_path), first)
    both = cases.Both(case, case, 0.3)
    np.testing.assert_allclose(
        cases.distances(held, both, tmp_path), bench.summed(first, first, 1.0)
    )
    assert str(case) == "z, mean L1, median beat, lead II"
    assert str(cases.Case("none", "soft_dtw 0.1", 25.0, 0.5, leads="8", band=None)) == (
        "mV, soft-DTW, gamma 0.1, 0.5 s, 25 Hz, 8 leads, no band-pass"
    )
