"""What neighbours have in common: patients, labels; and who is a neighbour of a great many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.neighbours import Neighbours

Floats = NDArray[np.float64]
RANDOM_GRAPHS = 20  # that say how large the largest hub is by chance


def purity(
    graph: Neighbours,
    patient: NDArray[np.int64],
    label: Floats | None = None,
    *,
    threshold: float = 18.0,
    copies: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Says how alike neighbours are, each number with its ``n`` and what ``chance`` would give.

    Args:
        graph: Of N records.
        patient: ``(N,)``; -1 where nobody knows.
        label: ``(N,)``, NaN where missing.
        threshold: Two labels agree if both are above it or both are not.
        copies: ``(N,)``; records of one number are copies, which no neighbour can be.

    Returns:
        ``same_patient``: share of nearest records of the own patient, among records whose patient
        has another one that could be found. ``label``: the same of the labels' mean absolute
        difference and agreement, of the nearest record of all and of the nearest of another
        patient. ``largest_hub``, ``largest_far_hub``: most records that have one and the same
        among their K nearest, or farthest; ``mean`` is K, ``chance`` the largest in random graphs.
    """
    found: dict[str, Any] = {"same_patient": _same_patient(graph, patient, copies)}
    found["largest_hub"] = _hub(graph.nearest)
    found["largest_far_hub"] = _hub(graph.farthest)
    if label is not None:
        first = graph.nearest[:, 0] if graph.nearest.shape[1] else np.full(len(label), -1)
        found["label"] = {
            "nearest": _labels(first, label, threshold),
            "nearest_of_another_patient": _labels(_of_another(graph, patient), label, threshold),
        }
    return found


def lines(found: dict[str, Any], label: str = "") -> list[str]:
    """The same in words."""
    same = found["same_patient"]
    text = [
        f"nearest is of the same patient: {_said(same['share'])} of {same['n']} records whose "
        f"patient has another (chance {_said(same['chance'])})"
    ]
    whose = {
        "nearest": "nearest",
        "nearest_of_another_patient": "nearest of another patient",
    }
    for name, values in found.get("label", {}).items():
        text.append(
            f"{whose[name]}: |difference| of {label} {_said(values['difference'], '.3g')} "
            f"(chance {_said(values['chance_difference'], '.3g')}), same side of "
            f"{values['threshold']:g} {_said(values['same_side'])} (chance "
            f"{_said(values['chance_same_side'])}), {values['n']} pairs"
        )
    for name, words in (("largest_hub", "nearest"), ("largest_far_hub", "farthest")):
        hub = found[name]
        text.append(
            f"largest hub: one record is among the {hub['mean']:.3g} {words} of {hub['most']} of "
            f"{hub['n']} (chance {hub['chance']:.3g})"
        )
    return text


def _same_patient(
    graph: Neighbours, patient: NDArray[np.int64], copies: NDArray[np.int64] | None
) -> dict[str, Any]:
    n = len(patient)
    known = patient >= 0
    names, counts = np.unique(patient[known], return_counts=True)
    own = np.zeros(n)
    own[known] = counts[np.searchsorted(names, patient[known])]
    # the record itself, and its copies, cannot be found
    taken = np.ones(n, dtype=np.int64) if copies is None else np.bincount(copies)[copies]
    others = np.where(known, own - taken, 0)
    first = graph.nearest[:, 0]
    asked = (others > 0) & (first >= 0)
    hits = patient[first[asked]] == patient[asked]
    return {
        "n": int(asked.sum()),
        "share": _mean(hits),
        "chance": _mean(others[asked] / np.maximum(n - taken[asked], 1)),
    }


def _of_another(graph: Neighbours, patient: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first neighbour that is not of the own patient; -1 where all of them are."""
    rows = graph.nearest
    theirs = patient[np.maximum(rows, 0)]
    other = (rows >= 0) & ((theirs != patient[:, None]) | (patient[:, None] < 0))
    first = np.where(other.any(axis=1), other.argmax(axis=1), 0)
    chosen = rows[np.arange(len(rows)), first]
    return np.where(other.any(axis=1), chosen, -1)


def _labels(row: NDArray[np.int64], label: Floats, threshold: float) -> dict[str, Any]:
    theirs = np.where(row >= 0, label[np.maximum(row, 0)], np.nan)
    both = np.isfinite(label) & np.isfinite(theirs)
    known = np.sort(label[np.isfinite(label)])
    n = len(known)
    pairs = n * (n - 1) / 2
    # of all pairs: each value counts with how many lie below it less how many above
    spread = float((known * (2 * np.arange(n) - n + 1)).sum() / pairs) if pairs else None
    above = int((known > threshold).sum())
    alike = (above * (above - 1) + (n - above) * (n - above - 1)) / 2
    return {
        "n": int(both.sum()),
        "difference": _mean(np.abs(label - theirs)[both]),
        "chance_difference": spread,
        "threshold": threshold,
        "same_side": _mean(((label > threshold) == (theirs > threshold))[both]),
        "chance_same_side": alike / pairs if pairs else None,
    }


def _hub(rows: NDArray[np.int64]) -> dict[str, Any]:
    n = len(rows)
    times = np.bincount(rows[rows >= 0], minlength=n)
    draw = np.random.default_rng(0)
    total = int((rows >= 0).sum())
    chance = [
        np.bincount(draw.integers(n, size=total)).max(initial=0) for _ in range(RANDOM_GRAPHS)
    ]
    return {
        "n": int((rows >= 0).any(axis=1).sum()),
        "most": int(times.max(initial=0)),
        "record": int(times.argmax()),
        "mean": total / n,
        "chance": float(np.mean(chance)),
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _said(value: float | None, form: str = ".3f") -> str:
    return "unknown" if value is None else f"{value:{form}}"
