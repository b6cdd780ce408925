"""What image_augment draws from, and what is drawn of it: a row of numbers for each record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ecgfast.ops._philox import philox_reference, uniform_reference

Pair = tuple[float, float]
Array = NDArray[np.float64]
MOST_FOLDS, MOST_RADIUS, MOST_SAMPLES = 4, 6, 4  # as in csrc/image_augment/plan.h
MOST_BLUR = 2.0  # pixels: MOST_RADIUS is three SD of it
NOISE, RECORD = 16, 17  # what a counter is for; those of augment are below
MAP, SAMPLES, RADIUS, WEIGHTS, LIGHT, FOLDS = 0, 9, 10, 11, 18, 22
TONED, FACTOR, ADDED, GAMMA, SD, KEY, ID = 38, 39, 42, 45, 46, 47, 49
QUALITY, TABLES, COLUMNS = 51, 52, 180
# Steps at quality 50: ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance)
LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 32),
)


@dataclass(frozen=True, kw_only=True)
class ImageAugmentSpec:
    """What :func:`image_augment` draws. The default draws nothing; steps run in this order.

    A pair is the ends of a range that each record draws from anew, uniformly, ``crop_aspect``
    uniformly in its logarithm. Levels run from 0 (black) to 255; after each step they are brought
    back into that range. Pixels are those of the output.

    Attributes:
        fill: Colour of what lies around the page, red, green, blue from 0 to 255; of a page of one
            colour its grey (ITU-R BT.601). The outermost half pixel of a page fades into it.
        rotation_degrees: Turns the picture, counter-clockwise, about the middle of what is shown.
        perspective: Most shift of a corner, either way in x and in y, as a share of the side, in
            [0, 0.25).
        crop_area: Share of the page's area to show, in (0, 1], at a place that is drawn.
        crop_aspect: Width over height of what is shown, over that of the page. A side that would be
            longer than the page is as long as the page.
        blur_px: SD of a Gaussian, pixels, 0 to 2.
        crease_count: How many straight folds, whole numbers, at most 4. A fold goes through a point
            drawn on the page, along it or across it, within 10 degrees.
        crease_depth: Share of light that a fold loses where it is darkest; the side that faces the
            light gains a fifth of that.
        crease_width: How far a fold shows to either side, as a share of the shorter side.
        light: Share of light that is lost at the darkest end of the page, with the square of the
            distance from the brightest end; the direction is drawn.
        contrast: Factor of the distance from level 127.5.
        brightness: Levels that are added.
        gamma: Exponent of ``level / 255``, 0.25 to 4.
        colour: Factor of each colour on its own. Without use on pages of one colour.
        noise: SD of white normal noise, levels, independent in each pixel and colour.
        jpeg_quality: Quality of a JPEG that the page went through, whole numbers from 1 to 100 on
            the scale of the Independent JPEG Group, without subsampling; none is no JPEG.
    """

    fill: tuple[float, float, float] = (255.0, 255.0, 255.0)
    rotation_degrees: Pair = (0.0, 0.0)
    perspective: float = 0.0
    crop_area: Pair = (1.0, 1.0)
    crop_aspect: Pair = (1.0, 1.0)
    blur_px: Pair = (0.0, 0.0)
    crease_count: tuple[int, int] = (0, 0)
    crease_depth: Pair = (0.05, 0.3)
    crease_width: Pair = (0.01, 0.03)
    light: Pair = (0.0, 0.0)
    contrast: Pair = (1.0, 1.0)
    brightness: Pair = (0.0, 0.0)
    gamma: Pair = (1.0, 1.0)
    colour: Pair = (1.0, 1.0)
    noise: Pair = (0.0, 0.0)
    jpeg_quality: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):  # also from YAML, which has lists
            value = getattr(self, field.name)
            if isinstance(value, Sequence):
                object.__setattr__(self, field.name, tuple(value))
        if len(self.fill) != 3 or not all(0 <= c <= 255 for c in self.fill):
            raise ValueError(f"fill must be three numbers from 0 to 255, got {self.fill}")
        if not 0 <= self.perspective < 0.25:
            raise ValueError(
                f"perspective must be in [0, 0.25), got {self.perspective}: from 0.25 on a corner"
                " could come to lie between the others"
            )
        for name, (low, high) in _RANGES.items():
            pair = getattr(self, name)
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise ValueError(
                    f"{name} must be (low, high) with low <= high, from {low:g} to {high:g}, got"
                    f" {pair}"
                )
        self._check_counts("crease_count", self.crease_count, 0, MOST_FOLDS)
        if self.jpeg_quality is not None:
            self._check_counts("jpeg_quality", self.jpeg_quality, 1, 100)

    @staticmethod
    def _check_counts(name: str, pair: tuple[int, int], low: int, high: int) -> None:
        whole = len(pair) == 2 and all(isinstance(v, int) or v == math.floor(v) for v in pair)
        if not whole or not low <= pair[0] <= pair[1] <= high:
            raise ValueError(
                f"{name} must be (low, high) with low <= high, whole numbers from {low} to {high},"
                f" got {pair}"
            )


_RANGES = {
    "rotation_degrees": (-360.0, 360.0),
    "crop_area": (1e-4, 1.0),
    "crop_aspect": (0.1, 10.0),
    "blur_px": (0.0, MOST_BLUR),
    "crease_depth": (0.0, 1.0),
    "crease_width": (1e-4, 1.0),
    "light": (0.0, 1.0),
    "contrast": (0.0, 100.0),
    "brightness": (-255.0, 255.0),
    "gamma": (0.25, 4.0),
    "colour": (0.0, 100.0),
    "noise": (0.0, 255.0),
}


@dataclass(frozen=True)
class _Draws:
    """The words of a batch: of each record the same places for the same draws."""

    words: NDArray[np.uint64]  # (N, I, 4)
    shares: Array  # the same words as numbers from 0 to 1

    def uniform(self, index: int, word: int) -> Array:
        share: Array = self.shares[:, index, word]
        return share

    def between(self, ends: Pair, index: int, word: int) -> Array:
        return ends[0] + (ends[1] - ends[0]) * self.uniform(index, word)

    def whole(self, ends: tuple[int, int], index: int, word: int) -> NDArray[np.int64]:
        count = np.uint64(int(ends[1]) - int(ends[0]) + 1)
        below = (self.words[:, index, word] * count) >> np.uint64(32)
        return int(ends[0]) + below.astype(np.int64)


def image_plan(
    spec: ImageAugmentSpec,
    seed: int,
    record_ids: NDArray[np.int64],
    page: tuple[int, int],
    size: tuple[int, int],
) -> Array:
    """The plan ``(N, 180)`` of a batch, as ``csrc/image_augment/plan.h`` has its columns.

    Args:
        spec: What to draw from.
        seed: 64 bits.
        record_ids: ``(N,)``.
        page: Height and width of the pages, pixels.
        size: Height and width of the output.
    """
    key, ids = _halves(np.array([seed % 2**64], np.uint64))[0], _halves(record_ids.view(np.uint64))
    counter = np.zeros((len(ids), 13, 4), np.uint64)
    counter[..., 0] = np.arange(13)
    counter[..., 1] = RECORD << 24
    counter[..., 2:] = ids[:, None]
    words = philox_reference(counter, key)
    draws = _Draws(words, uniform_reference(words))
    plan = np.zeros((len(ids), COLUMNS))
    plan[:, KEY : KEY + 2], plan[:, ID : ID + 2] = key, ids
    _put_map(plan, _quads(draws, spec, page), page, size)
    _put_blur(plan, draws.between(spec.blur_px, 0, 3))
    _put_shades(plan, draws, spec, size)
    _put_tone(plan, draws, spec)
    plan[:, SD] = draws.between(spec.noise, 4, 3)
    if spec.jpeg_quality is not None:
        quality = draws.whole(spec.jpeg_quality, 5, 3)
        plan[:, QUALITY] = quality
        plan[:, TABLES:] = np.concatenate(
            [jpeg_steps(LUMA_STEPS, quality), jpeg_steps(CHROMA_STEPS, quality)], axis=1
        )
    return plan


def _halves(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=-1)


def _quads(draws: _Draws, spec: ImageAugmentSpec, page: tuple[int, int]) -> Array:
    """Where the corners of the output lie on the page, ``(N, 4, 2)``, from the upper left on."""
    height, width = page
    area = draws.between(spec.crop_area, 0, 1)
    low, high = (math.log(end) for end in spec.crop_aspect)
    aspect = np.exp(draws.between((low, high), 0, 2))
    across = width * np.minimum(1.0, np.sqrt(area * aspect))
    down = height * np.minimum(1.0, np.sqrt(area / aspect))
    left = (width - across) * draws.uniform(1, 0)
    top = (height - down) * draws.uniform(1, 1)
    side = np.stack([across, down], axis=-1)[:, None]
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) - 0.5
    shifts = [[draws.uniform(2 + axis, corner) for axis in (0, 1)] for corner in range(4)]
    shift = spec.perspective * (2 * np.moveaxis(np.array(shifts), -1, 0) - 1)
    quad = (corners + shift) * side
    angle = np.radians(draws.between(spec.rotation_degrees, 0, 0))
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    # the picture turns counter-clockwise where y runs downwards, so what it is read from clockwise
    turned = [
        quad[..., 0] * cosine - quad[..., 1] * sine,
        quad[..., 0] * sine + quad[..., 1] * cosine,
    ]
    middle = np.stack([left + across / 2, top + down / 2], axis=-1)[:, None]
    placed: Array = np.stack(turned, axis=-1) + middle
    return placed


def homography(quad: Array, size: tuple[int, int]) -> Array:
    """The maps ``(N, 3, 3)`` of a rectangle's corners to those of quadrilaterals ``(N, 4, 2)``.

    The rectangle has ``size`` (height, width); corners run from the upper left on, clockwise.
    """
    p0, p1, p2, p3 = np.moveaxis(quad, 1, 0)
    s, d1, d2 = p0 - p1 + p2 - p3, p1 - p2, p3 - p2
    det = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    g = ((s[:, 0] * d2[:, 1] - d2[:, 0] * s[:, 1]) / det)[:, None]
    h = ((d1[:, 0] * s[:, 1] - s[:, 0] * d1[:, 1]) / det)[:, None]
    ones = np.ones_like(g)
    rows = np.stack([p1 - p0 + g * p1, p3 - p0 + h * p3, p0], axis=-1)
    maps = np.concatenate([rows, np.stack([g, h, ones], axis=-1)], axis=1)
    scaled: Array = maps / np.array([size[1], size[0], 1.0])
    return scaled


def _put_map(plan: Array, quad: Array, page: tuple[int, int], size: tuple[int, int]) -> None:
    height, width = size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    same = page == size
    moved = np.abs(quad - corners).max(axis=(1, 2)) > 1e-9 if same else np.ones(len(plan), bool)
    if not moved.any():
        return
    maps = homography(quad, size)
    plan[:, MAP : MAP + 9] = np.where(moved[:, None], maps.reshape(-1, 9), 0.0)
    # How far apart on the page neighbours of the output are, at most: it is so at a corner.
    ends = np.concatenate([corners, np.ones((4, 1))], axis=1)
    # sums and no products of matrices, whose order of sums depends on how many records there are
    x, y, w = np.moveaxis((maps[:, None] * ends[:, None]).sum(axis=-1), -1, 0)
    apart = np.zeros(len(plan))
    for axis in (0, 1):
        slope = maps[:, :, axis][:, None]
        du = (slope[..., 0] - x / w * slope[..., 2]) / w
        dv = (slope[..., 1] - y / w * slope[..., 2]) / w
        apart = np.maximum(apart, np.hypot(du, dv).max(axis=1))
    samples = np.clip(np.ceil(apart - 0.25 - 1e-9), 1, MOST_SAMPLES)
    plan[:, SAMPLES] = np.where(moved, samples, 0)


def _put_blur(plan: Array, sd: Array) -> None:
    """Weights exp(-t) I_k(t): their variance is t, at any t, so that none needs to be wide.

    What is cut off beyond the radius is made up for by a larger t.
    """
    plan[:, WEIGHTS] = 1.0
    if not sd.any():
        return
    angle = 2 * np.pi * np.arange(64) / 64
    k = np.arange(MOST_RADIUS + 1)
    radius = np.where(sd > 0, np.minimum(np.ceil(3 * sd) + 1, MOST_RADIUS), 0)
    inside, waves = k <= radius[:, None], np.cos(k[:, None] * angle)
    wanted = np.square(sd)
    t = wanted
    for _ in range(8):
        bell = np.exp(t[:, None] * (np.cos(angle) - 1))
        weights = (bell[:, None] * waves).sum(axis=-1) * inside
        weights /= weights[:, :1] + 2 * weights[:, 1:].sum(axis=1, keepdims=True)
        variance = 2 * (weights * k**2).sum(axis=1)
        t = t * np.where(variance > 0, wanted / np.maximum(variance, 1e-300), 1.0)
    plan[:, RADIUS], plan[:, WEIGHTS : WEIGHTS + MOST_RADIUS + 1] = radius, weights


def _put_shades(plan: Array, draws: _Draws, spec: ImageAugmentSpec, size: tuple[int, int]) -> None:
    height, width = size
    angle = 2 * np.pi * draws.uniform(1, 3)
    nx, ny = np.cos(angle), np.sin(angle)
    reach = width * np.abs(nx) + height * np.abs(ny)  # s is 0 at one corner, 1 at another
    start = 0.5 - (nx * width + ny * height) / (2 * reach)
    depth = draws.between(spec.light, 1, 2)
    plan[:, LIGHT : LIGHT + 4] = np.stack([nx / reach, ny / reach, start, depth], axis=-1)
    count = draws.whole(spec.crease_count, 6, 0)
    for fold in range(int(count.max(initial=0))):
        x, y = width * draws.uniform(8 + fold, 0), height * draws.uniform(8 + fold, 1)
        turns = draws.words[:, 8 + fold, 2]
        quarter = (turns & np.uint64(3)).astype(np.float64)  # which way it lies and faces
        lean = np.radians(draws.between((-10.0, 10.0), 8 + fold, 2))
        nx, ny = np.cos(quarter * np.pi / 2 + lean), np.sin(quarter * np.pi / 2 + lean)
        half = min(size) * draws.between(spec.crease_width, 8 + fold, 3)
        depth = draws.between(spec.crease_depth, 12, fold)
        columns = [nx / half, ny / half, -(nx * x + ny * y) / half, depth]
        there = (fold < count)[:, None]
        plan[:, FOLDS + 4 * fold : FOLDS + 4 * fold + 4] = np.stack(columns, axis=-1) * there


def _put_tone(plan: Array, draws: _Draws, spec: ImageAugmentSpec) -> None:
    contrast = draws.between(spec.contrast, 4, 0)
    brightness = draws.between(spec.brightness, 4, 1)
    gamma = draws.between(spec.gamma, 4, 2)
    plain = (contrast == 1) & (brightness == 0) & (gamma == 1)
    for c in range(3):
        colour = draws.between(spec.colour, 5, c)
        plan[:, FACTOR + c] = colour * contrast
        plan[:, ADDED + c] = colour * (127.5 * (1 - contrast) + brightness)
        plain &= colour == 1
    plan[:, GAMMA], plan[:, TONED] = gamma, ~plain


def jpeg_steps(table: Sequence[int], quality: NDArray[np.int64]) -> Array:
    """Steps ``(N, 64)`` at qualities ``(N,)``, as the Independent JPEG Group scales a table."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = (np.array(table) * scale[:, None] + 50) // 100
    return np.clip(steps, 1, 255).astype(np.float64)
