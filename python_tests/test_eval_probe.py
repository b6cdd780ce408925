"""Linear models on embeddings: against scikit-learn, and on very few labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from ecgfast.eval.probe import FALLBACK, PENALTIES, linear_probe


def made(n, *, seed=0, dim=8, each=2):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, dim))
    value = x @ draw.normal(size=dim) + draw.normal(0, 1.5, n)
    return x, value, np.repeat(np.arange(n // each), each)


def test_enough_patients_choose_the_penalty_and_the_fit_is_scikit_learns():
    x, value, patient = made(160)
    label = (value > 0).astype(float)
    found = linear_probe(x, label, patient, classes=True)
    assert found.folds == 5
    assert found.penalty in PENALTIES
    theirs = LogisticRegression(C=1 / (found.penalty * 160), max_iter=2000).fit(x, label)
    np.testing.assert_allclose(found.score(x), theirs.predict_proba(x)[:, 1], atol=1e-3)
    found = linear_probe(x, value, patient, classes=False)
    assert found.folds == 5
    np.testing.assert_allclose(
        found.score(x), Ridge(alpha=found.penalty * 160).fit(x, value).predict(x), atol=1e-9
    )


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0, 5.0])
def test_the_search_that_stops_early_finds_what_all_penalties_would(signal):
    draws = np.random.default_rng(3)
    x = draws.normal(size=(120, 15))
    y = (draws.random(120) < 1 / (1 + np.exp(-signal * x[:, 0]))).astype(float)
    patient = np.arange(120) // 2
    losses = []
    for penalty in PENALTIES:
        loss = 0.0
        split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y, patient)
        for inside, outside in split:
            model = LogisticRegression(C=1 / (penalty * len(inside)), max_iter=5000)
            chance = model.fit(x[inside], y[inside]).predict_proba(x[outside])
            loss -= np.log(chance[np.arange(len(outside)), y[outside].astype(int)]).sum()
        losses.append(loss)
    found = linear_probe(x, y, patient, classes=True)
    assert found.penalty == PENALTIES[int(np.argmin(losses))]


def test_noise_gets_a_stronger_penalty_than_signal():
    x, value, patient = made(200)
    noise = np.random.default_rng(5).permutation(value)
    clear = linear_probe(x, value, patient, classes=False).penalty
    assert linear_probe(x, noise, patient, classes=False).penalty >= 10 * clear


def test_what_lies_in_small_directions_is_found():
    # strong penalties see the large directions alone, which tell nothing: a hair worse than chance
    draw = np.random.default_rng(4)
    label = draw.integers(0, 2, 600).astype(float)
    small = draw.normal(size=(600, 20))
    small[:, 0] += 2 * label
    large = draw.normal(size=(600, 3)) @ draw.normal(size=(3, 20))
    x = large + 0.005 * small @ draw.normal(size=(20, 20))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    found = linear_probe(x[:400], label[:400], np.arange(400), classes=True)
    assert roc_auc_score(label[400:], found.score(x[400:])) > 0.75


def test_records_of_a_patient_are_never_on_both_sides():
    # features name the patient: across patients they tell nothing, within one all
    draw = np.random.default_rng(1)
    patient = np.repeat(np.arange(40), 5)
    label = np.repeat(draw.integers(0, 2, 40), 5).astype(float)
    x = np.repeat(draw.normal(size=(40, 60)), 5, axis=0)
    alone = linear_probe(x, label, np.arange(200), classes=True)
    assert linear_probe(x, label, patient, classes=True).penalty >= 10 * alone.penalty


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_labels_fall_back_and_still_point_the_right_way(n):
    x = np.zeros((n, 3))
    x[0, 0], x[1:, 0] = 2.0, -1.0
    label = (np.arange(n) == 0).astype(float)
    found = linear_probe(x, label, np.arange(n), classes=True)
    assert (found.penalty, found.folds) == (FALLBACK, 0)
    scores = found.score(x)
    assert scores[0] > scores[1:].max()
    assert ((scores > 0) & (scores < 1)).all()
    values = linear_probe(x, label * 9, np.arange(n), classes=False)
    assert values.folds == 0
    assert values.score(x)[0] > values.score(x)[1:].max()


def test_several_classes_get_a_probability_each():
    x, value, patient = made(120)
    label = np.digitize(value, np.quantile(value, [1 / 3, 2 / 3])).astype(float)
    scores = linear_probe(x, label, patient, classes=True).score(x)
    assert scores.shape == (120, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == label).mean() > 0.5


def test_what_cannot_be_learned_is_refused():
    x, value, patient = made(20)
    with pytest.raises(ValueError, match="needs both kinds"):
        linear_probe(x, np.ones(20), patient, classes=True)
    with pytest.raises(ValueError, match=r"features must be \(N, D\)"):
        linear_probe(x[:19], value, patient, classes=False)
