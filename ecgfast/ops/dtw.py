"""Dynamic time warping between all pairs of records, all leads together, and mining by it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ecgfast import _C
from ecgfast.ops._native import place, register, sum_dtype, view
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

COSTS = ("sqeuclidean", "euclidean", "l1")  # numbered as in contract.h
PRECISIONS = ("exact", "fast")


def dtw(
    x: Tensor,
    y: Tensor | None = None,
    *,
    cost: str = "sqeuclidean",
    radius: int | float | None = None,
    root: bool = True,
    lengths: Lengths | tuple[Lengths | None, Lengths | None] | None = None,
    precision: str = "exact",
    on_gap: str = "propagate",
) -> Tensor:
    r"""Measures how far every record of ``x`` lies from every one of ``y``, with time warped.

    .. math::
        D(s, t) = c(s, t) + \min\{D(s{-}1, t), D(s, t{-}1), D(s{-}1, t{-}1)\}, \quad
        d_{ij} = \sqrt{D(n{-}1, m{-}1)}

    where :math:`c(s, t)` compares sample ``s`` of one record with sample ``t`` of the other, over
    all leads at once: they share one warping, along the time axis. ``sqeuclidean`` sums squares
    of differences (``dtaidistance.dtw_ndim`` and ``tslearn.metrics.dtw`` give the same; with
    ``root=False`` aeon does), ``euclidean`` is the root of that at each sample, ``l1`` sums their
    magnitudes. A cell is reached only where :math:`-r - \max(0, n - m) \le t - s \le r +
    \max(0, m - n)`: a band that holds the difference of lengths, so that no radius is too small.
    It is tslearn's ``sakoe_chiba_radius=r`` and dtaidistance's ``window=r + 1``.

    Differences are taken before sums, so equal records are at 0 exactly. Without ``y`` the matrix
    is symmetric bit for bit, at half the work; a pair's distance depends neither on the other
    records nor on the number of threads. What is not held: the triangle inequality; a gradient
    (where two paths are equally short there is none); invariance to offset or scale: normalise
    first. No matrix of T x U is ever made. Autocast does not touch it. Lengths that lie on a GPU
    are read from it once.

    Note:
        With ``precision="fast"`` the error of :math:`d^2` is at most :math:`(3 L + 1) 2^{-24}`
        times the norms :math:`|x|^2 + |y|^2` along its path, beside the rounding of the sum.
        Measured on 12 normalised leads of 1000 samples, relative to ``d``: 5e-7 for unrelated
        records (so has "exact"), 6e-5 for a copy with 1 % of noise, 8e-3 for one with 0.1 %; 5e-6
        for unrelated records 50 deviations away from 0. No offset is taken off before: it would
        have to be one for all records, and the mean of a batch is not. Symmetry and independence
        of batch and threads hold as for "exact".

    Args:
        x: Records, ``(N, L, T)``: leads before time; more leads than samples warn, since the axes
            are then likely swapped. Any float dtype and strides; 24 leads at most on CUDA, and
            float64 on the CPU alone.
        y: Records to compare with, ``(M, L, U)``, of the dtype and device of ``x``; None is ``x``.
        cost: One of sqeuclidean, euclidean, l1.
        radius: Samples that a path may leave the diagonal by; None for any number. A float in
            [0, 1] is a share of the shorter record of each pair, rounded towards 0: 0.1 of 1000
            samples is 100.
        root: Whether to take the root of the sum of ``sqeuclidean``; the other costs have none.
        lengths: Samples of each record of ``x``, ``(N,)``, where what follows is padding; with
            ``y`` a pair of such, each of which may be None.
        precision: "exact", or for ``sqeuclidean`` "fast": costs as :math:`|x|^2 + |y|^2 - 2 x
            \cdot y`, which takes fewer operations and cancels. Equal records are then not at 0
            (but on the diagonal without ``y``), and the nearer two records are, or the farther
            both from 0, the more digits are lost: see the note.

        on_gap: What to do about a record with a sample that is NaN or infinite: "propagate", all
            its distances are NaN, or "raise", which names it, and waits for a GPU.

    Returns:
        Tensor ``(N, M)`` in the unit of ``x`` (sqeuclidean without root: its square), float32, or
        float64 for float64. Not differentiable.

    Raises:
        ValueError: If a shape, length, radius or word is not as above, or the leads or devices of
            both differ.
        TypeError: If ``x`` is not of a float dtype, ``y`` not of the same, or float64 on CUDA.
        RuntimeError: If a gradient is asked for.

    Example:
        >>> ecg = torch.randn(8, 12, 500)
        >>> dtw(ecg, radius=0.1).shape
        torch.Size([8, 8])
    """
    expect_how(cost, radius)
    _expect_precision(precision, cost)
    expect_sides(x, y)
    if torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad)):
        raise RuntimeError("dtw is not differentiable: detach its records")
    samples, share = radius_of(radius)
    x_lengths, y_lengths = lengths_of(lengths, x, y)
    refuse_gaps(on_gap, "x", x, x_lengths)
    refuse_gaps(on_gap, "y", y, y_lengths)
    root = root and cost == "sqeuclidean"
    return _forward(x, y, x_lengths, y_lengths, cost, samples, share, root, precision)


class Mined(NamedTuple):
    """What ``dtw_mine`` found for each record: the nearest, then the farthest."""

    indices: Tensor
    distances: Tensor
    valid: Tensor


def dtw_mine(
    x: Tensor,
    *,
    k_near: int = 1,
    k_far: int = 2,
    cost: str = "sqeuclidean",
    radius: int | float | None = None,
    root: bool = True,
    lengths: Lengths | None = None,
    precision: str = "exact",
    on_gap: str = "propagate",
) -> Mined:
    """Finds the nearest and the farthest other records of each record, by time warping.

    It takes the matrix of ``dtw`` and looks through its rows. Bounds that spare some of the
    matrix were measured on ECGs and spare none: neighbours are not near enough. Of records
    equally far the one with the lowest index comes first. A record is not its own neighbour;
    one with a sample that is NaN or infinite is nobody's and has none.

    Args:
        x: Records, ``(N, L, T)``, as for ``dtw``.
        k_near: How many of the nearest, from the nearest on.
        k_far: How many of the farthest, from the farthest on.
        cost: As for ``dtw``, and so are ``radius``, ``root`` and ``lengths``.
        radius: See ``dtw``.
        root: See ``dtw``.
        lengths: See ``dtw``.
        precision: See ``dtw``; "fast" finds the same records unless two are equally far to five
            digits or nearly equal.
        on_gap: See ``dtw``.

    Returns:
        indices: ``(N, k_near + k_far)`` int64, the nearest first, then the farthest; -1 where
        there are not so many other records.
        distances: Of the same shape, as ``dtw`` gives them; NaN at an index of -1.
        valid: Of the same shape, bool: whether there is one. Not differentiable.

    Raises:
        ValueError: If ``k_near`` or ``k_far`` is negative, and as ``dtw``.
        TypeError: As ``dtw``.
        RuntimeError: As ``dtw``.

    Example:
        >>> dtw_mine(torch.randn(8, 12, 100), radius=0.1).indices.shape
        torch.Size([8, 3])
    """
    for name, k in (("k_near", k_near), ("k_far", k_far)):
        if k < 0:
            raise ValueError(f"{name} must be at least 0, got {k}")
    how: dict[str, Any] = {"radius": radius, "root": root, "precision": precision}
    distance = dtw(x, cost=cost, lengths=lengths, on_gap=on_gap, **how)
    possible = ~distance.isnan()
    possible.fill_diagonal_(False)
    near = _ranked(distance, possible, k_near, descending=False)
    far = _ranked(distance, possible, k_far, descending=True)
    return Mined(*(torch.cat(both, dim=1) for both in zip(near, far, strict=True)))


def _ranked(distance: Tensor, possible: Tensor, k: int, *, descending: bool) -> Mined:
    """The first k of each row, those that are not possible last."""
    order = distance.nan_to_num(0.0, posinf=torch.inf).argsort(
        dim=1, descending=descending, stable=True
    )
    first = possible.gather(1, order).argsort(dim=1, descending=True, stable=True)[:, :k]
    indices = order.gather(1, first)
    valid = possible.gather(1, indices)
    lacking = k - indices.shape[1]
    return Mined(
        pad(indices.where(valid, -1), (0, lacking), value=-1),
        pad(distance.gather(1, indices).where(valid, torch.nan), (0, lacking), value=torch.nan),
        pad(valid, (0, lacking), value=False),
    )


def dtw_reference(
    x: Tensor,
    y: Tensor | None = None,
    *,
    cost: str = "sqeuclidean",
    radius: int | float | None = None,
    root: bool = True,
    lengths: Any = None,
) -> Tensor:
    """The same in plain Python, in float64: slow, obvious, the truth for tests and benchmarks."""
    other = x if y is None else y
    own_lengths, other_lengths = lengths if isinstance(lengths, tuple) else (lengths, lengths)
    rows = _cut_reference(x, own_lengths)
    columns = _cut_reference(other, other_lengths)
    table = [[_warped_reference(a, b, cost, radius) for b in columns] for a in rows]
    distances = torch.tensor(table, dtype=torch.float64).reshape(len(x), len(other))
    distances = distances.sqrt() if root and cost == "sqeuclidean" else distances
    return distances.to(x.device, sum_dtype(x))


def _cut_reference(records: Tensor, lengths: Any) -> list[Tensor]:
    whole = [records.shape[-1]] * len(records)
    cuts = whole if lengths is None else torch.as_tensor(lengths).tolist()
    return [record[:, :n].double().cpu() for record, n in zip(records, cuts, strict=True)]


def _warped_reference(a: Tensor, b: Tensor, cost: str, radius: int | float | None) -> float:
    n, m = a.shape[-1], b.shape[-1]
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.nan
    apart = a[:, :, None] - b[:, None]
    local = apart.abs().sum(0) if cost == "l1" else apart.square().sum(0)
    local = local.sqrt() if cost == "euclidean" else local
    if radius is None:
        radius = n + m
    reach = int(radius * min(n, m)) if isinstance(radius, float) else radius
    above = [0.0] + [math.inf] * m  # one column in front
    for s, row in enumerate(local.tolist()):
        here = [math.inf] * (m + 1)
        for t in range(max(0, s - reach - max(0, n - m)), min(m, s + reach + max(0, m - n) + 1)):
            here[t + 1] = row[t] + min(above[t + 1], here[t], above[t])
        above = here
    return above[m]


def expect_how(cost: str, radius: int | float | None) -> None:
    """Refuses words and numbers that neither ``dtw`` nor ``dtw_path`` know."""
    expect_word("cost", cost, COSTS)
    radius_of(radius)


def _expect_precision(precision: str, cost: str) -> None:
    expect_word("precision", precision, PRECISIONS)
    if precision == "fast" and cost != "sqeuclidean":
        raise ValueError(
            f"precision='fast' is for cost='sqeuclidean' alone, got {cost!r}: take that cost or"
            " precision='exact'"
        )


def _forward_like(
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    cost: str,
    radius: int | None,
    share: float | None,
    root: bool,
    precision: str,
) -> Tensor:
    return x.new_empty((len(x), len(x if y is None else y)), dtype=sum_dtype(x))


@register(
    "dtw(Tensor x, Tensor? y, Tensor? x_lengths, Tensor? y_lengths, str cost, int? radius,"
    " float? share, bool root, str precision) -> Tensor",
    _forward_like,
)
def _forward(
    x: Tensor,
    y: Tensor | None,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    cost: str,
    radius: int | None,
    share: float | None,
    root: bool,
    precision: str,
) -> Tensor:
    distance = _forward_like(x, y, x_lengths, y_lengths, cost, radius, share, root, precision)
    expanded = precision == "fast"
    own, other = computed(x), None if y is None else computed(y)
    against = own if other is None else other
    sizes = own.shape[1], own.shape[-1], against.shape[-1]
    shapes = _C.dtw_shapes(len(own), len(against), *sizes, expanded, place(own))
    rows, columns, scratch = (own.new_empty(shape) for shape in shapes)
    x_length, x_finite = checked_lengths("x", own, x_lengths), flags(own)
    if other is None:
        y_length, y_finite = x_length, x_finite
        _prepare(own, x_length, rows, columns, x_finite, expanded)
    else:
        y_length, y_finite = checked_lengths("y", other, y_lengths), flags(other)
        _prepare(own, x_length, rows, columns[:0], x_finite, expanded)
        _prepare(other, y_length, rows[:0], columns, y_finite, expanded)
    packed = rows, columns, x_length, y_length, x_finite, y_finite, scratch, distance
    most = own.shape[-1] + against.shape[-1]  # reaches every cell
    band = most if radius is None else min(radius, most), -1.0 if share is None else share
    form = len(COSTS) if expanded else COSTS.index(cost)
    how = form, *band, root, y is None
    _C.dtw_forward(*map(view, packed), *sizes, *how, place(own))
    return distance


def _prepare(
    x: Tensor, length: Tensor, rows: Tensor, columns: Tensor, finite: Tensor, expanded: bool
) -> None:
    _C.dtw_prepare(*map(view, (x, length, rows, columns, finite)), expanded, place(x))
