"""Losses of time to an event."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfast.ops import cox_loss, gather


class CoxLoss(nn.Module):
    """Negative partial log-likelihood by event: see :func:`ecgfast.ops.cox_loss`.

    Rows are compared within the batch; with ``gather=True`` within the batches of all ranks, of
    which each must have as many rows, and every rank gives the loss of them all: its gradient, as
    DistributedDataParallel takes it, is that of one process on the whole batch. A row whose time is
    NaN takes no part. A batch without an event gives 0 with a zero gradient; draw batches that hold
    events.

    Args:
        ties: Rule for events at one time, ``"efron"`` or ``"breslow"``.
        gather: Compare with the rows of all ranks.

    Example:
        >>> import torch
        >>> CoxLoss()(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
        tensor(0.6931)
    """

    def __init__(self, ties: str = "efron", gather: bool = False) -> None:
        super().__init__()
        if ties not in ("efron", "breslow"):
            raise ValueError(f"ties must be 'efron' or 'breslow', got {ties!r}")
        self.ties = ties
        self.gather = gather

    def forward(self, log_hazard: Tensor, time: Tensor, event: Tensor) -> Tensor:
        """The loss ``()`` of log hazards, times and events, ``(N,)`` each."""
        if self.gather:
            log_hazard, time, event = (gather(rows) for rows in (log_hazard, time, event))
        known = ~time.isnan()
        # censored at the start: in the risk set of no event, as events come after it
        time, event = time.where(known, 0.0), event.bool() & known
        return cox_loss(log_hazard.where(known, 0.0), time, event, ties=self.ties)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"ties={self.ties!r}, gather={self.gather}"
