"""What every word of a recipe can do: check itself, become a fused step, and be done by scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ecgfast.ops.preprocess import Step

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a word stands: who complains, and what arrives there."""

    who: str
    fs: float
    samples: int

    def fail(self, why: str) -> ValueError:
        """The error to raise; it names recipe, word, rate and length."""
        return ValueError(f"{self.who}: {why} (there {self.samples} samples at {self.fs:g} Hz)")


class Word:
    """One word of a recipe: a frozen dataclass of plain values."""

    def fuses(self, at: Place) -> bool:
        """Whether one pass of `ops.preprocess` does it, with its neighbours."""
        return True

    def after(self, at: Place) -> tuple[float, int]:
        """Rate and samples that leave it; raises if it cannot be done there."""
        return at.fs, at.samples

    def moments(self, at: Place, times: Array) -> Array:
        """When the samples that leave it were, if those that arrive were at ``times``."""
        return times

    def steps(self, at: Place) -> tuple[Step, ...]:
        """The same for `ops.preprocess`."""
        raise NotImplementedError

    def apply(self, ecg: Tensor, at: Place) -> Tensor:
        """Does what is not fused, ``(N, L, T) -> (N, L, T')``."""
        raise NotImplementedError

    def reference(self, ecg: Array, at: Place) -> Array:
        """The same by scipy and numpy in float64: slow, obvious, the truth for tests."""
        raise NotImplementedError
