"""Neighbours: found by brute force, ties by lot, queries drawn by patient."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.eval import project, ranking, ranking_rows, recall_at_k


def clouds(patients=40, visits=3, seed=0, spread=1.0):
    draw = np.random.default_rng(seed)
    centre = np.repeat(draw.normal(size=(patients, 8)), visits, axis=0)
    return centre + spread * draw.normal(size=centre.shape), np.repeat(np.arange(patients), visits)


def brute(embeddings, group, k, exclude=None):
    found = []
    for i in range(len(embeddings)):
        others = [j for j in range(len(embeddings)) if j != i]
        if exclude is not None:
            others = [j for j in others if exclude[j] != exclude[i]]
        if not any(group[j] == group[i] for j in others):
            found.append(np.nan)
            continue
        others.sort(key=lambda j: ((embeddings[i] - embeddings[j]) ** 2).sum())
        found.append(float(any(group[j] == group[i] for j in others[:k])))
    return np.array(found)


@pytest.mark.parametrize("rows", [7, 512])
@pytest.mark.parametrize("k", [1, 3, 500])
def test_finds_what_brute_force_finds(k, rows, monkeypatch):
    monkeypatch.setattr(ranking, "ROWS", rows)
    x, patient = clouds()
    patient[0] = 99  # somebody with nobody to be found
    label = np.random.default_rng(1).integers(0, 3, size=len(x))
    np.testing.assert_array_equal(recall_at_k(x, patient, ks=[k])[0][k], brute(x, patient, k))
    found = recall_at_k(x, label, ks=[k], exclude=patient)[0][k]
    np.testing.assert_array_equal(found, brute(x, label, k, exclude=patient))


def test_a_collapsed_encoder_scores_what_chance_does():
    patient = np.repeat(np.arange(20), 3)
    found, chance = recall_at_k(np.ones((60, 4)), patient, ks=[1, 5])
    np.testing.assert_allclose(found[1], 2 / 59)
    miss = np.prod([(57 - i) / (59 - i) for i in range(5)])
    np.testing.assert_allclose(found[5], 1 - miss)
    np.testing.assert_allclose(chance[1], found[1])
    np.testing.assert_allclose(chance[5], found[5])


def test_ties_are_broken_by_lot_only_where_it_matters():
    x = np.array([[0.0], [1], [1], [-1], [5], [5.5]])
    group = np.array([0, 0, 1, 1, 2, 2])
    found, _ = recall_at_k(x, group, ks=[1, 2])
    assert found[1][0] == pytest.approx(1 / 3)
    assert found[2][0] == pytest.approx(2 / 3)
    assert found[1][4] == 1


def test_rows_and_their_reasons():
    x, patient = clouds()
    label = (patient % 2).astype(float)
    rows = {r["name"]: r for r in ranking_rows(x, patient, label=label, draws=200)}
    assert list(rows) == [f"recall_at_{k}_{t}" for t in ("patient", "label") for k in (1, 5)]
    for line in rows.values():
        assert line["lo"] <= line["estimate"] <= line["hi"]
        assert 0 < line["chance"] < 1
    assert rows["recall_at_1_patient"]["estimate"] > 3 * rows["recall_at_1_patient"]["chance"]
    alone = ranking_rows(x, np.arange(len(x)), draws=20)
    assert {r["reason"] for r in alone} == {"no record has another of the same patient to find"}
    assert {r["estimate"] for r in alone} == {None}


def test_refuses_what_it_cannot_compare():
    x, patient = clouds()
    with pytest.raises(ValueError, match="must fit"):
        recall_at_k(x, patient[1:])
    x[3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 120 embeddings are not finite \(first: 3\)"):
        recall_at_k(x, patient)


def test_maps_to_a_plane():
    x, _ = clouds()
    points, axes = project(x)
    assert points.shape == (len(x), 2)
    assert axes[0].startswith("PC 1 (")
    np.testing.assert_array_equal(points, project(x)[0])
    assert project(x[:20], method="tsne", seed=1)[1] == ("t-SNE 1", "t-SNE 2")
    with pytest.raises(ValueError, match="same point"):
        project(np.ones((5, 4)))
    with pytest.raises(ValueError, match="3 embeddings"):
        project(np.ones((2, 4)))
