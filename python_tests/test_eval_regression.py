"""Metrics of predicted values, and one run against another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics

from ecgfast.eval import classification_rows, difference, regression_rows, subgroups
from ecgfast.eval.regression import statistic

FEW = settings(max_examples=60, deadline=None)


@st.composite
def measured(draw):
    """Labels and scores with an offset that would cost digits, and whole weights."""
    n = draw(st.integers(1, 30))
    values = hnp.arrays(np.int64, n, elements=st.integers(-3, 3))
    offset = draw(st.sampled_from([0.0, 16.0, 1e5]))
    label, score = offset + draw(values).astype(float), offset + draw(values) / 2
    weight = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))).astype(np.float64)
    return label, score, weight


@FEW
@given(measured())
def test_weighted_metrics_are_those_of_copied_records(case):
    label, score, weight = case
    copies = np.repeat(np.arange(len(label)), weight.astype(int))
    if not len(copies):
        return
    ours = {k: v[0] for k, v in statistic(label, score)(weight[None]).items()}
    y, s = label[copies], score[copies]
    error = s - y
    spread = 1.959963984540054 * error.std(ddof=1) if len(y) > 1 else np.nan
    vary = np.ptp(y) > 0
    expected = {
        "rmse": np.sqrt(metrics.mean_squared_error(y, s)),
        "mae": metrics.mean_absolute_error(y, s),
        "r2": metrics.r2_score(y, s) if vary else np.nan,
        "pearson_r": stats.pearsonr(y, s)[0] if vary and np.ptp(s) > 0 else np.nan,
        "bias": error.mean(),
        "loa_lower": error.mean() - spread,
        "loa_upper": error.mean() + spread,
        **dict.fromkeys(("calibration_slope", "calibration_intercept"), np.nan),
    }
    if np.ptp(s) > 0:
        fitted = stats.linregress(s, y)
        expected |= {
            "calibration_slope": fitted.slope,
            "calibration_intercept": fitted.intercept,
        }
    assert set(ours) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-7, atol=1e-7, err_msg=name)


def cohort(patients=80, visits=3, seed=0):
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    label = np.repeat(draw.normal(16, 8, patients), visits) + draw.normal(size=patients * visits)
    return label, 5 + 0.7 * label + draw.normal(0, 4, size=len(label)), patient


def test_rows_surround_their_estimates():
    label, score, patient = cohort()
    groups = subgroups(sex=patient % 2, age=np.where(patient < 2, np.nan, 20 + patient % 50))
    rows = regression_rows(label, score, patient, groups=groups, draws=300)
    assert len(rows) == 7 * 9
    for line in rows:
        if line["subgroup"] == "age>=75":
            assert line["reason"] == "no records"
        else:
            assert line["lo"] <= line["estimate"] <= line["hi"], line
            assert line["positives"] is None
    found = {r["name"]: r["estimate"] for r in rows if r["subgroup"] is None}
    assert found["pearson_r"] == pytest.approx(stats.pearsonr(label, score)[0])
    assert found["r2"] == pytest.approx(metrics.r2_score(label, score))


def test_a_constant_has_no_correlation_and_says_so():
    label, _, patient = cohort()
    rows = regression_rows(label, np.full(len(label), 16.0), patient, draws=50)
    line = next(r for r in rows if r["name"] == "pearson_r")
    assert line["estimate"] is None
    assert line["reason"] == "labels or scores do not vary"
    assert next(r for r in rows if r["name"] == "rmse")["lo"] is not None


def test_one_record_has_an_error_and_no_spread():
    rows = {r["name"]: r for r in regression_rows([10.0], [12.0], ["p"], draws=5)}
    assert rows["bias"]["estimate"] == 2
    assert rows["loa_upper"]["reason"] == "a spread needs two records"
    assert rows["rmse"]["reason"] == "an interval needs 10 patients, 1 here"


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        regression_rows([1, 2], [1, np.nan], [0, 1])


def test_groups_by_sex_and_age_as_the_paper_has_them():
    groups = subgroups(sex=[1, 0, np.nan, 1], age=[18, 34.9, 75, np.nan])
    members = {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()}
    assert members == {
        "sex=female": [1],
        "sex=male": [0, 3],
        "age=[18,35)": [0, 1],
        "age=[35,50)": [],
        "age=[50,75)": [],
        "age>=75": [2],
    }
    assert list(subgroups(age=[40], bands=[(0, 50), (50, 100)])) == ["age=[0,50)", "age=[50,100)"]
    assert subgroups() == {}


def test_difference_is_paired():
    label, score, patient = cohort()
    noise = np.random.default_rng(1).normal(0, 0.5, size=len(label))
    line = difference("rmse", label, score + noise, score, patient, draws=300)
    rows = [regression_rows(label, s, patient, draws=300) for s in (score + noise, score)]
    a, b = (next(r for r in side if r["name"] == "rmse") for side in rows)
    assert line["estimate"] == pytest.approx(a["estimate"] - b["estimate"])
    assert line["a"] == pytest.approx([a["estimate"]])
    unpaired = np.hypot(a["hi"] - a["lo"], b["hi"] - b["lo"])
    assert line["hi"] - line["lo"] < 0.6 * unpaired
    same = difference("rmse", label, score, score, patient, draws=50)
    assert (same["estimate"], same["lo"]) == (0, None)


def test_difference_takes_several_seeds_a_side():
    label, score, patient = cohort()
    classes = (label > 18).astype(float)
    draw = np.random.default_rng(2)
    a = score + draw.normal(0, 2, size=(3, len(label)))
    b = score + draw.normal(0, 9, size=(2, len(label)))
    line = difference("auroc", classes, a, b, patient, draws=300)
    rows = [classification_rows(classes, one, patient, draws=1) for one in (*a, *b)]
    areas = [next(r for r in side if r["name"] == "auroc")["estimate"] for side in rows]
    assert line["a"] == pytest.approx(areas[:3])
    assert line["b"] == pytest.approx(areas[3:])
    assert line["estimate"] == pytest.approx(np.mean(areas[:3]) - np.mean(areas[3:]))
    assert 0 < line["lo"] < line["estimate"] < line["hi"]
    assert line["positives"] == int(classes.sum())


def test_difference_refuses_what_it_does_not_know():
    label, score, patient = cohort()
    with pytest.raises(ValueError, match="no metric 'auc': one of auroc"):
        difference("auc", label, score, score, patient)
    with pytest.raises(ValueError, match="labels are not 0 or 1"):
        difference("auroc", label, score, score, patient)
