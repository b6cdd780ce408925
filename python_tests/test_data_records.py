"""Lead names, units, ids, and what int16 keeps of a signal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgfast.config import LEADS
from ecgfast.data.records import (
    Issue,
    age_years,
    identifier,
    lead_name,
    millivolts_per,
    printable,
    sex_code,
)
from ecgfast.data.store_format import NAN, quantise, restore


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("AVR", "aVR"),
        ("i", "I"),
        ("Lead I (Einthoven)", "I"),
        ("MDC_ECG_LEAD_AVF", "aVF"),
        ("ECG Lead V1", "V1"),
        (" v 6 ", "V6"),
        ("ECG_II", "II"),
        ("DIII", "III"),
        ("5.6.3-9-62", "aVR"),
        ("5.6.3-9-8", "V6"),
    ],
)
def test_spellings_of_a_lead(text, name):
    assert lead_name(text) == name


@pytest.mark.parametrize(
    "text", ["MLII", "V", "V7", "-aVR", "ECG 1", "I-V1", "", "lead", "vx", "I" * 100, "5.6.3-9-99"]
)
def test_what_resembles_a_lead_is_none(text):
    assert lead_name(text) is None


@given(
    st.sampled_from(LEADS),
    st.sampled_from(["", "lead ", "ECG_", "MDC_ECG_LEAD_", "ekg lead "]),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from(["", " ", " (Goldberger)", "_"]),
)
def test_case_and_surroundings_do_not_matter(lead, before, upper, after):
    cased = "".join(c.upper() if up else c.lower() for c, up in zip(lead, upper, strict=False))
    assert lead_name(before + cased + after) == lead


@given(st.text(max_size=120))
def test_any_text_is_a_lead_or_none_and_prints_on_one_line(text):
    assert lead_name(text) in {None, *LEADS}
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mV", 1), ("MV", 1), ("uV", 1e-3), ("µV", 1e-3), ("μV", 1e-3), ("V", 1e3), ("nV", 1e-6)],
)
def test_units_by_their_name(unit, factor):
    assert millivolts_per(unit) == factor


@pytest.mark.parametrize("unit", ["NU", "mmHg", "", "adu", "Ohm", "mVs", "v/v"])
def test_other_units_are_no_voltage(unit):
    assert millivolts_per(unit) is None


def test_ids_ages_and_sexes():
    assert [identifier(x) for x in ("15709.0", 17, " a7 ", "nan", None)] == [
        "15709",
        "17",
        "a7",
        "",
        "",
    ]
    assert identifier("1.25") == "1.25"
    assert (age_years("300"), age_years("56.0")) == (90, 56)
    assert np.isnan([age_years("NaN"), age_years("-1"), age_years("150")]).all()
    assert [sex_code(x) for x in ("Male", "F", "1", "0")] == [1, 0, 1, 0]
    assert [sex_code(x, male="0") for x in ("0", "1", "0.0")] == [1, 0, 1]
    assert np.isnan(sex_code("2"))


def test_an_issue_prints_what_where_how_many():
    issue = Issue("nan_values", "error", "lead V3", 412, 5000, "412 of 5000 samples are NaN")
    assert issue.line("17") == "error[nan_values] rec 17 lead V3: 412 of 5000 samples are NaN"
    assert Issue("x", "note", message="a\x1b[2Jb\n").line() == "note[x] a\\x1b[2Jb\\x0a"


signals = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")),
)


@given(signals)
def test_int16_is_off_by_half_a_step_at_most(ecg):
    steps, gain = quantise(ecg)
    back = restore(steps, gain)
    assert steps.dtype == np.int16
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(back), np.isnan(ecg))
    np.testing.assert_array_equal(steps == NAN, np.isnan(ecg))
    peak = np.nanmax(np.abs(ecg), initial=0.0)
    # half a step, and the float32 it is given back in: two roundings of the largest sample
    allowed = gain / 2 + 2 * np.spacing(np.float32(peak)).astype(np.float64)
    assert np.nanmax(np.abs(back.astype(np.float64) - ecg), initial=0.0) <= allowed
    if peak > 1e-30:
        assert np.abs(steps[~np.isnan(ecg)]).max() == 32767  # the whole range is used


def test_nothing_but_gaps_and_nothing_but_zeros_survive():
    for value in (0.0, np.nan):
        steps, gain = quantise(np.full((2, 3), value))
        assert gain > 0
        np.testing.assert_array_equal(restore(steps, gain), np.full((2, 3), value))
