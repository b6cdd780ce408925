"""Losses around a loss: two views without labels, and a memory of past batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.losses.memory import Ring
from ecgfast.pml import _tuples
from ecgfast.pml.losses._loss import BaseMetricLossFunction
from ecgfast.pml.losses.entropy import NPairsLoss
from ecgfast.pml.losses.vicreg import VICRegLoss
from ecgfast.pml.miners import BaseMiner


class SelfSupervisedLoss(nn.Module):
    """Gives row i of two views the label i, and no other row.

    Args:
        loss: Any loss of this package but ``NPairsLoss``, ``MarginLoss`` with classes and
            ``VICRegLoss``.
        symmetric: Rows of both views are anchors, against all rows of both; else the first view's
            against the second's.
    """

    def __init__(self, loss: nn.Module, symmetric: bool = True) -> None:
        super().__init__()
        _needs_references(self, loss)
        self.loss = loss
        self.symmetric = symmetric

    def forward(self, embeddings: Tensor, ref_emb: Tensor) -> Any:
        """The loss of two views ``(N, D)``."""
        if embeddings.shape != ref_emb.shape:
            raise ValueError(
                f"both views must be of one shape, got {tuple(embeddings.shape)} and"
                f" {tuple(ref_emb.shape)}"
            )
        labels = torch.arange(len(embeddings), device=embeddings.device)
        if self.symmetric:
            return self.loss(torch.cat([embeddings, ref_emb]), torch.cat([labels, labels]))
        return self.loss(embeddings, labels, None, ref_emb, labels.clone())


class CrossBatchMemory(Ring):
    """Compares a batch with the rows of this and of past batches.

    The batch goes into the memory first, over the oldest rows; what is in the memory carries no
    gradient. The row that is the anchor itself is left out before anything is mined or counted,
    wherever it lies in the ring. Position and fill are part of ``state_dict()``.
    :class:`ecgfast.losses.memory.CrossBatchMemory` keeps the gradient of the batch on both sides.

    Args:
        loss: Any loss that takes ``ref_emb``.
        embedding_size: D.
        memory_size: Slots; at least the batch, if all of it is enqueued.
        miner: Any miner that takes ``ref_emb``.
    """

    embedding_memory: Tensor
    label_memory: Tensor

    def __init__(
        self,
        loss: nn.Module,
        embedding_size: int,
        memory_size: int = 1024,
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__(memory_size, embedding_size, ("label_memory",), name="embedding_memory")
        _needs_references(self, loss)
        self.loss = loss
        self.miner = miner
        self.embedding_size = embedding_size
        self.memory_size = memory_size

    @property
    def queue_idx(self) -> int:
        """The slot of the next row."""
        return int(self.next_slot)

    @property
    def has_been_filled(self) -> bool:
        """Whether every slot holds a row."""
        return self.count() == self.size

    def reset_queue(self) -> None:
        """Forgets all rows."""
        self.clear()

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Sequence[Tensor] | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Any:
        """The loss of a batch ``(N, D)`` with labels ``(N,)``.

        Args:
            embeddings: Of the batch.
            labels: Of the batch.
            indices_tuple: Further triplets or pairs within the batch: all their indices are rows
                of ``embeddings``.
            enqueue_mask: ``(N,)`` bool: these rows go into the memory and are no anchors; the
                others are anchors and do not go in. None: all rows do both.
        """
        if indices_tuple is not None and enqueue_mask is not None:
            raise ValueError("give indices_tuple or enqueue_mask, not both")
        self.check(embeddings)
        if labels.shape != (len(embeddings),):
            raise ValueError(f"labels must be ({len(embeddings)},), got {tuple(labels.shape)}")
        labels = labels.to(embeddings.device)
        self._settle(embeddings)
        if enqueue_mask is None:
            if len(embeddings) > self.size:
                raise ValueError(
                    f"a batch of {len(embeddings)} rows does not fit a memory of {self.size}:"
                    " raise memory_size, or say with enqueue_mask which rows go in"
                )
            places: Tensor | None = self.put(embeddings, labels)
        else:
            if enqueue_mask.shape != labels.shape or enqueue_mask.dtype != torch.bool:
                raise ValueError(
                    f"enqueue_mask must be ({len(embeddings)},) bool, got"
                    f" {tuple(enqueue_mask.shape)} {enqueue_mask.dtype}"
                )
            goes_in = enqueue_mask.to(embeddings.device)
            self.put(embeddings[goes_in], labels[goes_in])
            embeddings, labels, places = embeddings[~goes_in], labels[~goes_in], None
        # a copy: the ring is written again before backward may have read it
        rows, row_labels = (x.clone() for x in self.held())
        rows = rows.to(embeddings.dtype)

        lists = self._lists(embeddings, labels, rows, row_labels, places, indices_tuple)
        if lists is None and isinstance(self.loss, BaseMetricLossFunction):
            return self.loss.of_batch(embeddings, labels, None, rows, row_labels, places=places)
        return self.loss(embeddings, labels, lists, rows, row_labels)

    def _lists(
        self,
        embeddings: Tensor,
        labels: Tensor,
        rows: Tensor,
        row_labels: Tensor,
        places: Tensor | None,
        more: Sequence[Tensor] | None,
    ) -> tuple[Tensor, ...] | None:
        """What is compared; None: all pairs, and our own loss need not list them."""
        found: tuple[Tensor, ...]
        if isinstance(self.miner, BaseMiner):
            found = self.miner.of_batch(embeddings, labels, rows, row_labels, places=places)
        elif self.miner is not None:
            found = _without_self(self.miner(embeddings, labels, rows, row_labels), places)
        elif more is None and isinstance(self.loss, BaseMetricLossFunction):
            return None
        else:
            found = _tuples.all_pairs(labels, row_labels, places)
        if more is None:
            return found
        count = len(embeddings)
        more = _tuples.checked(more, count, count, embeddings.device)
        if places is not None:  # rows of the batch, as partners, lie in these slots
            anchors = (0,) if len(more) == 3 else (0, 2)
            more = tuple(x if i in anchors else places[x] for i, x in enumerate(more))
        convert: Callable[[Sequence[Tensor]], tuple[Tensor, ...]] = (
            _tuples.as_triplets if len(found) == 3 else _tuples.as_pairs
        )
        return tuple(torch.cat(pair) for pair in zip(found, convert(more), strict=True))

    def _settle(self, embeddings: Tensor) -> None:
        """Moves the memory to where embeddings are; float64 ones lose no digits in it."""
        for name, buffer in list(self.named_buffers(recurse=False)):
            setattr(self, name, buffer.to(embeddings.device))
        if embeddings.dtype == torch.float64:
            self.embedding_memory = self.embedding_memory.double()


def _without_self(lists: Sequence[Tensor], places: Tensor | None) -> tuple[Tensor, ...]:
    """Takes out what a foreign miner found to be its own positive."""
    if places is None:
        return tuple(lists)
    other = lists[1] != places[lists[0]]
    if len(lists) == 3:
        return tuple(x[other] for x in lists)
    return (lists[0][other], lists[1][other], lists[2], lists[3])


def _needs_references(whom: nn.Module, loss: nn.Module) -> None:
    if isinstance(loss, (NPairsLoss, VICRegLoss)):
        raise ValueError(
            f"{type(whom).__name__} compares with other rows by their labels, which"
            f" {type(loss).__name__} does not"
        )
