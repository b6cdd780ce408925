"""Rows of past batches as further partners of a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import gather


class Ring(nn.Module):
    """The last rows that were put in, with a number or more for each; the oldest go first.

    Everything is a buffer, also the next slot and how many are filled, so that a checkpoint holds
    all of it. Rows carry no gradient.

    Args:
        size: Slots.
        width: D.
        numbers: Names of int64 columns, such as labels.
        name: Of the buffer of rows.
    """

    next_slot: Tensor
    filled: Tensor

    def __init__(
        self, size: int, width: int, numbers: tuple[str, ...] = (), *, name: str = "embeddings"
    ) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise ValueError(f"a memory must have slots and columns, got {size} x {width}")
        self.size = size
        self.name = name
        self.numbers = numbers
        self.register_buffer(name, torch.zeros(size, width))
        for column in numbers:
            self.register_buffer(column, torch.zeros(size, dtype=torch.int64))
        self.register_buffer("next_slot", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._filled: int | None = 0  # the same on the host; None: not read since a load

    def count(self) -> int:
        """How many slots are filled. Waits for the device once after a checkpoint was loaded."""
        if self._filled is None:
            self._filled = int(self.filled)
        return self._filled

    @torch.no_grad()
    def put(self, rows: Tensor, *numbers: Tensor) -> Tensor:
        """Puts rows ``(B, D)`` in; of more than there are slots the last. Returns their slots."""
        memory = getattr(self, self.name)
        self.check(rows)
        count = len(rows)
        kept = min(count, self.size)
        slots = (self.next_slot + torch.arange(count, device=rows.device)) % self.size
        memory[slots[count - kept :]] = rows[count - kept :].detach().to(memory.dtype)
        for name, column in zip(self.numbers, numbers, strict=True):
            getattr(self, name)[slots[count - kept :]] = column[count - kept :].to(torch.int64)
        self._filled = min(self.count() + count, self.size)
        self.next_slot.copy_((self.next_slot + count) % self.size)
        self.filled.fill_(self._filled)
        return slots

    def held(self) -> tuple[Tensor, ...]:
        """What is filled: views of rows ``(M, D)`` and of each column of numbers ``(M,)``."""
        return tuple(getattr(self, name)[: self.count()] for name in (self.name, *self.numbers))

    def check(self, rows: Tensor) -> None:
        """Refuses rows of another width."""
        width = getattr(self, self.name).shape[1]
        if rows.dim() != 2 or rows.shape[1] != width:
            raise ValueError(f"this memory holds rows of {width} numbers, got {tuple(rows.shape)}")

    @torch.no_grad()
    def clear(self) -> None:
        """Forgets all rows."""
        for buffer in self.buffers(recurse=False):
            buffer.zero_()
        self._filled = 0

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._filled = None


class CrossBatchMemory(nn.Module):
    """Compares a batch with itself and with the rows of past batches.

    The references of the loss are the batch, then the memory (Wang et al.: Cross-batch memory for
    embedding learning, CVPR 2020). Rows of the batch carry their gradient on both sides and are
    never their own partners; rows of the memory carry none. After the loss the batch is put into
    the memory, over the oldest rows. Slots that are not filled yet are not among the references,
    so that for the first steps the shapes grow; then they stay.

    What the memory holds is in ``state_dict()``, with the next slot and how many are filled: a
    run that was stopped and resumed goes on with the same bits.

    With ``gather`` every rank compares the rows of all ranks with all memories, which agree: rows
    go in in the order of the ranks. Every rank gets the loss of one process on the whole batch,
    and after DDP's mean its gradient.

    Args:
        loss: With a miner a loss of listed triplets, ``loss(rows, anchors, positives, negatives,
            valid)``; without one a loss of all pairs, ``loss(rows, labels, references=...,
            reference_labels=..., places=...)``, and with groups also ``groups`` and
            ``reference_groups``. It must not gather by itself.
        memory_size: Slots M, beyond the batch.
        embedding_dim: D.
        miner: ``miner(rows, labels, references=...)`` with the same words as the loss. Its
            triplets index the references.
        groups: Whether calls give groups: ids whose rows are never negatives of each other.
        gather: Whether the batches of all ranks are one.

    Example:
        >>> from ecgfast.losses.triplet import TripletLoss
        >>> from ecgfast.losses.memory import CrossBatchMemory
        >>> def first(rows, labels, *, references, reference_labels, places):
        ...     same = labels[:, None] == reference_labels
        ...     itself = places[:, None] == torch.arange(len(references))
        ...     near, far = (same & ~itself), ~same
        ...     valid = near.any(1) & far.any(1)
        ...     return places, near.int().argmax(1), far.int().argmax(1), valid
        >>> memory = CrossBatchMemory(TripletLoss(), memory_size=6, embedding_dim=3, miner=first)
        >>> for _ in range(3):
        ...     value = memory(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
        >>> memory.ring.count()
        6
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        memory_size: int,
        embedding_dim: int,
        miner: nn.Module | None = None,
        groups: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__()
        if getattr(loss, "gather", False):
            raise ValueError("the memory gathers the ranks: give it a loss with gather=False")
        self.loss = loss
        self.miner = miner
        self.groups = groups
        self.gather = gather
        numbers = ("labels", "groups") if groups else ("labels",)
        self.ring = Ring(memory_size, embedding_dim, numbers, name="embeddings")

    def forward(self, embeddings: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """The loss of a batch ``(N, D)`` with labels, and groups, ``(N,)`` against all."""
        if (groups is not None) != self.groups:
            how = "without" if groups is not None else "with"
            raise ValueError(f"this memory was made {how} groups, and so must its calls be")
        self.ring.check(embeddings)
        if labels.shape != (len(embeddings),):
            raise ValueError(f"labels must be ({len(embeddings)},), got {tuple(labels.shape)}")
        batch = [embeddings, labels] if groups is None else [embeddings, labels, groups]
        if self.gather:
            batch = [gather(x) for x in batch]
        known = [new.detach() for new in batch]
        past = self.ring.held()
        references = [
            torch.cat([new, old.to(new.dtype)]) for new, old in zip(batch, past, strict=True)
        ]
        rows = batch[0]
        words = {
            "references": references[0],
            "reference_labels": references[1],
            "places": torch.arange(len(rows), device=rows.device),
        }
        if groups is not None:
            words |= {"groups": batch[2], "reference_groups": references[2]}
        if self.miner is None:
            value: Tensor = self.loss(rows, batch[1], **words)
        else:
            words["references"] = references[0].detach()
            triplets = self.miner(rows.detach(), batch[1], **words)
            value = self.loss(references[0], *triplets)
        self.ring.put(*known)
        return value

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"groups={self.groups}, gather={self.gather}"
