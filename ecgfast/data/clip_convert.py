"""From videos to a store of them: many files, none of which may stop or slip out of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ecgfast.config.clips import ClipFit
from ecgfast.data.checks import Policy, apply_policy
from ecgfast.data.clip_store import ClipWriter
from ecgfast.data.convert import Labelling, Outcome, workers_for
from ecgfast.data.dicom_video import pseudonym
from ecgfast.data.labels import RESERVED, LabelTable, read_table
from ecgfast.data.prepared import Ready, prepared
from ecgfast.data.records import BadRecord, DataError, bad, identifier
from ecgfast.data.sector import fit_video
from ecgfast.data.sources import Item
from ecgfast.data.store_format import CLIP_COLUMNS
from ecgfast.data.videos import VideoReading, find_videos, long_enough, read_video

CHUNK = 4  # videos that a worker gets at a time
PAYS = 24  # videos that take longer than starting a process
IDS = ("patient_id", "study_id")


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """What shall become of videos.

    Attributes:
        fit: What all frames are brought to.
        reading: How the files are read.
        policy: Issue names that are to be kept or rejected against their habit.
    """

    fit: ClipFit = field(default_factory=ClipFit)
    reading: VideoReading = field(default_factory=VideoReading)
    policy: Mapping[str, Policy] = field(default_factory=dict)

    def ready(self, items: list[Item]) -> list[Ready]:
        """Reads and fits videos: a result for each."""
        return [self._one(item) for item in items]

    def plain(self) -> dict[str, Any]:
        """Plain values, for store.json."""
        policy = dict(self.policy)
        return {"fit": self.fit.plain(), "reading": self.reading.plain(), "policy": policy}

    def _one(self, item: Item) -> Ready:
        try:
            video = read_video(Path(item.root), item.path, self.reading)
            rejecting, kept = apply_policy(video.issues, self.policy)
            if rejecting:
                return Ready(item, None, issues=tuple(rejecting))
            frames, row, noticed = fit_video(video, self.fit)
            noticed += long_enough(len(frames), self.reading)
        except ModuleNotFoundError:  # no fault of the file; the command says what to install
            raise
        except BadRecord as error:
            return Ready(item, None, issues=(error.issue,))
        except Exception as error:  # whatever a strange file brings about must not end the run
            text = f"{type(error).__name__}: {str(error)[:160]}"
            return Ready(item, None, issues=(bad("unreadable", text).issue,))
        rejecting, more = apply_policy(noticed, self.policy)
        if rejecting:
            return Ready(item, None, issues=tuple(rejecting))
        return Ready(item, frames, issues=(*kept, *more), row={**row, "source": item.source})


class ClipLabelling(Labelling):
    """Joins a table to videos, by video or by study.

    Where files are DICOM whose ids became pseudonyms, so do those of the table: who is named in
    both is one patient.

    Args:
        items: Of the run.
        tables: Of labels.
        pattern: A regular expression whose first group, found in the file's name, is the id.
        reading: How the files were read.
        by_study: The column of the tables that names studies, if rows are of these.
        ids: Columns that were copied into patient_id and study_id: ids as the hospital has them,
            which shall not stand beside their pseudonyms.
    """

    reserved: Collection[str] = (RESERVED | set(CLIP_COLUMNS)) - {*IDS, "view"}

    def __init__(
        self,
        items: list[Item],
        tables: list[LabelTable],
        pattern: str,
        reading: VideoReading,
        by_study: str = "",
        ids: Collection[str] = (),
    ) -> None:
        super().__init__(items, tables, pattern)
        self.reading, self.by_study = reading, by_study
        self.copied = set(ids) - set(IDS)
        for item in items:  # tables of videos often name files with their suffix
            self.keys[item.record_id] += [item.path, item.path.rpartition("/")[2]]

    def __call__(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """The manifest with the columns of all tables."""
        hidden = self.reading.pseudonyms and (manifest["form_source"] == "DICOM").any()
        self.tables = [self._named(table, hidden=bool(hidden)) for table in self.tables]
        if self.by_study:
            studies = zip(manifest["record_id"], manifest["study_id"], strict=True)
            self.keys = {**{name: [] for name in self.keys}, **{r: [str(s)] for r, s in studies}}
        return super().__call__(manifest)

    def _named(self, table: LabelTable, *, hidden: bool) -> LabelTable:
        def name(value: Any) -> str:
            plain = identifier(value)
            return pseudonym(plain, self.reading.salt) if hidden else plain

        frame, copied = table.frame.copy(), self.copied
        if self.by_study:  # the manifest has the studies
            keys = [[str(value), name(value)] for value in frame[self.by_study]]
            copied = copied | {self.by_study, "study_id"}
        else:
            keys = [[] for _ in range(len(frame))]
            for key, row in table.by_key.items():
                keys[row].append(key)
        frame = frame.drop(columns=list(copied & set(frame.columns)))
        for column in frame.columns.intersection(IDS):
            frame[column] = frame[column].map(name)
        return LabelTable(table.name, frame, keys, table.within)


def convert_clips(
    sources: Iterable[str | Path],
    store: str | Path,
    plan: ClipPlan,
    *,
    labels: str | Path | None = None,
    id_column: str = "record_id",
    id_pattern: str = "",
    patient_column: str = "",
    study_column: str = "",
    sex_male: str = "1",
    workers: int = -1,
    overwrite: bool = False,
    shard_frames: int = 0,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]] | None = None,
) -> Outcome:
    """Reads, masks, scales, and stores all videos of some folders.

    A video that cannot be read, or is frame for frame an earlier one, is written to rejected.csv
    with the reason. Run again with the same arguments, it goes on after the last whole shard.

    Args:
        sources: Folders or files.
        store: Folder to be made.
        plan: What shall become of the videos.
        labels: A table to join.
        id_column: Its column of ids of videos: a file's name, with its suffix or without, or its
            path. ``study_id``, or what ``study_column`` names, is one of studies: a row is then for
            all videos of a study.
        id_pattern: A regular expression whose first group, found in the file's name, is the id.
        patient_column: Its column of patient ids, if that is not patient_id.
        study_column: Its column of study ids, if that is not study_id.
        sex_male: What it calls male in numbers.
        workers: Processes; 0 reads here, -1 takes as many as it pays.
        overwrite: Replace a store that is there.
        shard_frames: Frames a shard; 0 takes as many as fill 128 MiB.
        progress: Wraps the results: called with them, the number done before, and the total.

    Raises:
        DataError: There is nothing to convert, or the store is of something else.
    """
    roots = [Path(source) for source in sources]
    items = find_videos(roots, skip=[Path(labels)] if labels else [])
    by_study = id_column if id_column in ("study_id", study_column) else ""
    tables = []
    if labels:
        table = read_table(Path(labels), id_column, male=sex_male, patient_column=patient_column)
        tables.append(_with_studies(table, study_column))
    named = {patient_column, study_column} - {""}
    labelling = ClipLabelling(items, tables, id_pattern, plan.reading, by_study, named)
    made_by = {
        "command": "convert",
        "sources": [root.name for root in roots],
        "records": len(items),
        "plan": plan.plain(),
        "labels": [table.name for table in tables],
    }
    word = json.dumps([made_by, [item.path for item in items], id_column, id_pattern]).encode()
    writer = ClipWriter(
        store,
        plan.fit,
        made_by=made_by,
        plan=hashlib.sha256(word).hexdigest(),
        overwrite=overwrite,
        shard_frames=shard_frames,
    )
    if writer.finished:
        manifest = pd.read_parquet(Path(store) / "manifest.parquet")
        return Outcome(manifest, [], True, len(items), len(items))
    begun = writer.done
    left = items[begun:]
    count = workers_for(workers, len(left), pays=PAYS)
    results: Iterable[Ready] = prepared(left, plan, count, CHUNK)
    for ready in progress(results, begun, len(items)) if progress else results:
        if ready.steps is None:
            writer.reject(ready.item.record_id, ready.item.source, ready.issues)
            continue
        writer.add(
            ready.steps,
            record_id=ready.item.record_id,
            issues=ready.issues,
            keep_duplicates=plan.policy.get("duplicate_video") == "keep",
            **ready.row,
        )
    manifest = writer.close(labelling)
    return Outcome(manifest, labelling.joined, False, begun, len(items))


def _with_studies(table: LabelTable, column: str) -> LabelTable:
    if column and column not in table.frame:
        raise DataError(f"error[labels] {table.name} has no column {column!r}: --study-column")
    if column:
        table.frame["study_id"] = table.frame[column]
    return table


def read_salt(path: str | Path) -> str:
    """The text of a file, by which ids become pseudonyms.

    Raises:
        DataError: It cannot be read, is empty, or is no text of at most 4096 bytes.
    """
    try:
        salt = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"error[salt] {path} cannot be read: {error}") from None
    if not 0 < len(salt) <= 4096:
        raise DataError(f"error[salt] {path} has {len(salt)} letters: 1 to 4096, 20 say")
    return salt
