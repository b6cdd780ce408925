"""What a label asks of a head: targets, losses, scores, and how an epoch is judged."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    mse_loss,
    softplus,
)
from torchmetrics import CatMetric
from torchmetrics.functional.classification import binary_auroc

from ecgfast.eval.survival import c_index
from ecgfast.losses.survival import CoxLoss

Kind = Literal["regression", "classification", "multiclass", "survival"]
Loss = Literal["mse", "huber", "rmse"]
ROOT = 1e-6  # under the published root: its gradient at 0 is finite


class Task(nn.Module):
    """A regression, a class at a threshold, one of several classes, or survival.

    What a head gives is called output: ``(N,)``, a value in the label's unit, a logit or a log
    hazard, or ``(N, C)``, a logit a class or an interval of time. Labels are ``(N,)``; NaN is none,
    and is left out of every loss. A label of survival is the time of the event, over 0, or minus
    the time until which there was none.

    Args:
        kind: Which of the four. The label of several classes is the number of the class.
        threshold: Of a class: positive is label > threshold, strictly; none takes a label that is
            0 or 1.
        loss: Of a regression: errors squared, Huber's (which bends at 1), or the root of their mean
            square over the batch.
        class_weights: What a record of each class counts, ``(C,)``, 2 for a class at a threshold;
            none counts all alike. Sums of weighted losses are divided by the number of records.
        edges: Of survival: ends ``(K,)`` of the intervals whose hazards the head gives as logits;
            none is proportional hazards, whose loss compares the records of all ranks' batches.
        ties: Of proportional hazards: rule for events at one time.
    """

    class_weights: Tensor | None
    edges: Tensor | None

    def __init__(
        self,
        kind: Kind,
        *,
        threshold: float | None = None,
        loss: Loss = "mse",
        class_weights: Tensor | None = None,
        edges: Tensor | None = None,
        ties: str = "efron",
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"task must be one of {', '.join(get_args(Kind))}, got {kind}")
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be mse, huber or rmse, got {loss}")
        if class_weights is not None and kind not in ("classification", "multiclass"):
            raise ValueError(f"class_weights belong to classes, got task {kind}")
        if edges is not None and kind != "survival":
            raise ValueError(f"edges belong to task survival, got task {kind}")
        self.kind = kind
        self.threshold = threshold
        self.loss = loss
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("edges", edges, persistent=False)
        self.cox = CoxLoss(ties, gather=True)
        # nothing to say about NaN: a record without label never gets here
        self.said = CatMetric(nan_strategy="disable")
        self.true = CatMetric(nan_strategy="disable")

    def output(self, values: Tensor) -> Tensor:
        """From what a head gives, ``(N, outputs)``."""
        several = self.kind == "multiclass" or self.edges is not None
        return values.float() if several else values[:, 0].float()

    def target(self, label: Tensor) -> Tensor:
        """What is learnt from labels ``(N,)``: themselves, or 0 and 1; NaN stays NaN.

        Raises:
            ValueError: Classes without a threshold are not 0 or 1.
        """
        if self.kind != "classification":
            return label.float()
        if self.threshold is not None:
            return torch.where(label.isnan(), label, (label > self.threshold).to(label)).float()
        wrong = ~(label.isnan() | (label == 0) | (label == 1))
        if wrong.any():
            raise ValueError(
                f"labels of a class must be 0 or 1, got {label[wrong].tolist()[:5]} in "
                f"{int(wrong.sum())} of {len(label)} records: set --threshold, or --task regression"
            )
        return label.float()

    def losses(self, output: Tensor, label: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Loss of every record, ``(N,)``; NaN where there is no label, with a gradient of zero.

        The loss of proportional hazards is of a batch, not of a record.

        Args:
            output: See above.
            label: ``(N,)``.
            scale: Of a regression: the unit that errors are counted in. Under ``rmse`` these are
                squares, of which ``forward`` takes the root.

        Raises:
            TypeError: Hazards are proportional.
        """
        target = self.target(label)
        known = ~target.isnan()
        if self.kind == "survival":
            if self.edges is None:
                raise TypeError("a record alone has no Cox loss: it is compared with its batch")
            losses = interval_losses(output, torch.where(known, target, 1.0), self.edges)
        elif self.kind == "multiclass":
            classes = torch.where(known, target, 0).long()
            losses = cross_entropy(output, classes, reduction="none")
        elif self.kind == "classification":
            clean = torch.where(known, target, output.detach())
            losses = binary_cross_entropy_with_logits(output, clean, reduction="none")
        else:
            clean = torch.where(known, target, output.detach())
            criterion = huber_loss if self.loss == "huber" else mse_loss
            losses = criterion(output / scale, clean / scale, reduction="none")
        if self.class_weights is not None:
            losses = losses * self.class_weights[torch.where(known, target, 0).long()]
        return torch.where(known, losses, torch.nan)

    def forward(self, output: Tensor, label: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Mean loss of the records that have a label; 0 where none has. Arguments as of losses.

        Of proportional hazards the mean over events, 0 where none was seen.
        """
        if self.kind == "survival" and self.edges is None:
            return self.cox(output, label.abs(), label > 0)
        labelled = ~label.isnan()
        losses = torch.where(labelled, self.losses(output, label, scale), 0.0)
        mean = losses.sum() / labelled.sum().clamp(min=1)
        if self.kind != "regression" or self.loss != "rmse":
            return mean
        return torch.where(labelled.any(), (mean + ROOT).sqrt(), 0.0)

    def score(self, output: Tensor) -> Tensor:
        """What a record gets.

        The value ``(N,)``, the probability of the class ``(N,)``, or of each ``(N, C)``, or the log
        hazard ``(N,)``: of intervals that of their sum, the cumulative hazard at the last edge.
        """
        if self.kind == "survival":
            return output if self.edges is None else log_cumulative_hazard(output)
        if self.kind == "multiclass":
            return output.softmax(dim=-1)
        return output if self.kind == "regression" else output.sigmoid()

    def keep(self, output: Tensor, label: Tensor) -> None:
        """Keeps what was said and what was true, until it is judged."""
        target = self.target(label)
        known = ~target.isnan()
        self.said.update(output[known])
        self.true.update(target[known])

    def judge(self) -> dict[str, Tensor]:
        """Judges all that was kept, of all ranks, at once; nothing is kept afterwards.

        Returns:
            ``val_loss``, the number that chooses weights (the root mean squared error in the
            label's unit, or the mean cross entropy, weighted as in training), and what is worth a
            curve beside it. An area under a curve is NaN where a class or all others are missing;
            of several classes it is the mean of those that are not, each against all others. The
            loss of proportional hazards compares all records of the part.
        """
        outputs, targets = whole(self.said), whole(self.true)
        if len(targets) == 0:
            raise ValueError(
                "no record of the validation part has a label: choose another label or part"
            )
        if self.kind == "survival":
            return self._judge_hazard(outputs.reshape(len(targets), -1), targets)
        if self.kind == "regression":
            rmse = mse_loss(outputs, targets).sqrt()
            return {"val_loss": rmse, "val_rmse": rmse}
        if self.kind == "classification":
            weights = None if self.class_weights is None else self.class_weights[targets.long()]
            loss = binary_cross_entropy_with_logits(outputs, targets, weight=weights)
            return {"val_loss": loss, "val_auroc": _auroc(outputs.sigmoid(), targets)}
        outputs = outputs.reshape(len(targets), -1)
        classes = targets.long()
        areas = torch.stack(
            [
                _auroc(probability, (classes == c).float())
                for c, probability in enumerate(outputs.softmax(dim=1).unbind(dim=1))
            ]
        )
        return {
            "val_loss": self.losses(outputs, targets).mean(),
            "val_auroc": areas.nanmean(),
            "val_accuracy": (outputs.argmax(dim=1) == classes).float().mean(),
        }

    def _judge_hazard(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if not (targets > 0).any():
            raise ValueError(
                f"none of the {len(targets)} records of the validation part has an event: choose "
                "another part, or --validation '' --keep last"
            )
        if self.edges is None:
            hazard = outputs[:, 0]
            loss = CoxLoss(self.cox.ties)(hazard.double(), targets.abs(), targets > 0)
        else:
            hazard, loss = self.score(outputs), self.losses(outputs, targets).mean()
        try:
            order = c_index(hazard.cpu(), targets.abs().cpu(), (targets > 0).cpu())
        except ValueError:  # no pair can be compared, or a hazard is not finite
            order = float("nan")
        return {"val_loss": loss.float(), "val_c_index": torch.tensor(order)}


def interval_losses(logits: Tensor, label: Tensor, edges: Tensor) -> Tensor:
    r"""Negative log-likelihood of each record under hazards of intervals, ``(N,)``.

    With hazards h of the intervals that end at the edges, an event in interval j counts
    :math:`-\log h_j - \sum_{k < j} \log (1 - h_k)`. A record that was censored counts
    :math:`-\log (1 - h_k)` of the intervals that it was followed to the end of; so does an event
    after the last edge. Gensheimer and Narasimhan, PeerJ 2019.

    Args:
        logits: Of the hazards, ``(N, K)``.
        label: ``(N,)``, time of the event, or minus the time of censoring.
        edges: ``(K,)``, rising, in the unit of the label.
    """
    time = label.abs()[:, None]
    over = time >= edges  # followed to the end of the interval
    begin = torch.cat([edges.new_zeros(1), edges[:-1]])
    here = (label[:, None] > 0) & (time > begin) & (time <= edges)
    lived = softplus(logits).where(over & ~here, 0.0)
    return (lived + softplus(-logits).where(here, 0.0)).sum(dim=1)


def log_cumulative_hazard(logits: Tensor) -> Tensor:
    """Of hazards of intervals, ``(N, K) -> (N,)``: log of minus log survival at the last edge."""
    return softplus(logits).sum(dim=-1).clamp_min(torch.finfo(logits.dtype).tiny).log()


def survival(logits: Tensor) -> Tensor:
    """Probability to be without event at the end of each interval, ``(N, K) -> (N, K)``."""
    return (-softplus(logits).cumsum(dim=-1)).exp()


def whole(kept: CatMetric) -> Tensor:
    """All that a metric kept, of all ranks, flat; the metric is empty afterwards."""
    values = torch.as_tensor(kept.compute()) if kept.update_called else torch.zeros(0)
    kept.reset()
    return values.flatten()


def _auroc(scores: Tensor, targets: Tensor) -> Tensor:
    both = 0 < targets.sum() < len(targets)
    return torch.as_tensor(binary_auroc(scores, targets.long()) if both else torch.nan)
