"""Fifteen ECG biomarkers of a record: rates, intervals, axes and voltages of its median beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.ops import resample_poly
from ecgfast.ops.preprocess import preprocess
from ecgfast.transforms.beats import r_peaks
from ecgfast.transforms.delineate import FS, NAN, Waves, delineate
from ecgfast.transforms.recipe_filters import Butterworth
from ecgfast.transforms.recipe_word import Place

Floats = NDArray[np.float64]
BIOMARKERS = {  # and their units
    "heart_rate": "1/min",
    "rr_sd": "ms",
    "p_duration": "ms",
    "pr_interval": "ms",
    "qrs_duration": "ms",
    "qt_interval": "ms",
    "qtc_fridericia": "ms",
    "p_axis": "degrees",
    "qrs_axis": "degrees",
    "t_axis": "degrees",
    "qrs_t_angle": "degrees",
    "sokolow_lyon": "mV",
    "cornell": "mV",
    "st_v5": "mV",
    "t_v5": "mV",
}
BASELINE = Butterworth(order=2, low=0.5)  # zero-phase: leaves ST where it is
BEFORE, AFTER = 0.40, 0.70  # s of a beat around R
LEAST = 4  # beats: two medians of two, which must agree on P and T
J_POINT = 0.06  # s after the end of QRS, where ST is measured
LEAST_AREA = 0.25  # mV ms: less has no direction


class Biomarkers(NamedTuple):
    """What was measured of N records.

    Attributes:
        values: ``(N, 15)`` float64 in the order and units of `BIOMARKERS`, NaN where not measured.
        reasons: Why a record has no values at all: missing_samples, flat, few_beats; empty where
            it has some.
    """

    values: Floats
    reasons: list[str]


def biomarkers(ecg: Tensor, *, fs: float, leads: Sequence[str]) -> Biomarkers:
    """Measures the median beats of records.

    Records are brought to 500 Hz and freed from what is below 0.5 Hz. The beats around the R peaks
    of all leads together (`beats.r_peaks`) are averaged by the median, and `delineate` finds the
    waves that all leads have in common. Heart rate is 60 over the mean RR; ``rr_sd`` the standard
    deviation of the record's RR intervals; ``qtc_fridericia`` is QT over the cube root of RR in
    seconds. Axes are frontal, of the areas of a wave in I and aVF (0 points to the left, 90 to the
    feet, in (-180, 180]); ``qrs_t_angle`` is between those of QRS and T, 0 to 180. Sokolow-Lyon is
    S in V1 plus the taller R of V5 and V6, Cornell S in V3 plus R in aVL; ``st_v5`` is 60 ms after
    QRS, ``t_v5`` the T wave's extreme, both above the level right before QRS.

    What cannot be measured is NaN, never a guess: P in fibrillation, T that drowns in noise, what
    needs a lead that is not there. Nothing is promised for paced beats or flutter.

    Args:
        ecg: mV, ``(N, L, T)``, NaN where nothing was recorded; such records are not measured.
        fs: Samples a second, Hz; 100 or more. Below 250 Hz intervals are coarse.
        leads: L names; III, aVR, aVL and aVF are taken from I and II.

    Returns:
        `Biomarkers`.

    Raises:
        ValueError: Not three axes, other leads than named, no I or II, or a rate below 100 Hz.

    Example:
        >>> flat = torch.zeros(2, 12, 5000)
        >>> names = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split()
        >>> biomarkers(flat, fs=500, leads=names).reasons
        ['flat', 'flat']
    """
    if ecg.dim() != 3 or ecg.shape[1] != len(leads):
        raise ValueError(f"ecg must be (N, L, T) of {len(leads)} leads, got {tuple(ecg.shape)}")
    if fs < 100:
        raise ValueError(f"fs must be 100 Hz or more to measure a beat, got {fs:g}")
    if absent := [name for name in ("I", "II") if name not in leads]:
        raise ValueError(f"axes need leads I and II, {' and '.join(absent)} is not there")
    values = np.full((len(ecg), len(BIOMARKERS)), np.nan)
    reasons = [""] * len(ecg)
    whole = ecg.isfinite().flatten(1).all(dim=1)
    moves = (ecg.amax(dim=-1) > ecg.amin(dim=-1)).any(dim=1)
    for n in range(len(ecg)):
        reasons[n] = "missing_samples" if not whole[n] else "" if moves[n] else "flat"
    good = [n for n, reason in enumerate(reasons) if not reason]
    if not good:
        return Biomarkers(values, reasons)
    clean = _levelled(ecg[good], fs)
    for n, record, peaks in zip(good, clean.numpy(), r_peaks(clean, fs=FS), strict=True):
        beats = _beats(record, peaks)
        if len(beats) < LEAST:
            reasons[n] = "few_beats"
            continue
        found = _measured(beats, np.diff(peaks) / FS, {name: i for i, name in enumerate(leads)})
        values[n] = [found.get(name, NAN) for name in BIOMARKERS]
    return Biomarkers(values, reasons)


def _levelled(ecg: Tensor, fs: float) -> Tensor:
    """At 500 Hz, without the baseline's wander; float64."""
    ecg = ecg.double()
    if fs != FS:
        ratio = Fraction(FS / fs).limit_denominator(1000)
        ecg = resample_poly(ecg, ratio.numerator, ratio.denominator, padtype="line")
    at = Place("biomarkers", FS, ecg.shape[-1])
    BASELINE.after(at)
    return preprocess(ecg, tuple(BASELINE.steps(at)), dtype=torch.float64).cpu()


def _beats(record: Floats, peaks: NDArray[np.int64]) -> Floats:
    """The beats of ``(L, T)`` that are whole, ``(beats, L, samples)``."""
    before, after = round(BEFORE * FS), round(AFTER * FS)
    whole = peaks[(peaks >= before) & (peaks + after <= record.shape[1])]
    beats = record[:, whole[:, None] + np.arange(-before, after)]
    return np.ascontiguousarray(beats.transpose(1, 0, 2))


def _measured(beats: Floats, rr: Floats, place: dict[str, int]) -> dict[str, float]:
    """The biomarkers of one record; those that cannot be had are NaN, or not there."""
    beat = np.median(beats, axis=0)
    halves = np.median(beats[::2], axis=0), np.median(beats[1::2], axis=0)
    waves = delineate(beat, halves, before=round(BEFORE * FS), rr=float(np.median(rr)))
    ms = 1000 / FS
    mean_rr = float(rr.mean())
    qt = (waves.t_end - waves.qrs_on) * ms
    found = {
        "heart_rate": 60 / mean_rr,
        "rr_sd": 1000 * float(rr.std(ddof=1)),
        "p_duration": (waves.p_end - waves.p_on) * ms,
        "pr_interval": (waves.qrs_on - waves.p_on) * ms,
        "qrs_duration": (waves.qrs_end - waves.qrs_on) * ms,
        "qt_interval": qt,
        "qtc_fridericia": qt / np.cbrt(mean_rr),
    }
    if math.isnan(waves.qrs_on) or math.isnan(waves.qrs_end):
        return found
    beat = beat - _level(beat, waves)
    lead = {name: beat[i] for name, i in place.items()}
    lead["aVF"], lead["aVL"] = lead["II"] - lead["I"] / 2, lead["I"] - lead["II"] / 2
    return found | _axes(lead, waves) | _voltages(lead, waves)


def _level(beat: Floats, waves: Waves) -> Floats:
    """What counts as 0 in each lead, ``(L, 1)``: the 16 ms before QRS."""
    on = int(waves.qrs_on)
    level: Floats = np.median(beat[:, max(on - 8, 0) : max(on, 1)], axis=1, keepdims=True)
    return level


def _axes(lead: dict[str, Floats], waves: Waves) -> dict[str, float]:
    qrs = _axis(lead, waves.qrs_on, waves.qrs_end)
    t = _axis(lead, waves.t_on, waves.t_end)
    apart = abs((qrs - t + 180) % 360 - 180)
    p = _axis(lead, waves.p_on, waves.p_end, tilted=True)
    return {"p_axis": p, "qrs_axis": qrs, "t_axis": t, "qrs_t_angle": apart}


def _axis(lead: dict[str, Floats], begin: float, end: float, *, tilted: bool = False) -> float:
    """Direction of a wave's area in the frontal plane; tilted takes its own ends as level."""
    if math.isnan(begin) or math.isnan(end):
        return NAN
    area = []
    for name in ("I", "aVF"):
        wave = lead[name][int(begin) : int(end) + 1]
        if tilted:
            wave = wave - np.linspace(wave[0], wave[-1], len(wave))
        area.append(wave.sum() * 1000 / FS)
    x, y = area[0], 2 / math.sqrt(3) * area[1]  # an augmented lead is shorter than Einthoven's
    return math.degrees(math.atan2(y, x)) if math.hypot(x, y) >= LEAST_AREA else NAN


def _voltages(lead: dict[str, Floats], waves: Waves) -> dict[str, float]:
    on, end = int(waves.qrs_on), int(waves.qrs_end)
    r = {name: max(0.0, float(x[on : end + 1].max())) for name, x in lead.items()}
    s = {name: max(0.0, float(-x[on : end + 1].min())) for name, x in lead.items()}
    tall = max(r.get("V5", NAN), r.get("V6", -math.inf))
    found = {"sokolow_lyon": s.get("V1", NAN) + tall, "cornell": s.get("V3", NAN) + r["aVL"]}
    if "V5" in lead:
        found["st_v5"] = float(lead["V5"][end + round(J_POINT * FS)])
        if not math.isnan(waves.t_end) and not math.isnan(waves.t_on):
            wave = lead["V5"][int(waves.t_on) : int(waves.t_end) + 1]
            found["t_v5"] = float(wave[np.abs(wave).argmax()])
    return found
