"""Words of recipes that take noise out of each lead."""
# ruff: noqa: D102  (recipe_word.Word says what the methods of a word are)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from ecgfast.ops import moving_median
from ecgfast.ops.preprocess import Filter
from ecgfast.transforms.recipe_word import Array, Place, Word

if TYPE_CHECKING:
    from ecgfast.ops.preprocess import Step


MOST_TAPS = 33  # of a moving average as sections, of which a filter has 16 at most


class _Sections(Word):
    """A filter that runs forward and backward; the ends are continued point-symmetrically."""

    def design(self, at: Place) -> tuple[Array, int | None]:
        """Second-order sections, and samples to continue the ends by (none: scipy's rule)."""
        raise NotImplementedError

    def after(self, at: Place) -> tuple[float, int]:
        sos, padlen = self.design(at)
        if len(sos):
            padlen = Filter(sos, padlen=padlen).padlen or 0
            if at.samples <= padlen:
                raise at.fail(f"needs more than {padlen} samples for the ends of the filter")
        return at.fs, at.samples

    def steps(self, at: Place) -> tuple[Step, ...]:
        sos, padlen = self.design(at)
        return (Filter(sos, padlen=padlen),) if len(sos) else ()

    def reference(self, ecg: Array, at: Place) -> Array:
        from scipy import signal

        sos, padlen = self.design(at)
        return signal.sosfiltfilt(sos, ecg, axis=-1, padlen=padlen) if len(sos) else ecg


def _below_nyquist(at: Place, name: str, hz: float) -> None:
    if not 0 < hz < at.fs / 2:
        raise at.fail(
            f"{name} must lie above 0 and below half the rate, {at.fs / 2:g} Hz, got {hz:g} Hz"
        )


@dataclass(frozen=True)
class Butterworth(_Sections):
    """Zero-phase Butterworth filter: a band-pass, or with one edge a high-pass or low-pass.

    Args:
        order: Of the design. A band-pass has twice as many poles, and both directions count.
        low: Lower edge, Hz; none for a low-pass.
        high: Upper edge, Hz; none for a high-pass.
    """

    order: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.order < 1 or (self.low is None and self.high is None):
            raise ValueError(f"Butterworth needs order >= 1, and low, high or both, got {self}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"Butterworth needs low < high, got {self}")

    def design(self, at: Place) -> tuple[Array, int | None]:
        from scipy import signal

        for name, hz in (("low", self.low), ("high", self.high)):
            if hz is not None:
                _below_nyquist(at, name, hz)
        edges: Any = (self.low, self.high)
        kind = "bandpass"
        if self.low is None or self.high is None:
            kind, edges = ("lowpass", self.high) if self.low is None else ("highpass", self.low)
        return signal.butter(self.order, edges, kind, fs=at.fs, output="sos"), None


@dataclass(frozen=True)
class Notch(_Sections):
    """Zero-phase second-order notch, whose -3 dB band is ``hz / q`` wide in each direction.

    Args:
        hz: What to take out: the mains.
        q: Its quality.
    """

    hz: float
    q: float = 30.0

    def design(self, at: Place) -> tuple[Array, int | None]:
        from scipy import signal

        _below_nyquist(at, "hz", self.hz)
        return signal.tf2sos(*signal.iirnotch(self.hz, self.q, fs=at.fs)), None


@dataclass(frozen=True)
class MovingAverageFilter(_Sections):
    """Zero-phase moving average over one period of the mains, which zeroes all its multiples.

    It takes ``int(fs / hz)`` samples, two below 100 Hz (neurokit2's rule). Unlike a notch it is a
    low-pass, too: for 50 Hz it halves what lies at 22 Hz.

    Args:
        hz: Of the mains.
    """

    hz: float

    def design(self, at: Place) -> tuple[Array, int | None]:
        taps = max(int(at.fs / self.hz), 1) if at.fs >= 100 else 2
        if taps > MOST_TAPS:
            raise at.fail(f"averages {taps} samples, at most {MOST_TAPS} can be: Resample first")
        # 1 + z + ... + z^(taps - 1) vanishes at the roots of one, but for one itself
        angles = 2 * np.pi * np.arange(1, (taps + 1) // 2) / taps
        zeros = [(1.0, -2 * float(np.cos(angle)), 1.0) for angle in angles]
        if taps % 2 == 0:
            zeros.append((1.0, 1.0, 0.0))
        sections = [[b / sum(pair) for b in pair] + [1.0, 0.0, 0.0] for pair in zeros]
        return np.array(sections).reshape(-1, 6), 3 * taps


@dataclass(frozen=True)
class MedianBaseline(Word):
    """Subtracts a baseline: the signal after one moving median, or several, one after the other.

    Windows are rounded up to an odd number of samples, ``int(seconds * fs) + 1`` or one more.

    Args:
        seconds: Of the windows, in their order.
        mode: What the window sees beyond the ends: the last sample (``nearest``) or zeros
            (``constant``).
    """

    seconds: tuple[float, ...]
    mode: Literal["nearest", "constant"] = "nearest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", tuple(self.seconds))  # JSON has lists
        if not self.seconds or min(self.seconds) <= 0:
            raise ValueError(f"MedianBaseline needs windows above 0 s, got {self.seconds}")
        if self.mode not in ("nearest", "constant"):
            raise ValueError(f"MedianBaseline knows nearest and constant, got {self.mode!r}")

    def fuses(self, at: Place) -> bool:
        return False

    def _windows(self, at: Place) -> list[int]:
        return [(int(seconds * at.fs) + 1) | 1 for seconds in self.seconds]

    def after(self, at: Place) -> tuple[float, int]:
        widest = max(self._windows(at))
        if at.samples < widest:
            raise at.fail(f"needs {widest} samples for its widest window")
        return at.fs, at.samples

    def apply(self, ecg: Tensor, at: Place) -> Tensor:
        baseline = ecg
        for window in self._windows(at):
            baseline = moving_median(baseline, window, mode=self.mode)
        return ecg - baseline

    def reference(self, ecg: Array, at: Place) -> Array:
        from scipy import ndimage

        baseline = ecg
        for window in self._windows(at):
            baseline = ndimage.median_filter(
                baseline, size=(1,) * (ecg.ndim - 1) + (window,), mode=self.mode
            )
        return ecg - baseline
