"""Biomarkers against how SYNTHETIC ECGs were made and what cardiologists said of real ones."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from ecgfast.config import LEADS, Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.data.synthetic_patients import WAVES, draw_records
from ecgfast.transforms import biomarkers as module
from ecgfast.transforms.biomarkers import BIOMARKERS, biomarkers
from ecgfast.transforms.delineate import delineate
from python_tests.conftest import shared_data

FS = 500.0


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the records of a module are made once, before it is on."""


def columns(ecg, fs=FS, leads=LEADS):
    found = biomarkers(torch.as_tensor(ecg), fs=fs, leads=leads)
    return dict(zip(BIOMARKERS, found.values.T, strict=True)), found.reasons


@pytest.fixture(scope="module")
def cohort():
    """SYNTHETIC records of another seed than thresholds were chosen on, and how they were made."""
    ecg, table = make_cohort(60, signal=Signal(fs=FS), seed=3)
    patient = np.array([int(name[1:]) for name in table["patient_id"]])
    made = draw_records(3, patient, table["visit"].astype(np.int64))
    return ecg, table, made, columns(ecg)[0]


def truth_of(made):
    """Intervals (ms) and axes (degrees) by the formulas of docs/synthetic.md.

    A bell's tangents meet its level 2 standard deviations from its middle; QRS is cut at 2.5.
    """
    at = {name: i for i, name in enumerate(WAVES)}
    centre, width = made.centre, made.width
    size = np.linalg.norm(made.vector, axis=2)

    def edge(wave, sds):
        return centre[:, at[wave]] + sds * width[:, at[wave]]

    on = np.minimum(edge("Q", -2.5), edge("R", -2.5))
    ends = [edge(wave, 2.5) for wave in ("R", "wall", "S")]
    ends.append(np.where(size[:, at["delay"]] > 0.1, edge("delay", 2.0), -1))
    end = np.max(ends, axis=0)
    t_end = np.cbrt(made.rr) * edge("T", 2 * 0.62)
    p_on, p_end = edge("P right", -2), edge("P left", 2)

    def axis(*waves):
        vector = sum(made.vector[:, at[w]] * width[:, at[w], None] for w in waves)
        one, two = np.einsum("nla,na->ln", made.field[:, :2], vector)
        return np.degrees(np.arctan2(2 / np.sqrt(3) * (two - one / 2), one))

    return {
        "heart_rate": 60 / made.rr,
        "p_duration": 1000 * (p_end - p_on),
        "pr_interval": 1000 * (on - p_on),
        "qrs_duration": 1000 * (end - on),
        "qt_interval": 1000 * (t_end - on),
        "p_axis": axis("P right", "P left"),
        "qrs_axis": axis("Q", "R", "wall", "S", "delay"),
        "t_axis": axis("T"),
    }


@pytest.mark.parametrize(
    # the least correlation, most bias, most median error around the bias: 1/min, ms, degrees
    ("name", "correlation", "bias", "error"),
    [
        ("heart_rate", 0.97, 1.0, 1.0),
        ("pr_interval", 0.85, 6.0, 5.0),
        ("qrs_duration", 0.90, 6.0, 6.0),
        ("qt_interval", 0.93, 10.0, 6.0),
        ("qrs_axis", 0.97, 2.0, 3.0),
        ("t_axis", 0.95, 2.0, 3.0),
        ("p_duration", 0.40, 12.0, 8.0),  # its end lies beneath QRS where PR is short
        ("p_axis", 0.40, 6.0, 8.0),
    ],
)
def test_agrees_with_what_synthetic_records_were_made_from(cohort, name, correlation, bias, error):
    _, table, made, got = cohort
    expected = truth_of(made)[name]
    known = np.isfinite(got[name])
    if name.startswith("p"):
        known &= table["af"] == 0
    assert known.sum() > 0.75 * len(known)
    off = got[name][known] - expected[known]
    if "axis" in name:
        off = (off + 180) % 360 - 180
    assert np.corrcoef(got[name][known], expected[known])[0, 1] > correlation
    assert abs(np.median(off)) < bias
    assert np.median(np.abs(off - np.median(off))) < error


def test_p_is_not_there_in_fibrillation_and_is_there_in_sinus_rhythm(cohort):
    _, table, _, got = cohort
    ill = table["af"] == 1
    assert ill.sum() >= 5
    assert np.isnan(got["p_duration"][ill]).mean() > 0.8
    assert np.isfinite(got["p_duration"][~ill]).mean() > 0.9
    assert np.array_equal(np.isnan(got["p_duration"]), np.isnan(got["pr_interval"]))
    assert np.nanmedian(got["rr_sd"][ill]) > 2 * np.nanmedian(got["rr_sd"][~ill])


def triangle(height, *, begin, end, peak, fs=FS, seconds=10, rr=1.0):
    """Waves of straight lines once a beat: what every number must be is known exactly."""
    t = (np.arange(round(seconds * fs)) / fs) % rr - 0.5
    return height * np.interp(t, [begin, peak, end], [0, 1, 0], left=0, right=0)


def beat_of_lines():
    """SYNTHETIC: P -180 to -80 ms, QRS -40 to 40 ms, T 160 to 320 ms around R, 60 a minute."""
    p = triangle(0.15, begin=-0.18, end=-0.08, peak=-0.13)
    qrs = triangle(1.0, begin=-0.04, end=0.04, peak=0.0)
    t = triangle(0.3, begin=0.16, end=0.32, peak=0.25)
    one, two = p + 1.0 * qrs + 0.5 * t, p + 0.9 * qrs + 0.6 * t
    chest = {"V1": -1.2, "V2": -0.8, "V3": -0.7, "V4": 0.9, "V5": 1.4, "V6": 1.3}
    leads = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    leads += [0.5 * p + k * qrs + 0.4 * t for k in chest.values()]
    noise = 0.002 * np.random.default_rng(0).standard_normal((12, len(p)))
    return (np.stack(leads) + noise)[None].astype(np.float32)


def test_numbers_of_a_beat_that_is_drawn_with_a_ruler():
    got, reasons = columns(beat_of_lines())
    assert reasons == [""]
    value = {name: float(x[0]) for name, x in got.items()}
    assert value["heart_rate"] == pytest.approx(60, abs=0.1)
    assert value["rr_sd"] == pytest.approx(0, abs=2.5)
    assert value["p_duration"] == pytest.approx(100, abs=12)
    assert value["pr_interval"] == pytest.approx(140, abs=12)
    assert value["qrs_duration"] == pytest.approx(80, abs=24)  # corners are smoothed: 4 ms SD
    assert value["qt_interval"] == pytest.approx(360, abs=15)
    assert value["qtc_fridericia"] == pytest.approx(value["qt_interval"], rel=0.01)
    for name, (one, foot) in {"qrs_axis": (1.0, 0.4), "t_axis": (0.5, 0.35)}.items():
        expected = np.degrees(np.arctan2(2 / np.sqrt(3) * foot, one))
        assert value[name] == pytest.approx(expected, abs=3)
    apart = value["t_axis"] - value["qrs_axis"]
    assert value["qrs_t_angle"] == pytest.approx(abs(apart))
    assert value["sokolow_lyon"] == pytest.approx(1.2 + 1.4, rel=0.08)
    assert value["cornell"] == pytest.approx(0.7 + 0.55, rel=0.08)
    assert value["st_v5"] == pytest.approx(0, abs=0.03)
    assert value["t_v5"] == pytest.approx(0.4 * 0.3, abs=0.03)


def test_records_do_not_mix_and_leads_may_stand_in_any_order(cohort):
    ecg = cohort[0][:3]
    whole, _ = columns(ecg)
    alone, _ = columns(ecg[1:2])
    order = np.random.default_rng(1).permutation(12)
    turned, _ = columns(ecg[:, order], leads=[LEADS[i] for i in order])
    for name, got in whole.items():
        assert np.array_equal(got[1:2], alone[name], equal_nan=True), name
        np.testing.assert_allclose(turned[name], got, rtol=1e-6, atol=1e-4, err_msg=name)


def test_voltages_scale_and_times_do_not(cohort):
    ecg = cohort[0][:4]
    one, _ = columns(ecg)
    twice, _ = columns(2 * ecg)
    for name, unit in BIOMARKERS.items():
        known = np.isfinite(one[name]) & np.isfinite(twice[name])
        assert known.any()
        factor = 2 if unit == "mV" else 1
        np.testing.assert_allclose(twice[name][known], factor * one[name][known], rtol=1e-3)


def test_lower_rates_agree_with_500_hz(cohort):
    _, _, _, at_500 = cohort
    ecg, _ = make_cohort(60, signal=Signal(fs=250.0), seed=3)
    got, _ = columns(ecg, fs=250.0)
    for name in ("heart_rate", "pr_interval", "qrs_duration", "qt_interval", "qrs_axis"):
        off = got[name] - at_500[name]
        assert np.nanmedian(np.abs(off)) < 4, name


def test_records_of_no_use_say_why(cohort):
    ecg = np.stack([cohort[0][0]] * 5)
    ecg[1, 3, 700] = np.nan
    ecg[2] = 0.3
    ecg[3] = 0
    ecg[4, :, 1500:] = ecg[4, :, 1500:1501]  # 3 s of beats, then nothing
    got, reasons = columns(ecg)
    assert reasons == ["", "missing_samples", "flat", "flat", "few_beats"]
    values = np.stack(list(got.values()))
    assert np.isnan(values[:, 1:]).all()
    assert np.isfinite(values[:, 0]).all()


def test_what_needs_an_absent_lead_is_missing_and_the_rest_is_there(cohort):
    names = ("I", "II", "V1", "V6")
    got, _ = columns(cohort[0][:2, [LEADS.index(name) for name in names]], leads=names)
    for name in ("cornell", "st_v5", "t_v5", "sokolow_lyon"):
        assert np.isnan(got[name]).all(), name
    for name in ("heart_rate", "qrs_duration", "qrs_axis"):
        assert np.isfinite(got[name]).all(), name


def test_a_beat_without_a_qrs_has_no_waves():
    flat = np.zeros((12, 550))
    assert np.isnan(delineate(flat, (flat, flat), before=200, rr=1.0)).all()


def test_noise_has_no_waves():
    draw = np.random.default_rng(0)
    got, _ = columns(0.3 * draw.standard_normal((6, 12, 5000)).astype(np.float32))
    assert np.isnan(got["pr_interval"]).sum() >= 5
    assert np.isnan(got["qt_interval"]).sum() >= 5


@pytest.mark.parametrize(
    ("shape", "words", "message"),
    [
        ((12, 5000), {}, r"must be \(N, L, T\) of 12 leads, got \(12, 5000\)"),
        ((1, 8, 5000), {}, "of 12 leads"),
        ((1, 12, 5000), {"fs": 90.0}, "100 Hz or more to measure a beat, got 90"),
        ((1, 1, 5000), {"leads": ("II",)}, "axes need leads I and II, I is not there"),
    ],
)
def test_refuses(shape, words, message):
    with pytest.raises(ValueError, match=message):
        columns(np.zeros(shape, np.float32), **words)


def test_agrees_with_what_cardiologists_wrote_of_real_records():
    pandas = pytest.importorskip("pandas")
    wfdb = pytest.importorskip("wfdb")
    root = shared_data("ptb-xl-500")
    table = pandas.read_csv(root / "ptbxl_database.csv")
    said = table["scp_codes"].str
    codes = ("1AVB", "CLBBB", "CRBBB", "LVH", "LAFB", "AFIB", "LNGQT")
    some = said.contains("|".join(f"'{code}'" for code in codes))
    normal = table[said.contains("'NORM'") & said.contains("'SR'")].index[:60]
    table = table.loc[table.index[some].union(normal)]
    ecg = [wfdb.rdrecord(str(root / name)).p_signal.T for name in table["filename_lr"]]
    got, reasons = columns(np.stack(ecg).astype(np.float32), fs=100.0)
    assert not any(reasons)

    def median(name, code):
        chosen = table["scp_codes"].str.contains(f"'{code}'").to_numpy()
        return np.nanmedian(got[name][chosen])

    assert median("pr_interval", "1AVB") > 200 > 180 > median("pr_interval", "NORM") > 120
    assert 110 > median("qrs_duration", "NORM") > 70
    assert min(median("qrs_duration", code) for code in ("CLBBB", "CRBBB")) > 120
    assert median("sokolow_lyon", "LVH") > 3.5 > 3.0 > median("sokolow_lyon", "NORM")
    assert median("qrs_axis", "LAFB") < -30 < 0 < median("qrs_axis", "NORM") < 90
    assert median("qtc_fridericia", "LNGQT") > 460 > 430 > median("qtc_fridericia", "NORM") > 350
    ill = table["scp_codes"].str.contains("'AFIB'").to_numpy()
    assert np.isnan(got["p_duration"][ill]).mean() > 0.7


def test_examples_run():
    assert doctest.testmod(module).failed == 0
