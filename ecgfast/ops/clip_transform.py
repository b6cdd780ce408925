"""Views of clips: frames in order, window, flip, turn, scale and dtype, all in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops._clip_plan import MOST_SIDE, clip_plan
from ecgfast.ops._clip_plan import ClipSpec as ClipSpec
from ecgfast.ops._native import place, register, view

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_HOWS = {"none": 0, "unit": 1, "min_max": 2, "standard": 3, "kinetics": 1}  # How of contract.h
_FORMATS = (torch.contiguous_format, torch.channels_last_3d)
_TURNS = 16  # kTurns of plan.h


def clip_transform(
    clips: Tensor,
    *,
    spec: ClipSpec,
    seed: Tensor | int | None = None,
    order: Tensor | None = None,
    record_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Draws views of clips: what ``spec`` names, in the order in which it does.

    What a clip becomes depends on the seed, its id and itself, on nothing else: not on its place in
    the batch, on the batch, or on the number of threads. What is switched on or off leaves the
    draws of the rest alone. Two views of a batch are two calls with two seeds.

    All frames of a clip get the same window, flip and angle. A turn takes each pixel from between
    four others, and levels are whole numbers again after it, as ``scipy.ndimage.rotate`` (order 1,
    no reshape) leaves them in bytes; these are the same on all machines, what follows differs by
    rounding. What a clip is scaled by is that of its view: black that came in counts.

    Args:
        clips: ``(N, C, F, H, W)`` uint8, C 1 or 3. Any strides; a copy is made only of those that
            are not dense along W.
        spec: What to draw from, and how to scale.
        seed: A whole number of 64 bits, or one int64, which is read on the host. If none, one is
            drawn from torch's generator of the CPU.
        order: ``(N, G)`` int64, read on the host: frame g of the output is frame ``order[n, g]`` of
            the clip, which may come more than once or never. As they are if none.
        record_ids: ``(N,)`` int64, who the clips are. ``0 .. N - 1`` if none; give the data set's
            own if a clip's view must not depend on its place.
        dtype: Of the output: float32, float16 or bfloat16.
        memory_format: ``torch.contiguous_format``, or ``torch.channels_last_3d``.

    Returns:
        Tensor ``(N, C, G, H, W)`` of ``dtype``. Not differentiable.

    Raises:
        ValueError: A shape, a seed, an order or ``memory_format`` that is not as above.
        TypeError: ``clips`` or ``dtype`` of another dtype.

    Example:
        >>> spec = ClipSpec(pad=8, rotate=0.5, rotation_degrees=(-10, 10), scale="min_max")
        >>> clips = torch.randint(0, 256, (2, 3, 4, 112, 112), dtype=torch.uint8)
        >>> clip_transform(clips, spec=spec, seed=7).shape
        torch.Size([2, 3, 4, 112, 112])
        >>> backwards = torch.tensor([[3, 2, 1, 0]]).expand(2, 4)
        >>> float(clip_transform(clips, spec=ClipSpec(), order=backwards).max())
        1.0
    """
    if clips.dim() != 5 or clips.shape[1] not in (1, 3):
        raise ValueError(f"clips must be (N, C, F, H, W) with C 1 or 3, got {tuple(clips.shape)}")
    if clips.dtype != torch.uint8:
        raise TypeError(f"clips must be uint8, levels from 0 to 255, got {clips.dtype}")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    if memory_format not in _FORMATS:
        raise ValueError(
            f"memory_format must be contiguous_format or channels_last_3d, got {memory_format}"
        )
    if clips.shape[2] == 0 or not all(0 < side <= MOST_SIDE for side in clips.shape[3:]):
        raise ValueError(
            f"clips must have a frame, of 1 to {MOST_SIDE} pixels a side, got {tuple(clips.shape)}"
        )
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise ValueError(f"seed must be one int64, got {tuple(seed.shape)} of {seed.dtype}")
    elif seed is not None and (not isinstance(seed, int) or not -(2**63) <= seed < 2**64):
        raise ValueError(f"seed must be a whole number of 64 bits, got {seed!r}")
    if record_ids is not None and (
        record_ids.shape != clips.shape[:1] or record_ids.dtype != torch.int64
    ):
        raise ValueError(
            f"record_ids must be (N,) = ({len(clips)},) int64, got {tuple(record_ids.shape)} of"
            f" {record_ids.dtype}"
        )
    if order is not None and (
        order.dim() != 2
        or order.shape[0] != clips.shape[0]
        or order.shape[1] == 0
        or order.dtype != torch.int64
    ):
        raise ValueError(
            f"order must be (N, G) = ({len(clips)}, G) int64 with G > 0, got {tuple(order.shape)}"
            f" of {order.dtype}"
        )
    mean, std = spec.line(clips.shape[1])
    plan = _planned(spec, seed, record_ids, order, tuple(clips.shape)).to(clips.device)
    last = memory_format == torch.channels_last_3d
    made: Tensor = _transform(clips, plan, _HOWS[spec.scale], [*mean, *std], dtype, last)
    return made


def _planned(*words: Any) -> Tensor:
    """As ``_plan``; a compiler leaves it as it is, what draws is an op."""
    disabled: Any = torch.compiler.disable(_plan)
    plan: Tensor = disabled(*words)
    return plan


def _plan(
    spec: ClipSpec,
    seed: Tensor | int | None,
    record_ids: Tensor | None,
    order: Tensor | None,
    shape: tuple[int, ...],
) -> Tensor:
    count, frames = shape[0], shape[2]
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (1,))) if spec.draws else 0
    ids = np.arange(count) if record_ids is None else np.ascontiguousarray(record_ids.cpu().numpy())
    if order is None:
        shown = np.broadcast_to(np.arange(frames), (count, frames))
    else:
        shown = order.cpu().numpy()
        wrong = (shown < 0) | (shown >= frames)
        if wrong.any():
            n, g = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"order must name frames 0 to {frames - 1}, but {int(wrong.sum())} of {wrong.size}"
                f" do not: order[{n}, {g}] is {shown[n, g]}"
            )
    return torch.from_numpy(clip_plan(spec, int(seed), ids, shown, (shape[3], shape[4])))


def _transform_like(
    clips: Tensor, plan: Tensor, how: int, words: Sequence[float], dtype: torch.dtype, last: bool
) -> Tensor:
    shape = (*clips.shape[:2], plan.shape[1] - 10, *clips.shape[3:])
    how_kept = torch.channels_last_3d if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=clips.device, memory_format=how_kept)


@register(
    "clip_transform(Tensor clips, Tensor plan, int how, float[] words, ScalarType dtype, bool last)"
    " -> Tensor",
    _transform_like,
)
def _transform(
    clips: Tensor, plan: Tensor, how: int, words: Sequence[float], dtype: torch.dtype, last: bool
) -> Tensor:
    clips = clips if clips.stride(-1) == 1 else clips.contiguous()
    made = _transform_like(clips, plan, how, words, dtype, last)
    where = place(clips)
    _, channels, frames, height, width = made.shape
    turned = _TURNS * (2 * ((height + 2) * width + 2) + 4 * width)
    room = 12 * width + turned + channels * frames * height * width  # scratch_bytes of plan.h
    shape = (0, 0) if clips.is_cuda else (where[2], -(-room // 64) * 64)
    scratch = clips.new_empty(shape, dtype=torch.uint8)
    _C.clip_transform(view(clips), view(plan), view(scratch), view(made), how, list(words), where)
    return made
