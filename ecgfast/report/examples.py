"""Which ECGs a page shows, and what it says of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgfast.report.contents import Evaluation
from ecgfast.report.words import quantity


def choose(evaluation: Evaluation, count: int) -> list[tuple[str, str, str]]:
    """Kind, record and words: the nearest and the furthest off; of classes, both in turn.

    Of a hazard the highest and the lowest: of a time that was cut off nobody knows how far off.
    """
    found = evaluation.predictions
    ids = [str(name) for name in found["record_id"]]
    if not len(found.get("score", ())):
        return [("typical", name, name) for name in ids[:count]]
    label, score = np.asarray(found["label"], float), np.asarray(found["score"], float)
    if evaluation.facts["task"] == "survival":
        ranked = np.argsort(-score, kind="stable")
        count = min(count, len(ranked) // 2)
        ends = (("high", ranked[:count]), ("low", ranked[::-1][:count]))
        return [(kind, ids[i], told(evaluation, i)) for kind, some in ends for i in some]
    order = np.argsort(np.abs(label - score), kind="stable")
    count = min(count, len(order) // 2)
    classes = evaluation.facts["task"] == "classification"
    name, unit = quantity(str(evaluation.facts["label"]))
    after = f" {unit}" if unit else ""

    def words(i: int) -> str:
        text = f"measured {name} {label[i]:.1f}{after}, predicted {score[i]:.1f}{after}"
        if classes:
            text = f"label {label[i]:.0f}, score {score[i]:.3f}"
        known = {k: float(found[k][i]) for k in ("sex", "age") if k in found}
        if np.isfinite(known.get("sex", np.nan)):
            text += "; male" if known["sex"] == 1 else "; female"
        if np.isfinite(known.get("age", np.nan)):
            text += f", {known['age']:.0f} years"
        return text

    chosen = []
    for kind, ranked in (("best", order), ("worst", order[::-1])):
        if classes:
            ranked = _in_turn(ranked, label)
        chosen += [(kind, ids[i], words(i)) for i in ranked[:count]]
    return chosen


def told(evaluation: Evaluation, i: int) -> str:
    """What is known of a record, for below its picture."""
    found, facts = evaluation.predictions, evaluation.facts
    name, unit = quantity(str(facts.get("label")))
    parts = []
    if facts["task"] == "multiclass":
        parts.append(str(facts["classes"][int(found["label"][i])]))
    elif "value" in found or facts["task"] == "regression":
        parts.append(f"{name} {found.get('value', found['label'])[i]:.1f} {unit}".strip())
    elif facts["task"] == "survival":
        parts.append(_outcome(evaluation, i))
    elif "label" in found:
        parts.append(f"label {found['label'][i]:.0f}")
    if "score" in found:
        score = float(found["score"][i])
        said = {"regression": f"predicted {score:.1f}", "survival": f"log hazard {score:.2f}"}
        parts.append(said.get(facts["task"], f"score {score:.2f}"))
    known = {k: float(found[k][i]) for k in ("sex", "age") if k in found}
    people = []
    if np.isfinite(known.get("sex", np.nan)):
        people.append("male" if known["sex"] == 1 else "female")
    if np.isfinite(known.get("age", np.nan)):
        people.append(f"{known['age']:.0f} years")
    return "; ".join([*parts, ", ".join(people)]).strip("; ")


def _outcome(evaluation: Evaluation, i: int) -> str:
    """When the event came, or how long there was none."""
    found, told = evaluation.predictions, evaluation.facts["survival"]
    unit = f" {told['unit']}" if told["unit"] else ""
    if found["event"][i]:
        return f"{told['event']} after {found['time'][i]:g}{unit}"
    return f"followed for {found['time'][i]:g}{unit} without {told['event']}"


def _in_turn(order: NDArray[np.int64], label: NDArray[np.float64]) -> NDArray[np.int64]:
    """One of each class after the other, as long as there are both."""
    rank = np.empty(len(order))
    for which in (1, 0):
        mine = np.flatnonzero(label[order] == which)
        rank[mine] = np.arange(len(mine)) + (0 if which else 0.5)
    return order[np.argsort(rank, kind="stable")]
