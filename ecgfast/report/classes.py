"""Figures of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ecgfast.eval.classification import Curve
from ecgfast.report import words
from ecgfast.report.style import GREY, INK, MANY, WHOLE, Floats, blank, picture

MOST_CURVES = 10


@picture
def roc_of_each(
    label: Floats,
    scores: Floats,
    classes: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    *,
    synthetic: bool,
) -> Figure:
    """ROC curves of each class against the rest; of many classes those of most records."""
    figure = blank("ROC curves, each class against the rest", synthetic, WHOLE, 3.6)
    axis = figure.subplots()
    count = [int((label == c).sum()) for c in range(len(classes))]
    shown = sorted(np.argsort([-n for n in count], kind="stable")[:MOST_CURVES].tolist())
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(shown)))
    for colour, c in zip(colours, shown, strict=True):
        if not 0 < count[c] < len(label):
            continue
        curve = Curve((label == c).astype(float), np.asarray(scores[:, c], float))
        tp, fp = (x[0] for x in curve(np.ones((1, len(label)))))
        line = rows.get(f"auroc_of_{classes[c]}")
        area = "" if line is None else f"  {words.estimate(line)}".split(" (interval")[0]
        axis.plot(
            np.append(0, fp / fp[-1]),
            np.append(0, tp / tp[-1]),
            color=colour,
            linewidth=1.3,
            rasterized=len(label) > MANY * 10,
            label=f"{classes[c]} (n = {count[c]:,}){area}",
        )
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    axis.set(xlabel=f"1 {words.MINUS} specificity", ylabel="sensitivity", aspect="equal")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    figure.legend(loc="outside right center", title="AUROC", alignment="left")
    return figure


@picture
def confusion_of_classes(
    counts: Sequence[Sequence[int]], classes: Sequence[str], *, synthetic: bool
) -> Figure:
    """Counts by true class (rows) and class of the highest score; shades are shares of a row."""
    table = np.asarray(counts)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(1.2 + 0.5 * len(classes), 3.2, 7.2))
    figure = blank("Confusion of classes", synthetic, size + 0.3, size)
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    if len(classes) <= 15:
        for (row, column), count in np.ndenumerate(table):
            colour = "white" if share[row, column] > 0.55 else INK
            text = f"{count:,}\n{100 * share[row, column]:.0f} %"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7.5)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="class of the highest score", ylabel="true class")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure
