"""Figures and tables of a time to an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ecgfast.report import words
from ecgfast.report.style import BLUE, GREY, INK, ORANGE, SKY, WHOLE, Floats, blank, picture

COLOURS = {"low": SKY, "middle": GREY, "high": ORANGE}
MOST_HORIZONS = 3


def pictures(
    facts: Mapping[str, Any], predictions: Mapping[str, Any], *, synthetic: bool
) -> tuple[list[Any], list[str]]:
    """Curves by group of risk, then at each horizon calibration and how risks lie; and notes."""
    found = facts["survival"]
    unit, event = found["unit"], words.quantity(found["event"])[0]
    drawn: list[Any] = [
        curves(found["groups"], event=event, unit=unit, synthetic=synthetic),
    ]
    time, seen = (np.asarray(predictions[k], float) for k in ("time", "event"))
    for at in found["calibration"][-MOST_HORIZONS:]:
        risk = np.asarray(predictions[f"risk_at_{at['at']:g}"], float)
        when = words.duration(at["at"], unit)
        drawn.append(calibration(at["points"], when=when, synthetic=synthetic))
        drawn.append(risks(risk, time, seen, at=at["at"], when=when, synthetic=synthetic))
    notes = []
    if not found["chances"]:
        notes.append(f"calibration and Brier scores not computed: {found['chances_from']}")
    elif not found["calibration"]:
        asked = ", ".join(words.duration(at, unit) for at in found["asked"])
        why = f"none of {asked} is fit for these records" if asked else "no horizon was named"
        notes.append(f"calibration not computed: {why}")
    return drawn, notes


@picture
def curves(groups: Mapping[str, Any], *, event: str, unit: str, synthetic: bool) -> Figure:
    """Kaplan-Meier curves with their bands, and below how many are at risk."""
    shown = groups["curves"]
    figure = blank(f"Without {event}, by predicted risk", synthetic, WHOLE, 3.4 + 0.17 * len(shown))
    axis, below = figure.subplots(2, 1, height_ratios=[12, len(shown) + 0.6], sharex=True)
    lowest = 1.0
    for curve in shown:
        colour = COLOURS[curve["name"]]
        time, share, lo, hi = (
            np.array([np.nan if v is None else v for v in curve[key]], float)
            for key in ("time", "survival", "lo", "hi")
        )
        lo, hi = np.where(np.isnan(lo), share, lo), np.where(np.isnan(hi), share, hi)
        ends = np.append(time, curve["last"])
        steps = [np.append(values, values[-1]) for values in (share, lo, hi)]
        axis.fill_between(ends, *steps[1:], step="post", color=colour, alpha=0.18, linewidth=0)
        of = f"{curve['name']} risk: {curve['events']:,} of {curve['n']:,}"
        axis.step(ends, steps[0], where="post", color=colour, label=of)
        lowest = min(lowest, float(lo.min()))
    floor = 0.0 if lowest < 0.6 else np.floor(lowest * 20 - 0.5) / 20  # of rare events, a part
    axis.set(ylabel=f"share without {event}", ylim=(max(floor, 0.0), 1 + 0.02 * (1 - floor)))
    if floor > 0:
        axis.annotate(
            f"the axis begins at {100 * floor:.0f} %",
            (1, 0),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=GREY,
            fontsize=7.5,
        )
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axis.legend(loc="lower left", title=_test(groups), alignment="left", title_fontsize=7.5)
    last = max(curve["last"] for curve in shown)
    axis.set_xlim(-0.02 * last, 1.02 * last)
    axis.tick_params(axis="x", labelbottom=False)
    _at_risk(below, groups["at_risk"], shown)
    below.set_xlabel(f"time ({unit})" if unit else "time")
    return figure


def _test(groups: Mapping[str, Any]) -> str:
    """Log-rank test and hazard ratio on a line each; why not, where there are none."""
    test, ratio = groups["log_rank"], groups["hazard_ratio"]
    p = words.p_value(test["p"])
    lines = [f"log-rank p {p if p.startswith('<') else f'= {p}'}"]
    if test["p"] is None:
        lines = [f"no log-rank test: {test['reason']}"]
    if ratio["reason"] is None:
        lines.append(f"HR high/low {ratio['estimate']:.2f} [{ratio['lo']:.2f}, {ratio['hi']:.2f}]")
    return "\n".join(lines)


def _at_risk(axis: Any, table: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> None:
    ticks = table["time"]
    for place, curve in enumerate(shown):
        for at, count in zip(ticks, table["counts"][curve["name"]], strict=True):
            axis.text(at, place, f"{count:,}", ha="center", va="center", fontsize=7.5)
    axis.set_ylim(len(shown) - 0.4, -0.9)
    axis.set_xticks(ticks, [f"{at:,.4g}" if at < 1e4 else f"{at:,.0f}" for at in ticks])
    axis.set_yticks(range(len(shown)), [curve["name"] for curve in shown])
    axis.tick_params(axis="y", length=0)
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    axis.set_title("at risk", loc="left", fontsize=7.5, color=INK, pad=2)


@picture
def calibration(points: Sequence[Mapping[str, Any]], *, when: str, synthetic: bool) -> Figure:
    """Observed over predicted risk in groups, on axes as long as the risks are high."""
    figure = blank(f"Calibration at {when}", synthetic)
    axis = figure.subplots()
    known = [p for p in points if p["observed"] is not None]
    bounded = [p for p in known if p["lo"] is not None]
    top = max([0.01] + [max(p["predicted"], p["hi"] or p["observed"]) for p in known])
    top = min(1.0, 1.06 * top)
    axis.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="ideal")
    axis.vlines(
        [p["predicted"] for p in bounded],
        [p["lo"] for p in bounded],
        [p["hi"] for p in bounded],
        color=BLUE,
        linewidth=1,
        label="95 % interval",
    )
    axis.plot(
        [p["predicted"] for p in known],
        [p["observed"] for p in known],
        "o",
        color=BLUE,
        markersize=4,
        label="groups of equal size",
    )
    room = 0.03 * top
    axis.set(xlim=(-room, top + room), ylim=(-room, top + room), aspect="equal")
    axis.set(xlabel="predicted risk, mean", ylabel="observed risk (Kaplan-Meier)")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axis.legend(loc="lower right")
    return figure


@picture
def risks(
    risk: Floats,
    time: Floats,
    event: Floats,
    *,
    at: float,
    when: str,
    synthetic: bool,
) -> Figure:
    """How predicted risks lie, of those with the event until a time and of those without."""
    figure = blank(f"Predicted risk at {when}", synthetic)
    axis = figure.subplots()
    sides = (
        (time > at, SKY, "without event then"),
        ((time <= at) & (event == 1), ORANGE, "with event until then"),
    )
    low, high = float(risk.min()), float(risk.max())
    bins = np.linspace(low, high if high > low else low + 1e-6, 26)
    for mask, colour, name in sides:
        count, _ = np.histogram(risk[mask], bins)
        share = count / max(int(mask.sum()), 1)
        axis.stairs(
            share, bins, fill=True, color=colour, alpha=0.45, label=f"{name} (n = {mask.sum():,})"
        )
        axis.stairs(share, bins, color=colour, linewidth=1)
    lost = int(((time <= at) & (event == 0)).sum())
    axis.set(xlabel=f"predicted risk at {when}", ylabel="share of those records")
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    title = f"{lost:,} more were lost before" if lost else None
    axis.legend(loc="upper right", title=title, alignment="left", title_fontsize=7.5)
    return figure
