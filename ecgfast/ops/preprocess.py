"""Stored ECGs to what a model takes: resample, filter, normalise and crop in one pass."""

from __future__ import annotations

import functools
import json
import math
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ecgfast import _C
from ecgfast.ops._gaps import native, refuse_gaps
from ecgfast.ops._native import place, ready, register, view
from ecgfast.ops._polyphase import Polyphase, kaiser_filter, linear_filter, polyphase
from ecgfast.ops._steps import KINDS, PADTYPES, Described, one_of
from ecgfast.ops._steps import Crop as Crop
from ecgfast.ops._steps import Filter as Filter
from ecgfast.ops._steps import Normalise as Normalise
from ecgfast.ops._steps import Resample as Resample
from ecgfast.ops._steps import Step as Step
from ecgfast.ops._steps import Steps as Steps

_MOST_STEPS = 12  # as in contract.h
_MOST_SECTIONS = 32  # of all filters together, likewise
_GAPS = ("raise", "zero", "interpolate")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NAMED = {step.__name__: step for step in (Resample, Filter, Normalise, Crop)}


def preprocess(
    x: Tensor,
    steps: Steps,
    *,
    gain: float | ArrayLike | Tensor | None = None,
    offset: float | ArrayLike | Tensor | None = None,
    missing: int | None = None,
    on_gap: Literal["raise", "zero", "interpolate"] = "raise",
    restore: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Brings stored ECGs to what a model takes, in one pass over them.

    .. math:: y = s_k(\dots s_2(s_1(x \cdot gain + offset)))

    for the steps :math:`s` in their order, each of which says what it equals in scipy or numpy.
    Records never mix, and leads only in a normalisation of scope ``record``; a batch gives what
    its records give one by one, bit for bit. All is computed in float32 around recursions and
    sums of float64 (on CUDA: of float32 in a form that does not lose digits), or in float64 if
    ``x`` or ``dtype`` is. Autocast does not touch it, and no copy of the batch is made.

    A sample is missing if it is the int16 code ``missing``, or not finite once it is in mV. What
    fills a gap goes through all steps and counts in every mean. On CUDA, ``raise`` and numbers in
    ``gain`` or ``offset`` that lie on the device make the call wait for it.

    Args:
        x: ``(N, L, T)``: record, lead, sample; int16 or any float dtype, any strides.
        steps: What to do, in order: `Resample`, `Filter`, `Normalise`, `Crop`. May be empty.
        gain: mV a unit of ``x``: a number, ``(N,)`` or ``(N, L)``; 1 if None. Not 0.
        offset: mV at 0, likewise; 0 if None.
        missing: The int16 code of a missing sample; none if None.
        on_gap: ``raise``; or fill gaps with 0 mV (``zero``), or with straight lines between their
            neighbours (``interpolate``: the nearest value at the ends, 0 mV if there is none).
        restore: Whether filled samples are NaN in the result: those whose nearest sample of ``x``
            was missing.
        dtype: Of the result: float16, bfloat16, float32 or float64.

    Returns:
        Tensor ``(N, L, T')`` of ``dtype``, dense, in mV or as the last `Normalise` leaves it. NaN
        only by ``restore``. Not differentiable.

    Raises:
        ValueError: If a shape or an option is not as above, samples are missing and ``on_gap`` is
            ``raise``, a gain is 0 or not finite, signals are too short for a step or too long for
            a block of the device, or ``x`` requires a gradient.
        TypeError: If a dtype or a step is not as above.

    Example:
        >>> steps = (Resample(1, 2), Normalise("zscore", scope="lead"), Crop(0, 2000))
        >>> preprocess(torch.ones(8, 12, 5000, dtype=torch.int16), steps, gain=0.001).shape
        torch.Size([8, 12, 2000])
    """
    if x.dim() != 3:
        raise ValueError(f"x must be (N, L, T), got {tuple(x.shape)}")
    if x.shape[2] == 0:
        raise ValueError(f"x has no samples, got {tuple(x.shape)}")
    if x.dtype != torch.int16 and x.dtype not in _DTYPES:
        raise TypeError(f"x must be int16 or of a float dtype, got {x.dtype}")
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    if missing is not None and x.dtype != torch.int16:
        raise ValueError(f"missing is a code of int16, and x is {x.dtype}: mark gaps by NaN")
    one_of("on_gap", on_gap, _GAPS)
    if torch.is_grad_enabled() and x.requires_grad:
        raise ValueError("x requires a gradient, and preprocess has none: give x.detach()")
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"steps must be {_MOST_STEPS} at most, got {len(steps)}")
    sections = sum(len(cast(Any, step.sos)) for step in steps if isinstance(step, Filter))
    if sections > _MOST_SECTIONS:
        raise ValueError(
            f"the filters must have {_MOST_SECTIONS} sections at most, got {sections} sections"
        )
    text, samples = [], x.shape[2]
    for number, step in enumerate(steps):
        if not isinstance(step, Described):
            raise TypeError(f"steps[{number}] must be one of {', '.join(_NAMED)}, got {step!r}")
        try:
            samples = step.samples(samples)
        except ValueError as error:
            raise ValueError(f"steps[{number}]: {error}") from None
        if isinstance(step, Normalise):
            _expect_leads(number, step, x.shape[1])
        text.append(step.text)
    return _preprocess(
        x,
        _per_lead("gain", gain, x),
        _per_lead("offset", offset, x),
        f"[{', '.join(text)}]",
        missing,
        on_gap,
        restore,
        dtype,
    )


def preprocess_reference(
    x: Tensor,
    steps: Steps,
    *,
    gain: float | ArrayLike | Tensor | None = None,
    offset: float | ArrayLike | Tensor | None = None,
    missing: int | None = None,
    on_gap: Literal["raise", "zero", "interpolate"] = "raise",
    restore: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The same by scipy and numpy in float64: slow, obvious, the truth for tests and benchmarks."""
    scale, shift = (
        np.broadcast_to(v.reshape(v.shape + (1,) * (3 - v.ndim)), (*x.shape[:2], 1))
        for v in map(np.asarray, (1.0 if gain is None else gain, 0.0 if offset is None else offset))
    )
    y = x.double().cpu().numpy() * scale + shift
    lost = ~np.isfinite(y) if missing is None else x.cpu().numpy() == missing
    if lost.any() and on_gap == "raise":
        raise ValueError(f"{lost.sum()} samples are missing")
    at = np.arange(x.shape[2], dtype=np.float64)
    y = np.where(lost, 0.0, y)
    for row in zip(*lost.any(axis=2).nonzero(), strict=True):
        if on_gap == "interpolate" and not lost[row].all():
            y[row] = np.interp(at, at[~lost[row]], y[row][~lost[row]])
    flat = np.ptp(y, axis=2, keepdims=True) == 0
    absent = lost.all(axis=2, keepdims=True)
    absent &= ~absent.all(axis=1, keepdims=True)  # where all leads are, all count
    moments = _Moments(Fraction(0), Fraction(1))
    for step in steps:
        y, moments = _step_reference(step, y, moments, flat, absent)
    if restore:
        nearest = np.minimum(moments.nearest(y.shape[2]), x.shape[2] - 1)
        y = np.where(lost[:, :, nearest], np.nan, y)
    return torch.from_numpy(y.copy()).to(x.device, dtype)


class _Moments(NamedTuple):
    """When samples were taken, in samples of what came in; exact, for half a sample is a tie."""

    first: Fraction
    step: Fraction

    def nearest(self, count: int) -> Any:
        """The sample that each of so many lies nearest to, the later one of two."""
        parts = math.lcm(self.first.denominator, self.step.denominator)
        at = np.arange(count) * int(self.step * parts) + int(self.first * parts)
        return (2 * at + parts) // (2 * parts)


def _step_reference(
    step: Step, y: Any, moments: _Moments, flat: Any, absent: Any
) -> tuple[Any, _Moments]:
    from scipy import signal

    if isinstance(step, Filter):
        sos = np.array(step.sos)
        return signal.sosfiltfilt(sos, y, padtype=step.padtype, padlen=step.padlen), moments
    if isinstance(step, Crop):
        kept = slice(step.start, step.start + step.length)
        first = moments.first + step.start * moments.step
        return y[..., kept], moments._replace(first=first)
    if isinstance(step, Resample):
        times = np.arange(step.samples(y.shape[2])) * step.down / step.up
        if step.mode == "polyphase":
            window = cast(Any, step.window)
            window = window if window[0] == "kaiser" else np.array(window)
            y = signal.resample_poly(
                y, step.up, step.down, axis=-1, window=window, padtype=step.padtype
            )
        else:
            grid = np.arange(y.shape[2])
            y = np.apply_along_axis(lambda row: np.interp(times, grid, row), 2, y)
        # beyond the last sample the moments go on, and whoever looks there takes the last
        return y, moments._replace(step=moments.step * Fraction(step.down, step.up))
    over = (1, 2) if step.scope == "record" else (2,)
    if step.kind == "fixed":
        mean, std = (np.reshape(np.array(v), (-1, 1)) for v in (step.mean, step.std))
        return (y - mean) / std, moments
    how: Any = {"axis": over, "keepdims": True}
    if step.scope == "record":  # a lead of no sample has no part in it
        how["where"] = ~absent
    low = y.min(initial=np.inf, **how)
    mean = {"zscore": y.mean(**how), "min_max": low, "rms": 0.0}[step.kind]
    if step.kind == "min_max":
        divisor = y.max(initial=-np.inf, **how) - low + step.eps
    else:
        square = np.square(y - mean).mean(**how)
        divisor = np.sqrt(square + step.eps) if step.eps_inside else np.sqrt(square) + step.eps
    still = flat.all(axis=over[:-1], keepdims=True) | (divisor == 0)
    unit = np.where(still, 0.0, (y - mean) / np.where(still, 1.0, divisor))
    return (step.low + (step.high - step.low) * unit if step.kind == "min_max" else unit), moments


def _expect_leads(number: int, step: Normalise, leads: int) -> None:
    for name, values in (("mean", step.mean), ("std", step.std)):
        count = 1 if values is None else len(cast(tuple[float, ...], values))
        if count not in (1, leads):
            raise ValueError(f"steps[{number}]: {name} has {count} numbers for {leads} leads")


def _per_lead(name: str, given: Any, x: Tensor) -> Tensor | None:
    """A number for each lead, ``(N, L)`` float64, wherever it lies."""
    if given is None:
        return None
    values = torch.as_tensor(given, dtype=torch.float64)
    if values.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient, and preprocess has none")
    if values.shape not in ((), x.shape[:1], x.shape[:2]):
        raise ValueError(
            f"{name} must be a number, (N,) = ({x.shape[0]},) or (N, L) ="
            f" {tuple(x.shape[:2])}, got {tuple(values.shape)}"
        )
    return (values[:, None] if values.dim() == 1 else values).expand(x.shape[:2])


@functools.lru_cache(maxsize=64)
def _read(steps: str) -> Steps:
    return tuple(_NAMED[words.pop("step")](**words) for words in json.loads(steps))


@functools.lru_cache(maxsize=64)
def _plan(steps: str, work: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The steps as csrc/preprocess/bind.cpp reads them: words, numbers, taps and levels."""
    plan: list[list[int]] = []
    numbers: list[float] = []
    taps: list[float] = []
    levels: list[float] = []
    for step in _read(steps):
        if isinstance(step, Resample):
            if step.up == step.down:
                continue
            made = _phases(step)
            edges = 2 if step.mode == "linear" else int(step.padtype == "line")
            words = [0, step.up, step.down, made.offset, edges, len(taps), made.table.shape[1]]
            taps += made.table.ravel().tolist()
        elif isinstance(step, Filter):
            sos, padlen = cast(Any, step.sos), cast(int, step.padlen)
            words = [1, len(sos), PADTYPES.index(step.padtype), padlen, len(numbers)]
            numbers += [number for section in sos for number in section]
        elif isinstance(step, Normalise):
            mean, std = (cast(tuple[float, ...], v or ()) for v in (step.mean, step.std))
            words = [2, KINDS.index(step.kind), int(step.scope == "record"), int(step.eps_inside)]
            words += [len(numbers), len(levels), len(mean), len(std)]
            numbers += [step.eps, step.low, step.high]
            levels += [*mean, *std]
        else:
            words = [3, step.start, step.length]
        plan.append(words + [0] * (8 - len(words)))
    return (
        torch.tensor(plan, dtype=torch.int64).reshape(-1, 8),
        torch.tensor(numbers, dtype=torch.float64),
        torch.tensor(taps, dtype=work, device=device),
        torch.tensor(levels, dtype=torch.float64, device=device),
    )


def _phases(step: Resample) -> Polyphase:
    window = cast(Any, step.window)
    if step.mode == "linear":
        taps, offset = linear_filter(step.up)
    elif window[0] == "kaiser":
        taps = kaiser_filter(step.up, step.down, window[1])
        offset = (len(taps) - 1) // 2
    else:
        taps, offset = step.up * np.array(window), (len(window) - 1) // 2
    return polyphase(taps, offset, step.up, step.down)


def _preprocess_like(
    x: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    steps: str,
    missing: int | None,
    on_gap: str,
    restore: bool,
    dtype: torch.dtype,
) -> Tensor:
    samples = x.shape[2]
    for step in _read(steps):
        samples = step.samples(samples)
    return x.new_empty((*x.shape[:2], samples), dtype=dtype)


@register(
    "preprocess(Tensor x, Tensor? gain, Tensor? offset, str steps, int? missing, str on_gap,"
    " bool restore, ScalarType dtype) -> Tensor",
    _preprocess_like,
)
def _preprocess(
    x: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    steps: str,
    missing: int | None,
    on_gap: str,
    restore: bool,
    dtype: torch.dtype,
) -> Tensor:
    x = ready(x)
    work = torch.float64 if torch.float64 in (x.dtype, dtype) else torch.float32
    stores_half = x.is_cuda or (dtype == torch.bfloat16 and _C.preprocess_stores_bfloat16())
    stored = dtype if stores_half or dtype.itemsize > 2 else work
    y = _preprocess_like(x, gain, offset, steps, missing, on_gap, restore, stored)
    gaps = x.new_empty(x.shape[:2], dtype=torch.int32)
    scale, shift = (
        _ready_scale(name, values, default, x)
        for name, values, default in (("gain", gain, 1.0), ("offset", offset, 0.0))
    )
    plan = tuple(map(view, _plan(steps, work, x.device)))
    scratch = x.new_empty(_C.preprocess_scratch(view(x), *plan, view(y), place(x)), dtype=work)
    _C.preprocess(
        view(x),
        view(scale),
        view(shift),
        *plan,
        view(y),
        view(gaps),
        view(scratch),
        missing,
        native(on_gap),
        restore,
        place(x),
    )
    if on_gap == "raise" and gaps.any():
        refuse_gaps(x if missing is None else torch.where(x == missing, torch.nan, x), gaps)
    return y.to(dtype)


def _ready_scale(name: str, values: Tensor | None, default: float, x: Tensor) -> Tensor:
    """Numbers ``(N, L)`` where ``x`` is, looked at."""
    if values is None:
        return torch.full((), default, dtype=torch.float64, device=x.device).expand(x.shape[:2])
    wrong = ~values.isfinite()
    if name == "gain":
        wrong |= values == 0
    if wrong.any():
        record, lead = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must be finite{' and not 0' if name == 'gain' else ''}, got"
            f" {float(values[record, lead])} in record {record}, lead {lead}"
            f" ({int(wrong.any(dim=1).sum())} records in all): drop the records or mend it"
        )
    return values.to(x.device, non_blocking=True)
