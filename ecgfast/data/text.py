"""Samples in text columns, also inside a tar archive that is read as a stream."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.records import BadRecord, bad

MAX_FILE = 1 << 26  # bytes of one record
MAX_MEMBERS = 2_000_000
MAX_RATIO = 200  # an archive that unfolds to more than this is no text of an ECG
SUFFIXES = (".txt", ".csv", ".tsv")
ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tar.bz2", ".tgz")


def parse_columns(raw: bytes, name: str) -> tuple[NDArray[np.float64], list[str]]:
    """Gives the columns (C, T) and their names, or no names where the first line holds numbers.

    Columns are separated by commas, semicolons, tabs or blanks; an empty cell is NaN.

    Raises:
        BadRecord: empty_file, size_limit, unreadable.
    """
    if not raw.strip():
        raise bad("empty_file", f"{len(raw)} bytes and no number; fetch it again", place=name)
    if len(raw) > MAX_FILE:
        raise bad("size_limit", f"{len(raw)} bytes; at most {MAX_FILE}", place=name, count=len(raw))
    text = raw.decode("utf-8-sig", errors="replace")
    first = text.lstrip().split("\n", 1)[0]
    mark = next((c for c in ",;\t" if c in first), None)
    cells = [cell.strip().strip('"') for cell in first.split(mark)]
    names = [] if all(_is_number(cell) for cell in cells) else cells
    skip = int(bool(names))
    try:
        table = np.loadtxt(io.StringIO(text), delimiter=mark, skiprows=skip, ndmin=2)
    except ValueError:  # the slow reader takes empty cells for NaN
        table = _with_gaps(text, mark, skip, name)
    if table.size == 0 or not np.isfinite(table).any():
        raise bad("unreadable", f"no number in it; it begins {first[:40]!r}", place=name)
    return table.T, names


def _with_gaps(text: str, mark: str | None, skip: int, name: str) -> NDArray[np.float64]:
    try:
        table: NDArray[np.float64] = np.genfromtxt(
            io.StringIO(text), delimiter=mark, skip_header=skip, ndmin=2
        )
    except ValueError as error:
        why = " ".join(str(error).split("\n")[:2])[:160].strip()
        message = f"lines differ in their columns: {why}; fetch it again"
        raise bad("unreadable", message, place=name) from None
    return table


def members(archive: Path) -> Iterator[tuple[str, bytes | BadRecord]]:
    """Names and bytes of the text files of an archive, in its order, without unpacking it.

    A member with a name that leads elsewhere, or one that is too large, comes as the reason why it
    is not read. Links and devices are passed over.
    """
    packed = archive.stat().st_size
    with _unfold(archive) as stream:
        limited = cast(Any, _Limited(stream, max(1 << 26, MAX_RATIO * packed), archive.name))
        try:
            with tarfile.open(fileobj=limited, mode="r|") as tar:
                for number, member in enumerate(tar):
                    vars(tar)["members"] = []  # a stream keeps what it has seen; nobody asks again
                    if number > MAX_MEMBERS:
                        raise bad(
                            "size_limit", f"more than {MAX_MEMBERS} files", place=archive.name
                        )
                    if member.isreg() and member.name.endswith(SUFFIXES):
                        yield member.name, _member(tar, member)
        except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
            why = f"the archive breaks off ({type(error).__name__}: {str(error)[:100]})"
            raise bad("truncated_signal", f"{why}; fetch it again", place=archive.name) from None


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | BadRecord:
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name:
        return bad("unsafe_path", "its name leads out of the archive", place=member.name)
    if member.size > MAX_FILE or member.issparse():
        return bad("size_limit", f"{member.size} bytes; at most {MAX_FILE}", place=member.name)
    file = tar.extractfile(member)
    return file.read(MAX_FILE) if file else b""


def _unfold(archive: Path) -> Any:
    name = archive.name
    if name.endswith(".xz"):
        return lzma.open(archive)
    if name.endswith(("gz", ".tgz")):
        return gzip.open(archive)
    return bz2.open(archive) if name.endswith(".bz2") else archive.open("rb")


class _Limited:
    """A stream that ends with an error once it gave more than a limit."""

    def __init__(self, stream: Any, limit: int, name: str) -> None:
        self.stream, self.left, self.limit, self.name = stream, limit, limit, name

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(min(size, self.left + 1) if size >= 0 else self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise bad("size_limit", f"it unfolds to more than {self.limit} bytes", place=self.name)
        return data


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
