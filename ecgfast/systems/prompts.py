"""Classes by prompts: their texts, and which records have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.labels import SUPERCLASSES, parse_scp
from ecgfast.data.records import DataError
from ecgfast.data.reports import read_prompts, read_statements, read_superclasses
from ecgfast.data.source import Source
from ecgfast.data.synthetic_reports import STATEMENTS
from ecgfast.data.synthetic_reports import SUPERCLASSES as SYNTHETIC_SUPERCLASSES
from ecgfast.train.errors import RunError


class Group(NamedTuple):
    """Classes that have a mean of their own: texts of each, and who has it, ``(N,)`` 0, 1, NaN."""

    name: str
    prompts: dict[str, list[str]]
    truth: dict[str, NDArray[np.float64]]


def groups_of(source: Source, *, prompts: str, column: str, statements: str) -> list[Group]:
    """Classes, their texts, and who has them.

    Args:
        source: The records.
        prompts: A file of classes and their texts; empty takes all statements of the column, and
            the diagnostic superclasses, whose texts are those of their statements.
        column: Of SCP codes.
        statements: The table that explains codes; SYNTHETIC records bring their own.

    Raises:
        DataError: A class of the prompts is no column and no code, or the column of codes is none.
        RunError: Codes need a table of statements.
    """
    codes = _codes(source, column)
    above = _superclasses(source, statements)
    if prompts:
        texts = read_prompts(prompts)
        truth = {name: _truth(name, source, codes, above) for name in texts}
        return [Group("prompts", texts, truth)]
    if codes is None:
        raise DataError(
            f"error[text] the records have no column {column} of SCP codes; they have "
            f"{', '.join(map(str, source.table.columns[:30]))}: name it with --column, or classes "
            "and their texts with --prompts"
        )
    if not statements and not source.synthetic:
        raise RunError(
            f"error[statements] column {column} holds codes: name the table that explains "
            "them, PTB-XL's scp_statements.csv, with --statements, or give --prompts",
            code=2,
        )
    words = read_statements(statements) if statements else STATEMENTS
    held = sorted({code for found in codes if found for code in found} & words.keys())
    if not held:
        raise DataError(f"error[statements] no code of column {column} is in the statements")
    groups = [
        Group("statements", {c: [words[c]] for c in held}, {c: _has({c}, codes) for c in held})
    ]
    members = {name: [c for c in held if above.get(c) == name] for name in SUPERCLASSES}
    members = {name: some for name, some in members.items() if some}
    if members:
        texts = {name: [words[c] for c in some] for name, some in members.items()}
        groups.append(Group("superclasses", texts, {n: _has(s, codes) for n, s in members.items()}))
    return groups


def _codes(source: Source, column: str) -> list[dict[str, float] | None] | None:
    """Codes of each record, None where nobody wrote any; None where there is no such column."""
    if column not in source.table:
        return None
    cells = source.table[column].tolist()
    return [parse_scp(c) if isinstance(c, str) and c.strip() else None for c in cells]


def _superclasses(source: Source, statements: str) -> dict[str, str]:
    if statements:
        return read_superclasses(statements)
    return SYNTHETIC_SUPERCLASSES if source.synthetic else {}


def _has(
    wanted: set[str] | list[str], codes: Sequence[dict[str, float] | None]
) -> NDArray[np.float64]:
    """Whether a record has one of the codes, however likely; NaN where nobody wrote any."""
    return np.array([np.nan if c is None else float(any(w in c for w in wanted)) for c in codes])


def _truth(
    name: str,
    source: Source,
    codes: Sequence[dict[str, float] | None] | None,
    above: Mapping[str, str],
) -> NDArray[np.float64]:
    """Who has a class: by a column of 0 and 1, a code, or a superclass."""
    if name in source.table:
        column = source.table[name]
        if column.dtype.kind in "biuf" and column.dropna().isin([0, 1]).all():
            return column.to_numpy(np.float64)
        raise DataError(f"error[prompts] column {name} holds other values than 0 and 1")
    members = {code for code, one in above.items() if one == name} | {name}
    if codes is not None and any(members & c.keys() for c in codes if c):
        return _has(members, codes)
    raise DataError(
        f"error[prompts] class {name} is no column of the records, and no code or superclass of "
        "their column of codes (--column)"
    )
