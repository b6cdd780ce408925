"""DeLong's test against its definition, with one and with several records a patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from ecgfast.eval import delong, differences, holm
from ecgfast.eval.delong import clustered_variance, placements

FEW = settings(max_examples=60, deadline=None)


def psi(label, score):
    """Every positive against every negative, ``(m, n)``: the definition."""
    x, y = score[label == 1][:, None], score[label == 0][None]
    return (x > y) + 0.5 * (x == y)


def brute_variance(v10, v01, label, patient):
    """Obuchowski's S10, S01 and S11, patient by patient, as the paper writes them."""
    m, n, theta = len(v10), len(v01), v10.mean()
    names = np.unique(patient)
    tens = {i: v10[patient[label == 1] == i] for i in names}
    ones = {i: v01[patient[label == 0] == i] for i in names}
    i10 = sum(len(v) > 0 for v in tens.values())
    i01 = sum(len(v) > 0 for v in ones.values())
    of = {i: (tens[i].sum() - len(tens[i]) * theta) for i in names}
    against = {i: (ones[i].sum() - len(ones[i]) * theta) for i in names}
    s10 = i10 / ((i10 - 1) * m) * sum(v**2 for v in of.values())
    s01 = i01 / ((i01 - 1) * n) * sum(v**2 for v in against.values())
    s11 = len(names) / (len(names) - 1) * sum(of[i] * against[i] for i in names)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@st.composite
def clustered(draw):
    n = draw(st.integers(4, 40))
    label = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1))).astype(float)
    label[:4] = [0, 0, 1, 1]
    score = draw(hnp.arrays(np.int64, (2, n), elements=st.integers(-4, 4))) / 3
    patient = draw(hnp.arrays(np.int64, n, elements=st.integers(0, n)))
    patient[:4] = [100, 101, 102, 103]
    return label, score, patient


@FEW
@given(clustered())
def test_midranks_give_the_placements_and_sums_over_patients_the_variance(case):
    label, (first, second), patient = case
    both = [placements(label, score) for score in (first, second)]
    for (v10, v01), score in zip(both, (first, second), strict=True):
        pairs = psi(label, score)
        np.testing.assert_allclose(v10, pairs.mean(axis=1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(v01, pairs.mean(axis=0), rtol=0, atol=1e-12)
        expected = brute_variance(pairs.mean(axis=1), pairs.mean(axis=0), label, patient)
        found = clustered_variance(v10, v01, label, patient)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)
    apart = [a - b for a, b in zip(*both, strict=True)]
    difference = psi(label, first) - psi(label, second)
    expected = brute_variance(difference.mean(axis=1), difference.mean(axis=0), label, patient)
    found = clustered_variance(*apart, label, patient)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_small_table_by_hand():
    # positives 3, 2, 1; negatives 0, 2: psi rows (1, 1), (1, 1/2), (1, 0)
    label, score = np.array([1.0, 1, 1, 0, 0]), np.array([3.0, 2, 1, 0, 2])
    v10, v01 = placements(label, score)
    assert v10.tolist() == [1, 0.75, 0.5]
    assert v01.tolist() == [1, 0.5]
    # S10 = (1/16 + 0 + 1/16) / 2 = 1/16; S01 = 1/16 + 1/16 = 1/8
    assert clustered_variance(v10, v01, label, np.arange(5)) == pytest.approx(1 / 48 + 1 / 16)


def cohort(patients, visits, seed, *, gain=0.0, label_of="patient"):
    """Two scores of records, both with an error that belongs to the patient."""
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    truth = draw.normal(size=patients)[patient] + 0.5 * draw.normal(size=len(patient))
    label = (truth > 0).astype(float)
    shared = draw.normal(size=patients)[patient]
    scores = [
        truth
        + shared
        + 0.7 * draw.normal(size=patients)[patient]
        + 0.4 * draw.normal(size=len(patient))
        for _ in range(2)
    ]
    return label, scores[0] + gain * truth, scores[1], patient


def test_one_record_a_patient_is_the_test_of_1988():
    label, a, b, patient = cohort(90, 1, 0, gain=0.5)
    pairs = [psi(label, score) for score in (a, b)]
    tens = np.cov([p.mean(axis=1) for p in pairs])
    ones = np.cov([p.mean(axis=0) for p in pairs])
    both = tens / (label == 1).sum() + ones / (label == 0).sum()
    z = (pairs[0].mean() - pairs[1].mean()) / math.sqrt(both[0, 0] + both[1, 1] - 2 * both[0, 1])
    found = delong(label, a, b, patient)
    assert found["z"] == pytest.approx(z, rel=1e-9)
    assert found["p"] == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    reach = stats.norm.ppf(0.975) * found["se"]
    assert (found["lo"], found["hi"]) == pytest.approx(
        (found["estimate"] - reach, found["estimate"] + reach)
    )
    assert delong(label, b, a, patient)["p"] == pytest.approx(found["p"])


def test_copies_of_a_patient_are_no_evidence():
    label, a, b, patient = cohort(60, 2, 1, gain=0.3)
    once = delong(label, a, b, patient)
    copied = [np.tile(x, 5) for x in (label, a, b, patient)]
    assert delong(*copied)["se"] == pytest.approx(once["se"], rel=1e-9)
    naive = delong(*copied[:3], np.arange(len(copied[0])))
    assert naive["se"] < 0.6 * once["se"]


def test_the_level_is_kept_when_patients_have_several_records():
    kept = naive = 0
    cohorts = 400
    for seed in range(cohorts):
        label, a, b, patient = cohort(60, 4, 10_000 + seed)
        kept += delong(label, a, b, patient)["p"] < 0.05
        naive += delong(label, a, b, np.arange(len(label)))["p"] < 0.05
    # five standard errors of a count at 5 %, and one record as one patient far beyond
    assert abs(kept - 0.05 * cohorts) < 5 * math.sqrt(cohorts * 0.05 * 0.95)
    assert naive > 0.15 * cohorts


def test_it_agrees_with_the_bootstrap():
    label, a, b, patient = cohort(150, 3, 3, gain=0.6)
    found = delong(label, a, b, patient)
    (drawn,) = differences("classification", label, [a], [b], patient, names=("auroc",))
    assert drawn["estimate"] == pytest.approx(found["estimate"], abs=1e-12)
    assert (found["hi"] - found["lo"]) == pytest.approx(drawn["hi"] - drawn["lo"], rel=0.15)
    assert (found["p"] < 0.05) == (drawn["p"] < 0.05)


def test_what_no_test_can_be_made_of_has_its_reason():
    label, a, b, patient = cohort(40, 1, 4)
    assert delong(label, a, 3 * a + 1, patient)["reason"] == "both scores rank these records alike"
    assert delong(np.ones(40), a, b, patient)["reason"] == "no record has label 0"
    few = delong(label[:9], a[:9], b[:9], patient[:9])
    assert few["p"] is None
    assert few["reason"].startswith("a test needs 10 patients, 5 of a class; here 9, ")
    with pytest.raises(ValueError, match="1 of 40 scores are not finite"):
        delong(label, a, np.where(patient == 3, np.nan, b), patient)


@FEW
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_is_the_step_down_rule(p):
    found = holm(p)
    tested = [value for value in p if value is not None]
    for value, adjusted in zip(p, found, strict=True):
        if value is None:
            assert adjusted is None
            continue
        # rejected at a level if every smaller one passes its own step
        steps = [(len(tested) - rank) * v for rank, v in enumerate(sorted(tested)) if v <= value]
        ranked = sorted(tested).index(value)
        assert adjusted >= min(1, max(steps[: ranked + 1])) - 1e-12
        assert value <= adjusted <= 1
    order = [found[i] for i in sorted(range(len(p)), key=lambda i: (p[i] is None, p[i] or 0))]
    known = [v for v in order if v is not None]
    assert known == sorted(known)
