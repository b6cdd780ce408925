"""Prepare: scipy's filters to the last digits, normalisation, gaps and flat leads."""

from __future__ import annotations

import doctest

import pytest
import torch
from scipy import signal as scipy_signal

from ecgfast.testing import make_ecg
from ecgfast.transforms import signal
from ecgfast.transforms.signal import Prepare

FS = 250.0
BAND = (0.5, 40.0)


def scipy_way(ecg, band=BAND, notch=None):
    y = ecg.double().numpy()
    if band:
        sos = scipy_signal.butter(2, band, "bandpass", fs=FS, output="sos")
        y = scipy_signal.sosfiltfilt(sos, y, axis=-1)
    if notch:
        y = scipy_signal.filtfilt(*scipy_signal.iirnotch(notch, 30.0, fs=FS), y, axis=-1)
    return torch.from_numpy(y.copy()).to(ecg)


@pytest.mark.parametrize("band", [None, BAND, (1.0, 30.0)], ids=str)
def test_band_is_scipys(band):
    ecg = make_ecg(3, 12, 1000)
    expected = scipy_way(ecg, band)
    error = (Prepare(fs=FS, band=band)(ecg) - expected).abs().max()
    assert error <= 1e-6 * ecg.abs().max()


def test_notch_takes_the_mains_and_leaves_the_rest():
    t = torch.arange(2500) / FS
    mains = 0.2 * torch.sin(2 * torch.pi * 50 * t).expand(1, 12, -1)
    slow = torch.sin(2 * torch.pi * 5 * t).expand(1, 12, -1)
    middle = slice(500, 2000)  # the notch rings at the edges
    kept = Prepare(fs=FS, notch=50.0)(slow + mains)[..., middle]
    assert (kept - slow[..., middle]).abs().max() < 0.01
    # the same filter in another form: sections against polynomials
    expected = scipy_way(mains, band=None, notch=50.0)
    torch.testing.assert_close(Prepare(fs=FS, notch=50.0)(mains), expected, atol=1e-3, rtol=0)


def test_record_divides_by_its_root_mean_square():
    ecg = make_ecg(4, 12, 1000)
    scaled = Prepare(fs=FS, normalise="record")(ecg)
    torch.testing.assert_close(scaled.square().mean(dim=(1, 2)), torch.ones(4), atol=1e-4, rtol=0)
    ratio = scaled / ecg
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_lead_brings_each_lead_to_unit_variance():
    scaled = Prepare(fs=FS, band=BAND, normalise="lead")(make_ecg(4, 12, 1000))
    torch.testing.assert_close(scaled.mean(dim=-1), torch.zeros(4, 12), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.square().mean(dim=-1), torch.ones(4, 12), atol=1e-3, rtol=0)


@pytest.mark.parametrize("normalise", ["none", "lead", "record"])
def test_missing_lead_poisons_no_other(normalise):
    ecg = make_ecg(2, 12, 1000)
    prepare = Prepare(fs=FS, band=BAND, notch=50.0, normalise=normalise)
    whole = prepare(ecg)
    ecg[0, 3] = torch.nan
    got = prepare(ecg)
    assert got[0, 3].isnan().all()
    assert got.isnan().sum() == 1000
    assert torch.equal(got[1], whole[1])
    if normalise != "record":  # there the scale of the record leaves the missing lead out
        others = [i for i in range(12) if i != 3]
        assert torch.equal(got[0, others], whole[0, others])
    else:
        rms = got[0].square().nanmean()
        assert abs(rms - 1) < 1e-3


def test_a_gap_stays_a_gap_and_its_lead_stays_finite():
    ecg = make_ecg(1, 12, 1000)
    whole = Prepare(fs=FS, band=BAND)(ecg)
    ecg[0, 5, 400:410] = torch.nan
    ecg[0, 5, 700] = torch.inf
    ecg[0, 5, :3] = torch.nan
    got = Prepare(fs=FS, band=BAND)(ecg)
    holes = got[0, 5].isnan().nonzero().flatten().tolist()
    assert holes == [0, 1, 2, *range(400, 410), 700]
    far = slice(800, 1000)  # a bridged gap is felt near it only
    assert (got[0, 5, far] - whole[0, 5, far]).abs().max() < 0.02


@pytest.mark.parametrize("normalise", ["none", "lead", "record"])
@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_flat_leads_stay_finite(normalise, level):
    ecg = make_ecg(2, 12, 1000)
    ecg[0, 2] = level
    ecg[1] = level
    got = Prepare(fs=FS, band=BAND, normalise=normalise)(ecg)
    assert got.isfinite().all()
    assert got[1].abs().max() < 0.01


def test_a_record_of_nothing_but_gaps_stays_nan_without_a_warning():
    ecg = torch.full((1, 12, 500), torch.nan)
    assert Prepare(fs=FS, band=BAND, normalise="record")(ecg).isnan().all()


def test_records_do_not_mix():
    ecg = make_ecg(3, 12, 500)
    prepare = Prepare(fs=FS, band=BAND, notch=50.0, normalise="record")
    singly = torch.cat([prepare(ecg[i : i + 1]) for i in range(3)])
    assert torch.equal(prepare(ecg), singly)


def test_empty_batch_dtype_and_input_are_kept():
    assert Prepare(fs=FS, band=BAND)(torch.zeros(0, 12, 500)).shape == (0, 12, 500)
    ecg = make_ecg(1, 12, 500, dtype=torch.float64)
    before = ecg.clone()
    assert Prepare(fs=FS, band=BAND, normalise="lead")(ecg).dtype == torch.float64
    assert torch.equal(ecg, before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"band": (40.0, 0.5)}, "0 < low < high"),
        ({"band": (0.5, 125.0)}, "0 < low < high"),
        ({"notch": 125.0}, "notch must lie in"),
        ({"normalise": "z"}, "none, lead or record"),
    ],
)
def test_refuses_settings(words, message):
    with pytest.raises(ValueError, match=message):
        Prepare(fs=FS, **words)


def test_stored_steps_become_millivolts_on_the_way():
    steps = torch.randint(-2000, 2000, (3, 12, 500), dtype=torch.int16)
    steps[1, 4, 7:20] = -32768
    gain = torch.tensor([1e-3, 2.5e-3, 4.88e-3])
    ecg = (steps * gain[:, None, None]).masked_fill(steps == -32768, torch.nan)
    prepare = Prepare(fs=FS, band=BAND, normalise="record")
    got, expected = prepare(steps, gain), prepare(ecg)
    assert got.dtype == torch.float32
    assert torch.equal(got.isnan(), expected.isnan())
    assert (got - expected).nan_to_num().abs().max() <= 1e-6 * expected.nan_to_num().abs().max()
    with pytest.raises(ValueError, match="gain belongs to int16"):
        prepare(steps)


def test_refuses_signals():
    with pytest.raises(ValueError, match=r"must be \(N, L, T\), got \(12, 500\)"):
        Prepare(fs=FS)(torch.zeros(12, 500))
    with pytest.raises(
        ValueError, match=r"Butterworth.*needs more than 15 samples .*there 9 samples"
    ):
        Prepare(fs=FS, band=BAND)(torch.zeros(1, 12, 9))


def test_example_runs():
    assert doctest.testmod(signal).failed == 0
