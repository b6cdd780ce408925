"""Resampling by a rational factor."""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops import _gaps
from ecgfast.ops._native import place, ready, register, signals, sum_dtype, view
from ecgfast.ops._polyphase import (
    Polyphase,
    kaiser_filter,
    linear_filter,
    output_length,
    polyphase,
    reduced,
    transposed,
)

_BACKGROUNDS = ("mean", "median", "maximum", "minimum")
_PADTYPES = ("constant", "line", *_BACKGROUNDS)
_MODES = ("polyphase", "linear")
_OUTSIDE = ("zeros", "hold", "line")  # numbered as in contract.h
_ROWS = 16  # kRows of contract.h
_HELD = 8192  # floats of inputs and outputs in a tile of one row: 16 rows of them stay in L2
_KAISER = ("kaiser", 5.0)

_Design: TypeAlias = tuple[bytes | None, int, int, str, float]  # taps, up, down, mode, beta
_Plan: TypeAlias = tuple[Polyphase, Tensor]  # with its table on a device


def resample_poly(
    x: Tensor,
    up: int,
    down: int,
    *,
    mode: str = "polyphase",
    window: tuple[str, float] | ArrayLike | Tensor = _KAISER,
    padtype: str = "constant",
    on_gap: str = "raise",
) -> Tensor:
    r"""Changes the sampling rate by ``up / down``, along the last axis.

    .. math:: y_n = \sum_i h_{n d + c - i u} \, x_i, \quad u = up, \; d = down

    Equals ``scipy.signal.resample_poly(x, up, down, axis=-1, window=window, padtype=padtype)``:
    ``h`` is a low-pass of length ``20 max(u, d) + 1`` below half of the lower rate, ``c`` its
    middle, so that nothing is shifted and no frequency folds back. Beyond its ends the signal is
    taken as 0, which bends the ends of a signal with an offset: ``padtype`` puts something else
    there. ``mode="linear"`` joins neighbours by straight lines, as ``numpy.interp`` does at times
    ``n d / u`` of input samples, and holds the ends; frequencies above half of the new rate fold
    back, as they do in published work that resamples so.

    Any rational ratio will do, 257 to 250 Hz too: each output has its own few taps. Signals never
    mix, and an output does not depend on how many others there are. Autocast does not touch it.

    Args:
        x: Signals, ``(..., T)``: time last. Any float dtype, leading axes and strides.
        up: Factor of the new rate; only ``up / down`` counts.
        down: Factor of the old rate, as 500 for 500 Hz to 250 Hz with ``up=250``.
        mode: "polyphase" or "linear".
        window: ("kaiser", beta) for scipy's design, or the taps of a filter at ``up`` times the
            old rate, ``(taps,)``, with gain 1. Not differentiated.
        padtype: What is taken beyond the ends: "constant" (0), "line" (through both ends), or
            "mean", "median", "maximum", "minimum" of the signal.
        on_gap: What to do about samples that are NaN or infinite: "raise", "zero", "interpolate"
            (straight lines; ends hold; a signal without any value is 0), or "propagate" to all
            outputs whose taps reach it. Only signals with gaps pay for it.

    Returns:
        Tensor ``(..., ceil(T * up / down))`` of the dtype of ``x``, in its unit. Differentiable
        once, also through filled gaps.

    Raises:
        ValueError: If ``x`` has no samples or has gaps, the ratio's terms are huge, ``window`` is
            no filter, or a word is unknown.
        TypeError: If ``x`` is not of a float dtype, or ``up`` or ``down`` no int.

    Example:
        >>> resample_poly(torch.randn(8, 12, 5000), 250, 500).shape
        torch.Size([8, 12, 2500])
    """
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., T) with T > 0, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be of a float dtype, got {x.dtype}")
    for name, term in (("up", up), ("down", down)):
        if not isinstance(term, int):
            raise TypeError(f"{name} must be an int, got {term!r}")
    for name, word, words in (("mode", mode, _MODES), ("padtype", padtype, _PADTYPES)):
        if word not in words:
            raise ValueError(f"{name} must be one of {', '.join(words)}, got {word!r}")
    _gaps.expect_policy(on_gap)
    if padtype == "line" and x.shape[-1] < 2:
        raise ValueError("padtype='line' needs two samples at least, got 1")
    up, down = reduced(up, down)
    taps, beta = _window(window)
    if mode == "linear":
        if taps is not None or beta != _KAISER[1] or padtype != "constant":
            raise ValueError("mode='linear' has no filter: leave window and padtype as they are")
        outside = "hold"
    elif up == down == 1:
        outside, mode, padtype = "hold", "linear", "constant"  # a copy, as in scipy
    else:
        outside = "line" if padtype == "line" else "zeros"
    if padtype not in _BACKGROUNDS:
        return _ResamplePoly.apply(x, taps, up, down, mode, beta, outside, on_gap)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    filled = _ResamplePoly.apply(wide, None, 1, 1, "linear", beta, "hold", on_gap)
    background = _background(filled, padtype)
    y = _ResamplePoly.apply(filled - background, taps, up, down, mode, beta, outside, "propagate")
    return (y + background).to(x.dtype)


def resample_poly_reference(
    x: Tensor,
    up: int,
    down: int,
    *,
    mode: str = "polyphase",
    window: tuple[str, float] | ArrayLike | Tensor = _KAISER,
    padtype: str = "constant",
    on_gap: str = "raise",
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    x = _gaps.fill_gaps_reference(x, on_gap)
    up, down = reduced(up, down)
    if up == down == 1:
        return x.clone()
    outputs = output_length(x.shape[-1], up, down)
    if mode == "linear":
        at = torch.arange(outputs, device=x.device) * down
        before = at // up
        weight = (at % up).to(x.dtype) / up
        after = (before + 1).clamp(max=x.shape[-1] - 1)
        return x[..., before] * (1 - weight) + x[..., after] * weight
    background = _background(x, padtype) if padtype in _BACKGROUNDS else 0
    given, beta = _window(window)
    taps, offset = _filter(_design(given, up, down, mode, beta))
    h = torch.from_numpy(taps.copy()).to(x)
    # A margin on both sides, zeros between samples, the whole filter at every output.
    margin = len(h) // up + 1
    i = torch.arange(-margin, x.shape[-1] + margin, device=x.device)
    padded = torch.nn.functional.pad(x - background, (margin, margin))
    if padtype == "line":
        slope = (x[..., -1:] - x[..., :1]) / (x.shape[-1] - 1)
        outside = (i < 0) | (i >= x.shape[-1])
        padded = torch.where(outside, x[..., :1] + slope * i, padded)
    stuffed = torch.nn.functional.pad(padded[..., None], (0, up - 1)).flatten(-2)
    first = offset + margin * up - (len(h) - 1)
    stuffed = torch.nn.functional.pad(stuffed, (max(0, -first), len(h) + down))
    stuffed = stuffed[..., max(0, first) :].reshape(-1, 1, stuffed.shape[-1] - max(0, first))
    y = torch.nn.functional.conv1d(stuffed, h.flip(0)[None, None], stride=down)[..., :outputs]
    return y.reshape(*x.shape[:-1], outputs) + background


def _background(x: Tensor, padtype: str) -> Tensor:
    """One value for each signal, ``(..., 1)``, as numpy has it."""
    if padtype == "mean":
        return x.mean(dim=-1, keepdim=True)
    if padtype == "maximum":
        return x.amax(dim=-1, keepdim=True)
    if padtype == "minimum":
        return x.amin(dim=-1, keepdim=True)
    middle = x.shape[-1] - 1
    in_order = x.sort(dim=-1).values  # NaN last
    median = (in_order[..., middle // 2] + in_order[..., (middle + 1) // 2]) / 2
    return torch.where(in_order[..., -1].isnan(), torch.nan, median)[..., None]


def _window(window: tuple[str, float] | ArrayLike | Tensor) -> tuple[Tensor | None, float]:
    """The taps, None for the default design, and its beta."""
    if isinstance(window, str) or (isinstance(window, tuple) and isinstance(window[0], str)):
        name, beta = cast("tuple[str, float]", window) if len(window) == 2 else (window, 0.0)
        if name == "kaiser" and -math.inf < beta < math.inf:
            return None, beta
        raise ValueError(
            f"window must be ('kaiser', beta) or taps, got {window!r}; for other windows pass"
            " taps, as of scipy.signal.firwin"
        )
    if isinstance(window, Tensor) and window.requires_grad:
        raise ValueError("window is not differentiated: pass window.detach()")
    taps = torch.as_tensor(window, dtype=torch.float64, device="cpu").contiguous()
    if taps.dim() != 1 or len(taps) == 0:
        raise ValueError(f"the taps of window must be (taps,), got {tuple(taps.shape)}")
    missing = int((~taps.isfinite()).sum())
    if missing:
        raise ValueError(f"window has {missing} of {len(taps)} taps that are not finite")
    return taps, 0.0


def _filter(design: _Design) -> tuple[NDArray[np.float64], int]:
    """Taps with gain ``up``, and which of them stands at time 0."""
    window, up, down, mode, beta = design
    if mode == "linear":
        return linear_filter(up)
    taps = kaiser_filter(up, down, beta) if window is None else up * np.frombuffer(window)
    return taps, (len(taps) - 1) // 2


def _design(window: Tensor | None, up: int, down: int, mode: str, beta: float) -> _Design:
    return None if window is None else window.numpy().tobytes(), up, down, mode, beta


@functools.lru_cache(maxsize=64)
def _forward_plan(design: _Design, dtype: torch.dtype, device: torch.device) -> _Plan:
    _, up, down, _, _ = design
    return _plan(polyphase(*_filter(design), up, down), dtype, device)


@functools.lru_cache(maxsize=64)
def _backward_plan(design: _Design, before: int, dtype: torch.dtype, device: torch.device) -> _Plan:
    _, up, down, _, _ = design
    return _plan(transposed(*_filter(design), up, down, before), dtype, device)


def _plan(filter: Polyphase, dtype: torch.dtype, device: torch.device) -> _Plan:
    """Rows an odd number of elements apart: in CUDA's shared memory they lie in other banks."""
    per = filter.table.shape[1]
    table = np.pad(filter.table, ((0, 0), (0, 1 - per % 2)))
    return filter, torch.from_numpy(table).to(dtype=dtype, device=device)[:, :per]


def _run(x: Tensor, plan: _Plan, outputs: int, outside: str, on_gap: str) -> tuple[Tensor, Tensor]:
    """``(N, L, outputs)``, and how many gaps each signal has, ``(N L,)``."""
    filter, taps = plan
    rows, per = x.shape[0] * x.shape[1], taps.shape[1]
    held = max(_HELD * 4 // taps.element_size(), 2 * per)
    tile = max(1, min((held - per) * filter.up // (filter.up + filter.down), outputs))
    tiles = -(-outputs // tile)
    tile = -(-outputs // tiles)
    held = per + (tile + 2) * filter.down // filter.up + 4
    bytes_a_thread = -(-(held + tile) * _ROWS * taps.element_size() // 64) * 64
    where = place(x)
    y = x.new_empty(*x.shape[:2], outputs)
    gaps = x.new_empty(rows, tiles, dtype=torch.int32)
    scratch = x.new_empty(where[2], bytes_a_thread, dtype=torch.uint8)
    if rows == 0:
        return y, x.new_empty(0, dtype=torch.int32)
    _C.resample_poly_forward(
        view(x),
        view(taps),
        view(y),
        view(gaps),
        view(scratch),
        filter.up,
        filter.down,
        filter.offset,
        _OUTSIDE.index(outside),
        _gaps.native(on_gap),
        tile,
        where,
    )
    return y, gaps.sum(dim=1, dtype=torch.int32)


def _forward_like(
    x: Tensor,
    window: Tensor | None,
    up: int,
    down: int,
    mode: str,
    beta: float,
    outside: str,
    on_gap: str,
) -> tuple[Tensor, Tensor]:
    rows = math.prod(x.shape[:-1])
    y = x.new_empty(*x.shape[:-1], output_length(x.shape[-1], up, down))
    return y, x.new_empty(rows, dtype=torch.int32)


@register(
    "resample_poly(Tensor x, Tensor? window, int up, int down, str mode, float beta, str outside,"
    " str on_gap) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor,
    window: Tensor | None,
    up: int,
    down: int,
    mode: str,
    beta: float,
    outside: str,
    on_gap: str,
) -> tuple[Tensor, Tensor]:
    wide = signals(ready(x))
    plan = _forward_plan(_design(window, up, down, mode, beta), sum_dtype(wide), wide.device)
    outputs = output_length(x.shape[-1], up, down)
    y, gaps = _run(wide, plan, outputs, outside, on_gap)
    if on_gap == "raise":
        _gaps.refuse_gaps(x, gaps)
    return y.view(*x.shape[:-1], outputs).to(x.dtype), gaps


def _backward_like(
    grad_y: Tensor,
    x: Tensor | None,
    gaps: Tensor,
    samples: int,
    window: Tensor | None,
    up: int,
    down: int,
    mode: str,
    beta: float,
    outside: str,
    on_gap: str,
) -> Tensor:
    return grad_y.new_empty(*grad_y.shape[:-1], samples)


@register(
    "resample_poly_backward(Tensor grad_y, Tensor? x, Tensor gaps, int samples, Tensor? window,"
    " int up, int down, str mode, float beta, str outside, str on_gap) -> Tensor",
    _backward_like,
)
def _backward(
    grad_y: Tensor,
    x: Tensor | None,
    gaps: Tensor,
    samples: int,
    window: Tensor | None,
    up: int,
    down: int,
    mode: str,
    beta: float,
    outside: str,
    on_gap: str,
) -> Tensor:
    g = signals(ready(grad_y))
    design, dtype = _design(window, up, down, mode, beta), sum_dtype(g)
    before = after = 0
    if outside != "zeros":
        filter, _ = _forward_plan(design, dtype, g.device)
        before = max(0, -filter.first_input(0))
        after = max(0, filter.end_input(g.shape[-1]) - samples)
    plan = _backward_plan(design, before, dtype, g.device)
    grad_x, _ = _run(g, plan, before + samples + after, "zeros", "propagate")
    if outside != "zeros":
        grad_x = _folded(grad_x, before, samples, outside)
    grad_x = grad_x.view(*grad_y.shape[:-1], samples)
    if x is not None:
        grad_x = _gaps.fill_gaps_backward(grad_x, x, gaps, on_gap)
    return grad_x.to(grad_y.dtype)


def _folded(grad: Tensor, before: int, samples: int, outside: str) -> Tensor:
    """What stands outside is made of the first and the last sample: so are their gradients."""
    inside = grad[..., before : before + samples].contiguous()
    i = torch.arange(-before, grad.shape[-1] - before, device=grad.device, dtype=grad.dtype)
    last = (i >= samples).to(grad.dtype) if outside == "hold" else i / (samples - 1)
    i_outside = (i < 0) | (i >= samples)
    beside = grad[..., i_outside]
    inside[..., 0] += (beside * (1 - last[i_outside])).sum(dim=-1)
    inside[..., -1] += (beside * last[i_outside]).sum(dim=-1)
    return inside


class _ResamplePoly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Tensor | None, *how: Any) -> Tensor:
        y, gaps = _forward(x, window, *how)
        filled = how[-1] in ("zero", "interpolate")
        ctx.save_for_backward(x if filled else None, gaps, window)
        ctx.samples, ctx.how = x.shape[-1], how
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gaps, window = ctx.saved_tensors
        return _backward(grad_y, x, gaps, ctx.samples, window, *ctx.how), *(None,) * 7
