"""Embeddings on a plane."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgfast.report.style import (
    BLUE,
    GREEN,
    INK,
    MANY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    YELLOW,
    Floats,
    blank,
    picture,
)


@picture
def embedding_map(
    points: Floats,
    axes_names: tuple[str, str],
    values: Floats,
    *,
    title: str,
    names: Mapping[float, str] | None,
    quantity: str,
    synthetic: bool,
) -> Figure:
    """Embeddings on a plane, coloured by classes (where they have names) or by a quantity."""
    figure = blank(title, synthetic)
    axis = figure.subplots()
    known = np.isfinite(values)
    pixels = len(points) > MANY
    size = float(np.clip(4000 / max(len(points), 1), 3, 12))
    if not known.all():
        axis.scatter(
            points[~known, 0],
            points[~known, 1],
            s=size,
            color=PALE,
            linewidths=0,
            rasterized=pixels,
            label=f"unknown ({int((~known).sum()):,})",
        )
    if names is not None:
        # in one call and a drawn order, so that no class lies on top of the other
        order = np.random.default_rng(0).permutation(np.flatnonzero(known))
        palette = dict(zip(names, (BLUE, ORANGE, GREEN, SKY, PURPLE, YELLOW, INK), strict=False))
        colours = [palette[v] for v in values[order]]
        axis.scatter(
            points[order, 0],
            points[order, 1],
            s=size,
            c=colours,
            alpha=0.7,
            linewidths=0,
            rasterized=pixels,
        )
        for value, name in names.items():
            count = int((values == value).sum())
            words = f"{name} ({count:,})"
            axis.scatter([], [], s=16, color=palette[value], linewidths=0, label=words)
        figure.legend(loc="outside lower center", ncols=3, handletextpad=0.1, columnspacing=1.2)
    else:
        drawn = axis.scatter(
            points[known, 0],
            points[known, 1],
            s=size,
            c=values[known],
            cmap="viridis",
            alpha=0.8,
            linewidths=0,
            rasterized=pixels,
        )
        bar = figure.colorbar(drawn, ax=axis, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(quantity)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
    axis.set(xlabel=axes_names[0], ylabel=axes_names[1])
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    return figure
