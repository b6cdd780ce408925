"""Which clips of a video a network sees: drawn in training, several and averaged at test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.config.clips import ClipFit, ClipNet
from ecgfast.data.checks import Policy
from ecgfast.data.clip_convert import ClipPlan
from ecgfast.data.clips import Windows
from ecgfast.data.moments import MomentSampler
from ecgfast.data.prepared import Preparing, Ready
from ecgfast.data.source import Source
from ecgfast.data.sources import Item
from ecgfast.systems.clips import fit_of_clips
from ecgfast.train.batches import Sampler
from ecgfast.train.contract import Contract

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


def windowed(source: Source, contract: Contract, count: int = COUNT) -> Source:
    """The same records; of videos so many clips, as the run's encoder takes them."""
    if not source.clips:
        return source
    windows = windows_of(contract, count)
    return source.windows(frames=windows.frames, step=windows.step, count=windows.count)


def moments_of(
    deal: Callable[..., Any], lengths: NDArray[np.int64], *, frames: int, step: int, seed: int
) -> Sampler:
    """What deals videos, and draws where in each a clip begins.

    Args:
        deal: Deals videos, as ``Batches`` calls it.
        lengths: Frames of each video.
        frames: Of a clip.
        step: From one frame to the next.
        seed: Of the draws.
    """

    def sampler(**where: int) -> Iterable[list[int]]:
        return MomentSampler(deal(**where), lengths, frames, step, seed)

    return sampler


def fit_of_net(net: ClipNet) -> ClipFit | None:
    """The frames of SYNTHETIC videos for a network that begins anew."""
    return None if net.net == "none" else ClipFit(size=net.size, grey=net.grey)


@dataclass(frozen=True)
class WindowPlan:
    """Cuts evenly spaced clips from the videos that another plan reads.

    Attributes:
        plan: Reads videos ``(F, C, S, S)``.
        windows: Which clips; these come out, ``(C, K F, S, S)``, black after the end of a video.
    """

    plan: Preparing
    windows: Windows

    def ready(self, items: list[Item]) -> list[Ready]:
        """A result for each file."""
        return [self._cut(ready) for ready in self.plan.ready(items)]

    def _cut(self, ready: Ready) -> Ready:
        frames: Any = ready.steps
        if frames is None:
            return ready
        windows, length = self.windows, len(frames)
        firsts = windows.firsts(np.array([length]))[0]
        at = (firsts[:, None] + windows.step * np.arange(windows.frames)).ravel()
        cut = np.where((at < length)[:, None, None, None], frames[np.minimum(at, length - 1)], 0)
        return replace(ready, steps=np.ascontiguousarray(cut.astype(np.uint8).swapaxes(0, 1)))


def plan_for_videos(contract: Contract, policy: Mapping[str, Policy]) -> WindowPlan:
    """How files of videos become the clips that a run's encoder sees.

    Args:
        contract: Of a run that sees clips.
        policy: Issue names that are to be kept or rejected against their habit.
    """
    fit = fit_of_clips(contract)
    assert fit is not None
    return WindowPlan(ClipPlan(fit=fit, policy=policy), windows_of(contract))


def windows_of(contract: Contract, count: int = COUNT) -> Windows:
    """The clips of a video that a run's encoder sees at test."""
    words = contract.model["arguments"]
    return Windows(int(words["frames"]), int(words["step"]), count)
