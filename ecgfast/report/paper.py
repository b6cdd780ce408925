"""ECGs on paper: 25 mm/s, 10 mm/mV, at true size."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ecgfast.report.style import INK, ORANGE, WHOLE, Floats, Picture, blank, picture

SPEED, GAIN = 25.0, 10.0  # mm/s, mm/mV
TWELVE = (
    ("I", "aVR", "V1", "V4"),
    ("II", "aVL", "V2", "V5"),
    ("III", "aVF", "V3", "V6"),
)
RHYTHM = "II"
LONGEST = 10.0  # seconds on one page
SHORTEST = 2.5  # seconds: four leads share a row of a page
ROW, HEAD, FOOT, LEFT, RIGHT = 28.0, 11.0, 8.0, 14.0, 4.0  # mm
THIN, THICK = "#F8D3D0", "#EDA9A4"


@picture
def ecg_page(
    ecg: Floats, leads: tuple[str, ...], fs: float, *, title: str, synthetic: bool
) -> Figure:
    """A page of one ECG: 3 x 4 leads over a rhythm strip, or one row a lead if leads are others.

    Every row begins with a calibration pulse of 1 mV and 0.2 s. Where nothing was recorded (NaN),
    nothing is drawn. Each lead is shown about its own median, as if baselines were set by hand.
    """
    width, height = page_size(leads, ecg.shape[1] / fs)
    figure = Figure(figsize=(width / 25.4, height / 25.4))
    headline = f"{title} (SYNTHETIC data)" if synthetic else title
    figure.set_label(headline)
    axis = figure.add_axes((0, 0, 1, 1))
    words = f"25 mm/s   10 mm/mV   {fs:g} Hz   as stored, not filtered"
    if ecg.shape[1] / fs > LONGEST:
        words += f"   first {LONGEST:g} s of {ecg.shape[1] / fs:g} s"
    draw_page(axis, ecg, leads, fs, head=headline, foot=words, synthetic=synthetic)
    return figure


def fitting_page(
    ecg: Floats, leads: tuple[str, ...], fs: float, *, title: str, synthetic: bool
) -> Picture:
    """A page of paper, or of a record that is too short to share rows a beat of each lead."""
    draw = ecg_page if ecg.shape[1] / fs >= SHORTEST else beat_page
    return draw(ecg, leads, fs, title=title, synthetic=synthetic)


@picture
def beat_page(
    ecg: Floats, leads: tuple[str, ...], fs: float, *, title: str, synthetic: bool
) -> Figure:
    """Each lead of a median beat, or of another short record, whole; all on one scale.

    Such records may have been normalised, so that there is no scale in mV.
    """
    rows = _rows(leads, rhythm=False)
    figure = blank(title, synthetic, WHOLE, 0.9 + 0.9 * len(rows))
    axes = figure.subplots(len(rows), len(rows[0]), sharex=True, sharey=True, squeeze=False)
    centred = ecg - np.nanmedian(np.where(np.isfinite(ecg), ecg, 0.0), axis=1, keepdims=True)
    for axis, name in zip(axes.flat, (name for row in rows for name in row), strict=True):
        time = 1000 * np.arange(ecg.shape[1]) / fs
        axis.plot(time, centred[leads.index(name)], color=INK, linewidth=0.9)
        axis.set_title(name, loc="left", fontsize=8, fontweight="bold", pad=2)
        axis.set(yticks=[])
    for axis in axes[-1]:
        axis.set_xlabel("ms", labelpad=1)
    return figure


def page_size(
    leads: tuple[str, ...], seconds: float, *, rhythm: bool = True
) -> tuple[float, float]:
    """Width and height of a page, mm."""
    width = LEFT + min(seconds, LONGEST) * SPEED + RIGHT
    return width, HEAD + ROW * len(_rows(leads, rhythm)) + FOOT


def draw_page(
    axis: Axes,
    ecg: Floats,
    leads: tuple[str, ...],
    fs: float,
    *,
    head: str,
    foot: str,
    synthetic: bool,
    rhythm: bool = True,
) -> None:
    """Draws a page on axes of its own, in mm; see ``ecg_page``.

    Args:
        axis: As large as the page, or in its proportions.
        ecg: mV, ``(L, T)``.
        leads: Its rows.
        fs: Hz.
        head: Above.
        foot: Below.
        synthetic: Marks it as made up.
        rhythm: With the strip of one lead below the twelve.
    """
    seconds = min(ecg.shape[1] / fs, LONGEST)
    rows = _rows(leads, rhythm)
    width, height = page_size(leads, seconds, rhythm=rhythm)
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.set_axis_off()
    _grid(axis, width, height)
    for place, row in enumerate(rows):
        base = height - HEAD - ROW * (place + 0.5)
        _pulse(axis, base)
        share = seconds / len(row)
        for column, name in enumerate(row):
            start = LEFT + column * share * SPEED
            first = round(column * share * fs)
            strip = ecg[leads.index(name), first : round((column + 1) * share * fs)]
            _trace(axis, strip, fs, start, base)
            if column:
                axis.plot([start, start], [base - 2, base + 2], color=INK, linewidth=0.8)
            halo = [withStroke(linewidth=2.5, foreground="white")]  # readable on top of a trace
            place_ = (start + 1, base + 9.5, name)
            axis.text(*place_, fontsize=9, fontweight="bold", va="center", path_effects=halo)
    axis.text(4, height - 3, head, fontsize=10, fontweight="bold", va="top")
    if synthetic:
        axis.text(
            *(width / 2, (height - HEAD) / 2, "SYNTHETIC"),
            fontsize=72,
            color=ORANGE,
            alpha=0.1,
            rotation=20,
            ha="center",
            va="center",
            fontweight="bold",
        )
    axis.text(4, 2.5, foot, fontsize=7.5)


def _rows(leads: tuple[str, ...], rhythm: bool) -> list[tuple[str, ...]]:
    complete = {name for row in TWELVE for name in row} <= set(leads)
    strip = [(RHYTHM,)] if rhythm else []
    return [*TWELVE, *strip] if complete else [(name,) for name in leads]


def _grid(axis: Axes, width: float, height: float) -> None:
    for step, colour, line in ((1, THIN, 0.3), (5, THICK, 0.5)):
        x, y = (np.arange(0, end + 1e-6, step).tolist() for end in (width, height))
        lines = [((at, 0.0), (at, height)) for at in x] + [((0.0, at), (width, at)) for at in y]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=line))


def _pulse(axis: Axes, base: float) -> None:
    x = [3.0, 5, 5, 10, 10, 12]
    y = base + GAIN * np.array([0, 0, 1, 1, 0, 0])
    axis.plot(x, y, color=INK, linewidth=0.9, solid_joinstyle="miter")


def _trace(axis: Axes, strip: NDArray[np.floating], fs: float, start: float, base: float) -> None:
    if not np.isfinite(strip).any():
        axis.text(start + 14, base, "not recorded", fontsize=7.5, va="center")
        return
    millimetres = GAIN * (strip - np.nanmedian(strip))
    x = start + np.arange(len(strip)) / fs * SPEED
    axis.plot(x, base + millimetres, color=INK, linewidth=0.8, solid_joinstyle="round")
