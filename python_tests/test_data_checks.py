"""Checks: each names what it is for, with its numbers, and stays silent on a sound record."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.config import LEADS, Signal
from ecgfast.data.checks import MEANING, apply_policy, check, parse_policy, relation_errors
from ecgfast.data.conform import conform, fill_gaps, resample, window
from ecgfast.data.records import ECG, DataError, Issue

FS = 250.0


def make(seed=0, length=2500, leads=LEADS) -> ECG:
    """SYNTHETIC walks that obey Einthoven, with offsets as amplifiers have them."""
    draw = np.random.default_rng(seed)
    free = draw.normal(size=(8, length)).cumsum(axis=1) * 0.02
    one, two, *chest = free - free.mean(axis=1, keepdims=True) + draw.normal(size=(8, 1)) * 0.2
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    everything = dict(zip(LEADS, [*limb, *chest], strict=True))
    signal = np.stack([everything[name] for name in leads])
    return ECG(signal=signal, leads=leads, fs=FS, record_id="r")


def names(ecg, **how):
    return [issue.name for issue in check(ecg, LEADS, **how)]


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_sound_record_has_no_issue(seed):
    assert names(make(seed)) == []


def test_order_of_leads_does_not_matter():
    assert names(make(1, leads=LEADS[::-1])) == []


@pytest.mark.parametrize(("a", "b"), [*combinations(range(6), 2)])
def test_any_two_limb_leads_exchanged_are_named(a, b):
    ecg = make(2)
    ecg.signal[[a, b]] = ecg.signal[[b, a]]
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.severity) == ("lead_relation", "error")
    # two exchanges can fit equally: I with aVR mirrored; what is said must mend it
    assert "exchanged" in issue.message


@pytest.mark.parametrize(
    ("order", "sign", "said"),
    [
        ((0, 1, 2, 4, 5, 3), 1, "in the order aVL, aVF, aVR"),
        ((0, 1, 2, 5, 3, 4), 1, "in the order aVF, aVR, aVL"),
        ((0, 1, 2, 3, 4, 5), -1, "if aVR is inverted"),
    ],
)
def test_other_mix_ups_are_named(order, sign, said):
    ecg = make(3)
    ecg.signal[:6] = ecg.signal[list(order)]
    ecg.signal[3] *= sign
    (issue,) = check(ecg, LEADS)
    assert said in issue.message


def test_relations_that_nothing_explains_are_a_warning():
    ecg = make(4)
    ecg.signal[2] += np.random.default_rng(0).normal(size=2500)
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.severity, issue.place) == ("lead_relation", "warning", "lead III")


def test_relation_errors_are_zero_when_they_hold():
    ecg = make(5).signal
    limb = ecg[:6] - ecg[:6].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(relation_errors(limb), 0, atol=1e-12)
    limb[4] = -limb[4]
    np.testing.assert_allclose(relation_errors(limb), [0, 0, 2, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("factor", "severity", "said"),
    [
        (1e3, "error", "looks like microvolts: --units uV"),
        (1e-3, "error", "looks like volts: --units V"),
        (60.0, "error", "saturated, or a wrong gain"),
        (0.015, "warning", "a very low voltage"),
    ],
)
def test_units_are_told_by_the_size(factor, severity, said):
    ecg = make(6)
    peak = np.median(np.quantile(np.abs(ecg.signal - np.median(ecg.signal, 1)[:, None]), 0.999, 1))
    ecg.signal *= factor / peak
    issue = next(i for i in check(ecg, LEADS) if i.name == "unit_suspect")
    assert issue.severity == severity
    assert said in issue.message


def test_one_bad_electrode_is_no_wrong_unit():
    ecg = make(7)
    ecg.signal[9] *= 1000
    assert names(ecg) == ["amplitude_outlier"]


def test_gaps_are_counted_per_lead_and_an_empty_lead_is_missing():
    ecg = make(8)
    ecg.signal[8, 100:512] = np.nan
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.place, issue.count, issue.total) == (
        "nan_values",
        "lead V3",
        412,
        2500,
    )
    ecg.signal[8] = np.nan
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.count) == ("missing_leads", 1)


def test_leads_that_can_be_derived_are_said_so():
    (issue,) = check(make(9, leads=("I", "II", *LEADS[6:])), LEADS)
    assert "can be derived exactly: --derive-leads" in issue.message
    (issue,) = check(make(9, leads=LEADS[1:]), LEADS)
    assert "--derive-leads" not in issue.message


def test_flat_leads_and_a_dead_record():
    ecg = make(10)
    ecg.signal[[4, 7]] = 0.5
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.severity, issue.place) == ("flat_line", "warning", "lead aVL V2")
    ecg.signal[:] = 0
    (issue,) = check(ecg, LEADS)
    assert (issue.name, issue.severity) == ("flat_line", "error")


def test_a_rest_at_the_top_is_saturation_and_a_short_one_is_not():
    for rest, found in ((100, ["saturation"]), (40, [])):
        ecg = make(11)
        ecg.signal[7, 500 : 500 + rest] = ecg.signal[7].max() + 1
        assert names(ecg) == found


def test_a_demanded_rate_is_demanded():
    assert names(make(12), fs=500) == ["fs_mismatch"]


def test_policies():
    error, warning = Issue("nan_values", "error"), Issue("flat_line", "warning")
    assert apply_policy([error, warning], {}) == ([error], [warning])
    policy = parse_policy(["nan_values=keep", "flat_line=reject"])
    assert apply_policy([error, warning], policy) == ([warning], [error])
    for wrong in ("nan=keep", "nan_values=drop", "truncated_signal=keep", ""):
        with pytest.raises(DataError, match="policy"):
            parse_policy([wrong])
    assert all(meaning for meaning in MEANING.values())


@given(st.integers(1, 40), st.integers(1, 40))
def test_gaps_are_bridged_up_to_their_length(gap, longest):
    ecg = make(13)
    ecg.signal[3, 200 : 200 + gap] = np.nan
    filled = fill_gaps(ecg, longest * 1000 / FS + 1)
    assert np.isfinite(filled.signal).all() == (gap <= longest)


@pytest.mark.parametrize("fs", [100, 128, 257, 360, 500, 1000])
def test_resampling_keeps_a_slow_wave_and_its_place(fs):
    t = np.arange(10 * fs) / fs
    wave = np.sin(2 * np.pi * 7 * t) + 3  # an offset must not ring at the ends
    out = resample(wave[None], fs, 250)[0]
    at = np.arange(len(out)) / 250
    inside = slice(50, -50)
    np.testing.assert_allclose(out[inside], np.sin(2 * np.pi * 7 * at[inside]) + 3, atol=2e-3)


@pytest.mark.parametrize("hz", [126, 140, 180, 230])
def test_nothing_above_the_new_half_comes_back_down(hz):
    t = np.arange(5000) / 500
    out = resample(np.sin(2 * np.pi * hz * t)[None], 500, 250)[0]
    assert np.abs(out[250:-250]).max() < 10 ** (-78 / 20)


def test_a_gap_does_not_spread_in_resampling():
    ecg = make(14, length=5000)
    with_gap = ecg.signal.copy()
    with_gap[2, 1000:1100] = np.nan
    whole, out = resample(ecg.signal, 500, 250), resample(with_gap, 500, 250)
    assert np.flatnonzero(np.isnan(out[2])).tolist() == [*range(500, 550)]
    far = np.r_[0:450, 600:2500]
    np.testing.assert_allclose(out[:, far], whole[:, far], atol=1e-6)


@pytest.mark.parametrize("crop", ["first", "centre"])
@pytest.mark.parametrize("fs", [250.0, 500.0, 360.0])
def test_a_crop_is_the_part_of_the_whole(crop, fs):
    ecg = make(15, length=int(40 * fs))
    ecg.fs = fs
    signal = Signal(fs=250, seconds=4)
    kept, wider = window(ecg, signal, crop=crop)
    assert kept.signal.shape[1] == 4 * fs
    out, valid, issues = conform(wider, signal)
    whole = resample(ecg.signal, fs, 250)
    begin = 0 if crop == "first" else 18 * 250
    # the margin is longer than the filter, so that only rounding differs, but at a true end
    inside = slice(100 if crop == "first" else 0, None)
    part = whole[:, begin : begin + 1000]
    np.testing.assert_allclose(out[:, inside], part[:, inside], atol=1e-9)
    assert (valid, issues) == (1000, [])


def test_a_short_record_is_followed_by_zeros():
    ecg = make(16, length=900)
    out, valid, (issue,) = conform(window(ecg, Signal())[1], Signal())
    assert (valid, issue.name, issue.severity, issue.count) == (
        900,
        "short_after_crop",
        "warning",
        900,
    )
    np.testing.assert_array_equal(out[:, :900], ecg.signal)
    assert not out[:, 900:].any()
