"""Words of recipes that change rate or length."""
# ruff: noqa: D102  (recipe_word.Word says what the methods of a word are)

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ecgfast.ops.preprocess import Crop as CropSamples
from ecgfast.ops.preprocess import Resample as ResampleBy
from ecgfast.transforms.recipe_word import Array, Place, Word

if TYPE_CHECKING:
    from ecgfast.ops.preprocess import Step

_MODES = ("polyphase", "linear", "ends", "fourier")


@dataclass(frozen=True)
class Resample(Word):
    """Brings the signal to another rate; one that has it already is left alone.

    ``polyphase`` filters away what the new rate cannot hold: ``scipy.signal.resample_poly``.
    ``linear`` draws lines between samples and filters nothing: to half the rate it takes every
    second sample. ``ends`` draws them on a grid from the first sample to the last,
    ``numpy.linspace(0, 1, T')``, as several authors do: time runs slower by ``1 / T``. ``fourier``
    cuts the spectrum, ``scipy.signal.resample``: it takes the record for one period of an endless
    signal, and rings where its ends do not meet.

    Args:
        fs: The rate to reach, Hz.
        mode: See above.
    """

    fs: float
    mode: Literal["polyphase", "linear", "ends", "fourier"] = "polyphase"

    def __post_init__(self) -> None:
        if not self.fs > 0 or self.mode not in _MODES:
            raise ValueError(f"Resample needs fs > 0, and mode of {', '.join(_MODES)}, got {self}")

    def fuses(self, at: Place) -> bool:
        if self.fs == at.fs or self.mode in ("polyphase", "linear"):
            return True
        return self.mode == "ends" and self._ends(at) is not None

    def _ends(self, at: Place) -> ResampleBy | None:
        """Its grid as a ratio, which not every length gives in numbers that one pass takes."""
        try:
            return ResampleBy(self.after(at)[1] - 1, at.samples - 1, mode="linear")
        except ValueError:
            return None

    def _ratio(self, at: Place) -> Fraction:
        return Fraction(str(self.fs)) / Fraction(str(at.fs))

    def _step(self, at: Place) -> ResampleBy:
        ratio = self._ratio(at)
        mode: Literal["polyphase", "linear"] = "linear" if self.mode == "linear" else "polyphase"
        try:
            return ResampleBy(ratio.numerator, ratio.denominator, mode=mode)
        except ValueError as error:
            raise at.fail(f"cannot reach {self.fs:g} Hz: {error}") from None

    def after(self, at: Place) -> tuple[float, int]:
        if self.fs == at.fs:
            return at.fs, at.samples
        exact = at.samples * self._ratio(at)
        if self.mode in ("polyphase", "linear"):
            self._step(at)
            return self.fs, -int(-exact // 1)
        length = int(exact) if self.mode == "fourier" else round(exact)
        if min(length, at.samples) < 2:
            raise at.fail(f"cannot reach {self.fs:g} Hz with less than two samples")
        return self.fs, length

    def _positions(self, at: Place) -> Array:
        """Where the new samples lie, counted in old ones."""
        length = self.after(at)[1]
        if self.mode == "ends":
            return np.linspace(0, at.samples - 1, length, dtype=np.float64)
        if self.mode == "fourier":
            return np.arange(length, dtype=np.float64) * (at.samples / length)
        ratio = self._ratio(at)
        times: Array = np.arange(length, dtype=np.float64) * ratio.denominator / ratio.numerator
        return times

    def moments(self, at: Place, times: Array) -> Array:
        if self.fs == at.fs:
            return times
        spacing = times[1] - times[0] if len(times) > 1 else 1.0
        return times[0] + self._positions(at) * spacing

    def steps(self, at: Place) -> tuple[Step, ...]:
        if self.fs == at.fs:
            return ()
        if self.mode != "ends":
            return (self._step(at),)
        step = self._ends(at)
        assert step is not None, "asked for what does not fuse"
        # upwards there is room for a few moments behind the last sample
        return step, CropSamples(0, self.after(at)[1])

    def apply(self, ecg: Tensor, at: Place) -> Tensor:
        if self.fs == at.fs:
            return ecg
        length = self.after(at)[1]
        if self.mode == "ends":
            return _draw_lines(ecg, self._positions(at))
        if ecg.numel() == 0:  # of which some FFTs want nothing
            return ecg.new_zeros(*ecg.shape[:-1], length)
        kept = min(length, at.samples)
        spectrum = torch.fft.rfft(ecg, dim=-1)[..., : kept // 2 + 1].clone()
        if kept % 2 == 0:  # what lies at half the lower rate stands for two frequencies
            spectrum[..., -1] *= 2.0 if length < at.samples else 0.5
        return torch.fft.irfft(spectrum, n=length, dim=-1) * (length / at.samples)

    def reference(self, ecg: Array, at: Place) -> Array:
        from scipy import signal

        if self.fs == at.fs:
            return ecg
        if self.mode == "fourier":
            return signal.resample(ecg, self.after(at)[1], axis=-1)
        if self.mode == "polyphase":
            ratio = self._ratio(at)
            return signal.resample_poly(ecg, ratio.numerator, ratio.denominator, axis=-1)
        positions, grid = self._positions(at), np.arange(at.samples)
        return np.apply_along_axis(lambda lead: np.interp(positions, grid, lead), -1, ecg)


def _draw_lines(ecg: Tensor, positions: Array) -> Tensor:
    before = np.minimum(np.floor(positions).astype(np.int64), ecg.shape[-1] - 2)
    left = torch.from_numpy(before).to(ecg.device)
    part = torch.from_numpy(positions - before).to(ecg)
    return torch.lerp(ecg[..., left], ecg[..., left + 1], part)


@dataclass(frozen=True)
class Crop(Word):
    """Keeps a piece of the record.

    Args:
        seconds: Its length.
        where: Of the record: ``start`` or ``centre``.
    """

    seconds: float
    where: Literal["start", "centre"] = "start"

    def __post_init__(self) -> None:
        if self.where not in ("start", "centre"):
            raise ValueError(f"Crop knows start and centre, got {self.where!r}")

    def _piece(self, at: Place) -> tuple[int, int]:
        length = round(self.seconds * at.fs)
        if not 0 < length <= at.samples:
            raise at.fail(f"cannot keep {self.seconds:g} s, which are {length} samples")
        return (0 if self.where == "start" else (at.samples - length) // 2), length

    def after(self, at: Place) -> tuple[float, int]:
        return at.fs, self._piece(at)[1]

    def moments(self, at: Place, times: Array) -> Array:
        start, length = self._piece(at)
        return times[start : start + length]

    def steps(self, at: Place) -> tuple[Step, ...]:
        start, length = self._piece(at)
        return () if length == at.samples else (CropSamples(start, length),)

    def reference(self, ecg: Array, at: Place) -> Array:
        start, length = self._piece(at)
        return ecg[..., start : start + length]


@dataclass(frozen=True)
class Pad(Word):
    """Adds zeros at both ends alike (one more behind), to a length a network can halve often.

    Args:
        samples: To reach.
    """

    samples: int

    def fuses(self, at: Place) -> bool:
        return False

    def after(self, at: Place) -> tuple[float, int]:
        if self.samples < at.samples:
            raise at.fail(f"cannot pad to fewer samples, {self.samples}")
        return at.fs, self.samples

    def _sides(self, at: Place) -> tuple[int, int]:
        lacking = self.after(at)[1] - at.samples
        return lacking // 2, lacking - lacking // 2

    def apply(self, ecg: Tensor, at: Place) -> Tensor:
        return torch.nn.functional.pad(ecg, self._sides(at))

    def reference(self, ecg: Array, at: Place) -> Array:
        return np.pad(ecg, [(0, 0)] * (ecg.ndim - 1) + [self._sides(at)])
