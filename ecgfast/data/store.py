"""The store: int16 shards that numpy reads, a parquet manifest, and what was left out and why.

store.json         what the records are (leads, fs, seconds, mV) and what made them
signals-00000.npy  (N, L, T) int16 in C order; times the record's gain it is mV; -32768 is NaN
manifest.parquet   a row a record: where it lies, whose it is, its flags and labels
rejected.csv       a row for each reason why a record is not here
issues.csv         a row for each issue of a record that is here
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.data.records import DataError
from ecgfast.data.store_format import COLUMNS as COLUMNS
from ecgfast.data.store_format import NAN as NAN
from ecgfast.data.store_format import VERSION, read_manifest, restore
from ecgfast.data.store_writer import StoreWriter as StoreWriter

if TYPE_CHECKING:
    from ecgfast.data.dataset import Records


OPEN = 256  # shards that a store keeps open: files are not without number


class Shard:
    """An open shard; closed when nobody reads it any more, in whatever thread."""

    def __init__(self, path: Path, begin: int) -> None:
        self.begin = begin  # of the samples
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class ECGStore:
    """A finished store, read in place.

    Attributes:
        path: Its folder.
        manifest: A row a record; see `COLUMNS` and the labels after them.
        signal: Leads, rate, length, and the recipe that the records have been through, if any.
        about: What store.json says.
    """

    def __init__(self, path: Path, about: dict[str, Any], manifest: pd.DataFrame) -> None:
        self.path, self.about, self.manifest = path, about, manifest
        contract = about["contract"]
        self.signal = Signal(
            leads=tuple(contract["leads"]),
            fs=contract["fs"],
            seconds=contract["seconds"],
            stored_recipe=(contract.get("recipe") or {}).get("name", ""),
        )
        self._shard = manifest["shard"].to_numpy(np.int64)
        self._row = manifest["row"].to_numpy(np.int64)
        self._gain = manifest["gain"].to_numpy(np.float64)
        self._gaps = manifest["n_nan"].to_numpy(np.int64) > 0
        self._headers: dict[int, tuple[int, int]] = {}  # of a shard: begin of samples, records
        self._open: dict[int, Shard] = {}

    @classmethod
    def open(cls, path: str | Path) -> ECGStore:
        """Opens the folder that `ecgfast convert` made.

        Args:
            path: Of the folder.

        Raises:
            DataError: if it is none, or is not finished.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise DataError(
                f"error[no_store] {path} is no store; make one: ecgfast convert SRC {path}"
            )
        try:
            about = json.loads((path / "store.json").read_text())
            version, complete = about["version"], about["complete"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"error[corrupt_store] {path}/store.json cannot be read") from None
        if version != VERSION:
            raise DataError(
                f"error[store_version] {path} has version {version}, known is {VERSION}"
            )
        if not complete:
            raise DataError(
                f"error[unfinished_store] {path} is not finished; give the same convert command "
                "again, it goes on where it was"
            )
        return cls(path, about, read_manifest(path))

    @property
    def synthetic(self) -> bool:
        """Whether the records are made up."""
        return bool(self.about.get("synthetic"))

    def __len__(self) -> int:
        return len(self.manifest)

    def __getstate__(self) -> dict[str, Any]:  # another process opens its own files
        return {**self.__dict__, "_open": {}}

    def steps(self, index: int, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """The stored (L, T) int16 of a record, in memory of its own or in ``out``, C order.

        The file is read, not mapped: what a process has once touched of a mapped file counts as its
        memory, and a run that touches all of a large store would seem to grow without end.
        """
        number, row = int(self._shard[index]), int(self._row[index])
        shard = self._open.get(number)
        if shard is None:
            shard = self._open_shard(number)
        if out is None:
            out = np.empty((len(self.signal.leads), self.signal.samples), dtype=np.int16)
        count = self._headers[number][1]
        if not 0 <= row < count:
            raise DataError(
                f"error[corrupt_store] {self._name(number)} has {count} records, not number {row}"
            )
        got = os.preadv(shard.file, [out.data], shard.begin + row * out.nbytes)
        if got != out.nbytes:
            raise DataError(f"error[corrupt_store] {self._name(number)} ends in record {row}")
        return out

    def _open_shard(self, number: int) -> Shard:
        name = self._name(number)
        try:
            if number not in self._headers:
                mapped = np.load(name, mmap_mode="r", allow_pickle=False)
                shape = (len(self.signal.leads), self.signal.samples)
                if mapped.dtype != np.int16 or mapped.shape[1:] != shape:
                    raise ValueError(
                        f"it is {mapped.shape} {mapped.dtype}, not (N, {shape[0]}, {shape[1]}) "
                        "int16"
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
        return self.path / f"signals-{number:05d}.npy"

    def gain(self, index: int) -> np.float32:
        """What a step of a record is, mV."""
        return np.float32(self._gain[index])

    def gains(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """What a step of each record is, mV."""
        return self._gain[index].astype(np.float32)

    def read(self, index: int) -> NDArray[np.float32]:
        """A record (L, T) in mV; NaN where the source has no value, zeros after n_valid."""
        return restore(self.steps(index), self._gain[index], bool(self._gaps[index]))

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
                names = [c for c in self.manifest.columns if c not in COLUMNS]
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

    def dataset(
        self, splits: Iterable[str] = ("all",), label: str | None = None, limit: int = 0
    ) -> Records:
        """A torch data set of those records: ecg, index, patient, and label if one is named."""
        from ecgfast.data.dataset import Records  # torch is not needed to convert

        return Records(self, self.select(splits, label, limit), label)
