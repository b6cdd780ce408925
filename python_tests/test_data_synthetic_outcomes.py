"""SYNTHETIC outcomes and reports: what is planted in them is there."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.data.labels import parse_scp
from ecgfast.data.synthetic_outcomes import YEAR, outcomes
from ecgfast.data.synthetic_patients import draw_records, visits_of
from ecgfast.data.synthetic_reports import FINDINGS, IMAGINED, NORMAL, SEEN, STATEMENTS, reports

PATIENTS = 6000


def drawn(patients, seed=0):
    numbers = np.arange(patients)
    each = visits_of(seed, numbers, (1, 4))
    visit = np.concatenate([np.arange(count) for count in each])
    return draw_records(seed, np.repeat(numbers, each), visit)


@pytest.fixture(scope="module")
def records():
    return drawn(PATIENTS)


def test_events_are_as_rare_as_in_the_cohorts_of_the_paper(records):
    found = outcomes(0, records)
    first = records.visit == 0
    event = found["hf_event"][first]
    assert 0.01 < event.mean() < 0.04
    for name in ("hypertension", "infarct"):
        share = event[found[name][first] > 0].mean()
        assert 0.02 <= share <= 0.045, f"{name}: {share}"
        assert share > event[found[name][first] == 0].mean()


def test_a_heart_fails_once_and_after_the_last_visit(records):
    found = outcomes(0, records)
    assert (found["hf_days"] > 0).all()
    end = records.labels["age"] * YEAR + found["hf_days"]
    for name, values in {"event": found["hf_event"], "end": end}.items():
        low, high = (np.full(PATIENTS, sign * np.inf) for sign in (1, -1))
        np.minimum.at(low, records.patient, values)
        np.maximum.at(high, records.patient, values)
        assert (high - low).max() <= 1, name  # days are whole


def test_risk_lies_in_what_the_ecg_shows(records):
    failed = outcomes(0, records)["hf_event"] > 0
    assert records.labels["mpcwp"][failed].mean() > records.labels["mpcwp"][~failed].mean() + 5
    assert records.labels["lvef"][failed].mean() < records.labels["lvef"][~failed].mean() - 5


def test_outcomes_and_reports_do_not_depend_on_how_many_there_are(records):
    few = drawn(40)
    count = len(few.patient)
    for make in (outcomes, reports):
        more, fewer = make(0, records), make(0, few)
        for name, values in fewer.items():
            np.testing.assert_array_equal(more[name][:count], values, err_msg=name)
    assert (reports(1, few)["report"] != reports(0, few)["report"]).any()


def test_readers_write_most_of_what_is_there_and_little_else(records):
    codes = [parse_scp(str(text)) for text in reports(0, records)["scp_codes"]]
    af = records.labels["af"] > 0
    says = np.array(["AFIB" in one for one in codes])
    margin = 4 * np.sqrt(0.25 / af.sum())
    assert abs(says[af].mean() - SEEN) < margin
    assert abs(says[~af].mean() - IMAGINED) < margin
    for one in codes:
        assert set(one) <= set(STATEMENTS)
        assert len({"AFIB", "SR", "SBRAD"} & set(one)) <= 1 or {"SR", "SBRAD"} <= set(one)
        rhythms = {finding.code for finding in FINDINGS if finding.rhythm}
        assert all((likelihood == 0) == (code in rhythms) for code, likelihood in one.items())
        assert (NORMAL.code in one) == (not set(one) - rhythms - {NORMAL.code})


def test_reports_say_the_same_in_many_words(records):
    written = reports(0, records)
    assert all(len(text) > 1 for text in written["report"])
    alone = [
        text
        for text, codes in zip(written["report"], written["scp_codes"], strict=True)
        if set(parse_scp(str(codes))) == {"SR", "NORM"}
    ]
    assert len(set(alone)) > 30
