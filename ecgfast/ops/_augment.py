"""augment in numpy and float64, on the same draws: slow, obvious, the truth for tests."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.ops._philox import normals_reference, philox_reference, uniform_reference
from ecgfast.ops.augment import AugmentSpec

Array = NDArray[np.float64]
NOISE, RECORD, LEAD, WARP, WANDER, BURST, SEGMENT = range(7)  # what a counter is for


def augment_reference(
    x: Tensor, spec: AugmentSpec, seed: int, *, record_ids: Tensor | None = None
) -> Tensor:
    """The same as ``augment``, one record after the other, one step after the other."""
    ids = range(len(x)) if record_ids is None else record_ids.tolist()
    y = np.zeros((*x.shape[:2], spec.length(x.shape[2])))
    for n, number in enumerate(ids):
        y[n] = _Record(spec, seed, number).augment(x[n].double().cpu().numpy())
    return torch.from_numpy(y).to(x)


class _Record:
    """One record's draws."""

    def __init__(self, spec: AugmentSpec, seed: int, number: int) -> None:
        self.spec = spec
        self.fs = spec.fs or 1.0
        self.key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], dtype=np.uint64)
        self.number = (number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF)

    def words(self, purpose: int, *, lead: int = 0, index: int = 0) -> list[int]:
        counter = np.array([index, purpose << 24 | lead, *self.number], dtype=np.uint64)
        return [int(word) for word in philox_reference(counter, self.key)]

    def augment(self, x: Array) -> Array:
        leads, samples = x.shape
        length = self.spec.length(samples)
        geometry, levels, counts, sizes = (self.words(RECORD, index=i) for i in range(4))
        reach = self.spec.shift_samples()
        shift = _below(geometry[3], 2 * reach + 1) - reach
        first = _below(geometry[2], samples - length + 1) - shift
        y = self._read(x, first, length)
        sign = -1.0 if _uniform(geometry[1]) < self.spec.flip_p else 1.0
        gain = sign * _log_between(self.spec.gain, geometry[0])
        factors = [
            gain * _log_between(self.spec.lead_gain, self.words(LEAD, lead=i)[0])
            for i in range(leads)
        ]
        y *= np.array(factors)[:, None]
        t = np.arange(length)
        mains = _between(self.spec.mains_mv, levels[1])
        y += mains * _sine(self.spec.mains_hz / self.fs, _uniform(levels[3]), t)
        y += _between(self.spec.wander_mv, levels[2]) * self._wander(t)
        y += self._noise(leads, t, _between(self.spec.noise_mv, levels[0]), counts)
        for i in range(_count(self.spec.mask_count, counts[2])):
            words = self.words(SEGMENT, index=i)
            size = _count(self.spec.whole_samples(self.spec.mask_s), words[0])
            begin = _below(words[1], length - size + 1)
            y[:, begin : begin + size] = 0.0
        y[~self._kept(leads, counts[3], sizes[0])] = 0.0
        return y

    def _read(self, x: Array, first: int, length: int) -> Array:
        samples = x.shape[1]
        s = first + np.arange(length)
        inside = (s >= 0) & (s < samples)
        y = np.zeros((x.shape[0], length))
        if self.spec.warp_strength == 0:
            y[:, inside] = x[:, s[inside]]
            return y
        at, step = self._warp(samples)
        last, pieces = samples - 1, self.spec.warp_knots + 1
        begins = np.arange(pieces) * last // pieces
        piece = np.searchsorted(begins, s[inside], side="right") - 1
        position = at[piece] + step[piece] * (s[inside] - begins[piece])
        here = position >> 32
        share = ((position & 0xFFFFFFFF) >> 8) * 2.0**-24
        after = x[:, np.minimum(here + 1, last)]
        y[:, inside] = np.where(share == 0, x[:, here], (1 - share) * x[:, here] + share * after)
        return y

    def _warp(self, samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each piece begins and its step, in 2^-32 of a sample."""
        pieces = self.spec.warp_knots + 1
        words = [self.words(WARP, index=j // 4)[j % 4] for j in range(pieces)]
        speeds = [1 + self.spec.warp_strength * (2 * _uniform(word) - 1) for word in words]
        reached = np.cumsum([0.0, *speeds]) / sum(speeds) * (samples - 1)
        knots = [*(int(w * 65536) for w in reached[:-1]), (samples - 1) * 65536]
        ends = [j * (samples - 1) // pieces for j in range(pieces + 1)]
        steps = [
            ((knots[j + 1] - knots[j]) << 16) // (ends[j + 1] - ends[j]) for j in range(pieces)
        ]
        return np.array([knot << 16 for knot in knots[:-1]]), np.array(steps)

    def _wander(self, t: NDArray[np.int64]) -> Array:
        sines = [self.words(WANDER, index=k) for k in range(self.spec.wander_sines)]
        low, high = (hz / self.fs for hz in self.spec.wander_hz)
        return np.mean([_sine(_between((low, high), f), _uniform(p), t) for f, p, *_ in sines], 0)

    def _noise(self, leads: int, t: NDArray[np.int64], sd: float, counts: list[int]) -> Array:
        emg = _between(self.spec.emg_mv, counts[0])
        top = np.zeros(len(t))
        for i in range(_count(self.spec.emg_bursts, counts[1]) if emg > 0 else 0):
            words = self.words(BURST, index=i)
            begin = _below(words[0], len(t))
            size = _count(self.spec.whole_samples(self.spec.emg_s), words[1])
            since = t - begin
            hann = np.sin(np.pi * (since + 0.5) / size) ** 2
            top = np.maximum(top, np.where((since >= 0) & (since < size), hann, 0.0))
        counter = np.zeros((leads, len(t), 4), dtype=np.uint64)
        counter[..., 0] = t // 64 * 16 + t % 16
        counter[..., 1] = (NOISE << 24 | np.arange(leads))[:, None]
        counter[..., 2:] = self.number
        which = np.broadcast_to((t % 64 // 16)[None, :, None], (leads, len(t), 1))
        z = np.take_along_axis(normals_reference(philox_reference(counter, self.key)), which, -1)
        noise: Array = z[..., 0] * np.sqrt(sd**2 + (emg * top) ** 2)
        return noise

    def _kept(self, leads: int, taken: int, which: int) -> NDArray[np.bool_]:
        words = np.array([self.words(LEAD, lead=i) for i in range(leads)]).reshape(leads, 4)
        subset = np.ones(leads, dtype=bool)
        if _uniform(taken) < self.spec.lead_subset_p:
            until = np.cumsum(self.spec.lead_subset_probs)[:-1]
            size = self.spec.lead_subset_sizes[int((until <= _uniform(which)).sum())]
            subset[np.argsort(words[:, 1], kind="stable")[size:]] = False
        draws = uniform_reference(words[:, 2].astype(np.uint64))
        kept = subset & ~(draws < self.spec.lead_dropout_p)
        if leads and not kept.any():
            kept[np.argmax(np.where(subset, draws, -1.0))] = True
        return kept


def _uniform(word: int) -> float:
    return ((word >> 8) + 0.5) * 2.0**-24


def _below(word: int, count: int) -> int:
    return word * count >> 32


def _between(ends: tuple[float, float], word: int) -> float:
    return ends[0] + (ends[1] - ends[0]) * _uniform(word)


def _log_between(ends: tuple[float, float], word: int) -> float:
    return float(ends[0] * (ends[1] / ends[0]) ** _uniform(word))


def _count(ends: tuple[int, int], word: int) -> int:
    return int(ends[0] + _below(word, ends[1] - ends[0] + 1))


def _sine(turns: float, phase: float, t: NDArray[np.int64]) -> Array:
    step = np.floor(turns * 2**32 + 0.5) / 2**32  # as the kernels hold a frequency
    sine: Array = np.sin(2 * np.pi * np.modf(step * t + phase)[0])
    return sine
