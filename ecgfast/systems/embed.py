"""Embeddings of many records on the disk, row by row, in memory that does not grow with them.

embeddings.safetensors  `embeddings` (N, D) float32
records.parquet         a row a record, in the same order: ids, split, labels
embed.json              what made them; written last: where it is, the rest is
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ecgfast.data.convert import Plan
from ecgfast.data.source import Source, open_source
from ecgfast.data.store_format import CLIP_COLUMNS, COLUMNS, NAN, PAGE_COLUMNS
from ecgfast.data.tables import read_table, write_table
from ecgfast.systems.files import Found, batches, file_of, plan_for, tensors
from ecgfast.systems.model import Model
from ecgfast.systems.parts import check_source, describe
from ecgfast.systems.windows import WindowPlan, windowed
from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.contract import ContractError

EMBEDDINGS, RECORDS, ABOUT = "embeddings.safetensors", "records.parquet", "embed.json"
SCHEMA = "ecgfast.embed/1"
EVERY = ("all", "test")  # all is what is in no test part
KEPT = ("record_id", "patient_id", "study_id", "view", "split", "flags", "source_sha256")
HEADER = 256  # bytes kept free for what safetensors says of the numbers behind it
MOST_ABOUT = 2**20
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def embed_stores(
    model: Model,
    stores: Sequence[str],
    out: str | Path,
    *,
    splits: Sequence[str] = EVERY,
    patients: int = 400,
    batch_size: int = 64,
    workers: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Embeds the records of stores into a folder.

    Args:
        model: Whose embeddings.
        stores: Folders; none is the SYNTHETIC cohort.
        out: The folder.
        splits: Parts of the stores; the default is every record, those of a test part too.
        patients: Of the SYNTHETIC cohort.
        batch_size: Records at a time.
        workers: Processes that load.
        command: To write down.
        progress: Wraps the batches: called with them and their number.

    Returns:
        What ``embed.json`` says.

    Raises:
        ContractError: A store does not hold what the model expects.
        DataError: There are no such records.
    """
    contract = model.contract
    source = open_source(
        stores, splits, signal=model.signal, patients=patients, clips=contract.clips
    )
    check_source(
        source, model.signal, model=contract.model, pages=contract.pages, clips=contract.clips
    )
    source = windowed(source, contract)
    out = _begin(out)
    loader = DataLoader(source.dataset, batch_size=batch_size, num_workers=workers)
    wrapped: Iterable[Any] = progress(loader, len(loader)) if progress else loader
    state = _State(len(source))

    def write(file: IO[bytes]) -> None:
        _skip_header(file)
        for batch in wrapped:
            ecg, gain = batch["ecg"], batch.get("gain")
            file.write(state.rows(model, ecg.numpy(), None if gain is None else gain.numpy()))
        _write_header(file, state.done, model.contract.embedding_dim)

    write_at_once(out / EMBEDDINGS, write)
    columns = {**_columns(source), "missing": state.missing, "flat": state.flat}
    about = {"stores": list(stores), "splits": list(splits), "synthetic": source.synthetic}
    about |= {"patients": None if stores else patients}
    return _finish(model, out, columns, state, about | {"command": command, "not_read": {}})


def embed_files(
    model: Model,
    found: Found,
    out: str | Path,
    plan: Plan | WindowPlan,
    *,
    batch_size: int = 64,
    workers: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Embeds files into a folder; those that cannot be read are counted by their issue.

    Args:
        model: Whose embeddings.
        found: The files.
        out: The folder.
        plan: How they are read, and what is done to them on the way.
        batch_size: Records at a time.
        workers: Processes that read.
        command: To write down.
        progress: As for ``embed_stores``.

    Returns:
        What ``embed.json`` says; ``failures`` of it lists the first that were not read.

    Raises:
        ContractError: The model expects what files cannot be.
    """
    if isinstance(plan, Plan):
        plan = plan_for(model.signal, plan)
    out = _begin(out)
    state = _State(len(found.items))
    columns: dict[str, list[str]] = {name: [] for name in ("record_id", "patient_id", "split")}
    columns |= {name: [] for name in ("study_id", "flags", "source_sha256", "file")}
    failures = [(path, issue) for path, issue in found.failures]
    size = -(-len(found.items) // batch_size)
    results: Iterable[Any] = batches(found.items, plan, size=batch_size, workers=workers)
    wrapped = progress(results, size) if progress else results

    def write(file: IO[bytes]) -> None:
        _skip_header(file)
        for batch in wrapped:
            good, ecg, gain = tensors(batch)
            failures.extend(
                (file_of(ready.item), ready.issues[0]) for ready in batch if ready.steps is None
            )
            if not good:
                continue
            steps = None if gain is None else gain.numpy()
            file.write(state.rows(model, ecg.numpy(), steps))
            for ready in (batch[place] for place in good):
                columns["record_id"].append(ready.item.record_id)
                told = {**ready.row, **ready.labels}
                columns["patient_id"].append(str(told.get("patient_id", "")))
                columns["study_id"].append(str(told.get("study_id", "")))
                columns["split"].append("")
                columns["flags"].append(",".join(dict.fromkeys(i.name for i in ready.issues)))
                columns["source_sha256"].append(str(ready.row["source_sha256"]))
                columns["file"].append(file_of(ready.item))
        _write_header(file, state.done, model.contract.embedding_dim)

    write_at_once(out / EMBEDDINGS, write)
    known = {**columns, "missing": state.missing[: state.done], "flat": state.flat[: state.done]}
    about = {
        "stores": [],
        "splits": [],
        "synthetic": False,
        "command": command,
        "not_read": dict(Counter(issue.name for _, issue in failures)),
        "failures": [{"file": path, "message": issue.line()} for path, issue in failures[:100]],
    }
    return _finish(model, out, known, state, about)


@dataclass(frozen=True)
class Embedded:
    """A folder of embeddings, read in place.

    Attributes:
        rows: ``(N, D)`` float32, mapped from the disk.
        table: Columns of ``records.parquet``.
        about: What ``embed.json`` says.
    """

    rows: NDArray[np.float32]
    table: dict[str, NDArray[Any]]
    about: dict[str, Any]


def open_embeddings(folder: str | Path, model: Model) -> Embedded:
    """Opens what was embedded by these very weights.

    Raises:
        ContractError: The folder is not what it must be, or is of other weights.
    """
    folder = Path(folder)
    try:
        path = folder / ABOUT
        if not path.is_file():
            raise ValueError(f"there is no {ABOUT} in it; make one with `ecgfast embed`")
        if path.stat().st_size > MOST_ABOUT:
            raise ValueError(f"{ABOUT} has more than {MOST_ABOUT} bytes")
        about = json.loads(path.read_bytes())
        if about["schema"] != SCHEMA:
            raise ValueError(f"schema {about['schema']!r}, this ecgfast reads {SCHEMA}")
        rows = _map(folder / EMBEDDINGS, int(about["records"]), int(about["embedding_dim"]))
        weights, stores = about["weights"], [str(path) for path in about["stores"]]
        table = read_table(folder / RECORDS)
        if len(table["record_id"]) != len(rows):
            raise ValueError(f"{RECORDS} has {len(table['record_id'])} rows, not {len(rows)}")
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ContractError(f"error[embeddings] {folder}: {what}") from error
    if weights != model.weights:
        raise ContractError(
            f"error[embeddings] {folder} is of other weights than {model.folder} has "
            f"(by {about.get('run')}): ecgfast embed {model.folder} --store ... --out FOLDER"
        )
    return Embedded(rows, table, {**about, "stores": stores})


class _State:
    """What is counted on the way, in arrays that are as long as they will ever be."""

    def __init__(self, most: int) -> None:
        self.done = 0
        self.missing = np.zeros(most, np.float32)
        self.flat = np.zeros(most, bool)
        self.not_finite = 0

    def rows(self, model: Model, ecg: NDArray[Any], gain: NDArray[np.float32] | None) -> bytes:
        """Embeddings of a batch, as they are written; a record of gaps alone is a row of NaN."""
        embeddings: NDArray[np.float32] = model.embed(ecg, gain).cpu().numpy()
        ecg = ecg.reshape(*ecg.shape[:2], -1)  # of a page: colours and pixels
        gap = (ecg == NAN) if gain is not None else ~np.isfinite(ecg)
        low, high = (-32768, 32767) if gain is not None else (-np.inf, np.inf)
        top, bottom = np.where(gap, low, ecg).max(axis=2), np.where(gap, high, ecg).min(axis=2)
        here = slice(self.done, self.done + len(ecg))
        self.missing[here] = gap.mean(axis=(1, 2))
        self.flat[here] = (top <= bottom).all(axis=1)
        empty = gap.all(axis=(1, 2)) | ~np.isfinite(embeddings).all(axis=1)
        self.not_finite += int(empty.sum())
        embeddings[empty] = np.nan
        self.done += len(ecg)
        return embeddings.astype("<f4").tobytes()


def _begin(out: str | Path) -> Path:
    """A folder whose old contents, if any, no longer claim to be whole."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    return folder


def _columns(source: Source) -> dict[str, NDArray[Any]]:
    """Ids and labels of a manifest, without where samples lie."""
    about = {*COLUMNS, *PAGE_COLUMNS, *CLIP_COLUMNS}
    names = [n for n in source.table.columns if n in KEPT or n not in about]
    return {str(name): source.column(name) for name in names}


def _finish(
    model: Model, out: Path, columns: dict[str, Any], state: _State, about: dict[str, Any]
) -> dict[str, Any]:
    write_table(out / RECORDS, columns)
    content = {
        "schema": SCHEMA,
        "run": str(model.folder),
        "weights": model.weights,
        "expects": describe(model.contract),
        "records": state.done,
        "embedding_dim": model.contract.embedding_dim,
        "with_gaps": int((state.missing[: state.done] > 0).sum()),
        "flat": int(state.flat[: state.done].sum()),
        "not_finite": state.not_finite,
        **about,
    }
    content["synthetic"] = bool(about["synthetic"] or model.contract.synthetic)
    write_at_once(out / ABOUT, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return content


def _skip_header(file: IO[bytes]) -> None:
    file.write(b" " * (8 + HEADER))


def _write_header(file: IO[bytes], records: int, dim: int) -> None:
    """Of the format's 8 bytes of length, JSON, blanks, and then the numbers."""
    entry = {"dtype": "F32", "shape": [records, dim], "data_offsets": [0, records * dim * 4]}
    text = json.dumps({"embeddings": entry}, separators=(",", ":")).encode()
    assert len(text) <= HEADER
    file.seek(0)
    file.write(HEADER.to_bytes(8, "little") + text.ljust(HEADER))


def _map(path: Path, records: int, dim: int) -> NDArray[np.float32]:
    """The numbers of a file that `_write_header` began, not read yet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, 2**20):
            raise ValueError(f"{path.name} is no safetensors file")
        entry = json.loads(file.read(length))["embeddings"]
    if entry["dtype"] != "F32" or entry["shape"] != [records, dim]:
        raise ValueError(f"{path.name} holds {entry['shape']} {entry['dtype']}, not {records, dim}")
    if entry["data_offsets"] != [0, size - 8 - length] or size - 8 - length != records * dim * 4:
        raise ValueError(f"{path.name} has {size} bytes; it was cut off or changed")
    if not records:
        return np.zeros((0, dim), np.float32)
    return np.memmap(path, "<f4", mode="r", offset=8 + length, shape=(records, dim))
