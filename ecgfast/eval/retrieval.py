"""Whether what belongs to a query is found among candidates of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats, replicate, row
from ecgfast.eval.ranking import expected_hit


def first_ranks(score: ArrayLike, match: ArrayLike) -> Floats:
    """Rank ``(Q,)`` of the first match of each query, 1 the best; NaN where there is none.

    Equal scores are broken by lot, and the rank is the expectation over the lots.

    Args:
        score: ``(Q, M)`` of candidates, higher means nearer.
        match: ``(Q, M)`` bool, which candidates belong to a query.

    Example:
        >>> first_ranks([[0.9, 0.5, 0.5]], [[False, True, False]])
        array([2.5])
    """
    score, match = np.asarray(score, np.float64), np.asarray(match, bool)
    best = np.where(match, score, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    nearer = (score > best).sum(axis=1)
    tied = score == best
    own = (tied & match).sum(axis=1)
    # of a blanks and b matches in a row drawn by lot, a / (b + 1) blanks come before all matches
    ranks: Floats = 1 + nearer + (tied.sum(axis=1) - own) / (own + 1)
    return np.where(match.any(axis=1), ranks, np.nan)


def retrieval_rows(
    score: ArrayLike,
    match: ArrayLike,
    patient: ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Recall at k and the median rank of the first match, with intervals over patients.

    Queries are resampled; the candidates stay as they are.

    Args:
        score: ``(Q, M)`` of candidates, higher means nearer; equal ones are broken by lot.
        match: ``(Q, M)`` bool, which candidates belong to a query; each query has one.
        patient: ``(Q,)`` ids.
        ks: How many of the nearest to look at.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them, ``recall_at_k`` and ``median_rank``;
        ``chance`` is the value of candidates in an order drawn by lot.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or a query has no match.
    """
    score, match = np.asarray(score, np.float64), np.asarray(match, bool)
    patient = np.asarray(patient)
    if score.ndim != 2 or score.shape != match.shape or len(patient) != len(score):
        raise ValueError(
            f"score and match must be (Q, M), patient (Q,), got {score.shape}, {match.shape} and "
            f"{patient.shape}"
        )
    if not np.isfinite(score).all():
        raise ValueError(
            f"{int((~np.isfinite(score)).sum())} of {score.size} scores are not finite"
        )
    if not match.any(axis=1).all():
        raise ValueError(f"{int((~match.any(axis=1)).sum())} of {len(match)} queries have no match")
    lot = np.zeros_like(score)
    rows = []
    for k in ks:
        hits = expected_hit(-score, match, k)

        def mean(weights: Floats, hits: Floats = hits) -> Mapping[str, Floats]:
            return {"recall": weights @ hits / weights.sum(axis=1)}

        values = replicate(mean, patient, draws=draws, seed=seed)["recall"]
        line = row(f"recall_at_{k}", float(hits.mean()), values, patient, level=level)
        rows.append(line | {"chance": float(expected_hit(lot, match, k).mean())})
    ranks = first_ranks(score, match)

    def middle(weights: Floats) -> Mapping[str, Floats]:
        return {"rank": _medians(ranks, weights)}

    values = replicate(middle, patient, draws=draws, seed=seed)["rank"]
    line = row("median_rank", float(np.median(ranks)), values, patient, level=level)
    rows.append(line | {"chance": float(np.median(first_ranks(lot, match)))})
    return rows


def _medians(values: Floats, weights: Floats) -> Floats:
    """Medians ``(B,)`` of values ``(N,)`` that count as often as weights ``(B, N)`` say."""
    order: NDArray[np.int64] = np.argsort(values, kind="stable")
    counts = np.cumsum(weights[:, order], axis=1)
    total = counts[:, -1:]
    lower = np.argmax(counts >= np.floor((total + 1) / 2), axis=1)
    upper = np.argmax(counts >= np.floor(total / 2) + 1, axis=1)
    found: Floats = (values[order[lower]] + values[order[upper]]) / 2
    return found
