"""Curves of label efficiency, on curves made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from ecgfast.eval.bootstrap import interval
from ecgfast.eval.label_efficiency import (
    label_ratio,
    monotone,
    over_patients,
    over_seeds,
    reach,
    statistic,
)

SHARES = np.array([0.001, 0.01, 0.1, 1.0])


def test_the_interval_over_seeds_is_students():
    values = [0.71, 0.74, 0.69, 0.75, 0.70]
    found = over_seeds(values)
    lo, hi = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found["estimate"] == pytest.approx(np.mean(values))
    assert (found["lo"], found["hi"]) == (pytest.approx(lo), pytest.approx(hi))
    assert found["seeds"] == 5
    assert over_seeds([*values, np.nan]) == found
    assert over_seeds(values, level=0.5)["hi"] < hi


def test_there_is_no_interval_without_a_spread():
    one, same, none = over_seeds([0.7]), over_seeds([0.7, 0.7, 0.7]), over_seeds([np.nan, np.nan])
    assert (one["estimate"], one["lo"]) == (0.7, None)
    assert "two seeds" in one["reason"]
    assert (same["lo"], same["hi"]) == (None, None)
    assert "gave the same" in same["reason"]
    assert none["estimate"] is None


def test_a_curve_is_made_monotone_by_the_least_squares():
    assert monotone([0.6, 0.8, 0.7, 0.9]).tolist() == pytest.approx([0.6, 0.75, 0.75, 0.9])
    assert monotone([9.0, 7.0, 8.0, 5.0], falling=True).tolist() == [9.0, 7.5, 7.5, 5.0]


def test_a_target_is_reached_between_two_shares_on_the_log_scale():
    values = [0.5, 0.6, 0.7, 0.8]
    assert reach(SHARES, values, 0.65) == (pytest.approx(10**-1.5), "reached")
    assert reach(SHARES, values, 0.7) == (pytest.approx(0.1), "reached")
    assert reach(SHARES, values, 0.8) == (pytest.approx(1.0), "reached")
    assert reach(SHARES, values, 0.5) == (pytest.approx(0.001), "reached")
    assert reach(SHARES, values, 0.81) == (None, "not reached")
    assert reach(SHARES, values, 0.49) == (None, "at the smallest")
    # where the curve is flat the least share counts
    assert reach(SHARES, [0.5, 0.7, 0.7, 0.8], 0.7) == (pytest.approx(0.01), "reached")
    # less is better for an error
    assert reach(SHARES, [9, 8, 7, 6], 7.5, falling=True) == (pytest.approx(10**-1.5), "reached")
    assert reach(SHARES, [9, 8, 7, 6], 5, falling=True) == (None, "not reached")
    assert reach(SHARES, [9, 8, 7, 6], 10, falling=True) == (None, "at the smallest")
    with pytest.raises(ValueError, match="fractions growing"):
        reach(SHARES[::-1], values, 0.7)


@pytest.mark.parametrize("falling", [False, True])
def test_a_curve_ten_times_as_thrifty_needs_a_tenth(falling):
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.003, (5, 1))
    b = np.array([0.5, 0.6, 0.7, 0.8]) + noise
    a = b + 0.1  # the same curve, one decade to the left
    if falling:
        a, b = 1 - a, 1 - b
    rows = label_ratio(SHARES, a, b, falling=falling, draws=200)
    assert [row["state"] for row in rows] == ["at the smallest", *["reached"] * 3]
    for row in rows[1:]:
        assert row["ratio"] == pytest.approx(0.1)
        assert (row["lo"], row["hi"]) == (pytest.approx(row["a_fraction"]),) * 2  # seeds are paired
        assert row["draws_reached"] == 1
    assert rows[0]["lo"] == rows[0]["hi"] == "at the smallest"
    back = label_ratio(SHARES, b, a, falling=falling, draws=200)
    assert [row["state"] for row in back] == [*["reached"] * 3, "not reached"]
    assert back[0]["ratio"] == pytest.approx(10)
    assert back[3]["lo"] == back[3]["hi"] == "not reached"


def test_bounds_of_a_ratio_may_lie_beyond_the_curve():
    draw = np.random.default_rng(1)
    curve = np.array([0.5, 0.6, 0.7, 0.8])
    a, b = curve + draw.normal(0, 0.05, (5, 1)), curve + draw.normal(0, 0.05, (5, 1))
    rows = label_ratio(SHARES, a, b, draws=500)
    middle = next(row for row in rows if row["state"] == "reached")
    assert 0 < middle["draws_reached"] <= 1
    ends = {row[k] for row in rows for k in ("lo", "hi")}
    assert ends & {"at the smallest", "not reached"}
    assert label_ratio(SHARES, a, b, draws=500) == rows  # the draws have a seed
    assert label_ratio(SHARES, a[:1], b[:1])[1]["lo"] is None
    with pytest.raises(ValueError, match="not finite"):
        label_ratio(SHARES, a * np.nan, b)
    with pytest.raises(ValueError, match=r"\(S, F\)"):
        label_ratio(SHARES, a[:, :3], b)


def test_metrics_are_those_of_scikit_learn():
    draw = np.random.default_rng(2)
    label = draw.integers(0, 2, 80).astype(float)
    score = label * 0.4 + draw.random(80)
    once, who = np.ones((1, 80)), np.arange(80)
    found = statistic("classification", label, score, who)(once)
    assert found["auroc"][0] == pytest.approx(roc_auc_score(label, score))
    assert found["auprc"][0] == pytest.approx(average_precision_score(label, score))
    found = statistic("regression", label, score, who)(once)
    assert found["r2"][0] == pytest.approx(r2_score(label, score))
    assert found["mae"][0] == pytest.approx(np.abs(label - score).mean())
    assert found["rmse"][0] == pytest.approx(np.sqrt(((label - score) ** 2).mean()))
    assert found["pearson_r"][0] == pytest.approx(np.corrcoef(label, score)[0, 1])
    three = draw.integers(0, 3, 80).astype(float)
    chance = draw.dirichlet([1, 1, 1], 80)
    found = statistic("multiclass", three, chance, who)(once)
    assert found["auroc_macro"][0] == pytest.approx(
        roc_auc_score(three, chance, multi_class="ovr", average="macro")
    )


def test_cells_share_their_draws_of_patients():
    draw = np.random.default_rng(3)
    patient = np.repeat(np.arange(60), 2)
    label = np.repeat(draw.integers(0, 2, 60), 2).astype(float)
    base = label + draw.normal(0, 1, 120)
    # a score in another monotone scale is the same score: each difference is exactly 0
    scores = [[base, base + 0.01 * draw.normal(size=120)], [np.exp(base), base]]
    cells = [[statistic("classification", label, s, patient) for s in seeds] for seeds in scores]
    drawn = over_patients([cells[0][:1], cells[1][:1]], patient, draws=60)["auroc"]
    assert drawn.shape == (60, 2)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    both = over_patients(cells, patient, draws=60)["auroc"]
    alone = over_patients([cells[0][1:]], patient, draws=60)["auroc"]
    np.testing.assert_allclose(both[:, 0], (drawn[:, 0] + alone[:, 0]) / 2)
    lo, hi, _ = interval(roc_auc_score(label, base), drawn[:, 0])
    assert lo < roc_auc_score(label, base) < hi
