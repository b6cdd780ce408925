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
    columns = ("Statement Category", "SCP-ECG Statement Description")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"error[statements] {path} cannot be read: {error}") from error
    if absent := [name for name in columns if name not in table]:
        raise DataError(
            f"error[statements] {path} has no column {', '.join(absent)}: give PTB-XL's "
            "scp_statements.csv, or a table with its columns"
        )
    category, description = (table[name].str.strip() for name in columns)
    words = (category + " : " + description).tolist()
    return dict(zip(table.iloc[:, 0].tolist(), words, strict=True))


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
