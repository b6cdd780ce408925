"""Views of clips of echocardiograms, drawn anew at each call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.ops import ClipSpec, clip_transform


class ClipTransform(nn.Module):
    """Draws a view of each clip: window, flip, turn, order of the frames, scale.

    The seed comes from torch's generator of the CPU at each call, so that ``torch.manual_seed``
    repeats a run; what a clip becomes depends on the seed and on its place in the batch. All frames
    of a clip get the same: see :func:`ecgfast.ops.clip_transform`. No gradient passes.

    The default draws nothing and scales each clip to [0, 1]. The published views (Holste et al.,
    Commun Med 2024;4:133) are ``pad=8, flip=0.5, rotate=0.5, whole_degrees=True``; a flip takes the
    heart's left for its right.

    Args:
        pad: Black pixels around the frame, of which a window of the frame's size is cut.
        flip: Share of clips that are mirrored left to right.
        rotate: Share of clips that are turned.
        rotation_degrees: Range of the angle.
        whole_degrees: Turn by whole degrees alone.
        scale: Of a clip: none, unit, min_max, standard or kinetics, as ``ClipSpec`` says.
        mean: Taken off after that, of each channel.
        std: Divides at last, likewise.
        dtype: Of what comes out: float32, float16 or bfloat16.
        channels_last: In memory, as convolutions on tensor cores like it.

    Raises:
        ValueError: A name or a number is not as above.

    Example:
        >>> views = ClipTransform(pad=8, rotate=0.5)
        >>> clips = torch.zeros(2, 1, 4, 112, 112, dtype=torch.uint8)
        >>> order = torch.tensor([[2, 0, 3, 1], [0, 1, 2, 3]])  # of the frames of each
        >>> views(clips, order).shape
        torch.Size([2, 1, 4, 112, 112])
    """

    def __init__(
        self,
        *,
        pad: int = 0,
        flip: float = 0.0,
        rotate: float = 0.0,
        rotation_degrees: tuple[float, float] = (-10.0, 10.0),
        whole_degrees: bool = False,
        scale: Literal["none", "unit", "min_max", "standard", "kinetics"] = "min_max",
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.spec = ClipSpec(
            pad=pad,
            flip=flip,
            rotate=rotate,
            rotation_degrees=rotation_degrees,
            whole_degrees=whole_degrees,
            scale=scale,
            mean=mean,
            std=std,
        )
        self.dtype = dtype
        self.layout = torch.channels_last_3d if channels_last else torch.contiguous_format

    @torch.no_grad()
    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        """Draws a batch.

        Args:
            clips: ``(N, C, F, H, W)`` uint8, C 1 or 3.
            order: ``(N, G)`` int64: frame g of the view is frame ``order[n, g]`` of the clip.

        Returns:
            Views ``(N, C, G, H, W)`` on the same device, G as F without an order.
        """
        return clip_transform(
            clips, spec=self.spec, order=order, dtype=self.dtype, memory_format=self.layout
        )
