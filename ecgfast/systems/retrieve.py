"""The records whose embeddings lie nearest to that of an ECG: exact, block by block."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ecgfast.data.convert import Plan
from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.data.store_format import restore
from ecgfast.systems.clips import clip_of
from ecgfast.systems.embed import EVERY, Embedded
from ecgfast.systems.files import batches, find_files, plan_for, tensors
from ecgfast.systems.model import Model
from ecgfast.systems.parts import check_source
from ecgfast.train.contract import ContractError

Metric = Literal["cosine", "euclidean"]
BLOCK = 16_384  # rows at a time
EMBED_FIRST = (
    "the run's encoder sees clips of echocardiograms, and retrieve reads signals: embed the videos "
    "(ecgfast embed RUN --store STORE --out FOLDER), then search these: --embeddings FOLDER "
    "--record ID"
)


@dataclass(frozen=True)
class Query:
    """What neighbours are sought of.

    Attributes:
        name: Of the file or the record.
        embedding: ``(D,)``.
        ecg: ``(L, T)`` mV as the model's contract has it, before it is prepared.
        record_id: Of a record among those that are searched; empty for a file.
        patient_id: Empty where nobody knows.
        source_sha256: Of the file's bytes.
    """

    name: str
    embedding: NDArray[np.float64]
    ecg: NDArray[np.float32]
    record_id: str = ""
    patient_id: str = ""
    source_sha256: str = ""


@dataclass(frozen=True)
class Nearest:
    """What was found.

    Attributes:
        rows: Places in the searched table, nearest first.
        distances: Of these, float64.
        searched: Records that were candidates.
        own: Records left out as they are the query itself.
        same_patient: Others left out as they are of the query's patient.
        not_finite: Records left out as they have no embedding.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    searched: int
    own: int
    same_patient: int
    not_finite: int


def distances(
    query: NDArray[np.float64], rows: NDArray[Any], metric: Metric
) -> NDArray[np.float64]:
    """From one embedding ``(D,)`` to many ``(N, D)``, in float64.

    Euclidean takes differences before sums; a row of zeros is at cosine distance 1 from all.
    """
    rows = rows.astype(np.float64)
    if metric == "euclidean":
        return np.sqrt(np.square(rows - query).sum(axis=1))
    norms = np.sqrt(np.square(rows).sum(axis=1)) * np.sqrt(np.square(query).sum())
    similarity = np.divide(rows @ query, norms, out=np.zeros(len(rows)), where=norms != 0)
    return 1.0 - similarity


def nearest(
    query: Query,
    blocks: Iterable[NDArray[Any]],
    table: dict[str, NDArray[Any]],
    *,
    k: int,
    metric: Metric,
    same_patient: bool = False,
) -> Nearest:
    """The k nearest rows; equal distances in the order of the rows.

    Args:
        query: Its own record is never among them.
        blocks: Embeddings ``(n, D)``, one block after the other; only one is held.
        table: ``record_id``, ``patient_id`` and, if known, ``source_sha256`` of all rows.
        k: How many.
        metric: Distance.
        same_patient: Also records of the query's own patient.
    """
    own, patient = _own(query, table)
    left_out = own | (patient if not same_patient else np.zeros_like(own))
    best = np.zeros(0, np.int64)
    far = np.zeros(0)
    done = broken = 0
    for block in blocks:
        apart = distances(query.embedding, block, metric)
        outside = left_out[done : done + len(block)]
        finite = np.isfinite(apart)
        broken += int((~finite & ~outside).sum())
        here = np.flatnonzero(finite & ~outside)
        best = np.concatenate([best, here + done])
        far = np.concatenate([far, apart[here]])
        order = np.argsort(far, kind="stable")[:k]
        best, far = best[order], far[order]
        done += len(block)
    skipped = int((patient & ~own).sum()) if not same_patient else 0
    searched = int((~left_out).sum()) - broken
    return Nearest(best, far, searched, int(own.sum()), skipped, broken)


def blocks_of(embedded: Embedded) -> Iterator[NDArray[np.float32]]:
    """The rows of a folder, some at a time."""
    for at in range(0, len(embedded.rows), BLOCK):
        yield np.asarray(embedded.rows[at : at + BLOCK])


def blocks_of_source(
    model: Model, source: Source, *, batch_size: int = 64, workers: int = 0
) -> Iterator[NDArray[np.float32]]:
    """The embeddings of a source, made on the way."""
    for batch in DataLoader(source.dataset, batch_size=batch_size, num_workers=workers):
        yield model.embed(batch["ecg"], batch.get("gain")).cpu().numpy()


def open_searched(
    model: Model, stores: Sequence[str], *, splits: Sequence[str] = EVERY, patients: int = 400
) -> Source:
    """The records that are searched.

    Raises:
        ContractError: A store does not hold what the model expects.
        DataError: There are none.
    """
    if clip_of(model.contract.model) is not None:
        raise ContractError(f"error[contract] {EMBED_FIRST}")
    source = open_source(stores, splits, signal=model.signal, patients=patients)
    check_source(source, model.signal, model=model.contract.model if source.clips else None)
    return source


def query_of_file(model: Model, path: str, plan: Plan) -> Query:
    """One file as a query.

    Raises:
        ContractError: The run takes videos.
        DataError: It cannot be read, or holds several records.
    """
    if clip_of(model.contract.model) is not None:
        raise ContractError(f"error[contract] {EMBED_FIRST}")
    plan = plan_for(model.signal, plan)
    found = find_files([path], plan.reading)
    if found.failures:
        raise DataError(found.failures[0][1].line())
    if len(found.items) != 1:
        raise DataError(
            f"error[one_record] {path} holds {len(found.items)} records; name one of them"
        )
    batch = next(iter(batches(found.items, plan)))
    good, ecg, gain = tensors(batch)
    ready = batch[0]
    if not good or ready.steps is None:
        raise DataError(ready.issues[0].line(ready.item.record_id))
    return Query(
        name=path,
        embedding=model.embed(ecg, gain)[0].cpu().numpy().astype(np.float64),
        ecg=restore(ready.steps, ready.gain),
        patient_id=ready.labels.get("patient_id", ""),
        source_sha256=str(ready.row["source_sha256"]),
    )


def query_of_record(
    record: str,
    table: dict[str, NDArray[Any]],
    embed: Callable[[int], NDArray[Any]],
    ecg: Callable[[int], NDArray[np.float32]],
) -> Query:
    """A searched record as a query.

    Args:
        record: Its name.
        table: Columns of what is searched.
        embed: From its place to its embedding.
        ecg: From its place to mV.

    Raises:
        DataError: There is none of that name, several, or it has no embedding.
    """
    names = table["record_id"].astype(str)
    found = np.flatnonzero(names == record)
    if not len(found):
        raise DataError(
            f"error[no_record] no record is called {record!r}{near(record, names)}; there are "
            f"{len(names)}, the first is {names[0] if len(names) else 'none'}"
        )
    if len(found) > 1:
        raise DataError(
            f"error[several_records] {len(found)} records are called {record!r}: name one --store"
        )
    row = int(found[0])
    embedding = np.asarray(embed(row), np.float64)
    if not np.isfinite(embedding).all():
        raise DataError(f"error[no_embedding] record {record!r} has none: it is all gaps")
    patient = _text(table["patient_id"][row])
    return Query(record, embedding, ecg(row), record, patient)


def embed_row(model: Model, source: Source, row: int) -> NDArray[np.float32]:
    """The embedding of one record of a source."""
    item = source.dataset[row]
    gain = item.get("gain")
    return model.embed(item["ecg"][None], None if gain is None else gain[None])[0].cpu().numpy()


def near(record: str, names: NDArray[Any]) -> str:
    """A name that is like one that is not there."""
    like = difflib.get_close_matches(record, names[:100_000].tolist(), n=1)
    return f"; did you mean {like[0]}?" if like else ""


def table_of(source: Source) -> dict[str, NDArray[Any]]:
    """Columns of what is searched."""
    return {str(name): source.column(name) for name in source.table.columns}


def _own(
    query: Query, table: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are the query itself, and which are of its patient."""
    records = table["record_id"].astype(str)
    patients = np.array([_text(name) for name in table["patient_id"]])
    own = np.zeros(len(records), bool)
    if query.record_id:
        own |= records == query.record_id
    if query.source_sha256 and "source_sha256" in table:
        own |= table["source_sha256"].astype(str) == query.source_sha256
    whose = {query.patient_id, *patients[own].tolist()} - {""}
    return own, np.isin(patients, sorted(whose)) if whose else np.zeros(len(records), bool)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
