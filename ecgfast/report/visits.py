"""Predicted and measured values of single patients over their visits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgfast.report.style import BLUE, INK, ORANGE, WHOLE, blank, picture

ACROSS = 4
BY_PLACE = {"visit"}  # orders that are counts already
LONGEST_NAME = 22


@picture
def trends(
    patients: Sequence[Mapping[str, Any]], *, quantity: str, order: str, synthetic: bool
) -> Figure:
    """A panel a patient, all on one scale; points are visits in their order."""
    down = math.ceil(len(patients) / ACROSS)
    figure = blank("Measured and predicted over visits", synthetic, WHOLE, 0.95 + 1.45 * down)
    axes = figure.subplots(down, ACROSS, squeeze=False, sharey=True)
    values = np.concatenate([[*p["measured"], *p["predicted"]] for p in patients])
    room = 0.08 * (np.ptp(values) or 1.0)
    for place, axis in enumerate(axes.flat):
        if place >= len(patients):
            axis.set_axis_off()
            continue
        patient = patients[place]
        numbers = all(isinstance(t, int | float) for t in patient["time"])
        x = patient["time"] if numbers else list(range(1, len(patient["time"]) + 1))
        axis.plot(x, patient["measured"], "o-", color=INK, markersize=3.5, linewidth=1.1)
        axis.plot(x, patient["predicted"], "s--", color=ORANGE, markersize=3.5, linewidth=1.1)
        axis.vlines(x, patient["measured"], patient["predicted"], color=BLUE, alpha=0.25, lw=0.8)
        name = str(patient["patient"])
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        axis.set_title(short, loc="left")
        axis.set_ylim(values.min() - room, values.max() + room)
        axis.margins(x=0.1)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
    for axis in axes[:, 0]:
        axis.set_ylabel(quantity)
    shown = all(isinstance(t, int | float) for p in patients for t in p["time"])
    figure.supxlabel(order if shown else f"visits in the order of {order}", fontsize=8)
    handles = axes.flat[0].lines[:2]
    figure.legend(handles, ["measured", "predicted"], loc="outside upper right", ncols=2)
    return figure
