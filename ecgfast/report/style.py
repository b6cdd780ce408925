"""How figures look, and how they come to the page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito's colours, which every kind of colour vision tells apart
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
PURPLE, YELLOW = "#CC79A7", "#E69F00"
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#EBEBEB",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.parse_math": False,  # names of records and labels are not formulas
    "svg.hashsalt": "ecgfast",  # the same figure gives the same bytes
    "savefig.dpi": 200,
}
HALF, WHOLE = 3.5, 7.2  # inches: a column, a page
MANY = 2000  # points beyond which a cloud is drawn as pixels

Floats = NDArray[np.floating[Any]]
P = ParamSpec("P")


class Picture(NamedTuple):
    """An image for the page: where it is (a data URI), what it shows, whether it is wide."""

    uri: str
    alt: str
    wide: bool


def picture(draw: Callable[P, Figure]) -> Callable[P, Picture]:
    """Draws in the house's style and makes an inline SVG of it."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as a box
            figure = draw(*args, **kwargs)
            alt = str(figure.get_label())
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None, "Title": alt})
        code = base64.b64encode(file.getvalue()).decode()
        return Picture(f"data:image/svg+xml;base64,{code}", alt, figure.get_figwidth() > HALF + 1)

    return drawn


def blank(title: str, synthetic: bool, width: float = HALF, height: float = 3.2) -> Figure:
    """A figure with its headline; made data are called so in the figure itself."""
    figure = Figure(figsize=(width, height), layout="constrained")
    headline = f"{title} (SYNTHETIC data)" if synthetic else title
    figure.set_label(headline)
    figure.suptitle(headline, x=0.02, ha="left", fontsize=9, fontweight="bold")
    if synthetic:
        figure.text(
            *(0.55, 0.5, "SYNTHETIC"),
            fontsize=min(9 * width, 16 * height),
            color=ORANGE,
            alpha=0.07,
            rotation=25,
            ha="center",
            va="center",
            fontweight="bold",
        )
    return figure
