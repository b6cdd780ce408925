"""Labels: from header comments, from ptbxl_database.csv, from any table with an id column."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgfast.data.records import DataError, age_years, identifier, sex_code
from ecgfast.data.store_format import COLUMNS, PAGE_COLUMNS

PTBXL = "ptbxl_database.csv"
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
TEXT = {"dx", "rx", "hx", "sx", "scp_codes", "report"}  # codes are names, also single ones
RESERVED = {*COLUMNS, *PAGE_COLUMNS} - {"patient_id"}  # names that the manifest keeps for itself


@dataclass(frozen=True)
class Joined:
    """How a table and the records met.

    Attributes:
        table: Its file name.
        rows: Rows of the table.
        matched: Records that found a row.
        unlabelled: Ids of records that found none.
        unused: Ids of rows that no record claimed.
        rejected: Rows whose record was rejected.
    """

    table: str
    rows: int
    matched: int
    unlabelled: tuple[str, ...]
    unused: tuple[str, ...]
    rejected: int

    def line(self) -> str:
        """One line for people."""
        text = f"labels   {self.table}: {self.matched} records of {self.rows} rows"
        if self.rejected:
            text += f"; {self.rejected} rows are of rejected records"
        if self.unused:
            text += f"; {len(self.unused)} rows without a record (first: {self.unused[0]})"
        if self.unlabelled:
            text += f"; {len(self.unlabelled)} records without a row (first: {self.unlabelled[0]})"
        return text


class LabelTable:
    """Rows of labels and the keys by which records find them.

    Args:
        name: For messages.
        frame: All text; an empty cell is an empty text.
        keys: One key a row, or several where a row stands for several files.
        within: Only records under this folder may look here; none for all.
    """

    def __init__(
        self, name: str, frame: pd.DataFrame, keys: list[list[str]], within: str = ""
    ) -> None:
        self.name, self.frame, self.within = name, frame, within
        self.by_key: dict[str, int] = {}
        for row, row_keys in enumerate(keys):
            for key in filter(None, map(_normal, row_keys)):
                if self.by_key.setdefault(key, row) != row:
                    raise DataError(
                        f"error[labels] {name}: id {key} stands in rows {self.by_key[key] + 2} and "
                        f"{row + 2}; one row a record is needed"
                    )

    def row(self, keys: list[str]) -> int:
        """Number of the first row that one of the keys names, or -1."""
        return next((self.by_key[k] for k in map(_normal, keys) if k in self.by_key), -1)


def read_table(
    path: Path, id_column: str, *, male: str = "1", patient_column: str = ""
) -> LabelTable:
    """Any csv or parquet table with a column of record ids.

    Args:
        path: Comma separated, first line names the columns.
        id_column: Column of record ids: a file's name without suffix, or its path.
        male: What a numeric column `sex` calls male.
        patient_column: Column of patient ids, `patient_id` if there is one.
    """
    frame = _read(path)
    if id_column not in frame:
        raise DataError(
            f"error[labels] {path.name} has no column {id_column!r}; it has "
            f"{', '.join(map(str, frame.columns[:20]))}: --id-column NAME"
        )
    if patient_column:
        if patient_column not in frame:
            raise DataError(f"error[labels] {path.name} has no column {patient_column!r}")
        frame["patient_id"] = frame[patient_column]
    keys = [[value] for value in frame[id_column]]
    frame = frame.loc[:, [c for c in frame.columns if str(c).strip() and "Unnamed" not in str(c)]]
    if "is_male" in frame and "sex" not in frame:
        frame["sex"], male = frame["is_male"], "1"
    if "sex" in frame:
        frame["sex"] = [_text(sex_code(value, male=male)) for value in frame["sex"]]
    return LabelTable(path.name, frame, keys)


def read_ptbxl(folder: Path, *, anywhere: bool = False) -> LabelTable:
    """PTB-XL's table: every column, and a column 0/1 for NORM and each diagnostic superclass.

    Sex is turned round (PTB-XL: 0 male, 1 female; here 1 male), age 300 (over 89) becomes 90.

    Args:
        folder: Where the table lies; records under it find their rows by their paths.
        anywhere: Records from elsewhere find them too, by their file names.
    """
    frame = _read(folder / PTBXL)
    wanted = {"ecg_id", "patient_id", "sex", "age", "scp_codes", "filename_lr", "filename_hr"}
    if absent := wanted - set(frame.columns):
        raise DataError(f"error[labels] {PTBXL} has no column {', '.join(sorted(absent))}")
    codes = [parse_scp(value) for value in frame["scp_codes"]]
    frame["norm"] = [str(int("NORM" in found)) for found in codes]
    statements = folder / "scp_statements.csv"
    if statements.exists():
        about = _read(statements)
        classes = dict(zip(about.iloc[:, 0], about["diagnostic_class"], strict=True))
        for name in SUPERCLASSES[1:]:
            has = [any(classes.get(code) == name for code in found) for found in codes]
            frame[name.casefold()] = [str(int(h)) for h in has]
    frame["sex"] = [_text(sex_code(value, male="0")) for value in frame["sex"]]
    keys = frame[["filename_lr", "filename_hr"]].to_numpy().tolist()
    if anywhere:
        keys = [[*paths, *(path.rpartition("/")[2] for path in paths)] for paths in keys]
    within = "" if anywhere else str(folder)
    return LabelTable(PTBXL, frame.drop(columns=["filename_lr", "filename_hr"]), keys, within)


def parse_scp(text: str) -> dict[str, float]:
    """`{'NORM': 100.0, 'SR': 0.0}` as a dict; nothing but such a literal is accepted."""
    try:
        found = ast.literal_eval(text) if len(text) <= 10_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, (int, float)) for key, value in found.items()
    ):
        raise DataError(
            f"error[labels] scp_codes {text[:60]!r} is no dict of codes and likelihoods"
        )
    return {key: float(value) for key, value in found.items()}


def join(
    records: pd.DataFrame,
    rejected: list[tuple[str, list[str]]],
    table: LabelTable,
    keys: list[list[str]],
    reserved: Collection[str] = RESERVED,
) -> tuple[pd.DataFrame, Joined]:
    """Puts a table's columns beside the records that find a row in it; cells are text.

    Args:
        records: The manifest so far.
        rejected: Id and keys of each rejected record.
        table: Where to look.
        keys: For each record: the names under which it may stand there; none for records that
            have no business with this table.
        reserved: Names that the manifest keeps for itself: such a column becomes label_NAME.
    """
    rows = np.array([table.row(k) if k else -1 for k in keys], dtype=np.int64)
    of_rejected = {table.row(k) for _, k in rejected} - {-1}
    hit = rows >= 0
    for column in table.frame.columns:
        name = f"label_{column}" if column in reserved else str(column)
        values = records[name].to_numpy(object) if name in records else np.full(len(records), "")
        values = values.astype(object)
        new = table.frame[column].to_numpy(object)[rows[hit]]
        values[hit] = np.where(new == "", values[hit], new)
        records[name] = values
    used = set(rows[hit].tolist())
    first_key = {row: key for key, row in reversed(table.by_key.items())}
    unused = tuple(
        first_key.get(r, "") for r in range(len(table.frame)) if r not in used | of_rejected
    )
    asked = np.array([bool(k) for k in keys], dtype=bool)
    return records, Joined(
        table=table.name,
        rows=len(table.frame),
        matched=int(hit.sum()),
        unlabelled=tuple(records["record_id"][asked & ~hit]),
        unused=unused,
        rejected=len(of_rejected - used),
    )


def settle(labels: pd.DataFrame) -> pd.DataFrame:
    """Gives text columns their types: numbers, 0/1 for true and false, text for the rest.

    `sex` becomes 1 male, 0 female; `age` years; `patient_id` stays text.
    """
    out = {}
    for name in labels.columns:
        text = labels[name].fillna("").astype(str).str.strip()
        if name == "patient_id":
            out[name] = text.map(identifier)
        elif name == "sex":
            out[name] = text.map(sex_code).astype(np.float64)
        elif name == "age":
            out[name] = text.map(age_years).astype(np.float64)
        else:
            out[name] = text if name in TEXT else _typed(text)
    return pd.DataFrame(out, index=labels.index)


def _typed(text: pd.Series[Any]) -> pd.Series[Any]:
    known = text[text != ""]
    if len(known) and known.str.casefold().isin(["true", "false"]).all():
        return text.str.casefold().map({"true": 1.0, "false": 0.0}).astype(np.float64)
    numbers = pd.to_numeric(text.where(text != "", None), errors="coerce")
    # codes such as 164889003,59118001, or 007, are names, not numbers
    padded = known.str.match(r"[+-]?0\d").any()
    if len(known) and not padded and numbers.notna().sum() == len(known):
        return numbers.astype(np.float64)
    return text


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"error[labels] there is no {path}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path).astype(str)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="replace")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"error[labels] {path.name} is no table: {str(error)[:160]}") from None


def _normal(key: str) -> str:
    """`00017`, `17` and `17.0` are one id."""
    key = identifier(key)
    return re.sub(r"^0+(?=\d)", "", key) if key.isdigit() else key


def _text(number: float) -> str:
    return "" if number != number else f"{number:g}"
