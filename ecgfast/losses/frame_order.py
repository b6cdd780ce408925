"""Cross entropy of which order the frames of a clip were shown in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.ops import gather

UNKNOWN = -1  # the code of a clip whose order nobody can tell


class FrameOrderLoss(nn.Module):
    """Mean cross entropy over the clips that have an order, 0 where none has.

    With ``gather`` the mean over ranks of the losses, and of their gradients, is that of one
    process on the whole batch, also where ranks have unlike numbers of clips with an order.

    Args:
        gather: Count the clips of all ranks.

    Example:
        >>> FrameOrderLoss()(torch.zeros(3, 24), torch.tensor([5, UNKNOWN, 0]))
        tensor(3.1781)
    """

    def __init__(self, gather: bool = False) -> None:
        super().__init__()
        self.gather = gather

    def forward(self, logits: Tensor, code: Tensor) -> Tensor:
        """The loss of logits ``(N, F!)`` and codes ``(N,)`` int64, -1 where there is no order."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = nn.functional.cross_entropy(logits, code, ignore_index=UNKNOWN, reduction="sum")
        count = (code != UNKNOWN).sum()[None]
        every = gather(count) if self.gather else count
        return total * len(every) / every.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"gather={self.gather}"
