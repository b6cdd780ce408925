"""Which patients' labels are used: nested shares, kept in a file that can be checked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.records import DataError
from ecgfast.data.split import nested_fraction, patients

VERSION = 1
MAX_BYTES = 512 * 2**20
CELL = tuple[float, int]  # fraction, seed


class Subset(NamedTuple):
    """Records of a share of the patients.

    Attributes:
        rows: In the table they were drawn from.
        patients: How many patients that is.
        positives: How many records are of the second of two classes; else none.
        positive_patients: How many patients have one.
    """

    rows: NDArray[np.int64]
    patients: int
    positives: int | None
    positive_patients: int | None


def cohort_hash(table: pd.DataFrame, label: str) -> str:
    """SHA-256 of who is in which part with which label: the same data give the same."""
    digest = hashlib.sha256()
    whose = patients(table)
    columns = [table["record_id"], whose, table["split"], table[label]]
    for row in zip(*(column.tolist() for column in columns), strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def records_hash(table: pd.DataFrame) -> str:
    """SHA-256 of the records of a manifest in their order, by name and content."""
    columns = [table[name].tolist() for name in ("record_id", "sha256") if name in table]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def draw_subsets(
    table: pd.DataFrame,
    target: NDArray[np.float64],
    *,
    classes: bool,
    fractions: tuple[float, ...],
    seeds: int,
) -> dict[CELL, Subset]:
    """Nested shares of the patients of a table, the same for the same patients and labels.

    Patients are drawn within strata: the classes, or fifths of a value. A patient of whom one
    record is positive is a positive patient. Each stratum gives at least one patient, so that the
    smallest share has both classes; it may be larger than was asked for.

    Args:
        table: Manifest rows of the training part.
        target: ``(N,)`` what is learned: a class, or a value.
        classes: Which of the two.
        fractions: Shares, in (0, 1].
        seeds: How many draws.

    Raises:
        DataError: A share has one class alone.
    """
    stratified = table.assign(_stratum=target)
    whose = patients(table).to_numpy(object)
    drawn = {}
    for seed in range(seeds):
        for fraction in sorted(fractions):
            rows = nested_fraction(stratified, fraction, seed, "_stratum")
            missing = sorted(set(target) - set(target[rows])) if classes else []
            if missing:
                raise DataError(
                    f"error[one_class] {fraction:g} of the patients (seed {seed}) has no record of "
                    f"class {missing[0]:g}: who has one has others of a higher class, too; take "
                    "a larger fraction"
                )
            count = len(set(whose[rows]))
            positive = rows[target[rows] == target.max()]
            told: tuple[int, int] | tuple[None, None] = (None, None)
            if classes and len(set(target)) == 2:
                told = (len(positive), len(set(whose[positive])))
            drawn[fraction, seed] = Subset(rows, count, *told)
    return drawn


def keep_subsets(
    path: Path, table: pd.DataFrame, drawn: dict[CELL, Subset], about: dict[str, Any]
) -> str:
    """Writes the patients of each subset, or holds them to those that a file has already.

    Seeds and fractions that a file does not have are added to it; what it has must be the same.

    Args:
        path: Of the file.
        table: That the subsets were drawn from.
        drawn: By ``draw_subsets``.
        about: What they are of: label, task, threshold, SHA-256 of the cohort.

    Returns:
        The SHA-256 over the file's content.

    Raises:
        DataError: The file is of other data or another label, or was changed.
    """
    whose = patients(table).to_numpy(object)
    subsets: dict[str, dict[str, list[str]]] = {}
    for (fraction, seed), subset in drawn.items():
        names = sorted(set(whose[subset.rows]))
        subsets.setdefault(str(seed), {})[f"{fraction:g}"] = names
    way = f"take another folder with --out, or remove {path.parent} to begin anew"
    if path.exists():
        before = read_subsets(path)
        differ = [k for k, v in about.items() if before["about"].get(k) != v]
        if differ:
            lines = "; ".join(
                f"{k}: {before['about'].get(k)} there, {about[k]} now" for k in differ
            )
            raise DataError(
                f"error[subsets] {path} holds subsets of something else ({lines}): {way}"
            )
        for seed, shares in before["subsets"].items():
            for share, names in shares.items():
                now = subsets.setdefault(seed, {}).setdefault(share, names)
                if now != names:
                    raise DataError(
                        f"error[subsets] {path}: seed {seed}, fraction {share} has {len(names)} "
                        f"patients there and {len(now)} others would be drawn now: {way}"
                    )
    content = {"version": VERSION, "about": about, "subsets": subsets}
    sha256 = _sha256(content)
    if path.exists() and read_subsets(path) == content:
        return sha256
    # several sweeps may begin in one folder at the same time
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**content, "sha256": sha256}), encoding="utf-8")
    os.replace(temporary, path)
    return sha256


def read_subsets(path: Path) -> dict[str, Any]:
    """The content of a file of subsets.

    Raises:
        DataError: It is none, or was changed.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        content = json.loads(path.read_bytes())
        said = content.pop("sha256")
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r}, known is {VERSION}")
        if not isinstance(content["about"], dict) or not isinstance(content["subsets"], dict):
            raise ValueError("about and subsets must be mappings")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"error[subsets] {path} is no file of subsets: {error}") from error
    found = _sha256(content)
    if found != said:
        raise DataError(
            f"error[subsets] {path} was changed: its content has SHA-256 {found[:12]}..., it says "
            f"{str(said)[:12]}...; restore it, or take another folder with --out"
        )
    return content


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
