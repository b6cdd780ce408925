"""ECGs drawn as pages of ECG paper, a batch at a time, as fast as a page can be written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast import _C
from ecgfast.config import LEADS
from ecgfast.ops._native import place, ready, register, view
from ecgfast.ops._page import LAYOUTS as LAYOUTS
from ecgfast.ops._page import MOST_PIXELS, PagePlan, page_plan
from ecgfast.ops._page import PageBox as PageBox
from ecgfast.ops._page import PageLayout as PageLayout
from ecgfast.ops._page import PageStyle as PageStyle
from ecgfast.ops._page import layout_named as layout_named

Layout = str | PageLayout
PLAIN = PageStyle()
DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
_SPARE = 16  # kSpare of plan.h
_HALVES = (torch.float16, torch.bfloat16)


class EcgPages(NamedTuple):
    """Drawn pages, and where everything stands on them.

    Attributes:
        images: ``(N, C, H, W)``; uint8 from 0 to 255, or floats from 0 to 1.
        boxes: Of each page its leads in the order of its layout.
        px_per_mm: Of each page, pixels of a mm.
    """

    images: Tensor
    boxes: tuple[tuple[PageBox, ...], ...]
    px_per_mm: tuple[float, ...]


def rasterize_ecg(
    ecg: Tensor,
    *,
    fs: float,
    layout: Layout | Sequence[Layout] = "3x4+1",
    size: tuple[int, int] = (1700, 2200),
    style: PageStyle | Sequence[PageStyle] = PLAIN,
    leads: Sequence[str] = LEADS,
    channels: int = 3,
    dtype: torch.dtype = torch.uint8,
    missing: str = "blank",
) -> EcgPages:
    r"""Draws records as on ECG paper: grid, calibration pulse, names of leads, traces.

    Lines are covered analytically: a pixel whose centre lies at a distance d from a line of radius
    r (half its width and half a pixel) has the share :math:`\min(1, \max(0, r - d))` of ink, the
    grid exactly the share of the pixel that its lines cover. Nothing is drawn larger and scaled
    down. Records have layouts and looks of their own, if lists of them are given.

    A sample that is not finite leaves a gap in the line. Traces are drawn as they are: take the
    baseline out first (:func:`ecgfast.ops.sosfiltfilt`) if it wanders beyond its row.

    Args:
        ecg: Signals, ``(N, L, T)`` in mV. Any float dtype and strides.
        fs: Samples a second, Hz.
        layout: A name (12x1, 6x2, 3x4, 3x4+1, 3x4+3), such a name and ``-shuffled:7`` for its leads
            in the order of a seed, or a :class:`PageLayout`; or one a record.
        size: Height and width of a page, pixels. (1700, 2200) is a letter at 200 a inch.
        style: How pages look, or one a record.
        leads: Names of the leads of ``ecg``.
        channels: 3 colours, or 1 of grey (ITU-R BT.601).
        dtype: uint8 from 0 to 255; float32, float16 or bfloat16 from 0 to 1.
        missing: What to do with a lead of the layout that ``leads`` has not, or of which a record
            has no finite sample: blank leaves its place free, raise is an error.

    Returns:
        Images, boxes of the leads, pixels of a mm. No gradient.

    Raises:
        ValueError: A shape, a size, a rate, or a layout that does not fit; a lead that is missing.
        TypeError: ``ecg`` is not of a float dtype, or ``dtype`` is none of those above.

    Example:
        >>> pages = rasterize_ecg(torch.zeros(2, 12, 5000), fs=500, size=(300, 300))
        >>> pages.images.shape, pages.boxes[0][0].lead
        (torch.Size([2, 3, 300, 300]), 'I')
    """
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be uint8, float32, float16 or bfloat16, got {dtype}")
    plans = _planned(ecg, fs, layout, size, style, tuple(leads), channels)
    if missing == "raise":
        _expect_leads(ecg, plans, tuple(leads))
    elif missing != "blank":
        raise ValueError(f"missing must be 'blank' or 'raise', got {missing!r}")
    images = _draw(ecg.detach(), *_numbers(plans, ecg.device), *size, channels, dtype)
    return EcgPages(
        images, tuple(plan.boxes for plan in plans), tuple(plan.px_per_mm for plan in plans)
    )


def rasterize_ecg_reference(
    ecg: Tensor,
    *,
    fs: float,
    layout: Layout | Sequence[Layout] = "3x4+1",
    size: tuple[int, int] = (1700, 2200),
    style: PageStyle | Sequence[PageStyle] = PLAIN,
    leads: Sequence[str] = LEADS,
    channels: int = 3,
    dtype: torch.dtype = torch.uint8,
) -> Tensor:
    """The images in numpy and float64, a line at a time: slow, obvious, the truth for tests.

    With ``dtype=torch.float64`` nothing is rounded, neither ink nor colours.
    """
    plans = _plans(ecg, fs, layout, size, style, tuple(leads), channels)
    pages = [
        _page_reference(record, plan, size, channels, rounded=dtype != torch.float64)
        for record, plan in zip(ecg.detach().cpu().double().numpy(), plans, strict=True)
    ]
    images = np.stack(pages) if pages else np.zeros((0, channels, *size))
    if dtype == torch.uint8:
        return torch.from_numpy(np.floor(images + 0.5).astype(np.uint8))
    return torch.from_numpy(images / 255).to(dtype)


def _planned(*words: Any) -> list[PagePlan]:
    """As ``_plans``; a compiler leaves it as it is, what draws is an op."""
    disabled: Any = torch.compiler.disable(_plans)
    plans: list[PagePlan] = disabled(*words)
    return plans


def _plans(
    ecg: Tensor,
    fs: float,
    layout: Layout | Sequence[Layout],
    size: tuple[int, int],
    style: PageStyle | Sequence[PageStyle],
    leads: tuple[str, ...],
    channels: int,
) -> list[PagePlan]:
    if ecg.dim() != 3 or ecg.shape[2] == 0:
        raise ValueError(f"ecg must be (N, L, T) with samples, got {tuple(ecg.shape)}")
    if not ecg.is_floating_point():
        raise TypeError(f"ecg must be of a float dtype, got {ecg.dtype}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if not 0 < fs < math.inf:
        raise ValueError(f"fs must be positive, got {fs}")
    if len(leads) != ecg.shape[1] or len(set(leads)) < len(leads):
        raise ValueError(
            f"leads must name the {ecg.shape[1]} leads of ecg, each once, got {', '.join(leads)}"
        )
    if len(size) != 2 or not all(isinstance(s, int) and 0 < s <= MOST_PIXELS for s in size):
        raise ValueError(f"size must be (height, width), 1 to {MOST_PIXELS} pixels, got {size}")
    layouts = _each("layout", layout, len(ecg), (str, PageLayout))
    styles = _each("style", style, len(ecg), (PageStyle,))
    found = [_layout(name) for name in layouts]
    return [
        page_plan(one, look, (size[0], size[1]), leads, float(fs), ecg.shape[2], channels == 1)
        for one, look in zip(found, styles, strict=True)
    ]


def _each(name: str, given: object, count: int, kinds: tuple[type, ...]) -> list[Any]:
    if isinstance(given, kinds):
        return [given] * count
    listed = list(given)  # type: ignore[call-overload]
    if len(listed) != count:
        raise ValueError(f"{name} must be one, or one a record, got {len(listed)} for {count}")
    return listed


def _layout(layout: Layout) -> PageLayout:
    return layout if isinstance(layout, PageLayout) else layout_named(layout)


def _expect_leads(ecg: Tensor, plans: list[PagePlan], leads: tuple[str, ...]) -> None:
    there = ecg.isfinite().any(dim=2).cpu().numpy()
    for n, plan in enumerate(plans):
        names = [box.lead for box in plan.boxes]
        gone = [name for name in names if name not in leads or not there[n, leads.index(name)]]
        if gone:
            raise ValueError(
                f"record {n} lacks {', '.join(dict.fromkeys(gone))}, which its layout shows: take "
                "another layout, or missing='blank'"
            )


def _numbers(plans: list[PagePlan], device: torch.device) -> list[Tensor]:
    """The plans of a batch, filled up with strips and groups that draw nothing."""
    parts = (
        [plan.strips for plan in plans],
        [plan.strokes for plan in plans],
        [plan.groups for plan in plans],
    )
    looks = np.stack([plan.look for plan in plans]) if plans else np.zeros((0, 18))
    filled = []
    for part, columns in zip(parts, (10, 5, 6), strict=True):
        most = max((len(one) for one in part), default=0)
        whole = np.zeros((len(plans), most, columns))
        for n, one in enumerate(part):
            whole[n, : len(one)] = one
        filled.append(whole)
    return [torch.from_numpy(part).to(device) for part in (looks, *filled)]


def _draw_like(
    x: Tensor,
    looks: Tensor,
    strips: Tensor,
    strokes: Tensor,
    groups: Tensor,
    height: int,
    width: int,
    channels: int,
    dtype: torch.dtype,
) -> Tensor:
    return x.new_empty((len(x), channels, height, width), dtype=dtype)


@register(
    "rasterize_ecg(Tensor x, Tensor looks, Tensor strips, Tensor strokes, Tensor groups,"
    " int height, int width, int channels, ScalarType dtype) -> Tensor",
    _draw_like,
)
def _draw(
    x: Tensor,
    looks: Tensor,
    strips: Tensor,
    strokes: Tensor,
    groups: Tensor,
    height: int,
    width: int,
    channels: int,
    dtype: torch.dtype,
) -> Tensor:
    x = ready(x)
    kept = torch.float32 if dtype in _HALVES and not x.is_cuda else dtype
    images = x.new_empty((len(x), channels, height, width), dtype=kept)
    where = place(x)
    numbers = 2 * width + height + _SPARE + 5 * x.shape[2]
    row = 4 * numbers + width * (channels * images.element_size() + height)
    shape = (0, 0) if x.is_cuda else (where[2], -(-row // 64) * 64)
    scratch = x.new_zeros(shape, dtype=torch.uint8)
    plan = (looks, strips, strokes, groups)
    _C.rasterize_ecg(view(x), *(view(part) for part in plan), view(scratch), view(images), where)
    return images if kept == dtype else images.to(dtype)


def _page_reference(
    record: NDArray[np.float64],
    plan: PagePlan,
    size: tuple[int, int],
    channels: int,
    rounded: bool,
) -> NDArray[np.float64]:
    """One page ``(C, H, W)``, 0 to 255, before its colours are rounded."""
    height, width = size
    ink = np.zeros(size)
    for lead, first, count, x0, dx, y0, dy, top, bottom, radius in plan.strips:
        if lead < 0:
            continue
        t = np.arange(int(first), int(first + count))
        x, y = x0 + dx * t, y0 - dy * record[int(lead), t]
        there = np.abs(y) < 2**22  # not of a NaN
        for a in range(len(t) - 1):
            if there[a] and there[a + 1]:
                line = (x[a], y[a], x[a + 1], y[a + 1], radius)
                _line_reference(ink, line, (int(top), int(bottom)))
    for line in plan.strokes:
        _line_reference(ink, tuple(line), (0, height))
    ink = np.floor(255 * ink + 0.5) / 255 if rounded else ink
    origin_x, origin_y, fine, fine_width, coarse, coarse_width = plan.look[:6]
    colours = plan.look[6:].reshape(4, 3)[:, :channels, None, None]
    page = np.broadcast_to(colours[0], (channels, *size))
    for line, pitch, wide in ((colours[1], fine, fine_width), (colours[2], coarse, coarse_width)):
        share_x = _grid_reference(width, origin_x, pitch, wide)
        share_y = _grid_reference(height, origin_y, pitch, wide)[:, None]
        page = page + (share_x + share_y - share_x * share_y) * (line - page)
    return page + ink * (colours[3] - page)


def _line_reference(
    ink: NDArray[np.float64], line: tuple[float, ...], shown: tuple[int, int]
) -> None:
    x1, y1, x2, y2, radius = line
    top = max(shown[0], math.floor(min(y1, y2) - radius))
    bottom = min(shown[1], ink.shape[0], math.ceil(max(y1, y2) + radius) + 1)
    left = max(0, math.floor(min(x1, x2) - radius))
    right = min(ink.shape[1], math.ceil(max(x1, x2) + radius) + 1)
    if top >= bottom or left >= right:
        return
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5
    length = (x2 - x1) ** 2 + (y2 - y1) ** 2
    along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / (length or 1)
    along = np.clip(along, 0, 1)
    away = np.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1))
    part = ink[top:bottom, left:right]
    np.maximum(part, np.clip(radius - away, 0, 1), out=part)


def _grid_reference(count: int, origin: float, pitch: float, wide: float) -> NDArray[np.float64]:
    """The share of each pixel that lines cover, line by line."""
    share = np.zeros(count)
    if not pitch:
        return share
    pixel = np.arange(count) - origin
    for k in range(math.floor(pixel[0] / pitch) - 1, math.ceil((pixel[-1] + 1) / pitch) + 2):
        begin, end = k * pitch - wide / 2, k * pitch + wide / 2
        share += np.clip(np.minimum(pixel + 1, end) - np.maximum(pixel, begin), 0, None)
    return share
