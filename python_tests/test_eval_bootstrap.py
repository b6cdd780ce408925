"""Draws of patients: what they depend on, what they cover, what they refuse to bound."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.eval import bootstrap, classification
from ecgfast.eval.bootstrap import checked, interval, replicate, row

LEVEL = 0.95


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_a_draw_takes_whole_patients():
    patient = np.array(["b", "a", "b", "c", "a", "b"])
    seen = []

    def keep(weights):
        seen.append(weights)
        return {"n": weights.sum(axis=1)}

    replicate(keep, patient, draws=60, seed=3)
    weights = np.concatenate(seen)
    assert weights.shape == (60, 6)
    for name in "abc":
        of_one = weights[:, patient == name]
        assert (of_one == of_one[:, :1]).all()
    first_of_each = weights[:, [1, 0, 3]]
    assert (first_of_each.sum(axis=1) == 3).all()
    assert len(np.unique(first_of_each, axis=0)) > 5


def test_draws_follow_the_multinomial():
    patient = np.arange(20)
    taken = replicate(lambda w: {"w": w}, patient, draws=4000, seed=0)["w"]
    variance = 1 - 1 / 20  # of a count, by 20 draws of 20
    assert abs(taken.mean() - 1) < 1e-12
    assert np.abs(taken.mean(axis=0) - 1).max() < 5 * np.sqrt(variance / 4000)
    assert abs(taken.var() - variance) < 0.02
    covariance = np.cov(taken.T)[~np.eye(20, dtype=bool)].mean()
    assert abs(covariance + 1 / 20) < 0.005


def test_same_seed_same_draws_and_more_draws_only_add():
    values, patient = np.arange(30.0), np.arange(30) // 2
    few = replicate(mean_of(values), patient, draws=30, seed=5)["mean"]
    many = replicate(mean_of(values), patient, draws=90, seed=5)["mean"]
    other = replicate(mean_of(values), patient, draws=30, seed=6)["mean"]
    np.testing.assert_array_equal(few, many[:30])
    assert (few != other).any()


def test_a_copy_of_every_record_narrows_only_the_naive_interval():
    draw = np.random.default_rng(0)
    values, patient = draw.normal(size=80), np.arange(80)
    twice = [np.tile(values, 4), np.tile(patient, 4)]
    width = np.ptp(replicate(mean_of(values), patient, seed=1)["mean"])
    clustered = np.ptp(replicate(mean_of(twice[0]), twice[1], seed=1)["mean"])
    naive = np.ptp(replicate(mean_of(twice[0]), np.arange(320), seed=1)["mean"])
    assert clustered == pytest.approx(width)
    assert naive < 0.7 * width


def test_interval_is_the_quantiles_and_its_mirror():
    values = np.arange(101.0)
    assert interval(40.0, values, level=0.9)[:2] == pytest.approx((5, 95))
    assert interval(40.0, values, level=0.9, pivotal=True)[:2] == pytest.approx((-15, 75))


def test_undefined_draws_are_left_out_but_not_many_of_them():
    values = np.arange(100.0)
    values[:5] = np.nan
    lo, hi, reason = interval(50.0, values)
    assert (lo, hi) == pytest.approx((5 + 0.025 * 94, 5 + 0.975 * 94))
    assert reason is None
    values[5] = np.nan
    assert interval(50.0, values) == (None, None, "undefined in 6 of 100 draws")


def test_what_cannot_be_bounded_is_null_with_a_reason():
    many, ids = np.linspace(0, 1, 50), np.arange(40)
    assert row("x", 0.5, many, ids)["lo"] is not None
    cases = {
        "an interval needs 10 patients, 9 here": row("x", 0.5, many, ids[:9]),
        "an interval needs 5 patients of a class, here 3 with label 1": row(
            "x", 0.5, many, ids, support={"label 1": 3, "label 0": 37}
        ),
        "all draws give 1: the bootstrap cannot bound it": row("x", 1.0, np.ones(50), ids),
        "so it is": row("x", np.nan, many, ids, undefined="so it is"),
    }
    for reason, line in cases.items():
        assert line["reason"] == reason
        assert line["lo"] is None
        assert line["hi"] is None
    assert cases["so it is"]["estimate"] is None


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([], [], "no records to score"),
        ([0, 1], [0.1], r"must be \(N,\) each, got \(2,\), \(1,\), \(2,\)"),
        ([0, 1, 1], [0.1, np.nan, np.inf], r"2 of 3 scores are not finite \(first: row 1"),
        ([0, np.nan], [0.1, 0.2], r"1 of 2 labels are not finite \(first: row 1, patient 1"),
        ([0, 2, 1], [0.1, 0.2, 0.3], r"1 of 3 labels are not 0 or 1 \(first: row 1 has 2\)"),
    ],
)
def test_bad_arrays_are_refused_by_what_where_and_how_many(label, score, message):
    with pytest.raises(ValueError, match=message):
        checked(label, score, np.arange(len(label)), classes=True)


def test_refuses_to_draw_nothing():
    with pytest.raises(ValueError, match="no records"):
        replicate(mean_of(np.zeros(0)), np.zeros(0))
    with pytest.raises(ValueError, match="draws must be positive, got 0"):
        replicate(mean_of(np.zeros(3)), np.zeros(3), draws=0)


@pytest.mark.slow
def test_patients_drawn_whole_cover_the_truth_and_records_drawn_alone_do_not():
    """Simulated cohorts in which a patient's records share most of what makes a score wrong."""
    cohorts, patients, visits, draws = 600, 120, 6, 400
    truth = 0.7602499389065233  # P(N(1, 2) > 0), two scores that differ by 1 with variance 1 each
    draw = np.random.default_rng(20)
    covered = {"patients": 0, "records": 0}
    patient = np.repeat(np.arange(patients), visits)
    for cohort in range(cohorts):
        label = np.repeat(draw.random(patients) < 0.4, visits).astype(np.float64)
        own = np.repeat(draw.normal(size=patients), visits) * np.sqrt(0.8)
        score = label + own + draw.normal(size=len(label)) * np.sqrt(0.2)
        of = classification.Curve(label, score)

        def area(weights, of=of):
            return {"auroc": classification.auroc(*of(weights))}

        for how, ids in (("patients", patient), ("records", np.arange(len(label)))):
            values = replicate(area, ids, draws=draws, seed=cohort)["auroc"]
            lo, hi, _ = interval(0.5, values)
            covered[how] += lo <= truth <= hi
    share = {how: hits / cohorts for how, hits in covered.items()}
    print(share)
    error = np.sqrt(LEVEL * (1 - LEVEL) / cohorts)
    # a percentile interval of 120 patients is a little narrow; four standard errors tell it apart
    assert abs(share["patients"] - LEVEL) < 4 * error, share
    assert share["records"] < 0.75, share


def test_blocks_do_not_show(monkeypatch):
    values, patient = np.arange(30.0), np.arange(30)
    whole = replicate(mean_of(values), patient, draws=bootstrap.BLOCK + 1, seed=5)["mean"]
    part = replicate(mean_of(values), patient, draws=bootstrap.BLOCK, seed=5)["mean"]
    np.testing.assert_array_equal(whole[:-1], part)
