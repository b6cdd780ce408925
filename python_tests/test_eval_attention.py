"""Mean maps by risk: plain means, intervals by patient, and what is refused."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from ecgfast.eval import attention
from ecgfast.eval.attention import group_maps


def cohort(patients=60, visits=2, seed=0, cells=(4, 4)):
    """Maps in which nothing differs, and records of a patient are alike."""
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    own = np.repeat(draw.normal(size=(patients, *cells)), visits, axis=0)
    maps = own + 0.2 * draw.normal(size=own.shape)
    score = np.repeat(draw.normal(size=patients), visits) + 0.1 * draw.normal(size=len(patient))
    return maps, patient, score


def test_examples():
    assert doctest.testmod(attention).failed == 0


def test_means_are_those_of_the_thirds():
    maps, patient, score = cohort()
    found = group_maps(maps, patient, score, draws=50)
    low, high = score <= np.sort(score)[39], score >= np.sort(score)[-40]
    np.testing.assert_allclose(found.mean, maps.mean(axis=0))
    np.testing.assert_allclose(found.low, maps[low].mean(axis=0))
    np.testing.assert_allclose(found.high, maps[high].mean(axis=0))
    np.testing.assert_allclose(found.difference, found.high - found.low)
    assert found.records == (120, 40, 40)
    people = [len(np.unique(patient[some])) for some in (low, high)]
    assert found.patients == (60, *people)
    assert found.draws == 50


def test_a_planted_difference_is_found_and_nothing_else():
    maps, patient, score = cohort(cells=(12, 12))
    maps[np.argsort(score)[-40:], 3, 7] += 4
    found = group_maps(maps, patient, score, draws=400)
    assert found.apart[3, 7]
    assert found.sure[3, 7]
    assert found.sure.sum() == 1
    again = group_maps(maps, patient, score, draws=400)
    assert (found.apart == again.apart).all()


def test_simultaneous_intervals_hold_for_all_cells_at_once():
    """Where nothing differs, an interval of one of 64 cells' own mostly leaves out 0 somewhere."""
    own, all_at_once = 0, 0
    for seed in range(40):
        found = group_maps(*cohort(seed=seed, cells=(8, 8)), draws=200)
        own += found.apart.any()
        all_at_once += found.sure.any()
    assert own >= 30
    assert all_at_once <= 8  # 5 % of 40 is 2; the bootstrap of 20 to 25 patients is narrow


def test_patients_are_drawn_not_records():
    """Each record written ten times over is no more evidence."""
    maps, patient, score = cohort(patients=45, visits=1)
    maps[np.argsort(score)[-15:], 0, 0] += 0.9
    once = group_maps(maps, patient, score, draws=400)
    many = group_maps(*(np.repeat(x, 10, axis=0) for x in (maps, patient, score)), draws=400)
    np.testing.assert_allclose(once.difference, many.difference)
    assert (once.apart == many.apart).mean() > 0.9


def test_says_why_there_are_no_groups_or_no_intervals():
    maps, patient, score = cohort(patients=12, visits=1)
    alone = group_maps(maps, patient)
    assert alone.low is None
    assert alone.reason == "this run gives no score to group by"
    few = group_maps(maps, patient, score)
    assert few.difference is not None
    assert few.apart is None
    assert few.reason == "intervals need 10 patients in each group, 4 here"
    assert group_maps(maps[:5], patient[:5], score[:5]).reason == "groups need 6 records, 5 here"


def test_a_cell_that_never_varies_is_never_apart():
    maps, patient, score = cohort()
    maps[:, 1, 1] = 0.25
    found = group_maps(maps, patient, score, draws=100)
    assert found.difference[1, 1] == 0
    assert not found.apart[1, 1]
    assert not found.sure[1, 1]


def test_refuses_what_is_no_number_and_what_does_not_match():
    maps, patient, score = cohort()
    maps[7, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"maps of 1 of 120 records are not finite \(first: row 7"):
        group_maps(maps, patient, score)
    maps, patient, score = cohort()
    score[3] = np.inf
    with pytest.raises(ValueError, match=r"scores of 1 of 120 records .*row 3"):
        group_maps(maps, patient, score)
    with pytest.raises(ValueError, match=r"maps must be \(N, R, C\) and patient \(N,\)"):
        group_maps(maps[0], patient)
    with pytest.raises(ValueError, match=r"score must be \(120,\)"):
        group_maps(maps, patient, score[:-1])
    with pytest.raises(ValueError, match="no maps"):
        group_maps(maps[:0], patient[:0])
