"""A record as the store wants it: its leads, one rate, one length."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import firwin

from ecgfast.config import Signal
from ecgfast.data.records import ECG, Issue
from ecgfast.ops import resample_poly

Array = NDArray[np.float64]
# a lead as so much of I and so much of II; exact for simultaneous leads of one amplifier
_FROM_I_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def derive_leads(ecg: ECG, leads: tuple[str, ...]) -> ECG:
    """Adds III, aVR, aVL and aVF as far as they are asked for, absent, and I and II are there."""
    new = [name for name in leads if name in _FROM_I_II and name not in ecg.leads]
    if not new or not {"I", "II"} <= set(ecg.leads):
        return ecg
    one, two = (ecg.signal[ecg.leads.index(name)] for name in ("I", "II"))
    rows = [_FROM_I_II[name][0] * one + _FROM_I_II[name][1] * two for name in new]
    ecg.signal = np.concatenate([ecg.signal, np.stack(rows)])
    ecg.leads = (*ecg.leads, *new)
    text = f"{', '.join(new)} computed from I and II"
    ecg.issues.append(Issue("derived_leads", "note", "", len(new), len(leads), text))
    return ecg


def fill_gaps(ecg: ECG, longest_ms: float) -> ECG:
    """Bridges gaps of at most so many ms by straight lines; longer ones, and ends, stay."""
    longest, count = int(longest_ms * ecg.fs / 1000), 0
    for lead in ecg.signal:
        gap = ~np.isfinite(lead)
        if not gap.any() or gap.all():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate(([0], gap.view(np.int8), [0]))))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            if end - begin <= longest and begin > 0 and end < len(lead):
                at = np.arange(begin, end)
                lead[begin:end] = np.interp(at, [begin - 1, end], [lead[begin - 1], lead[end]])
                count += int(end - begin)
    if count:
        text = f"{count} of {ecg.signal.size} samples were bridged (gaps up to {longest_ms:g} ms)"
        ecg.issues.append(Issue("gaps_filled", "note", "", count, ecg.signal.size, text))
    return ecg


@lru_cache(maxsize=32)
def _low_pass(up: int, down: int) -> Array:
    """Taps whose stop band begins at half the lower rate, with a transition of a sixth of it."""
    slow = max(up, down)
    taps: Array = firwin(2 * 32 * slow + 1, 0.92 / slow, window=("kaiser", 7.86))
    return taps


def resample(signal: Array, fs: float, to: float) -> Array:
    """Brings (L, T) to another rate by a polyphase filter that lets nothing alias.

    What lies above half of the lower rate is 80 dB down; what lies under 0.42 of it is kept.
    Gaps stay gaps: they are bridged for the filter and put back, so that they do not spread.
    """
    ratio = Fraction(to / fs).limit_denominator(2000)
    if ratio == 1 or signal.shape[1] == 0:
        return signal
    gap = ~np.isfinite(signal)
    up, down = ratio.numerator, ratio.denominator
    out: Array = resample_poly(
        torch.from_numpy(np.ascontiguousarray(signal)),
        up,
        down,
        window=_low_pass(up, down),
        padtype="line",  # through both ends, and taken off first: a filter sees no step there
        on_gap="interpolate",
    ).numpy()
    if gap.any():
        nearest = np.minimum(np.arange(out.shape[1]) / float(ratio) + 0.5, gap.shape[1] - 1).astype(
            int
        )
        out[gap[:, nearest]] = np.nan
    return out


def window(
    ecg: ECG, signal: Signal, *, crop: Literal["first", "centre"] = "first"
) -> tuple[ECG, ECG]:
    """Cuts out what the store keeps of a long record.

    Returns:
        That part alone, for the checks; and with up to a second on each side, for `conform`.
    """
    length = ecg.signal.shape[1]
    want, margin = int(np.ceil(signal.seconds * ecg.fs)), int(ecg.fs)
    begin = max(0, (length - want) // 2) if crop == "centre" else 0
    kept = replace(ecg, signal=ecg.signal[:, begin : begin + want])
    wider = ecg.signal[:, max(0, begin - margin) : begin + want + margin]
    return kept, replace(ecg, signal=wider, lead_in=min(begin, margin))


def conform(ecg: ECG, signal: Signal) -> tuple[Array, int, list[Issue]]:
    """Gives (L, T) in the store's leads, rate and length, the valid samples, and what to say of it.

    A longer record is cropped, a shorter one is followed by zeros. A lead that is not there is NaN.
    Samples before `lead_in` only keep the filter's edge out of what is kept.
    """
    rows = [ecg.leads.index(name) if name in ecg.leads else -1 for name in signal.leads]
    nothing = np.full(ecg.signal.shape[1], np.nan)
    source = np.stack([ecg.signal[r] if r >= 0 else nothing for r in rows])
    out = resample(source, ecg.fs, signal.fs)
    out = out[:, round(ecg.lead_in * signal.fs / ecg.fs) :][:, : signal.samples]
    valid = out.shape[1]
    issues = []
    if valid < signal.samples:
        text = (
            f"{valid / signal.fs:.2f} of {signal.seconds:g} s are there; "
            f"{signal.samples - valid} zeros follow"
        )
        less_than_half = 2 * valid < signal.samples
        severity: Literal["warning", "note"] = "warning" if less_than_half else "note"
        issues.append(Issue("short_after_crop", severity, "", valid, signal.samples, text))
        out = np.concatenate([out, np.zeros((len(rows), signal.samples - valid))], axis=1)
    return out, valid, issues
