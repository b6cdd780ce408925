"""What is written about an ECG: SCP statements in words, and free reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ecgfast.data.labels import parse_scp
from ecgfast.data.records import DataError

Phrases = tuple[tuple[str, float], ...]  # texts and their weights, which add up to 1
MOST_LETTERS = 20_000  # of a report
MOST_PROMPTS = 64 << 20  # bytes of prompts, or of statements
STATEMENT = ("Statement Category", "SCP-ECG Statement Description")


class Written(NamedTuple):
    """Texts of records.

    Attributes:
        phrases: Of each record; empty where nothing is written of it.
        unknown: Codes that no statement explains, and how many records have them.
    """

    phrases: list[Phrases]
    unknown: dict[str, int]

    @property
    def texts(self) -> list[str]:
        """Each text once, sorted."""
        return sorted({text for phrases in self.phrases for text, _ in phrases})


def read_statements(path: str | Path) -> dict[str, str]:
    """SCP codes in words: ``category : description`` by code, as in PTB-XL's scp_statements.csv.

    Args:
        path: A csv whose first column holds the codes.

    Raises:
        DataError: The file is absent or has not these columns.
    """
    table = _statements(path)
    category, description = (table[name].str.strip() for name in STATEMENT)
    words = (category + " : " + description).tolist()
    return dict(zip(table.iloc[:, 0].tolist(), words, strict=True))


def _statements(path: str | Path) -> pd.DataFrame:
    try:
        table = _read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"error[statements] {path} cannot be read: {error}") from error
    if absent := [name for name in STATEMENT if name not in table]:
        raise DataError(
            f"error[statements] {path} has no column {', '.join(absent)}: give PTB-XL's "
            "scp_statements.csv, or a table with its columns"
        )
    return table


def _read_csv(path: str | Path) -> pd.DataFrame:
    """As text; nothing is fetched or unpacked, so that a small file stays small."""
    size = Path(path).stat().st_size
    if size > MOST_PROMPTS:
        raise ValueError(f"it has {size} bytes, {MOST_PROMPTS} are allowed")
    return pd.read_csv(Path(path), dtype=str, keep_default_na=False, compression=None)


def read_superclasses(path: str | Path) -> dict[str, str]:
    """Diagnostic superclasses by code, as in scp_statements.csv; empty where it names none.

    Raises:
        DataError: As :func:`read_statements`.
    """
    table = _statements(path)
    if "diagnostic_class" not in table:
        return {}
    pairs = zip(table.iloc[:, 0].tolist(), table["diagnostic_class"].tolist(), strict=True)
    return {code: name for code, name in pairs if name}


def read_prompts(path: str | Path) -> dict[str, list[str]]:
    """Texts that stand for classes, by class: a csv with columns ``class`` and ``prompt``.

    Raises:
        DataError: The file is absent or too large, lacks a column, or a cell is empty.
    """
    path = Path(path)
    try:
        table = _read_csv(path)
        if absent := {"class", "prompt"} - set(table):
            raise ValueError(f"it has no column {', '.join(sorted(absent))}")
        cells = [[" ".join(text.split()) for text in table[n]] for n in ("class", "prompt")]
        empty = [i + 2 for i, pair in enumerate(zip(*cells, strict=True)) if not all(pair)]
        if empty or not len(table):
            raise ValueError(f"line {empty[0]} lacks a cell" if empty else "it has no line")
    except (OSError, ValueError) as error:
        raise DataError(
            f"error[prompts] {path}: {error}; a csv with columns class and prompt is needed, "
            "several lines for a class of several texts"
        ) from error
    found: dict[str, list[str]] = {}
    for name, text in zip(*cells, strict=True):
        found.setdefault(name, []).append(text)
    return found


def of_codes(
    codes: Sequence[Any], statements: Mapping[str, str], *, unlikely: float = 0.0
) -> Written:
    """Each record's statements in words, weighted by their likelihoods.

    PTB-XL writes likelihood 0 for what its annotators gave none: all rhythms, among them atrial
    fibrillation. As published such codes are dropped (``unlikely`` 0).

    Args:
        codes: Of each record a literal such as ``{'NORM': 100.0, 'SR': 0.0}``, or nothing.
        statements: From ``read_statements``.
        unlikely: What a likelihood of 0 counts as, in percent.

    Raises:
        DataError: A cell is no such literal, or a likelihood is negative or not finite.
    """
    unknown: dict[str, int] = {}
    phrases: list[Phrases] = []
    for cell in codes:
        found = parse_scp(cell) if isinstance(cell, str) and cell.strip() else {}
        weights: dict[str, float] = {}
        for code, likelihood in found.items():
            if not np.isfinite(likelihood) or likelihood < 0:
                raise DataError(
                    f"error[statements] {code} has likelihood {likelihood:g}; 0 to 100 are known"
                )
            if code not in statements:
                unknown[code] = unknown.get(code, 0) + 1
            elif weight := likelihood or unlikely:
                text = statements[code]
                weights[text] = weights.get(text, 0.0) + weight
        total = sum(weights.values())
        phrases.append(tuple((text, weight / total) for text, weight in weights.items()))
    return Written(phrases, unknown)


def of_reports(reports: Sequence[Any]) -> Written:
    """Each record's report as one text; spaces are made single.

    Raises:
        DataError: A report is longer than any that a person writes.
    """
    phrases: list[Phrases] = []
    for row, cell in enumerate(reports):
        text = " ".join(cell.split()) if isinstance(cell, str) else ""
        if len(text) > MOST_LETTERS:
            raise DataError(
                f"error[report] row {row} has a report of {len(text)} letters, {MOST_LETTERS} are "
                "allowed: is the column one of reports?"
            )
        phrases.append(((text, 1.0),) if text else ())
    return Written(phrases, {})
