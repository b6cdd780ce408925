"""Wiring of texts: what is written of the records of stores, and its embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as to_bytes

from ecgfast.data.page_store import open_store
from ecgfast.data.records import DataError
from ecgfast.data.reports import Written, of_codes, of_reports, read_statements
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
MOST_PROMPTS = 64 << 20  # bytes


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
        made = encoder(new)
    except TextError as error:
        raise RunError(str(error), code=3) from error
    wrong = ~made.isfinite().all(dim=1)
    if wrong.any():
        raise RunError(
            f"error[text] {encoder.name} gives {int(wrong.sum())} of {len(new)} texts embeddings "
            f"that are not finite (first: {new[int(wrong.int().argmax())][:80]!r})",
            code=1,
        )
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
