"""Change over visits: the order of time, by hand and by numpy, with intervals."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.eval import serial_rows, visits
from ecgfast.eval.serial import longest


def test_visits_are_in_the_order_of_time_and_records_of_one_time_are_one_visit():
    patient = np.array(["b", "a", "b", "b", "a", "b", "c", "c", "c"])
    time = np.array([3.0, 1, 1, 2, 2, 3, 1, 2, np.nan])
    label = np.array([30.0, 0, 10, 20, 0, 40, 0, 0, 0])
    found = visits(label, label + 1, patient, time)
    assert found.patient.tolist() == ["b"] * 3
    assert found.time.tolist() == [1, 2, 3]
    assert found.label.tolist() == [10, 20, 35]
    assert found.score.tolist() == [11, 21, 36]
    dates = np.array(["2020-01-03", "", "2020-01-01", "2020-01-02"], dtype=object)
    told = visits([3, 9, 1, 2], [3, 9, 1, 2], ["a"] * 4, dates)
    assert told.label.tolist() == [1, 2, 3]


def test_numbers_of_change_by_hand():
    # changes of a: +2, -2, and of b: +4, 0; predicted +1, +1, +2, +5
    patient, time = np.repeat(["a", "b"], 3), np.tile([0, 1, 2], 2)
    label = np.array([10.0, 12, 10, 20, 24, 24])
    score = np.array([0.0, 1, 2, 0, 2, 7])
    found = {r["name"]: r for r in serial_rows(visits(label, score, patient, time), draws=20)}
    dy, ds = [2, -2, 4, 0], [1, 1, 2, 5]
    assert found["change_sign_agreement"]["reason"].startswith("an interval needs 10 patients")
    assert found["change_sign_agreement"]["estimate"] == pytest.approx(2 / 3)
    assert found["change_pearson_r"]["estimate"] == pytest.approx(np.corrcoef(dy, ds)[0, 1])
    y = label - np.repeat([32 / 3, 68 / 3], 3)
    s = score - np.repeat([1, 3], 3)
    assert found["within_patient_r"]["estimate"] == pytest.approx(
        (y @ s) / np.sqrt(y @ y * (s @ s))
    )
    assert found["change_pearson_r"]["n"] == 6


def cohort(patients, follow, seed=0):
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 4)
    own, moves = draw.normal(16, 6, patients)[patient], draw.normal(0, 3, len(patient))
    score = own + follow * moves + draw.normal(0, 2, len(patient))
    return own + moves, score, patient, np.tile(np.arange(4.0), patients)


def test_a_score_that_knows_patients_but_no_change_is_seen_through():
    label, score, patient, time = cohort(80, 0.0)
    assert np.corrcoef(label, score)[0, 1] > 0.7
    found = visits(label, score, patient, time)
    rows = {r["name"]: r for r in serial_rows(found, level=0.999, draws=2000)}
    assert rows["change_pearson_r"]["lo"] < 0 < rows["change_pearson_r"]["hi"]
    assert rows["change_sign_agreement"]["lo"] < 0.5 < rows["change_sign_agreement"]["hi"]
    label, score, patient, time = cohort(80, 1.0)
    rows = {r["name"]: r for r in serial_rows(visits(label, score, patient, time), draws=300)}
    assert rows["change_pearson_r"]["lo"] > 0.5
    assert rows["within_patient_r"]["lo"] > 0.5
    assert rows["change_sign_agreement"]["lo"] > 0.6


def test_weights_are_copies_of_patients():
    label, score, patient, time = cohort(12, 0.5)
    found = visits(label, score, patient, time)
    (once, *_) = serial_rows(found, draws=10)
    twice = visits(
        np.tile(label, 2), np.tile(score, 2), np.append(patient, patient + 100), np.tile(time, 2)
    )
    (copied, *_) = serial_rows(twice, draws=10)
    assert copied["estimate"] == pytest.approx(once["estimate"])


def test_nobody_with_so_many_visits_gives_reasons():
    found = visits([1.0, 2], [1.0, 2], ["a", "a"], [0, 1])
    assert all(r["reason"] == "no patient has so many visits" for r in serial_rows(found, draws=5))
    assert longest(found) == []


def test_patients_are_shown_by_visits_then_by_change():
    patient = np.repeat(["a", "b", "c", "d"], [3, 4, 3, 3])
    label = np.array([0.0, 1, 2, 0, 0, 0, 0, 0, 9, 0, 1, 2, 0])
    time = np.concatenate([np.arange(n) for n in (3, 4, 3, 3)])
    found = visits(label, label, patient, time)
    assert longest(found) == ["b", "c", "a", "d"]
    assert longest(found, 2) == ["b", "c"]
