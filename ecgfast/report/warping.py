"""Two ECGs and the warping between them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import ArrayLike, NDArray

from ecgfast.report.style import BLUE, GREEN, GREY, INK, ORANGE, STYLE, WHOLE, Floats, blank

PAPER = "#F6DDD6"  # the lines of ECG paper
SQUARE_S, SQUARE_MV = 0.2, 0.5  # a large square: 5 mm at 25 mm/s and 10 mm/mV
EVERY_S = 0.05  # between the lines that join aligned samples
ROOM_MV = 0.35  # between curves


def draw_warping_path(
    x: ArrayLike,
    y: ArrayLike,
    path: ArrayLike,
    *,
    fs: float,
    leads: Sequence[str],
    shown: Sequence[str] = ("II", "V2", "V5"),
    names: tuple[str, str] = ("x", "y"),
    cost: str = "sqeuclidean",
    radius: int | None = None,
    title: str = "Warping path",
    synthetic: bool = False,
) -> Figure:
    """Draws two records with their aligned samples joined, beside the costs that the path crosses.

    On the left the leads of ``shown``, on squares of 0.2 s and 0.5 mV. On the right the local cost
    of every sample of ``x`` with every one of ``y``, over all leads, light where they are alike;
    what lies outside the band is grey. Above and beside it is the first of ``shown``.

    Args:
        x: One record, ``(L, T)``, mV.
        y: Another, ``(L, U)``, mV.
        path: ``(K, 2)``: a sample of ``x`` and the one of ``y`` beside it, as
            ``ecgfast.ops.dtw_path`` gives them.
        fs: Rate of both, Hz.
        leads: Names of the L leads.
        shown: Which of them are drawn, from the top.
        names: What the records are called.
        cost: The local cost that the path is for: sqeuclidean, euclidean or l1.
        radius: The band that it is for, in samples; none for the full window.
        title: Headline.
        synthetic: Whether the records are made; the figure then says so.

    Returns:
        A figure of matplotlib: ``figure.savefig("path.png")`` gives 200 dots an inch.

    Raises:
        ValueError: If shapes, leads or cost are not as above, or the path leaves the records.

    Example:
        >>> x = np.zeros((1, 100))
        >>> steps = np.arange(100)[:, None].repeat(2, axis=1)
        >>> draw_warping_path(x, x, steps, fs=100, leads=["I"], shown=["I"]).get_label()
        'Warping path'
    """
    one, other = np.asarray(x, np.float64), np.asarray(y, np.float64)
    steps = np.asarray(path, np.int64)
    _expect(one, other, steps, leads, shown, cost)
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "figure.dpi": STYLE["savefig.dpi"]}):
        figure = blank(title, synthetic, WHOLE, 4.0)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.05, 1], wspace=0.03)[0]
        order = [list(leads).index(lead) for lead in shown]
        _joined(left.subplots(), one, other, steps, fs, [leads[i] for i in order], order, names)
        _crossed(right, one, other, steps, fs, order[0], leads, names, cost, radius)
    return figure


def _expect(
    x: Floats,
    y: Floats,
    path: NDArray[np.int64],
    leads: Sequence[str],
    shown: Sequence[str],
    cost: str,
) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) != len(leads):
        raise ValueError(
            f"x and y must be (leads, samples) with {len(leads)} leads, got {x.shape} and {y.shape}"
        )
    absent = [lead for lead in shown if lead not in leads]
    if absent or not shown:
        raise ValueError(f"shown must name some of {', '.join(leads)}, got {', '.join(shown)}")
    if cost not in ("sqeuclidean", "euclidean", "l1"):
        raise ValueError(f"cost must be one of sqeuclidean, euclidean, l1, got {cost!r}")
    if path.ndim != 2 or path.shape[1:] != (2,) or not len(path):
        raise ValueError(f"path must be (steps, 2), got {path.shape}")
    if (path < 0).any() or (path >= [x.shape[1], y.shape[1]]).any():
        raise ValueError(
            f"path leaves the records of {x.shape[1]} and {y.shape[1]} samples: it reaches"
            f" {path.max(axis=0).tolist()}; it must be that of (x, y) in this order"
        )


def _joined(
    axis: Axes,
    x: Floats,
    y: Floats,
    path: NDArray[np.int64],
    fs: float,
    leads: Sequence[str],
    order: Sequence[int],
    names: tuple[str, str],
) -> None:
    """Each lead of x above that of y, from the top down."""
    seconds = max(x.shape[1], y.shape[1]) / fs
    picked = path[_every(path, fs)]
    bottom = 0.0
    for place, (lead, i) in enumerate(zip(leads, order, strict=True)):
        bases = []
        for record, colour in ((x, BLUE), (y, ORANGE)):
            low, high = record[i].min(), record[i].max()
            bases.append(bottom - high)
            times = np.arange(record.shape[1]) / fs
            axis.plot(times, bases[-1] + record[i], color=colour, lw=0.9)
            bottom += low - high - ROOM_MV
        ends = [
            np.column_stack([at / fs, base + record[i, at]])
            for record, base, at in zip((x, y), bases, picked.T, strict=True)
        ]
        axis.add_collection(
            LineCollection(list(np.stack(ends, axis=1)), colors=GREY, linewidths=0.4, alpha=0.75)
        )
        axis.text(
            *(-0.012 * seconds, sum(bases) / 2, lead),
            ha="right",
            va="center",
            fontweight="bold",
        )
        bottom -= ROOM_MV * (place + 1 < len(leads))
    axis.set(xlim=(0, seconds), ylim=(bottom, ROOM_MV))
    axis.set_xlabel(f"time, s (a square is {SQUARE_S:g} s by {SQUARE_MV:g} mV)")
    _paper(axis, seconds)
    axis.legend(
        axis.lines[:2], names, loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0.1
    )


def _every(path: NDArray[np.int64], fs: float) -> NDArray[np.int64]:
    """Places in the path at about equal times."""
    along = path.sum(axis=1) / (2 * fs)
    return np.searchsorted(along, np.arange(0, along[-1], EVERY_S))


def _paper(axis: Axes, seconds: float) -> None:
    axis.xaxis.set_major_locator(MultipleLocator(1 if seconds > 4 else SQUARE_S * 2))
    axis.xaxis.set_minor_locator(MultipleLocator(SQUARE_S))
    axis.yaxis.set_major_locator(MultipleLocator(SQUARE_MV))
    axis.grid(True, which="both", color=PAPER, linewidth=0.45)
    axis.tick_params(axis="both", which="both", length=0)
    axis.set_yticklabels([])
    axis.spines[:].set_visible(False)


def _crossed(
    figure: matplotlib.figure.SubFigure,
    x: Floats,
    y: Floats,
    path: NDArray[np.int64],
    fs: float,
    lead: int,
    leads: Sequence[str],
    names: tuple[str, str],
    cost: str,
    radius: int | None,
) -> None:
    """Costs, band and path; x runs to the right, y upwards."""
    axes = figure.subplots(
        2,
        2,
        width_ratios=[1, 5.5],
        height_ratios=[1, 5.5],
        gridspec_kw={"wspace": 0.0, "hspace": 0.0},
    )
    corner, top, side, axis = axes.reshape(-1)
    corner.set_visible(False)
    n, m = x.shape[1], y.shape[1]
    local = _local(x, y, cost)
    ends = (0, n / fs, 0, m / fs)
    axis.imshow(
        local.T,
        origin="lower",
        extent=ends,
        aspect="auto",
        cmap="Greys",
        norm=PowerNorm(0.6, vmin=0, vmax=float(np.quantile(local, 0.995))),
    )
    axis.plot(*((path + 0.5) / fs).T, color=GREEN, lw=1.6, label="path")
    if radius is not None:
        _shade(axis, n, m, radius, fs)
    axis.set(xlim=ends[:2], ylim=ends[2:], xlabel=f"{names[0]}: time, s")
    axis.set_ylabel(f"{names[1]}: time, s")
    axis.yaxis.tick_right()
    axis.yaxis.set_label_position("right")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.legend(loc="upper left", handlelength=1.6, borderaxespad=0.3)
    top.plot(np.arange(n) / fs, x[lead], color=BLUE, lw=0.8)
    top.set(xlim=ends[:2])
    side.plot(-y[lead], np.arange(m) / fs, color=ORANGE, lw=0.8)
    side.set(ylim=ends[2:])
    for narrow in (top, side):
        narrow.axis("off")
    top.text(*(0, 1, f"lead {leads[lead]}"), transform=top.transAxes, ha="left", va="bottom")


def _local(x: Floats, y: Floats, cost: str) -> Floats:
    """Of every sample with every one, over all leads, ``(T, U)``."""
    if cost == "l1":
        return np.sum([np.abs(a[:, None] - b) for a, b in zip(x, y, strict=True)], axis=0)
    square = np.sum([(a[:, None] - b) ** 2 for a, b in zip(x, y, strict=True)], axis=0)
    return np.sqrt(square) if cost == "euclidean" else square


def _shade(axis: Axes, n: int, m: int, radius: int, fs: float) -> None:
    """Greys what no path may enter: -r - max(0, n - m) <= t - s <= r + max(0, m - n)."""
    s = np.array([0, n])
    low, high = s - radius - max(0, n - m), s + radius + max(0, m - n) + 1
    for edge, far in ((low, 0), (high, m)):
        axis.fill_between(s / fs, edge / fs, far / fs, color="white", alpha=0.65, linewidth=0)
        line = axis.plot(s / fs, edge / fs, color=INK, lw=0.8, linestyle=(0, (4, 2)))
    line[0].set_label(f"band of {radius / fs:g} s")
