"""Moving median, for baselines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops import _gaps
from ecgfast.ops._native import place, ready, register, signals, view
from ecgfast.ops._windows import MODES, expect_window, padded

_MOST_HELD = {torch.float32: 8191, torch.float64: 4095}  # kMostHeld, kMostHeldWide of contract.h
_MOST_CUDA_WINDOW = 2048  # leaves half of that to outputs
_DENSE = 32  # windows in a tile: of its ranks, one in so many is in the window
_SHORTEST = 512  # outputs of a tile, which pay for the counting


def moving_median(
    x: Tensor, window: int, *, mode: str = "reflect", on_gap: str = "raise"
) -> Tensor:
    r"""Takes the median of the ``window`` samples around every sample, along the last axis.

    .. math:: y_t = \operatorname{rank}_{\lfloor w/2 \rfloor}
        \{ x_{t - \lfloor w/2 \rfloor + k} : 0 \le k < w \}

    Equals ``scipy.ndimage.median_filter`` along the last axis, also for an even window, of whose
    two middle values it takes the upper one; with ``mode="constant"`` and an odd window it is
    ``scipy.signal.medfilt``. Where a window reaches beyond an end by more than the whole signal,
    it is the median of what ``numpy.pad`` puts there (scipy 1.17 is not). Every output is one of
    the samples, bit for bit; of zeros, -0 comes before +0.
    Signals never mix. Windows of any length take about the same time. Not differentiable.

    The baseline of an ECG is often taken as the median over 200 ms, which leaves out the QRS
    complex, and of that the one over 600 ms, which leaves out P and T waves:
    ``x - moving_median(moving_median(x, 0.2 s), 0.6 s)`` (de Chazal, O'Dwyer, Reilly: Automatic
    classification of heartbeats using ECG morphology and heartbeat interval features, 2004).

    Args:
        x: Signals, ``(..., T)``: time last. Any float dtype, leading axes and strides.
        window: Length in samples.
        mode: What stands beyond the ends, after a b c: "nearest" (c c), "reflect" (c b), "mirror"
            (b a), "constant" (0 0), "wrap" (a b).
        on_gap: What to do about samples that are NaN or infinite: "raise", "zero", "interpolate"
            (straight lines; ends hold; a signal without any value is 0), or "propagate": a NaN to
            the windows that hold it, an infinite value by its rank.

    Returns:
        Tensor ``(..., T)`` of the dtype of ``x``, in its unit.

    Raises:
        ValueError: If ``x`` has no samples or has gaps, ``window`` is not positive, or longer than
            2048 on CUDA, or a word is unknown.
        TypeError: If ``x`` is not of a float dtype or ``window`` no int.
        RuntimeError: If ``x`` requires a gradient.

    Example:
        >>> ecg = torch.randn(8, 12, 5000)  # 500 Hz
        >>> baseline = moving_median(moving_median(ecg, 100, mode="nearest"), 300, mode="nearest")
        >>> (ecg - baseline).shape
        torch.Size([8, 12, 5000])
    """
    expect_window(x, window, mode, MODES)
    _gaps.expect_policy(on_gap)
    if x.is_cuda and window > _MOST_CUDA_WINDOW:
        raise ValueError(f"window must be {_MOST_CUDA_WINDOW} at most on CUDA, got {window}")
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "moving_median is not differentiable and x requires a gradient: pass x.detach(), or"
            " use moving_average"
        )
    y, _ = _forward(x, window, mode, on_gap)
    return y


def moving_median_reference(
    x: Tensor, window: int, *, mode: str = "reflect", on_gap: str = "raise"
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    x = _gaps.fill_gaps_reference(x, on_gap)
    before = window // 2
    windows = padded(x, before, window - 1 - before, mode).unfold(-1, window, 1)
    median = windows.sort(dim=-1).values[..., before]
    return torch.where(windows.isnan().any(dim=-1), torch.nan, median)


def _forward_like(x: Tensor, window: int, mode: str, on_gap: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(math.prod(x.shape[:-1]), dtype=torch.int32)


@register(
    "moving_median(Tensor x, int window, str mode, str on_gap) -> (Tensor, Tensor)", _forward_like
)
def _forward(x: Tensor, window: int, mode: str, on_gap: str) -> tuple[Tensor, Tensor]:
    wide = signals(ready(x))
    samples, rows = x.shape[-1], wide.shape[0] * wide.shape[1]
    most = _MOST_HELD.get(wide.dtype, _MOST_HELD[torch.float32]) - window + 1
    tile = max(min(max(_DENSE * window, _SHORTEST), most), 1 if x.is_cuda else window)
    tiles = -(-samples // tile)
    tile = -(-samples // tiles)
    where = place(wide)
    y = wide.new_empty(wide.shape)
    gaps = wide.new_empty(rows, tiles, dtype=torch.int32)
    a_thread = ((tile + window - 1) * 48 + 127) // 64 * 64
    scratch = wide.new_empty(where[2], a_thread, dtype=torch.uint8)
    if rows:
        views = view(wide), view(y), view(gaps), view(scratch)
        _C.moving_median_forward(
            *views, window, tile, MODES.index(mode), _gaps.native(on_gap), where
        )
    total = gaps.sum(dim=1, dtype=torch.int32)
    if on_gap == "raise":
        _gaps.refuse_gaps(x, total)
    return y.view(x.shape).to(x.dtype), total
