"""Losses that set the positives of an anchor against all its negatives at once."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import (
    angular,
    gather,
    info_nce,
    info_nce_terms,
    multi_similarity_terms,
    nt_xent_terms,
    sup_con_terms,
)
from ecgfast.ops import places as own_places


class _AllPairs(nn.Module):
    """A loss on all pairs of a batch, or of the batches of all ranks."""

    def __init__(self, gather: bool, reduction: str) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.gather = gather
        self.reduction = reduction

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        groups: Tensor | None = None,
        reference_groups: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """The loss of anchors ``(N, D)`` with labels ``(N,)``; see the op for the rest.

        References ``(M, D)``, such as a memory of former batches, replace the batch as what the
        anchors are set against; ``places`` ``(N,)`` says which of them is the anchor itself, -1 for
        none. With ``gather`` the rows of all ranks do, so none can be given.
        """
        if self.gather:
            if references is not None:
                raise ValueError("gather=True takes references from all ranks: give none")
            references, reference_labels = gather(embeddings), gather(labels)
            reference_groups = None if groups is None else gather(groups)
            places = own_places(len(embeddings), device=embeddings.device)
        sums, counts = self._terms(
            embeddings,
            labels,
            references=references,
            reference_labels=reference_labels,
            groups=groups,
            reference_groups=reference_groups,
            places=places,
        )
        return _reduced(sums, counts, self.reduction, self.gather)

    def _terms(self, embeddings: Tensor, labels: Tensor, **words: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class NTXentLoss(_AllPairs):
    """Normalised temperature-scaled cross entropy of all positive pairs, in memory O(N D).

    :func:`ecgfast.ops.nt_xent` has the formula and the edges. Under ranks, ``gather=True`` sets
    each rank's anchors against the rows of all ranks, of which each must have as many. The mean of
    the ranks' losses, and of their gradients as DistributedDataParallel takes it, is then that of
    one process on the whole batch, however the positive pairs lie among the ranks.

    Args:
        temperature: What cosines are divided by, over 0.
        gather: Use the rows of all ranks.
        reduction: ``"mean"`` over positive pairs, ``"sum"``, or ``"none"`` for each anchor's sum.
    """

    def __init__(
        self, temperature: float = 0.07, gather: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(gather, reduction)
        self.temperature = temperature

    def _terms(self, embeddings: Tensor, labels: Tensor, **words: Any) -> tuple[Tensor, Tensor]:
        return nt_xent_terms(embeddings, labels, temperature=self.temperature, **words)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"temperature={self.temperature}, {_common(self)}"


class SupConLoss(_AllPairs):
    """Supervised contrastive loss: the mean over anchors of a log-softmax of their positives.

    :func:`ecgfast.ops.sup_con` has the formula and the edges, :class:`NTXentLoss` says what
    ``gather`` does.

    Args:
        temperature: What cosines are divided by, over 0.
        gather: Use the rows of all ranks.
        reduction: ``"mean"`` over anchors with a positive, ``"sum"``, or ``"none"``.
    """

    def __init__(
        self, temperature: float = 0.1, gather: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(gather, reduction)
        self.temperature = temperature

    def _terms(self, embeddings: Tensor, labels: Tensor, **words: Any) -> tuple[Tensor, Tensor]:
        return sup_con_terms(embeddings, labels, temperature=self.temperature, **words)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"temperature={self.temperature}, {_common(self)}"


class MultiSimilarityLoss(_AllPairs):
    """Soft maxima of the similarities of negatives and of the dissimilarities of positives.

    :func:`ecgfast.ops.multi_similarity` has the formula and the edges, :class:`NTXentLoss` says
    what ``gather`` does.

    Args:
        alpha: Weight of positives in the exponent, over 0.
        beta: Weight of negatives in the exponent, over 0.
        base: The similarity that both are measured from.
        gather: Use the rows of all ranks.
        reduction: ``"mean"`` over anchors, ``"sum"``, or ``"none"``.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        gather: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(gather, reduction)
        self.alpha = alpha
        self.beta = beta
        self.base = base

    def _terms(self, embeddings: Tensor, labels: Tensor, **words: Any) -> tuple[Tensor, Tensor]:
        return multi_similarity_terms(
            embeddings, labels, alpha=self.alpha, beta=self.beta, base=self.base, **words
        )

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}, {_common(self)}"


class InfoNCELoss(nn.Module):
    """Cross entropy of queries against all keys, and of keys against all queries.

    :func:`ecgfast.ops.info_nce` has the formula and the edges. The scale of the cosines, one over
    the temperature, is a parameter ``log_scale`` if learnable; each call in training first brings
    it back under its maximum, where its gradient goes on. With ``gather``, as in
    :class:`NTXentLoss`, a rank's queries are set against the keys of all ranks and its keys
    against the queries of all.

    Args:
        init_temperature: One over the scale at first, over 0.
        learnable: Whether the scale is trained; otherwise it is a buffer.
        max_scale: The scale is kept from growing beyond it.
        symmetric: The mean of both directions, otherwise queries against keys alone.
        gather: Use the rows of all ranks.
        normalise: Products of unit rows, otherwise of the rows as they are.
    """

    log_scale: Tensor

    def __init__(
        self,
        init_temperature: float = 0.07,
        learnable: bool = True,
        max_scale: float = 100.0,
        symmetric: bool = True,
        gather: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < init_temperature < math.inf:
            raise ValueError(f"init_temperature must be over 0 and finite, got {init_temperature}")
        if not 1 / init_temperature <= max_scale:
            raise ValueError(
                f"max_scale must be at least 1 / init_temperature = {1 / init_temperature:.4g},"
                f" got {max_scale}"
            )
        log_scale = torch.tensor(-math.log(init_temperature))
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.max_scale = max_scale
        self.symmetric = symmetric
        self.gather = gather
        self.normalise = normalise

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        labels: Tensor | None = None,
        key_labels: Tensor | None = None,
        groups: Tensor | None = None,
        key_groups: Tensor | None = None,
    ) -> Tensor:
        """The loss of queries ``(N, D)`` and keys ``(M, D)``; key i belongs to query i.

        Labels say what belongs together instead, groups what is left out; see the op.
        """
        if self.training and self.log_scale.requires_grad:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(self.max_scale))
        scale = self.log_scale.exp()
        if not self.gather:
            return info_nce(
                queries,
                keys,
                labels=labels,
                key_labels=key_labels,
                groups=groups,
                key_groups=key_groups,
                logit_scale=scale,
                symmetric=self.symmetric,
                normalise=self.normalise,
            )
        key_labels = labels if key_labels is None else key_labels
        if key_labels is None:
            if len(keys) != len(queries):
                raise ValueError(f"there are {len(queries)} queries and {len(keys)} keys")
            labels = key_labels = own_places(len(keys), device=keys.device)
        key_groups = groups if key_groups is None else key_groups
        loss = self._one_way(queries, labels, groups, keys, key_labels, key_groups, scale)
        if not self.symmetric:
            return loss
        other = self._one_way(keys, key_labels, key_groups, queries, labels, groups, scale)
        return (loss + other) / 2

    def _one_way(
        self,
        anchors: Tensor,
        labels: Tensor | None,
        groups: Tensor | None,
        others: Tensor,
        other_labels: Tensor | None,
        other_groups: Tensor | None,
        scale: Tensor,
    ) -> Tensor:
        """This rank's anchors against the other side of all ranks."""
        sums, counts = info_nce_terms(
            anchors,
            gather(others),
            labels=labels,
            key_labels=None if other_labels is None else gather(other_labels),
            groups=groups,
            key_groups=None if other_groups is None else gather(other_groups),
            logit_scale=scale,
            normalise=self.normalise,
        )
        return _reduced(sums, counts, "mean", True)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return (
            f"learnable={self.log_scale.requires_grad}, max_scale={self.max_scale},"
            f" symmetric={self.symmetric}, gather={self.gather}, normalise={self.normalise}"
        )


class AngularLoss(nn.Module):
    """Bounds the angle at the negatives of listed pairs; :func:`ecgfast.ops.angular` has it all.

    Args:
        alpha: The bound, in degrees, between 0 and 90.
        normalise: Of unit rows, otherwise of the rows as they are.
        reduction: ``"mean"`` over valid pairs, ``"sum"``, or ``"none"`` for each pair's.
    """

    def __init__(
        self, alpha: float = 45.0, normalise: bool = True, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.normalise = normalise
        self.reduction = reduction

    def forward(
        self,
        embeddings: Tensor,
        anchors: Tensor,
        positives: Tensor,
        labels: Tensor,
        valid: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """The loss of pairs ``(K,)`` of rows of ``(N, D)`` against all rows of other labels."""
        return angular(
            embeddings,
            anchors,
            positives,
            labels,
            valid=valid,
            groups=groups,
            alpha=self.alpha,
            normalise=self.normalise,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"alpha={self.alpha}, normalise={self.normalise}, reduction={self.reduction!r}"


class NPairLoss(nn.Module):
    r"""Cross entropy of each anchor against the positives of all pairs, one pair a class.

    .. math:: \frac{1}{K} \sum_k -\log \frac{e^{a_k \cdot p_k}}{\sum_m e^{a_k \cdot p_m}}
              + \lambda \frac{1}{2K} \sum_k (\|a_k\|^2 + \|p_k\|^2)

    The N-pair loss (Sohn 2016): plain products, whose growth the second term holds in check. With
    labels, positives of pairs of the anchor's own class are left out of its sum, so that a class
    may have several pairs.

    Args:
        l2_weight: lambda, at least 0.
    """

    def __init__(self, l2_weight: float = 0.0) -> None:
        super().__init__()
        if not 0 <= l2_weight < math.inf:
            raise ValueError(f"l2_weight must be at least 0 and finite, got {l2_weight}")
        self.l2_weight = l2_weight

    def forward(
        self,
        embeddings: Tensor,
        anchors: Tensor,
        positives: Tensor,
        labels: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of pairs ``(K,)`` int64 of rows of ``(N, D)``; labels are ``(N,)``.

        A mask ``(K,)`` of valid pairs shortens the lists, for which a GPU has to be waited for.
        """
        if valid is not None:
            anchors, positives = anchors[valid], positives[valid]
        a, p = (nn.functional.embedding(rows, embeddings) for rows in (anchors, positives))
        groups = None if labels is None else labels[anchors]
        loss = info_nce(a, p, groups=groups, logit_scale=1.0, symmetric=False, normalise=False)
        if self.l2_weight == 0 or len(anchors) == 0:
            return loss
        squares = a.to(loss.dtype).square().sum() + p.to(loss.dtype).square().sum()
        return loss + self.l2_weight * squares / (2 * len(anchors))

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"l2_weight={self.l2_weight}"


def _reduced(sums: Tensor, counts: Tensor, reduction: str, gathered: bool) -> Tensor:
    """The reduction; over ranks so that their mean is what one process would say."""
    if reduction == "none":
        return sums
    total = sums.sum(dtype=torch.float64)
    count = counts.sum()[None]
    every = gather(count) if gathered else count
    total = total * len(every)  # ranks
    if reduction == "mean":
        total = total / every.sum().clamp(min=1)
    return total.to(sums.dtype)


def _common(module: _AllPairs) -> str:
    return f"gather={module.gather}, reduction={module.reduction!r}"
