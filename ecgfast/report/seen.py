"""Pages of ECG paper with where a score comes from."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ecgfast.report.style import GREY, Floats, picture


@picture
def seen_page(page: NDArray[np.uint8], heat: Floats, *, title: str, synthetic: bool) -> Figure:
    """A page in grey with its activation map over it, and what its colours mean."""
    figure = Figure(figsize=(5.6, 5.2))
    headline = f"{title}: what raised the score" + (" (SYNTHETIC data)" if synthetic else "")
    figure.set_label(headline)
    axis = figure.add_axes((0.02, 0.03, 0.82, 0.88))
    axis.set_axis_off()
    box = (0.0, float(page.shape[1]), float(page.shape[0]), 0.0)
    axis.imshow(page.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=box)
    shades = axis.imshow(
        heat,
        cmap="inferno_r",
        vmin=0,
        vmax=1,
        extent=box,
        alpha=np.clip(0.55 * heat, 0, 1),
        interpolation="bilinear",
    )
    axis.set_title(headline, loc="left")
    bar = figure.add_axes((0.87, 0.25, 0.02, 0.45))
    figure.colorbar(shades, cax=bar, ticks=[0, 1]).outline.set_visible(False)
    bar.set_yticklabels(["nothing", "most"], color=GREY)
    return figure
