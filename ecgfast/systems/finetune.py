"""Wiring of fine-tuning: a head on an encoder, for a label; and of runs that are to be used."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from ecgfast.config.finetune import Config
from ecgfast.data.sampler import StepSampler
from ecgfast.methods.finetune import Finetune
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.systems.labelled import learner, run_of
from ecgfast.systems.parts import ENCODERS, HEADS, from_description, preparation
from ecgfast.systems.views import views_of
from ecgfast.train.checkpoint import ENCODER, HEAD, load_contract, load_weights
from ecgfast.train.contract import Contract, ContractError
from ecgfast.train.fit import Run
from ecgfast.transforms.signal import Prepare


class Loaded(NamedTuple):
    """A run to be used: modules in eval mode, and what they expect and give."""

    encoder: ResNet1d
    head: Head | None
    prepare: Prepare
    contract: Contract


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    who = learner(config)
    method = Finetune(
        who.encoder,
        who.head,
        task=config.task,
        threshold=config.threshold,
        loss=config.loss,
        class_weights=who.class_weights(),
        freeze=config.freeze,
        dropout_at_test=config.dropout_at_test,
        layer_decay=config.layer_decay,
        head_lr=config.head_lr,
        augment=views_of(config.augment, who.config.signal, who.recipe),
        optim=config.optim,
    )
    return run_of(
        who, method, lambda size: partial(StepSampler, len(who.train), size, seed=config.fit.seed)
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


def _nothing(line: str) -> None:
    """A run that is used says nothing of its weights."""
