"""What clip_transform draws from, and what is drawn of it: a row of whole numbers for each clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgfast.ops._philox import philox_reference, uniform_reference

Whole = NDArray[np.int64]
CLIP = 18  # what a counter is for; those of image_augment are below
TURNED, FLIP, TOP, LEFT, MAP, FRAMES = 0, 1, 2, 3, 4, 10  # as in csrc/clip_transform/plan.h
PLACE = 2**32  # steps of a place in a pixel
MOST_SIDE = 32768
SCALES = ("none", "unit", "min_max", "standard", "kinetics")
# Of Kinetics-400, red, green, blue, as networks of torchvision have them
KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What :func:`clip_transform` draws, and how it scales. The default draws nothing.

    Steps run in this order; all frames of a clip get the same.

    Attributes:
        pad: Black pixels around the frame, of which a window of the frame's size is cut at a place
            drawn among the ``(2 pad + 1)^2`` there are.
        flip: Share of clips that are mirrored left to right.
        rotate: Share of clips that are turned about the middle of the frame, counter-clockwise by
            an angle above 0; what comes from beyond the frame is black.
        rotation_degrees: Range of the angle, within [-360, 360].
        whole_degrees: Whole numbers of degrees alone.
        scale: none leaves levels from 0 to 255; unit divides them by 255; min_max brings the least
            of a clip to 0 and the greatest to 1; standard brings a clip to zero mean and unit SD
            (of the population); kinetics divides by 255 and takes mean and SD of Kinetics-400, a
            grey clip the means of those of the three colours. A clip of one level becomes 0 by
            min_max and standard.
        mean: Taken off after that, a number for each channel, or one for all; none by default.
        std: Divides at last, likewise.
    """

    pad: int = 0
    flip: float = 0.0
    rotate: float = 0.0
    rotation_degrees: tuple[float, float] = (-10.0, 10.0)
    whole_degrees: bool = False
    scale: Literal["none", "unit", "min_max", "standard", "kinetics"] = "min_max"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # also from YAML, which has lists
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if self.pad != int(self.pad) or not 0 <= self.pad <= MOST_SIDE:
            raise ValueError(f"pad must be a whole number from 0 to {MOST_SIDE}, got {self.pad}")
        for name in ("flip", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        low, high = self.rotation_degrees
        if not -360 <= low <= high <= 360:
            raise ValueError(
                f"rotation_degrees must be (low, high) with low <= high, from -360 to 360, got"
                f" {self.rotation_degrees}"
            )
        if self.whole_degrees and math.ceil(low) > math.floor(high):
            raise ValueError(f"there is no whole number of degrees in {self.rotation_degrees}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}")
        self._check_line()

    def _check_line(self) -> None:
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if len(numbers) not in (0, 1, 3) or not all(math.isfinite(n) for n in numbers):
                raise ValueError(f"{name} must be one number or three, got {numbers}")
            if numbers and self.scale == "kinetics":
                raise ValueError(f"scale kinetics has a {name} of its own: take unit, or no {name}")
        if not all(number > 0 for number in self.std):
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def draws(self) -> bool:
        """Whether two seeds can give two results."""
        return self.pad > 0 or self.flip > 0 or self.rotate > 0

    def line(self, channels: int) -> tuple[list[float], list[float]]:
        """Mean and SD that come off at last, of three channels."""
        if self.scale == "kinetics":
            given: tuple[Sequence[float], ...] = (KINETICS_MEAN, KINETICS_STD)
            if channels == 1:
                given = tuple((sum(of) / 3,) for of in given)
        else:
            given = (self.mean or (0.0,), self.std or (1.0,))
        for name, of in zip(("mean", "std"), given, strict=True):
            if len(of) not in (1, channels):
                raise ValueError(f"{name} has {len(of)} numbers, but clips have {channels} channel")
        mean, std = ([float(number) for number in of] * (3 // len(of)) for of in given)
        return mean, std


def clip_plan(
    spec: ClipSpec, seed: int, record_ids: Whole, order: Whole, size: tuple[int, int]
) -> Whole:
    """The plan ``(N, 10 + G)`` of a batch, as ``csrc/clip_transform/plan.h`` has its columns.

    Args:
        spec: What to draw from.
        seed: 64 bits.
        record_ids: ``(N,)``.
        order: Frames to show, ``(N, G)``.
        size: Height and width of a frame.
    """
    plan = np.zeros((len(order), FRAMES + order.shape[1]), np.int64)
    plan[:, FRAMES:] = order
    if not spec.draws:
        return plan
    low = np.uint64(0xFFFFFFFF)
    key = np.array([seed % 2**32, seed % 2**64 >> 32], np.uint64)
    ids = record_ids.view(np.uint64)
    counter = np.zeros((len(ids), 2, 4), np.uint64)
    counter[..., 0] = np.arange(2)
    counter[..., 1] = CLIP << 24
    counter[..., 2], counter[..., 3] = (ids & low)[:, None], (ids >> np.uint64(32))[:, None]
    words = philox_reference(counter, key)
    shares = uniform_reference(words)
    for column, word in ((TOP, 0), (LEFT, 1)):
        plan[:, column] = _below(words[:, 0, word], 2 * spec.pad + 1) - spec.pad
    plan[:, FLIP] = shares[:, 0, 2] < spec.flip
    first, last = spec.rotation_degrees
    degrees = first + (last - first) * shares[:, 1, 0]
    if spec.whole_degrees:
        start = math.ceil(first)
        degrees = start + _below(words[:, 1, 0], math.floor(last) - start + 1).astype(np.float64)
    turned = (shares[:, 0, 3] < spec.rotate) & (degrees % 360 != 0)
    plan[:, TURNED] = turned
    plan[turned, MAP:FRAMES] = turn(degrees[turned], size)
    return plan


def turn(degrees: NDArray[np.float64], size: tuple[int, int]) -> Whole:
    """Maps ``(N, 6)`` of the output to the frame, u0, ux, uy, v0, vx, vy in units of 2^-32 pixel.

    They turn about the middle of the frame, as ``scipy.ndimage.rotate`` does without reshape.
    """
    quarter, rest = np.divmod(degrees, 90.0)
    cosine, sine = np.cos(np.radians(rest)), np.sin(np.radians(rest))
    which = quarter.astype(np.int64) % 4  # so that quarters are exact
    c = np.choose(which, [cosine, -sine, -cosine, sine])
    s = np.choose(which, [sine, cosine, -sine, -cosine])
    y, x = ((side - 1) / 2 for side in size)
    steps = [x - c * x + s * y, c, -s, y - s * x - c * y, s, c]
    return np.rint(PLACE * np.stack(steps, axis=-1)).astype(np.int64)


def _below(words: NDArray[np.uint64], count: int) -> Whole:
    return ((words * np.uint64(count)) >> np.uint64(32)).astype(np.int64)
