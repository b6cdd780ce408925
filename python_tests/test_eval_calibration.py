"""Calibration: equal to torchmetrics and scikit-learn, and right on made probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from ecgfast.eval import calibration_rows, reliability
from ecgfast.eval.bootstrap import interval, replicate
from ecgfast.eval.calibration import error_of, statistic


def cohort(patients=300, visits=2, seed=0, slope=1.0, shift=0.0):
    """Labels drawn with the probability whose log-odds are slope times the score's, plus shift."""
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    odds = draw.normal(-0.5, 1.5, size=len(patient))
    label = draw.random(len(patient)) < 1 / (1 + np.exp(-(slope * odds + shift)))
    return label.astype(np.float64), 1 / (1 + np.exp(-odds)), patient


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=1))
def test_error_is_that_of_torchmetrics_on_copied_records(case):
    label, score, weight = (np.array(x, np.float64) for x in zip(*case, strict=True))
    score /= 20  # lands on edges of the bins
    copies = np.repeat(np.arange(len(label)), weight.astype(int))
    if not len(copies):
        return
    ours = statistic(label, score)(weight[None])["ece"][0]
    target = torch.from_numpy(label[copies]).long()
    theirs = binary_calibration_error(torch.from_numpy(score[copies]), target, n_bins=10)
    assert ours == pytest.approx(float(theirs), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_slope_is_that_of_a_logistic_regression(seed):
    label, score, _ = cohort(60, seed=seed, slope=0.5, shift=1)
    weight = np.random.default_rng(seed).integers(0, 4, size=len(label)).astype(np.float64)
    odds = np.log(score / (1 - score))[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, label, weight)
    ours = statistic(label, score)(weight[None])
    assert ours["calibration_slope"][0] == pytest.approx(theirs.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("shift", [-12.0, -1.0, 0.0, 2.0, 12.0])
def test_intercept_makes_the_mean_right(shift):
    label, score, _ = cohort(60)
    far = 1 / (1 + np.exp(-(np.log(score / (1 - score)) + shift)))
    found = statistic(label, far)(np.ones((1, len(label))))["calibration_intercept"][0]
    odds = np.clip(np.log(far / (1 - far)), np.log(1e-6 / (1 - 1e-6)), np.log((1 - 1e-6) / 1e-6))
    assert (1 / (1 + np.exp(-(odds + found)))).mean() == pytest.approx(label.mean(), abs=1e-9)


def test_right_probabilities_are_found_right_and_wrong_ones_wrong():
    right = {r["name"]: r for r in calibration_rows(*cohort(1000), draws=200)}
    assert right["calibration_slope"]["lo"] < 1 < right["calibration_slope"]["hi"]
    assert right["calibration_intercept"]["lo"] < 0 < right["calibration_intercept"]["hi"]
    assert right["ece"]["lo"] < 0.01
    wrong = {r["name"]: r for r in calibration_rows(*cohort(1000, slope=0.5, shift=1), draws=200)}
    assert wrong["calibration_slope"]["lo"] < 0.5 < wrong["calibration_slope"]["hi"] < 1
    assert wrong["calibration_intercept"]["lo"] > 0.3
    assert wrong["ece"]["lo"] > 0.05


def test_classes_that_scores_separate_have_no_slope():
    label = np.repeat([0.0, 1.0], 30)
    rows = {r["name"]: r for r in calibration_rows(label, 0.2 + 0.6 * label, range(60), draws=20)}
    assert rows["calibration_slope"]["estimate"] is None
    assert "separate the classes" in rows["calibration_slope"]["reason"]
    apart = {r["name"]: r for r in calibration_rows(label, np.linspace(0, 1, 60), range(60))}
    assert apart["calibration_slope"]["estimate"] is None


def test_constant_scores_and_one_class_give_reasons():
    label, _, patient = cohort(50)
    rows = {r["name"]: r for r in calibration_rows(label, np.full(100, 0.3), patient, draws=50)}
    assert rows["calibration_slope"]["estimate"] is None
    assert rows["calibration_intercept"]["lo"] is not None
    rows = {r["name"]: r for r in calibration_rows(np.zeros(100), np.full(100, 0.3), patient)}
    assert rows["calibration_intercept"]["estimate"] is None
    assert rows["ece"]["estimate"] == pytest.approx(0.3)


def test_scores_that_are_no_probabilities_are_not_calibrated():
    label, score, patient = cohort(50)
    for line in calibration_rows(label, 3 * score, patient, draws=5):
        assert line["estimate"] is None
        assert "no probabilities" in line["reason"]


def test_reliability_is_the_calibration_curve():
    label, score, patient = cohort()
    points = reliability(label, score, patient, bins=10, draws=100)
    observed, predicted = calibration_curve(label, score, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([p["observed"] for p in points], observed)
    np.testing.assert_allclose([p["predicted"] for p in points], predicted)
    assert sum(p["n"] for p in points) == len(label)
    assert all(p["lo"] <= p["observed"] <= p["hi"] for p in points)


def test_reliability_does_not_part_equal_scores():
    label, _, patient = cohort(50)
    points = reliability(label, np.tile([0.2, 0.7], 50), patient, draws=20)
    assert [p["predicted"] for p in points] == pytest.approx([0.2, 0.7])
    constant = reliability(label, np.full(100, 0.3), patient, draws=20)
    assert [p["n"] for p in constant] == [100]


@pytest.mark.slow
def test_pivotal_interval_of_the_error_covers_where_the_percentile_one_does_not():
    """A small sample of a mild miscalibration, whose size a very large sample tells."""
    made = {"slope": 0.8, "shift": 0.2}
    truth = error_of(*cohort(1_000_000, 1, seed=99, **made)[:2])(np.ones((1, 1_000_000)))["ece"][0]
    covered = {"pivotal": 0, "percentile": 0}
    cohorts = 200
    for seed in range(cohorts):
        label, score, patient = cohort(100, 2, seed=seed, **made)
        of = error_of(label, score)
        estimate = of(np.ones((1, len(label))))["ece"][0]
        values = replicate(of, patient, draws=400, seed=seed)["ece"]
        for how in covered:
            lo, hi, _ = interval(estimate, values, pivotal=how == "pivotal")
            covered[how] += lo <= truth <= hi
    share = {how: hits / cohorts for how, hits in covered.items()}
    print(share)
    assert share["pivotal"] > 0.85, share
    assert share["percentile"] < 0.5, share
