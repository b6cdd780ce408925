"""Learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgfast.report.style import BLUE, ORANGE, WHOLE, Floats, blank, picture

NAMES = {
    "lr": "learning rate",
    "records_per_s": "records per second",
    "waiting": "share of time waiting for data",
    "mining": "share of time spent on mining",
    "active": "share of triplets with a loss",
    "valid": "share of valid triplets",
    "labelled": "share of records with a label",
    "embedding_std": "standard deviation of embeddings",
    "auroc": "AUROC",
    "rmse": "RMSE",
}


@picture
def learning_curves(
    title: str, columns: Mapping[str, Sequence[float]], *, synthetic: bool
) -> Figure:
    """Every logged quantity over the steps; training and validation of one share a panel."""
    step = np.asarray(columns["step"], float)
    panels: dict[str, dict[str, Floats]] = {}
    for name, values in columns.items():
        y = np.asarray(values, float)
        if name in ("step", "epoch") or not np.isfinite(y).any():
            continue
        kind, quantity = ("validation", name[4:]) if name.startswith("val_") else ("training", name)
        panels.setdefault(quantity, {})[kind] = y
    across = min(3, max(1, len(panels)))
    down = max(1, math.ceil(len(panels) / across))
    figure = blank(title, synthetic, WHOLE, 0.6 + 1.6 * down)
    axes = figure.subplots(down, across, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_axis_off()
            continue
        quantity = list(panels)[place]
        for kind, y in panels[quantity].items():
            there = np.isfinite(y)
            few = there.sum() < 30
            axis.plot(
                step[there],
                y[there],
                color=ORANGE if kind == "validation" else BLUE,
                marker="o" if few else None,
                markersize=2.5,
                linewidth=1.2,
                label=kind,
            )
        only = " (validation)" if list(panels[quantity]) == ["validation"] else ""
        axis.set_title(NAMES.get(quantity, quantity.replace("_", " ")) + only, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        if len(panels[quantity]) > 1:
            axis.legend()
    figure.supxlabel("optimiser steps", fontsize=8)
    return figure
