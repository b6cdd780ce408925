"""What the ops of mine_extreme take and return, and what they compute, in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ecgfast.ops import _pairs
from ecgfast.ops._native import sum_dtype

METRICS = ("euclidean", "cosine")
POSITIVES = ("hardest", "easiest")  # numbered as in contract.h
NEGATIVES = ("hardest", "easiest", "semihard")


class Mined(NamedTuple):
    """One positive and one negative for each anchor.

    Attributes:
        positives: Indices ``(N,)`` int64 into the references, or into the rows themselves.
        negatives: Likewise.
        valid: ``(N,)`` bool. What is not valid points at the anchor itself, at 0 where the anchor
            has no place among the references.
    """

    positives: Tensor
    negatives: Tensor
    valid: Tensor


def batch_hard_reference(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    metric: str = "euclidean",
    normalise: bool = False,
    positive: str = "hardest",
    negative: str = "hardest",
) -> Mined:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    pairs = checked_pairs(
        embeddings,
        labels,
        (references, reference_labels, groups, reference_groups, places),
        (metric, positive, negative),
    )
    rows, row_halves = sides(pairs.rows, metric, normalise)
    columns, column_halves = sides(pairs.columns, metric, normalise)
    apart = (rows[:, None] - columns).to(sum_dtype(rows)).square().sum(dim=-1)
    takes_part = ~row_halves.isnan()[:, None] & ~column_halves.isnan()
    positives, negatives = (relation & takes_part for relation in _pairs.relations(pairs))
    chosen = _of_each_row(apart, positives, farthest=positive == "hardest")
    if negative == "semihard" and len(pairs.columns):
        negatives &= apart > apart.gather(1, chosen.clamp(min=0)[:, None])
    repelled = _of_each_row(apart, negatives, farthest=negative == "easiest")
    return _mined(chosen, repelled, (chosen >= 0) & (repelled >= 0), pairs.places)


def label_distance_reference(
    values: Tensor,
    *,
    reference_values: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    max_gap: float | None = None,
    groups_apart: bool = False,
) -> Mined:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    rows, columns, row_groups, column_groups, places, max_gap = checked_labels(
        values, reference_values, groups, reference_groups, places, max_gap, groups_apart
    )
    gaps = (rows[:, None] - columns).abs()
    others = ~gaps.isnan() & (places[:, None] != torch.arange(len(columns), device=rows.device))
    negatives = others & (row_groups[:, None] != column_groups)
    near = _of_each_row(gaps, negatives if groups_apart else others, farthest=False)
    far = _of_each_row(gaps, negatives, farthest=True)
    valid = (near >= 0) & (far >= 0)
    if len(columns):
        near_gap, far_gap = (gaps.gather(1, i.clamp(min=0)[:, None])[:, 0] for i in (near, far))
        valid &= (near_gap <= max_gap) & (near_gap < far_gap)
    return _mined(near, far, valid, places)


def nearest_farthest_reference(
    distances: Tensor,
    *,
    eligible: Tensor | None = None,
    places: Tensor | None = None,
    k_far: int = 2,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    count, device = distances.shape[1], distances.device
    legal = ~distances.isnan()
    if eligible is not None:
        legal &= eligible
    if places is not None:
        legal &= places[:, None] != torch.arange(count, device=device)
    farthest = torch.full((len(distances), k_far), -1, device=device)
    near = _of_each_row(distances, legal, farthest=False)
    for k in range(k_far):
        farthest[:, k] = _of_each_row(distances, legal, farthest=True)
        legal &= farthest[:, k, None] != torch.arange(count, device=device)
    return near, farthest


def checked_pairs(
    embeddings: Tensor,
    labels: Tensor,
    others: tuple[Tensor | None, ...],
    words: tuple[str, str, str],
) -> _pairs.Pairs:
    for name, word, known in zip(
        ("metric", "positive", "negative"), words, (METRICS, POSITIVES, NEGATIVES), strict=True
    ):
        if word not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")
    references, reference_labels, groups, reference_groups, places = others
    return _pairs.all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )


def checked_labels(
    values: Tensor,
    reference_values: Tensor | None,
    groups: Tensor | None,
    reference_groups: Tensor | None,
    places: Tensor | None,
    max_gap: float | None,
    groups_apart: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
    """Both sides' labels as wide floats, NaN where missing, their groups as int32, places."""
    same = reference_values is None
    columns = values if reference_values is None else reference_values
    for name, side in (("values", values), ("reference_values", columns)):
        if side.dim() != 1:
            raise ValueError(f"{name} must be one label a row, got {tuple(side.shape)}")
        if side.is_complex() or side.dtype == torch.bool:
            raise TypeError(f"{name} must be floats or integers, got {side.dtype}")
    if columns.dtype != values.dtype or columns.device != values.device:
        raise ValueError(
            f"reference_values must be {values.dtype} on {values.device} as values, got"
            f" {columns.dtype} on {columns.device}"
        )
    if max_gap is not None and not max_gap >= 0:
        raise ValueError(f"max_gap must be at least 0, got {max_gap}")
    if (reference_groups is not None) != (not same and groups is not None):
        raise ValueError(
            "reference_groups must be given with groups and reference_values, and only then"
        )
    if places is not None and same:
        raise ValueError("places say where records lie among references: there are no references")
    if groups_apart and groups is None:
        raise ValueError("groups_apart needs groups")
    if groups is not None:
        row_groups, column_groups = _pairs.numbered(
            "groups", groups, reference_groups, values, columns
        )
    else:  # nobody shares one
        row_groups = torch.zeros_like(values, dtype=torch.int32)
        column_groups = torch.ones_like(columns, dtype=torch.int32)
    wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else values.dtype
    wide = wide if wide.is_floating_point else torch.float64
    sides = [side.detach().to(wide) for side in (values, columns)]
    rows, columns = (torch.where(side.isfinite(), side, torch.nan) for side in sides)
    places = _pairs.where(places, values, same)
    return (
        rows,
        columns,
        row_groups,
        column_groups,
        places,
        torch.inf if max_gap is None else max_gap,
    )


def check_distances(
    distances: Tensor, eligible: Tensor | None, places: Tensor | None, k_far: int
) -> None:
    if distances.dim() != 2:
        raise ValueError(f"distances must be (R, M), got {tuple(distances.shape)}")
    if not distances.is_floating_point():
        raise TypeError(f"distances must be of a float dtype, got {distances.dtype}")
    if k_far < 0:
        raise ValueError(f"k_far must be at least 0, got {k_far}")
    if eligible is None:
        return
    if eligible.shape != distances.shape[1:] or eligible.dtype != torch.bool:
        raise ValueError(
            f"eligible must be ({distances.shape[1]},) bool, got {tuple(eligible.shape)}"
            f" {eligible.dtype}"
        )
    if eligible.device != distances.device:
        raise ValueError(
            f"eligible must be on {distances.device} as distances, got {eligible.device}"
        )


def sides(x: Tensor, metric: str, normalise: bool) -> tuple[Tensor, Tensor]:
    """The rows as they are compared, and half their squared lengths; NaN for who takes no part."""
    wide = sum_dtype(x)
    length = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    length = torch.where(length.isfinite(), length, torch.nan)
    if normalise or metric == "cosine":
        # a quotient in float64: a length that float32 does not hold still has a direction
        x = (x / torch.where(length == 0, 1, length)[:, None]).to(wide)
        if metric == "cosine":
            length = torch.where(length == 0, torch.nan, length)
        rounded = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
        length = torch.where(length > 0, rounded, length)
    halves = length.square() / 2
    # so that neither products nor squared distances overflow
    return x, torch.where(halves < torch.finfo(wide).max / 16, halves, torch.nan).to(wide)


def _of_each_row(distances: Tensor, legal: Tensor, *, farthest: bool) -> Tensor:
    """The first of the nearest, or farthest, legal ones; -1 where none is legal."""
    if distances.shape[1] == 0:
        return torch.full(distances.shape[:1], -1, device=distances.device)
    keys = torch.where(legal, -distances if farthest else distances, torch.inf)
    best = legal & (keys == keys.min(dim=1, keepdim=True).values)
    return torch.where(best.any(dim=1), best.int().argmax(dim=1), -1)


def _mined(positives: Tensor, negatives: Tensor, valid: Tensor, places: Tensor) -> Mined:
    itself = places.clamp(min=0)
    positives, negatives = (torch.where(valid, i, itself) for i in (positives, negatives))
    return Mined(positives, negatives, valid)
