"""Which videos of a study are paired, and whether a video meets itself at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.config.clips import MOST_FRAMES
from ecgfast.data.moments import MomentSampler
from ecgfast.data.sampler import Lists, StepSampler


def pairs_within(group: NDArray[np.int64], *, own: bool = False) -> NDArray[np.int64]:
    """Every unordered pair of members of a group, ``(P, 2)``; n members have n (n - 1) / 2.

    Args:
        group: Of each video ``(N,)``.
        own: A video is a pair with itself, too. One that is alone in its group always is.

    Example:
        >>> pairs_within(np.array([5, 7, 5, 5])).tolist()
        [[1, 1], [0, 2], [0, 3], [2, 3]]
    """
    lists = Lists.of_groups(group)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for size in np.unique(lists.lengths):
        starts = lists.starts[:-1][lists.lengths == size]
        one, other = np.triu_indices(size, k=0 if own or size == 1 else 1)
        places = starts[:, None, None] + np.stack([one, other], axis=1)
        found.append(lists.members[places].reshape(-1, 2))
    return np.concatenate(found)


class ListedPairs:
    """An endless stream of batches of listed pairs: all anchors come first, then their partners.

    A step takes ``batch_size // 2`` pairs as :class:`StepSampler` deals them, so that each comes
    once an epoch. The ranks together take the pairs that one process of their global batch would.

    Args:
        pairs: ``(P, 2)``.
        batch_size: Videos a step and process, even.
        **how: As of ``StepSampler``: seed, rank, world_size, start_step.

    Raises:
        ValueError: The batch size is odd, or one global batch needs more pairs than there are.

    Example:
        >>> sorted(ListedPairs(np.array([[0, 1], [2, 3]]), 4, seed=0).batch(0))
        [0, 1, 2, 3]
    """

    def __init__(self, pairs: NDArray[np.int64], batch_size: int, **how: Any) -> None:
        if batch_size % 2 or batch_size < 2:
            raise ValueError(f"pairs need an even batch size of 2 or more, got {batch_size}")
        self.pairs = pairs
        self.order = StepSampler(len(pairs), batch_size // 2, **how)
        self.start_step = self.order.start_step

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches that the pairs fill."""
        return self.order.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Anchors, then their partners, that this rank reads at a step."""
        videos: list[int] = self.pairs[self.order.batch(step)].T.ravel().tolist()
        return videos

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1


class OneMoment(MomentSampler):
    """Moments of pairs where a video that is paired with itself shows the same frames twice."""

    def batch(self, step: int) -> list[int]:
        """As of the base: anchors, then their partners."""
        anchors, partners = np.array(super().batch(step), dtype=np.int64).reshape(2, -1)
        itself = anchors // MOST_FRAMES == partners // MOST_FRAMES
        return [*anchors.tolist(), *np.where(itself, anchors, partners).tolist()]
