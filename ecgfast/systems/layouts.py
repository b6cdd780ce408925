"""The same records drawn in one layout after the other: what a run makes of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ecgfast import eval as scores
from ecgfast.systems.comparisons import differences_of
from ecgfast.systems.model import configured
from ecgfast.systems.scored import Asked, Facts, Found, predict_part
from ecgfast.train.contract import Contract, ContractError

DRAWN = "has learned from pictures of pages: there is nothing to draw; leave --layouts out"
SHOWN = {
    "classification": ("auroc", "auprc", "sensitivity", "specificity"),
    "multiclass": ("auroc_macro", "balanced_accuracy"),
    "regression": ("mae", "pearson_r"),
    "survival": ("c_index",),
    "embedding": (),
}
AGAIN = "recall_at_1_patient"  # the nearest other record is of the same patient


def layout_rows(
    asked: Asked, facts: Facts, contract: Contract, stores: Sequence[str], found: Found
) -> dict[str, Any]:
    """Metrics of each layout, with intervals, and how far they are from those of the run's own.

    Args:
        asked: With ``layouts``.
        facts: Of the evaluation so far: task, threshold, classes.
        contract: Of the first run.
        stores: Of the records.
        found: Their scores in the run's own layout; ``label`` is what was scored.

    Returns:
        ``own``, and ``rows``: ``layout``, ``trained`` (fine-tuning, pretraining or neither drew
        records so, as the runs' config.yaml has it), the row of a metric, and ``difference``, that
        of paired draws from the run's own layout, where there is one.

    Raises:
        ContractError: A run sees no pages, or has learned from pictures of them.
        ValueError: There is no such layout.
    """
    if contract.model["class"] != "PageEncoder":
        raise ContractError(
            f"error[layout] {asked.runs[0]} sees signals ({contract.model['class']}): it has no "
            "layout to draw them in; leave --layouts out"
        )
    if contract.pages is not None:
        raise ContractError(f"error[layout] {asked.runs[0]} {DRAWN}")
    own = str(contract.model["arguments"]["layout"])
    tuned, pretrained = _trained(asked.runs[0], own)
    rows: list[dict[str, Any]] = []
    for layout in dict.fromkeys(asked.layouts):
        drawn = found
        if layout != own or len(asked.runs) > 1:  # others of an ensemble may draw otherwise
            drawn = predict_part(asked, asked.runs, stores, asked.split, layout=layout)
        if drawn is not found and "label" in found:
            drawn = drawn | {"label": found["label"]}
        by = "fine-tuning" if _drawn(layout, tuned) else "neither"
        by = "pretraining" if by == "neither" and _drawn(layout, pretrained) else by
        changes = {}
        if drawn is not found and facts["task"] != "embedding":
            lines = differences_of(asked, facts, drawn, found["score"], facts["threshold"])
            changes = {line["name"]: line for line in lines}
        for row in _metrics(asked, facts, drawn):
            change = changes.get(row["name"])
            rows.append({"layout": layout, "trained": by, **row, "difference": change})
    return {"own": own, "rows": rows}


def _metrics(asked: Asked, facts: Facts, found: Found) -> list[dict[str, Any]]:
    how, patient, task = asked.how, found["patient_id"], facts["task"]
    rows: list[dict[str, Any]] = []
    if task == "classification":
        rows = scores.classification_rows(
            found["label"], found["score"], patient, threshold=facts["threshold"], **how
        )
    elif task == "multiclass":
        rows = scores.multiclass_rows(
            found["label"], found["score"], patient, classes=facts["classes"], **how
        )
    elif task == "regression":
        rows = scores.regression_rows(found["label"], found["score"], patient, **how)
    elif task == "survival":
        time, event = scores.from_signed(found["label"])
        rows = scores.survival_rows(found["score"], time, event, patient, **how)
    rows = [row for row in rows if row["name"] in SHOWN[task]]
    again = scores.ranking_rows(found["embedding"], patient, ks=(1,), **how)
    rows += [row for row in again if row["name"] == AGAIN]
    return [row | ({"estimate": None} if row["lo"] is None else {}) for row in rows]


def _trained(run: str, own: str) -> tuple[set[str], set[str]]:
    """Layouts that fine-tuning drew, and those that the pretraining before it drew."""
    config = configured(run)
    if "label" not in config:  # a pretraining
        return set(), _views(config)
    tuned = _views(config) if config.get("draw") == "anew" else {own}
    init = str(config.get("init") or "")
    return tuned, _views(configured(init)) if init else set()


def _views(config: dict[str, Any]) -> set[str]:
    return {str(name) for name in (config.get("views") or {}).get("layouts") or ()}


def _drawn(layout: str, known: set[str]) -> bool:
    """An order of leads counts as drawn where other orders were."""
    return layout in known or layout.partition(":")[0] in known
