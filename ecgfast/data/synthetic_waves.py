"""From SYNTHETIC patients to samples: waves in time, projected to leads, with the faults of a ward.

A record is one product of two matrices, (8 leads, rows) and (rows, T): a row is the course of a
wave, of the atria, of breathing or of the mains. The other four leads follow from I and II.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ecgfast.config import Signal
from ecgfast.data.synthetic_patients import (
    MOST_VISITS,
    WAVES,
    Floats,
    Integers,
    Records,
    normals,
    uniforms,
)

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DERIVED = {  # times I and times II: Einthoven, Goldberger
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
# a beat owns the samples from so many seconds after its R peak on, until the next one does
OWNS_FROM = {"P": -0.36, "QRS": -0.13, "T": 0.0}
ROWS_OF = {"P": slice(0, 2), "QRS": slice(2, 7), "T": slice(7, 9)}
BREATH, SWAY, ATRIA, MAINS, WANDER = 9, 10, slice(11, 13), 13, slice(14, 17)
ROWS = 17
T_FALL = 0.62  # the T wave falls faster than it rises
MAINS_HZ = 50.0
WANDER_HZ = ((0.05, 0.15), (0.15, 0.4), (0.4, 0.7))
LEAST_RR, BEFORE = 0.36, 2.5  # s; how long before the record the first beat may be
MUSCLE_SAMPLES = 1 << 21


_kept = threading.local()  # fresh pages would cost as much as what is computed in them


def render(seed: int, records: Records, signal: Signal, ecg: Tensor) -> None:
    """Fills (N, L, T) float32 with the samples of N records, mV, none of them missing."""
    number = records.patient * MOST_VISITS + records.visit
    t = torch.arange(signal.samples, dtype=torch.float32) / signal.fs
    phase = _f32(2 * math.pi * uniforms(seed, number, 9, 10))
    drawn = normals(seed, number, 10, 64)
    rows, leads, work = _scratch(len(number), len(t))

    _oscillate(rows[:, BREATH], t, records.breath_hz, phase[:, 0])
    _beats(rows, t, signal.fs, seed, records, phase[:, 0], work)
    torch.mul(rows[:, BREATH], rows[:, WAVES.index("R")], out=rows[:, SWAY])
    _atria(rows[:, ATRIA], t, records, phase[:, 1:4])
    mains = MAINS_HZ if 0.45 * signal.fs > MAINS_HZ else 0.0  # a slow recorder filters it out
    _oscillate(rows[:, MAINS], t, np.full(len(number), mains), phase[:, 4])
    for i, (low, high) in enumerate(WANDER_HZ):
        hz = low + (high - low) * uniforms(seed, number, 11 + i, 1)[:, 0]
        _oscillate(rows[:, WANDER][:, i], t, hz, phase[:, 5 + i])

    torch.bmm(_mixing(records, drawn, mains > 0), rows, out=leads)
    _add_muscle(leads, seed, number, drawn, signal.fs)
    _lead_off(leads, seed, number, t)
    _all_leads(leads, signal.leads, ecg)


def _scratch(records: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the rows, the eight leads and one course more, the same at each call."""
    shapes = [(records, ROWS, samples), (records, 8, samples), (records, samples + 1)]
    sizes = [math.prod(shape) for shape in shapes]
    if getattr(_kept, "memory", torch.empty(0)).numel() < sum(sizes):
        _kept.memory = torch.empty(sum(sizes))
    parts = _kept.memory[: sum(sizes)].split(sizes)
    rows, leads, work = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
    return rows, leads, work


def _oscillate(row: Tensor, t: Tensor, hz: Floats, phase: Tensor) -> None:
    torch.mul(_f32(2 * math.pi * hz)[:, None], t, out=row)
    row.add_(phase[:, None]).sin_()


def _beats(
    rows: Tensor, t: Tensor, fs: float, seed: int, records: Records, phase: Tensor, work: Tensor
) -> None:
    """The nine waves: each is a bell around its place in the beat that owns the sample."""
    number = records.patient * MOST_VISITS + records.visit
    most = math.ceil((float(t[-1]) + BEFORE) / LEAST_RR) + 2
    z = normals(seed, number, 14, most)
    rr = records.rr[:, None]
    about = rr * np.arange(most) - BEFORE
    breath = np.sin(2 * math.pi * records.breath_hz[:, None] * about + phase.numpy()[:, None])
    jitter = np.exp(records.rhythm[:, 1:2] * z)  # skewed to long pauses, as in fibrillation
    early = uniforms(seed, number, 18, most) < records.rhythm[:, 2:]
    early[:, 1:] &= ~early[:, :-1]
    pause = np.roll(early, 1, axis=1)  # after an early beat
    jitter += records.rhythm[:, :1] * breath - 0.32 * early + 0.28 * pause
    each = np.clip(rr * jitter, LEAST_RR, 2.5)
    first = uniforms(seed, number, 15, 1) * rr - BEFORE
    peak = first + np.cumsum(each, axis=1) - each[:, :1]
    before = np.concatenate([rr, each[:, :-1]], axis=1)
    stretch = np.cbrt(0.6 * rr + 0.4 * before)  # repolarisation follows the rate, with a memory

    steep = math.sqrt(0.5) / records.width  # a bell is exp(-(slope t + shift)^2)
    slope, shift = _f32(steep)[:, :, None], _f32(-records.centre * steep)[:, :, None]
    for name, place in ROWS_OF.items():
        start = np.clip(np.ceil((peak + OWNS_FROM[name]) * fs), 0, len(t)).astype(np.int64)
        since = rows[:, place.stop - 1]  # the last row of its own kind is overwritten last
        torch.sub(t, _steps(start, peak, work), out=since)
        if name == "T":
            since /= _steps(start, stretch, work)
        for row in range(place.start, place.stop):
            torch.addcmul(shift[:, row], slope[:, row], since, out=rows[:, row])
    falling, rest = rows[:, WAVES.index("T")], work[:, :-1]
    torch.clamp(falling, min=0.0, out=rest)
    falling.add_(rest, alpha=1 / T_FALL - 1)
    bells = rows[:, : len(WAVES)]
    torch.mul(bells, bells, out=bells)
    # exp(-40) is nothing, and spares the processor numbers too small for fast arithmetic
    bells.clamp_(max=40.0).neg_().exp_()


def _steps(start: Integers, value: Floats, work: Tensor) -> Tensor:
    """Of each sample the value of the beat that owns it, (N, T)."""
    jumps = np.diff(value, axis=1, prepend=0.0)
    work.zero_().scatter_add_(1, torch.from_numpy(start), _f32(jumps))
    return work.cumsum_(dim=1)[:, :-1]


def _atria(rows: Tensor, t: Tensor, records: Records, phase: Tensor) -> None:
    """Fibrillation: two uneven oscillations; nothing in sinus rhythm."""
    rows.zero_()
    ill = np.flatnonzero(records.labels["af"])
    a, b, c = phase[ill].T[:, :, None]
    angle = _f32(2 * math.pi * records.flutter_hz[ill])[:, None] * t + b
    angle += 1.3 * torch.sin(2 * math.pi * 0.45 * t + a)
    rows[ill, 0] = torch.sin(angle) + 0.35 * torch.sin(2 * angle)
    rows[ill, 1] = torch.sin(0.83 * angle + c) * torch.sin(2 * math.pi * 0.3 * t + c)


def _mixing(records: Records, drawn: Floats, mains: bool) -> Tensor:
    """What each row adds to each of the eight leads, mV, (N, 8, ROWS)."""
    project = records.field.transpose(0, 2, 1)  # (N, 3, 8)
    mixing = np.zeros((len(drawn), ROWS, 8))
    mixing[:, : len(WAVES)] = records.vector @ project
    mixing[:, SWAY] = np.einsum("na,nal->nl", records.sway, project)
    mixing[:, ATRIA] = np.stack([records.flutter, -0.7 * records.flutter[:, ::-1]], 1) @ project
    if mains:
        mixing[:, MAINS] = 0.004 * np.exp(0.8 * drawn[:, :1] + 0.4 * drawn[:, 1:9])
    size = 0.035 * np.exp(0.6 * drawn[:, 9:10])
    mixing[:, BREATH] = size * drawn[:, 10:18]
    mixing[:, WANDER] = size[:, None] * drawn[:, 18:42].reshape(-1, 3, 8)
    return _f32(mixing.transpose(0, 2, 1))


def _add_muscle(leads: Tensor, seed: int, number: Integers, drawn: Floats, fs: float) -> None:
    """Stretches of one long recording of muscle noise, each lead its own and its own size."""
    size = _f32(0.009 * np.exp(0.5 * drawn[:, 42:43] + 0.3 * drawn[:, 43:51]))[:, :, None]
    needed = leads[0].numel()
    recording = _recording(fs, max(MUSCLE_SAMPLES, 8 * needed))
    starts = uniforms(seed, number, 16, 1)[:, 0] * (len(recording) - needed)
    for record, start, how_much in zip(leads, starts.astype(np.int64), size, strict=True):
        stretch = recording[start : start + needed].view_as(record)
        record.addcmul_(stretch, how_much)


@lru_cache(maxsize=2)
def _recording(fs: float, samples: int) -> Tensor:
    """White noise with the spectrum of muscle: rises to 30 Hz, falls from 90 Hz on."""
    draw = torch.Generator().manual_seed(926)
    spectrum = torch.fft.rfft(torch.randn(samples, generator=draw))
    hz = torch.linspace(0, fs / 2, len(spectrum))
    shape = (hz / (hz + 30)) / (1 + (hz / 90) ** 2)
    noise = torch.fft.irfft(spectrum * shape, samples)
    return noise / noise.std()


def _lead_off(leads: Tensor, seed: int, number: Integers, t: Tensor) -> None:
    """In one record of forty an electrode comes off for a while: drift, hum and no heart."""
    for i, u in enumerate(uniforms(seed, number, 17, 6)):
        if u[0] >= 1 / 40:
            continue
        since = t - float(u[1]) * float(t[-1])
        away = (since > 0) & (since < 1 + 3 * u[2])
        jump = (4 * u[3] - 2) * torch.exp(-since[away] / 0.8)
        hum = 0.05 * u[4] * torch.sin(2 * math.pi * MAINS_HZ * since[away])
        leads[i, int(8 * u[5]), away] = (jump + hum).float()


def _all_leads(leads: Tensor, names: tuple[str, ...], ecg: Tensor) -> None:
    """The leads of a contract, from the eight; after all noise, so that the relations hold."""
    for place, name in enumerate(names):
        if name in INDEPENDENT:
            ecg[:, place] = leads[:, INDEPENDENT.index(name)]
        else:
            times_one, times_two = DERIVED[name]
            torch.mul(leads[:, 0], times_one, out=ecg[:, place])
            ecg[:, place].add_(leads[:, 1], alpha=times_two)


def _f32(x: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
