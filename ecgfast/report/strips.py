"""A record and those that lie nearest to it in the embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from ecgfast.report.style import BLUE, INK, WHOLE, blank, picture

if TYPE_CHECKING:
    from ecgfast.report.contents import Example

SHOWN = ("II", "V2", "V5")
SECONDS = 2.5
APART_MV = 0.4
PAPER = "#F5D5D1"
LONGEST_NAME = 24
MOST_LETTERS = 30  # of a line below a record


@picture
def strips(examples: Sequence[Example], *, title: str, synthetic: bool) -> Figure:
    """The query at the left, its neighbours beside it; squares of 0.2 s and 0.5 mV."""
    leads = [name for name in SHOWN if name in examples[0].leads] or list(examples[0].leads[:3])
    traces = []
    for example in examples:
        stop = round(min(SECONDS, example.ecg.shape[1] / example.fs) * example.fs)
        rows = [example.ecg[example.leads.index(name), :stop] for name in leads]
        traces.append([np.nan_to_num(row - np.nanmedian(row)) for row in rows])
    tops = [max(float(t[i].max()) for t in traces) for i in range(len(leads))]
    floors = [min(float(t[i].min()) for t in traces) for i in range(len(leads))]
    bases, at = [], 0.0
    for top, floor in zip(tops, floors, strict=True):
        bases.append(at - top)
        at = at - top + floor - APART_MV
    figure = blank(title, synthetic, WHOLE, float(np.clip(1.2 - 0.5 * at, 2.4, 5.0)))
    axes = figure.subplots(1, len(examples), sharey=True, squeeze=False)[0]
    for place, (axis, example, rows) in enumerate(zip(axes, examples, traces, strict=True)):
        for name, base, row in zip(leads, bases, rows, strict=True):
            time = np.arange(len(row)) / example.fs
            axis.plot(time, base + row, color=INK if place else BLUE, linewidth=0.8)
            if not place:
                axis.text(-0.06, base, name, ha="right", va="center", fontweight="bold")
        axis.set(xlim=(0, SECONDS), ylim=(at, 0.3))
        axis.xaxis.set_major_locator(MultipleLocator(0.2))
        axis.yaxis.set_major_locator(MultipleLocator(0.5))
        axis.grid(True, color=PAPER, linewidth=0.45)
        axis.tick_params(length=0, labelbottom=False, labelleft=False)
        axis.spines[:].set_visible(False)
        name = str(example.record_id)
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        head = "query" if not place else f"neighbour {place}"
        axis.set_title(f"{head}: {short}", loc="left", fontweight="bold" if not place else None)
        lines = [fill(line, MOST_LETTERS) for line in example.words.split("; ")]
        axis.set_xlabel("\n".join(lines), fontsize=7.5, loc="left")
    return figure
