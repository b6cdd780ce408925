"""Views of clips against chains of torch and scipy: ``pytest bench/bench_clip_transform.py``.

All providers make the same views: the plan is drawn once, beforehand for the chains. Those of
torch are batched: frames are channels of ``grid_sample``, which then computes a grid once a clip.
``torch`` pads, crops and flips bytes and samples those clips alone that are turned; ``torch grid``
samples all of them once, by maps that hold window, flip and turn. ``scipy`` is the chain of the
publication but for its splines, a clip after the other, all in a core's cache.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from ecgfast.ops import _clip_plan as at
from ecgfast.ops.clip_transform import ClipSpec, clip_transform

SHAPES = [(64, 1, 16, 112, 112), (64, 3, 16, 112, 112), (392, 1, 4, 112, 112)]  # (N, C, F, H, W)
SPECS = {
    "min_max": ClipSpec(),
    "views": ClipSpec(pad=8, flip=0.5, rotate=0.5, rotation_degrees=(-10, 10)),
    "turned": ClipSpec(pad=8, flip=0.5, rotate=1.0, rotation_degrees=(-10, 10)),
    "kinetics": ClipSpec(pad=8, flip=0.5, rotate=0.5, scale="kinetics"),
}
SEED = 7


@cache
def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The plan, and an order of the frames of each clip in it."""
    frames = np.arange(shape[2])
    order = np.random.default_rng(0).permuted(np.tile(frames, (shape[0], 1)), axis=1)
    return at.clip_plan(SPECS[name], SEED, np.arange(shape[0]), order, shape[3:])


def fused(clips: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    order = torch.from_numpy(drawn(name, tuple(clips.shape))[:, at.FRAMES :])
    return clip_transform(clips, spec=SPECS[name], seed=SEED, order=order, dtype=dtype)


def chain(clips: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """One torch operation after the other, all clips at once where that can be."""
    plan = torch.from_numpy(drawn(name, tuple(clips.shape))).to(clips.device)
    channels, frames, height, width = clips.shape[1:]
    spec = SPECS[name]
    x = clips.gather(2, plan[:, None, at.FRAMES :, None, None].expand_as(clips))
    if spec.pad:
        padded = pad(x, (spec.pad,) * 4)
        corners = (plan[:, at.TOP : at.LEFT + 1] + spec.pad).tolist()
        views = [
            view[..., top : top + height, left : left + width]
            for view, (top, left) in zip(padded, corners, strict=True)
        ]
        x = torch.stack(views)
    if spec.flip:
        x = torch.where(plan[:, at.FLIP].bool().view(-1, 1, 1, 1, 1), x.flip(-1), x)
    x = x.float()
    which = plan[:, at.TURNED].nonzero()[:, 0]
    if len(which):
        maps = (plan[which, at.MAP : at.FRAMES].double() / at.PLACE).view(-1, 2, 3)
        planes = x[which].flatten(1, 2)
        grid = affine_grid(ends(maps, height, width), list(planes.shape), align_corners=True)
        beyond = (grid.abs() > 1).any(dim=-1)[:, None]
        turned = grid_sample(planes, grid, align_corners=True).round_().masked_fill_(beyond, 0)
        x[which] = turned.view(-1, channels, frames, height, width)
    return scaled(x, spec).to(dtype)


def one_grid(clips: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """All but the order and the scale by one call of grid_sample; levels are not rounded."""
    plan = torch.from_numpy(drawn(name, tuple(clips.shape))).to(clips.device)
    height, width = clips.shape[3:]
    x = clips.gather(2, plan[:, None, at.FRAMES :, None, None].expand_as(clips)).float()
    if SPECS[name].pad:
        still = torch.tensor([[[0.0, 1, 0], [0, 0, 1]]], dtype=torch.float64, device=x.device)
        turned = plan[:, at.TURNED].bool()[:, None, None]
        maps = (plan[:, at.MAP : at.FRAMES].double() / at.PLACE).view(-1, 2, 3)
        maps = torch.where(turned, maps, still)  # in the window
        source = maps.clone()  # in the frame
        flip = plan[:, at.FLIP].bool()
        source[flip, 0] = -source[flip, 0]
        source[:, 0, 0] += (width - 1) * flip + plan[:, at.LEFT]
        source[:, 1, 0] += plan[:, at.TOP]
        planes = x.flatten(1, 2)
        inner, grid = (
            affine_grid(ends(m, height, width), list(planes.shape), align_corners=True)
            for m in (maps, source)
        )
        beyond = (inner.abs() > 1 + 1e-6).any(dim=-1)[:, None]
        x = grid_sample(planes, grid, align_corners=True).masked_fill_(beyond, 0).view_as(x)
    return scaled(x, SPECS[name]).to(dtype)


def ends(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps of places in pixels, first the one of (0, 0), as ``affine_grid`` has them: ends at 1."""
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=maps.device)
    moved = (maps[..., 0] + (maps[..., 1:] * half).sum(dim=-1)) / half - 1
    return torch.cat([maps[..., 1:] * half / half[:, None], moved[..., None]], dim=-1).float()


def scaled(x: Tensor, spec: ClipSpec) -> Tensor:
    """Levels, which may be changed in place."""
    if spec.scale == "kinetics":
        line = (torch.tensor(of[: x.shape[1]], device=x.device) for of in spec.line(x.shape[1]))
        mean, std = (of.view(-1, 1, 1, 1) for of in line)
        return x.div_(255).sub_(mean).div_(std)
    low, high = torch.aminmax(x.flatten(1), dim=1)
    spread = (high - low).clamp(min=1)
    return x.sub_(low.view(-1, 1, 1, 1, 1)).div_(spread.view(-1, 1, 1, 1, 1))


def published(clips: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A clip after the other by scipy.ndimage.rotate of order 1, in bytes."""
    plan, spec, made = drawn(name, tuple(clips.shape)), SPECS[name], []
    height, width = clips.shape[3:]
    for clip, row in zip(clips.cpu().numpy(), plan, strict=True):
        view = clip
        if spec.pad:
            top, left = row[at.TOP : at.LEFT + 1] + spec.pad
            view = np.pad(clip, [(0, 0), (0, 0), (spec.pad,) * 2, (spec.pad,) * 2])
            view = view[..., top : top + height, left : left + width]
        view = view[..., ::-1] if row[at.FLIP] else view
        if row[at.TURNED]:
            degrees = np.degrees(np.arctan2(row[at.MAP + 4], row[at.MAP + 1]))
            view = ndimage.rotate(view, degrees, axes=(2, 3), reshape=False, order=1)
        view = view[:, row[at.FRAMES :]].astype(np.float32)
        if spec.scale == "kinetics":
            line = (np.reshape(of[: len(view)], (-1, 1, 1, 1)) for of in spec.line(len(view)))
            mean, std = (of.astype(np.float32) for of in line)
            made.append((view / 255 - mean) / std)
        else:
            low = view.min()
            made.append((view - low) / max(view.max() - low, 1))
    return torch.from_numpy(np.stack(made)).to(dtype).to(clips.device)


PROVIDERS = {"ecgfast": fused, "torch": chain, "torch grid": one_grid, "scipy": published}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_clip_transform(measure, device, shape, name, provider, dtype):
    draw = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8).to(device)
    function = PROVIDERS[provider]
    few = clips[:8]
    away = (function(few, name, dtype).float() - fused(few, name, dtype).float()).abs()
    assert (away < 0.01).double().mean() > 0.98  # the same work; a level at a tie goes either way
    least = clips.nbytes + dtype.itemsize * clips.numel()  # bytes read once, floats written once
    measure(lambda x: function(x, name, dtype), clips, least_bytes=least)
