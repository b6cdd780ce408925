"""From the losses of pairs, triplets or rows to one number, as in pytorch-metric-learning.

A loss hands over a dictionary: its name, and of each name the ``losses`` (K,), the ``indices``
they belong to, and the ``reduction_type``: ``element`` (indices: rows), ``pos_pair``,
``neg_pair``, ``triplet`` (indices: one list each), or ``already_reduced``. Ops on all pairs list
no pairs: from them comes ``anchor``, where ``losses`` (N,) are sums over the pairs of an anchor,
``count`` (N,) says how many these are, and ``nonzero`` (N,), if known, how many are above zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ecgfast.pml._segments import sums_by
from ecgfast.pml._tuples import refuse_statistics

LossDict = dict[str, dict[str, Any]]
Indices = Tensor | Sequence[Tensor] | None


class BaseReducer(nn.Module):
    """Reduces one loss. A subclass gives ``element_reduction``, and others where they differ.

    Attributes:
        across_ranks: The number that a sum is divided by is the mean over the ranks of their
            numbers, so that the mean over the ranks of the results is what one process would get.
    """

    across_ranks = False

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__()
        refuse_statistics(collect_stats)

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Any:
        """One number from the one loss in ``loss_dict``."""
        (info,) = loss_dict.values()
        losses, kind = info["losses"], info["reduction_type"]
        if not torch.is_tensor(losses):  # 0: a loss found nothing to compare
            return self.zero_loss(embeddings)
        if kind == "already_reduced":
            return losses.reshape(())
        if kind == "anchor":
            return self.anchor_reduction(info, embeddings, labels)
        return self.listed_reduction(kind, info, embeddings, labels)

    def listed_reduction(
        self, kind: str, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of a kind other than ``anchor`` and ``already_reduced``."""
        reduce = getattr(self, f"{kind}_reduction")
        return reduce(info["losses"], info["indices"], embeddings, labels)

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,) over the pairs of an anchor; only asked if ``takes`` says so."""
        raise NotImplementedError

    def takes(self, what: str) -> bool:
        """Whether sums over what an anchor has will do.

        Args:
            what: ``pairs`` or ``triplets``, of which all are counted; ``nonzero``: those above zero
                are; ``divisor``: the loss hands one over.
        """
        return False

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of rows."""
        raise NotImplementedError

    def pos_pair_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of positive pairs."""
        return self.element_reduction(losses, _anchors(indices), embeddings, labels)

    def neg_pair_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of negative pairs."""
        return self.element_reduction(losses, _anchors(indices), embeddings, labels)

    def triplet_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of triplets."""
        return self.element_reduction(losses, _anchors(indices), embeddings, labels)

    def zero_loss(self, embeddings: Tensor) -> Tensor:
        """0, with a gradient of zeros."""
        return (embeddings * 0).sum()

    def ratio(self, total: Tensor, count: Tensor | float) -> Tensor:
        """``total / count``; 0 where nothing was counted. Waits for no device."""
        count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
        if self.across_ranks:
            count = count.detach().clone()
            distributed.all_reduce(count)
            count /= distributed.get_world_size()
        return total / torch.where(count == 0, 1, count)


class MeanReducer(BaseReducer):
    """The mean."""

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,)."""
        return self.ratio(losses.sum(), len(losses))

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,)."""
        return self.ratio(info["losses"].sum(), info["count"].sum())

    def takes(self, what: str) -> bool:
        """All count."""
        return what in ("pairs", "triplets")


class SumReducer(BaseReducer):
    """The sum. With ranks, each sums its own anchors, and the sum is that over the ranks."""

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,)."""
        return self._all(losses.sum())

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,)."""
        return self._all(info["losses"].sum())

    def takes(self, what: str) -> bool:
        """Nobody is counted."""
        return True

    def _all(self, total: Tensor) -> Tensor:
        return total * distributed.get_world_size() if self.across_ranks else total


class ThresholdReducer(BaseReducer):
    """The mean of the losses between two bounds, both outside.

    A NaN is kept: it makes the loss NaN, instead of dropping out as if it were small.

    Args:
        low: Losses up to this are left out.
        high: Losses from this on are left out.
        collect_stats: None or False.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        if low is None and high is None:
            raise ValueError("ThresholdReducer needs low, high or both")
        self.low = low
        self.high = high

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,)."""
        left_out = torch.zeros_like(losses, dtype=torch.bool)
        if self.low is not None:
            left_out |= losses <= self.low
        if self.high is not None:
            left_out |= losses >= self.high
        return self.ratio(torch.where(left_out, 0, losses).sum(), (~left_out).sum())

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,), of which those above zero count."""
        return self.ratio(info["losses"].sum(), info["nonzero"].sum())

    def takes(self, what: str) -> bool:
        """Where the bound is zero, and losses are not negative."""
        return what == "nonzero" and self.low == 0 and self.high is None


class AvgNonZeroReducer(ThresholdReducer):
    """The mean of the losses above zero."""

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__(low=0, collect_stats=collect_stats)


class DivisorReducer(BaseReducer):
    """The sum over a number that the loss itself hands over, as ``MarginLoss`` does."""

    def listed_reduction(
        self, kind: str, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,)."""
        if "divisor" not in info:
            raise ValueError(
                "DivisorReducer needs a loss that hands over a divisor, as MarginLoss does"
            )
        return self.ratio(info["losses"].sum(), info["divisor"])

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,)."""
        return self.listed_reduction("anchor", info, embeddings, labels)

    def takes(self, what: str) -> bool:
        """The divisor of ``MarginLoss``."""
        return what == "divisor"


class ClassWeightedReducer(BaseReducer):
    """The mean of losses times the weight of the anchor's class.

    Args:
        weights: ``(classes,)``, by label.
        collect_stats: None or False.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self.weights = weights

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,)."""
        return self.ratio((losses * self._of(labels, indices, losses)).sum(), len(losses))

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,)."""
        sums = info["losses"]
        return self.ratio((sums * self._of(labels, None, sums)).sum(), info["count"].sum())

    def takes(self, what: str) -> bool:
        """All that an anchor has, has one weight."""
        return what in ("pairs", "triplets")

    def _of(self, labels: Tensor | None, rows: Indices, losses: Tensor) -> Tensor:
        if labels is None:
            raise ValueError("ClassWeightedReducer needs labels")
        weights = self.weights.to(losses)
        return weights[labels if rows is None else labels[rows]]


def aggregation_func(x: Tensor, num_per_row: Tensor) -> Tensor:
    """The mean of each row's ``num_per_row`` losses, 0 where there are none."""
    return x.sum(dim=1) / num_per_row.clamp(min=1)


class PerAnchorReducer(BaseReducer):
    """The mean over an anchor's pairs, then another reducer over all anchors.

    A pair that is listed twice counts once. Anchors without pairs have the loss 0.

    Args:
        reducer: Over the anchors; the mean if None.
        aggregation_func: From a table of losses, one row an anchor with zeros where there is no
            pair, and the number of pairs in each row, to one loss a row.
        collect_stats: None or False.
    """

    def __init__(
        self,
        reducer: BaseReducer | None = None,
        aggregation_func: Callable[[Tensor, Tensor], Tensor] = aggregation_func,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        self.reducer = MeanReducer() if reducer is None else reducer
        self.aggregation_func = aggregation_func

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of rows."""
        info = {"losses": losses, "indices": indices, "reduction_type": "element"}
        return self.reducer({"loss": info}, embeddings, labels)

    def pos_pair_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of losses (K,) of pairs."""
        assert isinstance(indices, Sequence)
        rows, columns = indices
        count = len(embeddings)
        width = int(columns.max()) + 1 if len(columns) else 1
        keys, which = torch.unique(rows * width + columns, return_inverse=True)
        first = torch.full_like(keys, len(rows)).scatter_reduce(
            0, which, torch.arange(len(rows), device=rows.device), "amin"
        )
        rows, columns, losses = rows[first], columns[first], losses[first]
        number = rows.bincount(minlength=count)
        if self.aggregation_func is aggregation_func:
            means = sums_by(rows, losses, count) / number.clamp(min=1)
        else:
            table = losses.new_zeros(count, width).index_put((rows, columns), losses)
            means = self.aggregation_func(table, number)
        everyone = torch.arange(count, device=losses.device)
        return self.element_reduction(means, everyone, embeddings, labels)

    neg_pair_reduction = pos_pair_reduction

    def triplet_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Not defined: use a loss of pairs."""
        raise NotImplementedError("PerAnchorReducer reduces losses of pairs, not of triplets")

    def anchor_reduction(
        self, info: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Of sums (N,)."""
        means = info["losses"] / info["count"].clamp(min=1)
        everyone = torch.arange(len(means), device=means.device)
        return self.element_reduction(means, everyone, embeddings, labels)

    def takes(self, what: str) -> bool:
        """The mean of an anchor's pairs is their sum over their number."""
        return what == "pairs" and self.aggregation_func is aggregation_func


class DoNothingReducer(BaseReducer):
    """Hands back the dictionary of losses."""

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> LossDict:
        """The dictionary."""
        return loss_dict


class MultipleReducers(BaseReducer):
    """One reducer for each part of a loss; the sum of what they give.

    Args:
        reducers: By the names of the parts.
        default_reducer: Of the other parts; the mean if None.
        collect_stats: None or False.
    """

    def __init__(
        self,
        reducers: Mapping[str, BaseReducer],
        default_reducer: BaseReducer | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        self.reducers = nn.ModuleDict(reducers)
        self.default_reducer = MeanReducer() if default_reducer is None else default_reducer

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Tensor:
        """The sum over the parts."""
        parts = [
            self.of(name)({name: info}, embeddings, labels) for name, info in loss_dict.items()
        ]
        return self.sub_loss_reduction(torch.stack(parts), embeddings, labels)

    def sub_loss_reduction(
        self,
        sub_losses: Tensor,
        embeddings: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The sum, unless a subclass has better."""
        return sub_losses.sum()

    def of(self, name: str) -> BaseReducer:
        """The reducer of a part."""
        found: BaseReducer = dict(self.reducers.items()).get(name, self.default_reducer)  # type: ignore[assignment]
        return found

    def takes(self, what: str) -> bool:
        """All of them do."""
        every = [*self.reducers.values(), self.default_reducer]
        return all(reducer.takes(what) for reducer in every)  # type: ignore[operator]


def _anchors(indices: Indices) -> Tensor | None:
    return indices if indices is None or isinstance(indices, Tensor) else indices[0]
