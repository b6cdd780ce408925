"""Where the records of a run came from: rows of the data card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ecgfast.report.words import quantity


class Finding(NamedTuple):
    """An issue of a record, as the conversion wrote it down.

    Attributes:
        store: Of the record.
        kind: kept or rejected.
        record: Its name.
        issue: By name.
        message: With its numbers.
    """

    store: str
    kind: str
    record: str
    issue: str
    message: str


def split_rows(columns: Mapping[str, Any], label: str | None) -> list[dict[str, Any]]:
    """Of each part of a manifest its records, patients, age, sex and label."""
    return [_split(name, columns, label) for name in _names(columns["split"])]


def issue_rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """What was flagged and what was rejected, by the name of the issue: counts of records."""
    counted: dict[str, dict[str, Any]] = {}
    for found in findings:
        fresh: dict[str, Any] = {"kept": set(), "rejected": set(), "example": found.message}
        counted.setdefault(found.issue, fresh)[found.kind].add((found.store, found.record))
    rows = [
        {
            "issue": issue,
            "kept": len(line["kept"]),
            "rejected": len(line["rejected"]),
            "example": line["example"],
        }
        for issue, line in counted.items()
    ]
    return sorted(rows, key=lambda line: (-line["rejected"], -line["kept"], line["issue"]))


def _names(split: Any) -> list[str]:
    """Parts in the order of work, then others, then records that are in none."""
    there = {str(name) for name in split}
    usual = [name for name in ("train", "val", "test") if name in there]
    return usual + sorted(there - set(usual) - {""}) + ([""] if "" in there else [])


def _split(name: str, columns: Mapping[str, Any], label: str | None) -> dict[str, Any]:
    """One row of the data card."""
    inside = columns["split"].astype(str) == name

    def numbers(column: str) -> Any:
        if column not in columns or columns[column].dtype.kind not in "biuf":
            return np.zeros(0)
        values = columns[column][inside].astype(np.float64)
        return values[np.isfinite(values)]

    age, male, labels = numbers("age"), numbers("sex"), numbers(label or "")
    called, unit = quantity(label or "")
    words = "not known"
    if label and len(labels) and np.isin(labels, (0, 1)).all():
        words = f"{called}: {int(labels.sum()):,} of {len(labels):,} are 1"
    elif label and len(labels):
        words = f"{called} {labels.mean():.1f} ± {labels.std():.1f} {unit} (n = {len(labels):,})"
    patients = columns["patient_id"][inside].astype(str)
    named = patients[~np.isin(patients, ("", "None", "nan"))]
    return {
        "split": name or "in no part",
        "records": int(inside.sum()),
        "patients": len(np.unique(named)) + len(patients) - len(named),
        "age": f"{age.mean():.0f} ± {age.std():.0f}" if len(age) else "not known",
        "male": f"{100 * male.mean():.0f} %" if len(male) else "not known",
        "label": words,
    }
