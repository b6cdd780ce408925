"""What was made of a record before need not be made again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST = 64  # slots of the first allocation


class Kept:
    """Rows that were made of records, by the number of the record, on the records' device.

    The first records that come are kept, until the memory is used up; the rows of all others are
    made every time. Nothing is ever replaced, so a run that goes on from a checkpoint makes the
    same rows: none depends on what came before, as long as ``make`` treats every record alone.

    Args:
        megabytes: Of rows, at most.

    Example:
        >>> kept = Kept(1)
        >>> make = lambda ecg: (2 * ecg, ecg[:, 0] > 1)
        >>> kept(torch.tensor([7, 3]), torch.tensor([[1.0], [2.0]]), make)[0].tolist()
        [[2.0], [4.0]]
        >>> kept(torch.tensor([3]), torch.tensor([[0.0]]), make)[1].tolist()  # as it was
        [True]
    """

    def __init__(self, megabytes: int) -> None:
        if megabytes < 1:
            raise ValueError(f"megabytes must be 1 or more, got {megabytes}")
        self.bytes = megabytes * 10**6
        self.slots: dict[int, int] = {}
        self.rows: Tensor | None = None
        self.there: Tensor | None = None

    @torch.no_grad()
    def __call__(
        self, record: Tensor, ecg: Tensor, make: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The rows of records, and which of these have one.

        Args:
            record: ``(N,)`` int64: who each one is.
            ecg: ``(N, ...)``, what rows are made of where none is kept.
            make: From so many records to ``(M, ...)`` rows and ``(M,)`` bool.
        """
        numbers = record.tolist()
        new = [place for place, number in enumerate(numbers) if number not in self.slots]
        if len(new) == len(numbers):  # of an empty batch, too: its rows have a shape
            rows, there = make(ecg)
            self._keep(numbers, rows, there)
            return rows, there
        assert self.rows is not None
        assert self.there is not None
        slots = torch.tensor([self.slots.get(n, 0) for n in numbers], device=self.rows.device)
        rows, there = self.rows[slots], self.there[slots]
        if new:
            places = torch.tensor(new, device=ecg.device)
            made, valid = make(ecg[places])
            rows[places], there[places] = made, valid
            self._keep([numbers[place] for place in new], made, valid)
        return rows, there

    def _keep(self, numbers: list[int], rows: Tensor, there: Tensor) -> None:
        """Puts as many rows away as there is room for, a copy of a record once."""
        each = max(1, rows[0].nbytes) if len(rows) else 1
        room = self.bytes // each - len(self.slots)
        first = {number: place for place, number in reversed(list(enumerate(numbers)))}
        taken = sorted(first.values())[: max(0, room)]
        if not taken:
            return
        begin, end = len(self.slots), len(self.slots) + len(taken)
        self._grow(end, self.bytes // each, rows, there)
        assert self.rows is not None
        assert self.there is not None
        self.rows[begin:end], self.there[begin:end] = rows[taken], there[taken]
        self.slots.update({numbers[place]: begin + i for i, place in enumerate(taken)})

    def _grow(self, least: int, most: int, rows: Tensor, there: Tensor) -> None:
        have = 0 if self.rows is None else len(self.rows)
        if least <= have:
            return
        size = min(most, max(least, 2 * have, LEAST))
        wider = rows.new_empty((size, *rows.shape[1:])), there.new_empty(size)
        if self.rows is not None and self.there is not None:
            wider[0][:have], wider[1][:have] = self.rows, self.there
        self.rows, self.there = wider
