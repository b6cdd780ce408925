"""The filters of rational resampling as csrc/core/polyphase.h takes them: numpy alone, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MOST_TERM = 10_000  # of up and down, without their common divisor
MOST_TAPS = 4096  # of one sample


@dataclass(frozen=True, eq=False)
class Polyphase:
    """Output n is the sum of ``table[n % up, k] * x[first + k]``, see csrc/core/polyphase.h."""

    table: NDArray[np.float64]  # (up, taps of an output): rows in the order in which outputs come
    up: int
    down: int
    offset: int

    def first_input(self, n: int) -> int:
        """Of those that output n needs."""
        return (n * self.down + self.offset) // self.up - (self.table.shape[1] - 1)

    def end_input(self, end: int) -> int:
        """One past the last that outputs before ``end`` need."""
        return self.first_input(end - 1) + self.table.shape[1]


def output_length(samples: int, up: int, down: int) -> int:
    """As many samples as lie at times ``k * down / up`` before the end."""
    return -(-samples * up // down)


def reduced(up: int, down: int) -> tuple[int, int]:
    """Both terms without their common divisor. Raises ValueError if one is not positive or huge."""
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be positive, got {up} and {down}")
    divisor = math.gcd(up, down)
    up, down = up // divisor, down // divisor
    if max(up, down) > MOST_TERM:
        near = Fraction(up, down).limit_denominator(1000)
        raise ValueError(
            f"up / down = {up} / {down}, without a common divisor, has a term over {MOST_TERM}: a"
            f" filter for each output; take a simpler ratio, as {near.numerator} /"
            f" {near.denominator} (off by {abs(float(near * down / up) - 1):.1e})"
        )
    return up, down


def kaiser_filter(up: int, down: int, beta: float) -> NDArray[np.float64]:
    """The low-pass that ``scipy.signal.resample_poly`` designs: windowed sinc, gain ``up``."""
    rate = max(up, down)
    at = np.arange(-10 * rate, 10 * rate + 1, dtype=np.float64)
    taps = np.sinc(at / rate) * np.kaiser(len(at), beta)
    return taps * (up / taps.sum())


def polyphase(taps: NDArray[np.float64], offset: int, up: int, down: int) -> Polyphase:
    """Any filter, cut into the rows that outputs take. ``taps[offset]`` stands at time 0."""
    per = -(-len(taps) // up)
    most = -(-len(taps) // min(up, down))  # of the gradient too, whose terms are exchanged
    if most > MOST_TAPS:
        raise ValueError(
            f"resampling by {up} / {down} with a filter of {len(taps)} taps needs {most} of them"
            f" for a sample, more than {MOST_TAPS}; resample in two steps or shorten the filter"
        )
    phases = np.zeros(per * up)
    phases[: len(taps)] = taps
    starts = (np.arange(up) * down + offset) % up
    return Polyphase(phases.reshape(per, up)[::-1, starts].T.copy(), up, down, offset)


def transposed(
    taps: NDArray[np.float64], offset: int, up: int, down: int, before: int = 0
) -> Polyphase:
    """The map from gradients of outputs to those of inputs, from input ``-before`` on."""
    return polyphase(taps[::-1], len(taps) - 1 - offset - before * up, down, up)


def linear_filter(up: int) -> tuple[NDArray[np.float64], int]:
    """Straight lines between neighbours as a filter, with its offset."""
    return 1 - np.abs(np.arange(2 * up) - up) / up, up
