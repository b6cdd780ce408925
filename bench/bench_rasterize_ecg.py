"""Pages of ECG paper against matplotlib: ``pytest bench/bench_rasterize_ecg.py``.

One thread each: matplotlib has no more, and a page is what a loading process draws at a time.
``matplotlib`` is as fast as we could make it, the grid as two line collections; ``matplotlib
ticks`` has the grid that ECG plots commonly have, that of major and minor ticks.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from ecgfast.config import LEADS
from ecgfast.ops import PageStyle, rasterize_ecg
from ecgfast.testing import make_ecg

# (pages, height, width, channels)
SHAPES = [(1, 1700, 2200, 3), (32, 300, 300, 3), (32, 300, 300, 1)]
PROVIDERS = ["ecgfast", "matplotlib", "matplotlib ticks"]
STYLE = PageStyle()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def grid_of_lines(axes, size, place, px_per_mm):
    """All lines of a kind as one collection, where they fall on pixels or between them."""
    height, width = size
    for mm, colour, line in (
        (1, STYLE.fine, STYLE.fine_mm),
        (5, STYLE.coarse, STYLE.coarse_mm),
    ):
        step = mm * px_per_mm
        xs = np.arange(place.left % step, width, step)
        ys = np.arange(place.baseline % step, height, step)
        lines = [((x, 0), (x, height)) for x in xs] + [((0, y), (width, y)) for y in ys]
        points = 72 / 100 * line * px_per_mm
        rgb = np.array(colour) / 255
        axes.add_collection(LineCollection(lines, colors=[rgb], linewidths=points, snap=False))


def grid_of_ticks(axes, size, place, px_per_mm):
    """A line at each tick, as ``axes.grid`` draws them."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(5 * px_per_mm))
        axis.set_minor_locator(MultipleLocator(px_per_mm))
    points = 72 / 100 * px_per_mm
    for which, colour, mm in (
        ("minor", STYLE.fine, STYLE.fine_mm),
        ("major", STYLE.coarse, STYLE.coarse_mm),
    ):
        axes.grid(which=which, color=np.array(colour) / 255, linewidth=points * mm)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)


def by_matplotlib(ecg, boxes, size, px_per_mm, channels, names=True, grid=grid_of_lines):
    """The same page: grid, names and traces, into an Agg canvas."""
    height, width = size
    pages = []
    for record, places in zip(ecg.numpy(), boxes, strict=True):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        figure.patch.set_facecolor(np.array(STYLE.paper) / 255)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        if grid is grid_of_lines:
            axes.axis("off")
        grid(axes, size, places[0], px_per_mm)
        ink, points = np.array(STYLE.ink) / 255, 72 / 100 * max(1.0, STYLE.line_mm * px_per_mm)
        for box in places:
            t = np.arange(box.first, box.first + box.samples)
            y = box.baseline - box.px_per_mv * record[LEADS.index(box.lead), t]
            axes.plot(box.x0 + box.dx * t, y, color=ink, linewidth=points, snap=False)
            if names:
                axes.text(box.left, box.baseline - 8 * px_per_mm, box.lead, fontsize=2 * px_per_mm)
        canvas.draw()
        page = np.asarray(canvas.buffer_rgba())[..., :3]
        pages.append(page if channels == 3 else page.mean(axis=-1, keepdims=True))
    return np.stack(pages)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_pages(measure, device, shape, provider):
    pages, height, width, channels = shape
    ecg = make_ecg(pages, 12, 5000, device=device)
    drawn = rasterize_ecg(ecg, fs=500.0, size=(height, width), channels=channels)

    def mine(x):
        return rasterize_ecg(x, fs=500.0, size=(height, width), channels=channels).images

    def theirs(x):
        grid = grid_of_ticks if provider == "matplotlib ticks" else grid_of_lines
        scale = drawn.px_per_mm[0]
        return by_matplotlib(x, drawn.boxes, (height, width), scale, channels, grid=grid)

    if provider != "ecgfast" and device.type != "cpu":
        pytest.skip("matplotlib draws on the CPU")
    if provider == "matplotlib ticks" and pages > 1:
        pytest.skip("half a minute a batch: one page tells it")
    function = mine if provider == "ecgfast" else theirs
    measure(function, ecg, least_bytes=ecg.nbytes + drawn.images.nbytes)
