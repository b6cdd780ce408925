"""Which records there are, and reading one, whatever its format."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import LEADS
from ecgfast.data import text
from ecgfast.data.mat import load_matrix
from ecgfast.data.records import (
    ECG,
    BadRecord,
    DataError,
    bad,
    lead_name,
    millivolts_per,
    printable,
)
from ecgfast.data.wfdb import read_wfdb

Format = Literal["auto", "wfdb", "mat", "text"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How sources are to be read.

    Attributes:
        format: auto takes WFDB headers, or MATLAB files where there are no headers.
        fs: Rate of files that name none, and what a header must say; 0 if neither.
        units: Unit of files that name none; overrides the one in a header.
        gain: Units of a sample per mV, for files that name no unit.
        leads: Names in the order of the file, for files that name none; those in a header yield.
        mat_key: Variable in MATLAB files.
    """

    format: Format = "auto"
    fs: float = 0.0
    units: str = ""
    gain: float = 0.0
    leads: tuple[str, ...] = ()
    mat_key: str = ""


@dataclass(frozen=True)
class Item:
    """One record that is to be read.

    Attributes:
        root: The folder that was named, or that of the file that was named.
        path: Within root.
        member: Name inside the archive at path.
        record_id: Unique in the run.
    """

    root: str
    path: str
    member: str = ""
    record_id: str = ""

    @property
    def source(self) -> str:
        """For people: the folder's name, the path in it, the member."""
        member = f":{self.member}" if self.member else ""
        return printable(f"{Path(self.root).name}/{self.path}{member}")

    @property
    def stem(self) -> str:
        """Name of the file without folder and suffix."""
        return PurePosixPath(self.key).name

    @property
    def key(self) -> str:
        """Path of the file without suffix; 7 is none of 1.2.840.7, the end of a number is."""
        path = PurePosixPath(self.member or self.path)
        return str(path if path.suffix[1:].isdigit() else path.with_suffix(""))


def find(
    sources: Iterable[Path],
    reading: Reading,
    *,
    records: Path | None = None,
    skip: Iterable[Path] = (),
) -> list[Item]:
    """All records of the named folders and files, in a fixed order, each with its own id.

    Args:
        sources: Folders, searched to the bottom, or files.
        reading: Its format says what to look for.
        records: A list of paths within the folders, one a line, as PhysioNet's RECORDS.
        skip: Files that are no records.

    Raises:
        DataError: if a source is not there or holds nothing.
    """
    skipped = {path.resolve() for path in skip}
    items: list[Item] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"error[no_source] there is no {source}")
        if source.is_file():
            found = _expand(source.parent, source.name)
        elif records is not None:
            found = _listed(source, records)
        else:
            found = [
                item
                for path in _search(source, reading.format)
                if (source / path).resolve() not in skipped
                for item in _expand(source, path)
            ]
        if not found:
            raise DataError(
                f"error[no_records] {source} holds no record of format {reading.format}: "
                "looked for .hea, or else .mat; text and archives need --format text, pictures "
                "--format image, videos of hearts --modality echo (convert)"
            )
        items += found
    return with_ids(items)


def read(items: Iterable[Item], reading: Reading) -> Iterator[tuple[Item, ECG | BadRecord]]:
    """Reads records one after the other; one that cannot be read gives the reason instead."""
    for place, group in groupby(items, key=lambda item: (item.root, item.path, bool(item.member))):
        wanted = list(group)
        if place[2]:
            yield from _from_archive(Path(place[0]) / place[1], wanted, reading)
            continue
        for item in wanted:
            try:
                yield item, _named(_read_file(Path(item.root), item.path, reading), item)
            except BadRecord as error:
                yield item, error
            except (OSError, ValueError, MemoryError) as error:
                yield item, bad("unreadable", f"{type(error).__name__}: {str(error)[:160]}")


def _read_file(root: Path, path: str, reading: Reading) -> ECG:
    file = root / path
    if file.suffix == ".hea":
        ecg = read_wfdb(file, root=root, units=reading.units)
        return _renamed(ecg, reading.leads) if reading.leads else ecg
    if not file.is_file():
        raise bad("missing_file", "it is in the list but not in the folder", place=path)
    if not file.resolve().is_relative_to(root.resolve()):
        raise bad("unsafe_path", f"a link out of {root.name}", place=path)
    if file.stat().st_size > text.MAX_FILE:
        raise bad("size_limit", f"{file.stat().st_size} bytes", place=path)
    raw = file.read_bytes()
    if file.suffix == ".mat":
        matrix = load_matrix(file, key=reading.mat_key, raw=raw).astype(np.float64)
        return _bare(matrix, [], raw, reading, path)
    return _bare(*text.parse_columns(raw, file.name), raw, reading, path)


def whole_file(root: Path, path: str, most: int) -> bytes:
    """The bytes of a file of a folder: no link out of it, not more than so many, not none.

    Raises:
        BadRecord: missing_file, unsafe_path, size_limit, empty_file.
    """
    file = root / path
    if not file.is_file():
        raise bad("missing_file", "it is no file, or a link to nowhere", place=path)
    if not file.resolve().is_relative_to(root.resolve()):
        raise bad("unsafe_path", f"a link out of {root.name}", place=path)
    with file.open("rb") as opened:
        raw = opened.read(most + 1)
    if len(raw) > most:
        size = file.stat().st_size
        raise bad("size_limit", f"{size} bytes, {most} are read", count=size, total=most)
    if not raw:
        raise bad("empty_file", "0 bytes", place=path)
    return raw


def _from_archive(
    archive: Path, items: list[Item], reading: Reading
) -> Iterator[tuple[Item, ECG | BadRecord]]:
    wanted = {item.member: item for item in items}
    try:
        for name, raw in text.members(archive):
            item = wanted.pop(name, None)
            if item is not None:
                try:
                    if isinstance(raw, BadRecord):
                        raise raw
                    matrix, names = text.parse_columns(raw, name)
                    yield item, _named(_bare(matrix, names, raw, reading, name), item)
                except BadRecord as error:
                    yield item, error
            if not wanted:
                return
    except BadRecord as error:
        for item in wanted.values():
            yield item, error


def _bare(
    matrix: NDArray[np.float64], names: list[str], raw: bytes, reading: Reading, path: str
) -> ECG:
    """A record from columns without a header."""
    leads = reading.leads or LEADS
    if names and not reading.leads:
        rows = [i for i, name in enumerate(names) if lead_name(name)]
        leads = tuple(lead_name(names[i]) or "" for i in rows)
        matrix = matrix[rows]
    elif len(matrix) != len(leads) and matrix.shape[1] == len(leads):
        matrix = matrix.T
    elif len(matrix) == len(leads) + 1 and (np.diff(matrix[0]) == 1).all():
        matrix = matrix[1:]  # the first column counts the samples
    if len(matrix) != len(leads) or not leads or len(set(leads)) < len(leads):
        shape = f"{matrix.shape[0]} x {matrix.shape[1]}"
        raise bad(
            "missing_leads",
            f"{shape} values are no {len(leads)} leads ({' '.join(leads)}); --leads-source NAMES",
            place=path,
            count=len(matrix),
            total=len(leads),
        )
    if not reading.fs:
        raise bad("corrupt_header", "the file names no rate: --fs-source HZ", place=path)
    factor = 1 / reading.gain if reading.gain else millivolts_per(reading.units)
    if factor is None:
        way = "the file names no unit: --units mV|uV|V, or --gain UNITS_PER_MV"
        raise bad("unit_unknown", way, place=path)
    signal = np.where(np.isfinite(matrix), matrix, np.nan) * factor
    return ECG(
        signal=signal,
        leads=leads,
        fs=reading.fs,
        record_id="",
        source_sha256=hashlib.sha256(raw).hexdigest(),
    )


def _renamed(ecg: ECG, leads: tuple[str, ...]) -> ECG:
    if len(ecg.leads) != len(leads):
        raise bad(
            "missing_leads",
            f"the record has {len(ecg.leads)} leads ({' '.join(ecg.leads)}), --leads-source names "
            f"{len(leads)}",
            count=len(ecg.leads),
            total=len(leads),
        )
    ecg.leads = leads
    return ecg


def _named(ecg: ECG, item: Item) -> ECG:
    ecg.record_id, ecg.source = item.record_id, item.source
    return ecg


def _expand(root: Path, path: str) -> list[Item]:
    """The item of a file, or those of an archive."""
    if not path.endswith(text.ARCHIVES):
        return [Item(str(root), path)]
    try:
        names = [name for name, _ in text.members(root / path)]
    except BadRecord as error:
        raise DataError(str(error)) from None
    return [Item(str(root), path, name) for name in names]


def _search(folder: Path, kind: Format) -> list[str]:
    suffixes = {"wfdb": (".hea",), "mat": (".mat",), "text": text.SUFFIXES + text.ARCHIVES}
    found: dict[str, list[str]] = {name: [] for name in suffixes}
    for place, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(place, folder)
        for name in sorted(names):
            path = name if inside == "." else f"{inside}/{name}"
            for fits, endings in suffixes.items():
                if name.endswith(endings):
                    found[fits].append(path)
    if kind == "auto":
        kind = "wfdb" if found["wfdb"] else "mat"
    if kind != "wfdb":
        return found[kind]
    segments = set().union(*(_segments(folder, path) for path in found["wfdb"]), set())
    return [path for path in found["wfdb"] if path not in segments]


def _segments(folder: Path, path: str) -> set[str]:
    """Headers that are parts of this one, and therefore no records of their own."""
    with (folder / path).open("rb") as file:
        head = file.read(1 << 16).decode("latin-1")
    lines = [line.split() for line in head.splitlines() if line.strip() and line.strip()[0] != "#"]
    if not lines or not re.search(r"/\d+$", lines[0][0]):
        return set()
    here = PurePosixPath(path).parent
    return {str(here / f"{words[0]}.hea") for words in lines[1:] if words[0] != "~"}


def _listed(folder: Path, records: Path) -> list[Item]:
    items = []
    for number, line in enumerate(records.read_text().splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "://" in name:
            raise DataError(
                f"error[unsafe_path] {records}:{number} leads out of {folder}: {name!r}"
            )
        known = parts.suffix in (".hea", ".mat", *text.SUFFIXES)
        items.append(Item(str(folder), name if known else f"{name}.hea"))
    return items


def with_ids(items: list[Item]) -> list[Item]:
    """Gives each item its id.

    The file's name; where two files share it, the path; where two folders share that, both.
    """
    ids = [item.stem for item in items]
    longer = (lambda item: item.key, lambda item: f"{Path(item.root).name}/{item.key}", _absolute)
    for longer_id in longer:
        often = Counter(ids)
        ids = [longer_id(i) if often[d] > 1 else d for i, d in zip(items, ids, strict=True)]
    return [
        Item(item.root, item.path, item.member, printable(record_id))
        for item, record_id in zip(items, ids, strict=True)
    ]


def _absolute(item: Item) -> str:
    return f"{item.root}/{item.path}:{item.member}"
