"""Wiring of supervised DML: a metric by labels, a head beside it, batches balanced by class."""

from __future__ import annotations

from functools import partial

from ecgfast.config.sup_dml import Config
from ecgfast.data.sampler import BalancedSampler, StepSampler
from ecgfast.methods.sup_dml import LabelMetric, SupDML
from ecgfast.methods.task import Task
from ecgfast.systems.labelled import Learner, learner, run_of
from ecgfast.train.batches import Sampler
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    who = learner(config)
    task = Task(
        config.task,
        threshold=config.threshold,
        loss=config.loss,
        class_weights=who.class_weights(),
    )
    method = SupDML(
        who.encoder,
        who.head if config.task_weight else None,
        metric=_metric(config, who) if config.alpha else None,
        task=task,
        alpha=config.alpha,
        task_weight=config.task_weight,
        unit=config.unit,
        train_head=config.train_head,
        dropout_at_test=config.dropout_at_test,
        optim=config.optim,
    )
    run = run_of(who, method, partial(_sampler, config, who))
    return run._replace(collapse=(config.collapse_below, config.collapse_patience))


def _metric(config: Config, who: Learner) -> LabelMetric:
    value = config.task == "regression"
    mining = config.mining
    if mining == "auto":
        mining = "label" if value else "npair"
    return LabelMetric(
        config.metric,
        mining=mining,
        classes=None if value else len(who.train.classes or (0, 1)),
        margin=config.margin,
        beta=config.beta,
        learn_beta=config.learn_beta,
        nu=config.nu,
        normalise=config.normalise,
    )


def _sampler(config: Config, who: Learner, size: int) -> Sampler:
    if config.balance and config.task != "regression":
        return partial(BalancedSampler, who.targets(), size, seed=config.fit.seed)
    return partial(StepSampler, len(who.train), size, seed=config.fit.seed)
