"""Dynamic time warping with a soft minimum between records, which has a gradient."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, register, sum_dtype, view
from ecgfast.ops._warping import (
    Lengths,
    checked_lengths,
    computed,
    expect_sides,
    expect_word,
    flags,
    lengths_of,
    radius_of,
    refuse_gaps,
)

PAIRS = ("all", "aligned")
_LOG2_E = math.log2(math.e)


def soft_dtw(
    x: Tensor,
    y: Tensor | None = None,
    gamma: float = 1.0,
    *,
    radius: int | float | None = None,
    lengths: Lengths | tuple[Lengths | None, Lengths | None] | None = None,
    pairs: str = "all",
    divergence: bool = False,
    on_gap: str = "propagate",
) -> Tensor:
    r"""Compares records with time warped, all leads together, so that it can be trained on.

    .. math::
        R(s, t) = \sum_l (x_{ls} - y_{lt})^2 + {\min}^\gamma\{R(s{-}1, t), R(s, t{-}1),
        R(s{-}1, t{-}1)\}, \quad {\min}^\gamma\{a_k\} = -\gamma \log \sum_k e^{-a_k / \gamma}

    and the value is :math:`R(n{-}1, m{-}1)`: that of ``dtw(root=False)`` when ``gamma`` goes to 0,
    less the more paths are nearly as short. tslearn's ``soft_dtw`` and ``cdist_soft_dtw`` give the
    same (Cuturi, Blondel: Soft-DTW, a differentiable loss function for time-series, ICML 2017).
    The band of ``radius`` is that of ``dtw``: it holds the difference of lengths.

    A value is not a distance: it may be negative, and that of a record and itself is not 0.
    ``divergence`` takes the mean of both self-comparisons off, which makes that 0 (Blondel, Mensch,
    Vert: Differentiable divergences between time series, AISTATS 2021). Values do not depend on
    the other records or on the number of threads, and without ``y`` they are symmetric bit for
    bit, each pair computed once; gradients add in a fixed order. For a gradient one row of R in 64
    is held on the CPU, T * U / 64 numbers a pair; nothing on CUDA, where R is made again in about
    0.5 GB of scratch at most; never T * U. Weights of paths are exponentials of differences of R,
    so float32 leaves gradients an error of about the largest value times 6e-8 / gamma of their own
    size; above 1 % a warning says so (on the CPU: a GPU is not waited for). Pass float64, or a
    larger ``gamma``, or ``lengths`` and records that are shorter. Autocast does not touch it.
    Lengths that lie on a GPU are read from it once.

    Args:
        x: Records, ``(N, L, T)``: leads before time; more leads than samples warn, since the axes
            are then likely swapped. Any float dtype and strides; 24 leads at most on CUDA, and
            float64 on the CPU alone.
        y: Records to compare with, ``(M, L, U)``, of the dtype and device of ``x``; None is ``x``.
        gamma: How soft the minimum is, in the square of the unit of ``x``; over 0.
        radius: Samples that a path may leave the diagonal by; None for any number. A float in
            [0, 1] is a share of the shorter record of each pair, rounded towards 0.
        lengths: Samples of each record of ``x``, ``(N,)``, where what follows is padding; with
            ``y`` a pair of such, each of which may be None.
        pairs: "all" compares every record of ``x`` with every one of ``y``; "aligned" the first
            with the first, the second with the second and so on.
        divergence: Whether to take off half of either record's value with itself.

        on_gap: What to do about a record with a sample that is NaN or infinite: "propagate", all
            its values are NaN, or "raise", which names it, and waits for a GPU.

    Returns:
        Tensor ``(N, M)``, for aligned pairs ``(N,)``, in the square of the unit of ``x``; float32,
        or float64 for float64. Differentiable once, by ``x`` and ``y``. All values of a record
        with a sample that is NaN or infinite are NaN; these, and values beyond the dtype, which are
        infinite, have no part in any gradient. Padding has gradient 0.

    Raises:
        ValueError: If a shape, length, radius, ``gamma`` or word is not as above, the leads or
            devices of both differ, or aligned pairs lack ``y`` or a partner.
        TypeError: If ``x`` is not of a float dtype, ``y`` not of the same, or float64 on CUDA.

    Example:
        >>> ecg = torch.randn(8, 12, 500)
        >>> soft_dtw(ecg, ecg.roll(1, 0), gamma=10.0, pairs="aligned").shape
        torch.Size([8])
    """
    _expect_how(gamma, radius, pairs)
    expect_sides(x, y)
    aligned = pairs == "aligned"
    if aligned and y is None:
        raise ValueError("pairs='aligned' compares x with y: pass y")
    if aligned and y is not None and len(y) != len(x):
        raise ValueError(
            f"pairs='aligned' needs as many records in y as in x, got {len(y)} and {len(x)}"
        )
    x_lengths, y_lengths = lengths_of(lengths, x, y)
    refuse_gaps(on_gap, "x", x, x_lengths)
    refuse_gaps(on_gap, "y", y, y_lengths)
    how = float(gamma), *radius_of(radius)
    value: Tensor = _SoftDtw.apply(x, y, x_lengths, y_lengths, *how, aligned)
    if not divergence:
        return value
    if y is None:
        own = other = value.diagonal()
    else:
        own = _SoftDtw.apply(x, x, x_lengths, x_lengths, *how, True)
        other = _SoftDtw.apply(y, y, y_lengths, y_lengths, *how, True)
    return value - ((own + other) if aligned else (own[:, None] + other)) / 2


def soft_dtw_reference(
    x: Tensor,
    y: Tensor | None = None,
    gamma: float = 1.0,
    *,
    radius: int | float | None = None,
    lengths: Any = None,
    pairs: str = "all",
    divergence: bool = False,
) -> Tensor:
    """The same in plain torch, in float64: slow, obvious, the truth for tests and benchmarks."""
    own_lengths, other_lengths = lengths if isinstance(lengths, tuple) else (lengths, lengths)
    rows, n, sane_rows = _cut_reference(x, own_lengths)
    columns, m, sane_columns = _cut_reference(x if y is None else y, other_lengths)
    if pairs == "all":
        rows, n, sane_rows = rows[:, None], n[:, None], sane_rows[:, None]
    shape = torch.broadcast_shapes(n.shape, m.shape)
    value = _warped_reference(rows, columns, n.expand(shape), m.expand(shape), gamma, radius)
    value = value.where(sane_rows & sane_columns, torch.nan).to(sum_dtype(x))
    if not divergence:
        return value
    words: dict[str, Any] = dict(gamma=gamma, radius=radius, pairs="aligned")
    own = soft_dtw_reference(x, x, lengths=(own_lengths, own_lengths), **words)
    other = own if y is None else soft_dtw_reference(y, y, lengths=(other_lengths,) * 2, **words)
    return value - ((own[:, None] if pairs == "all" else own) + other) / 2


def _cut_reference(records: Tensor, lengths: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Records without what follows them, their lengths, and whether they are finite."""
    samples = records.shape[-1]
    n = torch.as_tensor([samples] * len(records) if lengths is None else lengths)
    n = n.to(records.device)
    inside = torch.arange(samples, device=records.device) < n[:, None, None]
    cut = records.double().where(inside, 0.0)
    sane = cut.isfinite().all(dim=(1, 2))
    return cut.where(sane[:, None, None], 0.0), n, sane


def _warped_reference(
    rows: Tensor, columns: Tensor, n: Tensor, m: Tensor, gamma: float, radius: int | float | None
) -> Tensor:
    """R(n - 1, m - 1), along diagonals of cells (s, t) that do not need each other."""
    samples, most = rows.shape[-1], columns.shape[-1]
    far = torch.full((*n.shape, samples + 1), 1e30, dtype=torch.float64, device=n.device)
    if radius is None:
        radius = samples + most
    share = isinstance(radius, float)
    reach = (radius * torch.minimum(n, m).double()).long() if share else torch.full_like(n, radius)
    low = -reach - (n - m).clamp(min=0)
    high = reach + (m - n).clamp(min=0)
    before = far
    here = far.index_fill(-1, torch.zeros(1, dtype=torch.long, device=n.device), 0.0)  # R(-1, -1)
    diagonals = []  # R(s, k - s) of diagonal k, at place s + 1
    for k in range(samples + most - 1):
        s = torch.arange(max(0, k - most + 1), min(samples, k + 1), device=n.device)
        local = (rows[..., s] - columns[..., k - s]).square().sum(dim=-2)
        # a diagonal back from the left and above, two back from between them
        left, above, between = here[..., s + 1], here[..., s], before[..., s]
        if k == 0:
            left, above, between = far[..., s], far[..., s], here[..., s]
        nearest = -gamma * (torch.stack([left, above, between]) / -gamma).logsumexp(dim=0)
        off = k - 2 * s
        inside = (low[..., None] <= off) & (off <= high[..., None])
        reached = (local + nearest).where(inside, 1e30)
        before = far if k == 0 else here
        here = pad(reached, (1 + int(s[0]), samples - 1 - int(s[-1])), value=1e30)
        diagonals.append(here)
    cells = torch.stack(diagonals)
    at = (n + m - 2)[None, ..., None].expand(1, *n.shape, samples + 1)
    return cells.gather(0, at)[0].gather(-1, n[..., None])[..., 0]


def _expect_how(gamma: float, radius: int | float | None, pairs: str) -> None:
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)):
        raise ValueError(f"gamma must be a number over 0, got {gamma!r}")
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be a number over 0, got {gamma}: at 0 it would be dtw")
    expect_word("pairs", pairs, PAIRS)
    radius_of(radius)


def _kept_like(x: Tensor, y: Tensor | None, aligned: bool) -> Tensor:
    """Some rows, or columns, of R of each pair, for backward."""
    other = x if y is None else y
    crossed = len(x) * (len(x) + 1) // 2 if y is None else len(x) * len(y)
    pairs = len(x) if aligned else crossed
    rows, columns = _C.soft_dtw_kept(x.is_cuda)
    if rows == 0:
        return x.new_empty((0, 0, 0), dtype=sum_dtype(x))
    shape = pairs, -(-x.shape[-1] // rows), -(-other.shape[-1] // columns)
    return x.new_empty(shape, dtype=sum_dtype(x))


def _forward_like(
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    radius: int | None,
    share: float | None,
    aligned: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    shape = (len(x),) if aligned else (len(x), len(x if y is None else y))
    value = x.new_empty(shape, dtype=sum_dtype(x))
    return value, _kept_like(x, y, aligned) if keep else value.new_empty((0, 0, 0))


@register(
    "soft_dtw(Tensor x, Tensor? y, Tensor? x_lengths, Tensor? y_lengths, float gamma, int? radius,"
    " float? share, bool aligned, bool keep) -> (Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    radius: int | None,
    share: float | None,
    aligned: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    value, kept = _forward_like(x, y, x_lengths, y_lengths, gamma, radius, share, aligned, keep)
    sides = _Sides(x, y, x_lengths, y_lengths, gamma, aligned)
    scratch = value.new_empty(sides.shapes[2])
    views = map(view, (*sides.packed, *sides.finite, scratch, value, kept))
    unit = gamma / _LOG2_E
    _C.soft_dtw_forward(*views, *sides.sizes, unit, *sides.band(radius, share), place(x))
    if not x.is_cuda and value.dtype == torch.float32:
        _warn_of_rounding(value, gamma)
    return value, kept


class _Sides:
    """Both sides as kernels take them."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        gamma: float,
        aligned: bool,
    ) -> None:
        x, y = computed(x), None if y is None else computed(y)
        other = x if y is None else y
        pairs = 2 if aligned else int(y is None)  # numbered as in contract.h
        self.sizes = x.shape[1], x.shape[-1], other.shape[-1], pairs
        self.shapes = _C.soft_dtw_shapes(len(x), len(other), *self.sizes, place(x))
        self.scale = math.sqrt(_LOG2_E / gamma)
        rows, columns = (x.new_empty(shape) for shape in self.shapes[:2])
        x_length, x_finite = checked_lengths("x", x, x_lengths), flags(x)
        if y is None:
            y_length, y_finite = x_length, x_finite
            self._prepare(x, x_length, rows, columns, x_finite)
        else:
            y_length, y_finite = checked_lengths("y", y, y_lengths), flags(y)
            self._prepare(x, x_length, rows, columns[:0], x_finite)
            self._prepare(y, y_length, rows[:0], columns, y_finite)
        self.packed = rows, columns, x_length, y_length
        self.finite = x_finite, y_finite

    def _prepare(self, x: Tensor, *parts: Tensor) -> None:
        _C.soft_dtw_prepare(*map(view, (x, *parts)), self.scale, place(x))

    def band(self, radius: int | None, share: float | None) -> tuple[int, float]:
        most = self.sizes[1] + self.sizes[2]  # reaches every cell
        return most if radius is None else min(radius, most), -1.0 if share is None else share


def _warn_of_rounding(value: Tensor, gamma: float) -> None:
    finite = value.where(value.isfinite(), 0)
    largest = float(finite.abs().max()) if value.numel() else 0.0
    if largest * 2.0**-24 > 0.01 * gamma:
        warnings.warn(
            f"soft_dtw reaches {largest:.3g}, where float32 resolves {largest * 2.0**-23:.2g}, too"
            f" little for gamma {gamma:g}: gradients lose over 1 %; pass float64 or a larger gamma",
            stacklevel=2,
        )


def _backward_like(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    value: Tensor,
    kept: Tensor,
    gamma: float,
    radius: int | None,
    share: float | None,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    return dense_like(x), x.new_empty(0) if y is None else dense_like(y)


@register(
    "soft_dtw_backward(Tensor grad, Tensor x, Tensor? y, Tensor? x_lengths, Tensor? y_lengths,"
    " Tensor value, Tensor kept, float gamma, int? radius, float? share, bool aligned)"
    " -> (Tensor, Tensor)",
    _backward_like,
)
def _backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    value: Tensor,
    kept: Tensor,
    gamma: float,
    radius: int | None,
    share: float | None,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    sides = _Sides(x, y, x_lengths, y_lengths, gamma, aligned)
    scratch, x_partial, y_partial = (value.new_empty(shape) for shape in sides.shapes[3:])
    grad_x = value.new_empty(x.shape)
    grad_y = value.new_empty((0, *x.shape[1:]) if y is None else y.shape)
    if aligned:  # nothing to add up
        grad_x, grad_y, x_partial, y_partial = grad_x[:0], grad_y[:0], grad_x, grad_y
    grad = grad.contiguous()
    gradients = x_partial, y_partial, grad_x, grad_y
    views = map(view, (*sides.packed, value, grad, kept, scratch, *gradients))
    band = sides.band(radius, share)
    _C.soft_dtw_backward(*views, *sides.sizes, sides.scale, *band, place(x))
    if aligned:
        grad_x, grad_y = x_partial, y_partial
    return grad_x.to(x.dtype), x.new_empty(0) if y is None else grad_y.to(x.dtype)


class _SoftDtw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        gamma: float,
        radius: int | None,
        share: float | None,
        aligned: bool,
    ) -> Tensor:
        ctx.how = gamma, radius, share, aligned
        keep = any(ctx.needs_input_grad[:2])
        value, kept = _forward(x, y, x_lengths, y_lengths, *ctx.how, keep)
        ctx.save_for_backward(x, y, x_lengths, y_lengths, value, kept)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_y = _backward(grad, *ctx.saved_tensors, *ctx.how)
        return grad_x, grad_y if ctx.needs_input_grad[1] else None, *[None] * 6
