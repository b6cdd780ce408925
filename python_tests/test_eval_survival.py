"""The C-index against its definition, lifelines and copied records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgfast.eval import c_index, survival_rows
from ecgfast.eval.survival import statistic
from python_tests.conftest import shared_data

FEW = settings(max_examples=100, deadline=None)


@st.composite
def followed(draw, least=1):
    """Hazards, times and events with ties everywhere, and whole weights."""
    n = draw(st.integers(least, 25))
    hazard = draw(hnp.arrays(np.int64, n, elements=st.integers(-3, 3))) / 2
    time = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 8))).astype(np.float64)
    event = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1))).astype(np.float64)
    weight = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    return hazard, time, event, weight


def by_pairs(hazard, time, event):
    """Harrell's definition, one pair after the other; NaN without a pair."""
    concordant = pairs = 0.0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                pairs += 1
                concordant += (hazard[i] > hazard[j]) + (hazard[i] == hazard[j]) / 2
    return concordant / pairs if pairs else np.nan


def weighted(hazard, time, event, weight):
    return statistic(hazard, time, event)(weight[None].astype(np.float64))["c_index"][0]


@FEW
@given(followed())
def test_it_is_the_definition_and_copies_are_weights(case):
    hazard, time, event, weight = case
    copies = np.repeat(np.arange(len(time)), weight)
    expected = by_pairs(hazard[copies], time[copies], event[copies])
    np.testing.assert_equal(weighted(*case), expected)


@FEW
@given(followed(least=2))
def test_it_is_that_of_lifelines(case):
    utils = pytest.importorskip("lifelines.utils")
    hazard, time, event, _ = case
    try:
        theirs = utils.concordance_index(time, -hazard, event)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="no pair can be compared"):
            c_index(hazard, time, event)
    else:
        assert c_index(hazard, time, event) == pytest.approx(theirs, abs=1e-12)


@FEW
@given(followed(), st.randoms(use_true_random=False))
def test_only_the_order_of_hazards_and_times_counts(case, random):
    hazard, time, event, weight = case
    plain = weighted(*case)
    np.testing.assert_equal(weighted(np.exp(hazard) - 7, time**3 + 1, event, weight), plain)
    order = list(range(len(time)))
    random.shuffle(order)
    np.testing.assert_equal(weighted(*(values[order] for values in case)), plain)


@FEW
@given(followed())
def test_the_opposite_hazard_has_the_rest(case):
    hazard, time, event, weight = case
    there, opposite = weighted(*case), weighted(-hazard, time, event, weight)
    np.testing.assert_allclose(opposite, 1 - there, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("hazard", "time", "event", "expected"),
    [
        ([3, 2, 1], [1, 2, 3], [1, 1, 1], 1.0),  # higher means earlier
        ([1, 2, 3], [1, 2, 3], [1, 1, 1], 0.0),
        ([0, 0, 0], [1, 2, 3], [1, 1, 1], 0.5),  # no opinion
        ([2, 1], [5, 5], [1, 0], 1.0),  # censored at the time of the event: outlived it
        ([9, 2, 1], [1, 2, 3], [0, 1, 1], 1.0),  # censored first: in no pair
        ([9, 2, 2], [1, 2, 3], [0, 1, 0], 0.5),
    ],
)
def test_by_hand(hazard, time, event, expected):
    assert c_index(hazard, time, event) == expected
    assert c_index(np.float32(hazard), np.int32(time), np.array(event, bool)) == expected


def test_large_weights_are_counted_exactly():
    """Pairs by the million: whole numbers stay whole."""
    draw = np.random.default_rng(0)
    n = 3000
    hazard, time = draw.integers(0, 50, n) / 1.0, draw.integers(1, 400, n) / 1.0
    event = (draw.random(n) < 0.4) * 1.0
    before = (event[:, None] == 1) & (
        (time[:, None] < time) | ((time[:, None] == time) & (event == 0))
    )
    halves = 2 * (hazard[:, None] > hazard) + (hazard[:, None] == hazard)
    expected = (halves * before).sum() / (2 * before.sum())
    assert c_index(hazard, time, event) == expected


@pytest.mark.parametrize(
    ("hazard", "time", "event", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], [0, 0], "no pair can be compared.*; 0 of 2 records have an event"),
        ([1.0, 2.0], [1.0, 1.0], [1, 1], "no pair.*; 2 of 2 records"),
        ([1.0], [1.0], [1], "no pair"),
        ([], [], [], "no records"),
        ([1.0, np.nan], [1, 2], [1, 1], r"log_hazard must be finite, got nan in row 1 \(1 of 2"),
        ([1.0, 2.0], [-1, np.inf], [1, 1], r"time must be.*got -1 in row 0 \(2 of 2 rows\): mend"),
        ([1.0, 2.0], [1, 2], [1, 3], "event must be 0 .censored. or 1, got 3 in row 1"),
        ([1.0, 2.0], [1, 2, 3], [1, 1], r"\(N,\) each, got \(2,\), \(3,\), \(2,\)"),
        ([[1.0, 2.0]], [[1, 2]], [[1, 1]], r"\(N,\) each, got \(1, 2\)"),
    ],
)
def test_refuses(hazard, time, event, message):
    with pytest.raises(ValueError, match=message):
        c_index(hazard, time, event)


def cohort(n, seed=0):
    draw = np.random.default_rng(seed)
    hazard = draw.normal(size=n)
    time = draw.exponential(np.exp(-hazard)) * 1000
    end = draw.exponential(1500, n)
    event = (time <= end) * 1.0
    return hazard, np.ceil(np.minimum(time, end)), event, np.arange(n) // 2


def test_rows_are_of_patients_and_groups():
    hazard, time, event, patient = cohort(400)
    groups = {"half": np.arange(400) < 200, "none": np.zeros(400, bool), "censored": event == 0}
    whole, half, none, censored = survival_rows(
        hazard, time, event, patient, groups=groups, draws=200
    )
    assert whole["estimate"] == c_index(hazard, time, event)
    assert whole["lo"] < whole["estimate"] < whole["hi"]
    assert (whole["n"], whole["patients"], whole["positives"]) == (400, 200, int(event.sum()))
    assert half["estimate"] == c_index(*(x[:200] for x in (hazard, time, event)))
    assert half["hi"] - half["lo"] > whole["hi"] - whole["lo"]
    assert none["reason"] == "no records"
    assert censored["estimate"] is None
    assert "no pair can be compared" in censored["reason"]


def test_few_patients_with_an_event_give_no_interval():
    hazard, time, event, patient = cohort(100)
    event[np.flatnonzero(event)[3:]] = 0
    (row,) = survival_rows(hazard, time, event, patient, draws=50)
    assert row["estimate"] is not None
    assert row["lo"] is None
    assert "5 patients of a class" in row["reason"]


def test_interval_covers_what_it_should():
    """Of 60 cohorts, the 90 % interval holds the C-index of a large one in 48 at least."""
    truth = c_index(*cohort(40000, seed=1)[:3])
    held = 0
    for seed in range(60):
        (row,) = survival_rows(*cohort(150, seed=100 + seed), draws=200, level=0.9, seed=seed)
        held += row["lo"] <= truth <= row["hi"]
    assert held >= 48


@pytest.mark.parametrize(
    ("file", "score", "time", "event"),
    [
        (("lifelines", "rossi.csv"), "prio", "week", "arrest"),
        (("lifelines", "gbsg2.csv"), "pnodes", "time", "cens"),
        (
            ("uci-heart-failure", "heart_failure_clinical_records_dataset.csv"),
            "serum_creatinine",
            "time",
            "DEATH_EVENT",
        ),
    ],
    ids=["rossi", "gbsg2", "heart_failure"],
)
def test_public_tables_give_what_lifelines_gives(file, score, time, event):
    pandas = pytest.importorskip("pandas")
    utils = pytest.importorskip("lifelines.utils")
    rows = pandas.read_csv(shared_data("survival", *file))
    ours = c_index(rows[score], rows[time], rows[event])
    assert ours == pytest.approx(
        utils.concordance_index(rows[time], -rows[score], rows[event]), abs=1e-12
    )
