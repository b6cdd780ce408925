"""Losses of time to an event."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfast.ops import cox_loss


class CoxLoss(nn.Module):
    """Negative partial log-likelihood by event: see :func:`ecgfast.ops.cox_loss`.

    Rows are compared within the batch, those of other ranks are not seen. A batch without an event
    gives 0 with a zero gradient; draw batches that hold events.

    Args:
        ties: Rule for events at one time, ``"efron"`` or ``"breslow"``.

    Example:
        >>> import torch
        >>> CoxLoss()(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
        tensor(0.6931)
    """

    def __init__(self, ties: str = "efron") -> None:
        super().__init__()
        if ties not in ("efron", "breslow"):
            raise ValueError(f"ties must be 'efron' or 'breslow', got {ties!r}")
        self.ties = ties

    def forward(self, log_hazard: Tensor, time: Tensor, event: Tensor) -> Tensor:
        """The loss ``()`` of log hazards, times and events, ``(N,)`` each."""
        return cox_loss(log_hazard, time, event, ties=self.ties)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"ties={self.ties!r}"
