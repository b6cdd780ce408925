"""Several clips of one video: each is seen for itself, and what is said of them is averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

COUNT = 4  # evenly spaced clips of a video at test, as published (Holste et al. 2024)
AT_ONCE = 32  # clips that a network sees at a time: a batch of videos is several of these


def of_windows(
    call: Callable[[Tensor], dict[str, Tensor]], videos: Tensor, frames: int
) -> dict[str, Tensor]:
    """What a network says of clips, averaged over those of each video.

    Args:
        call: From clips ``(n, C, frames, H, W)`` to anything a clip, ``(n, ...)`` by name.
        videos: ``(N, C, K frames, H, W)``, K clips of each one after the other.
        frames: Of a clip.

    Returns:
        Means over K, ``(N, ...)`` by name.
    """
    count, channels, length, *size = videos.shape
    several = max(length // frames, 1)
    clips = videos.unflatten(2, (several, frames)).transpose(1, 2)
    clips = clips.reshape(count * several, channels, frames, *size)
    parts = [call(part) for part in clips.split(AT_ONCE)] or [call(clips)]
    return {
        name: torch.cat([part[name] for part in parts]).unflatten(0, (count, several)).mean(dim=1)
        for name in parts[0]
    }
