"""The steps of preprocess: plain, frozen, checked when they are made; numpy alone, no torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.ops._polyphase import output_length, reduced

PADTYPES = (None, "odd", "even", "constant")  # numbered as in csrc, as are the next ones
EDGES = ("constant", "line")
KINDS = ("zscore", "min_max", "rms", "fixed")
MOST_SECTIONS = 16  # of a filter, as in csrc/core/biquad.h


def one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    """Refuses an unknown word."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def _finite(name: str, value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


class Described:
    """What all steps share: a text that says all of it, which travels through torch as a str."""

    text: str

    def _set(self, **values: object) -> None:  # the steps are frozen
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _write(self) -> None:
        text = json.dumps({"step": type(self).__name__, **asdict(cast(Any, self))})
        object.__setattr__(self, "text", text)

    def samples(self, count: int) -> int:
        """How many samples it makes of ``count``; raises if it cannot."""
        return count


@dataclass(frozen=True)
class Resample(Described):
    """Changes the rate by ``up / down``; T samples become ``ceil(T * up / down)``.

    ``polyphase`` equals ``scipy.signal.resample_poly(x, up, down, window=, padtype=)``. ``linear``
    equals ``numpy.interp`` at the moments ``k * down / up``: nothing keeps it from aliasing.

    Args:
        up: New samples for every ``down`` old ones; both are brought to lowest terms.
        down: See ``up``.
        mode: ``polyphase`` or ``linear``.
        window: ``("kaiser", beta)``, or the taps of a low-pass at ``up`` times the old rate.
        padtype: What polyphase sees beyond the ends: zeros (``constant``), or the straight line
            through the first and the last sample (``line``).
    """

    up: int
    down: int
    mode: Literal["polyphase", "linear"] = "polyphase"
    window: tuple[str, float] | tuple[float, ...] | ArrayLike = ("kaiser", 5.0)
    padtype: Literal["constant", "line"] = "constant"

    def __post_init__(self) -> None:
        for name, term in (("up", self.up), ("down", self.down)):
            if isinstance(term, bool) or int(term) != term or term < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {term}")
        up, down = reduced(int(self.up), int(self.down))
        self._set(up=up, down=down)
        one_of("mode", self.mode, ("polyphase", "linear"))
        one_of("padtype", self.padtype, EDGES)
        window: Any = self.window
        if isinstance(window, str) or (len(window) and isinstance(window[0], str)):
            if isinstance(window, str) or window[0] != "kaiser" or len(window) != 2:
                raise ValueError(f"window must be ('kaiser', beta) or taps, got {window!r}")
            window = ("kaiser", _finite("beta", window[1]))
        else:
            taps = np.asarray(window, dtype=np.float64)
            if taps.ndim != 1 or not taps.size or not np.isfinite(taps).all():
                raise ValueError(f"window must be finite taps (M,), got shape {taps.shape}")
            window = tuple(taps.tolist())
        self._set(window=window)
        self._write()

    def samples(self, count: int) -> int:
        if self.padtype == "line" and self.mode == "polyphase" and count < 2:
            raise ValueError("Resample by padtype 'line' needs two samples, and gets 1")
        return output_length(count, self.up, self.down)


@dataclass(frozen=True)
class Filter(Described):
    """A zero-phase filter: second-order sections forward, then backward.

    Equals ``scipy.signal.sosfiltfilt(sos, x, padtype=, padlen=)``, to the edges.

    Args:
        sos: ``(K, 6)`` sections ``b0 b1 b2 1 a1 a2``, as scipy designs them; all poles inside the
            unit circle.
        padtype: How the ends are continued: ``odd``, ``even``, ``constant``, or None for not.
        padlen: By how many samples; scipy's choice if None.
    """

    sos: tuple[tuple[float, ...], ...] | ArrayLike
    padtype: Literal["odd", "even", "constant"] | None = "odd"
    padlen: int | None = None

    def __post_init__(self) -> None:
        sos = np.asarray(self.sos, dtype=np.float64)
        if sos.ndim != 2 or sos.shape[1] != 6 or not len(sos):
            raise ValueError(f"sos must be (K, 6) with K > 0, got {sos.shape}")
        if len(sos) > MOST_SECTIONS:
            raise ValueError(f"sos must be {MOST_SECTIONS} sections at most, got {len(sos)}")
        if not np.isfinite(sos).all():
            raise ValueError("sos must be finite: the design of the filter failed")
        if (sos[:, 3] != 1).any():
            raise ValueError("sos must have a0 = 1 in every section: divide each by its a0")
        a1, a2 = sos[:, 4], sos[:, 5]
        wrong = np.flatnonzero(~((np.abs(a2) < 1) & (np.abs(a1) < 1 + a2)))
        if wrong.size:
            radius = np.abs(np.roots(sos[wrong[0], 3:])).max()
            raise ValueError(
                f"sos is unstable: section {wrong[0]} has a pole at radius {radius:.9g}"
                f" ({wrong.size} of {len(sos)} sections have one at 1 or beyond)"
            )
        one_of("padtype", self.padtype, PADTYPES)
        if self.padlen is not None and (int(self.padlen) != self.padlen or self.padlen < 0):
            raise ValueError(f"padlen must be a whole number of at least 0, got {self.padlen}")
        taps = 2 * len(sos) + 1 - min((sos[:, 2] == 0).sum(), (a2 == 0).sum())
        padlen = 3 * int(taps) if self.padlen is None else int(self.padlen)
        self._set(sos=tuple(map(tuple, sos.tolist())), padlen=padlen if self.padtype else 0)
        self._write()

    def samples(self, count: int) -> int:
        if count <= cast(int, self.padlen):
            raise ValueError(
                f"Filter pads {self.padlen} samples at each end, so that it needs more than"
                f" {self.padlen}, and gets {count}: use longer signals or a smaller padlen"
            )
        return count


@dataclass(frozen=True)
class Normalise(Described):
    """Moves and scales each lead, or each record as a whole.

    ``zscore``: ``(x - mean) / (sd + eps)``, with ``eps_inside`` ``(x - mean) / sqrt(var + eps)``;
    sums divide by the count, not by one less. ``rms``: ``x / (rms + eps)``, or
    ``x / sqrt(mean_square + eps)``. ``min_max``: from ``low`` to ``high``,
    ``low + (high - low) * (x - min) / (max - min + eps)``. ``fixed``: ``(x - mean) / std`` with
    numbers of a training set, in mV.

    A lead that comes in flat, and a record of such leads, is 0 after it (``min_max``: ``low``).
    Samples that were missing and filled count as the rest, but a lead of no sample at all has no
    part in the numbers of its record.

    Args:
        kind: One of the four.
        scope: ``lead`` or ``record``; not of ``fixed``.
        eps: Added where the formula says.
        eps_inside: Whether it goes inside the root.
        mean: Of ``fixed``: a number, or one for each lead.
        std: Likewise, positive.
        low: Of ``min_max``.
        high: Of ``min_max``.
    """

    kind: Literal["zscore", "min_max", "rms", "fixed"] = "zscore"
    scope: Literal["lead", "record"] = "lead"
    eps: float = 1e-6
    eps_inside: bool = True
    mean: float | tuple[float, ...] | ArrayLike | None = None
    std: float | tuple[float, ...] | ArrayLike | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("scope", self.scope, ("lead", "record"))
        if _finite("eps", self.eps) < 0:
            raise ValueError(f"eps must be at least 0, got {self.eps}")
        if not _finite("low", self.low) < _finite("high", self.high):
            raise ValueError(f"low must be under high, got {self.low} and {self.high}")
        if self.kind == "fixed":
            if self.mean is None or self.std is None:
                raise ValueError("fixed needs mean and std: numbers, or one for each lead")
            for name, given in (("mean", self.mean), ("std", self.std)):
                values = np.atleast_1d(np.asarray(given, dtype=np.float64))
                if values.ndim > 1 or not values.size or not np.isfinite(values).all():
                    raise ValueError(f"{name} must be a finite number or one a lead, got {given}")
                if name == "std" and not (values > 0).all():
                    raise ValueError(f"std must be positive, got {given}")
                self._set(**{name: tuple(values.tolist())})
        elif self.mean is not None or self.std is not None:
            raise ValueError(f"mean and std are of kind 'fixed', not of {self.kind!r}")
        self._write()


@dataclass(frozen=True)
class Crop(Described):
    """Keeps ``length`` samples from ``start`` on, counted at the rate that this step finds."""

    start: int
    length: int

    def __post_init__(self) -> None:
        for name, value, least in (("start", self.start, 0), ("length", self.length, 1)):
            if int(value) != value or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
        self._write()

    def samples(self, count: int) -> int:
        if self.start + self.length > count:
            raise ValueError(
                f"Crop wants samples {self.start} to {self.start + self.length - 1}, and gets"
                f" {count}"
            )
        return self.length


Step: TypeAlias = Resample | Filter | Normalise | Crop
Steps: TypeAlias = tuple[Step, ...]
