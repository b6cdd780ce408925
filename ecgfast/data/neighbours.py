"""A neighbour graph in files: who is near to whom, and by what distance.

neighbours.safetensors  nearest and farthest (N, K) int64, their distances float32; -1 is nobody
records.parquet         record_id and patient_id of each row
neighbours.json         how it was made, counts, hashes of the other two; written last
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ecgfast.data.records import DataError

VERSION = 1
ARRAYS, RECORDS, ABOUT = "neighbours.safetensors", "records.parquet", "neighbours.json"
MOST_BYTES = 16 * 2**30
MOST_ABOUT = 16 * 2**20


@dataclass(frozen=True)
class Neighbours:
    """Every record's nearest and farthest records, in order.

    Attributes:
        nearest: ``(N, K)`` rows; -1 where there are fewer.
        distances: Of these ``(N, K)``; infinite where there is none.
        farthest: ``(N, F)`` rows.
        far_distances: Of these.
        record_id: ``(N,)``.
        patient_id: ``(N,)``; empty where nobody knows.
        about: What neighbours.json says.
    """

    nearest: NDArray[np.int64]
    distances: NDArray[np.float32]
    farthest: NDArray[np.int64]
    far_distances: NDArray[np.float32]
    record_id: NDArray[np.str_]
    patient_id: NDArray[np.str_]
    about: dict[str, Any]

    def rows_among(self, record_ids: NDArray[Any], k: int) -> NDArray[np.int64]:
        """The k nearest of each of these records, among these records: ``(M, k)``, -1 is nobody.

        Whoever is not among them comes in by no neighbour; the next nearest takes the place.

        Raises:
            DataError: An id stands for two records, or none of them is in the graph.
        """
        here, there = record_ids.astype(str), self.record_id
        for what, ids in (("the records", here), ("the neighbour graph", there)):
            names, counts = np.unique(ids, return_counts=True)
            if (twice := names[counts > 1]).size:
                raise DataError(
                    f"error[neighbours] {len(twice)} record ids stand for more than one record in "
                    f"{what} (first: {twice[0]}): a graph needs ids that differ"
                )
        order = np.argsort(here)
        place = np.minimum(np.searchsorted(here, there, sorter=order), len(here) - 1)
        row_of = np.where(here[order[place]] == there, order[place], -1)  # of each in the graph
        known = np.flatnonzero(row_of >= 0)
        if not known.size:
            raise DataError(
                f"error[neighbours] none of the {len(here)} records is among the {len(there)} of "
                "the neighbour graph: it was made of other records; make one of these by "
                "`ecgfast neighbours`"
            )
        found = np.full((len(here), self.nearest.shape[1]), -1, dtype=np.int64)
        theirs = self.nearest[known]
        found[row_of[known]] = np.where(theirs >= 0, row_of[theirs], -1)
        first = np.argsort(found < 0, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, first, axis=1)


def write_neighbours(folder: str | Path, graph: Neighbours) -> dict[str, Any]:
    """Writes the three files, each at once or not at all; returns what neighbours.json says."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = io.BytesIO()
    pq.write_table(
        pa.table(
            {"record_id": pa.array(graph.record_id), "patient_id": pa.array(graph.patient_id)}
        ),
        table,
    )
    arrays = {
        name: np.ascontiguousarray(getattr(graph, name))
        for name in ("nearest", "distances", "farthest", "far_distances")
    }
    contents = {ARRAYS: save(arrays), RECORDS: table.getvalue()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    about = {"version": VERSION, **graph.about, "sha256": hashes}
    contents[ABOUT] = json.dumps(about, indent=1).encode()
    for name, content in contents.items():
        write_at_once(folder / name, content)
    return about


def read_about(folder: str | Path) -> dict[str, Any]:
    """What neighbours.json says.

    Raises:
        DataError: There is none, or it is of another version.
    """
    path = Path(folder) / ABOUT
    if not path.is_file():
        raise DataError(
            f"error[neighbours] {folder} holds no neighbour graph: there is no {ABOUT} in it; make "
            f"one by `ecgfast neighbours STORE --out {folder}`, which also finishes one that was "
            "stopped"
        )
    try:
        if path.stat().st_size > MOST_ABOUT:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        about = json.loads(path.read_bytes())
        if about["version"] != VERSION:
            raise ValueError(f"version {about['version']!r}, this ecgfast reads {VERSION}")
        if set(about["sha256"]) != {ARRAYS, RECORDS}:
            raise ValueError("sha256 must be of both files")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"error[neighbours] {path}: {error}") from None
    found: dict[str, Any] = about
    return found


def read_neighbours(folder: str | Path) -> Neighbours:
    """Reads a graph, of which nothing is believed before it is checked.

    Raises:
        DataError: There is none, or something in it is not what it must be.
    """
    folder, about = Path(folder), read_about(folder)
    try:
        contents = {
            name: _checked(folder / name, about["sha256"][name]) for name in (ARRAYS, RECORDS)
        }
        arrays = load(contents[ARRAYS])
        table = pq.read_table(io.BytesIO(contents[RECORDS]))
        ids = {n: table[n].to_numpy(zero_copy_only=False).astype(str) for n in table.column_names}
        graph = Neighbours(**arrays, **ids, about=about)
        _check(graph)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, pa.ArrowException) as error:
        raise DataError(f"error[neighbours] {folder}: {str(error)[:200]}") from None
    return graph


def write_at_once(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _checked(path: Path, expected: str) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES} bytes")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path.name} has SHA-256 {found[:12]}..., {ABOUT} says {str(expected)[:12]}...: the "
            "file was changed or damaged; make the graph again"
        )
    return content


def _check(graph: Neighbours) -> None:
    n = len(graph.record_id)
    if graph.patient_id.shape != (n,):
        raise ValueError(f"patient_id must be ({n},)")
    for rows, values in ((graph.nearest, graph.distances), (graph.farthest, graph.far_distances)):
        if rows.ndim != 2 or len(rows) != n or rows.dtype != np.int64:
            raise ValueError(f"neighbours must be ({n}, K) int64, got {rows.shape} {rows.dtype}")
        if values.shape != rows.shape or values.dtype != np.float32:
            raise ValueError(f"distances must be {rows.shape} float32, got {values.shape}")
        if rows.size and not (rows.min() >= -1 and rows.max() < n):
            raise ValueError(f"neighbours must lie in [-1, {n})")
        if np.isnan(values).any():
            raise ValueError("a distance is NaN")
