"""Wiring of fine-tuning: a head on an encoder, for a label; and of runs that are to be used."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecgfast.config import Signal
from ecgfast.config.finetune import Config
from ecgfast.data.records import DataError
from ecgfast.data.sampler import StepSampler
from ecgfast.data.source import Source, open_source
from ecgfast.methods.finetune import Finetune
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.systems.parts import (
    ENCODERS,
    HEADS,
    check_source,
    describe,
    from_description,
    make_encoder,
    preparation,
    settled_recipe,
)
from ecgfast.train.batches import Batches
from ecgfast.train.checkpoint import ENCODER, HEAD, load_contract, load_encoder, load_weights
from ecgfast.train.contract import Contract, ContractError, Records, check_signal
from ecgfast.train.fit import Run, say
from ecgfast.transforms.signal import Prepare

MOST_LOOKS = 50  # at the validation part in a run, unless it is told otherwise


class Loaded(NamedTuple):
    """A run to be used: modules in eval mode, and what they expect and give."""

    encoder: ResNet1d
    head: Head | None
    prepare: Prepare
    contract: Contract


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    start = load_contract(config.init) if config.init else None
    if start is not None:
        config = _with_signal_of(start, config)
    data, fit, signal = config.data, config.fit, config.signal
    train = _open(config, data.splits, limit=data.limit)
    check_source(train, signal, chosen=start is None)
    if config.fraction < 1:
        train = train.fraction(config.fraction, seed=fit.seed, label=config.label)
    validation = _open(config, (config.validation,)) if config.validation else None
    if validation is not None:
        check_source(validation, signal, chosen=start is None)
    recipe = settled_recipe(signal, train) if start is None else start.recipe
    labels = train.column(config.label).astype(np.float64)
    _check_classes(config, labels)

    encoder, model = _encoder(config, start)
    arguments: dict[str, Any] = {
        "embedding_dim": encoder.embedding_dim,
        "hidden": config.hidden,
        "dropout": config.head_dropout,
    }
    head = Head(**arguments)
    if config.task == "regression":
        head.set_scale(float(labels.mean()), float(labels.std()))
    method = Finetune(
        encoder,
        head,
        task=config.task,
        threshold=config.threshold,
        freeze=config.freeze,
        dropout_at_test=config.dropout_at_test,
        optim=config.optim,
    )
    batch_size = min(fit.batch_size, len(train))  # a small share of the labels may not fill one
    batches = Batches(
        train.dataset,
        preparation(signal, recipe),
        partial(StepSampler, len(train), batch_size, seed=fit.seed),
        seed=fit.seed,
        batch_size=batch_size,
        workers=data.workers,
        validation=None if validation is None else validation.dataset,
        names=train.names,
    )
    contract = Contract(
        signal=signal,
        recipe=recipe,
        model=model,
        head={"class": "Head", "arguments": arguments},
        task={
            "kind": config.task,
            "label": config.label,
            "threshold": config.threshold,
            "mean": float(labels.mean()),
            "sd": float(labels.std()),
            "dropout_at_test": config.dropout_at_test,
        },
        synthetic=train.synthetic or (start is not None and start.synthetic),
        trained_on=Records.of(train.column("record_id")),
        pretrained_on=None if start is None else start.trained_on,
    )
    every = config.validate_every or max(len(train) // batch_size, -(-fit.steps // MOST_LOOKS))
    return Run(
        method,
        batches,
        contract,
        config,
        keep_best=config.keep == "best",
        validate_every=every,
    )


def load_run(folder: str | Path) -> Loaded:
    """Rebuilds encoder, head and preparation from a run's folder, ready to predict.

    Args:
        folder: Of a pretraining, which has no head, or of a fine-tuning.

    Raises:
        ContractError: The folder is no finished run, or is damaged.
    """
    contract = load_contract(folder)
    encoder = from_description(contract.model, ENCODERS)
    load_weights(Path(folder) / ENCODER, encoder, contract, say=_nothing)
    head = None
    if contract.head is not None:
        head = from_description(contract.head, HEADS)
        load_weights(Path(folder) / HEAD, head, contract, say=_nothing)
        head.eval()
        if contract.head["arguments"].get("embedding_dim") != contract.embedding_dim:
            raise ContractError(
                f"error[contract] {folder}: head and encoder differ in embedding_dim"
            )
    return Loaded(encoder.eval(), head, preparation(contract.signal, contract.recipe), contract)


def _with_signal_of(start: Contract, config: Config) -> Config:
    """The encoder's signal contract; another one that was asked for is refused."""
    if config.signal not in (Config().signal, start.signal):
        every = [field.name for field in dataclasses.fields(Signal)]
        check_signal(
            start.signal,
            config.signal,
            what="--signal",
            fields=every,
            way=f"leave --signal out: with --init the encoder's own holds ({describe(start)})",
        )
    return dataclasses.replace(config, signal=start.signal)


def _encoder(config: Config, start: Contract | None) -> tuple[ResNet1d, dict[str, object]]:
    if start is None:
        return make_encoder(config.encoder, num_leads=len(config.signal.leads))
    arguments = {**start.model["arguments"], "dropout": config.encoder.dropout}
    model = {**start.model, "arguments": arguments}
    encoder = from_description(model, ENCODERS)
    load_encoder(config.init, encoder, say=say)
    return encoder, model


def _open(config: Config, splits: tuple[str, ...], limit: int = 0) -> Source:
    return open_source(
        config.data.paths,
        splits,
        signal=config.signal,
        patients=config.data.patients,
        label=config.label,
        limit=limit,
    )


def _check_classes(config: Config, labels: np.ndarray) -> None:
    """A class needs both of its values among the training labels."""
    if config.task == "regression":
        if len(labels) < 2 or labels.std() == 0:
            raise DataError(
                f"error[label] all {len(labels)} training labels {config.label} are equal: there "
                "is nothing to learn; choose another label, or more records"
            )
        return
    if config.threshold is None:
        wrong = labels[~np.isin(labels, (0, 1))]
        if len(wrong):
            raise DataError(
                f"error[label] {len(wrong)} of {len(labels)} labels {config.label} are not 0 or 1 "
                f"(first: {wrong[0]:g}): name a --threshold, or --task regression"
            )
    positive = labels > (0.5 if config.threshold is None else config.threshold)
    if positive.all() or not positive.any():
        rule = "= 1" if config.threshold is None else f"> {config.threshold:g}"
        raise DataError(
            f"error[label] {int(positive.sum())} of {len(labels)} training records have "
            f"{config.label} {rule}: a class needs both kinds"
        )


def _nothing(line: str) -> None:
    """A run that is used says nothing of its weights."""
