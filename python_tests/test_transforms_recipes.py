"""Recipes against the chains they are named after, written here once more with other tools."""

from __future__ import annotations

import dataclasses
import doctest
import json
import math

import numpy as np
import pytest
import torch
from scipy import signal, stats

from ecgfast.testing import make_ecg
from ecgfast.transforms import recipes
from ecgfast.transforms.beats import r_peaks
from ecgfast.transforms.recipes import (
    RECIPES,
    Butterworth,
    Crop,
    MedianBaseline,
    MovingAverageFilter,
    Normalise,
    Notch,
    Pad,
    Recipe,
    Resample,
    Scale,
    preprocess,
)
from python_tests.conftest import shared_data

MEAN, STD = 0.01, 0.23  # a training set's, mV
TOLERANCE = 1e-6  # of the record's peak, by the issue


def rows(function, ecg):
    return np.apply_along_axis(function, -1, ecg)


def stretched(ecg, length):
    """Lines on a grid of as many points from the first sample to the last."""
    new, old = np.linspace(0, 1, length), np.linspace(0, 1, ecg.shape[-1])
    return rows(lambda lead: np.interp(new, old, lead), ecg)


def resampled(ecg, fs, target):
    common = math.gcd(fs, target)
    return signal.resample_poly(ecg, target // common, fs // common, axis=-1)


def default(ecg, fs):
    ecg = resampled(ecg, fs, 250)
    ecg = signal.sosfiltfilt(signal.butter(2, [0.5, 40], "band", fs=250, output="sos"), ecg)
    ecg = signal.filtfilt(*signal.iirnotch(50, 30, fs=250), ecg)
    return (ecg - MEAN) / STD


def ptbxl_benchmark(ecg, fs):
    return (resampled(ecg, fs, 100) - MEAN) / STD


def ecgfounder(ecg, fs, output="sos"):
    ecg = stretched(ecg, 5000)
    ecg = signal.filtfilt(*signal.iirnotch(50, 30, 500), ecg)
    made = signal.butter(4, [0.67, 40], "bandpass", fs=500, output=output)
    ecg = signal.sosfiltfilt(made, ecg) if output == "sos" else signal.filtfilt(*made, ecg)
    ecg = ecg - rows(lambda lead: signal.medfilt(lead, 201), ecg)
    mean, std = ecg.mean(axis=(1, 2), keepdims=True), ecg.std(axis=(1, 2), keepdims=True)
    return (ecg - mean) / (std + 1e-8)


def st_mem(ecg, fs):
    ecg = signal.resample(ecg, int(ecg.shape[-1] * 250 / fs), axis=-1)
    start = (ecg.shape[-1] - 2250) // 2
    ecg = ecg[..., start : start + 2250]
    ecg = signal.sosfiltfilt(signal.butter(5, 0.67, "highpass", fs=250, output="sos"), ecg)
    ecg = signal.sosfiltfilt(signal.butter(5, 40, "lowpass", fs=250, output="sos"), ecg)
    mean, std = ecg.mean(axis=(1, 2), keepdims=True), ecg.std(axis=(1, 2), keepdims=True)
    return (ecg - mean) / std


def neurokit(ecg, fs):
    neurokit2 = pytest.importorskip("neurokit2", reason="needs neurokit2, of the extra test")
    return rows(lambda lead: neurokit2.ecg_clean(lead, sampling_rate=fs, method="neurokit"), ecg)


def dual_attention(ecg, fs):
    ecg = neurokit(resampled(ecg, fs, 500), 500)
    beats = []
    for record in ecg:
        (peaks,) = r_peaks(torch.from_numpy(record)[None], fs=500, clean=False)
        whole = [record[:, p - 240 : p + 360] for p in peaks if 240 <= p <= record.shape[1] - 360]
        beats.append(np.median(whole, axis=0))
    return np.pad(np.nan_to_num(stats.zscore(beats, axis=-1)), [(0, 0), (0, 0), (4, 4)])


CHAINS = {
    "default": default,
    "ssldml": lambda ecg, fs: stretched(ecg, 2500),
    "pclr": lambda ecg, fs: stretched(ecg, 4096),
    "ptbxl_benchmark": ptbxl_benchmark,
    "ecgfounder": ecgfounder,
    "st_mem": st_mem,
    "neurokit": neurokit,
    "dual_attention": dual_attention,
}


def whole(name):
    """The recipe, with numbers of a training set if it wants some."""
    recipe = RECIPES[name]
    return recipe.scaled(MEAN, STD) if recipe.unscaled() != recipe else recipe


def assert_close(got, expected):
    assert got.shape == expected.shape
    peak = np.abs(expected).max(axis=(1, 2))
    error = np.abs(got.double().cpu().numpy() - expected).max(axis=(1, 2)) / peak
    assert error.max() <= TOLERANCE, f"error {error.max():.2e} of the peak"


def ptbxl(fs, count=6):
    wfdb = pytest.importorskip("wfdb")
    root = shared_data("ptb-xl-500")
    names = (root / f"RECORDS{fs}").read_text().split()
    chosen = names[:: len(names) // count][:count]
    return np.stack([wfdb.rdrecord(str(root / name)).p_signal.T for name in chosen])


def code15(count=6):
    wfdb = pytest.importorskip("wfdb")
    records = sorted(shared_data("code15-153", "records").glob("*.hea"))
    made = []
    for header in records:
        ecg = wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T
        if ecg.shape[1] >= 4000 and len(made) < count:
            made.append(ecg[:, :4000])
    return np.stack(made)


SETS = {
    "SYNTHETIC 500 Hz": (lambda: make_ecg(3, 12, 5000).numpy(), 500),
    "SYNTHETIC 257 Hz": (lambda: make_ecg(2, 12, 2570).numpy(), 257),
    "SYNTHETIC 1000 Hz": (lambda: make_ecg(2, 12, 10000).numpy(), 1000),
    "PTB-XL 500 Hz": (lambda: ptbxl(500), 500),
    "CODE-15 400 Hz": (code15, 400),
}


@pytest.mark.parametrize("records", SETS)
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_its_chain(name, records):
    make, fs = SETS[records]
    if name == "dual_attention" and records.startswith("SYNTHETIC"):
        pytest.skip("make_ecg has beats at another time in each lead")
    ecg = torch.from_numpy(make()).float()
    assert_close(preprocess(ecg, recipe=whole(name), fs=fs), CHAINS[name](ecg.double().numpy(), fs))


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"default", "neurokit", "ecgfounder"}))
def test_recipe_is_its_chain_at_100_hz(name):
    ecg = torch.from_numpy(ptbxl(100)).float()
    assert_close(
        preprocess(ecg, recipe=whole(name), fs=100), CHAINS[name](ecg.double().numpy(), 100)
    )


@pytest.mark.parametrize("name", RECIPES)
def test_reference_is_the_chain_too(name):
    ecg = ptbxl(500)
    expected = CHAINS[name](ecg, 500)
    got = whole(name).reference(ecg, 500)
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()


def test_ecgfounder_as_polynomials_is_the_same_but_for_their_rounding():
    """Its code has filtfilt(b, a), whose eight poles near one cost digits even in float64."""
    ecg = ptbxl(500)
    exact, published = ecgfounder(ecg, 500), ecgfounder(ecg, 500, output="ba")
    assert np.abs(published - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("fs", [100, 128, 250, 257, 360, 400, 500, 1000])
@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_sections_on_the_unit_circle_are_the_moving_average(fs, hz):
    ecg = make_ecg(1, 2, 5 * fs, dtype=torch.float64).numpy()
    taps = int(fs / hz)
    expected = signal.filtfilt(np.ones(taps), [taps], ecg) if taps > 1 else ecg
    got = Recipe("mine", "", (MovingAverageFilter(hz),)).reference(ecg, fs)
    assert np.abs(got - expected).max() <= 1e-12


def test_medians_of_200_and_600_ms_are_the_baseline():
    from scipy import ndimage

    ecg = make_ecg(2, 3, 5000)
    recipe = Recipe("medians", "", (MedianBaseline((0.2, 0.6)), Scale(1000.0)))
    twice = rows(lambda x: ndimage.median_filter(x, 101, mode="nearest"), ecg.double().numpy())
    twice = rows(lambda x: ndimage.median_filter(x, 301, mode="nearest"), twice)
    assert_close(preprocess(ecg, recipe=recipe, fs=500), 1000 * (ecg.double().numpy() - twice))


def test_ssldml_on_labelled_records_takes_every_second_sample():
    """The same authors' data/apollo.py: nothing keeps it from aliasing."""
    ecg = make_ecg(2, 12, 5000)
    recipe = Recipe("labelled", "", (Resample(250, "linear"), Crop(9.984)))
    assert torch.equal(preprocess(ecg, recipe=recipe, fs=500), ecg[..., ::2][..., :2496])


@pytest.mark.parametrize("name", RECIPES)
def test_words_survive_json(name):
    recipe = whole(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.name == name
    assert recipe.source


@pytest.mark.parametrize("name", RECIPES)
def test_result_says_rate_and_length(name):
    ecg = torch.from_numpy(ptbxl(500, count=2)).float()
    fs, samples = whole(name).result(500, 5000)
    assert preprocess(ecg, recipe=whole(name), fs=500).shape == (2, 12, samples)
    wanted = {"ssldml": (250, 2500), "pclr": (409.6, 4096), "dual_attention": (500, 608)}
    assert (fs, samples) == wanted.get(name, (fs, samples))


@pytest.mark.parametrize("name", RECIPES)
def test_records_do_not_mix(name):
    ecg = torch.from_numpy(ptbxl(500, count=3)).float()
    together = preprocess(ecg, recipe=whole(name), fs=500)
    singly = [preprocess(one[None], recipe=whole(name), fs=500) for one in ecg]
    assert torch.equal(together, torch.cat(singly))


@pytest.mark.parametrize("name", RECIPES)
def test_stored_int16_is_what_its_millivolts_are(name):
    ecg = torch.from_numpy(ptbxl(500, count=2))
    stored, gain = (ecg / 0.001).round().short(), torch.tensor([0.001, 0.001])
    got = preprocess(stored, gain, recipe=whole(name), fs=500)
    assert_close(got, whole(name).reference(stored.double().numpy() * 0.001, 500))


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"dual_attention"}))
def test_flat_leads_stay_finite_and_normalised_ones_are_zero(name):
    ecg = make_ecg(2, 12, 5000)
    ecg[0, 2] = -1.7
    ecg[1] = 3.3
    got = preprocess(ecg, recipe=whole(name), fs=500)
    assert got.isfinite().all()
    assert got[0, 3].abs().max() > 0.01
    if name in {"ecgfounder", "st_mem"}:
        assert (got[1] == 0).all()
    assert_close(got[:1], whole(name).reference(ecg[:1].numpy(), 500))


def test_gaps_raise_or_are_filled():
    ecg = make_ecg(3, 12, 5000)
    ecg[1, 4, 1000:1100] = torch.nan
    for name in sorted(set(RECIPES) - {"dual_attention"}):
        recipe = whole(name)
        with pytest.raises(ValueError, match=r"100 of 5000 samples missing .*record 1, lead 4"):
            preprocess(ecg, recipe=recipe, fs=500)
        filled = ecg.clone()
        filled[1, 4, 1000:1100] = torch.from_numpy(
            np.interp(range(1000, 1100), [999, 1100], ecg[1, 4, [999, 1100]])
        ).float()
        expected = recipe.reference(filled.numpy(), 500)
        got = preprocess(ecg, recipe=recipe, fs=500, on_gap="interpolate")
        assert_close(got, expected)
        fs = recipe.result(500, 5000)[0]
        marked = preprocess(ecg, recipe=recipe, fs=500, on_gap="interpolate", restore=True)
        lost = marked.isnan()
        assert lost.sum() == lost[1, 4].sum()
        assert abs(int(lost.sum()) - 100 * fs / 500) <= 1
        first = int(lost[1, 4].nonzero()[0])
        begin = {"st_mem": 0.5}.get(name, 0.0)  # seconds that were cropped away
        assert abs(first - (1000 / 500 - begin) * fs) <= 1
        assert torch.equal(marked[~lost], got[~lost])


def test_too_few_beats_name_their_records():
    ecg = torch.from_numpy(ptbxl(500, count=4)).float()
    ecg[2] = 0.3
    with pytest.raises(ValueError, match=r"1 of 4 records have fewer than 3.*: records 2 \(0\)"):
        preprocess(ecg, recipe="dual_attention", fs=500)


def test_half_and_double():
    ecg = make_ecg(2, 12, 5000)
    half = preprocess(ecg, recipe=whole("ecgfounder"), fs=500, dtype=torch.bfloat16)
    full = preprocess(ecg, recipe=whole("ecgfounder"), fs=500)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())
    double = preprocess(ecg, recipe=whole("ecgfounder"), fs=500, dtype=torch.float64)
    expected = whole("ecgfounder").reference(ecg.numpy(), 500)
    assert np.abs(double.numpy() - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("words", "fs", "samples", "message"),
    [
        ((Notch(60.0),), 100, 1000, r"'mine', step 1 \(Notch\): hz must .* 50 Hz, got 60 Hz"),
        ((Resample(60), Butterworth(2, 0.5, 40)), 500, 5000, r"step 2 .*high must .* 30 Hz, got"),
        ((Butterworth(2, 0.5, 40),), 250, 15, r"step 1 .*more than 15 samples .*15 samples at 250"),
        ((Resample(250.01),), 500, 5000, r"step 1 .*cannot reach 250.01 Hz.*25001 / 50000"),
        ((Crop(11.0),), 500, 5000, r"step 1 \(Crop\): cannot keep 11 s, which are 5500 samples"),
        ((Pad(100),), 500, 5000, r"cannot pad to fewer samples, 100"),
        ((MedianBaseline((0.6,)),), 500, 200, r"needs 301 samples for its widest window"),
        ((MovingAverageFilter(50.0),), 2000, 9000, r"averages 40 samples, at most 33 can be"),
        ((Normalise("fixed"),), 500, 5000, r"no numbers of a training set yet: Recipe.scaled"),
    ],
)
def test_refuses_what_cannot_be_done_there(words, fs, samples, message):
    with pytest.raises(ValueError, match=message):
        preprocess(torch.zeros(1, 2, samples), recipe=Recipe("mine", "", words), fs=fs)


def test_refuses_names_lengths_and_words():
    with pytest.raises(ValueError, match=r"unknown recipe 'plcr'; known are default, .*pclr"):
        preprocess(torch.zeros(1, 2, 5000), recipe="plcr", fs=500)
    with pytest.raises(ValueError, match=r"'pclr' is defined for 10 s, which are 4000 .* got 4096"):
        preprocess(torch.zeros(1, 2, 4096), recipe="pclr", fs=400)
    with pytest.raises(ValueError, match=r"x must be \(N, L, T\), got \(12, 5000\)"):
        preprocess(torch.zeros(12, 5000), recipe="pclr", fs=500)
    with pytest.raises(ValueError, match="fs must be above 0"):
        preprocess(torch.zeros(1, 12, 5000), recipe="neurokit", fs=0)
    with pytest.raises(ValueError, match="'pclr' takes no scale"):
        RECIPES["pclr"].scaled(0, 1)
    with pytest.raises(TypeError, match=r"'mine'.*none of Butterworth"):
        Recipe("mine", "", (3.0,))
    with pytest.raises(ValueError, match=r"step 2 \(MedianBaseline\): is not a step of ops"):
        Recipe("mine", "", (Crop(5), MedianBaseline((0.2,)))).steps(500, 5000)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"step": "Butter"}], "'mine', step 1: unknown step 'Butter'; known are Butterworth"),
        ([{"step": "Crop", "second": 5}], "step 1: Crop has no second; it has seconds, where"),
        ([{"step": "Crop"}], "step 1: .*seconds"),
        ([{"step": "Butterworth", "order": 0, "low": 1}], "step 1: Butterworth needs order >= 1"),
        ([{"step": "Butterworth", "order": 2, "low": 9, "high": 1}], "needs low < high"),
        ([{"step": "Resample", "fs": 250, "mode": "fast"}], "mode of polyphase, linear, ends"),
        ([{"step": "Crop", "seconds": 1, "where": "end"}], "knows start and centre, got 'end'"),
        ([{"step": "MedianBaseline", "seconds": []}], "windows above 0 s"),
        ([{"step": "MedianBaseline", "seconds": [1], "mode": "wrap"}], "nearest and constant"),
        ([{"step": "Scale", "factor": 0}], "finite factor above 0"),
        ([{"step": "Normalise", "kind": "robust"}], "kind must be one of"),
    ],
)
def test_refuses_written_steps(steps, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict({"name": "mine", "steps": steps})


def test_refuses_a_file_of_something_else():
    with pytest.raises(ValueError, match="has name, source, seconds and steps, got fs"):
        Recipe.from_dict({"fs": 250})


def test_scale_of_each_lead():
    mean, std = np.linspace(-0.1, 0.1, 12), np.linspace(0.1, 0.4, 12)
    recipe = RECIPES["ptbxl_benchmark"].scaled(mean, std)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    ecg = make_ecg(2, 12, 1000)
    expected = (ecg.double().numpy() - mean[:, None]) / std[:, None]
    assert_close(preprocess(ecg, recipe=recipe, fs=100), expected)
    assert recipe.unscaled() == RECIPES["ptbxl_benchmark"].unscaled()


def test_empty_batch():
    for name in RECIPES:
        samples = whole(name).result(500, 5000)[1]
        got = preprocess(torch.zeros(0, 12, 5000), recipe=whole(name), fs=500)
        assert got.shape == (0, 12, samples)


def test_recipes_are_frozen_and_input_is_kept():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["pclr"].seconds = 5
    ecg = make_ecg(1, 12, 5000)
    before = ecg.clone()
    for name in sorted(set(RECIPES) - {"dual_attention"}):
        preprocess(ecg, recipe=whole(name), fs=500)
    assert torch.equal(ecg, before)


def test_examples_run():
    assert doctest.testmod(recipes).failed == 0
