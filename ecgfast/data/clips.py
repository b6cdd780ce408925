"""Videos as torch sees them: clips of some frames, from a store or from memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.config.clips import ClipFit
from ecgfast.data.dataset import Rows, studies_of

FPS = 30.0  # of SYNTHETIC videos that may have any


@dataclass(frozen=True)
class Windows:
    """Which clips of a video are read where nobody names a moment.

    Attributes:
        frames: Of a clip.
        step: From one frame of a clip to the next.
        count: Clips of a video, evenly spaced.
    """

    frames: int
    step: int = 1
    count: int = 1

    @property
    def span(self) -> int:
        """Frames of a video from the first of a clip to its last."""
        return (self.frames - 1) * self.step + 1

    def firsts(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the clips of videos of so many frames begin, ``(N, count)``.

        Example:
            >>> Windows(frames=4, count=3).firsts(np.array([10, 2])).tolist()
            [[0, 3, 6], [0, 0, 0]]
        """
        last = np.maximum(lengths - self.span, 0)
        return np.rint(np.linspace(0, last, self.count, axis=1)).astype(np.int64)


class Videos(Protocol):
    """What clips are cut from: a ``ClipStore``, or ``MadeVideos``."""

    fit: ClipFit
    manifest: pd.DataFrame
    shape: tuple[int, ...]
    lengths: NDArray[np.int64]

    def frames(
        self, index: int, first: int, count: int, step: int, out: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Some frames of a video; black ones after the last."""


class ClipRecords(Rows):
    """Clips of videos, one dict each: ``ecg`` is ``(C, F, S, S)`` uint8, without a gain.

    ``study`` is a code of the examination, the same in every store; a video of no known study is a
    study of its own.

    Args:
        store: Where the videos lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(self, store: Videos, index: NDArray[np.int64], label: str | None = None) -> None:
        super().__init__(store.manifest, index, label)
        self.store = store
        self.study = studies_of(store.manifest.iloc[index])
        self.lengths = store.lengths[index]
        self.windows: Windows | None = None

    def windowed(self, windows: Windows) -> ClipRecords:
        """The same videos; a batch of them has these clips, one after the other along time."""
        other = copy.copy(self)
        other.windows = windows
        return other

    def batch(self, at: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once: as the records one by one, stacked.

        Raises:
            ValueError: Nobody has said which clips are meant.
        """
        if self.windows is None:
            raise ValueError(
                "videos differ in length: say which clips are meant, by Source.windows or Moments"
            )
        places = np.asarray(at, dtype=np.int64)
        firsts = self.windows.firsts(self.lengths[places])
        return self.moments(places, firsts, self.windows.frames, self.windows.step)

    def moments(
        self, places: NDArray[np.int64], firsts: NDArray[np.int64], frames: int, step: int
    ) -> dict[str, Tensor]:
        """Clips that begin at some frames.

        Args:
            places: Of the videos ``(N,)``.
            firsts: First frames, ``(N, K)``.
            frames: Of a clip.
            step: From one frame to the next.

        Returns:
            ``ecg`` ``(N, C, K * frames, S, S)`` uint8, and the columns of the videos.
        """
        channels, *side = self.store.shape
        clips = np.empty((*firsts.shape, frames, channels, *side), dtype=np.uint8)
        for row, begins, outs in zip(
            self.index[places].tolist(), firsts.tolist(), clips, strict=True
        ):
            for first, out in zip(begins, outs, strict=True):
                self.store.frames(row, first, frames, step, out)
        frames_first = torch.from_numpy(clips).flatten(1, 2)
        columns = self.columns(places)
        columns["study"] = torch.from_numpy(self.study[places])
        return {"ecg": frames_first.transpose(1, 2).contiguous(), **columns}


class MadeVideos:
    """Videos in memory, of one length.

    Args:
        videos: ``(V, F, S, S)`` uint8, in grey.
        columns: A value a video of each column.
        fit: What the frames are said to be.
    """

    def __init__(
        self, videos: NDArray[np.uint8], columns: Mapping[str, Iterable[Any]], fit: ClipFit
    ) -> None:
        self.videos, self.fit = videos, fit
        self.shape: tuple[int, ...] = fit.shape
        self.lengths = np.full(len(videos), videos.shape[1], dtype=np.int64)
        self.manifest = pd.DataFrame(columns).assign(frames=self.lengths)

    def frames(
        self, index: int, first: int, count: int, step: int, out: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Some frames of a video; black ones after the last."""
        found = self.videos[index, first : first + count * step : step, None]
        out[: len(found)] = found  # one channel, or three that are alike
        out[len(found) :] = 0
        return out


@lru_cache(maxsize=1)  # training and validation are parts of one cohort
def synthetic_videos(patients: int, fit: ClipFit) -> MadeVideos:
    """The SYNTHETIC cohort of videos, whose frames need no mask."""
    from ecgfast.data.synthetic_echo import make_echo_cohort

    videos, columns = make_echo_cohort(patients, size=fit.size, fps=fit.fps or FPS, seed=0)
    return MadeVideos(videos, columns, fit)
