"""Metrics with censoring weighed out: against plain loops, torchsurv, lifelines, copied records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgfast.eval import between, breslow, c_index, differences, follow_up_rows
from ecgfast.eval.follow_up import POINTS, statistic, truncation, unfit, usual_horizons
from ecgfast.eval.product_limit import ProductLimit
from ecgfast.eval.survival import from_signed
from python_tests.conftest import shared_data

FEW = settings(max_examples=60, deadline=None)


@st.composite
def followed(draw, least=2):
    """Scores, times and events with ties everywhere, and whole weights."""
    n = draw(st.integers(least, 20))
    score = draw(hnp.arrays(np.int64, n, elements=st.integers(-3, 3))) / 2
    time = draw(hnp.arrays(np.int64, n, elements=st.integers(1, 8))).astype(np.float64)
    event = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1))).astype(np.float64)
    weight = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    return score, time, event, weight


def cohort(n, seed=0, whole=False):
    draw = np.random.default_rng(seed)
    score = draw.normal(size=n)
    time = draw.exponential(np.exp(-score)) * 1000
    end = draw.uniform(100, 3000, n)
    event = (time <= end) * 1.0
    time = np.minimum(time, end)
    return score, np.ceil(time / 50) if whole else time, event


def uncensored(time, event, at, *, reach):
    """Kaplan-Meier of censoring by its definition: P(C >= at) to reach it, P(C > at) otherwise."""
    value = 1.0
    for u in np.unique(time[event == 0]):
        if u < at or (u == at and not reach):
            lost = ((time == u) & (event == 0)).sum()
            value *= 1 - lost / (lost + (time > u).sum())  # who has the event at u has left before
    return value


def uno_by_pairs(score, time, event, tau):
    won = pairs = 0.0
    for i in np.flatnonzero((event == 1) & (time < tau)):
        weight = uncensored(time, event, time[i], reach=True) ** -2
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                pairs += weight
                won += weight * ((score[i] > score[j]) + (score[i] == score[j]) / 2)
    return won / pairs if pairs else np.nan


def auc_by_pairs(score, time, event, at):
    won = pairs = 0.0
    for i in np.flatnonzero((event == 1) & (time <= at)):
        weight = 1 / uncensored(time, event, time[i], reach=True)
        for j in np.flatnonzero(time > at):
            pairs += weight
            won += weight * ((score[i] > score[j]) + (score[i] == score[j]) / 2)
    return won / pairs if pairs else np.nan


def brier_by_record(alive, time, event, at):
    total = 0.0
    for i in range(len(time)):
        if time[i] <= at and event[i]:
            total += alive[i] ** 2 / uncensored(time, event, time[i], reach=True)
        elif time[i] > at:
            total += (1 - alive[i]) ** 2 / uncensored(time, event, at, reach=False)
    if uncensored(time, event, at, reach=False) == 0:
        return np.nan
    return total / len(time)


def alive_by(score):
    """Chances that fall with time and score: those of a constant hazard."""
    return lambda at: np.exp(-np.asarray(at) * np.exp(score)[:, None] / 6)


@FEW
@given(followed())
def test_they_are_their_definitions_and_copies_are_weights(case):
    score, time, event, weight = case
    if not weight.any():
        weight = weight + 1
    copies = np.repeat(np.arange(len(time)), weight)
    s, t, e = score[copies], time[copies], event[copies]
    horizons = (2.0, 4.5)
    of = statistic(score, time, event, tau=6.0, horizons=horizons, chances=alive_by(score))
    found = {name: float(v[0]) for name, v in of(weight[None].astype(float)).items()}
    expected = {"uno_c": uno_by_pairs(s, t, e, 6.0)}
    for at in horizons:
        expected[f"auc_at_{at:g}"] = auc_by_pairs(s, t, e, at)
        expected[f"brier_at_{at:g}"] = brier_by_record(alive_by(s)([at])[:, 0], t, e, at)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_integral_is_the_mean_over_time():
    score, time, event = cohort(60, whole=True)
    tau = truncation(time)
    found = statistic(score, time, event, tau=tau, chances=alive_by(score))(np.ones((1, 60)))
    grid = np.linspace(0, tau, POINTS + 1)
    alive = alive_by(score)(grid)
    values = [brier_by_record(alive[:, k], time, event, at) for k, at in enumerate(grid)]
    assert values[0] == 0
    assert found["ibs"][0] == pytest.approx(np.trapezoid(values, grid) / tau, rel=1e-10)
    km = ProductLimit(time, event).after(np.ones((1, 60)), grid)[0]
    values = [
        brier_by_record(np.full(60, s), time, event, at) for s, at in zip(km, grid, strict=True)
    ]
    assert found["ibs_km"][0] == pytest.approx(np.trapezoid(values, grid) / tau, rel=1e-10)


@pytest.mark.parametrize("seed", [1, 2])
def test_torchsurv_gives_the_same(seed):
    """Where no event comes when a record is censored: there, torchsurv has G(t) for G(t-)."""
    torch = pytest.importorskip("torch")
    ipcw = pytest.importorskip("torchsurv.stats.ipcw").get_ipcw
    auc = pytest.importorskip("torchsurv.metrics.auc").Auc
    brier = pytest.importorskip("torchsurv.metrics.brier_score").BrierScore
    concordance = pytest.importorskip("torchsurv.metrics.cindex").ConcordanceIndex
    score, time, event = cohort(150, seed)
    e, t, s = torch.tensor(event == 1), torch.tensor(time), torch.tensor(score)
    at = [300.0, 900.0]
    tau = 1200.0
    chances = lambda grid: np.exp(-np.asarray(grid) * np.exp(score)[:, None] / 1000)  # noqa: E731
    of = statistic(score, time, event, tau=tau, horizons=at, chances=chances)
    ours = {name: float(v[0]) for name, v in of(np.ones((1, 150))).items()}
    weight, new = ipcw(e, t).double(), torch.tensor(at, dtype=torch.float64)
    beyond = ipcw(e, t, new).double()  # of 32 bits
    theirs = concordance()(s, e, t, weight=weight, tmax=torch.tensor(tau, dtype=torch.float64))
    assert ours["uno_c"] == pytest.approx(theirs.item(), abs=1e-6)
    areas = auc()(s, e, t, weight=weight, new_time=new, weight_new_time=beyond)
    scores = brier()(torch.tensor(chances(at)), e, t, new, weight, beyond)
    for k, h in enumerate(at):
        assert ours[f"auc_at_{h:g}"] == pytest.approx(areas[k].item(), abs=1e-6)
        assert ours[f"brier_at_{h:g}"] == pytest.approx(scores[k].item(), abs=1e-6)


def test_without_censoring_they_are_what_everybody_knows():
    metrics = pytest.importorskip("sklearn.metrics")
    score, time, _ = cohort(200)
    event = np.ones(200)
    of = statistic(score, time, event, tau=np.inf, horizons=[500.0])
    found = of(np.ones((1, 200)))
    assert found["uno_c"][0] == pytest.approx(c_index(score, time, event), abs=1e-12)
    assert found["auc_at_500"][0] == pytest.approx(
        metrics.roc_auc_score(time <= 500, score), abs=1e-12
    )


def test_uno_does_not_move_with_censoring_where_harrell_does():
    """Times cut off early leave the late pairs out; their weights bring them back."""
    draw = np.random.default_rng(3)
    n = 20_000
    score = draw.normal(size=n)
    time = draw.weibull(1.0, n) * np.exp(-score * np.where(draw.random(n) < 0.5, 2, 0.2))
    tau = float(np.quantile(time, 0.6))
    of = lambda t, e: statistic(score, t, e, tau=tau)(np.ones((1, n)))  # noqa: E731
    whole = of(time, np.ones(n))
    end = draw.exponential(0.5, n)
    cut = of(np.minimum(time, end), (time <= end) * 1.0)
    assert cut["uno_c"][0] == pytest.approx(whole["uno_c"][0], abs=0.01)
    assert abs(cut["c_index"][0] - whole["c_index"][0]) > 0.01


@FEW
@given(followed())
def test_the_curves_multiply_to_the_share_still_observed(case):
    _, time, event, _ = case
    once = np.ones((1, len(time)))
    at = np.unique(time)
    both = ProductLimit(time, event).after(once, at) * ProductLimit(
        time, event, censoring=True
    ).after(once, at)
    np.testing.assert_allclose(both[0], [(time > t).mean() for t in at], atol=1e-12)


@FEW
@given(followed())
def test_the_product_is_that_of_lifelines(case):
    fitter = pytest.importorskip("lifelines").KaplanMeierFitter
    _, time, event, weight = case
    if not weight.any():
        weight = weight + 1
    copies = np.repeat(np.arange(len(time)), weight)
    at = np.linspace(0.5, 9, 12)
    ours = ProductLimit(time, event).after(weight[None].astype(float), at)[0]
    theirs = fitter().fit(time[copies], event[copies]).predict(at)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("file", "score", "time", "event"),
    [("rossi.csv", "prio", "week", "arrest"), ("gbsg2.csv", "pnodes", "time", "cens")],
)
def test_breslow_is_that_of_lifelines(file, score, time, event):
    pandas = pytest.importorskip("pandas")
    lifelines = pytest.importorskip("lifelines")
    rows = pandas.read_csv(shared_data("survival", "lifelines", file))[[score, time, event]]
    rows = rows.astype(float)
    fitted = lifelines.CoxPHFitter().fit(rows, time, event)
    x = fitted.predict_log_partial_hazard(rows).to_numpy()
    baseline = breslow(x, rows[time], rows[event])
    theirs = fitted.baseline_cumulative_hazard_["baseline cumulative hazard"]
    theirs = theirs[theirs.index.isin(baseline.time)]
    np.testing.assert_allclose(np.exp(baseline.log_cumulative), theirs, rtol=1e-9)
    at = baseline.time[:: len(baseline.time) // 4]  # between them, lifelines draws lines
    expected = fitted.predict_survival_function(rows, times=at).to_numpy().T
    np.testing.assert_allclose(baseline.survival(x, at), expected, rtol=1e-9)


def test_a_baseline_takes_up_a_shift_of_all_hazards_however_large():
    score, time, event = cohort(50)
    at = [100.0, 400.0]
    plain = breslow(score, time, event).survival(score, at)
    for shift in (-900, 5, 900):
        moved = breslow(score + shift, time, event).survival(score + shift, at)
        np.testing.assert_allclose(moved, plain, rtol=1e-9)
    beyond = breslow(score, time, event).survival(score[:2], [time.max() + 1])
    assert np.isnan(beyond).all()
    with pytest.raises(ValueError, match="all 3 records are censored; take a longer follow-up"):
        breslow([1, 2, 3], [1, 2, 3], [0, 0, 0])


@FEW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 12))
def test_between_ends_the_chance_falls(steps, at):
    chance = np.cumprod(steps)[None]
    edges = np.arange(1, len(steps) + 1) * 2.0
    np.testing.assert_allclose(between(chance, edges, edges), chance, atol=1e-300)
    value = between(chance, edges, [at])[0, 0]
    if at > edges[-1]:
        assert np.isnan(value)
        return
    ends = np.concatenate([[1.0], chance[0]])
    k = int(np.clip(np.ceil(at / 2), 1, len(steps)))
    assert ends[k] - 1e-12 <= value <= ends[k - 1] + 1e-12


@pytest.mark.parametrize(
    ("survival", "edges", "message"),
    [
        ([[0.5, 1.2]], [1, 2], r"\[0, 1\]: 1 of 1 rows do not \(first: row 0\)"),
        ([[0.5, np.nan]], [1, 2], r"\[0, 1\]"),
        ([[0.5, 0.2]], [2, 1], "edges must rise"),
        ([[0.5, 0.2]], [0, 1], "edges must rise from above 0"),
        ([0.5, 0.2], [0, 1], r"\(N, K\)"),
    ],
)
def test_between_refuses(survival, edges, message):
    with pytest.raises(ValueError, match=message):
        between(survival, edges, [1.0])


def test_rows_say_what_and_until_when():
    score, time, event = cohort(400)
    baseline = breslow(score, time, event)
    patient = np.arange(400) // 2
    rows = follow_up_rows(
        score,
        time,
        event,
        patient,
        horizons=[365.25, 5000.0, 0.01],
        chances=lambda at: baseline.survival(score, at),
        last=baseline.last,
        draws=100,
    )
    named = {row["name"]: row for row in rows}
    good = named["auc_at_365.25"]
    assert good["lo"] < good["estimate"] < good["hi"]
    assert good["positives"] == ((time <= 365.25) & (event == 1)).sum()
    assert named["uno_c"]["at"] == truncation(time) == named["ibs"]["at"]
    assert named["ibs"]["hi"] < named["ibs_km"]["estimate"]
    for kind in ("auc", "brier"):
        assert "0 patients are observed beyond 5000" in named[f"{kind}_at_5000"]["reason"]
        assert "have an event until 0.01" in named[f"{kind}_at_0.01"]["reason"]
    assert follow_up_rows(score, time, event, patient, draws=5)[0]["name"] == "uno_c"


def test_the_intervals_cover_what_they_should():
    """Of 60 cohorts, the 90 % intervals hold the numbers of a large one in 48 at least."""
    large = cohort(40_000, seed=1)
    truth = {}
    for name, value in statistic(*large, tau=1500.0, horizons=[800.0])(
        np.ones((1, 40_000))
    ).items():
        truth[name] = float(value[0])
    held = dict.fromkeys(("uno_c", "auc_at_800"), 0)
    for seed in range(60):
        few = cohort(200, seed=100 + seed)
        rows = follow_up_rows(
            *few, np.arange(200), tau=1500.0, horizons=[800.0], draws=200, seed=seed, level=0.9
        )
        for row in rows:
            held[row["name"]] += row["lo"] <= truth[row["name"]] <= row["hi"]
    assert min(held.values()) >= 48, held


def test_nobody_with_an_event_says_so():
    score, time, _ = cohort(40)
    (row,) = follow_up_rows(score, time, np.zeros(40), np.arange(40), draws=20)
    assert (row["estimate"], row["positives"]) == (None, 0)
    assert "no pair can be compared" in row["reason"]


def test_all_scores_equal_is_chance():
    _, time, event = cohort(100)
    found = statistic(np.zeros(100), time, event, tau=1000.0, horizons=[500.0])(np.ones((1, 100)))
    assert found["uno_c"][0] == pytest.approx(0.5)
    assert found["auc_at_500"][0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([1.0, 0.0], r"got 0 in row 1 \(1 of 2 rows\): follow-up begins after"),
        ([np.nan, -np.inf], r"got nan in row 0 \(2 of 2"),
    ],
)
def test_signed_times_have_a_sign(label, message):
    with pytest.raises(ValueError, match=message):
        from_signed(label)


def test_horizons_are_years_of_a_known_unit():
    assert usual_horizons("days") == [365.25, 1095.75, 1826.25]
    assert usual_horizons("months") == [12, 36, 60]
    assert usual_horizons("") == []
    _, time, event = cohort(100)
    assert unfit(500.0, time, event, np.arange(100)) is None
    assert "reach to 400 only" in str(unfit(500.0, time, event, np.arange(100), 400.0))
    assert "above 0" in str(unfit(-1.0, time, event, np.arange(100)))
    assert "above 0" in str(unfit(np.nan, time, event, np.arange(100)))


def test_a_difference_is_of_the_same_patients():
    score, time, event = cohort(300)
    signed = np.where(event == 1, time, -time)
    worse = score + np.random.default_rng(9).normal(size=300) * 2
    patient = np.arange(300) // 2
    rows = differences("survival", signed, [score], [worse], patient, horizons=[500.0], draws=200)
    named = {row["name"]: row for row in rows}
    assert list(named) == ["c_index", "uno_c", "auc_at_500"]
    first = named["c_index"]
    expected = c_index(score, time, event) - c_index(worse, time, event)
    assert first["estimate"] == pytest.approx(expected)
    assert first["lo"] > 0
    assert first["p"] == pytest.approx(2 / 201)
    (same, *_) = differences("survival", signed, [score], [score], patient, draws=50)
    assert (same["estimate"], same["lo"]) == (0, None)
    with pytest.raises(ValueError, match="signed times"):
        differences("survival", np.zeros(300), [score], [score], patient, draws=5)
