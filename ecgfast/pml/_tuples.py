"""Which pairs and triplets: from labels, and from what a miner listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]  # anchors, positives, anchors, negatives
Triplets = tuple[Tensor, Tensor, Tensor]  # anchors, positives, negatives


def refuse_statistics(collect_stats: bool | None) -> None:
    """Says early that an attribute will not be there, instead of leaving it at 0."""
    if collect_stats:
        raise ValueError("collect_stats=True is not supported: ecgfast.pml collects no statistics")


def relations(labels: Tensor, ref_labels: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs as masks ``(N, M)``; at ``places`` is the anchor itself."""
    same = labels[:, None] == ref_labels
    positive = same
    if places is not None:
        positive = same & (torch.arange(len(ref_labels), device=labels.device) != places[:, None])
    return positive, ~same


def all_pairs(labels: Tensor, ref_labels: Tensor, places: Tensor | None) -> Pairs:
    """Lists all positive and all negative pairs, in the order of the anchors."""
    positive, negative = relations(labels, ref_labels, places)
    return (*positive.nonzero().unbind(1), *negative.nonzero().unbind(1))  # type: ignore[return-value]


def as_pairs(indices: Sequence[Tensor]) -> Pairs:
    """Triplets as pairs, which repeat as often as the triplets have them; pairs as they are."""
    if len(indices) == 4:
        return tuple(indices)  # type: ignore[return-value]
    anchors, positives, negatives = indices
    return anchors, positives, anchors, negatives


def as_triplets(indices: Sequence[Tensor]) -> Triplets:
    """Every positive pair with every negative pair of its anchor; triplets as they are.

    Memory is that of the result: no table of positive pairs by negative pairs is made.
    """
    if len(indices) == 3:
        return tuple(indices)  # type: ignore[return-value]
    anchors, positives, others, negatives = indices
    order = others.argsort(stable=True)
    sorted_others = others[order]
    first = torch.searchsorted(sorted_others, anchors)
    count = torch.searchsorted(sorted_others, anchors, right=True) - first
    pair = torch.repeat_interleave(torch.arange(len(anchors), device=anchors.device), count)
    before = count.cumsum(0) - count
    rank = torch.arange(len(pair), device=anchors.device) - before[pair]
    return anchors[pair], positives[pair], negatives[order[first[pair] + rank]]


def all_triplets(labels: Tensor, ref_labels: Tensor, places: Tensor | None) -> Triplets:
    """Lists all triplets: anchor by anchor, positives outside, negatives inside."""
    return as_triplets(all_pairs(labels, ref_labels, places))


def drawn_triplets(
    labels: Tensor, ref_labels: Tensor, places: Tensor | None, per_anchor: int
) -> Triplets:
    """Draws ``per_anchor`` triplets, with replacement, of every anchor that has any."""
    positive, negative = relations(labels, ref_labels, places)
    anchors = (positive.any(dim=1) & negative.any(dim=1)).nonzero()[:, 0]
    if not len(anchors):
        return anchors, anchors, anchors
    drawn = [
        torch.multinomial(mask[anchors].float(), per_anchor, replacement=True).flatten()
        for mask in (positive, negative)
    ]
    return anchors.repeat_interleave(per_anchor), drawn[0], drawn[1]


def checked(
    indices: Sequence[Tensor], rows: int, references: int, device: torch.device
) -> tuple[Tensor, ...]:
    """What a miner gave, as int64 on the device of the embeddings.

    Raises:
        ValueError: If these are not three lists of one length, or two times two.
        IndexError: If an index lies outside; on the CPU, where looking costs nothing.
    """
    if len(indices) not in (3, 4):
        raise ValueError(
            "indices_tuple must be (anchors, positives, negatives) or (anchors, positives,"
            f" anchors, negatives), got {len(indices)} lists"
        )
    lists = tuple(x.to(device=device, dtype=torch.int64) for x in indices)
    lengths = [len(x) for x in lists]
    matched = len(set(lengths)) == 1 if len(lists) == 3 else lengths[::2] == lengths[1::2]
    if not matched or any(x.dim() != 1 for x in lists):
        raise ValueError(
            "the lists of indices_tuple do not match: they have the shapes"
            f" {[tuple(x.shape) for x in lists]}"
        )
    if device.type == "cpu":
        limits = (rows, references, references if len(lists) == 3 else rows, references)
        for which, (x, limit) in enumerate(zip(lists, limits, strict=False)):
            wrong = ((x < 0) | (x >= limit)).nonzero()
            if len(wrong):
                raise IndexError(
                    f"indices_tuple[{which}] has {len(wrong)} of {len(x)} indices outside of"
                    f" [0, {limit}), the first at {wrong[0].item()}: {x[wrong[0]].item()}"
                )
    return lists


def needs_euclidean(whom: object, distance: Any) -> None:
    """Refuses a distance other than the Euclidean one of rows at length 1."""
    found = (distance.p, distance.power, distance.normalize_embeddings, distance.is_inverted)
    if found != (2, 1, True, False):
        raise ValueError(
            f"{type(whom).__name__} needs LpDistance(p=2, power=1, normalize_embeddings=True),"
            f" got {distance}"
        )
