"""One run, or ensemble, against others on the same records."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from numpy.typing import NDArray

from ecgfast import eval as scores
from ecgfast.data.records import DataError
from ecgfast.systems.scored import (
    LEVEL,
    Asked,
    Facts,
    Found,
    classes_of,
    predict_part,
    refuse_seen,
    thresholds_of,
)
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.contract import Contract, ContractError


def comparisons(
    asked: Asked, facts: Facts, contract: Contract, stores: Sequence[str], found: Found
) -> list[dict[str, Any]]:
    """This run, or ensemble, against others; p of one metric are adjusted over the others."""
    if not asked.against:
        return []
    if contract.task is None:
        raise ContractError(f"error[against] {asked.runs[0]} has no head: no scores to compare")
    results: list[dict[str, Any]] = []
    for run in asked.against:
        _same_question(asked.runs[0], contract, run)
        other = predict_part(asked, (run,), stores, asked.split)
        refuse_seen(other, asked.split)
        if other["record_id"].tolist() != found["record_id"].tolist():
            raise DataError(
                f"error[against] {run} scores {len(other['record_id'])} records, {asked.runs[0]} "
                f"{len(found['record_id'])}: a comparison needs the same ones"
            )
        threshold = None
        if facts["task"] == "classification":
            told, _ = thresholds_of(asked, (run,), contract.task, stores)
            threshold = told["threshold"]
        rows = differences_of(asked, facts, found, other["score"], threshold)
        results.append({"against": run, "threshold": threshold, "metrics": rows})
    for place in range(len(results[0]["metrics"])):
        same = [one["metrics"][place] for one in results]
        for line, p in zip(same, scores.holm([line["p"] for line in same]), strict=True):
            line["p_holm"] = p
    return results


def _same_question(run: str, mine: Contract, other: str) -> None:
    its = load_contract(other)
    if its.task is None:
        raise ContractError(f"error[against] {other} has no head: no scores to compare")
    for name in ("kind", "label", "threshold", "classes", "event"):
        a, b = (mine.task or {}).get(name), its.task.get(name)
        if a != b:
            raise ContractError(
                f"error[against] {other} differs from {run} in task.{name}: {b} and {a}; only "
                "runs of one task can be compared"
            )


def differences_of(
    asked: Asked, facts: Facts, found: Found, other: NDArray[Any], threshold: float | None
) -> list[dict[str, Any]]:
    """Rows of this one minus the other; of an AUROC, p is DeLong's."""
    label, patient, mine = found["label"], found["patient_id"], found["score"]
    cuts = (0.5, 0.5) if threshold is None else (facts["threshold"], threshold)
    rows = scores.differences(
        facts["task"],
        label,
        [mine],
        [other],
        patient,
        thresholds=cuts,
        classes=facts["classes"],
        **({k: facts["survival"][k] for k in ("tau", "horizons")} if "survival" in facts else {}),
        **asked.how,
    )
    tests: list[tuple[str, NDArray[Any]]] = []
    if facts["task"] == "classification":
        tests = [("auroc", label)]
    for cut in asked.above if facts["task"] == "regression" else ():
        above = classes_of(label, cut)
        (line,) = scores.differences(
            "classification", above, [mine], [other], patient, names=("auroc",), **asked.how
        )
        name = f"auroc_above_{cut:g}"
        rows.append(line | {"name": name})
        tests.append((name, above))
    for name, classes in tests:
        tested = scores.delong(classes, mine, other, patient, level=LEVEL)
        line = next(line for line in rows if line["name"] == name)
        line |= {"p": tested["p"], "test": "DeLong", "delong": tested}
    return [_plain(line) for line in rows]


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """As a file can hold it; a difference without an interval is none, its reason stands there."""
    one, two = ([v if isfinite(v) else None for v in line[side]] for side in "ab")
    estimate = None if line["lo"] is None else line["estimate"]
    return {"test": "bootstrap", **line, "estimate": estimate, "a": one, "b": two}
