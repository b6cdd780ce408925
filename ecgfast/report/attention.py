"""What a dual-attention network attends to: heat maps between leads, and paint on waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MultipleLocator

from ecgfast.eval.attention import GroupMaps
from ecgfast.report.paper import TWELVE
from ecgfast.report.style import GREY, INK, MANY, PALE, WHOLE, Floats, blank, picture

if TYPE_CHECKING:
    from ecgfast.report.contents import Attention, AttentionExample

EVEN = 1 / 12
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
LONGEST_BEAT = 2.6  # seconds that stand in 3 rows of 4; what is longer has a row for each lead
LEAST_TOP = 1.25  # of the colours of paint: narrower would make noise look like peaks


def _paint() -> ListedColormap:
    """The lighter part of a perceptually uniform scale, from white: black lines show on it."""
    shades = colormaps["magma_r"](np.linspace(0.0, 0.55, 256))
    white = np.clip(1 - np.arange(256) / 40, 0, 1)[:, None]
    return ListedColormap(white + (1 - white) * shades, "paint")


PAINT = _paint()


def attention_section(found: Attention | None, *, synthetic: bool) -> dict[str, Any] | None:
    """Pictures and counts for the page; None of a run without attention."""
    if found is None:
        return None
    groups = found.groups
    drawn: dict[str, Any] = {"mixed": found.mixed, "groups": groups, "figures": []}
    drawn |= {"empty": found.empty, "scored": found.scored}
    if groups is not None:
        names = mixtures() if found.mixed else found.leads
        drawn["figures"].append(
            group_heat(groups, names, mixed=found.mixed, synthetic=synthetic)
            if groups.difference is not None
            else mean_heat(groups, names, mixed=found.mixed, synthetic=synthetic)
        )
        if found.heads is not None:
            drawn["heads"] = head_heat(found.heads, names, mixed=found.mixed, synthetic=synthetic)
        if groups.apart is not None and groups.sure is not None:
            drawn |= {"apart": int(groups.apart.sum()), "sure": int(groups.sure.sum())}
            drawn |= {"cells": groups.apart.size}
            drawn["chance"] = round((1 - groups.level) * groups.apart.size)
    scales = _scales(found.shown)
    drawn["records"] = [
        (painted_record(one, found, scales, synthetic=synthetic), one.words) for one in found.shown
    ]
    drawn["time"] = any(example.painted is not None for example in found.shown)
    return drawn


@picture
def group_heat(groups: GroupMaps, leads: Sequence[str], *, mixed: bool, synthetic: bool) -> Figure:
    """Mean maps of all records, lowest and highest scores on one scale; the difference about 0."""
    figure = blank(_title("Attention between leads by score", mixed), synthetic, WHOLE, 6.7)
    axes = figure.subplots(2, 2)
    low, high, difference = groups.low, groups.high, groups.difference
    assert low is not None
    assert high is not None
    assert difference is not None
    scale = _scale(groups.mean, low, high)
    heads = (
        (axes[0, 0], groups.mean, "all records", 0),
        (axes[1, 0], low, "lowest scores", 1),
        (axes[1, 1], high, "highest scores", 2),
    )
    for axis, values, name, i in heads:
        shades = _heat(axis, values, leads, mixed, SEQUENTIAL, scale)
        axis.set_title(
            f"{name}: {groups.records[i]:,} records of {groups.patients[i]:,} patients", loc="left"
        )
        if i != 1:  # low and high stand side by side
            _bar(figure, shades, axis, "mean attention weight")
    most = float(np.abs(difference).max()) or 1e-6
    axis = axes[0, 1]
    shades = _heat(axis, difference, leads, mixed, DIVERGING, Normalize(-most, most))
    axis.set_title("highest \N{MINUS SIGN} lowest scores", loc="left")
    figure.colorbar(shades, ax=axis, shrink=0.85, pad=0.02).outline.set_visible(False)
    for mask, marker, size in ((groups.apart, "o", 2.2), (groups.sure, "s", 5.5)):
        if mask is not None:
            rows, columns = np.nonzero(mask)
            axis.plot(
                *(columns, rows, marker),
                color=INK,
                markersize=size,
                markerfacecolor=INK if marker == "o" else "none",
                markeredgewidth=0.8 if marker == "s" else 0,
            )
    return figure


@picture
def mean_heat(groups: GroupMaps, leads: Sequence[str], *, mixed: bool, synthetic: bool) -> Figure:
    """The mean map alone, where there are no groups."""
    figure = blank(_title("Attention between leads", mixed), synthetic, WHOLE / 2 + 0.6, 3.7)
    axis = figure.subplots()
    norm = _scale(groups.mean)
    shades = _heat(axis, groups.mean, leads, mixed, SEQUENTIAL, norm)
    axis.set_title(f"{groups.records[0]:,} records of {groups.patients[0]:,} patients", loc="left")
    _bar(figure, shades, axis, "mean attention weight")
    return figure


@picture
def head_heat(heads: Floats, leads: Sequence[str], *, mixed: bool, synthetic: bool) -> Figure:
    """The mean map of each head, on one scale."""
    title = _title("Attention between leads of each head", mixed)
    figure = blank(title, synthetic, WHOLE, 4.0)
    axes = figure.subplots(2, -(-len(heads) // 2), sharex=True, sharey=True, squeeze=False)
    norm = _scale(heads)
    for i, (axis, values) in enumerate(zip(axes.flat, heads, strict=False)):
        shades = _heat(axis, values, leads, mixed, SEQUENTIAL, norm, True)
        axis.set_title(f"head {i + 1}", loc="left")
    _bar(figure, shades, list(axes.flat), "mean attention weight")
    return figure


@picture
def painted_record(
    example: AttentionExample, found: Attention, scales: Scales, *, synthetic: bool
) -> Figure:
    """A record as the network sees it on its attention over time; beside it that over leads."""
    samples, leads = example.ecg.shape[1], found.leads
    seconds = samples / found.fs
    beat = seconds <= LONGEST_BEAT and set(leads) == {name for row in TWELVE for name in row}
    rows = TWELVE if beat else tuple((name,) for name in leads)
    title = f"{example.kind}: record {example.record_id}"
    figure = blank(title, synthetic, WHOLE, 3.2 if beat else 6.4)
    figure.set_layout_engine("none")
    bottom, top = (0.12, 0.9) if beat else (0.06, 0.95)
    right = 0.98 - 0.28 * (example.leads is not None) - 0.09 * (example.painted is not None)
    grid = figure.add_gridspec(
        *(len(rows), len(rows[0])), left=0.02, right=right, bottom=bottom, top=top
    )
    grid.update(wspace=0.05, hspace=0.08)
    axes = grid.subplots(sharex=True, sharey=True, squeeze=False)
    centred = example.ecg - np.median(example.ecg, axis=1, keepdims=True)
    low, high = float(centred.min()), float(centred.max())
    room = max(high - low, 1e-6)
    box = (0.0, seconds, low - 0.06 * room, high + (0.25 if beat else 0.1) * room)
    many = samples * len(leads) > 6 * MANY
    shades: AxesImage | None = None
    halo = [withStroke(linewidth=2.0, foreground="white")]
    for axis, name in zip(axes.flat, (name for row in rows for name in row), strict=True):
        lead = leads.index(name)
        if example.painted is not None:
            band = _thin(example.painted[lead])[None]
            shades = axis.imshow(band, cmap=PAINT, norm=scales.paint, extent=box, aspect="auto")
        time = np.arange(samples) / found.fs
        axis.plot(time, centred[lead], color=INK, linewidth=0.5 if many else 0.9, rasterized=many)
        label = f"m{lead + 1} on {name}" if found.mixed else name
        place = (0.015, 0.95, label)
        axis.text(*place, transform=axis.transAxes, va="top", fontweight="bold", path_effects=halo)
        axis.set(xlim=box[:2], ylim=box[2:], yticks=[])
        axis.grid(False)
        axis.spines[:].set(visible=True, color=PALE, linewidth=0.6)
        axis.tick_params(length=2)
        axis.xaxis.set_major_locator(MultipleLocator(0.5 if beat else 1.0))
        axis.xaxis.set_major_formatter("{x:g}")
    for axis in axes[-1]:
        axis.set_xlabel("s", labelpad=1)
    middle = (bottom + top) / 2
    if shades is not None:
        _side(
            figure,
            shades,
            (right + 0.012, middle - 0.3, 0.012, 0.6),
            "attention over time (1: even share)",
        )
    if example.leads is not None:
        side = 0.20 * WHOLE / figure.get_figheight()
        axis = figure.add_axes((0.765, middle - side / 2, 0.20, side))
        names = mixtures() if found.mixed else leads
        shades = _heat(axis, example.leads, names, found.mixed, SEQUENTIAL, scales.leads, True)
        axis.set_title("attention over leads", loc="left", color=GREY)
        below = (0.765, middle - side / 2 - 0.3 / figure.get_figheight(), 0.20, 0.012)
        _side(figure, shades, below, "")
    return figure


class Scales(NamedTuple):
    """Of colours, the same for all records that are shown."""

    paint: Normalize
    leads: Normalize | None


def mixtures() -> tuple[str, ...]:
    """Names of what a network that mixes leads has in place of leads."""
    return tuple(f"m{i + 1}" for i in range(12))


def _scales(shown: Sequence[AttentionExample]) -> Scales:
    bands = [one.painted.reshape(-1) for one in shown if one.painted is not None]
    high = float(np.quantile(np.concatenate(bands), 0.995)) if bands else 0.0
    maps = [one.leads for one in shown if one.leads is not None]
    return Scales(Normalize(1.0, max(LEAST_TOP, high)), _scale(*maps) if maps else None)


def _heat(
    axis: Axes,
    values: Floats,
    names: Sequence[str],
    mixed: bool,
    cmap: str,
    norm: Normalize | None,
    small: bool = False,
) -> AxesImage:
    """Query by key, square cells."""
    shades = axis.imshow(values, cmap=cmap, norm=norm, interpolation="nearest", aspect="equal")
    size = 5.0 if small else 7.0
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.tick_params(length=0, pad=1.5)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if not small:
        what = "mixture" if mixed else "lead"
        axis.set(xlabel=f"key: {what} attended to", ylabel=f"query: {what} that attends")
    return shades


def _bar(figure: Figure, shades: AxesImage, axis: Any, label: str) -> None:
    bar = figure.colorbar(shades, ax=axis, shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    if shades.norm.vmin <= EVEN <= shades.norm.vmax:  # type: ignore[operator]
        bar.ax.axhline(EVEN, color="white", linewidth=1.2)
        label += " (line: even, 1/12)"
    bar.set_label(label)


def _side(
    figure: Figure, shades: AxesImage, place: tuple[float, float, float, float], label: str
) -> None:
    """A bar at a place of its own, upright or lying as the place is."""
    axis = figure.add_axes(place)
    upright = place[3] > place[2]
    bar = figure.colorbar(shades, cax=axis, orientation="vertical" if upright else "horizontal")
    bar.outline.set_visible(False)
    axis.tick_params(length=2, labelsize=6.5)
    if label:
        bar.set_label(label, fontsize=7)


def _scale(*maps: Floats) -> Normalize:
    """One scale for all; of maps that do not vary, a little about their value."""
    low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    return Normalize(low, high) if high - low > 1e-6 else Normalize(low - 1e-3, high + 1e-3)


def _title(text: str, mixed: bool) -> str:
    return text.replace("leads", "mixtures of leads") if mixed else text


def _thin(band: Floats) -> Floats:
    """No more pixels than can be seen: attention is smooth."""
    return band[:: max(1, len(band) // 600)]
