"""Biomarkers of the records of stores: a row a record, measured or with the reason why not."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.data.store_format import restore
from ecgfast.train.checkpoint import write_at_once
from ecgfast.transforms.biomarkers import BIOMARKERS, biomarkers

EVERY = ("all", "test")  # all is what is in no test part
IDS = ("record_id", "patient_id", "split")
MOST_BYTES = 2**30  # of a table that is read
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def measure_stores(
    stores: Sequence[str],
    out: str | Path,
    *,
    splits: Sequence[str] = EVERY,
    patients: int = 400,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the biomarkers of the records of stores as one CSV.

    Columns are record_id, patient_id, split, those of `transforms.biomarkers.BIOMARKERS`, and
    reason; what was not measured is empty, and a record without any number says why in ``reason``.

    Args:
        stores: Folders; none is the SYNTHETIC cohort.
        out: The file.
        splits: Parts of the stores; the default is every record, those of a test part too.
        patients: Of the SYNTHETIC cohort.
        batch_size: Records at a time.
        progress: Wraps the batches: called with them and their number.

    Returns:
        ``records``, ``reasons`` (a count of each), ``measured`` (of each biomarker), ``synthetic``.

    Raises:
        DataError: A store holds pages, prepared records, or too short ones; or no records.
    """
    sources = [_open(store, splits, patients) for store in (stores or [""])]
    places = [
        (source, signal, np.arange(begin, min(begin + batch_size, len(source))))
        for source, signal in sources
        for begin in range(0, len(source), batch_size)
    ]
    wrapped: Iterable[Any] = progress(places, len(places)) if progress else places
    reasons: Counter[str] = Counter()
    measured = np.zeros(len(BIOMARKERS), np.int64)

    def write(file: IO[bytes]) -> None:
        rows = _Rows(file)
        rows.write([*IDS, *BIOMARKERS, "reason"])
        for source, signal, here in wrapped:
            try:
                ecg = torch.from_numpy(_millivolts(source, here))
                found = biomarkers(ecg, fs=signal.fs, leads=signal.leads)
            except ValueError as error:
                raise DataError(
                    f"error[biomarkers] {next(iter(source.signals))}: {error}"
                ) from None
            reasons.update(reason for reason in found.reasons if reason)
            measured[:] += np.isfinite(found.values).sum(axis=0)
            ids = [[str(v) for v in source.column(name)[here]] for name in IDS]
            for *who, values, reason in zip(*ids, found.values, found.reasons, strict=True):
                numbers = [f"{v:.6g}" if math.isfinite(v) else "" for v in values]
                rows.write([*who, *numbers, reason])

    write_at_once(Path(out), write)
    return {
        "records": sum(len(source) for source, _ in sources),
        "reasons": dict(reasons),
        "measured": dict(zip(BIOMARKERS, measured.tolist(), strict=True)),
        "synthetic": any(source.synthetic for source, _ in sources),
    }


def read_biomarkers(path: str | Path) -> dict[str, NDArray[Any]]:
    """Columns of what `measure_stores` wrote: ids and reasons as text, numbers with NaN.

    Raises:
        DataError: The file is not there, too large, or has other columns.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"error[no_file] there is no {path}; write it with `ecgfast biomarkers`")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"error[biomarkers] {path} has more than {MOST_BYTES} bytes")
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    wanted = [*IDS, *BIOMARKERS, "reason"]
    wrong = [i for i, row in enumerate(rows) if len(row) != len(wanted)]
    if header != wanted or wrong:
        where = f"row {wrong[0] + 2} has {len(rows[wrong[0]])} cells" if wrong else "its header"
        raise DataError(
            f"error[biomarkers] {path} is no table of `ecgfast biomarkers`: {where}, and "
            f"{len(wanted)} columns from record_id to reason are expected"
        )
    columns = dict(zip(wanted, zip(*rows, strict=True), strict=True)) if rows else {}
    try:
        return {
            name: np.array([float(v or "nan") for v in columns.get(name, ())])
            if name in BIOMARKERS
            else np.array(columns.get(name, ()), dtype=object)
            for name in wanted
        }
    except ValueError as error:
        raise DataError(f"error[biomarkers] {path}: {error}") from None


class _Rows:
    """Lines of a CSV into a file of bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.writer = csv.writer(self, lineterminator="\n")

    def write(self, row: list[str] | str) -> None:
        """A row, which the writer hands back as text."""
        if isinstance(row, str):
            self.file.write(row.encode())
        else:
            self.writer.writerow(row)


def _open(store: str, splits: Sequence[str], patients: int) -> tuple[Source, Signal]:
    paths = [store] if store else []
    source = open_source(paths, splits, signal=Signal(fs=500.0), patients=patients)
    if not source.signals:
        what = "pages" if source.pages else "videos"
        raise DataError(f"error[biomarkers] {store} holds {what}: biomarkers are of signals in mV")
    signal = next(iter(source.signals.values()))
    if signal.stored_recipe:
        raise DataError(
            f"error[biomarkers] the records of {store} have been through recipe "
            f"{signal.stored_recipe}: convert them again without --recipe"
        )
    return source, signal


def _millivolts(source: Source, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    batch = source.dataset.batch(rows.tolist())
    ecg: NDArray[Any] = batch["ecg"].numpy()
    if "gain" not in batch:
        return ecg
    return np.stack([restore(x, float(g)) for x, g in zip(ecg, batch["gain"], strict=True)])
