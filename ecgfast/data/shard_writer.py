"""Writing shards and a manifest, so that a killed run goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.labels import settle
from ecgfast.data.records import DataError, Issue, printable
from ecgfast.data.store_format import (
    COLUMNS,
    ISSUE_COLUMNS,
    PARTS,
    VERSION,
    write_atomically,
    write_manifest,
)


class ShardWriter:
    """Writes a store shard by shard, each one whole or not at all, and goes on where it was.

    Records come in a fixed order. After a shard is on the disk, a part file says so and holds its
    rows; `done` counts the items that parts account for, so that a second run skips them.

    Args:
        path: Folder, made if need be.
        about: What store.json says, but for version and plan.
        columns: Of the manifest, before the labels.
        name: What shards are called.
        plan: A word for what is being done; a folder of another plan is refused.
        overwrite: Remove a store that is there.
        shard_records: Records a shard.
        shard_rows: Rows after which a shard ends where a record is several of them; as many as
            records otherwise.
    """

    several = False  # whether a record is several rows of a shard, one after the other

    def __init__(
        self,
        path: str | Path,
        *,
        about: Mapping[str, Any],
        columns: tuple[str, ...] = COLUMNS,
        name: str = "signals",
        plan: str = "",
        overwrite: bool = False,
        shard_records: int = 2048,
        shard_rows: int = 0,
    ) -> None:
        self.path, self.columns, self.name = Path(path), columns, name
        self.shard_records, self.shard_rows = shard_records, shard_rows or shard_records
        self.finished = False
        self._about = {"version": VERSION, "complete": False, "plan": plan, **about}
        self._begin(plan, overwrite)
        self.hashes: dict[str, str] = {}
        self._steps: list[NDArray[Any]] = []
        self._rows = 0  # of the shard that is not written yet
        self._part: dict[str, Any] = {}
        self._late: list[list[Any]] = []
        self._fresh_part()
        self.done, self._parts, self._shards = 0, 0, 0
        for part in self._read_parts():
            self.done = part["done"]
            self._parts += 1
            self._shards += bool(part["rows"])
            for row in part["rows"]:
                self.hashes.setdefault(row["sha256"], row["record_id"])

    def _begin(self, plan: str, overwrite: bool) -> None:
        about = self.path / "store.json"
        if self.path.exists() and overwrite:
            remove_store(self.path)
        if about.exists():
            before = json.loads(about.read_text())
            if before.get("plan") != plan or not plan:
                raise DataError(
                    f"error[store_exists] {self.path} holds a store of other records or options; "
                    "name a new folder, or --overwrite"
                )
            self.finished = bool(before["complete"])
        elif self.path.exists() and any(self.path.iterdir()):
            raise DataError(f"error[store_exists] {self.path} is not empty and holds no store")
        if not self.finished:
            (self.path / PARTS).mkdir(parents=True, exist_ok=True)
            write_atomically(about, json.dumps(self._about, indent=1))

    def _put(
        self,
        steps: NDArray[Any],
        *,
        sha: str,
        record_id: str,
        patient_id: str,
        split: str,
        labels: Mapping[str, Any] | None,
        issues: Iterable[Issue],
        duplicate: str,
        keep_duplicates: bool,
        row: Mapping[str, Any],
    ) -> bool:
        """Adds a record, or rejects it as the duplicate of an earlier one."""
        issues = list(issues)
        source = str(row.get("source", ""))
        if sha in self.hashes:
            same = "sample for sample" if self.name == "signals" else "pixel for pixel"
            issue = Issue(
                duplicate,
                "warning" if keep_duplicates else "error",
                message=f"{same} the same as {self.hashes[sha]}; "
                f"--policy {duplicate}=keep keeps both",
            )
            if not keep_duplicates:
                self.reject(record_id, source, [issue])
                return False
            issues.append(issue)
        self.hashes.setdefault(sha, record_id)
        row_of_shard = self._rows
        self._steps.append(steps.copy())  # the caller may fill the same memory again
        self._rows += len(steps) if self.several else 1
        self._part["issues"] += _issue_rows(record_id, source, issues)
        whole = {
            "record_id": record_id,
            "patient_id": patient_id,
            "split": split,
            "shard": self._shards,
            "row": row_of_shard,
            **row,
            "flags": ",".join(sorted({issue.name for issue in issues})),
            "sha256": sha,
        }
        ordered = {key: whole[key] for key in self.columns}
        self._part["rows"].append(
            {**ordered, **{key: _plain(value) for key, value in (labels or {}).items()}}
        )
        self._count()
        return True

    def reject(self, record_id: str, source: str, issues: Iterable[Issue]) -> None:
        """Writes down why a record is not in."""
        self._part["rejected"] += _issue_rows(record_id, source, issues)
        self._count()

    def note(self, found: Iterable[tuple[str, str, Issue]]) -> None:
        """Adds issues that only the whole store shows: record id, source, issue."""
        for record_id, source, issue in found:
            self._late += _issue_rows(record_id, source, [issue])

    def close(self, finish: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> pd.DataFrame:
        """Writes the last shard, the manifest and the lists; the store is complete then.

        Args:
            finish: Last change of the manifest, such as joining labels (text, typed afterwards).
        """
        if self._part["items"]:
            self._flush()
        parts = list(self._read_parts())
        rows = [row for part in parts for row in part["rows"]]
        frame = pd.DataFrame(rows, columns=None if rows else list(self.columns))
        for column in frame.columns.difference(self.columns):
            frame[column] = frame[column].map(lambda v: "" if v is None or v != v else str(v))
        frame = finish(frame) if finish else frame
        labels = [column for column in frame.columns if column not in self.columns]
        typed = settle(frame[[*labels, "patient_id"]].copy())
        frame = pd.concat([frame[list(self.columns)], typed[labels]], axis=1)
        frame["patient_id"] = typed["patient_id"]
        twice = frame["record_id"][frame["record_id"].duplicated()]
        if len(twice):
            raise DataError(
                f"error[duplicate_id] {len(twice)} ids come twice (first: {twice.iloc[0]})"
            )
        write_manifest(self.path, frame)
        for name, key in (("rejected.csv", "rejected"), ("issues.csv", "issues")):
            late = self._late if key == "issues" else []
            _write_csv(self.path / name, [row for part in parts for row in part[key]] + late)
        about = {**self._about, "complete": True, "records": len(frame)}
        write_atomically(self.path / "store.json", json.dumps(about, indent=1))
        shutil.rmtree(self.path / PARTS)
        self.finished = True
        return frame

    def _count(self) -> None:
        self._part["items"] += 1
        full = self._rows >= self.shard_rows or len(self._steps) >= self.shard_records
        if full or self._part["items"] >= 4 * self.shard_records:
            self._flush()

    def _flush(self) -> None:
        if self._steps:
            name = f"{self.name}-{self._shards:05d}.npy"
            temporary = self.path / PARTS / name
            with temporary.open("wb") as file:
                np.save(file, (np.concatenate if self.several else np.stack)(self._steps))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
            self._shards += 1
        self.done += self._part.pop("items")
        # only now, with the shard in place, do its rows count
        part = {**self._part, "done": self.done}
        write_atomically(self.path / PARTS / f"part-{self._parts:05d}.json", json.dumps(part))
        self._parts += 1
        self._steps, self._rows = [], 0
        self._fresh_part()

    def _fresh_part(self) -> None:
        self._part = {"rows": [], "rejected": [], "issues": [], "items": 0}

    def _read_parts(self) -> Iterable[dict[str, Any]]:
        for path in sorted((self.path / PARTS).glob("part-*.json")):
            yield json.loads(path.read_text())


def remove_store(path: Path) -> None:
    """Removes what a store consists of, and nothing else."""
    if not (path / "store.json").exists() and any(path.iterdir()):
        raise DataError(f"error[store_exists] {path} is not empty and holds no store; not removed")
    for pattern in (
        "signals-*.npy",
        "pages-*.npy",
        "clips-*.npy",
        "manifest.parquet",
        "rejected.csv",
        "issues.csv",
        "store.json",
    ):
        for file in path.glob(pattern):
            file.unlink()
    shutil.rmtree(path / PARTS, ignore_errors=True)


def _issue_rows(record_id: str, source: str, issues: Iterable[Issue]) -> list[list[Any]]:
    return [
        [
            record_id,
            source,
            issue.name,
            issue.severity,
            printable(issue.place),
            issue.count,
            issue.total,
            printable(issue.message),
        ]
        for issue in issues
    ]


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(ISSUE_COLUMNS)
        writer.writerows(rows)
    temporary.replace(path)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
