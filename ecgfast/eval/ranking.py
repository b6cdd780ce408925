"""Whether the nearest embeddings belong to the same patient, or carry the same label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ecgfast import ops
from ecgfast.eval.bootstrap import Floats, replicate, row

ROWS = 512  # queries held at a time


def recall_at_k(
    embeddings: ArrayLike,
    group: ArrayLike,
    *,
    ks: Sequence[int] = (1, 5),
    exclude: ArrayLike | None = None,
) -> tuple[dict[int, Floats], dict[int, Floats]]:
    """Chance that one of the k nearest other records is of the same group, for each record.

    A query is never its own neighbour. Equal distances are broken by lot, and the value is the
    expectation over the lots: an encoder that has collapsed to one point scores what chance does,
    and not what the order of the records would give.

    Args:
        embeddings: ``(N, D)``, compared by squared Euclidean distance.
        group: ``(N,)`` what has to agree.
        ks: Neighbours to look at.
        exclude: ``(N,)`` records that share this value with the query are no neighbours, as in
            asking for the same label from other patients.

    Returns:
        For each k ``(N,)`` values in [0, 1], NaN for a record that has nobody to be found; and the
        same for neighbours drawn by lot.

    Raises:
        ValueError: If shapes do not fit, or an embedding is not finite.
    """
    x = np.ascontiguousarray(np.asarray(embeddings, np.float32))
    codes = np.unique(np.asarray(group), return_inverse=True)[1].reshape(-1)
    others = np.arange(len(x)) if exclude is None else np.asarray(exclude)
    if x.ndim != 2 or len(codes) != len(x) or len(others) != len(x):
        raise ValueError(f"embeddings (N, D) and ids (N,) must fit: {x.shape}, {codes.shape}")
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(wrong):
        raise ValueError(f"{len(wrong)} of {len(x)} embeddings are not finite (first: {wrong[0]})")
    found = {k: np.full(len(x), np.nan) for k in ks}
    chance = {k: np.full(len(x), np.nan) for k in ks}
    gallery = torch.from_numpy(x)
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        allowed = others[rows, None] != others
        distance = ops.pairwise_distance(gallery[rows], gallery, metric="sqeuclidean").numpy()
        distance[~allowed] = np.inf
        match = (codes[rows, None] == codes) & allowed
        askable = match.any(axis=1)
        for k in ks:
            found[k][rows] = np.where(askable, expected_hit(distance, match, k), np.nan)
            every = np.where(allowed, 0.0, np.inf)
            chance[k][rows] = np.where(askable, expected_hit(every, match, k), np.nan)
    return found, chance


def expected_hit(distance: Floats, match: NDArray[np.bool_], k: int) -> Floats:
    """Chance of a match among the k nearest ``(Q,)``, over lots that break ties."""
    k = min(k, distance.shape[1])
    kth = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    nearer, tied = distance < kth, (distance == kth) & np.isfinite(distance)
    sure = (nearer & match).any(axis=1)
    # of the tied, `take` are drawn: all miss with probability C(blank, take) / C(tied, take)
    count, hits = tied.sum(axis=1), (tied & match).sum(axis=1)
    take = np.minimum(k - nearer.sum(axis=1), count)
    blank = count - hits
    miss = np.where(
        take > blank,
        0.0,
        np.exp(_log_choose(blank, np.minimum(take, blank)) - _log_choose(count, take)),
    )
    return np.where(sure, 1.0, 1 - miss)


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> Floats:
    whole, part, rest = (torch.lgamma(torch.from_numpy(i + 1.0)) for i in (n, k, n - k))
    return (whole - part - rest).numpy()


def ranking_rows(
    embeddings: ArrayLike,
    patient: ArrayLike,
    *,
    label: ArrayLike | None = None,
    ks: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Recall at k for the same patient, and for the same label among other patients.

    Queries are resampled, by patient; what they are compared with stays whole, because a draw that
    holds a patient twice would find each record's own copy at distance 0.

    Args:
        embeddings: ``(N, D)``.
        patient: ``(N,)`` ids.
        label: ``(N,)`` classes; None leaves them out.
        ks: Neighbours to look at.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them; n counts the queries that have somebody to
        find, and ``chance`` is the value of neighbours drawn by lot.
    """
    patient = np.asarray(patient)
    tasks: dict[str, tuple[ArrayLike, ArrayLike | None]] = {"patient": (patient, None)}
    if label is not None:
        tasks["label"] = (label, patient)
    rows = []
    for task, (group, exclude) in tasks.items():
        found, chance = recall_at_k(embeddings, group, ks=ks, exclude=exclude)
        for k in ks:
            asked = np.isfinite(found[k])
            name = f"recall_at_{k}_{task}"
            if not asked.any():
                why = f"no record has another of the same {task} to find"
                none = np.full(draws, np.nan)
                line = row(name, np.nan, none, patient[asked], level=level, undefined=why)
                rows.append(line | {"chance": None})
                continue
            hits = found[k][asked]

            def of(weights: Floats, hits: Floats = hits) -> Mapping[str, Floats]:
                return {"recall": weights @ hits / weights.sum(axis=1)}

            values = replicate(of, patient[asked], draws=draws, seed=seed)["recall"]
            line = row(name, float(hits.mean()), values, patient[asked], level=level)
            rows.append(line | {"chance": float(chance[k][asked].mean())})
    return rows
