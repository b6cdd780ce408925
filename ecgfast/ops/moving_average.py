"""Moving average, for baselines and envelopes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops import _gaps
from ecgfast.ops._native import place, ready, register, signals, view
from ecgfast.ops._windows import MODES, expect_window, folded, padded

_ROWS = 16  # kRows of contract.h
_TILE = 5120  # outputs: 10 s at 500 Hz
_MOST_CUDA_WINDOW = 8192  # kMostCudaWindow of contract.h


def moving_average(
    x: Tensor, window: int, *, mode: str = "reflect", on_gap: str = "raise"
) -> Tensor:
    r"""Takes the mean of the ``window`` samples around every sample, along the last axis.

    .. math:: y_t = \frac1w \sum_{k=0}^{w-1} x_{t - \lfloor w/2 \rfloor + k}

    Equals ``scipy.ndimage.uniform_filter1d(x, window, axis=-1, mode=mode)``, also for an even
    window, which holds one sample more of the past than of the future, and for one that is longer
    than the signal. Any window takes the same time. Signals never mix. Sums do not drift, however
    long the signal. Autocast does not touch it.

    Args:
        x: Signals, ``(..., T)``: time last. Any float dtype, leading axes and strides.
        window: Length in samples.
        mode: What stands beyond the ends, after a b c: "nearest" (c c), "reflect" (c b), "mirror"
            (b a), "constant" (0 0), "wrap" (a b).
        on_gap: What to do about samples that are NaN or infinite: "raise", "zero", "interpolate"
            (straight lines; ends hold; a signal without any value is 0), or "propagate" to the
            windows that hold them, and no further. Only signals with gaps pay for it.

    Returns:
        Tensor ``(..., T)`` of the dtype of ``x``, in its unit. Differentiable once, also through
        filled gaps.

    Raises:
        ValueError: If ``x`` has no samples or has gaps, ``window`` is not positive, or longer than
            8192 on CUDA, or a word is unknown.
        TypeError: If ``x`` is not of a float dtype or ``window`` no int.

    Example:
        >>> ecg = torch.randn(8, 12, 5000)
        >>> (ecg - moving_average(ecg, 300, mode="nearest")).shape  # 600 ms at 500 Hz
        torch.Size([8, 12, 5000])
    """
    expect_window(x, window, mode, MODES)
    _gaps.expect_policy(on_gap)
    if x.is_cuda and window > _MOST_CUDA_WINDOW:
        raise ValueError(f"window must be {_MOST_CUDA_WINDOW} at most on CUDA, got {window}")
    return _MovingAverage.apply(x, window, mode, on_gap)


def moving_average_reference(
    x: Tensor, window: int, *, mode: str = "reflect", on_gap: str = "raise"
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    x = _gaps.fill_gaps_reference(x, on_gap)
    before = window // 2
    return padded(x, before, window - 1 - before, mode).unfold(-1, window, 1).mean(dim=-1)


def _run(
    x: Tensor, outputs: int, window: int, left: int, start: int, mode: str, on_gap: str
) -> tuple[Tensor, Tensor]:
    """Means of ``x[start + j - left :][:window]``; how many gaps each signal has, ``(N L,)``."""
    rows = x.shape[0] * x.shape[1]
    tile = _TILE if x.is_cuda else max(_TILE, window)
    where = place(x)
    y = x.new_empty(*x.shape[:2], outputs)
    gaps = x.new_empty(rows, -(-outputs // tile), dtype=torch.int32)
    tile = min(tile, outputs)
    a_thread = -(-(tile + window - 1) * _ROWS * x.element_size() // 64) * 64
    scratch = x.new_empty(where[2], a_thread, dtype=torch.uint8)
    if rows:
        views = view(x), view(y), view(gaps), view(scratch)
        numbers = window, left, start, tile, MODES.index(mode), _gaps.native(on_gap)
        _C.moving_average_forward(*views, *numbers, where)
    return y, gaps.sum(dim=1, dtype=torch.int32)


def _forward_like(x: Tensor, window: int, mode: str, on_gap: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(math.prod(x.shape[:-1]), dtype=torch.int32)


@register(
    "moving_average(Tensor x, int window, str mode, str on_gap) -> (Tensor, Tensor)", _forward_like
)
def _forward(x: Tensor, window: int, mode: str, on_gap: str) -> tuple[Tensor, Tensor]:
    y, gaps = _run(signals(ready(x)), x.shape[-1], window, window // 2, 0, mode, on_gap)
    if on_gap == "raise":
        _gaps.refuse_gaps(x, gaps)
    return y.view(x.shape).to(x.dtype), gaps


def _backward_like(
    grad_y: Tensor, x: Tensor | None, gaps: Tensor, window: int, mode: str, on_gap: str
) -> Tensor:
    return grad_y.new_empty(grad_y.shape)


@register(
    "moving_average_backward(Tensor grad_y, Tensor? x, Tensor gaps, int window, str mode,"
    " str on_gap) -> Tensor",
    _backward_like,
)
def _backward(
    grad_y: Tensor, x: Tensor | None, gaps: Tensor, window: int, mode: str, on_gap: str
) -> Tensor:
    g = signals(ready(grad_y))
    samples, before = g.shape[-1], window // 2
    left = window - 1 - before
    if mode == "constant":  # what falls outside is of no use
        grad_x, _ = _run(g, samples, window, left, 0, "constant", "propagate")
    else:
        outputs = before + samples + left
        grad_x, _ = _run(g, outputs, window, left, -before, "constant", "propagate")
        grad_x = folded(grad_x, before, samples, mode)
    grad_x = grad_x.view(grad_y.shape)
    if x is not None:
        grad_x = _gaps.fill_gaps_backward(grad_x, x, gaps, on_gap)
    return grad_x.to(grad_y.dtype)


class _MovingAverage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int, mode: str, on_gap: str) -> Tensor:
        y, gaps = _forward(x, window, mode, on_gap)
        ctx.save_for_backward(x if on_gap in ("zero", "interpolate") else None, gaps)
        ctx.how = window, mode, on_gap
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(grad_y, *ctx.saved_tensors, *ctx.how), None, None, None
