"""Moments of videos: which clip of a video a step takes, drawn as purely as which video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecgfast.config.clips import MOST_FRAMES
from ecgfast.data.clips import ClipRecords
from ecgfast.data.joined import Joined


class Moments(Dataset[dict[str, Tensor]]):
    """Clips of videos; ``index`` of a clip is ``video * 2**20 + first frame``.

    Args:
        videos: The data set of a source of videos.
        frames: Of a clip.
        step: From one frame to the next. Frames after the last one are black.

    Raises:
        ValueError: There is no such clip, or these are no videos.
    """

    def __init__(self, videos: Joined, *, frames: int, step: int = 1) -> None:
        if frames < 1 or step < 1:
            raise ValueError(f"frames and step must be 1 or more, got {frames} and {step}")
        if not all(isinstance(part, ClipRecords) for part in videos.parts):
            raise ValueError("moments are of videos, and the data set holds none")
        self.videos, self.frames, self.step = videos, frames, step

    def __len__(self) -> int:
        return len(self.videos) * MOST_FRAMES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Clips at once: ``ecg`` ``(N, C, frames, S, S)`` uint8, ``index`` that of the video."""
        video, first = np.divmod(np.asarray(indices, dtype=np.int64), MOST_FRAMES)

        def read(
            part: ClipRecords, places: NDArray[np.int64], at: NDArray[np.int64]
        ) -> dict[str, Tensor]:
            return part.moments(places, first[at, None], self.frames, self.step)

        return self.videos.gather(video, read)


class Dealing(Protocol):
    """What deals videos: any sampler of this package."""

    start_step: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps that the videos last for."""

    def batch(self, step: int) -> list[int]:
        """Videos of a step."""


class MomentSampler:
    """Deals videos as another sampler does, and of each the first frame of a clip.

    Where a clip begins is drawn evenly from where it fits; one that is longer than its video begins
    with it. The draw is a function of the seed, the step, the video, and how often it has been
    dealt in that step before, so that it is the same for every number of processes.

    Args:
        inner: Deals the videos.
        lengths: Frames of each video, ``(N,)``.
        frames: Of a clip.
        step: From one frame to the next.
        seed: Of the draws.

    Example:
        >>> from ecgfast.data.sampler import StepSampler
        >>> moments = MomentSampler(StepSampler(4, 2, seed=0), np.full(4, 30), frames=4, seed=0)
        >>> [max(i % 2**20 for i in moments.batch(k)) <= 26 for k in range(3)]
        [True, True, True]
    """

    def __init__(
        self,
        inner: Dealing,
        lengths: NDArray[np.int64],
        frames: int,
        step: int = 1,
        seed: int = 0,
    ) -> None:
        if frames < 1 or step < 1:
            raise ValueError(f"frames and step must be 1 or more, got {frames} and {step}")
        self.inner = inner
        self.places = np.maximum(np.asarray(lengths) - (frames - 1) * step, 1).astype(np.int64)
        self.seed = seed
        self.start_step = inner.start_step

    @property
    def steps_per_epoch(self) -> int:
        """Of the sampler that deals the videos."""
        return self.inner.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Videos and first frames of a step: ``video * 2**20 + first frame``."""
        video = np.array(self.inner.batch(step), dtype=np.int64)
        chance = _chance(self.seed, step, video, _times(video))
        first = (chance * self.places[video]).astype(np.int64)
        indices: list[int] = (video * MOST_FRAMES + first).tolist()
        return indices

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1


def _times(video: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each video stands in the list before."""
    order = np.argsort(video, kind="stable")
    ranked = video[order]
    begins = np.searchsorted(ranked, ranked, side="left")
    times = np.empty(len(video), dtype=np.int64)
    times[order] = np.arange(len(video)) - begins
    return times


def _chance(
    seed: int, step: int, video: NDArray[np.int64], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Numbers in [0, 1) by counters: SplitMix64 (Steele, Lea, Flood 2014) over each in turn."""
    state = np.zeros(len(video), dtype=np.uint64)
    for part in (np.uint64(seed % 2**64), np.uint64(step), video, times):
        state = _mixed(state ^ np.asarray(part).astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)  # wraps, as it must
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
