"""The faults of a scanned or photographed page, drawn anew for each record, all in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops._image_plan import ImageAugmentSpec as ImageAugmentSpec
from ecgfast.ops._image_plan import image_plan
from ecgfast.ops._native import place, register, view
from ecgfast.ops._page import LUMA, MOST_PIXELS

DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
_HALVES = (torch.float16, torch.bfloat16)
_STAGED, _WIDE, _SIDE = 192 * 192, 76, 64  # of plan.h


def image_augment(
    pages: Tensor,
    spec: ImageAugmentSpec,
    *,
    seed: Tensor | int,
    record_ids: Tensor | None = None,
    size: tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Makes pages look scanned or photographed: what ``spec`` names, in the order in which it does.

    What a page becomes depends on the seed, its id and itself, on nothing else: not on its place in
    the batch, on the batch, or on the number of threads. Devices and instruction sets differ by
    rounding, which with ``jpeg_quality`` can take a coefficient to the step beside it. What is
    switched on or off leaves the draws of the rest alone. Two views of a batch are two calls with
    two seeds.

    A pixel is the mean of up to 4 x 4 samples where the output shows less than the page has, so
    that thin lines pale and do not break. Boxes of leads are not moved along. A NaN is paper, as
    what lies around the page is; other floats are brought into 0 to 1. No gradient passes.

    Args:
        pages: ``(N, C, H, W)``, C 1 or 3: uint8 from 0 to 255, or any float dtype from 0 to 1. Any
            strides.
        spec: What to draw from.
        seed: A whole number of 64 bits, or one int64, which is read on the host.
        record_ids: ``(N,)`` int64, who the records are. ``0 .. N - 1`` if none; give the data set's
            own if a record's variant must not depend on its place.
        size: Height and width of the output, pixels; those of the pages if none. What is shown is
            stretched to it.
        mean: Of each colour, or of all, on the scale from 0 to 1: is taken off at last. Not for
            uint8.
        std: Likewise; divides after that.
        dtype: Of the output: uint8 from 0 to 255; float32, float16 or bfloat16 from 0 to 1 before
            mean and std.

    Returns:
        Tensor ``(N, C, H', W')`` of ``dtype``. Not differentiable.

    Raises:
        ValueError: A shape, a size, ``mean`` or ``std`` that is not as above, or a page without
            pixels.
        TypeError: ``pages`` or ``dtype`` of another dtype.

    Example:
        >>> spec = ImageAugmentSpec(rotation_degrees=(-5, 5), noise=(0, 8), jpeg_quality=(40, 95))
        >>> pages = torch.full((2, 3, 300, 400), 255, dtype=torch.uint8)
        >>> image_augment(pages, spec, seed=7, size=(150, 200)).shape
        torch.Size([2, 3, 150, 200])
    """
    if pages.dim() != 4 or pages.shape[1] not in (1, 3):
        raise ValueError(f"pages must be (N, C, H, W) with C 1 or 3, got {tuple(pages.shape)}")
    if pages.dtype != torch.uint8 and not pages.is_floating_point():
        raise TypeError(f"pages must be uint8 or of a float dtype, got {pages.dtype}")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be uint8, float32, float16 or bfloat16, got {dtype}")
    if not all(0 < side <= MOST_PIXELS for side in pages.shape[2:]):
        raise ValueError(
            f"pages must have 1 to {MOST_PIXELS} pixels a side, got {tuple(pages.shape[2:])}"
        )
    shown = tuple(pages.shape[2:]) if size is None else tuple(size)
    if len(shown) != 2 or not all(isinstance(s, int) and 0 < s <= MOST_PIXELS for s in shown):
        raise ValueError(f"size must be (height, width), 1 to {MOST_PIXELS} pixels, got {size}")
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise ValueError(f"seed must be one int64, got {tuple(seed.shape)} of {seed.dtype}")
    elif not isinstance(seed, int) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of 64 bits, got {seed!r}")
    if record_ids is not None and (
        record_ids.shape != pages.shape[:1] or record_ids.dtype != torch.int64
    ):
        raise ValueError(
            f"record_ids must be (N,) = ({len(pages)},) int64, got {tuple(record_ids.shape)} of"
            f" {record_ids.dtype}"
        )
    words = _words(spec, pages.shape[1], mean, std, dtype)
    plan = _planned(spec, seed, record_ids, len(pages), tuple(pages.shape[2:]), shown)
    plan = plan.to(pages.device)
    augmented: Tensor = _augment(pages.detach(), plan, shown[0], shown[1], words, dtype)
    return augmented


def _words(
    spec: ImageAugmentSpec,
    channels: int,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    dtype: torch.dtype,
) -> list[float]:
    """Fill, scale, shift of three colours, as the kernel takes them."""
    if dtype == torch.uint8 and (mean is not None or std is not None):
        raise ValueError("mean and std are for floats: a byte has no room for what they make")
    off = _each("mean", mean, 0.0, channels)
    divisor = _each("std", std, 1.0, channels)
    if not all(number > 0 for number in divisor):
        raise ValueError(f"std must be positive, got {std}")
    grey = sum(share * value for share, value in zip(LUMA, spec.fill, strict=True))
    fill = spec.fill if channels == 3 else (grey,) * 3
    scale = [1 / number for number in divisor]
    return [*fill, *scale, *(-o * s for o, s in zip(off, scale, strict=True))]


def _each(
    name: str, given: float | Sequence[float] | None, usual: float, channels: int
) -> list[float]:
    if given is None:
        return [usual] * 3
    numbers = list(given) if isinstance(given, Sequence) else [given] * channels
    if len(numbers) != channels or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be a number or one for each of {channels}, got {given}")
    return [float(number) for number in numbers] * (3 // channels)


def _planned(*words: Any) -> Tensor:
    """As ``_plan``; a compiler leaves it as it is, what draws is an op."""
    disabled: Any = torch.compiler.disable(_plan)
    plan: Tensor = disabled(*words)
    return plan


def _plan(
    spec: ImageAugmentSpec,
    seed: Tensor | int,
    record_ids: Tensor | None,
    count: int,
    page: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    ids = np.arange(count, dtype=np.int64)
    if record_ids is not None:
        ids = np.ascontiguousarray(record_ids.cpu().numpy())
    return torch.from_numpy(image_plan(spec, int(seed), ids, page, size))


def _augment_like(
    pages: Tensor, plan: Tensor, height: int, width: int, words: Sequence[float], dtype: torch.dtype
) -> Tensor:
    return pages.new_empty((*pages.shape[:2], height, width), dtype=dtype)


@register(
    "image_augment(Tensor pages, Tensor plan, SymInt height, SymInt width, float[] words,"
    " ScalarType dtype) -> Tensor",
    _augment_like,
)
def _augment(
    pages: Tensor, plan: Tensor, height: int, width: int, words: Sequence[float], dtype: torch.dtype
) -> Tensor:
    on_device = pages.is_cuda
    if pages.dtype == torch.float64 or (pages.dtype in _HALVES and not on_device):
        pages = pages.float()
    kept = torch.float32 if dtype in _HALVES and not on_device else dtype
    images = pages.new_empty((*pages.shape[:2], height, width), dtype=kept)
    where = place(pages)
    floats = pages.shape[1] * (_STAGED + _WIDE**2 + _SIDE**2) + _WIDE * _SIDE
    shape = (0, 0) if on_device else (where[2], -(-4 * floats // 64) * 64)
    scratch = pages.new_empty(shape, dtype=torch.uint8)
    _C.image_augment(view(pages), view(plan), view(scratch), view(images), list(words), where)
    return images if kept == dtype else images.to(dtype)
