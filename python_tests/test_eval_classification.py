"""Metrics of two classes: equal to scikit-learn's, with weights and ties of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from ecgfast.eval import classification_rows, roc_band, threshold_at_sensitivity
from ecgfast.eval.classification import Curve, statistic

KEYS = "name,subgroup,n,patients,positives,estimate,lo,hi,level,draws,reason"
FEW = settings(max_examples=60, deadline=None)


@st.composite
def scored(draw, least=2):
    """Labels of both classes, scores with many ties, whole weights of which some are 0."""
    n = draw(st.integers(least, 40))
    label = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))  # one level is a constant score
    score = draw(hnp.arrays(np.int64, n, elements=st.integers(0, levels))) / levels
    weight = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))).astype(np.float64)
    return label, score, weight


def both_classes(label, weight):
    return 0 < (weight * label).sum() < weight.sum()


@FEW
@given(scored())
def test_weighted_metrics_are_those_of_scikit_learn(case):
    label, score, weight = case
    ours = {k: v[0] for k, v in statistic(label, score, threshold=0.5)(weight[None]).items()}
    if not both_classes(label, weight):
        assert np.isnan(ours["auroc"])
        return
    called, w = score >= 0.5, {"sample_weight": weight}
    tn, fp, fn, tp = metrics.confusion_matrix(label, called, labels=[0, 1], **w).ravel()
    expected = {
        "auroc": metrics.roc_auc_score(label, score, **w),
        "auprc": metrics.average_precision_score(label, score, **w),
        "brier": metrics.brier_score_loss(label, score, **w),
        "accuracy": metrics.accuracy_score(label, called, **w),
        "f1": metrics.f1_score(label, called, zero_division=0, **w),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp) if tp + fp else np.nan,
        "npv": tn / (tn + fn) if tn + fn else np.nan,
        "prevalence": (tp + fn) / weight.sum(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@FEW
@given(scored())
def test_fixed_sensitivity_takes_the_highest_threshold_that_reaches_it(case):
    label, score, weight = case
    if not both_classes(label, weight):
        return
    ours = {k: v[0] for k, v in statistic(label, score, threshold=0.5)(weight[None]).items()}
    reached = []  # by trying every score, slowly
    for threshold in np.unique(score):
        tp = weight[(score >= threshold) & (label == 1)].sum()
        if 10 * tp >= 9 * weight[label == 1].sum():
            reached.append(threshold)
    threshold = max(reached)
    called = score >= threshold
    fp, tn = (weight[called & (label == 0)].sum(), weight[~called & (label == 0)].sum())
    tp, fn = (weight[called & (label == 1)].sum(), weight[~called & (label == 1)].sum())
    assert ours["threshold_at_90_sensitivity"] == threshold
    assert ours["specificity_at_90_sensitivity"] == pytest.approx(tn / (tn + fp))
    assert ours["ppv_at_90_sensitivity"] == pytest.approx(tp / (tp + fp))
    npv = ours["npv_at_90_sensitivity"]
    assert np.isnan(npv) if tn + fn == 0 else npv == pytest.approx(tn / (tn + fn))


@FEW
@given(scored(), st.randoms(use_true_random=False))
def test_weights_are_copies_and_order_does_not_show(case, random):
    label, score, weight = case
    copies = np.repeat(np.arange(len(label)), weight.astype(int))
    if not both_classes(label, weight):
        return
    order = list(copies)
    random.shuffle(order)
    ours = statistic(label, score, threshold=0.5)(weight[None])
    theirs = statistic(label[order], score[order], threshold=0.5)(np.ones((1, len(order))))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-12, err_msg=name)


@FEW
@given(scored())
def test_point_estimates_equal_the_form_of_the_bootstrap(case):
    label, score, _ = case
    patient = np.arange(len(label))
    rows = {r["name"]: r for r in classification_rows(label, score, patient, draws=2)}
    ours = statistic(label, score, threshold=0.5)(np.ones((1, len(label))))
    assert set(rows) == set(ours)
    for name, line in rows.items():
        value = ours[name][0]
        if line["estimate"] is None:
            assert np.isnan(value)
            assert line["reason"]
        else:
            assert line["estimate"] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_curve_ends_in_all_records_and_steps_once_a_score():
    curve = Curve(np.array([1.0, 0, 1, 0]), np.array([0.5, 0.5, 0.9, 0.1]))
    tp, fp = curve(np.ones((1, 4)))
    np.testing.assert_array_equal(curve.thresholds, [0.9, 0.5, 0.1])
    np.testing.assert_array_equal(tp, [[1, 2, 2]])
    np.testing.assert_array_equal(fp, [[0, 1, 2]])


def cohort(patients=60, visits=3, seed=0):
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    label = np.repeat(draw.random(patients) < 0.4, visits).astype(np.float64)
    score = 1 / (1 + np.exp(-(2 * label - 1 + draw.normal(size=len(label)))))
    return label, score, patient


def test_rows_hold_what_the_table_promises():
    label, score, patient = cohort()
    groups = {"sex=male": patient % 2 == 1, "age>=75": patient < 0}
    rows = classification_rows(label, score, patient, groups=groups, draws=200, seed=1)
    assert {r["subgroup"] for r in rows} == {None, "sex=male", "age>=75"}
    for line in rows:
        assert ",".join(line) == KEYS
        if line["subgroup"] == "age>=75":
            assert (line["n"], line["estimate"], line["reason"]) == (0, None, "no records")
            continue
        assert line["lo"] is not None or line["reason"], line
        if line["lo"] is not None:
            assert line["lo"] <= line["estimate"] <= line["hi"], line
    whole = next(r for r in rows if r["name"] == "auroc" and r["subgroup"] is None)
    assert (whole["n"], whole["patients"], whole["positives"]) == (180, 60, int(label.sum()))
    alone = classification_rows(*(x[patient % 2 == 1] for x in cohort()), draws=200, seed=1)
    male = [r | {"subgroup": None} for r in rows if r["subgroup"] == "sex=male"]
    assert male == alone


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_gives_reasons_not_numbers(only):
    rows = classification_rows(np.full(40, only), np.linspace(0, 1, 40), np.arange(40), draws=50)
    rows = {r["name"]: r for r in rows}
    assert rows["auroc"]["estimate"] is None
    assert rows["auroc"]["reason"] == f"no record has label {1 - only:g}"
    assert rows["accuracy"]["lo"] is not None
    assert (rows["specificity"]["estimate"] is None) == (only == 1)


def test_one_record_has_an_estimate_and_no_interval():
    rows = {r["name"]: r for r in classification_rows([1], [0.7], ["p"], draws=10)}
    assert rows["accuracy"]["estimate"] == 1
    assert rows["accuracy"]["reason"] == "an interval needs 10 patients, 1 here"
    assert rows["auroc"]["estimate"] is None


def test_threshold_at_sensitivity_is_one_that_reaches_it():
    label, score, _ = cohort()
    threshold = threshold_at_sensitivity(label, score, sensitivity=0.8)
    assert (score[label == 1] >= threshold).mean() >= 0.8
    assert (score[label == 1] > threshold).mean() < 0.8
    with pytest.raises(ValueError, match="none of 2 labels is 1"):
        threshold_at_sensitivity([0, 0], [0.1, 0.2])


def test_roc_band_surrounds_the_curve():
    label, score, patient = cohort()
    at = np.linspace(0, 1, 101)
    lo, hi = roc_band(label, score, patient, at=at, draws=300)
    fpr, tpr, _ = metrics.roc_curve(label, score, drop_intermediate=False)
    last = np.append(fpr[1:] != fpr[:-1], True)
    curve = np.interp(at, fpr[last], tpr[last])
    assert (lo <= hi).all()
    assert ((lo <= curve + 1e-12) & (curve <= hi + 1e-12)).mean() > 0.95
    assert (lo[-1], hi[-1]) == (1, 1)
