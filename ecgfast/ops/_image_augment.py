"""image_augment in numpy, step by step on whole pages: slow, obvious, the truth for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.ops import _image_plan as at
from ecgfast.ops._image_plan import ImageAugmentSpec, image_plan
from ecgfast.ops._page import LUMA
from ecgfast.ops._philox import normals_reference, philox_reference

Array = NDArray[Any]  # of the float that is asked for


def image_augment_reference(
    pages: Tensor,
    spec: ImageAugmentSpec,
    *,
    seed: int,
    record_ids: Tensor | None = None,
    size: tuple[int, int] | None = None,
    mean: Any = None,
    std: Any = None,
    dtype: torch.dtype = torch.float32,
    real: Any = np.float64,
) -> Tensor:
    """The same as ``image_augment``, computed in ``real``.

    With ``dtype=torch.float64`` the outcome is not rounded.
    """
    count, colours, height, width = pages.shape
    size = (height, width) if size is None else size
    ids = torch.arange(count) if record_ids is None else record_ids.cpu()
    plan = image_plan(spec, seed, ids.numpy(), (height, width), size)
    fill = np.array(spec.fill if colours == 3 else (np.dot(LUMA, spec.fill),), real)
    drawn = np.zeros((count, colours, *size))
    for n in range(count):
        levels = _levels(pages[n], fill, real)
        drawn[n] = page_reference(levels, plan[n], size, fill)
    if dtype == torch.uint8:
        return torch.from_numpy(np.floor(drawn + 0.5).astype(np.uint8))
    shown = drawn / 255
    if mean is not None:
        shown = shown - np.reshape(mean, (-1, 1, 1))
    if std is not None:
        shown = shown / np.reshape(std, (-1, 1, 1))
    return torch.from_numpy(shown).to(dtype)


def page_reference(levels: Array, plan: Array, size: tuple[int, int], fill: Array) -> Array:
    """One page ``(C, H, W)`` of levels by its plan, ``(C, H', W')``."""
    steps = page_steps(levels, plan, size, fill)
    if plan[at.QUALITY]:
        return decoded(np.rint(coefficients(steps, plan)), plan, size)
    return steps


def page_steps(levels: Array, plan: Array, size: tuple[int, int], fill: Array) -> Array:
    """All steps but the last, the loss of a JPEG."""
    real = levels.dtype
    height, width = size
    y, x = np.mgrid[:height, :width].astype(real)
    if plan[at.SAMPLES]:
        levels = _geometry(levels, plan, x, y, fill)
    levels = _blur(levels, plan)
    gx, gy, g0, depth = plan[at.LIGHT : at.LIGHT + 4].astype(real)
    levels = levels * (1 - depth * (g0 + gx * (x + 0.5) + gy * (y + 0.5)) ** 2)
    for nx, ny, c, depth in plan[at.FOLDS : at.TONED].reshape(-1, 4).astype(real):
        t = c + nx * (x + 0.5) + ny * (y + 0.5)
        profile = np.where(np.abs(t) < 1, 81 / 128 * (1 - t**2) ** 2 * (1 + 3 * t), 0)
        levels = levels * (1 - depth * profile.astype(real))
    levels = np.clip(levels, 0, 255)
    factor, added = plan[at.FACTOR : at.ADDED], plan[at.ADDED : at.GAMMA]
    if plan[at.TONED]:
        for c in range(len(levels)):
            toned = np.clip(levels[c] * real.type(factor[c]) + real.type(added[c]), 0, 255)
            levels[c] = 255 * (toned / 255) ** real.type(plan[at.GAMMA])
    if plan[at.SD]:
        noise = real.type(plan[at.SD]) * _normals(plan, len(levels), size).astype(real)
        levels = np.clip(levels + noise, 0, 255)
    return levels


def _levels(page: Tensor, fill: Array, real: Any) -> Array:
    if page.dtype == torch.uint8:
        whole: Array = page.cpu().numpy().astype(real)
        return whole
    shares = page.detach().cpu().double().numpy().astype(real)
    gaps = np.isnan(shares)
    inside: Array = np.where(gaps, fill[:, None, None], 255 * np.clip(shares, 0, 1))
    return inside


def _geometry(levels: Array, plan: Array, x: Array, y: Array, fill: Array) -> Array:
    """The mean of bilinear samples; around the page lies paper without end."""
    m, each = plan[:9].astype(levels.dtype), int(plan[at.SAMPLES])
    _, height, width = levels.shape
    padded = np.broadcast_to(fill[:, None, None], (len(fill), height + 2, width + 2)).copy()
    padded[:, 1:-1, 1:-1] = levels
    total = np.zeros((len(fill), *x.shape), levels.dtype)
    for a in range(each):
        for b in range(each):
            dx, dy = (
                x + levels.dtype.type((a + 0.5) / each),
                y + levels.dtype.type((b + 0.5) / each),
            )
            w = m[6] * dx + m[7] * dy + m[8]
            # in the padded page, beyond which paper goes on: so places are brought to its edge
            u = np.clip((m[0] * dx + m[1] * dy + m[2]) / w + 0.5, 0, width + 1)
            v = np.clip((m[3] * dx + m[4] * dy + m[5]) / w + 0.5, 0, height + 1)
            i = np.minimum(np.floor(u), width).astype(int)
            j = np.minimum(np.floor(v), height).astype(int)
            fx, fy = u - i.astype(u.dtype), v - j.astype(v.dtype)
            upper = padded[:, j, i] + fx * (padded[:, j, i + 1] - padded[:, j, i])
            lower = padded[:, j + 1, i] + fx * (padded[:, j + 1, i + 1] - padded[:, j + 1, i])
            total += upper + fy * (lower - upper)
    return total / total.dtype.type(each**2)


def _blur(levels: Array, plan: Array) -> Array:
    radius = int(plan[at.RADIUS])
    weights = plan[at.WEIGHTS : at.WEIGHTS + radius + 1].astype(levels.dtype)
    for axis in (2, 1):
        count = levels.shape[axis]
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(levels, pad, mode="edge")
        levels = sum(
            weights[abs(k)] * padded.take(np.arange(count) + radius + k, axis)
            for k in range(-radius, radius + 1)
        )
    return levels


def _normals(plan: Array, colours: int, size: tuple[int, int]) -> Array:
    y, x = np.mgrid[: size[0], : size[1]]
    counter = np.zeros((colours, *size, 4), np.uint64)
    counter[..., 0] = 8 * -(-size[1] // 32) * y + 8 * (x // 32) + x % 8
    counter[..., 1] = (at.NOISE << 24 | np.arange(colours))[:, None, None]
    counter[..., 2:] = plan[at.ID : at.ID + 2].astype(np.uint64)
    z = normals_reference(philox_reference(counter, plan[at.KEY : at.KEY + 2].astype(np.uint64)))
    which = np.broadcast_to((x % 32 // 8)[None, ..., None], (colours, *size, 1))
    picked: Array = np.take_along_axis(z, which, -1)[..., 0]
    return picked


def _cosines(real: Any) -> Array:
    """T of contract.h; its fifth row is of ones."""
    k, i = np.mgrid[:8, :8]
    table = np.sqrt(2) * np.cos((2 * i + 1) * k * np.pi / 16)
    table[0] = 1
    return np.round(table, 15).astype(real)


def coefficients(levels: Array, plan: Array) -> Array:
    """Of blocks ``(C, H / 8, 8, W / 8, 8)``, in steps of the table, not rounded."""
    real = levels.dtype
    colours, height, width = levels.shape
    levels = np.pad(levels, [(0, 0), (0, -height % 8), (0, -width % 8)], mode="edge")
    if colours == 3:
        red, green, blue = levels
        luma = green + real.type(0.299) * (red - green) + real.type(0.114) * (blue - green)
        cb, cr = (blue - luma) / real.type(1.772), (red - luma) / real.type(1.402)
        levels = np.stack([luma - 128, cb, cr])
    else:
        levels = levels - 128
    blocks = levels.reshape(colours, levels.shape[1] // 8, 8, levels.shape[2] // 8, 8)
    t = _cosines(real)
    sums: Array = np.einsum("ki,cyixj,lj->cykxl", t, blocks, t) / 8
    return sums / _tables(plan, colours, real)


def decoded(steps: Array, plan: Array, size: tuple[int, int]) -> Array:
    """Levels of whole coefficients."""
    real, colours = steps.dtype, len(steps)
    t = _cosines(real)
    sums = steps * _tables(plan, colours, real)
    blocks = np.einsum("ki,cykxl,lj->cyixj", t, sums, t) / 8
    planes = blocks.reshape(colours, 8 * blocks.shape[1], -1)[:, : size[0], : size[1]]
    planes[0] += 128
    if colours == 3:
        y, cb, cr = planes
        green = y - (real.type(0.114 * 1.772) * cb + real.type(0.299 * 1.402) * cr) / real.type(
            0.587
        )
        planes = np.stack([y + real.type(1.402) * cr, green, y + real.type(1.772) * cb])
    clipped: Array = np.clip(planes, 0, 255)
    return clipped


def _tables(plan: Array, colours: int, real: Any) -> Array:
    tables = plan[at.TABLES :].reshape(2, 8, 8)[[0, 1, 1][:colours]].astype(real)
    return tables[:, None, :, None, :]
