"""Says so when a miner finds nothing: a loss of 0 looks like success."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


class EmptyWatch:
    """Warns when no anchor has had a triplet for many steps in a row.

    The count lies on the device and is looked at once every ``patience`` steps, which is when the
    device is waited for; a run of empty steps is found at the next look, also if it has ended by
    then. It is no module and has no state to save.

    Args:
        patience: So many empty steps in a row are worth a warning; and between two looks.

    Example:
        >>> watch = EmptyWatch()
        >>> for _ in range(49):
        ...     watch(torch.zeros(8, dtype=torch.bool))
        >>> watch(torch.ones(8, dtype=torch.bool))  # just in time
    """

    def __init__(self, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.patience = patience
        self._steps = 0
        self._counts: Tensor | None = None  # empty steps up to now, most of them, and of whom

    @torch.no_grad()
    def __call__(
        self,
        valid: Tensor,
        *,
        has_positive: Tensor | None = None,
        has_negative: Tensor | None = None,
    ) -> None:
        """Takes note of a step.

        Args:
            valid: ``(K,)`` bool, which triplets count, as the miner says.
            has_positive: ``(N,)`` bool, which anchors have a positive in the batch, if known.
            has_negative: ``(N,)`` bool, likewise.
        """
        counts = self._counts
        if counts is None or counts.device != valid.device:
            counts = torch.zeros(5, dtype=torch.int64, device=valid.device)
        empty = ~valid.any()
        run = torch.where(empty, counts[0] + 1, 0)
        unknown = run.new_full((), -1)
        lacking = [unknown if has is None else (~has).sum() for has in (has_positive, has_negative)]
        last = torch.stack([run.new_full((), len(valid)), *lacking])
        self._counts = torch.cat(
            [
                torch.stack([run, torch.maximum(run, counts[1])]),
                torch.where(empty, last, counts[2:]),
            ]
        )
        self._steps += 1
        if self._steps % self.patience == 0:
            self._look()

    def _look(self) -> None:
        assert self._counts is not None
        run, longest, anchors, no_positive, no_negative = self._counts.tolist()
        self._counts[1] = run
        if longest < self.patience:
            return
        known = [
            f"{count} have no {what}"
            for count, what in ((no_positive, "positive"), (no_negative, "negative"))
            if count >= 0
        ]
        why = ", ".join(known) if known else "the miner does not say why"
        warnings.warn(
            f"0 of {anchors} anchors have had a triplet for {longest} steps in a row: {why}. The"
            " loss is 0 and nothing is learnt. Look for batches too small or of a single label,"
            " labels that never repeat, NaN in the records or embeddings, or a miner whose bounds"
            " leave nobody",
            UserWarning,
            stacklevel=4,
        )
