"""Figures of scores. Each function gives a picture that can stand in a paper as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgfast.eval.classification import Curve
from ecgfast.report import words
from ecgfast.report.style import (
    BLUE,
    GREY,
    INK,
    MANY,
    ORANGE,
    SKY,
    WHOLE,
    Floats,
    blank,
    picture,
)


def _square(axis: Axes) -> None:
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(np.linspace(0, 1, 6))


def _curve(label: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positives from the first step on, and the thresholds."""
    curve = Curve(np.asarray(label, float), np.asarray(score, float))
    tp, fp = (x[0] for x in curve(np.ones((1, len(label)))))
    return tp, fp, curve.thresholds


MOST_LETTERS = 48  # of a line of a legend


@picture
def roc(
    label: Floats,
    score: Floats,
    *,
    band: tuple[Floats, Floats, Floats] | None,
    area: str,
    threshold: float,
    synthetic: bool,
) -> Figure:
    """ROC curve, the pointwise band of its bootstrap, and the point of the decision."""
    tp, fp, thresholds = _curve(label, score)
    tpr, fpr = np.append(0, tp / tp[-1]), np.append(0, fp / fp[-1])
    figure = blank("ROC curve", synthetic)
    axis = figure.subplots()
    if band is not None:
        at, lo, hi = band
        axis.fill_between(at, lo, hi, color=BLUE, alpha=0.18, linewidth=0, label="95 % band")
    axis.plot(fpr, tpr, color=BLUE, label=fill(area, MOST_LETTERS), drawstyle="default")
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    called = int((thresholds >= threshold).sum())
    axis.plot(
        *(fpr[called], tpr[called], "o"),
        color=ORANGE,
        markersize=5,
        markeredgecolor="white",
        label=f"threshold {threshold:.3g}",
    )
    axis.set(xlabel=f"1 {words.MINUS} specificity (false positive rate)", ylabel="sensitivity")
    _square(axis)
    axis.legend(loc="lower right")
    return figure


@picture
def precision_recall(
    label: Floats, score: Floats, *, area: str, threshold: float, synthetic: bool
) -> Figure:
    """Precision over recall, beside what calling everybody positive would give."""
    tp, fp, thresholds = _curve(label, score)
    figure = blank("Precision and recall", synthetic)
    axis = figure.subplots()
    recall, precision = tp / tp[-1], tp / (tp + fp)
    axis.step(
        np.append(0, recall),
        np.append(precision[0], precision),
        where="pre",
        color=BLUE,
        label=fill(area, MOST_LETTERS),
    )
    share = float(np.mean(label))
    axis.axhline(
        share, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label=f"prevalence {share:.2f}"
    )
    called = int((thresholds >= threshold).sum())
    if called:
        axis.plot(
            *(recall[called - 1], precision[called - 1], "o"),
            color=ORANGE,
            markersize=5,
            markeredgecolor="white",
            label=f"threshold {threshold:.3g}",
        )
    axis.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    _square(axis)
    axis.legend(loc="lower left")
    return figure


@picture
def calibration(
    points: Sequence[Mapping[str, Any]], label: Floats, score: Floats, *, synthetic: bool
) -> Figure:
    """Observed share over mean score of groups, above how the scores of both classes lie."""
    figure = blank("Calibration", synthetic, height=3.6)
    axis, below = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="ideal")
    x = [p["predicted"] for p in points]
    y = [p["observed"] for p in points]
    bounded = [p for p in points if p["lo"] is not None]
    axis.vlines(
        [p["predicted"] for p in bounded],
        [p["lo"] for p in bounded],
        [p["hi"] for p in bounded],
        color=BLUE,
        linewidth=1,
        label="95 % interval",
    )
    axis.plot(x, y, "o-", color=BLUE, markersize=4, linewidth=0.8, label="groups of equal size")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="observed share")
    axis.legend(loc="upper left")
    bins = np.linspace(0, 1, 31)
    sides = ((1, ORANGE, "label 1", 1), (0, SKY, "label 0", -1))
    tallest = 1.0
    for which, colour, name, sign in sides:
        count, _ = np.histogram(score[label == which], bins)
        tallest = max(tallest, float(count.max()))
        below.bar(bins[:-1], sign * count, np.diff(bins), align="edge", color=colour, label=name)
    below.axhline(0, color=GREY, linewidth=0.6)
    below.set(xlabel="score (predicted probability)", ylabel="records", ylim=(-tallest, tallest))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True, symmetric=True))
    below.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    below.legend(loc="upper center", ncols=2, handlelength=1)
    return figure


@picture
def calibration_of_values(
    points: Sequence[Mapping[str, Any]],
    line: tuple[float, float] | None,
    *,
    quantity: str,
    synthetic: bool,
) -> Figure:
    """Mean measured over mean predicted value of groups, with the line fitted to records."""
    figure = blank("Calibration", synthetic)
    axis = figure.subplots()
    x = np.array([p["predicted"] for p in points])
    y = np.array([p["observed"] for p in points])
    bounded = [p for p in points if p["lo"] is not None]
    low, high = _limits(np.array([*x, *y, *(p[k] for p in bounded for k in ("lo", "hi"))]))
    ends = np.array([low, high])
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="ideal")
    if line is not None:
        slope, intercept = line
        inside = np.array([x.min(), x.max()])
        words_ = f"fit to records, slope {slope:.2f}".replace("-", words.MINUS)
        axis.plot(inside, slope * inside + intercept, color=ORANGE, label=words_)
    at, lo, hi = ([p[k] for p in bounded] for k in ("predicted", "lo", "hi"))
    axis.vlines(at, lo, hi, color=BLUE, linewidth=1, label="95 % interval")
    axis.plot(x, y, "o", color=BLUE, markersize=4, label="groups of equal size")
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set(xlabel=f"predicted {quantity}, mean", ylabel=f"measured {quantity}, mean")
    axis.legend(loc="lower right")
    return figure


@picture
def confusion(label: Floats, score: Floats, *, threshold: float, synthetic: bool) -> Figure:
    """Counts of what was called and what was so; shares are of a row, that is of a true class."""
    called = np.asarray(score) >= threshold
    table = np.array([[np.sum(called[label == c] == p) for p in (1, 0)] for c in (1, 0)])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = blank(f"Confusion at {threshold:.3g}", synthetic)
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if share[row, column] > 0.55 else INK
        axis.text(
            column, row - 0.06, f"{count:,}", ha="center", va="center", color=colour, fontsize=13
        )
        axis.text(
            *(column, row + 0.17, f"{100 * share[row, column]:.1f} %"),
            ha="center",
            va="center",
            color=colour,
        )
    axis.set_xticks([0, 1], ["called positive", "called negative"])
    axis.set_yticks([0, 1], ["label 1", "label 0"], rotation=90, va="center")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


@picture
def forest(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    label: str,
    synthetic: bool,
    names: Sequence[str] | None = None,
    at: float | None = None,
) -> Figure:
    """One metric by subgroup, with intervals; the first row, of all records, is the yardstick.

    Rows may have other names, and another yardstick at ``at``.
    """
    figure = blank(title, synthetic, WHOLE, 0.85 + 0.27 * len(rows))
    axis = figure.subplots()
    known = [r for r in rows if r["estimate"] is not None]
    for place, line in enumerate(rows):
        if line["estimate"] is None:
            continue
        whole = line["subgroup"] is None and names is None
        colour = INK if whole else BLUE
        if line["lo"] is not None:
            axis.plot([line["lo"], line["hi"]], [place, place], color=colour, linewidth=1.3)
        axis.plot(line["estimate"], place, "D" if whole else "s", color=colour, markersize=4.5)
    if at is None and rows:
        at = rows[0]["estimate"]
    if at is not None:
        axis.axvline(at, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    if not known:
        axis.set_xticks([])
    names = names or [f"{words.group(r['subgroup'])}  (n = {r['n']:,})" for r in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")
    axis.margins(x=0.06)
    axis.set_xlabel(label)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [_interval(r) for r in rows])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    return figure


def _interval(line: Mapping[str, Any]) -> str:
    if line["estimate"] is None:
        return "not computed"
    if line["lo"] is None:
        return f"{line['estimate']:.3g} (no interval)"
    digits = 3 if abs(line["estimate"]) < 2 else 2
    text = f"{line['estimate']:.{digits}f} [{line['lo']:.{digits}f}, {line['hi']:.{digits}f}]"
    return text.replace("-", words.MINUS)


@picture
def scatter(
    label: Floats, score: Floats, *, quantity: str, association: str, synthetic: bool
) -> Figure:
    """Predicted over measured, with the line of identity and the least-squares line."""
    figure = blank("Predicted and measured", synthetic)
    axis = figure.subplots()
    _cloud(axis, label, score)
    low, high = _limits(np.concatenate([label, score]))
    ends = np.array([low, high])
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="identity")
    if np.ptp(label) > 0:
        slope, offset = np.polyfit(label, score, 1)
        inside = np.array([label.min(), label.max()])
        axis.plot(inside, slope * inside + offset, color=ORANGE, label=f"fit, slope {slope:.2f}")
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set(xlabel=f"measured {quantity}", ylabel=f"predicted {quantity}")
    axis.legend(loc="upper left", title=association, alignment="left", title_fontsize=7.5)
    return figure


@picture
def bland_altman(
    label: Floats,
    score: Floats,
    *,
    lines: Mapping[str, Mapping[str, Any]],
    quantity: str,
    unit: str,
    synthetic: bool,
) -> Figure:
    """Difference over mean, with bias and limits of agreement and their intervals."""
    figure = blank("Bland-Altman", synthetic)
    axis = figure.subplots()
    mean, gap = (label + score) / 2, score - label
    _cloud(axis, mean, gap)
    axis.axhline(0, color=GREY, linewidth=0.8)
    names = {"loa_upper": "upper limit", "bias": "bias", "loa_lower": "lower limit"}
    for name, what in names.items():
        line = lines.get(name)
        if line is None or line["estimate"] is None:
            continue
        if line["lo"] is not None:
            axis.axhspan(line["lo"], line["hi"], color=ORANGE, alpha=0.18, linewidth=0)
        solid = "-" if name == "bias" else (0, (5, 2))
        axis.axhline(line["estimate"], color=ORANGE, linewidth=1, linestyle=solid)
        axis.annotate(
            f"{what} {line['estimate']:+.1f}".replace("-", words.MINUS),
            (1, line["estimate"]),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
        )
    reach = 1.15 * max(np.abs(gap).max(), 1e-9)
    axis.set(ylim=(-reach, reach), xlim=_limits(mean))
    axis.set_xlabel(f"mean of measured and predicted {quantity}")
    axis.set_ylabel(f"predicted {words.MINUS} measured{unit}")
    return figure


def _cloud(axis: Axes, x: Floats, y: Floats) -> None:
    alpha = float(np.clip(30 / math.sqrt(max(len(x), 1)), 0.12, 0.6))
    axis.scatter(x, y, s=7, color=BLUE, alpha=alpha, linewidths=0, rasterized=len(x) > MANY)


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
