"""Losses on triplets of embeddings, as a miner lists them: ``loss(embeddings, *triplets)``."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ecgfast.ops import pair_distance, triplet_loss

Metric = Literal["sqeuclidean", "euclidean", "cosine"]
Reduction = Literal["mean", "mean_active", "sum", "none"]


class TripletLoss(nn.Module):
    r"""Asks that every anchor be nearer to its positive than to its negative, by a margin.

    .. math:: h_k = \max(0, d(a_k, p_k) - d(a_k, n_k) + m)

    As published for SSL-DML (Jeong, Stultz, Ghassemi 2023) the distances are squared L2 and the
    mean is over all valid triplets: the defaults. What reaches no distance: an invalid triplet,
    which contributes nothing and is not counted. The embeddings are not normalised here.
    :func:`ecgfast.ops.triplet_loss`, for the defaults, and :func:`ecgfast.ops.pair_distance`, for
    everything else, state the edges; neither gathers a copy of size K x D.

    Args:
        margin: By how much the negative should be farther, in the unit of the metric.
        reduction: ``"mean"`` over valid triplets; ``"mean_active"`` over those whose term is above
            0, which is what pytorch-metric-learning does; ``"sum"``; or ``"none"`` for the terms
            ``(K,)``, 0 where not valid.
        metric: ``"sqeuclidean"``, ``"euclidean"``, or ``"cosine"``, which is 1 minus the
            similarity.
        swap: Also looks from the positive: the nearer of d(a, n) and d(p, n) counts (Balntas et
            al., Learning local feature descriptors with triplets, BMVC 2016).
        smooth: :math:`\log(1 + e^t)` in place of :math:`\max(0, t)`.

    Example:
        >>> rows = torch.tensor([[0], [1], [2]])
        >>> TripletLoss(metric="euclidean")(torch.eye(3), *rows)
        tensor(0.2000)
    """

    def __init__(
        self,
        margin: float = 0.2,
        reduction: Reduction = "mean",
        *,
        metric: Metric = "sqeuclidean",
        swap: bool = False,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be one of {get_args(Reduction)}, got {reduction!r}")
        if metric not in get_args(Metric):
            raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, got {margin}")
        self.margin = margin
        self.reduction = reduction
        self.metric = metric
        self.swap = swap
        self.smooth = smooth

    def forward(
        self,
        embeddings: Tensor,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        valid: Tensor | None = None,
        *,
        references: Tensor | None = None,
    ) -> Tensor:
        """The loss by rows ``(K,)`` and, if given, their valid mask.

        Args:
            embeddings: ``(N, D)``, of which anchors are rows.
            anchors: ``(K,)`` int64.
            positives: ``(K,)`` int64, rows of the references.
            negatives: ``(K,)`` int64, rows of the references.
            valid: ``(K,)`` bool, which triplets count; all if None.
            references: ``(M, D)``; the embeddings if None.
        """
        plain = self.metric == "sqeuclidean" and references is None
        if plain and not self.swap and not self.smooth:
            hinges = triplet_loss(
                embeddings,
                anchors,
                positives,
                negatives,
                valid=valid,
                margin=self.margin,
                reduction="none" if self.reduction == "mean_active" else self.reduction,
            )
            return _mean_active(hinges) if self.reduction == "mean_active" else hinges
        near, far = _distances(
            embeddings, anchors, positives, negatives, valid, references, self.metric
        )
        if self.swap:
            others = embeddings if references is None else references
            across = pair_distance(others, positives, negatives, metric=self.metric, valid=valid)
            far = torch.minimum(far, across)
        terms = near - far + self.margin
        terms = nn.functional.softplus(terms) if self.smooth else torch.relu(terms)
        if valid is not None:
            terms = terms.where(valid, 0)
        if self.reduction == "mean_active":
            return _mean_active(terms)
        if self.reduction == "none":
            return terms
        counted = len(terms) if valid is None else valid.sum()
        return terms.sum() / _at_least_1(counted) if self.reduction == "mean" else terms.sum()

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        words = f"margin={self.margin}, reduction={self.reduction!r}"
        if self.metric != "sqeuclidean":
            words += f", metric={self.metric!r}"
        return words + ", swap=True" * self.swap + ", smooth=True" * self.smooth


class MarginLoss(nn.Module):
    r"""Asks that positives be nearer than a boundary and negatives farther, by a margin each.

    .. math::
        \frac1A \sum_k \max(0, d(a_k, p_k) - \beta + m) + \max(0, \beta - d(a_k, n_k) + m)

    with the Euclidean distance d and A the number of terms above 0 (Wu, Manmatha, Smola,
    Krähenbühl: Sampling matters in deep embedding learning, ICCV 2017). The boundary
    :math:`\beta` is one number or one a class, that of the anchor, and may be learnt, which pays a
    price: :math:`\nu \beta`, or :math:`\frac{\nu}{A} \sum_k \beta_{c(a_k)}` over the valid
    triplets with one a class. The embeddings are not normalised here: the defaults fit rows of
    length 1, which lie at most 2 apart. An invalid triplet contributes nothing. Where no term is
    above 0 the loss is 0, but for the price of a single boundary, and no embedding moves; without
    a valid triplet nothing is paid either. A NaN embedding gives a NaN loss.

    Args:
        margin: In the unit of the embeddings.
        beta: Where the boundary lies, or starts.
        num_classes: Gives each of so many classes its own boundary.
        learn_beta: Makes ``beta`` a parameter.
        nu: Weight of the price; without ``learn_beta`` nothing is paid.

    Example:
        >>> rows = torch.tensor([[0], [1], [2]])
        >>> MarginLoss()(torch.eye(3), *rows)  # the one term above 0: sqrt(2) - 1.2 + 0.2
        tensor(0.4142)
    """

    beta: Tensor

    def __init__(
        self,
        margin: float = 0.2,
        beta: float = 1.2,
        num_classes: int | None = None,
        learn_beta: bool = False,
        nu: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.margin = margin
        self.num_classes = num_classes
        self.learn_beta = learn_beta
        self.nu = nu
        boundary = torch.full(() if num_classes is None else (num_classes,), float(beta))
        if learn_beta:
            self.beta = nn.Parameter(boundary)
        else:
            self.register_buffer("beta", boundary)

    def forward(
        self,
        embeddings: Tensor,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        valid: Tensor | None = None,
        *,
        references: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The loss by rows ``(K,)`` and, if given, their valid mask.

        Args:
            embeddings: ``(N, D)``, of which anchors are rows.
            anchors: ``(K,)`` int64.
            positives: ``(K,)`` int64, rows of the references.
            negatives: ``(K,)`` int64, rows of the references.
            valid: ``(K,)`` bool, which triplets count; all if None.
            references: ``(M, D)``; the embeddings if None.
            labels: ``(N,)`` int64, the anchors' classes in ``[0, num_classes)``; needed with
                ``num_classes`` and only looked at then. On the CPU another class is refused, on
                CUDA it gives a NaN loss.
        """
        near, far = _distances(
            embeddings, anchors, positives, negatives, valid, references, "euclidean"
        )
        beta = self._boundaries(embeddings, anchors, valid, labels).to(near.dtype)
        pulls = torch.relu(near - beta + self.margin)
        pushes = torch.relu(beta - far + self.margin)
        if valid is not None:
            pulls, pushes = pulls.where(valid, 0), pushes.where(valid, 0)
        active = (pulls > 0).sum() + (pushes > 0).sum()
        loss = (pulls + pushes).sum() / _at_least_1(active)
        if self.nu and self.learn_beta:
            if self.num_classes is None:
                paid = beta * (len(anchors) > 0 if valid is None else valid.any())
            else:
                listed = beta if valid is None else beta.where(valid, 0)
                paid = listed.sum() * (active > 0) / _at_least_1(active)
            loss = loss + self.nu * paid
        return loss

    def _boundaries(
        self, embeddings: Tensor, anchors: Tensor, valid: Tensor | None, labels: Tensor | None
    ) -> Tensor:
        """Of each triplet ``(K,)``, or the one there is."""
        if self.num_classes is None:
            return self.beta
        if labels is None:
            raise ValueError(f"labels must be given: beta has {self.num_classes} classes")
        if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"labels must be ({len(embeddings)},) integers, got {tuple(labels.shape)}"
                f" {labels.dtype}"
            )
        if len(embeddings) == 0:  # whoever was no triplet has no class
            return self.beta.new_zeros(anchors.shape)
        if valid is not None:
            anchors = anchors.where(valid, 0)
        classes = labels[anchors.clamp(0, len(labels) - 1)]  # an anchor outside is at NaN already
        known = (classes >= 0) & (classes < self.num_classes)
        known = known if valid is None else known | ~valid
        if classes.device.type == "cpu" and not torch.compiler.is_compiling() and not known.all():
            first = int((~known).nonzero()[0])
            raise IndexError(
                f"labels must be in [0, {self.num_classes}), the anchor of triplet {first} has"
                f" {int(classes[first])}; {int((~known).sum())} of {len(classes)} triplets have a"
                " class outside"
            )
        return self.beta[classes.clamp(0, self.num_classes - 1)].where(known, torch.nan)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        kind = "one" if self.num_classes is None else f"{self.num_classes} classes"
        learnt = f", learnt with nu={self.nu}" if self.learn_beta else ""
        return f"margin={self.margin}, beta: {kind}{learnt}"


def _distances(
    embeddings: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    valid: Tensor | None,
    references: Tensor | None,
    metric: Metric,
) -> tuple[Tensor, Tensor]:
    """To the positives and to the negatives, in one call: backward sorts and adds up once."""
    for name, rows in (("positives", positives), ("negatives", negatives), ("valid", valid)):
        if rows is not None and rows.shape != anchors.shape:
            raise ValueError(
                f"{name} must be {tuple(anchors.shape)} as anchors, got {tuple(rows.shape)}"
            )
    try:
        both = pair_distance(
            embeddings,
            torch.cat([anchors, anchors]),
            torch.cat([positives, negatives]),
            references,
            metric=metric,
            valid=None if valid is None else torch.cat([valid, valid]),
        )
    except IndexError as error:
        raise IndexError(
            f"{error} (rows: the anchors, twice; columns: the {len(anchors)} positives, then the"
            " negatives)"
        ) from None
    near, far = both.split(len(anchors)) if len(anchors) else (both, both)
    return near, far


def _mean_active(terms: Tensor) -> Tensor:
    """Over those above 0, and those that are NaN."""
    return terms.sum() / _at_least_1((terms > 0).sum())


def _at_least_1(count: Tensor | int) -> Tensor | int:
    return max(count, 1) if isinstance(count, int) else count.clamp(min=1)
