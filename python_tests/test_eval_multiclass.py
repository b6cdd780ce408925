"""Several classes against scikit-learn, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from ecgfast.eval import differences, multiclass_rows
from ecgfast.eval.multiclass import confusion_counts, statistic

CLASSES = ("NORM", "MI", "CD")


@st.composite
def scored(draw):
    n = draw(st.integers(6, 30))
    label = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2))).astype(float)
    label[:6] = [0, 1, 2, 0, 1, 2]
    score = draw(hnp.arrays(np.int64, (n, 3), elements=st.integers(0, 5))) / 5
    weight = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))).astype(float)
    weight[:3] += 1
    return label, score, weight


@settings(max_examples=60, deadline=None)
@given(scored())
def test_weighted_metrics_are_scikit_learns_on_copied_records(case):
    label, score, weight = case
    copies = np.repeat(np.arange(len(label)), weight.astype(int))
    y, s = label[copies], score[copies]
    found = {k: v[0] for k, v in statistic(label, score, CLASSES)(weight[None]).items()}
    areas = [metrics.roc_auc_score(y == c, s[:, c]) for c in range(3)]
    expected = {f"auroc_of_{name}": area for name, area in zip(CLASSES, areas, strict=True)}
    expected |= {
        "auroc_macro": np.mean(areas),
        "accuracy": metrics.accuracy_score(y, s.argmax(axis=1)),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, s.argmax(axis=1)),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    counts = confusion_counts(y, s, 3)
    np.testing.assert_array_equal(
        counts, metrics.confusion_matrix(y, s.argmax(axis=1), labels=[0, 1, 2])
    )


def cohort(seed=0, patients=60):
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    label = (patient % 3).astype(float)
    score = draw.normal(size=(len(patient), 3)) + 1.5 * (label[:, None] == np.arange(3))
    return label, np.exp(score) / np.exp(score).sum(axis=1, keepdims=True), patient


def test_rows_hold_their_estimates_and_count_each_class():
    label, score, patient = cohort()
    groups = {"half": patient < 30, "nobody": patient < 0, "no MI": label != 1}
    rows = multiclass_rows(label, score, patient, classes=CLASSES, groups=groups, draws=200)
    whole = {r["name"]: r for r in rows if r["subgroup"] is None}
    assert list(whole) == ["auroc_macro", "accuracy", "balanced_accuracy"] + [
        f"auroc_of_{c}" for c in CLASSES
    ]
    for row in whole.values():
        assert row["lo"] < row["estimate"] < row["hi"]
    assert whole["auroc_of_MI"]["positives"] == 40
    by = {(r["subgroup"], r["name"]): r for r in rows}
    assert by["nobody", "accuracy"]["reason"] == "no records"
    assert by["no MI", "auroc_of_MI"]["reason"] == "no record has MI"
    assert by["no MI", "auroc_macro"]["estimate"] is None
    assert by["no MI", "auroc_of_CD"]["lo"] is not None


def test_two_runs_of_several_classes_compare():
    label, score, patient = cohort()
    worse = cohort(1)[1] * 0.3 + 0.7 * np.random.default_rng(2).random(score.shape)
    rows = differences("multiclass", label, [score], [worse], patient, classes=CLASSES, draws=200)
    by = {r["name"]: r for r in rows}
    gain = metrics.accuracy_score(label, score.argmax(1)) - metrics.accuracy_score(
        label, worse.argmax(1)
    )
    assert by["accuracy"]["estimate"] == pytest.approx(gain)
    assert by["auroc_macro"]["p"] == pytest.approx(2 / 201)


def test_what_is_no_class_or_no_score_is_refused():
    label, score, patient = cohort()
    with pytest.raises(ValueError, match=r"score \(N, 3\)"):
        multiclass_rows(label, score[:, :2], patient, classes=CLASSES)
    with pytest.raises(ValueError, match=r"40 of 120 labels are none of 0 to 1"):
        multiclass_rows(label, score[:, :2], patient, classes=CLASSES[:2])
    with pytest.raises(ValueError, match="1 of 120 scores are not finite"):
        multiclass_rows(
            label, np.where(score == score[5, 1], np.nan, score), patient, classes=CLASSES
        )
