"""Curves, tests, calibration and repeated splits: against lifelines and by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.eval import (
    breslow,
    calibration_at,
    corrected_resampled_t,
    kaplan_meier,
    log_rank,
    risk_groups,
    slope_row,
)
from ecgfast.eval.survival_curves import at_risk, cox, cut_points
from python_tests.conftest import shared_data

lifelines = pytest.importorskip("lifelines")


def cohort(n, seed=0):
    draw = np.random.default_rng(seed)
    score = draw.normal(size=n)
    time = draw.exponential(np.exp(-score)) * 1000
    end = draw.uniform(100, 3000, n)
    return score, np.minimum(time, end), (time <= end) * 1.0


@pytest.mark.parametrize(
    ("file", "time", "event", "group"),
    [
        ("rossi.csv", "week", "arrest", "prio"),
        ("gbsg2.csv", "time", "cens", "pnodes"),
        ("lung.csv", "time", "status", "age"),
    ],
)
def test_public_tables_give_what_lifelines_gives(file, time, event, group):
    pandas = pytest.importorskip("pandas")
    rows = pandas.read_csv(shared_data("survival", "lifelines", file)).dropna(subset=[time, event])
    t, e = rows[time].to_numpy(float), rows[event].to_numpy(float)
    e = (e == e.max()) * 1.0  # of lung: 1 censored, 2 dead
    g = (rows[group] > rows[group].median()).to_numpy()
    curve = kaplan_meier(t, e, level=0.9)
    fitted = lifelines.KaplanMeierFitter(alpha=0.1).fit(t, e)
    np.testing.assert_allclose(curve.survival, fitted.predict(curve.time), atol=1e-12)
    bounds = fitted.confidence_interval_survival_function_.loc[curve.time].to_numpy()
    np.testing.assert_allclose(np.stack([curve.lo, curve.hi], axis=1), bounds, atol=1e-12)
    assert (np.diff(curve.survival) < 0).all()  # steps alone: each time has an event
    two = lifelines.statistics.logrank_test(t[g], t[~g], e[g], e[~g])
    found = log_rank(t, e, g)
    assert found["statistic"] == pytest.approx(two.test_statistic)
    assert found["p"] == pytest.approx(two.p_value)
    assert found["df"] == 1
    table = fitted.event_table["at_risk"]
    np.testing.assert_array_equal(at_risk(t, table.index), table)


def test_the_band_is_greenwoods_on_the_scale_of_log_log():
    time, event = np.array([1.0, 2, 3, 4, 5, 6]), np.array([1.0, 1, 0, 1, 0, 1])
    curve = kaplan_meier(time, event)
    risk, died = np.array([6.0, 5, 3, 1]), 1
    survival = np.cumprod(1 - died / risk)
    np.testing.assert_allclose(curve.survival, [1, *survival])
    variance = np.cumsum(died / (risk[:3] * (risk[:3] - died)))
    half = 1.959963985 * np.sqrt(variance) / np.abs(np.log(survival[:3]))
    np.testing.assert_allclose(curve.lo[1:4], survival[:3] ** np.exp(half), rtol=1e-6)
    np.testing.assert_allclose(curve.hi[1:4], survival[:3] ** np.exp(-half), rtol=1e-6)


def test_log_rank_by_hand():
    """One table for each time of an event: observed less expected over its hypergeometric SD."""
    time = np.array([1.0, 2, 2, 3, 4, 5, 5, 6])
    event = np.array([1.0, 1, 1, 0, 1, 1, 0, 1])
    group = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    gap = variance = 0.0
    for u in np.unique(time[event == 1]):
        n, m = (time >= u).sum(), ((time >= u) & (group == 0)).sum()
        d = ((time == u) & (event == 1)).sum()
        gap += ((time == u) & (event == 1) & (group == 0)).sum() - d * m / n
        if n > 1:
            variance += d * m / n * (1 - m / n) * (n - d) / (n - 1)
    assert log_rank(time, event, group)["statistic"] == pytest.approx(gap**2 / variance)


@pytest.mark.parametrize(
    ("event", "group", "reason"),
    [([1, 1, 0], [0, 0, 0], "two groups"), ([0, 0, 0], [0, 1, 1], "none of 3 records")],
)
def test_log_rank_without_a_question(event, group, reason):
    found = log_rank([1, 2, 3], event, group)
    assert found["p"] is None
    assert reason in found["reason"]


def test_without_lifelines_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lifelines", None)
    with pytest.raises(ImportError, match=r"pip install 'ecgfast\[survival\]'"):
        kaplan_meier([1, 2], [1, 1])


def test_risk_groups_are_thirds_that_part():
    score, time, event = cohort(600)
    patient = np.arange(600) // 2
    found = risk_groups(score, time, event, patient, cuts=cut_points(score))
    low, middle, high = found["curves"]
    assert [c["n"] for c in found["curves"]] == [200, 200, 200]
    assert sum(c["events"] for c in found["curves"]) == event.sum()
    assert low["survival"][-1] > high["survival"][-1]
    assert found["log_rank"]["p"] < 1e-6
    assert found["log_rank"]["df"] == 2
    assert 2 < found["hazard_ratio"]["lo"] < found["hazard_ratio"]["estimate"]
    ticks = found["at_risk"]["time"]
    assert ticks[0] == 0
    assert ticks[-1] <= time.max()
    counts = found["at_risk"]["counts"]
    assert [sum(counts[k][i] for k in counts) for i in range(len(ticks))] == [
        (time >= t).sum() for t in ticks
    ]
    ends = np.abs(score) > 0.43
    assert middle["last"] <= time.max()
    expected = lifelines.CoxPHFitter().fit(
        __import__("pandas").DataFrame({"x": (score > 0)[ends], "t": time[ends], "e": event[ends]}),
        "t",
        "e",
    )
    ours = cox((score > 0)[ends], time[ends], event[ends], np.arange(ends.sum()))
    assert ours["estimate"] == pytest.approx(expected.params_["x"], rel=1e-6)


def test_a_group_without_records_is_left_out_and_the_ratio_says_so():
    score, time, event = cohort(60)
    found = risk_groups(score, time, event, np.arange(60), cuts=[-100, 0])
    assert [c["name"] for c in found["curves"]] == ["middle", "high"]
    assert found["hazard_ratio"]["reason"] == "a group has no records"
    alike = risk_groups(np.zeros(60), time, event, np.arange(60), cuts=cut_points(np.zeros(60)))
    assert [c["n"] for c in alike["curves"]] == [60]
    assert alike["log_rank"]["p"] is None


@pytest.mark.parametrize(
    ("x", "event", "reason"),
    [
        ([0, 0, 0, 0], [1, 1, 1, 1], "does not vary"),
        ([0, 1, 0, 1], [0, 0, 0, 0], "no record has an event"),
        ([1, 1, 0, 0], [1, 1, 0, 0], "no finite slope"),
    ],
)
def test_a_slope_that_is_none(x, event, reason):
    found = cox(x, [1, 2, 3, 4], event, [0, 1, 2, 3])
    assert found["estimate"] is None
    assert reason in found["reason"]


def test_copies_of_every_record_change_no_interval_of_patients():
    score, time, event = cohort(200)
    once = cox(score, time, event, np.arange(200))
    twice = cox(*(np.repeat(v, 2) for v in (score, time, event, np.arange(200))))
    assert twice["estimate"] == pytest.approx(once["estimate"], abs=0.03)  # ties now
    assert twice["hi"] - twice["lo"] == pytest.approx(once["hi"] - once["lo"], rel=0.1)


def test_the_slope_tells_who_is_too_extreme():
    score, time, event = cohort(1500)
    patient = np.arange(1500)
    right, extreme = (slope_row(k * score, time, event, patient) for k in (1, 3))
    assert right["lo"] < 1 < right["hi"]
    assert extreme["hi"] < 0.5
    assert extreme["estimate"] == pytest.approx(right["estimate"] / 3, rel=1e-5)
    few = slope_row(score[:20], time[:20], np.eye(20)[0], patient[:20])
    assert few["lo"] is None
    assert "5 patients of a class" in few["reason"]


def test_calibration_finds_the_truth_and_what_is_twice_too_high():
    score, time, event = cohort(2000)
    patient, at = np.arange(2000) // 2, 500.0
    risk = 1 - np.exp(-at / 1000 * np.exp(score))  # the law it was drawn from
    line, points = calibration_at(risk, time, event, patient, at=at, draws=200)
    assert line["lo"] < 1 < line["hi"]
    assert len(points) == 10
    assert sum(p["n"] for p in points) == 2000
    held = [p["lo"] <= p["predicted"] <= p["hi"] for p in points]
    assert sum(held) >= 8
    for place, point in enumerate(points):
        edges = np.quantile(risk, np.linspace(0, 1, 11)[1:-1])
        mine = np.searchsorted(edges, risk) == place
        fitted = lifelines.KaplanMeierFitter().fit(time[mine], event[mine])
        assert point["observed"] == pytest.approx(1 - fitted.predict(at), abs=1e-12)
    half, _ = calibration_at(risk / 2, time, event, patient, at=at, draws=50)
    assert half["estimate"] == pytest.approx(2 * line["estimate"])


def test_few_events_make_few_groups_and_those_unobserved_have_no_risk():
    score, time, event = cohort(150)
    risk = 1 - breslow(score, time, event).survival(score, [500.0])[:, 0]
    cases = ((time <= 500) & (event == 1)).sum()
    assert 40 <= cases < 80
    _, points = calibration_at(risk, time, event, np.arange(150), at=500.0, draws=20)
    assert len(points) == cases // 20
    early, late = np.full(60, 5.0), np.linspace(1, 20, 60)  # lost at 5; events until 20
    time, event = np.r_[early, late], np.r_[np.zeros(60), np.ones(60)]
    risk = np.r_[np.full(60, 0.1), np.full(60, 0.9)]
    _, (low, high) = calibration_at(risk, time, event, np.arange(120), at=15.0, draws=20)
    assert low["observed"] is None
    assert "nobody of this group is observed until 15" in low["reason"]
    assert high["observed"] is not None
    with pytest.raises(ValueError, match=r"\[0, 1\]: 120 of 120"):
        calibration_at(risk + 2, time, event, np.arange(120), at=15.0)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=30).filter(lambda d: np.std(d) > 1e-6),
    st.integers(10, 100),
    st.integers(0, 50),
)
@settings(max_examples=50, deadline=None)
def test_the_corrected_test_widens_the_plain_one(differences, trained, more):
    stats = pytest.importorskip("scipy.stats")
    plain = stats.ttest_1samp(differences, 0)
    found = corrected_resampled_t(differences, trained_on=trained, tested_on=1 + more)
    widened = np.sqrt(1 + len(differences) * (1 + more) / trained)
    assert found["t"] * widened == pytest.approx(plain.statistic, rel=1e-9, abs=1e-12)
    assert (found["p"] < 0.05) == (found["lo"] > 0 or found["hi"] < 0)
    assert found["p"] >= plain.pvalue - 1e-12


def test_the_corrected_test_holds_its_level_over_repeated_folds():
    """Two noises of one spread over 10 x 10 folds: the plain t-test calls them different often."""
    draw = np.random.default_rng(0)
    corrected = plain = 0
    stats = pytest.importorskip("scipy.stats")
    for _ in range(200):
        gap = draw.normal(size=50)  # of each record: right by one less right by the other
        folds = []
        for _ in range(10):
            folds += [part.mean() for part in np.split(draw.permutation(gap), 10)]
        corrected += corrected_resampled_t(folds, trained_on=45, tested_on=5)["p"] < 0.05
        plain += stats.ttest_1samp(folds, 0).pvalue < 0.05
    assert corrected <= 20
    assert plain >= 60


@pytest.mark.parametrize(
    ("differences", "parts", "message"),
    [
        ([0.1, np.nan], (8, 2), r"got nan in split 1 \(1 of 2 splits\)"),
        ([[0.1]], (8, 2), r"\(J,\), got \(1, 1\)"),
        ([0.1, 0.2], (0, 2), "both parts need records"),
    ],
)
def test_the_corrected_test_refuses(differences, parts, message):
    with pytest.raises(ValueError, match=message):
        corrected_resampled_t(differences, trained_on=parts[0], tested_on=parts[1])


@pytest.mark.parametrize("differences", [[], [0.5], [0.5, 0.5]])
def test_the_corrected_test_says_why_there_is_none(differences):
    found = corrected_resampled_t(differences, trained_on=8, tested_on=2)
    assert found["p"] is None
    assert found["reason"]
