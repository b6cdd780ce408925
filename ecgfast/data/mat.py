"""MATLAB files of versions 4 and 5: one numeric variable, checked before it is loaded."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from ecgfast.data.records import bad

MAX_FILE = 1 << 28  # bytes, also of what a compressed file unfolds to
KEYS = ("val", "feats", "ecg", "signal", "tracing", "data")
_CLASSES = {"double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32"}
_COMPRESSED = 15


def load_matrix(path: Path, *, key: str = "", raw: bytes | None = None) -> NDArray[Any]:
    """The two-dimensional numeric variable of a file.

    Only that variable is loaded: cells, structures, objects and functions are never built. HDF5
    (version 7.3) is refused.

    Args:
        path: The file; only its name is used if raw is given.
        key: Name of the variable; empty takes the first of val, feats, ecg, signal, tracing, data,
            or the only matrix there is.
        raw: The bytes, if they are already here.

    Raises:
        BadRecord: empty_file, size_limit, unreadable.
    """
    raw = path.read_bytes() if raw is None and path.stat().st_size <= MAX_FILE else raw
    if raw is None or len(raw) > MAX_FILE:
        raise bad("size_limit", f"more than {MAX_FILE} bytes; nothing was read", place=path.name)
    if not raw:
        raise bad("empty_file", "the file has 0 bytes; fetch it again", place=path.name)
    if raw[:10] == b"MATLAB 7.3" or raw[:4] == b"\x89HDF":
        raise bad("unreadable", "a version 7.3 (HDF5) file; save it as -v7", place=path.name)
    if raw[:6] == b"MATLAB":
        _refuse_bomb(path, raw)
    try:
        found = [
            (name, shape, kind)
            for name, shape, kind in scipy.io.whosmat(io.BytesIO(raw))
            if kind in _CLASSES and len(shape) == 2 and min(shape) > 0
        ]
        name = _choose(path, key, found)
        matrix = scipy.io.loadmat(io.BytesIO(raw), variable_names=[name])[name]
    except Exception as error:  # scipy raises whatever it stumbles on
        if hasattr(error, "issue"):
            raise
        why = f"not a MATLAB file of version 4 or 5 ({type(error).__name__}: {str(error)[:120]})"
        raise bad("unreadable", f"{why}; fetch it again", place=path.name) from None
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        raise bad("unreadable", f"{name} is no real numeric matrix", place=path.name)
    return matrix


def _choose(path: Path, key: str, found: list[tuple[str, tuple[int, ...], str]]) -> str:
    # claims of whosmat, so that nothing absurd is allocated for a lying header
    for name, shape, _ in found:
        if shape[0] * shape[1] * 8 > 4 * MAX_FILE:
            raise bad("size_limit", f"{name} claims {shape[0]} x {shape[1]}", place=path.name)
    names = [name for name, _, _ in found]
    matrices = [name for name, shape, _ in found if max(shape) > 1]
    for wanted in [key] if key else KEYS:
        if wanted in names:
            return wanted
    if not key and len(matrices) == 1:
        return matrices[0]
    held = ", ".join(sorted(names)[:8]) or "none"
    raise bad(
        "unreadable",
        f"no matrix {key or 'to choose'}; it has {held}: --mat-key NAME",
        place=path.name,
    )


def _refuse_bomb(path: Path, raw: bytes) -> None:
    """Walks the elements of a version 5 file and unfolds them within the limit."""
    order: Any = "little" if raw[126:128] == b"IM" else "big"
    at, total = 128, 0
    while at + 8 <= len(raw):
        kind = int.from_bytes(raw[at : at + 4], order)
        size = int.from_bytes(raw[at + 4 : at + 8], order)
        if kind == _COMPRESSED:
            unfold, left = zlib.decompressobj(), raw[at + 8 : at + 8 + size]
            while left and not unfold.eof and total <= MAX_FILE:
                total += len(unfold.decompress(left, 1 << 20))
                left = unfold.unconsumed_tail
        if total > MAX_FILE:
            raise bad("size_limit", f"it unfolds to more than {MAX_FILE} bytes", place=path.name)
        at += 8 + size
