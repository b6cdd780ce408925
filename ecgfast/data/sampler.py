"""Which records a step takes: a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray


class StepSampler:
    """An endless stream of batches of indices that can begin at any step.

    The batch of step k depends on the seed, k and the layout of processes, never on what was drawn
    before: a run that resumes at k reads what the uninterrupted run would have read. An epoch is a
    permutation drawn from (seed, epoch); it is cut into global batches of ``batch_size *
    world_size``, each of them into one slice a rank. Within an epoch no record comes twice, and the
    last records that do not fill a global batch sit out (other ones each epoch).

    It has no length: the trainer counts steps, not epochs.

    Args:
        num_records: How many there are.
        batch_size: Records a step and process.
        seed: Of the permutations.
        order: ``shuffled``, or ``fixed``: the records as they lie, the same batches every epoch.
        rank: Of this process.
        world_size: How many processes there are.
        start_step: The first step that is wanted.

    Raises:
        ValueError: One global batch needs more records than there are.

    Example:
        >>> StepSampler(6, 2, seed=0, order="fixed").batch(4)
        [2, 3]
    """

    def __init__(
        self,
        num_records: int,
        batch_size: int,
        *,
        seed: int,
        order: Literal["shuffled", "fixed"] = "shuffled",
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if order not in ("shuffled", "fixed"):
            raise ValueError(f"order must be shuffled or fixed, got {order}")
        if batch_size < 1 or start_step < 0 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size must be positive, start_step >= 0 and 0 <= rank < world_size, "
                f"got {batch_size}, {start_step} and rank {rank} of {world_size}"
            )
        if num_records < batch_size * world_size:
            raise ValueError(
                f"a step takes {batch_size} records on each of {world_size} process(es), "
                f"there are only {num_records}: lower the batch size or add records"
            )
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.order = order
        self.rank = rank
        self.world_size = world_size
        self.start_step = start_step
        self._permutation = lru_cache(maxsize=1)(self._draw)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches that the records fill."""
        return self.num_records // (self.batch_size * self.world_size)

    def batch(self, step: int) -> list[int]:
        """Indices that this rank reads at a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        begin = (place * self.world_size + self.rank) * self.batch_size
        indices: list[int] = self._permutation(epoch)[begin : begin + self.batch_size].tolist()
        return indices

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        if self.order == "fixed":
            return np.arange(self.num_records)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_records)
