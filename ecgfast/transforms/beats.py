"""R peaks, and the median of all beats of a record."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.ops import moving_average
from ecgfast.ops.preprocess import preprocess
from ecgfast.transforms.recipe_filters import Butterworth, MovingAverageFilter
from ecgfast.transforms.recipe_word import Array, Place, Word

# Makowski et al., Behavior Research Methods 53, 2021 (neurokit2, its own method), which has them
# in seconds and as shares
SMOOTH_SECONDS, AVERAGE_SECONDS = 0.1, 0.75
STEEP = 1.5  # times the average slope: a QRS complex
SHORT = 0.4  # of the mean length of a complex: none
REFRACTORY_SECONDS = 0.3
# Pan, Tompkins, IEEE Transactions on Biomedical Engineering 32, 1985
T_WAVE_SECONDS = 0.36  # after a complex, what is
T_WAVE = 0.5  # of its slope or less is its T wave
CLEAN: tuple[Word, ...] = (Butterworth(order=5, low=0.5), MovingAverageFilter(hz=50.0))
LEAST_MV = 0.01  # of a complex; what filters make of a flat record's rounding lies far below it

Peaks = NDArray[np.int64]


class MedianBeats(NamedTuple):
    """Median beats, ``(N, L, samples)``; how many beats each is of, ``(N,)``; whether enough."""

    beats: Tensor
    made_of: Tensor
    valid: Tensor


def r_peaks(
    ecg: Tensor,
    *,
    fs: float,
    lead: int | None = None,
    clean: bool = True,
    on_gap: Literal["raise", "zero", "interpolate"] = "raise",
) -> list[Peaks]:
    """Finds the R peaks of each record.

    Where the smoothed absolute slope exceeds 1.5 times its average over 0.75 s is a QRS complex,
    if it is no shorter than 0.4 of the record's mean; its highest local maximum is the peak, unless
    the last lies within 0.3 s. So does neurokit2's own method. Unlike it, slopes of all leads are
    added (or one lead is taken), the highest of the maxima counts, not the most prominent, the
    first 0.3 s are searched, too, and what follows a peak within 0.36 s with less than half its
    slope is a T wave (Pan, Tompkins 1985). Nothing is promised where QRS is not the steepest part
    of a beat (ventricular fibrillation, pacing spikes).

    Args:
        ecg: mV, ``(N, L, T)``.
        fs: Samples a second, Hz; 50 or more.
        lead: Its index, whose R maximum is the peak. None looks at all leads together; the peak
            then is that of the record's tallest lead, in its own direction, so that a record of
            negative complexes is aligned as well as one of positive ones.
        clean: Whether to high-pass at 0.5 Hz and average over 50 Hz first (neurokit2's cleaning);
            not for a signal that has been.
        on_gap: What to do about missing samples, as in `ecgfast.ops.preprocess`.

    Returns:
        One array of sample indices, ascending, for each record; empty where nothing was found.

    Raises:
        ValueError: Not three axes, a rate below 50 Hz, no such lead, or too short to clean.

    Example:
        >>> t = torch.arange(2500) % 250 / 250.0  # SYNTHETIC: one beat a second
        >>> beat = torch.exp(-(((t - 0.5) / 0.02) ** 2)).expand(1, 12, -1)
        >>> r_peaks(beat, fs=250)[0][:3].tolist()
        [125, 375, 625]
    """
    if ecg.dim() != 3:
        raise ValueError(f"ecg must be (N, L, T), got {tuple(ecg.shape)}")
    if fs < 50:
        raise ValueError(f"fs must be 50 Hz or more to see a QRS complex, got {fs:g}")
    if lead is not None and not 0 <= lead < ecg.shape[1]:
        raise ValueError(f"lead must be in [0, {ecg.shape[1]}), got {lead}")
    longest = round(AVERAGE_SECONDS * fs)
    if ecg.shape[2] < longest:
        raise ValueError(f"ecg has {ecg.shape[2]} samples, finding beats takes {longest}")
    chosen = ecg if lead is None else ecg[:, lead : lead + 1]
    if clean:
        chosen = cleaned(chosen, fs=fs, on_gap=on_gap)
    slope = torch.gradient(chosen.double(), dim=-1)[0].abs().sum(dim=1, keepdim=True)
    smooth = moving_average(slope, round(SMOOTH_SECONDS * fs), mode="nearest")
    average = moving_average(smooth, longest, mode="nearest")
    record, begin, end = _complexes((smooth > STEEP * average)[:, 0].cpu().numpy())
    leads, slopes = chosen.double().cpu().numpy(), slope[:, 0].cpu().numpy()
    found = []
    for n in range(len(leads)):
        bounds = begin[record == n], end[record == n]
        height = leads[n, 0] if lead is not None else _tallest(leads[n], *bounds)
        found.append(_apart(*_peaks(height, slopes[n], *bounds), fs))
    return found


def median_beats(
    ecg: Tensor,
    *,
    fs: float,
    samples: int,
    before: int,
    lead: int | None = None,
    least: int = 3,
    clean: bool = True,
) -> MedianBeats:
    """The median over a record's beats, sample by sample, all leads aligned on the same R peaks.

    Beats that the record's ends cut are left out. The median forgets single other beats (ectopic
    ones, artefacts) and blurs what is not locked to R, atrial flutter for one. Beyond the beat
    itself it shows its neighbours, if the rhythm is regular.

    Args:
        ecg: mV, ``(N, L, T)``, without gaps.
        fs: Samples a second, Hz.
        samples: Length of a beat.
        before: Samples before the R peak.
        lead: As of `r_peaks`.
        least: Beats that make a median.
        clean: As of `r_peaks`; the beats themselves are those of ``ecg`` as it is.

    Returns:
        `MedianBeats`: ``beats`` ``(N, L, samples)`` of the dtype of ``ecg``, zero where there are
        too few; ``made_of`` ``(N,)`` int64, of how many beats; ``valid`` ``(N,)`` bool, whether of
        ``least`` or more.

    Raises:
        ValueError: As of `r_peaks`, or ``before`` is not in ``[0, samples)``.
    """
    if not 0 <= before < samples:
        raise ValueError(f"before must be in [0, samples = {samples}), got {before}")
    found = r_peaks(ecg, fs=fs, lead=lead, clean=clean)
    beats = ecg.new_zeros(*ecg.shape[:2], samples)
    count = torch.zeros(len(ecg), dtype=torch.int64)
    span = np.arange(samples) - before
    for n, peaks in enumerate(found):
        whole = peaks[(peaks >= before) & (peaks - before + samples <= ecg.shape[2])]
        count[n] = len(whole)
        if len(whole) >= least:
            places = torch.from_numpy(whole[:, None] + span).to(ecg.device)
            ranked = ecg[n][:, places].sort(dim=1).values  # (L, beats, samples)
            low, high = (len(whole) - 1) // 2, len(whole) // 2
            beats[n] = (ranked[:, low] + ranked[:, high]) / 2
    count = count.to(ecg.device)
    return MedianBeats(beats, count, count >= least)


def cleaned(
    ecg: Tensor, *, fs: float, on_gap: Literal["raise", "zero", "interpolate"] = "raise"
) -> Tensor:
    """neurokit2's cleaning, in one pass: what finding of beats wants to see."""
    at = Place("cleaning before beats are found", fs, ecg.shape[-1])
    for word in CLEAN:
        word.after(at)  # says so if the record is too short
    steps = tuple(step for word in CLEAN for step in word.steps(at))
    wide = torch.float64 if ecg.dtype == torch.float64 else torch.float32
    return preprocess(ecg, steps, on_gap=on_gap, dtype=wide)


def _complexes(steep: NDArray[np.bool_]) -> tuple[Peaks, Peaks, Peaks]:
    """Stretches of ``steep`` ``(N, T)`` that are long enough: record, begin, end of each."""
    change = np.diff(steep.astype(np.int8), axis=1)
    record, begin = np.nonzero(change == 1)
    record_of_end, end = np.nonzero(change == -1)
    # what the begin or the end of a record cuts is none: it has no begin, or no end
    first = np.r_[True, record_of_end[1:] != record_of_end[:-1]][: len(end)]
    end = end[~(first & steep[record_of_end, 0])]
    last = np.r_[record[1:] != record[:-1], True][: len(begin)]
    whole = ~(last & steep[record, -1])
    record, begin = record[whole], begin[whole]
    length = end - begin
    count = np.bincount(record, minlength=len(steep))
    mean = np.bincount(record, length, len(steep)) / np.maximum(count, 1)
    long = length >= SHORT * mean[record]
    return record[long], begin[long], end[long]


def _tallest(leads: Array, begin: Peaks, end: Peaks) -> Array:
    """Of ``(L, T)`` the lead whose complexes are the tallest, turned so that they point up."""
    if not len(begin):
        return leads[0]
    bounds = np.stack([begin, end], axis=1).ravel()
    up = np.median(np.maximum.reduceat(leads, bounds, axis=1)[:, ::2], axis=1)
    down = np.median(-np.minimum.reduceat(leads, bounds, axis=1)[:, ::2], axis=1)
    lead = int(np.maximum(up, down).argmax())
    return leads[lead] if up[lead] >= down[lead] else -leads[lead]


def _peaks(height: Array, slope: Array, begin: Peaks, end: Peaks) -> tuple[list[int], list[float]]:
    """The highest local maximum of each complex that has one and is no rounding; its slope."""
    peaks, slopes = [], []
    for left, right in zip(begin.tolist(), end.tolist(), strict=True):
        here = height[left:right]
        top = np.flatnonzero((here[1:-1] > here[:-2]) & (here[1:-1] >= here[2:])) + 1
        if len(top) and here.max() - here.min() >= LEAST_MV:
            peaks.append(left + int(top[here[top].argmax()]))
            slopes.append(float(slope[left:right].max()))
    return peaks, slopes


def _apart(peaks: list[int], slopes: list[float], fs: float) -> Peaks:
    """Leaves out what lies too near to the peak before: within refractory time, or a T wave."""
    kept: list[int] = []
    for n, peak in enumerate(peaks):
        gap = (peak - peaks[kept[-1]]) / fs if kept else np.inf
        steep = not kept or slopes[n] >= T_WAVE * slopes[kept[-1]]
        if gap > T_WAVE_SECONDS or (gap > REFRACTORY_SECONDS and steep):
            kept.append(n)
    return np.array([peaks[n] for n in kept], dtype=np.int64)
