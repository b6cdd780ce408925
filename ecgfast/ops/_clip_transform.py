"""clip_transform in numpy, step by step on whole clips: slow, obvious, the truth for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.ops import _clip_plan as at
from ecgfast.ops._clip_plan import ClipSpec, clip_plan

Array = NDArray[Any]


def clip_transform_reference(
    clips: Tensor,
    *,
    spec: ClipSpec,
    seed: int = 0,
    order: Tensor | None = None,
    record_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The same as ``clip_transform``, in float64 up to the end."""
    count, channels, frames, height, width = clips.shape
    ids = torch.arange(count) if record_ids is None else record_ids.cpu()
    shown = torch.arange(frames).expand(count, -1) if order is None else order.cpu()
    plan = clip_plan(spec, seed, ids.numpy(), shown.numpy(), (height, width))
    pixels = clips.cpu().numpy()
    made = np.zeros((count, channels, *shown.shape[1:], height, width))
    for n in range(count):
        levels = np.floor(turned(placed(pixels[n], plan[n]), plan[n]) + 0.5)
        made[n] = scaled(levels, spec)
    return torch.from_numpy(made).to(dtype)


def placed(clip: Array, plan: Array) -> Array:
    """Frames ``(C, F, H, W)`` in the order of a plan, in its window, mirrored or not."""
    shown = clip[:, plan[at.FRAMES :]]
    height, width = shown.shape[2:]
    top, left = (int(plan[column]) for column in (at.TOP, at.LEFT))
    room = [(0, 0), (0, 0), *((abs(by), abs(by)) for by in (top, left))]
    y, x = abs(top) + top, abs(left) + left
    window = np.pad(shown, room)[:, :, y : y + height, x : x + width]
    return window[..., ::-1] if plan[at.FLIP] else window


def turned(clip: Array, plan: Array) -> Array:
    """Between four pixels each, not rounded; 0 beyond the frame."""
    levels: Array = clip.astype(np.float64)
    if not plan[at.TURNED]:
        return levels
    height, width = clip.shape[2:]
    y, x = np.mgrid[:height, :width]
    u0, ux, uy, v0, vx, vy = plan[at.MAP : at.FRAMES] / at.PLACE
    u, v = u0 + ux * x + uy * y, v0 + vx * x + vy * y
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    fx, fy = u - i, v - j
    right, below = np.minimum(i + 1, width - 1), np.minimum(j + 1, height - 1)
    upper = levels[..., j, i] * (1 - fx) + levels[..., j, right] * fx
    lower = levels[..., below, i] * (1 - fx) + levels[..., below, right] * fx
    return (upper * (1 - fy) + lower * fy) * inside


def scaled(levels: Array, spec: ClipSpec) -> Array:
    """Levels ``(C, G, H, W)`` of a clip as a spec scales them."""
    low, spread = 0.0, 1.0
    if spec.scale in ("unit", "kinetics"):
        spread = 255.0
    elif levels.max() > levels.min():
        if spec.scale == "min_max":
            low, spread = levels.min(), np.ptp(levels)
        elif spec.scale == "standard":
            low, spread = levels.mean(), levels.std()
    elif spec.scale != "none":
        low = levels.min()
    mean, std = (np.reshape(of[: len(levels)], (-1, 1, 1, 1)) for of in spec.line(len(levels)))
    made: Array = ((levels - low) / spread - mean) / std
    return made
