"""Wiring of an evaluation: which records, groups and other runs; the numbers are eval's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast import eval as scores
from ecgfast.data.stores import open_store
from ecgfast.eval import classification, follow_up, multiclass, regression
from ecgfast.eval.bootstrap import Statistic
from ecgfast.eval.calibration import calibration_rows, reliability
from ecgfast.eval.serial import LEAST_VISITS, longest
from ecgfast.eval.subgroups import Cut, Grouping, counts, grouping
from ecgfast.systems.comparisons import comparisons
from ecgfast.systems.layouts import layout_rows
from ecgfast.systems.model import configured
from ecgfast.systems.scored import (
    LEVEL,
    Asked,
    Facts,
    Found,
    classes_of,
    columns_of,
    predict_part,
    refuse_seen,
    stores_of,
    thresholds_of,
)
from ecgfast.systems.shift import shift
from ecgfast.systems.time_to_event import survival
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.contract import Contract

SCHEMA = 2  # of metrics.json; 1 had no `schema`
ORDERS = ("visit", "date", "recording_date", "datetime", "time", "age")  # the first that is there
USUAL_GROUPS = ((Cut("sex"),), (Cut("age"),))
GAPS = {
    "classification": ("auroc", "sensitivity", "specificity", "ppv", "brier"),
    "regression": ("mae", "rmse", "bias", "pearson_r"),
    "multiclass": ("auroc_macro", "balanced_accuracy", "accuracy"),
    "survival": ("c_index",),
}
AT_A_CUT = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "prevalence")


def evaluate(asked: Asked) -> tuple[Facts, Found]:
    """Scores records and bounds the scores.

    Returns:
        What metrics.json holds, and columns of the records as `predict` gives them; of a class
        that was made from a value, ``label`` is the class and ``value`` the value.

    Raises:
        ContractError: A run is damaged, or runs do not answer the same question.
        DataError: There are no such records, or the run was trained on them.
        ValueError: A column makes no groups, or horizons are asked of another task than survival.
    """
    contract = load_contract(asked.runs[0])
    if asked.horizons and (contract.task or {}).get("kind") != "survival":
        raise ValueError(
            f"horizons are of a time to an event, and {asked.runs[0]} "
            f"{'has no head' if contract.task is None else 'does ' + contract.task['kind']}: "
            "leave --horizons out"
        )
    stores = stores_of(asked.runs[0], asked.stores)
    known = columns_of(stores, asked.runs[0])
    order = asked.order or next((name for name in ORDERS if name in known), "")
    found = predict_part(asked, asked.runs, stores, asked.split, order)
    refuse_seen(found, asked.split)
    groupings = _groupings(asked, found)
    facts = _facts(asked, contract, stores, found)
    task = contract.task
    thresholds = [0.5] * len(asked.runs)
    if task is not None and task["kind"] == "classification":
        told, thresholds = thresholds_of(asked, asked.runs, task, stores)
        facts |= told
        if task["threshold"] is not None:
            found["value"] = found["label"]
        found["label"] = classes_of(found["label"], task["threshold"])
    facts |= _score(asked, facts, contract, found, groupings)
    if len(asked.runs) > 1:
        facts["ensemble"] = _ensemble(facts, found, asked.runs, thresholds)
    if task is not None and task["kind"] == "regression":
        facts["serial"] = _serial(asked, found, order)
    if asked.layouts:
        facts["layouts"] = layout_rows(asked, facts, contract, stores, found)
    facts["comparisons"] = comparisons(asked, facts, contract, stores, found)
    trained = stores_of(asked.runs[0], ())
    facts["trained_from"] = trained
    if task is not None and asked.stores and trained and set(trained) != set(asked.stores):
        facts["shift"] = shift(contract, trained, configured(asked.runs[0]), found)
    return facts, found


def _groupings(asked: Asked, found: Found) -> list[Grouping]:
    usual = tuple(cuts for cuts in USUAL_GROUPS if cuts[0].column in found)
    return [
        grouping(cuts, found) for cuts in (usual if asked.subgroups is None else asked.subgroups)
    ]


def _facts(asked: Asked, contract: Contract, stores: Sequence[str], found: Found) -> Facts:
    """What stands above the numbers."""
    opened = [open_store(path) for path in stores]
    everyone = sum(len(store.select((asked.split,))) for store in opened)
    task = contract.task or {}
    once = np.ones(len(found["record_id"]), dtype=np.int64)
    return {
        "schema": SCHEMA,
        "run": asked.runs[0],
        "runs": list(asked.runs),
        "store": ", ".join(stores) or None,
        "stores": list(stores),
        "split": asked.split,
        "synthetic": bool(contract.synthetic or not stores or any(s.synthetic for s in opened)),
        "task": task.get("kind", "embedding"),
        "label": task.get("label"),
        "label_above": task.get("threshold"),
        "classes": list(task.get("classes") or ()),
        "threshold": None,
        "threshold_from": None,
        "draws": asked.draws,
        "seed": asked.seed,
        "level": LEVEL,
        "records": len(found["record_id"]),
        "by": "study" if "videos" in found else "record",
        "videos": int(found["videos"].sum()) if "videos" in found else None,
        "patients": len(np.unique(found["patient_id"])),
        "unlabelled": max(0, everyone - int(found.get("videos", once).sum())),
        "seen": int((found["trained_on"] | found["pretrained_on"]).sum()),
    }


def _statistic(facts: Facts, found: Found, score: NDArray[Any], threshold: float) -> Any:
    """From a mask of records to their metrics as a function of weights."""
    label, score = np.asarray(found["label"], np.float64), np.asarray(score, np.float64)

    def of(mask: NDArray[np.bool_]) -> Statistic:
        y, s = label[mask], score[mask]
        if facts["task"] == "classification":
            return classification.statistic(y, s, threshold=threshold)
        if facts["task"] == "multiclass":
            return multiclass.statistic(y, s, facts["classes"])
        if facts["task"] == "survival":
            time, event = scores.from_signed(y)
            return follow_up.statistic(s, time, event, tau=facts["survival"]["tau"])
        return regression.statistic(y, s)

    return of


def _score(
    asked: Asked, facts: Facts, contract: Contract, found: Found, groupings: Sequence[Grouping]
) -> Facts:
    """All rows of the table, groups and gaps, and what the figures of calibration show."""
    how, patient, score = asked.how, found["patient_id"], found.get("score", np.zeros(0))
    groups = {name: mask for one in groupings for name, mask in one.groups.items()}
    label = found.get("label", np.zeros(0))
    rows: list[dict[str, Any]] = []
    more: Facts = {"calibration": {}}
    classes = None
    if facts["task"] == "classification":
        classes = label
        cut = facts["threshold"]
        rows = scores.classification_rows(
            label, score, patient, threshold=cut, groups=groups, **how
        )
        rows += calibration_rows(label, score, patient, **how)
        more["calibration"] = {"points": reliability(label, score, patient, **how)}
    elif facts["task"] == "multiclass":
        classes, names = label, facts["classes"]
        rows = scores.multiclass_rows(label, score, patient, classes=names, groups=groups, **how)
        more["confusion"] = multiclass.confusion_counts(label, score, len(names))
    elif facts["task"] == "regression":
        rows = scores.regression_rows(label, score, patient, groups=groups, **how)
        for cut in asked.above:
            rows += _at_a_cut(cut, label, score, patient, groups, how)
        points = reliability(label, score, patient, classes=False, **how)
        more["calibration"] = {"points": points}
    elif facts["task"] == "survival":
        rows, facts["survival"] = survival(asked, contract, found, groups)
    rows += scores.ranking_rows(found["embedding"], patient, label=classes, **how)
    # a number without an interval is no number: it stands apart, with the reason
    without = [row | {"estimate": None} for row in rows if row["lo"] is None]
    few: dict[str, Any] = {"least_share": asked.least_share, "least_patients": asked.least_patients}
    positive = label if facts["task"] == "classification" else None
    positive = found["event"] if facts["task"] == "survival" else positive
    return {
        "metrics": [row for row in rows if row["lo"] is not None],
        "not_computed": without,
        "groups": [
            line for one in groupings for line in counts(one, patient, positive=positive, **few)
        ],
        "few": few,
        "gaps": _gaps(asked, facts, found, groupings, rows),
        **more,
    }


def _at_a_cut(
    cut: float,
    label: NDArray[Any],
    score: NDArray[Any],
    patient: NDArray[Any],
    groups: Mapping[str, NDArray[np.bool_]],
    how: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Whether a value tells who lies above the cut; it is called so at or above the cut itself."""
    rows = scores.classification_rows(
        classes_of(label, cut), score, patient, threshold=cut, groups=groups, **how
    )
    return [
        row | {"name": f"{row['name']}_above_{cut:g}"}
        for row in rows
        if row["name"] == "auroc" or (row["subgroup"] is None and row["name"] in AT_A_CUT)
    ]


def _gaps(
    asked: Asked,
    facts: Facts,
    found: Found,
    groupings: Sequence[Grouping],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Of each grouping and metric, among the groups whose metric has an interval."""
    names = GAPS.get(facts["task"], ())
    if not names:
        return []
    bounded = {(row["subgroup"], row["name"]) for row in rows if row["lo"] is not None}
    of = _statistic(facts, found, found["score"], facts["threshold"] or 0.5)
    gaps = []
    for one in groupings:
        together: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            fit = tuple(group for group in one.groups if (group, name) in bounded)
            together.setdefault(fit, []).append(name)
        for fit, some in together.items():
            chosen = {group: one.groups[group] for group in fit}
            lines = scores.gap_rows(of, some, chosen, found["patient_id"], **asked.how)
            gaps += [{"by": one.name, **line} for line in lines]
    place = {name: i for i, name in enumerate(names)}
    where = {one.name: i for i, one in enumerate(groupings)}
    return sorted(gaps, key=lambda line: (where[line["by"]], place[line["name"]]))


def _ensemble(
    facts: Facts, found: Found, runs: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """The metrics of each run beside those of the mean of their scores."""
    everyone, once = np.ones(len(found["label"]), bool), np.ones((1, len(found["label"])))
    each = [
        _statistic(facts, found, score, threshold)(everyone)(once)
        for score, threshold in zip(found["scores"], thresholds, strict=True)
    ]
    lines = []
    for name in each[0]:
        values = np.array([float(one[name][0]) for one in each])
        if name != "prevalence" and np.isfinite(values).all():
            spread = float(values.std(ddof=1))
            line = {"name": name, "each": values.tolist(), "mean": float(values.mean())}
            lines.append(line | {"sd": spread})
    return {"runs": list(runs), "metrics": lines}


def _serial(asked: Asked, found: Found, order: str) -> dict[str, Any]:
    """Change over visits, and the patients to show."""
    if order not in found:
        return {"missing": f"no column tells the order of visits ({', '.join(ORDERS)})"}
    path = scores.visits(found["label"], found["score"], found["patient_id"], found[order])
    shown: list[dict[str, Any]] = []
    for name in longest(path):
        mine = path.patient == name
        numbers = path.time.dtype.kind in "biuf"
        shown.append(
            {
                "patient": str(name),
                "time": [float(t) if numbers else str(t) for t in path.time[mine]],
                "measured": path.label[mine].tolist(),
                "predicted": path.score[mine].tolist(),
            }
        )
    return {
        "missing": None if shown else f"no patient has {LEAST_VISITS} visits or more",
        "order": order,
        "least_visits": LEAST_VISITS,
        "patients": len(np.unique(path.patient)),
        "visits": len(path.patient),
        "metrics": scores.serial_rows(path, **asked.how),
        "shown": shown,
    }
