"""R peaks against cardiologists' annotations and neurokit2; medians of beats; records of no use."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from ecgfast.transforms import beats
from ecgfast.transforms.beats import median_beats, r_peaks
from python_tests.conftest import shared_data

TOLERANCE_SECONDS = 0.15  # ANSI/AAMI EC57


def made(records=2, leads=12, *, fs=500, seconds=10, rate=1.2, seed=0):
    """SYNTHETIC ECGs: P, QRS and T at the same moments in all leads; and where the R peaks are."""
    draw = np.random.default_rng(seed)
    t = np.arange(seconds * fs) / fs
    ecg, truth = np.zeros((records, leads, len(t))), []
    for n in range(records):
        beat = np.cumsum(draw.normal(1 / rate, 0.03, int(seconds * rate) + 3)) - 0.5
        beat = beat[(beat > 0.1) & (beat < seconds - 0.1)]
        beat = np.round(beat * fs) / fs
        height = draw.uniform(0.5, 1.5, (leads, 1)) * draw.choice([1, 1, -1], (leads, 1))
        for at in beat:
            for shift, width, size in ((-0.16, 0.02, 0.1), (0, 0.012, 1), (0.25, 0.05, 0.25)):
                ecg[n] += height * size * np.exp(-(((t - at - shift) / width) ** 2))
        truth.append(np.round(beat * fs).astype(int))
    return torch.from_numpy(ecg + 0.005 * draw.standard_normal(ecg.shape)).float(), truth


def matched(truth, found, fs):
    """True positives, misses, and peaks that are none; each peak answers for one beat."""
    free, hits = list(found), 0
    for beat in truth:
        near = [peak for peak in free if abs(peak - beat) <= TOLERANCE_SECONDS * fs]
        if near:
            free.remove(min(near, key=lambda peak: abs(peak - beat)))
            hits += 1
    return hits, len(truth) - hits, len(free)


@pytest.mark.parametrize("fs", [100, 250, 500, 1000])
@pytest.mark.parametrize("rate", [0.7, 1.2, 2.5])
def test_finds_the_peaks_of_synthetic_beats(fs, rate):
    ecg, truth = made(4, fs=fs, rate=rate)
    for found, expected in zip(r_peaks(ecg, fs=fs), truth, strict=True):
        inside = expected[(expected > 0.2 * fs) & (expected < 9.8 * fs)]
        assert matched(inside, found, fs)[1] == 0
        assert matched(expected, found, fs)[2] == 0
        nearest = np.abs(found[:, None] - expected).min(axis=1)
        assert nearest.max() <= max(1, 0.004 * fs)  # noise moves the top


def test_one_lead_and_negative_ones():
    ecg, truth = made(1)
    upright = int(ecg[0].amax(-1).argmax())
    assert matched(truth[0], r_peaks(ecg, fs=500, lead=upright)[0], 500)[1:] == (0, 0)
    peaks = r_peaks(-ecg.abs(), fs=500)[0]
    assert matched(truth[0], peaks, 500)[1:] == (0, 0)
    assert np.abs(peaks - truth[0]).max() <= 2


def test_records_do_not_mix_and_scale_does_not_matter():
    ecg, _ = made(3)
    together = r_peaks(ecg, fs=500)
    for n in range(3):
        assert np.array_equal(together[n], r_peaks(ecg[n : n + 1], fs=500)[0])
        assert np.array_equal(together[n], r_peaks(4 * ecg[n : n + 1], fs=500)[0])


def test_records_of_no_use_are_empty_and_flagged():
    ecg, _ = made(6)
    ecg[1] = 2.5
    ecg[2] = 0.0
    ecg[3] = 1e-7 * torch.randn(12, 5000)
    ecg[4] = torch.randn(12, 5000)  # noise has peaks, whatever they are worth
    found = r_peaks(ecg, fs=500)
    assert [len(found[n]) for n in (1, 2, 3)] == [0, 0, 0]
    got = median_beats(ecg, fs=500, samples=600, before=240)
    assert got.valid[[0, 5]].all()
    assert not got.valid[[1, 2, 3]].any()
    assert got.made_of[[1, 2, 3]].tolist() == [0, 0, 0]
    assert (got.beats[1:4] == 0).all()
    assert got.beats.isfinite().all()


def test_pacing_spikes_and_clipping_do_not_crash():
    ecg, truth = made(2)
    for beat in truth[0]:
        ecg[0, :, max(beat - 80, 0) : max(beat - 78, 1)] += 5.0
    ecg[1] = ecg[1].clamp(-0.3, 0.3)
    assert all(len(peaks) >= 8 for peaks in r_peaks(ecg, fs=500))


def test_gaps_raise_or_are_filled():
    ecg, truth = made(2)
    ecg[1, 3, 700:760] = torch.nan
    with pytest.raises(ValueError, match="record 1"):
        r_peaks(ecg, fs=500)
    found = r_peaks(ecg, fs=500, on_gap="interpolate")
    assert matched(truth[1], found[1], 500)[1] == 0


def test_median_is_the_median_of_the_aligned_beats():
    ecg, _ = made(3)
    found = r_peaks(ecg, fs=500)
    got = median_beats(ecg, fs=500, samples=600, before=240)
    for n, peaks in enumerate(found):
        whole = [p for p in peaks if 240 <= p <= 5000 - 360]
        expected = np.median([ecg[n, :, p - 240 : p + 360].numpy() for p in whole], axis=0)
        assert np.array_equal(got.beats[n].numpy(), expected.astype(np.float32))
        assert got.made_of[n] == len(whole)


def test_median_forgets_one_other_beat():
    ecg, truth = made(1)
    clean = median_beats(ecg, fs=500, samples=600, before=240).beats
    beat = truth[0][4]
    ecg[0, :, beat + 60 : beat + 120] += 1.5
    got = median_beats(ecg, fs=500, samples=600, before=240).beats
    assert (got - clean).abs().max() < 0.1


def test_refuses():
    ecg, _ = made(1)
    with pytest.raises(ValueError, match=r"must be \(N, L, T\), got \(12, 5000\)"):
        r_peaks(ecg[0], fs=500)
    with pytest.raises(ValueError, match=r"50 Hz or more .* got 40"):
        r_peaks(ecg, fs=40)
    with pytest.raises(ValueError, match=r"lead must be in \[0, 12\), got 12"):
        r_peaks(ecg, fs=500, lead=12)
    with pytest.raises(ValueError, match="has 300 samples, finding beats takes 375"):
        r_peaks(ecg[..., :300], fs=500)
    with pytest.raises(ValueError, match=r"before must be in \[0, samples = 600\), got 600"):
        median_beats(ecg, fs=500, samples=600, before=600)


def their_peaks(lead):
    neurokit2 = pytest.importorskip("neurokit2", reason="needs neurokit2, of the extra test")
    cleaned = neurokit2.ecg_clean(lead, sampling_rate=500)
    return neurokit2.ecg_findpeaks(cleaned, sampling_rate=500)["ECG_R_Peaks"]


def test_annotated_peaks_of_ecg_id():
    """Leads I of 30 persons, no worse than neurokit2; bench/r_peaks.py has them all."""
    wfdb = pytest.importorskip("wfdb")
    ours, theirs, offsets = np.zeros(3, dtype=int), np.zeros(3, dtype=int), []
    for person in range(1, 31):
        path = str(shared_data("ecg-id", f"Person_{person:02d}", "rec_1.hea").with_suffix(""))
        lead = wfdb.rdrecord(path).p_signal[:, 0]
        marks = wfdb.rdann(path, "atr")
        truth = np.array(marks.sample)[np.array(marks.symbol) == "N"]
        found = r_peaks(torch.from_numpy(lead)[None, None], fs=500, lead=0)[0]
        for counts, peaks in ((ours, found), (theirs, their_peaks(lead))):
            between = (peaks >= truth[0] - 75) & (peaks <= truth[-1] + 75)
            counts += matched(truth, peaks[between], 500)
        offsets += [np.abs(found - beat).min() for beat in truth]
    assert (ours[0], -ours[2]) >= (theirs[0], -theirs[2])
    assert np.median(offsets) <= 2  # samples, 4 ms


def test_agrees_with_neurokit2_on_lead_ii():
    wfdb = pytest.importorskip("wfdb")
    root = shared_data("ptb-xl-500")
    names = (root / "RECORDS500").read_text().split()[:40]
    ecg = np.stack([wfdb.rdrecord(str(root / name)).p_signal.T for name in names])
    counts = np.zeros(3, dtype=int)
    for lead, found in zip(ecg[:, 1], r_peaks(torch.from_numpy(ecg), fs=500, lead=1), strict=True):
        counts += matched(
            their_peaks(lead), found[found > 150], 500
        )  # they leave the first 0.3 s out
    hits, missed, extra = counts
    assert hits / (hits + missed) > 0.99
    assert hits / (hits + extra) > 0.98


def test_example_runs():
    assert doctest.testmod(beats).failed == 0
