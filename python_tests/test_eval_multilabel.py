"""Areas of several labels against scikit-learn, who is left out, and the mean of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgfast.eval import classification_rows, multilabel_rows

CLASSES = ["common", "rare", "unknown in half", "everybody"]
N = 200


@pytest.fixture(scope="module")
def made():
    draw = np.random.default_rng(0)
    patient = draw.integers(80, size=N)
    label = (draw.random((N, 4)) < [0.4, 0.02, 0.3, 1.0]).astype(float)
    label[: N // 2, 2] = np.nan
    score = np.round(label * 0.5 + draw.normal(size=(N, 4)), 1)  # with ties
    score = np.where(np.isnan(score), draw.normal(size=(N, 4)), score)
    return label, score, patient


def test_areas_are_those_of_scikit_learn_and_the_mean_is_of_what_is_kept(made):
    label, score, patient = made
    rows, without = multilabel_rows(*made, classes=CLASSES, draws=50, macro="mean")
    assert [row["name"] for row in rows] == ["auroc_of_common", "auroc_of_unknown in half", "mean"]
    for row, c in zip(rows, (0, 2), strict=False):
        known = ~np.isnan(label[:, c])
        assert row["estimate"] == pytest.approx(roc_auc_score(label[known, c], score[known, c]))
        assert row["n"] == known.sum()
        assert row["positives"] == label[known, c].sum()
        assert row["patients"] == len(np.unique(patient[known]))
        assert row["lo"] < row["estimate"] < row["hi"]
    assert rows[2]["estimate"] == pytest.approx((rows[0]["estimate"] + rows[1]["estimate"]) / 2)
    assert rows[2]["lo"] < rows[2]["estimate"] < rows[2]["hi"]
    few = len(np.unique(patient[label[:, 1] == 1]))
    assert without["rare"].startswith(f"{few} patients with it")
    assert without["everybody"].endswith(" 0 without")


def test_one_label_has_the_interval_of_a_classification(made):
    label, score, patient = (one[..., 0] if one.ndim > 1 else one for one in made)
    rows, _ = multilabel_rows(label[:, None], score[:, None], patient, classes=["a"], draws=200)
    (wanted,) = (
        r for r in classification_rows(label, score, patient, draws=200) if r["name"] == "auroc"
    )
    for name in ("estimate", "lo", "hi", "n", "patients", "positives", "draws"):
        assert rows[0][name] == pytest.approx(wanted[name])


def test_nothing_is_left_where_all_are_rare(made):
    label, score, patient = made
    rows, without = multilabel_rows(label, score, patient, classes=CLASSES, least=1000)
    assert rows == []
    assert set(without) == set(CLASSES)


def test_wrong_arrays_are_refused(made):
    label, score, patient = made
    with pytest.raises(ValueError, match=r"must be \(N, C\) = \(200, 3\), got \(200, 4\)"):
        multilabel_rows(label, score, patient, classes=CLASSES[:3])
    with pytest.raises(ValueError, match="scores are not finite"):
        multilabel_rows(label, np.where(score > 1, np.inf, score), patient, classes=CLASSES)
    with pytest.raises(ValueError, match="labels are not 0 or 1"):
        multilabel_rows(label * 2, score, patient, classes=CLASSES, least=0)
