"""From a page as it was scanned to the page that a model takes: cut, scaled, in its colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.config.pages import Crop
from ecgfast.config.pages import PageFit as PageFit
from ecgfast.data.records import DataError, Issue, Page

Box = tuple[int, int, int, int]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LIKE = 32  # levels by which a pixel may differ from the border that it is part of
SHARE = 0.995  # of a line of pixels that must be like the border: specks and hairs are not paper
KEPT = 0.01  # of a side that stays around what was found
LEAST = 0.25  # of a side that must be left
LOOK = 1000  # pixels of the longer side on which borders are looked for
RIM = 0.02  # of a side, on which the paper's colour is measured


def parse_crop(words: str) -> Crop:
    """``none``, ``auto`` or ``0.02,0.1,0.98,1``.

    Raises:
        DataError: It is none of these.
    """
    if words == "none" or words == "auto":
        return "auto" if words == "auto" else "none"
    try:
        left, top, right, bottom = (float(word) for word in words.split(","))
        return PageFit(height=8, width=8, crop=(left, top, right, bottom)).crop
    except ValueError:
        raise DataError(
            f"error[crop] {words!r} is none of: none, auto, LEFT,TOP,RIGHT,BOTTOM (shares of the "
            "page from 0 to 1, or pixels; left < right, top < bottom)"
        ) from None


def fit_page(page: Page, fit: PageFit) -> tuple[NDArray[np.uint8], list[Issue]]:
    """Cuts, scales and colours a page.

    Every pixel of the result is the mean of the area that it covers on the page, however large: of
    a scan of 2,213 pixels on 300 that is 7.4 x 7.4 of them. It is how grids are drawn
    (:func:`ecgfast.ops.rasterize_ecg`): a line that is thinner than a pixel pales and never breaks.
    A fixed number of samples a pixel would miss lines between them. Where pixels are too few, they
    are joined by straight lines.

    Args:
        page: As read.
        fit: What is wanted.

    Returns:
        ``(C, H, W)`` uint8, and what was noticed.

    Raises:
        DataError: The crop lies outside of the page.
    """
    issues: list[Issue] = []
    box = _box(page, fit.crop, issues)
    left, top, right, bottom = box
    part = page.pixels[top:bottom, left:right]
    height, width = fit.height, fit.width
    if fit.aspect == "pad":
        scale = min(width / part.shape[1], height / part.shape[0])
        width = min(fit.width, max(1, round(part.shape[1] * scale)))
        height = min(fit.height, max(1, round(part.shape[0] * scale)))
    if part.shape[1] < width or part.shape[0] < height:
        text = (
            f"{part.shape[1]} x {part.shape[0]} pixels were enlarged to {width} x {height}; scan "
            "it at more dots an inch"
        )
        issues.append(Issue("low_resolution", "warning", "", part.shape[1], width, text))
    scaled = _coloured(area_means(area_means(part, height, 0), width, 1), fit.grey)
    out = np.empty((fit.height, fit.width, scaled.shape[2]), dtype=np.uint8)
    out[:] = paper_colour(scaled)
    down, across = (fit.height - height) // 2, (fit.width - width) // 2
    out[down : down + height, across : across + width] = scaled
    return np.ascontiguousarray(np.moveaxis(out, -1, 0)), issues


def area_means(pixels: NDArray[Any], count: int, axis: int) -> NDArray[np.float32]:
    """An axis brought to so many pixels: means over areas, or straight lines where it grows."""
    x = np.moveaxis(pixels, axis, 0)
    edges = np.arange(count + 1) * len(x)
    whole, part = edges // count, (edges % count / count).astype(np.float32)
    if count <= len(x):
        # the sum up to an edge is that of whole pixels and a part of the next one
        sums = np.add.reduceat(x, whole[:-1], axis=0, dtype=np.float32)
        parts = part.reshape(-1, *[1] * (x.ndim - 1)) * x[np.minimum(whole, len(x) - 1)]
        out = (sums + parts[1:] - parts[:-1]) * np.float32(count / len(x))
    else:
        centres = np.clip((np.arange(count) + 0.5) * len(x) / count - 0.5, 0, len(x) - 1)
        first = np.minimum(centres.astype(int), max(0, len(x) - 2))
        share = (centres - first).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
        out = (1 - share) * x[first] + share * x[np.minimum(first + 1, len(x) - 1)]
    return np.moveaxis(out, 0, axis)


def _coloured(pixels: NDArray[np.float32], grey: bool) -> NDArray[np.uint8]:
    """``(H, W, 1)`` or ``(H, W, 3)`` uint8 of either."""
    if grey and pixels.shape[2] == 3:
        pixels = pixels @ np.array(LUMA, dtype=np.float32)[:, None]
    elif not grey and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def paper_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The median colour ``(C,)`` of the rim of a page ``(H, W, C)``."""
    height, width, channels = pixels.shape
    down, across = max(1, round(RIM * height)), max(1, round(RIM * width))
    rims = (pixels[:down], pixels[-down:], pixels[:, :across], pixels[:, -across:])
    rim = np.concatenate([part.reshape(-1, channels) for part in rims])
    return np.median(rim, axis=0).astype(np.uint8)


def _box(page: Page, crop: Crop, issues: list[Issue]) -> Box:
    height, width = page.pixels.shape[:2]
    if crop == "none":
        return (0, 0, width, height)
    if crop == "auto":
        found = find_border(page.pixels)
        share = min((found[2] - found[0]) / width, (found[3] - found[1]) / height)
        if share >= LEAST:
            return found
        text = f"what is left of the page would be {100 * share:.0f} % of a side; --crop by hand"
        issues.append(Issue("crop_unsure", "warning", message=text))
        return (0, 0, width, height)
    assert not isinstance(crop, str)
    across, down = (width, height) if max(crop) <= 1 else (1, 1)
    left, top = round(crop[0] * across), round(crop[1] * down)
    right, bottom = min(width, round(crop[2] * across)), min(height, round(crop[3] * down))
    if right - left < 8 or bottom - top < 8:
        raise DataError(
            f"error[crop] {','.join(f'{n:g}' for n in crop)} leaves {right - left} x "
            f"{bottom - top} pixels of a page of {width} x {height}"
        )
    return (left, top, right, bottom)


def find_border(pixels: NDArray[np.uint8]) -> Box:
    """Left, top, right, bottom of what lies within borders of one colour.

    From each side, lines of pixels are taken away as long as 99.5 % of a line are within 32 levels
    of the median colour of that side's outermost line; round and round, since a black edge at the
    left hides that the line above is white. A hundredth of each side stays as a margin. A page on a
    table, whose grain is no border of one colour, stays as it is.
    """
    height, width = pixels.shape[:2]
    step = max(1, -(-max(height, width) // LOOK))
    small = pixels[::step, ::step].astype(np.int16)
    box = [0, 0, small.shape[1], small.shape[0]]
    moved = True
    while moved:
        moved = False
        for side in range(4):
            left, top, right, bottom = box
            part = small[top:bottom, left:right]
            lines = part if side % 2 else part.swapaxes(0, 1)
            taken = _border_lines(lines if side < 2 else lines[::-1])
            if 0 < taken < len(lines):
                box[side] += taken if side < 2 else -taken
                moved = True
    left, top, right, bottom = (edge * step for edge in box)
    across, down = round(KEPT * width), round(KEPT * height)
    return (
        max(0, left - across),
        max(0, top - down),
        min(width, right + across),
        min(height, bottom + down),
    )


def _border_lines(lines: NDArray[np.int16]) -> int:
    """How many of the first lines ``(K, n, C)`` are border; all of them if the page is blank."""
    colour = np.median(lines[0], axis=0).astype(np.int16)
    for begin in range(0, len(lines), 32):
        near = (np.abs(lines[begin : begin + 32] - colour) <= LIKE).all(axis=2)
        like = near.mean(axis=1) >= SHARE
        if not like.all():
            return begin + int(like.argmin())
    return len(lines)
