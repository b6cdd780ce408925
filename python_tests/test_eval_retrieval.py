"""Recall and ranks among candidates of another kind, against sorting and against lots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.eval import first_ranks, retrieval_rows


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 10_000),
)
def test_ranks_are_the_expectation_over_lots(queries, candidates, values, seed):
    draw = np.random.default_rng(seed)
    score = draw.integers(values, size=(queries, candidates)).astype(float)  # mostly ties
    match = draw.random((queries, candidates)) < 0.4
    found = first_ranks(score, match)
    lots = []
    for _ in range(400):
        order = np.argsort(-score + 1e-3 * draw.random(score.shape), axis=1)
        ranked = np.take_along_axis(match, order, axis=1)
        lots.append(np.where(match.any(1), ranked.argmax(1) + 1.0, np.nan))
    wanted, error = np.mean(lots, axis=0), np.std(lots, axis=0) / 20
    assert (np.isnan(found) == np.isnan(wanted)).all()
    known = ~np.isnan(found)
    assert (np.abs(found - wanted)[known] <= 6 * error[known] + 1e-9).all()


def test_recall_and_median_rank_are_those_of_a_sorted_list():
    draw = np.random.default_rng(1)
    score = draw.normal(size=(60, 30))
    match = np.zeros_like(score, bool)
    match[np.arange(60), draw.integers(30, size=60)] = True
    match[:20, :3] = True
    score += match
    rows = {r["name"]: r for r in retrieval_rows(score, match, np.arange(60) // 2, draws=200)}
    ranks = 1 + np.take_along_axis(match, np.argsort(-score, axis=1), axis=1).argmax(axis=1)
    for k in (1, 5, 10):
        row = rows[f"recall_at_{k}"]
        assert row["estimate"] == pytest.approx((ranks <= k).mean())
        assert row["lo"] < row["estimate"] < row["hi"]
        assert row["patients"] == 30
    assert rows["median_rank"]["estimate"] == np.median(ranks)
    assert rows["median_rank"]["lo"] <= np.median(ranks) <= rows["median_rank"]["hi"]
    one = match.sum(axis=1)
    assert rows["recall_at_1"]["chance"] == pytest.approx((one / 30).mean())
    assert rows["median_rank"]["chance"] == np.median(31 / (one + 1))


def test_a_collapse_scores_what_lots_do():
    match = np.eye(40, dtype=bool)
    for row in retrieval_rows(np.ones((40, 40)), match, np.arange(40), draws=20):
        assert row["estimate"] == pytest.approx(row["chance"])


def test_more_candidates_are_asked_for_than_there_are():
    rows = retrieval_rows(np.zeros((12, 2)), np.ones((12, 2), bool), np.arange(12), draws=20)
    assert [row["estimate"] for row in rows] == [1.0, 1.0, 1.0, 1.0]
    assert "all draws give 1" in rows[0]["reason"]


def test_wrong_arrays_are_refused():
    score, match = np.zeros((3, 2)), np.ones((3, 2), bool)
    with pytest.raises(ValueError, match=r"score and match must be \(Q, M\)"):
        retrieval_rows(score, match[:, :1], np.arange(3))
    with pytest.raises(ValueError, match="6 of 6 scores are not finite"):
        retrieval_rows(score + np.nan, match, np.arange(3))
    match[1] = False
    with pytest.raises(ValueError, match="1 of 3 queries have no match"):
        retrieval_rows(score, match, np.arange(3))
