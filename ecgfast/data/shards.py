"""What stores have in common: shards that are read in place, a manifest, parts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.records import DataError
from ecgfast.data.store_format import VERSION, read_manifest

OPEN = 256  # shards that a store keeps open: files are not without number


class Shard:
    """An open shard; closed when nobody reads it any more, in whatever thread."""

    def __init__(self, path: Path, begin: int) -> None:
        self.begin = begin  # of the samples
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class ShardStore:
    """A finished store, read in place.

    Attributes:
        path: Its folder.
        manifest: A row a record.
        about: What store.json says.
        shape: Of a row of a shard: a record, or a frame of one.
    """

    columns: tuple[str, ...]  # of the manifest, before the labels
    made_by: str  # the command that makes such a store
    name: str  # what shards are called, and what store.json says the store holds
    dtype: type[np.generic]

    def __init__(
        self, path: Path, about: dict[str, Any], manifest: pd.DataFrame, shape: tuple[int, ...]
    ) -> None:
        self.path, self.about, self.manifest, self.shape = path, about, manifest, shape
        self._shard = manifest["shard"].to_numpy(np.int64)
        self._row = manifest["row"].to_numpy(np.int64)
        self._headers: dict[int, tuple[int, int]] = {}  # of a shard: begin of samples, records
        self._open: dict[int, Shard] = {}

    @property
    def synthetic(self) -> bool:
        """Whether the records are made up."""
        return bool(self.about.get("synthetic"))

    def __len__(self) -> int:
        return len(self.manifest)

    def __getstate__(self) -> dict[str, Any]:  # another process opens its own files
        return {**self.__dict__, "_open": {}}

    def read_row(self, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """A record as it is stored, in memory of its own or in ``out``, C order.

        The file is read, not mapped: what a process has once touched of a mapped file counts as its
        memory, and a run that touches all of a large store would seem to grow without end.
        """
        if out is None:
            out = np.empty(self.shape, dtype=self.dtype)
        self._read(int(self._shard[index]), int(self._row[index]), 1, out)
        return out

    def _read(self, number: int, row: int, rows: int, out: NDArray[Any]) -> None:
        """Rows of a shard from one on, into ``out``, C order."""
        shard = self._open.get(number)
        if shard is None:
            shard = self._open_shard(number)
        count = self._headers[number][1]
        if not 0 <= row <= count - rows:
            raise DataError(
                f"error[corrupt_store] {self._name(number)} has {count} rows, not number "
                f"{row + rows - 1}"
            )
        got = os.preadv(shard.file, [out.data], shard.begin + row * (out.nbytes // rows))
        if got != out.nbytes:
            raise DataError(f"error[corrupt_store] {self._name(number)} ends in row {row}")

    def _open_shard(self, number: int) -> Shard:
        name = self._name(number)
        try:
            if number not in self._headers:
                mapped = np.load(name, mmap_mode="r", allow_pickle=False)
                if mapped.dtype != self.dtype or mapped.shape[1:] != self.shape:
                    shape = ", ".join(map(str, self.shape))
                    kind = np.dtype(self.dtype).name
                    raise ValueError(
                        f"it is {mapped.shape} {mapped.dtype}, not (N, {shape}) {kind}"
                    )
                if not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
                    raise ValueError("it is not in C order")
                self._headers[number] = mapped.offset, len(mapped)
            shard = Shard(name, self._headers[number][0])
        except (OSError, ValueError) as error:
            raise DataError(f"error[corrupt_store] {name}: {str(error)[:120]}") from None
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open)), None)
        self._open[number] = shard
        return shard

    def _name(self, number: int) -> Path:
        return self.path / f"{self.name}-{number:05d}.npy"

    def select(
        self,
        splits: Iterable[str] = ("all",),
        label: str | None = None,
        limit: int = 0,
        *,
        text: bool = False,
    ) -> NDArray[np.int64]:
        """Positions of the records of some splits; with a label, only of those that have it.

        `all` is every record that is not in test, also one without a split. A label is a column of
        numbers, or with `text` one of any kind, in which an empty text is no label.
        """
        splits = tuple(splits)
        known = set(self.manifest["split"].unique()) | {"all", "train", "val", "test"}
        if wrong := [name for name in splits if name not in known]:
            raise DataError(f"error[split] no split {', '.join(wrong)}; train, val, test, or all")
        chosen = self.manifest["split"].isin(splits)
        if "all" in splits:
            chosen |= self.manifest["split"] != "test"
        if label is not None:
            if label not in self.manifest:
                names = [c for c in self.manifest.columns if c not in self.columns]
                raise DataError(f"error[label] no column {label!r}; there are {', '.join(names)}")
            if not text and not pd.api.types.is_numeric_dtype(self.manifest[label]):
                raise DataError(
                    f"error[label] column {label!r} holds text, not numbers; its classes can be "
                    "learned: --task multiclass"
                )
            chosen &= self.manifest[label].notna()
            if text:
                chosen &= self.manifest[label].astype(str).str.strip() != ""
        found = np.flatnonzero(chosen.to_numpy())
        if not len(found):
            have = self.manifest["split"].replace("", "none").value_counts().to_dict()
            raise DataError(
                f"error[empty_split] no record of {self.path} is in {', '.join(splits)}"
                f"{f' and has {label}' if label else ''}; records by split: {have}; "
                f"ecgfast split {self.path} --by patient"
            )
        return found[:limit] if limit else found


def read_store(
    path: str | Path, kind: type[ShardStore]
) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """Folder, store.json and manifest of a finished store that holds what it must.

    Raises:
        DataError: It is none, is not finished, or holds something else.
    """
    path = Path(path)
    about, holds = read_about(path)
    if holds != kind.name:
        raise DataError(
            f"error[store_kind] {path} holds {holds}, not {kind.name}: this needs a store of "
            f"{kind.name} ({kind.made_by})"
        )
    return path, about, read_manifest(path)


def read_about(path: Path) -> tuple[dict[str, Any], str]:
    """What store.json of a finished store says, and what the store holds: signals, pages or clips.

    Raises:
        DataError: There is no store, or it is not finished.
    """
    if not (path / "store.json").is_file():
        raise DataError(f"error[no_store] {path} is no store; make one: ecgfast convert SRC {path}")
    try:
        about = json.loads((path / "store.json").read_text())
        version, complete = about["version"], about["complete"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"error[corrupt_store] {path}/store.json cannot be read") from None
    if version != VERSION:
        raise DataError(f"error[store_version] {path} has version {version}, known is {VERSION}")
    if not complete:
        raise DataError(
            f"error[unfinished_store] {path} is not finished; give the same convert command "
            "again, it goes on where it was"
        )
    return about, str(about.get("holds", "signals"))
