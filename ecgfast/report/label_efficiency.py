"""The curve of label efficiency, and its page."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ecgfast.report import words
from ecgfast.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    STYLE,
    Picture,
    blank,
)

# Okabe and Ito's, the darkest first, then black; shapes tell them apart in print, too
LOOKS = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "D"),
    ("#CC79A7", "^"),
    (SKY, "v"),
    ("#B58900", "P"),
    (INK, "X"),
    (GREY, "*"),
)
WIDTH, HEIGHT = 7.2, 3.9
ROW = 0.052  # of the height of the axes: a label of a line needs so much
DODGE, ABREAST = 0.04, 0.2  # decades: between two error bars, and of all of a share at most


def share(fraction: float) -> str:
    """``0.1 %``."""
    return f"{100 * fraction:.4g} %"


def span(ends: Sequence[int]) -> str:
    """``24``, or ``20-24`` where seeds differ."""
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,}{words.DASH}{high:,}"


def counts(row: Mapping[str, Any]) -> str:
    """What a share of the patients is in numbers."""
    told = f"{span(row['patients'])} patients, {span(row['records'])} records"
    return told if row["positives"] is None else f"{told}, {span(row['positives'])} positive"


def bounded(row: Mapping[str, Any], *, signed: bool = False) -> str:
    """``0.812 [0.790, 0.834]``, with a sign for a difference; the mean alone without interval."""
    if row["estimate"] is None:
        return "undefined"
    sign = "+" if signed else ""
    value, lo, hi = (
        "" if row[k] is None else f"{row[k]:{sign}.3f}".replace("-", words.MINUS)
        for k in ("estimate", "lo", "hi")
    )
    return f"{value} [{lo}, {hi}]" if lo else value


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """``ssl with 2.1 % [1.0 %, 4.3 %] equals supervised with 10 % (AUROC 0.712)``, a line each.

    Shares of B that A does not reach, or is above from the start, are told in one line.
    """
    lines = []
    for key, some in groupby(rows, key=lambda row: (row["a"], row["b"], row["state"])):
        a, b, state = key
        group = list(some)
        if state == "reached":
            lines += [_equal(row) for row in group]
            continue
        goal = f"{b} with {', '.join(share(row['b_fraction']) for row in group)}"
        if state == "not reached":
            lines.append(f"{a} reaches {goal} with none of its shares")
        else:
            lines.append(f"{a} is better than {goal} with its smallest share already")
    return lines


def _equal(row: Mapping[str, Any]) -> str:
    ends = "" if row["lo"] is None else f" [{_rough(row['lo'])}, {_rough(row['hi'])}]"
    value = f"{words.metric(row['metric'])} {row['value']:.3f}"
    goal = f"{row['b']} with {share(row['b_fraction'])}"
    return f"{row['a']} with {_rough(row['a_fraction'])}{ends} equals {goal} ({value})"


def _rough(at: float | str) -> str:
    """Two digits of a share; or where it lies beyond the curve."""
    return at if isinstance(at, str) else share(float(f"{at:.2g}"))


def draw_curve(facts: Mapping[str, Any], metric: str) -> Figure:
    """Mean of the seeds over the share of labelled patients, with its interval, a line a start.

    Error bars are Student's 95 % intervals over the seeds; those of one share stand side by side.
    Each line has its name at its end.
    """
    rows = [row for row in facts["rows"] if row["metric"] == metric]
    name, unit = words.quantity(str(facts["label"]))
    above = "" if facts["threshold"] is None else f" > {facts['threshold']:g} {unit}".rstrip()
    figure = blank(f"Label efficiency: {name}{above}", facts["synthetic"], WIDTH, HEIGHT)
    axis = figure.subplots()
    starts = [start["name"] for start in facts["starts"]]
    ends = []
    dodge = min(DODGE, ABREAST / len(starts))
    for place, start in enumerate(starts):
        colour, marker = LOOKS[place % len(LOOKS)]
        mine = [row for row in rows if row["start"] == start and row["estimate"] is not None]
        if not mine:
            continue
        shift = 10 ** (dodge * (place - (len(starts) - 1) / 2))
        x = np.array([row["fraction"] for row in mine]) * shift
        y = np.array([row["estimate"] for row in mine])
        trained = facts["starts"][place]["how"] in ("probe", "logistic", "full")
        axis.plot(
            *(x, y),
            color=colour,
            marker=marker,
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            linewidth=1.3,
            linestyle="-" if trained else (0, (4, 2)),
            zorder=3,
        )
        known = [
            (at, row["lo"], row["hi"])
            for at, row in zip(x, mine, strict=True)
            if row["hi"] is not None
        ]
        if known:
            at, lo, hi = np.array(known).T
            axis.vlines(at, lo, hi, color=colour, linewidth=1, alpha=0.75, zorder=2)
        ends.append((float(y[-1]), start, colour))
    _axes(axis, facts, rows, metric, unit)
    _names(axis, ends)
    return figure


def _axes(
    axis: Axes,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    unit: str,
) -> None:
    fractions = facts["fractions"]
    axis.set_xscale("log")
    axis.set_xlim(fractions[0] / 1.35, fractions[-1] * 1.35)
    axis.xaxis.set_major_locator(FixedLocator(fractions))
    axis.xaxis.set_minor_locator(NullLocator())
    known = {row["fraction"]: row for row in rows}
    labels = [f"{share(f)}\n{span(known[f]['patients'])}" for f in fractions]
    axis.set_xticklabels(labels)
    axis.set_xlabel("labelled patients: share of the training part, and how many")
    after = f" ({unit})" if unit and metric in words.IN_UNITS else ""
    better = ", lower is better" if metric in ("mae", "rmse") else ""
    axis.set_ylabel(f"{words.metric(metric)}{after}{better}")
    axis.yaxis.set_major_locator(MaxNLocator(6))
    bounds = [row[k] for row in rows for k in ("estimate", "lo", "hi") if row[k] is not None]
    if bounds:
        # the interval of two seeds may be as wide as the world: it is cut, the points are not
        points = np.array([row["estimate"] for row in rows if row["estimate"] is not None])
        room = max(float(np.ptp(points)), 1e-3)
        low = max(min(bounds), float(points.min()) - 0.6 * room)
        high = min(max(bounds), float(points.max()) + 0.6 * room)
        if metric in ("auroc", "auroc_macro"):
            high = min(high, 1.0)
        margin = 0.05 * (high - low) or 0.01
        axis.set_ylim(low - margin, high + margin)
        if metric in ("auroc", "auroc_macro") and low < 0.5 < high:
            axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
            axis.annotate(
                "chance",
                (1, 0.5),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 2),
                textcoords="offset points",
                ha="right",
                fontsize=7,
                color=GREY,
            )
    test, seeds = facts["test"], facts["seeds"]
    axis.annotate(
        f"{seeds} seeds, bars: 95 % interval over them. Test: {test['records']:,} records of "
        f"{test['patients']:,} patients"
        + ("" if test["positives"] is None else f", {test['positives']:,} positive"),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=7,
        color=GREY,
    )


def _names(axis: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Each line's name at its end, moved apart where they would overlap."""
    if not ends:
        return
    low, high = axis.get_ylim()
    wanted = sorted((min(max((y - low) / (high - low), 0), 1), name, c) for y, name, c in ends)
    at = np.array([place for place, _, _ in wanted])
    gaps = ROW * np.arange(len(at))
    # the nearest places in this order that lie ROW apart: pool neighbours that collide
    placed = _isotonic(at - gaps) + gaps
    placed += min(0.0, 1 - placed[-1])
    placed += max(0.0, -placed[0])
    for (wish, name, colour), place in zip(wanted, placed, strict=True):
        axis.annotate(
            name,
            (1, wish),
            xycoords="axes fraction",
            xytext=(1.035, place),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=8,
            fontweight="bold",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _isotonic(values: np.ndarray) -> np.ndarray:
    """The nearest values that do not fall (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count),
                blocks[-1][1] + count,
            ]
    return np.concatenate([np.full(int(count), mean) for mean, count in blocks])


def save_curve(facts: Mapping[str, Any], metric: str, path: Path) -> Picture:
    """The curve as PNG, PDF and SVG: ``path`` with each suffix; and for a page."""
    with matplotlib.rc_context({**STYLE, "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw_curve(facts, metric)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for all three
        plain: dict[str, dict[str, Any]] = {
            "png": {"Software": None},
            "pdf": {"CreationDate": None},
            "svg": {"Date": None, "Title": str(figure.get_label())},
        }
        for kind, metadata in plain.items():
            figure.savefig(f"{path}.{kind}", format=kind, metadata=metadata)
    code = base64.b64encode(Path(f"{path}.svg").read_bytes()).decode()
    return Picture(f"data:image/svg+xml;base64,{code}", str(figure.get_label()), True)


def page(facts: Mapping[str, Any], curves: Mapping[str, Picture]) -> str:
    """One HTML page that needs nothing beside it: curves by metric, tables, ratios."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "span": span, "bounded": bounded}
    environment.filters |= {"metric": words.metric, "count": words.count}
    name, unit = words.quantity(str(facts["label"]))
    above = "" if facts["threshold"] is None else f" > {facts['threshold']:g} {unit}".rstrip()
    metrics = list(dict.fromkeys(row["metric"] for row in facts["rows"]))
    metrics.sort(key=lambda metric: metric != facts["metric"])
    return environment.get_template("label_efficiency.html").render(
        facts=facts,
        title=f"{name}{above}: label efficiency",
        ratios=ratios(facts["ratios"]),
        curves=[(metric, curves[metric]) for metric in metrics],
        tables=[_table(facts, metric) for metric in metrics],
    )


def _table(facts: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Rows by start, a cell for each share."""
    by: dict[str, dict[str, list[Mapping[str, Any]]]] = {"rows": {}, "differences": {}}
    for kind, found in by.items():
        for row in facts[kind]:
            if row["metric"] == metric:
                found.setdefault(row["start"], []).append(row)
    return {"metric": metric, **by}
