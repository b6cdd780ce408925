"""Where the waves of a median beat begin and end, in all leads together."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FS = 500  # Hz, of all beats here
NAN = math.nan
SMOOTH = 0.004  # s, standard deviation
QRS_SPAN = 0.12, 0.16  # s before and after R that QRS may reach
QRS_ON, QRS_END = 0.05, 0.06  # of the steepest slope: less is not QRS
QUIET = 0.010  # s below it end a QRS
P_FIRST, P_LONGEST, P_LEAST = 0.30, 0.18, 0.02  # s before QRS; s; mV
T_FIRST, T_LEAST = 0.04, 0.04  # s after QRS; mV
T_PEAK = 0.48  # s after R at 60 beats a minute, with the root of RR: later is no T, but the next P
P_REACH, T_REACH = 0.14, 0.20  # s from the peak of a wave to its ends, at most
HIGH, LOW = 0.5, 0.15  # of a wave's height: it falls from the one, for the last time, to the other
LEVEL = 0.03  # s after it, whose lowest is the level beside the wave
AGREE = 0.8  # correlation of the medians of odd and even beats, where there is a wave


class Waves(NamedTuple):
    """Samples, with fractions; NaN where a wave is not there or not to be seen."""

    p_on: float
    p_end: float
    qrs_on: float
    qrs_end: float
    t_on: float
    t_peak: float
    t_end: float


def delineate(beat: Floats, halves: tuple[Floats, Floats], *, before: int, rr: float) -> Waves:
    """Finds P, QRS and T of a beat.

    QRS lasts as long as the root mean square over leads of the slope exceeds a share of its own
    maximum. P and T are looked for in the direction in which the leads vary most there (the first
    principal component) and begin and end where the tangent at the steepest sample meets the level
    beside the wave (Lepeschkin, Surawicz, Circulation 6, 1952). They count only where the medians
    of odd and of even beats show the same wave.

    Args:
        beat: mV at 500 Hz, ``(L, samples)``.
        halves: The medians of its odd and of its even beats, alike.
        before: Samples before the R peak.
        rr: Median time between beats, s.

    Returns:
        `Waves`.
    """
    nothing = Waves(*[NAN] * 7)
    smooth = _smooth(beat)
    qrs_on, qrs_end = _qrs(smooth, before)
    if math.isnan(qrs_on) or math.isnan(qrs_end):
        return nothing
    parts = _smooth(halves[0]), _smooth(halves[1])
    t_on, t_peak, t_end = _t(smooth, parts, before, qrs_end, rr)
    last = qrs_end if math.isnan(t_end) else t_end
    p_on, _, p_end = _p(smooth, parts, last - rr * FS, qrs_on)
    return Waves(p_on, p_end, qrs_on, qrs_end, t_on, t_peak, t_end)


def _smooth(x: Floats) -> Floats:
    half = round(4 * SMOOTH * FS)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / (SMOOTH * FS)) ** 2)
    padded = np.pad(x, ((0, 0), (half, half)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=1)
    smooth: Floats = windows @ (kernel / kernel.sum())
    return smooth


def _qrs(beat: Floats, before: int) -> tuple[float, float]:
    slope = np.sqrt((np.gradient(beat, axis=1) ** 2).mean(axis=0))
    first, last = before - round(QRS_SPAN[0] * FS), before + round(QRS_SPAN[1] * FS)
    core = slope[before - round(0.06 * FS) : before + round(0.06 * FS)]
    top = float(core.max())
    if not top > 0:
        return NAN, NAN
    floor = float(np.quantile(slope[first : last + round(0.1 * FS)], 0.1))
    steep = np.flatnonzero(core > 0.3 * top) + before - round(0.06 * FS)
    quiet = round(QUIET * FS)
    on = _quiet_from(slope[: steep[0] + 1][::-1], floor + QRS_ON * (top - floor), quiet)
    end = _quiet_from(slope[steep[-1] :], floor + QRS_END * (top - floor), quiet)
    qrs_on, qrs_end = steep[0] - on, steep[-1] + end
    return (qrs_on if qrs_on > first else NAN), (qrs_end if qrs_end < last else NAN)


def _quiet_from(slope: Floats, limit: float, quiet: int) -> float:
    """First sample from which so many are below the limit; NaN if there are none."""
    loud = np.concatenate([[0], np.cumsum(slope >= limit)])
    still = np.flatnonzero(loud[quiet:] == loud[:-quiet])
    return float(still[0]) if len(still) else NAN


def _p(
    beat: Floats, halves: tuple[Floats, Floats], t_before: float, qrs_on: float
) -> tuple[float, float, float]:
    end = int(qrs_on)
    begin = max(0, end - round(P_FIRST * FS), round(t_before))
    found = _wave(
        beat, halves, begin, end, last=end, least=P_LEAST, edge=round(0.016 * FS), reach=P_REACH
    )
    return found if found[2] - found[0] <= P_LONGEST * FS else (NAN, NAN, NAN)


def _t(
    beat: Floats, halves: tuple[Floats, Floats], before: int, qrs_end: float, rr: float
) -> tuple[float, float, float]:
    begin = int(qrs_end) + round(T_FIRST * FS)
    last = before + round(min(T_PEAK * math.sqrt(rr), rr - 0.2) * FS)
    end = min(beat.shape[1], last + round(1.5 * T_REACH * FS), before + round((rr - 0.12) * FS))
    return _wave(
        beat, halves, begin, end, last=last, least=T_LEAST, edge=round(0.04 * FS), reach=T_REACH
    )


def _wave(
    beat: Floats,
    halves: tuple[Floats, Floats],
    begin: int,
    end: int,
    *,
    last: int,
    least: float,
    edge: int,
    reach: float,
) -> tuple[float, float, float]:
    """Begin, extreme (no later than ``last``) and end of the wave that leads share in a span."""
    if min(last, end) - begin < 2 * edge:
        return NAN, NAN, NAN
    part = _untilted(beat[:, begin:end])
    direction = np.linalg.svd(part, full_matrices=False)[0][:, 0]
    one, other = (direction @ _untilted(half[:, begin:end]) for half in halves)
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    size = np.sqrt((part**2).mean(axis=0))
    peak = int(size[: last - begin].argmax())
    inside = edge <= peak < min(last - begin - 1, len(size) - edge)
    if norm == 0 or (one * other).sum() / norm < AGREE or size[peak] < least or not inside:
        return NAN, NAN, NAN
    on, foot = (_foot(way, round(reach * FS)) for way in (size[peak::-1], size[peak:]))
    return begin + peak - on, float(begin + peak), begin + peak + foot


def _untilted(part: Floats) -> Floats:
    """Without the straight line between its ends."""
    tilt: Floats = part - np.linspace(part[:, 0], part[:, -1], part.shape[1], axis=1)
    return tilt


def _foot(course: Floats, reach: int) -> float:
    """Samples from a peak until the tangent at the steepest fall meets the level after it."""
    course = course[: reach + 1]
    low = np.flatnonzero(course < LOW * course[0])
    bottom = int(low[0]) if len(low) else int(course.argmin())
    if course[bottom] > HIGH * course[0]:
        return NAN
    high = int(np.flatnonzero(course[:bottom] > HIGH * course[0])[-1])  # the second of two humps
    steepest = high + int(np.diff(course[high : bottom + 1]).argmin())
    fall = float(course[steepest] - course[steepest + 1])
    level = float(course[bottom : bottom + round(LEVEL * FS)].min())
    return steepest + (float(course[steepest]) - level) / fall
