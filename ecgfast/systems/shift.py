"""What a run was trained on beside what it is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.systems.predict import EXTRA
from ecgfast.systems.scored import Found
from ecgfast.train.contract import Contract


def shift(
    contract: Contract, trained: Sequence[str], config: Mapping[str, Any], found: Found
) -> dict[str, Any]:
    """What was trained on beside what is scored: label, age and sex."""
    task = contract.task or {}
    splits = tuple(config.get("data", {}).get("splits") or ("train",))
    try:
        source = open_source(
            trained,
            splits,
            signal=contract.signal,
            patients=1,
            label=task["label"],
            classes=task.get("classes"),
            event=task.get("event"),
            clips=contract.clips,
        )
    except DataError as error:
        return {"missing": str(error), "rows": []}
    here = {name: found[name] for name in EXTRA if name in found}
    here["label"] = found.get("value", found["label"])
    there = {name: source.column(name) for name in EXTRA if name in source.table}
    there["label"] = source.labels()
    rows = []
    timed = task["kind"] == "survival"
    if timed:  # signed times
        rows.append(_apart(task["event"], there["label"] > 0, here["label"] > 0))
        there["label"], here["label"] = np.abs(there["label"]), np.abs(here["label"])
    several, above = task["kind"] == "multiclass", task["threshold"]
    for name in ("label", *EXTRA):
        if name not in here or name not in there or (several and name == "label"):
            continue
        called = task["label"] if name == "label" else name
        rows.append(_apart(called, there[name], here[name]))
        if name == "label" and above is not None:
            both = [np.where(np.isnan(x), x, x > above) for x in (there[name], here[name])]
            rows.append(_apart(f"{called} > {above:g}", *both))
    if several:
        rows += [
            _apart(name, there["label"] == i, here["label"] == i)
            for i, name in enumerate(task["classes"])
        ]
    return {"missing": None, "splits": list(splits), "rows": rows}


def _apart(name: str, there: ArrayLike, here: ArrayLike) -> dict[str, Any]:
    """Mean and spread of both, and their difference over the pooled spread."""
    line: dict[str, Any] = {"name": name, "standardised": None}
    known = []
    for side, values in (("trained", there), ("scored", here)):
        numbers = np.asarray(values, np.float64)
        numbers = numbers[np.isfinite(numbers)]
        line[side] = {"n": len(numbers), "mean": None, "sd": None}
        if len(numbers) > 1:
            known.append((float(numbers.mean()), float(numbers.std(ddof=1))))
            line[side] |= {"mean": known[-1][0], "sd": known[-1][1]}
    if len(known) == 2:
        pooled = np.sqrt((known[0][1] ** 2 + known[1][1] ** 2) / 2)
        line["standardised"] = float((known[1][0] - known[0][0]) / pooled) if pooled else None
    return line
