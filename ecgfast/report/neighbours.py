"""An ECG and those that are most like it, on paper of one scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecgfast.report.paper import LONGEST, draw_page, page_size
from ecgfast.report.style import BLUE, STYLE, Floats

COLUMNS = 2
GAP, TOP = 5.0, 4.0  # mm
DPI = 110  # a page of 12 is then 2,400 pixels wide


class Strip(NamedTuple):
    """One ECG of the figure.

    Attributes:
        ecg: mV, ``(L, T)``.
        title: Above it.
        about: Beside that.
    """

    ecg: Floats
    title: str
    about: str


def draw_neighbours(
    strips: Sequence[Strip],
    *,
    leads: tuple[str, ...],
    fs: float,
    path: str | Path,
    synthetic: bool,
) -> Figure:
    """Draws the query and its neighbours, 25 mm/s and 10 mm/mV each, and writes a file.

    The query stands alone above, framed; neighbours follow in rows of two, nearest first.

    Args:
        strips: The query first.
        leads: Rows of every ECG.
        fs: Hz.
        path: Where to; the suffix says what.
        synthetic: Marks the records as made up.
    """
    seconds = min(strips[0].ecg.shape[1] / fs, LONGEST)
    width, height = page_size(leads, seconds, rhythm=False)
    rows = 1 + -(-(len(strips) - 1) // COLUMNS)
    whole = (COLUMNS * width + (COLUMNS + 1) * GAP, rows * (height + GAP) + TOP)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(whole[0] / 25.4, whole[1] / 25.4))
        for place, strip in enumerate(strips):
            row, column = (0, 0) if place == 0 else divmod(place - 1 + COLUMNS, COLUMNS)
            left = GAP + column * (width + GAP)
            if place == 0:
                left = (whole[0] - width) / 2
            bottom = whole[1] - TOP - (row + 1) * height - row * GAP
            axis = figure.add_axes(
                (left / whole[0], bottom / whole[1], width / whole[0], height / whole[1])
            )
            draw_page(
                axis,
                strip.ecg,
                leads,
                fs,
                head=f"{strip.title}   {strip.about}",
                foot=f"25 mm/s   10 mm/mV   {fs:g} Hz",
                synthetic=synthetic,
                rhythm=False,
            )
            if place == 0:
                frame = Rectangle((0, 0), width, height, fill=False, edgecolor=BLUE, linewidth=4)
                axis.add_patch(frame)
        figure.savefig(path, dpi=DPI)
    return figure
