"""A store of videos: their frames, brought to a model's size once, and what was left out.

store.json       holds "clips", size and colours of the frames, how they were masked
clips-00000.npy  (sum of F, C, S, S) uint8 in C order: the frames of video after video
manifest.parquet a row a video: where its frames lie, whose it is, its study, flags and labels
rejected.csv     a row for each reason why a video is not here
issues.csv       a row for each issue of a video that is here
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.config.clips import MOST_FRAMES, ClipFit
from ecgfast.data.records import DataError, Issue, identifier
from ecgfast.data.shard_writer import ShardWriter
from ecgfast.data.shards import ShardStore, read_store
from ecgfast.data.store_format import CLIP_COLUMNS

CLIPS = "clips"
SHARD_BYTES = 2**27  # after which a shard ends with the video that is in it


class ClipWriter(ShardWriter):
    """Writes a store of videos; see :class:`ecgfast.data.shard_writer.ShardWriter`.

    Args:
        path: Folder, made if need be.
        fit: What was done to every frame.
        made_by: Anything of plain values that says where they come from.
        synthetic: The videos are made up.
        plan: A word for what is being done; a folder of another plan is refused.
        overwrite: Remove a store that is there.
        shard_frames: Frames after which a shard ends; 0 takes as many as fill 128 MiB. A video lies
            whole in one shard.
        shard_records: Videos after which it ends at the latest.
    """

    several = True

    def __init__(
        self,
        path: str | Path,
        fit: ClipFit,
        *,
        made_by: Mapping[str, Any] | None = None,
        synthetic: bool = False,
        plan: str = "",
        overwrite: bool = False,
        shard_frames: int = 0,
        shard_records: int = 512,
    ) -> None:
        self.fit = fit
        about = {
            "holds": CLIPS,
            "synthetic": synthetic,
            "contract": fit.plain(),
            "made_by": dict(made_by or {}),
        }
        super().__init__(
            path,
            about=about,
            columns=CLIP_COLUMNS,
            name=CLIPS,
            plan=plan,
            overwrite=overwrite,
            shard_records=shard_records,
            shard_rows=shard_frames or max(1, SHARD_BYTES // prod(fit.shape)),
        )

    def add(
        self,
        frames: NDArray[np.uint8],
        *,
        record_id: str,
        patient_id: str = "",
        study_id: str = "",
        split: str = "",
        labels: Mapping[str, Any] | None = None,
        issues: Iterable[Issue] = (),
        keep_duplicates: bool = False,
        **row: Any,
    ) -> bool:
        """Adds a video, or rejects it as the duplicate of an earlier one.

        Args:
            frames: ``(F, C, S, S)`` uint8, in the order of time.
            record_id: Its name, unique in the store.
            patient_id: Whose it is; empty if nobody knows.
            study_id: Of the examination that it belongs to; empty if nobody knows.
            split: train, val, test, or empty.
            labels: Columns of its own.
            issues: What becomes its flags.
            keep_duplicates: Flag a duplicate instead.
            row: fps (frames a second, 0 if unknown), spacing_mm (of a stored pixel, NaN if
                unknown), view, height_source, width_source, frames_source, form_source, source,
                source_sha256.

        Returns:
            Whether it is in.

        Raises:
            ValueError: The frames are not what the store holds, or there are none or too many.
        """
        if frames.shape[1:] != self.fit.shape or frames.dtype != np.uint8:
            shape = ", ".join(map(str, self.fit.shape))
            raise ValueError(
                f"a video of this store is (F, {shape}) uint8, got {frames.shape} {frames.dtype}"
            )
        if not 1 <= len(frames) < MOST_FRAMES:
            raise ValueError(
                f"a video must have 1 to {MOST_FRAMES - 1} frames, got {len(frames)} in {record_id}"
            )
        return self._put(
            frames,
            sha=hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest(),
            record_id=record_id,
            patient_id=patient_id,
            split=split,
            labels=labels,
            issues=issues,
            duplicate="duplicate_video",
            keep_duplicates=keep_duplicates,
            row={
                "study_id": study_id,
                "frames": len(frames),
                "fps": float(row.get("fps", 0.0)),
                "spacing_mm": float(row.get("spacing_mm", np.nan)),
                "view": str(row.get("view", "")),
                "height_source": int(row.get("height_source", self.fit.size)),
                "width_source": int(row.get("width_source", self.fit.size)),
                "frames_source": int(row.get("frames_source", len(frames))),
                "form_source": str(row.get("form_source", "")),
                "source": str(row.get("source", "")),
                "source_sha256": str(row.get("source_sha256", "")),
            },
        )

    def close(self, finish: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> pd.DataFrame:
        """As every store; studies are named as patients are, 15709.0 is 15709."""

        def named(manifest: pd.DataFrame) -> pd.DataFrame:
            manifest = finish(manifest) if finish else manifest
            return manifest.assign(study_id=manifest["study_id"].map(identifier).astype(str))

        return super().close(named)


class ClipStore(ShardStore):
    """A finished store of videos, read in place.

    Attributes:
        path: Its folder.
        manifest: A row a video; see `CLIP_COLUMNS` and the labels after them.
        fit: Size and colours of the frames, and how they were masked.
        about: What store.json says.
        shape: C, S, S of a frame.
        lengths: Frames of each video.
    """

    columns, name, dtype = CLIP_COLUMNS, CLIPS, np.uint8
    made_by = "ecgfast convert VIDEOS STORE --modality echo"

    def __init__(self, path: Path, about: dict[str, Any], manifest: pd.DataFrame) -> None:
        try:
            self.fit = ClipFit.from_plain(about["contract"])
            super().__init__(path, about, manifest, self.fit.shape)
            self.lengths = manifest["frames"].to_numpy(np.int64)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"error[corrupt_store] {path}: {str(error)[:200]}") from None
        wrong = (self.lengths < 1) | (self.lengths >= MOST_FRAMES)
        if wrong.any():  # before memory is taken for them
            raise DataError(
                f"error[corrupt_store] {path}/manifest.parquet: {int(wrong.sum())} of {len(wrong)} "
                f"videos have less than 1 or more than {MOST_FRAMES - 1} frames"
            )

    @classmethod
    def open(cls, path: str | Path) -> ClipStore:
        """Opens the folder that `ecgfast convert --modality echo` made.

        Raises:
            DataError: It is none, is not finished, or holds something else.
        """
        return cls(*read_store(path, cls))

    def frames(
        self,
        index: int,
        first: int = 0,
        count: int = 0,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Some frames of a video, in memory of their own or in ``out``.

        What is asked for is read, and nothing else. Frames after the last one are black.

        Args:
            index: Of the video.
            first: The first frame.
            count: How many; 0 takes all from ``first`` on.
            step: From one to the next.
            out: ``(count, C, S, S)`` uint8, C order.

        Returns:
            ``(count, C, S, S)`` uint8.

        Raises:
            DataError: The shard is damaged.
            IndexError: The video has no such first frame.
            ValueError: There is no such count or step.
        """
        length = int(self.lengths[index])
        if not 0 <= first < length:
            raise IndexError(f"video {index} has {length} frames, none of number {first}")
        if count < 0 or step < 1:
            raise ValueError(f"count must be 0 or more and step 1 or more, got {count} and {step}")
        there = -(-(length - first) // step)  # frames from first on
        count = count or there
        if out is None:
            out = np.empty((count, *self.shape), dtype=np.uint8)
        there = min(there, count)
        shard, row = int(self._shard[index]), int(self._row[index]) + first
        if step == 1:
            self._read(shard, row, there, out[:there])
        else:
            for at in range(there):
                self._read(shard, row + at * step, 1, out[at : at + 1])
        out[there:] = 0
        return out
