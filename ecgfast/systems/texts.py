"""Wiring of texts: what is written of the records of stores, and its embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes

from ecgfast.data.records import DataError
from ecgfast.data.reports import MOST_PROMPTS, Written, of_codes, of_reports, read_statements
from ecgfast.data.source import Source
from ecgfast.data.stores import open_store
from ecgfast.data.synthetic_reports import STATEMENTS
from ecgfast.models.text import (
    FileText,
    FolderText,
    HashedText,
    Pooling,
    TextEncoder,
    TextError,
    read_embeddings,
)
from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.errors import RunError

CODES = "scp_codes"


class Embedded(NamedTuple):
    """What a call of ``ecgfast embed-text`` did.

    Attributes:
        texts: In the file now.
        made: Of these, embedded by this call; the others were there.
        records: In the stores.
        silent: Records of which nothing is written.
        unknown: Codes that no statement explains, and in how many records.
        dim: Of the embeddings.
        name: Of what made them.
    """

    texts: int
    made: int
    records: int
    silent: int
    unknown: dict[str, int]
    dim: int
    name: str


def text_encoder(
    model: str, *, pooling: Pooling = "tokens", max_tokens: int = 100, device: str = "cpu"
) -> TextEncoder:
    """What turns texts into vectors: hashed letters, a model's folder, or a file of embeddings.

    Raises:
        RunError: It cannot be used.
    """
    try:
        if not model:
            return HashedText()
        if Path(model).is_file() or model.endswith(".safetensors"):
            return FileText(model)
        return FolderText(model, pooling=pooling, max_tokens=max_tokens, device=device)
    except TextError as error:
        raise RunError(str(error), code=3) from error


def written_of(
    cells: Sequence[Any],
    column: str,
    statements: str,
    *,
    unlikely: float = 0.0,
    synthetic: bool = False,
) -> Written:
    """Texts of a column: codes in words, where the column is that of codes, or reports.

    Args:
        cells: Of the column.
        column: Its name.
        statements: The table that explains codes; SYNTHETIC records bring their own.
        unlikely: What a likelihood of 0 counts as, in percent.
        synthetic: The records are SYNTHETIC.

    Raises:
        RunError: Codes need a table of statements.
        DataError: A cell is not what it must be.
    """
    if column != CODES:
        return of_reports(cells)
    if not statements and not synthetic:
        raise RunError(
            f"error[statements] column {CODES} holds codes: name the table that explains them, "
            "PTB-XL's scp_statements.csv, with --statements",
            code=2,
        )
    words = read_statements(statements) if statements else STATEMENTS
    return of_codes(cells, words, unlikely=unlikely)


def embed_texts(
    stores: Sequence[str],
    out: str | Path,
    encoder: TextEncoder,
    *,
    column: str,
    statements: str = "",
    unlikely: float = 0.0,
    prompts: str = "",
) -> Embedded:
    """Writes the embeddings of all texts of stores; those that are in the file stay.

    Args:
        stores: Folders of records.
        out: A .safetensors file: ``embeddings`` ``(N, D)``, the texts and the encoder's name in its
            header.
        encoder: Turns texts into vectors.
        column: Of reports, or of SCP codes.
        statements: The table that explains codes; SYNTHETIC records bring their own.
        unlikely: What a likelihood of 0 counts as, in percent.
        prompts: A file of more texts, one a line.

    Raises:
        DataError: A store lacks the column, or there is no text at all.
        RunError: The file is of another encoder.
    """
    cells: list[Any] = []
    synthetic = True
    for path in stores:
        store = open_store(path)
        manifest, synthetic = store.manifest, synthetic and store.synthetic
        if column not in manifest:
            raise DataError(
                f"error[text] {path} has no column {column}; it has "
                f"{', '.join(map(str, manifest.columns[:30]))}"
            )
        cells += manifest[column].tolist()
    written = written_of(cells, column, statements, unlikely=unlikely, synthetic=synthetic)
    texts = sorted({*written.texts, *_prompts(prompts)})
    if not texts:
        raise DataError(f"error[text] none of {len(cells)} records has a text in column {column}")
    try:
        before, vectors = _known(Path(out), encoder)
        new = [text for text in texts if text not in before]
    except TextError as error:
        raise RunError(str(error), code=3) from error
    made = embedded(encoder, new)
    every = [*before, *new]
    about = {"format": "pt", "name": encoder.name, "texts": json.dumps(every, ensure_ascii=False)}
    write_at_once(Path(out), to_bytes({"embeddings": torch.cat([vectors, made])}, metadata=about))
    return Embedded(
        texts=len(every),
        made=len(new),
        records=len(cells),
        silent=sum(not phrases for phrases in written.phrases),
        unknown=written.unknown,
        dim=encoder.dim,
        name=encoder.name,
    )


def embedded(encoder: TextEncoder, texts: Sequence[str]) -> torch.Tensor:
    """Embeddings ``(N, D)`` of N texts.

    Raises:
        RunError: The encoder does not know a text, or gives numbers that are not finite.
    """
    try:
        made = encoder(texts)
    except TextError as error:
        raise RunError(str(error), code=3) from error
    wrong = ~made.isfinite().all(dim=1)
    if wrong.any():
        raise RunError(
            f"error[text] {encoder.name} gives {int(wrong.sum())} of {len(texts)} texts embeddings "
            f"that are not finite (first: {texts[int(wrong.int().argmax())][:80]!r})",
            code=1,
        )
    return made


class OfRecords(NamedTuple):
    """What is written of each record, as vectors.

    Attributes:
        vectors: ``(M, D)`` float32, of each writing once: phrases and their weights.
        ids: ``(M,)`` int64, equal for writings of the same phrases.
        row: ``(N,)`` int64, the writing of each record; -1 where nothing is written.
        unknown: Codes that no statement explains, and in how many records.
    """

    vectors: torch.Tensor
    ids: NDArray[np.int64]
    row: NDArray[np.int64]
    unknown: dict[str, int]


def of_records(encoder: TextEncoder, written: Written) -> OfRecords:
    """The mean of each record's phrases, by their weights; each text is embedded once.

    Raises:
        RunError: As :func:`embedded`.
    """
    texts = written.texts
    place = {text: i for i, text in enumerate(texts)}
    vectors = embedded(encoder, texts).double()
    kinds = [tuple(sorted(phrases)) for phrases in written.phrases]
    distinct = {kind: i for i, kind in enumerate(dict.fromkeys(filter(None, kinds)))}
    sets = dict[frozenset[str], int]()
    means = torch.zeros(len(distinct), encoder.dim)
    ids = np.zeros(len(distinct), np.int64)
    for kind, i in distinct.items():
        rows, weights = zip(*((place[text], weight) for text, weight in kind), strict=True)
        means[i] = torch.tensor(weights, dtype=torch.float64) @ vectors[list(rows)]
        ids[i] = sets.setdefault(frozenset(text for text, _ in kind), len(sets))
    row = np.array([distinct.get(kind, -1) for kind in kinds], dtype=np.int64)
    return OfRecords(means, ids, row, written.unknown)


def texts_of(
    source: Source, column: str, statements: str, *, unlikely: float, whose: str = "text."
) -> Written:
    """What is written of a source's records.

    Args:
        source: The records.
        column: Of reports, or of SCP codes.
        statements: The table that explains codes; SYNTHETIC records bring their own.
        unlikely: What a likelihood of 0 counts as, in percent.
        whose: Before the options' names, in messages.

    Raises:
        DataError: There is no such column, or nothing is written of any record.
        RunError: Codes need a table of statements.
    """
    if column not in source.table:
        raise DataError(
            f"error[text] the records have no column {column}; they have "
            f"{', '.join(map(str, source.table.columns[:30]))}: name one with --{whose}column"
        )
    try:
        written = written_of(
            source.table[column].tolist(),
            column,
            statements,
            unlikely=unlikely,
            synthetic=source.synthetic,
        )
    except RunError as error:
        raise RunError(str(error).replace("--statements", f"--{whose}statements"), code=2) from None
    if not any(written.phrases):
        raise DataError(
            f"error[text] nothing is written of any of {len(source)} records in column {column}"
            + (f"; {len(written.unknown)} codes are in no statement" if written.unknown else "")
            + f": name another with --{whose}column"
        )
    return written


def _known(out: Path, encoder: TextEncoder) -> tuple[list[str], torch.Tensor]:
    """Texts of the file and their embeddings, if there is one of this encoder."""
    if not out.exists():
        return [], torch.zeros(0, encoder.dim)
    texts, vectors, name = read_embeddings(out)
    if name != encoder.name:
        raise TextError(
            f"error[text] {out} is of another encoder ({name}) than was asked for "
            f"({encoder.name}): name another --out"
        )
    return texts, vectors


def _prompts(path: str) -> list[str]:
    if not path:
        return []
    size = Path(path).stat().st_size
    if size > MOST_PROMPTS:
        raise DataError(f"error[text] {path} has {size} bytes, {MOST_PROMPTS} are allowed")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"error[text] {path} is no text in UTF-8: {error}") from error
    return [" ".join(line.split()) for line in lines if line.strip()]
