"""What methods say of records and views: which of them count, how alike they are."""

from __future__ import annotations

import torch
from torch import Tensor


def view_labels(own: Tensor, index: Tensor, ecg: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of two views of each record, equal where they are positives of each other.

    A record without a single sample has nothing to attract: its views get labels that nothing else
    has. They are negative, as numbers of records are not; a patient's code, a hash of 64 bits,
    is one of them with a chance of the number of records over 2^63.

    Args:
        own: Labels ``(N,)`` int64: what the records are, or whose.
        index: Numbers of the records ``(N,)`` int64, of all ranks different ones.
        ecg: Prepared signals ``(N, L, T)``, NaN where nothing was recorded.

    Returns:
        Labels ``(N,)`` of the first views, and of the second.
    """
    empty = blank(ecg)
    return torch.where(empty, -1 - 2 * index, own), torch.where(empty, -2 - 2 * index, own)


def blank(ecg: Tensor) -> Tensor:
    """Which of the records ``(N, ...)`` have not a single sample, ``(N,)``."""
    return ~ecg.isfinite().flatten(1).any(dim=1)


def spread(embeddings: Tensor) -> dict[str, Tensor]:
    """What tells a collapse: the mean over columns of the standard deviation ``(N, D) -> ()``."""
    return {"embedding_std": embeddings.detach().float().std(dim=0).mean()}


def similarity(ones: Tensor, others: Tensor) -> dict[str, Tensor]:
    """Mean cosine of the two views of a record, and of a record's view and another's other view.

    Args:
        ones: Projections of first views ``(N, P)``.
        others: Those of the second views of the same records ``(N, P)``.
    """
    ones, others = (torch.nn.functional.normalize(v.detach().float()) for v in (ones, others))
    own = (ones * others).sum(dim=1)
    every = torch.dot(ones.sum(dim=0), others.sum(dim=0))  # of N^2 pairs, without a matrix of them
    count = len(own)
    return {
        "similarity": own.mean(),
        "similarity_others": (every - own.sum()) / max(1, count * (count - 1)),
    }
