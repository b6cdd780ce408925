"""Losses and miners over the batches of all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch import distributed as ranks

from ecgfast.ops import gather, places
from ecgfast.pml.losses import BaseMetricLossFunction, CrossBatchMemory
from ecgfast.pml.miners import BaseMiner
from ecgfast.pml.reducers import BaseReducer


def is_distributed() -> bool:
    """Whether there is a process group."""
    return ranks.is_available() and ranks.is_initialized()


class DistributedLossWrapper(nn.Module):
    """The loss of all ranks' rows together, with the gradient of one process on all of them.

    Rows are stacked in the order of the ranks, on every rank alike, and the gradient of a row is
    the sum of what all ranks say of it. After the mean over the ranks that DDP takes, gradients of
    parameters are those of one process; the loss is not multiplied by the number of ranks. Every
    rank must bring the same number of rows. Without a process group it is the loss itself.

    Args:
        loss: A loss, or a memory.
        efficient: Anchors are the rank's own rows, references all ranks': the work of one rank is
            shared instead of repeated. The mean over the ranks of what they return is the loss of
            one process. Without it every rank returns that. Not for a memory.
    """

    def __init__(self, loss: nn.Module, efficient: bool = False) -> None:
        super().__init__()
        if not isinstance(loss, (BaseMetricLossFunction, CrossBatchMemory)):
            raise TypeError(
                "loss must be a loss of ecgfast.pml or its CrossBatchMemory, got"
                f" {type(loss).__name__}"
            )
        if efficient and isinstance(loss, CrossBatchMemory):
            raise ValueError("CrossBatchMemory needs efficient=False: all ranks keep all rows")
        self.loss = loss
        self.efficient = efficient

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Any:
        """The loss of the rank's rows ``(N, D)``.

        Args:
            embeddings: The rank's own.
            labels: ``(N,)``.
            indices_tuple: As a :class:`DistributedMinerWrapper` with the same ``efficient`` lists
                them: partners are rows of all ranks, in the order of the ranks; so are anchors,
                but with ``efficient`` they are the rank's own rows.
            ref_emb: The rank's own references, which are gathered likewise.
            ref_labels: Theirs.
            enqueue_mask: ``(N,)`` bool, for a memory.
        """
        labels = None if labels is None else labels.to(embeddings.device)
        if isinstance(self.loss, CrossBatchMemory):
            if ref_emb is not None or ref_labels is not None:
                raise ValueError("a memory brings its own references: ref_emb must be None")
            if labels is None:
                raise ValueError("a memory needs labels")
            mask = None if enqueue_mask is None else gather(enqueue_mask.to(embeddings.device))
            return self.loss(gather(embeddings), gather(labels), indices_tuple, mask)
        if enqueue_mask is not None:
            raise ValueError("enqueue_mask is for a CrossBatchMemory")
        if not self.efficient or not is_distributed():
            rows, row_labels, references, reference_labels = _gathered(
                embeddings, labels, ref_emb, ref_labels
            )
            return self.loss(rows, row_labels, indices_tuple, references, reference_labels)
        references, reference_labels, itself = _partners(embeddings, labels, ref_emb, ref_labels)
        with _across_ranks(self.loss):
            return self.loss.of_batch(
                embeddings, labels, indices_tuple, references, reference_labels, places=itself
            )


class DistributedMinerWrapper(nn.Module):
    """Mines the rows of all ranks together, stacked in the order of the ranks.

    Args:
        miner: A miner. One that draws draws on each rank for itself.
        efficient: Anchors are the rank's own rows, and are numbered as such.
    """

    def __init__(self, miner: BaseMiner, efficient: bool = False) -> None:
        super().__init__()
        if not isinstance(miner, BaseMiner):
            raise TypeError(f"miner must be a miner of ecgfast.pml, got {type(miner).__name__}")
        self.miner = miner
        self.efficient = efficient

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Lists for a :class:`DistributedLossWrapper` with the same ``efficient``."""
        embeddings = embeddings.detach()
        labels = labels.to(embeddings.device)
        ref_emb = None if ref_emb is None else ref_emb.detach()
        if not self.efficient or not is_distributed():
            rows, row_labels, references, reference_labels = _gathered(
                embeddings, labels, ref_emb, ref_labels
            )
            assert row_labels is not None
            return self.miner(rows, row_labels, references, reference_labels)
        references, reference_labels, itself = _partners(embeddings, labels, ref_emb, ref_labels)
        return self.miner.of_batch(embeddings, labels, references, reference_labels, places=itself)


def _gathered(
    embeddings: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """All of all ranks."""
    device = embeddings.device
    return (
        gather(embeddings),
        None if labels is None else gather(labels),
        None if ref_emb is None else gather(ref_emb),
        None if ref_labels is None else gather(ref_labels.to(device)),
    )


def _partners(
    embeddings: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """References of all ranks, their labels, and where the rank's own rows lie among them."""
    if ref_emb is None or ref_emb is embeddings:
        all_labels = None if labels is None else gather(labels)
        return gather(embeddings), all_labels, places(len(embeddings), device=embeddings.device)
    all_labels = None if ref_labels is None else gather(ref_labels.to(embeddings.device))
    return gather(ref_emb), all_labels, None


@contextmanager
def _across_ranks(loss: nn.Module) -> Iterator[None]:
    """Lets the reducers count over all ranks."""
    reducers = [module for module in loss.modules() if isinstance(module, BaseReducer)]
    try:
        for reducer in reducers:
            reducer.across_ranks = True
        yield
    finally:
        for reducer in reducers:
            reducer.across_ranks = False
