"""Supervised deep metric learning: embeddings near where labels are."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import CatMetric

from ecgfast.config import Optim
from ecgfast.losses import (
    AngularLoss,
    MarginLoss,
    MultiSimilarityLoss,
    NPairLoss,
    TripletLoss,
)
from ecgfast.methods.task import Task, whole
from ecgfast.methods.views import spread
from ecgfast.miners import EmptyWatch, LabelDistance, RandomTriplets, SemiHard, SoftHard
from ecgfast.train.method import Method

ANGLE, ANGULAR_WEIGHT, L2_WEIGHT = 45.0, 2.0, 0.005  # as published
STRIP = 1024  # validation records whose distances to all others are held at a time
CODES = 0xFFFFFF  # of patients, as far as a float32 holds them: two in 16 million may share one

Mining = Literal["npair", "semihard", "softhard", "label"]
Metric = Literal["margin", "triplet", "angular", "multi_similarity"]


class LabelMetric(nn.Module):
    """A loss on embeddings by their labels, and the mining of its triplets.

    Args:
        metric: Which loss.
        mining: Which triplets; of no concern to multi-similarity, which takes all pairs.
        classes: How many; None for a value, whose labels are compared by their distance.
        margin: Of the margin and triplet loss, and of semi-hard mining.
        beta: Of the margin loss: where positives and negatives part; one a class.
        learn_beta: Makes it a parameter.
        nu: Its price in the loss.
        normalise: Brings embeddings to length 1 first.
    """

    def __init__(
        self,
        metric: Metric = "margin",
        *,
        mining: Mining,
        classes: int | None,
        margin: float = 0.2,
        beta: float = 1.2,
        learn_beta: bool = False,
        nu: float = 0.0,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        miners: dict[str, nn.Module] = {
            "npair": RandomTriplets(),
            "semihard": SemiHard(margin),
            "softhard": SoftHard(),
            "label": LabelDistance(),
        }
        if (mining == "label") != (classes is None):
            raise ValueError(f"mining {mining} does not go with classes={classes}")
        if classes is None and metric not in ("margin", "triplet"):
            raise ValueError(f"metric {metric} is for classes")
        self.metric = metric
        self.classes = classes
        self.normalise = normalise
        self.miner = miners[mining]
        self.loss: nn.Module
        if metric == "margin":
            self.loss = MarginLoss(margin, beta, classes, learn_beta, nu)
        elif metric == "triplet":
            self.loss = TripletLoss(margin)
        elif metric == "angular":
            self.loss = AngularLoss(ANGLE, normalise=False)
            self.npair = NPairLoss(L2_WEIGHT)
        else:
            self.loss = MultiSimilarityLoss()
        self.empty = EmptyWatch()

    def mine(self, embeddings: Tensor, labels: Tensor) -> Any:
        """Triplets of ``(N, D)`` by their labels ``(N,)``; says so when there are none for long."""
        triplets = self.miner(embeddings.detach(), labels)
        partners: dict[str, Tensor] = {}
        if self.classes is not None:
            same = (labels[:, None] == labels).sum(dim=1)
            partners = {"has_positive": same > 1, "has_negative": same < len(labels)}
        self.empty(triplets.valid, **partners)
        return triplets

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: Any) -> Tensor:
        """The loss of embeddings ``(N, D)`` by labels ``(N,)``: numbers of classes, or values."""
        anchors, positives, _, valid = triplets
        if self.metric == "multi_similarity":
            found = self.loss(embeddings, labels)
        elif self.metric == "angular":
            pairs = (embeddings, anchors, positives, labels, valid)
            found = self.npair(*pairs) + ANGULAR_WEIGHT * self.loss(*pairs)
        elif self.metric == "margin" and self.classes is not None:
            found = self.loss(embeddings, *triplets, labels=labels)
        else:
            found = self.loss(embeddings, *triplets)
        loss: Tensor = found
        return loss


class SupDML(Method):
    r"""A metric loss on the embeddings and a task loss on what a head makes of them, added up.

    .. math:: L = \alpha L_{metric} + w L_{task}

    Every record of a batch has a label. Logged are the loss, its two parts, the share of ``valid``
    triplets, the spread of the embeddings, which falls to 0 when the encoder collapses, and a
    learned ``beta``. 50 steps without a triplet bring a warning. On several ranks each mines its
    own batch.

    Validation logs what :class:`methods.task.Task` makes of the predictions. Without a head it asks
    each record's nearest neighbour, of another patient, by embedding: ``val_loss`` is the mean
    difference of their labels, or the share of neighbours of another class.

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
        head: As of ``Finetune``; None is the metric alone.
        metric: The loss on embeddings; None is the task alone.
        task: What the label is.
        alpha: Weight of the metric loss.
        task_weight: Weight of the task loss.
        unit: Errors of a regression are in units of the head's scale (sd), or of the label.
        train_head: The head learns; otherwise it stays as it was drawn (defect B6).
        dropout_at_test: Leaves the head's dropout on at test (defect B7).
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module | None,
        *,
        metric: LabelMetric | None,
        task: Task,
        alpha: float = 1.0,
        task_weight: float = 1.0,
        unit: Literal["sd", "label"] = "sd",
        train_head: bool = True,
        dropout_at_test: bool = False,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        if head is None and metric is None:
            raise ValueError("there must be a head or a metric")
        self.encoder = encoder
        self.head = None if head is None else head.requires_grad_(train_head)
        self.metric = metric
        self.task = task
        self.alpha = alpha
        self.task_weight = task_weight
        self.unit = unit
        self.dropout_at_test = dropout_at_test
        if head is None:
            self.embeddings, self.labels, self.patients = (
                CatMetric(nan_strategy="disable") for _ in range(3)
            )

    def train(self, mode: bool = True) -> SupDML:
        """As any module, but with the head's dropout on for B7."""
        super().train(mode)
        if self.dropout_at_test and self.head is not None:
            for module in self.head.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
        return self

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The joint loss of a batch of ``ecg`` ``(N, L, T)`` and ``label`` ``(N,)``."""
        embeddings = self.embed(batch["ecg"])
        parts: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        if self.metric is not None:
            parts["metric"], parts["valid"] = self._metric_loss(embeddings, batch["label"])
            losses.append(self.alpha * parts["metric"])
            if isinstance(self.metric.loss, MarginLoss) and self.metric.loss.learn_beta:
                parts["beta"] = self.metric.loss.beta.mean()
        if self.head is not None:
            output = self.task.output(self.head(embeddings))
            scale: Any = self.head.scale if self.unit == "sd" else 1.0
            parts["task"] = self.task(output, batch["label"], scale)
            losses.append(self.task_weight * parts["task"])
        loss = torch.stack(losses).sum()
        logged = {name: value.detach() for name, value in parts.items()}
        self.log_dict({"loss": loss.detach(), **logged, **spread(embeddings)})
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keeps what was said and what was true."""
        embeddings = self.embed(batch["ecg"])
        if self.head is not None:
            self.task.keep(self.task.output(self.head(embeddings)), batch["label"])
            return
        self.embeddings.update(embeddings.float())
        self.labels.update(self.task.target(batch["label"]))
        self.patients.update((batch["patient"] & CODES).float())

    def on_validation_epoch_end(self) -> None:
        """Judges the epoch, of all ranks, at once."""
        if self.head is not None:
            self.log_dict(self.task.judge(), prog_bar=True, sync_dist=True)
            return
        labels = whole(self.labels)
        embeddings = whole(self.embeddings).reshape(len(labels), -1)
        wrong = neighbour_error(
            embeddings, labels, whole(self.patients), classes=self.task.kind != "regression"
        )
        self.log_dict({"val_loss": wrong, "val_neighbour": wrong}, prog_bar=True, sync_dist=True)

    def _metric_loss(self, embeddings: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """And the share of triplets that are valid."""
        assert self.metric is not None
        embeddings = embeddings.float()
        if self.metric.normalise:
            embeddings = nn.functional.normalize(embeddings)
        target = self.task.target(label)
        labels = target if self.metric.classes is None else target.long()
        with self.clock.part("mining", embeddings.device):
            triplets = self.metric.mine(embeddings, labels)
        loss: Tensor = self.metric(embeddings, labels, triplets)
        return loss, triplets.valid.float().mean()


def neighbour_error(
    embeddings: Tensor, labels: Tensor, patients: Tensor, *, classes: bool
) -> Tensor:
    """How far the label of each record's nearest neighbour is, on the mean.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N,)``; NaN takes no part.
        patients: ``(N,)``, whose each record is: neighbours are of others.
        classes: Counts neighbours of another class; otherwise differences are averaged.

    Raises:
        ValueError: No record has a neighbour.
    """
    known = ~labels.isnan()
    embeddings, labels, patients = embeddings[known], labels[known], patients[known]
    errors = []
    for rows in torch.arange(len(labels), device=labels.device).split(STRIP):
        apart = torch.cdist(embeddings[rows], embeddings)
        apart.masked_fill_(patients[rows, None] == patients, torch.inf)
        nearest, place = apart.min(dim=1)
        off = (labels[rows] - labels[place]).abs()
        errors.append((off.sign() if classes else off)[nearest.isfinite()])
    wrong = torch.cat(errors) if errors else labels
    if not len(wrong):
        raise ValueError(
            "no record of the validation part has a label and a neighbour of another patient: "
            "choose another label or part"
        )
    return wrong.mean()
