"""Orders of the frames of a clip, as numbers: what a network learns to tell apart."""

from __future__ import annotations

import math
from itertools import permutations

import torch
from torch import Tensor, nn

FEWEST, MOST = 2, 6  # frames: 2 to 720 orders


def frame_orders(frames: int) -> Tensor:
    """All orders of some frames, ``(F!, F)`` int64, lexicographic; the first is the true one.

    Shown frame i is true frame ``order[i]``.

    Raises:
        ValueError: Frames are fewer than 2 or more than 6.

    Example:
        >>> frame_orders(3).tolist()
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    """
    _check(frames)
    return torch.tensor(list(permutations(range(frames))))


def order_code(order: Tensor) -> Tensor:
    """The place of each order ``(N, F)`` among all of them, ``(N,)`` int64: its Lehmer code.

    Raises:
        ValueError: A row is not an order of 0 to F - 1, or F is not 2 to 6.

    Example:
        >>> order_code(torch.tensor([[0, 1, 2], [2, 0, 1]]))
        tensor([0, 4])
    """
    if order.dim() != 2 or order.is_floating_point():
        raise ValueError(f"order must be whole numbers (N, F), got {tuple(order.shape)}")
    frames = order.shape[1]
    _check(frames)
    wrong = (order.sort(dim=1).values != torch.arange(frames, device=order.device)).any(dim=1)
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {len(order)} rows are no order of 0 to {frames - 1}, the first "
            f"is {order[wrong][0].tolist()}"
        )
    # digit i: how many of the frames that come later are smaller
    smaller = (order[:, None, :] < order[:, :, None]).triu(1).sum(dim=2)
    return (smaller * _weights(frames, order.device)).sum(dim=1)


def order_of(code: Tensor, frames: int) -> Tensor:
    """The orders ``(N, F)`` int64 of codes ``(N,)``; undoes :func:`order_code`.

    Raises:
        ValueError: A code is not 0 to F! - 1, or frames are not 2 to 6.

    Example:
        >>> order_of(torch.tensor([0, 4]), 3).tolist()
        [[0, 1, 2], [2, 0, 1]]
    """
    _check(frames)
    most = math.factorial(frames) - 1
    if code.dim() != 1 or code.is_floating_point():
        raise ValueError(f"code must be whole numbers (N,), got {tuple(code.shape)}")
    wrong = (code < 0) | (code > most)
    if wrong.any():
        raise ValueError(
            f"codes of {frames} frames are 0 to {most}, got {int(code[wrong][0])} in "
            f"{int(wrong.sum())} of {len(code)}"
        )
    return frame_orders(frames).to(code.device)[code]


def inverse(order: Tensor) -> Tensor:
    """The orders ``(N, F)`` that undo orders ``(N, F)``: frames by one, then the other, stay put.

    Example:
        >>> inverse(torch.tensor([[2, 0, 1]]))
        tensor([[1, 2, 0]])
    """
    return order.argsort(dim=1)


class FrameOrders(nn.Module):
    """Draws an order for each clip of a batch, all alike likely, from torch's generator of the CPU.

    The same seed gives the same orders on every device.

    Args:
        frames: F, 2 to 6.

    Example:
        >>> order, code = FrameOrders(4)(8)
        >>> order.shape, bool((order_code(order) == code).all())
        (torch.Size([8, 4]), True)
    """

    orders: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.register_buffer("orders", frame_orders(frames), persistent=False)

    @property
    def count(self) -> int:
        """How many orders there are, F!."""
        return len(self.orders)

    def forward(self, clips: int) -> tuple[Tensor, Tensor]:
        """Orders ``(clips, F)`` and their codes ``(clips,)``, int64."""
        code = torch.randint(self.count, (clips,)).to(self.orders.device)
        return self.orders[code], code


def _check(frames: int) -> None:
    if not FEWEST <= frames <= MOST:
        raise ValueError(f"frames must be {FEWEST} to {MOST} to be put in order, got {frames}")


def _weights(frames: int, device: torch.device) -> Tensor:
    factorials = [math.factorial(frames - 1 - place) for place in range(frames)]
    return torch.tensor(factorials, device=device)
