"""Filters of second-order sections: forward and back without a shift, or forward alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._gaps import (
    expect_policy,
    fill_gaps_backward,
    fill_gaps_reference,
    native,
    refuse_gaps,
)
from ecgfast.ops._native import dense_like, place, ready, register, sum_dtype, view
from ecgfast.ops._sections import PADS, Sos, edge_of, refuse_unstable, sections

_WHOLE = 16384  # samples of the longest signals that the CPU holds whole: 1 MB, as large as L2


def sosfiltfilt(
    x: Tensor,
    sos: Sos,
    *,
    padtype: str | None = "odd",
    padlen: int | None = None,
    on_gap: str = "raise",
) -> Tensor:
    r"""Filters forward and then back in time, so that nothing is shifted.

    .. math:: y = S \, R Z \, R Z \, E \, x

    where :math:`E` adds ``padlen`` samples at both ends, :math:`Z` runs the sections from the
    states that an endless first sample leaves behind, :math:`R` turns time round and :math:`S`
    takes the added samples off: what ``scipy.signal.sosfiltfilt`` computes, edges included. The
    gain is that of the sections squared. Signals never mix, so a batch gives what its signals give
    one by one, bit for bit. The arithmetic is in float64 on the CPU, whatever the dtype; on CUDA
    in float32 for float32 and halves unless the filter asks for more.

    What is not held: it is not causal, and a signal cut in two is not filtered as the whole one
    is. Autocast does not touch it.

    Args:
        x: Signals, ``(..., T)``. Any float dtype and strides.
        sos: Sections ``(K, 6)``: b0 b1 b2 1 a1 a2 in each row, as ``output="sos"`` of scipy's
            designs gives them; 16 at most. An array, a tensor or rows of numbers.
        padtype: ``"odd"`` (2 x[0] - x[j]), ``"even"``, ``"constant"``, or None for no samples.
        padlen: How many samples are added at each end; scipy's default if None, 3 (2 K + 1) less
            3 for each section of first order.
        on_gap: What a NaN or infinite sample does: ``"raise"``, ``"zero"`` takes 0 for it,
            ``"interpolate"`` takes a straight line between its neighbours (the nearest value at
            an end, 0 in a signal of gaps alone), ``"propagate"`` leaves its signal without a
            finite value. On CUDA all but ``"propagate"`` wait for the device in the backward
            pass or, with ``"raise"``, at once.

    Returns:
        Tensor ``(..., T)`` of the dtype and unit of ``x``. Differentiable once, with respect to
        ``x``: the gradient is the exact transpose, edges and gaps included.

    Raises:
        ValueError: If a shape or word is not as above, a section is not finite or not stable, its
            a0 is not 1, ``x`` is not longer than ``padlen``, or has gaps and ``on_gap="raise"``.
        TypeError: If ``x`` is not of a float dtype.

    Example:
        >>> sos = [[0.0201, 0.0402, 0.0201, 1.0, -1.561, 0.6414]]  # low-pass, 25 of 500 Hz
        >>> sosfiltfilt(torch.randn(8, 12, 5000), sos).shape
        torch.Size([8, 12, 5000])
    """
    _expect_signal(x)
    expect_policy(on_gap)
    if padtype not in PADS:
        raise ValueError(f"padtype must be odd, even, constant or None, got {padtype!r}")
    if padlen is not None and padlen < 0:
        raise ValueError(f"padlen must be at least 0, got {padlen}")
    return _Sosfiltfilt.apply(x, sections(sos), padtype, padlen, on_gap)


def sosfilt(x: Tensor, sos: Sos, *, zi: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    r"""Filters forward in time; states go in and out, so that a stream may come in chunks.

    .. math:: y_n = b_0 x_n + s_1, \quad s_1' = b_1 x_n - a_1 y_n + s_2, \quad
        s_2' = b_2 x_n - a_2 y_n

    section after section, as ``scipy.signal.sosfilt`` along the last axis. The states are those of
    scipy with the time axis last. On the CPU chunks give the bits of one call. A NaN goes on to
    all later samples. Autocast does not touch it.

    Args:
        x: Signals, ``(..., T)``. Any float dtype and strides.
        sos: Sections ``(K, 6)``, as for ``sosfiltfilt``.
        zi: States before the first sample, ``(..., K, 2)``, float64 or the dtype of ``x``; zeros
            if None. ``scipy.signal.sosfilt_zi(sos) * x[..., :1, None]`` starts without a step.

    Returns:
        y: Tensor ``(..., T)`` of the dtype and unit of ``x``; and, if ``zi`` was given,
        zf: the states after the last sample, ``(..., K, 2)`` float64. Both differentiable once,
        with respect to ``x`` and ``zi``.

    Raises:
        ValueError: If a shape is not as above, or a section is not finite or not stable or its a0
            is not 1.
        TypeError: If ``x`` or ``zi`` is not of a float dtype.

    Example:
        >>> sos = [[0.0201, 0.0402, 0.0201, 1.0, -1.561, 0.6414]]
        >>> y, zf = sosfilt(torch.randn(12, 250), sos, zi=torch.zeros(12, 1, 2))
        >>> y.shape, zf.shape
        (torch.Size([12, 250]), torch.Size([12, 1, 2]))
    """
    _expect_signal(x)
    table = sections(sos)
    shape = (*x.shape[:-1], len(table), 2)
    if zi is None:
        states = x.new_zeros(shape, dtype=torch.float64)
    else:
        if tuple(zi.shape) != shape:
            raise ValueError(f"zi must be {shape}, got {tuple(zi.shape)}")
        if not zi.is_floating_point():
            raise TypeError(f"zi must be of a float dtype, got {zi.dtype}")
        if zi.device != x.device:
            raise ValueError(f"zi must be on {x.device} as x, got {zi.device}")
        states = zi.double()
    y, zf = _Sosfilt.apply(x, table, states)
    return y if zi is None else (y, zf)


def _expect_signal(x: Tensor) -> None:
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., T) with T > 0, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be of a float dtype, got {x.dtype}")


def sosfiltfilt_reference(
    x: Tensor,
    sos: Sos,
    *,
    padtype: str | None = "odd",
    padlen: int | None = None,
    on_gap: str = "propagate",
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    table = sections(sos)
    edge = edge_of(table, padtype, padlen)
    filled = fill_gaps_reference(x, on_gap)
    longer = _extended_reference(filled, padtype, edge)
    there = _steady_reference(longer, table)
    back = _steady_reference(there.flip(-1), table).flip(-1)
    return back[..., edge : edge + x.shape[-1]]


def _extended_reference(x: Tensor, padtype: str | None, edge: int) -> Tensor:
    if edge == 0:
        return x
    first, last = x[..., :1], x[..., -1:]
    if padtype == "constant":
        before, after = first.expand_as(x[..., :edge]), last.expand_as(x[..., :edge])
    else:
        before, after = x[..., 1 : edge + 1].flip(-1), x[..., -edge - 1 : -1].flip(-1)
    if padtype == "odd":
        before, after = 2 * first - before, 2 * last - after
    return torch.cat([before, x, after], dim=-1)


def _steady_reference(x: Tensor, table: Tensor) -> Tensor:
    """Through the sections, from the states that an endless first sample leaves behind."""
    level, steady = 1.0, []
    for b0, b1, b2, _, a1, a2 in table.tolist():
        gain = (b0 + b1 + b2) / (1 + a1 + a2)
        second = b2 - a2 * gain
        steady.append([level * (b1 - a1 * gain + second), level * second])
        level *= gain
    zi = torch.tensor(steady, dtype=x.dtype, device=x.device) * x[..., :1, None]
    return sosfilt_reference(x, table, zi=zi)[0]


def sosfilt_reference(x: Tensor, sos: Sos, *, zi: Tensor) -> tuple[Tensor, Tensor]:
    """The same in plain torch, in the dtype of ``x``."""
    rows = sections(sos).tolist()
    states = [list(pair.unbind(-1)) for pair in zi.to(x.dtype).unbind(-2)]
    outputs = []
    for value in x.unbind(-1):
        for (b0, b1, b2, _, a1, a2), s in zip(rows, states, strict=True):
            y = b0 * value + s[0]
            s[0], s[1] = b1 * value - a1 * y + s[1], b2 * value - a2 * y
            value = y
        outputs.append(value)
    final = torch.stack([torch.stack(pair, dim=-1) for pair in states], dim=-2)
    return torch.stack(outputs, dim=-1), final


def _rows(x: Tensor) -> Tensor:
    """As kernels take it: (N, L, T), of any strides but the last."""
    x = ready(x)
    while x.dim() < 3:
        x = x[None]
    return x.flatten(0, -3)


def _scratch(x: Tensor, edge: int) -> Tensor:
    shape = _C.sosfiltfilt_scratch(view(x), edge, _WHOLE, place(x))
    return torch.empty(shape, dtype=sum_dtype(x), device=x.device)


def _forward_like(
    x: Tensor, sos: Tensor, padtype: str | None, padlen: int | None, on_gap: str
) -> tuple[Tensor, Tensor]:
    return dense_like(x), x.new_empty(x.shape[:-1], dtype=torch.int32)


@register(
    "sosfiltfilt(Tensor x, Tensor sos, str? padtype, int? padlen, str on_gap) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor, sos: Tensor, padtype: str | None, padlen: int | None, on_gap: str
) -> tuple[Tensor, Tensor]:
    refuse_unstable(sos)
    edge = edge_of(sos, padtype, padlen)
    if x.shape[-1] <= edge:
        raise ValueError(
            f"x must have more than padlen = {edge} samples, got {x.shape[-1]}: pass longer"
            " signals, a smaller padlen, or padtype=None"
        )
    signal = _rows(x)
    y = dense_like(signal)
    gaps = x.new_empty(signal.shape[:2], dtype=torch.int32)
    sos, scratch = sos.contiguous(), _scratch(signal, edge)
    _C.sosfiltfilt_forward(
        view(signal),
        view(sos),
        view(y),
        view(gaps),
        view(scratch),
        PADS.index(padtype),
        edge,
        native(on_gap),
        place(signal),
    )
    if on_gap == "raise":
        refuse_gaps(x, gaps)
    return y.view(x.shape).to(x.dtype), gaps.view(x.shape[:-1])


def _backward_like(
    grad_y: Tensor,
    x: Tensor | None,
    gaps: Tensor,
    sos: Tensor,
    padtype: str | None,
    padlen: int | None,
    on_gap: str,
) -> Tensor:
    return dense_like(grad_y)


@register(
    "sosfiltfilt_backward(Tensor grad_y, Tensor? x, Tensor gaps, Tensor sos, str? padtype,"
    " int? padlen, str on_gap) -> Tensor",
    _backward_like,
)
def _backward(
    grad_y: Tensor,
    x: Tensor | None,
    gaps: Tensor,
    sos: Tensor,
    padtype: str | None,
    padlen: int | None,
    on_gap: str,
) -> Tensor:
    edge = edge_of(sos, padtype, padlen)
    g = _rows(grad_y)
    grad_x = dense_like(g)
    sos, scratch = sos.contiguous(), _scratch(g, edge)
    _C.sosfiltfilt_backward(
        view(g),
        view(sos),
        view(grad_x),
        view(scratch),
        PADS.index(padtype),
        edge,
        place(g),
    )
    grad_x = grad_x.view(grad_y.shape).to(grad_y.dtype)
    return grad_x if x is None else fill_gaps_backward(grad_x, x, gaps, on_gap)


class _Sosfiltfilt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sos: Tensor, padtype: str | None, padlen: int | None, on_gap: str
    ) -> Tensor:
        y, gaps = _forward(x, sos, padtype, padlen, on_gap)
        ctx.save_for_backward(x if native(on_gap) else None, gaps, sos)
        ctx.how = (padtype, padlen, on_gap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(grad_y, *ctx.saved_tensors, *ctx.how), None, None, None, None


def _causal_like(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    return dense_like(x), dense_like(zi)


@register("sosfilt(Tensor x, Tensor sos, Tensor zi) -> (Tensor, Tensor)", _causal_like)
def _causal(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    refuse_unstable(sos)
    return _run_causal(_C.sosfilt_forward, x, sos, zi)


@register(
    "sosfilt_backward(Tensor grad_y, Tensor sos, Tensor grad_zf) -> (Tensor, Tensor)", _causal_like
)
def _causal_backward(grad_y: Tensor, sos: Tensor, grad_zf: Tensor) -> tuple[Tensor, Tensor]:
    return _run_causal(_C.sosfilt_backward, grad_y, sos, grad_zf)


def _run_causal(kernel: Any, x: Tensor, sos: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    signal = _rows(x)
    before = states.reshape(*signal.shape[:2], len(sos), 2).contiguous()
    y, after = dense_like(signal), dense_like(before)
    sos, scratch = sos.contiguous(), _scratch(signal, 0)
    kernel(
        view(signal),
        view(sos),
        view(before),
        view(y),
        view(after),
        view(scratch),
        place(signal),
    )
    return y.view(x.shape).to(x.dtype), after.view(states.shape)


class _Sosfilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(sos)
        return _causal(x, sos, zi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_zf: Tensor) -> tuple[Tensor, None, Tensor]:
        grad_x, grad_zi = _causal_backward(grad_y, *ctx.saved_tensors, grad_zf)
        return grad_x, None, grad_zi
