"""Losses over all pairs and all triplets of a batch, on one process or on many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import all_triplets_terms, gather, margin_all_terms, pair_hinge_terms, places

_REDUCTIONS = ("mean_active", "mean", "sum")


class _AllPairsLoss(nn.Module):
    """What these losses share: where the partners come from, and by what a sum is divided."""

    def __init__(self, metric: str, normalise: bool, reduction: str, gather: bool) -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}"
            )
        self.metric = metric
        self.normalise = normalise
        self.reduction = reduction
        self.gather = gather

    def _words(self, embeddings: Tensor, labels: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        """The keywords of the op: how to measure, and who the partners are."""
        words = {**given, "metric": self.metric, "normalise": self.normalise}
        if not self.gather:
            return words
        if given.get("references") is not None:
            raise ValueError("with gather=True the references are the rows of all ranks: give none")
        every = gather(embeddings)
        if every is embeddings:  # no other rank
            return words
        words |= {"references": every, "reference_labels": gather(labels)}
        words["places"] = places(len(embeddings), device=embeddings.device)
        if given.get("groups") is not None:
            words["reference_groups"] = gather(given["groups"])
        return words

    def _of_all_ranks(self, counts: Tensor) -> tuple[Tensor, int]:
        """Counts ``(K,)`` of this rank, added up over those it gathers from, and their number."""
        if not self.gather:
            return counts, 1
        every = gather(counts[None])
        return every.sum(dim=0), len(every)

    def _mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Sums over counts, as this rank's share: the mean over ranks is that of one process.

        Args:
            sums: ``(K,)``, over this rank's anchors.
            counts: ``(K,)`` int64, likewise.
        """
        counts, ranks = self._of_all_ranks(counts)
        if self.reduction == "sum":
            return ranks * sums
        return ranks * sums / torch.where(counts == 0, 1, counts).to(sums.dtype)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return (
            f"metric={self.metric!r}, normalise={self.normalise}, reduction={self.reduction!r},"
            f" gather={self.gather}"
        )


class ContrastiveLoss(_AllPairsLoss):
    """Contrastive loss over all pairs of a batch: see :func:`ecgfast.ops.contrastive`.

    With ``gather=True`` the anchors of each rank meet the rows of all ranks, with the exact
    gradient; the mean over the ranks of loss and gradients, which is what DDP takes, is that of one
    process on the whole batch. Every rank must have the same number of rows.

    Args:
        positive_margin: The distance within which a positive costs nothing.
        negative_margin: The distance beyond which a negative costs nothing.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"`` over hinges over 0, positives and negatives apart; ``"mean"``
            over all pairs likewise; or ``"sum"``.
        gather: Takes partners from all ranks.
    """

    def __init__(
        self,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        *,
        metric: str = "euclidean",
        normalise: bool = False,
        reduction: str = "mean_active",
        gather: bool = False,
    ) -> None:
        super().__init__(metric, normalise, reduction, gather)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin

    def forward(self, embeddings: Tensor, labels: Tensor, **partners: Tensor | None) -> Tensor:
        """The loss of ``(N, D)`` by labels ``(N,)``; references, groups, places as the op's."""
        terms = pair_hinge_terms(
            embeddings,
            labels,
            positive_threshold=self.positive_margin,
            negative_threshold=self.negative_margin,
            **self._words(embeddings, labels, partners),
        )
        counts = terms[2:4] if self.reduction == "mean_active" else terms[4:]
        sums = torch.stack([terms.positive_sums.sum(), terms.negative_sums.sum()])
        return self._mean(sums, torch.stack([count.sum() for count in counts])).sum()

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        margins = f"positive_margin={self.positive_margin}, negative_margin={self.negative_margin}"
        return f"{margins}, {super().extra_repr()}"


class AllTripletsLoss(_AllPairsLoss):
    """Triplet loss over all triplets of a batch, "batch all": :func:`ecgfast.ops.all_triplets`.

    Args:
        margin: By how much a negative should be farther than a positive.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"`` over hinges over 0, ``"mean"`` over all triplets, or ``"sum"``.
        gather: Takes partners from all ranks, as :class:`ContrastiveLoss` does.
    """

    def __init__(
        self,
        margin: float = 0.2,
        *,
        metric: str = "euclidean",
        normalise: bool = False,
        reduction: str = "mean_active",
        gather: bool = False,
    ) -> None:
        super().__init__(metric, normalise, reduction, gather)
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor, **partners: Tensor | None) -> Tensor:
        """The loss of ``(N, D)`` by labels ``(N,)``; references, groups, places as the op's."""
        words = self._words(embeddings, labels, partners)
        sums, active, triplets = all_triplets_terms(embeddings, labels, margin=self.margin, **words)
        count = active if self.reduction == "mean_active" else triplets
        return self._mean(sums.sum(dim=0, keepdim=True), count.sum(dim=0, keepdim=True))[0]

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return f"margin={self.margin}, {super().extra_repr()}"


class AllPairsMarginLoss(_AllPairsLoss):
    r"""Margin loss over all triplets of a batch: see :func:`ecgfast.ops.margin_all`.

    Args:
        margin: How far on their sides of beta positives and negatives should be.
        beta: Where they part, or begin to part, if it is learned.
        learn_beta: Makes it a parameter. It moves to larger values as long as more positives than
            negatives are on the wrong side.
        num_classes: One beta for each class; labels then are in ``[0, num_classes)``. None: one
            for all.
        nu: Weight of a learned beta in the loss, which keeps it from growing: one for all adds
            :math:`\nu \beta` if there are triplets, those of classes count as often as they are in
            one.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        normalise: Brings rows to length 1 first; cosine always does.
        reduction: ``"mean_active"`` over terms over 0, ``"mean"`` over all triplets, or ``"sum"``.
        gather: Takes partners from all ranks, as :class:`ContrastiveLoss` does.
    """

    beta: Tensor

    def __init__(
        self,
        margin: float = 0.2,
        beta: float = 1.2,
        *,
        learn_beta: bool = False,
        num_classes: int | None = None,
        nu: float = 0.0,
        metric: str = "euclidean",
        normalise: bool = False,
        reduction: str = "mean_active",
        gather: bool = False,
    ) -> None:
        super().__init__(metric, normalise, reduction, gather)
        self.margin = margin
        self.nu = nu
        self.learn_beta = learn_beta
        start = torch.full((() if num_classes is None else (num_classes,)), float(beta))
        if learn_beta:
            self.beta = nn.Parameter(start)
        else:
            self.register_buffer("beta", start)

    def forward(self, embeddings: Tensor, labels: Tensor, **partners: Tensor | None) -> Tensor:
        """The loss of ``(N, D)`` by labels ``(N,)``; references, groups, places as the op's."""
        words = self._words(embeddings, labels, partners)
        beta = self._of_anchors(labels)
        sums, active, triplets = margin_all_terms(
            embeddings, labels, beta=beta, margin=self.margin, **words
        )
        if self.learn_beta and beta.dim() == 1:
            sums = sums + self.nu * beta * triplets
        count = active if self.reduction == "mean_active" else triplets
        loss = self._mean(sums.sum(dim=0, keepdim=True), count.sum(dim=0, keepdim=True))[0]
        if self.learn_beta and beta.dim() == 0:
            (some,), _ = self._of_all_ranks(triplets.sum(dim=0, keepdim=True))
            loss = loss + torch.where(some > 0, self.nu * beta, 0)
        return loss

    def _of_anchors(self, labels: Tensor) -> Tensor:
        if self.beta.dim() == 0:
            return self.beta
        classes = len(self.beta)
        if not torch.compiler.is_compiling() and labels.device.type == "cpu":
            outside = (labels < 0) | (labels >= classes)
            if outside.any():
                raise ValueError(
                    f"labels must be in [0, {classes}), as beta is one number a class;"
                    f" {int(outside.sum())} of {len(labels)} are not, the first is"
                    f" {int(labels[outside][0])}: number the classes from 0, or give num_classes"
                )
        return nn.functional.embedding(labels.long(), self.beta[:, None]).squeeze(1)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        classes = f"learn_beta={self.learn_beta}, nu={self.nu}"
        return f"margin={self.margin}, {classes}, {super().extra_repr()}"
