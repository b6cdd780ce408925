"""Wiring of fine-tuning: a head on an encoder, for a label; and of runs that are to be used."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ecgfast.config.finetune import Config
from ecgfast.data.sampler import StepSampler, StratifiedSampler
from ecgfast.methods.finetune import Finetune
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.dual_attention import DualAttentionDecoder
from ecgfast.models.heads import Head, RiskHead
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.systems.labelled import Learner, learner, run_of
from ecgfast.systems.parts import (
    ENCODERS,
    HEADS,
    AnyEncoder,
    from_description,
    make_decoder,
    preparation,
)
from ecgfast.systems.views import clip_views, page_faults, page_views, views_of
from ecgfast.train.checkpoint import ENCODER, HEAD, load_contract, load_weights
from ecgfast.train.contract import Contract, ContractError
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run
from ecgfast.transforms.signal import Prepare


class Loaded(NamedTuple):
    """A run to be used: modules in eval mode, and what they expect and give."""

    encoder: AnyEncoder
    head: Head | RiskHead | None
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
        edges=who.edges,
        ties=config.ties,
        freeze=config.freeze,
        freeze_steps=config.freeze_steps,
        freeze_norms=config.freeze_norms,
        dropout_at_test=config.dropout_at_test,
        layer_decay=config.layer_decay,
        head_lr=config.head_lr,
        encoder_lr=config.encoder_lr,
        augment=_augment(config, who),
        decoder=_decoder(config, who),
        reconstruction=config.reconstruction,
        optim=config.optim,
    )
    seed = config.fit.seed
    if config.task == "survival":  # a batch without an event teaches nothing
        strata = (who.labels > 0).astype(np.int64)
        return run_of(who, method, lambda size: partial(StratifiedSampler, strata, size, seed=seed))
    return run_of(who, method, lambda size: partial(StepSampler, len(who.train), size, seed=seed))


def _decoder(config: Config, who: Learner) -> DualAttentionDecoder | None:
    if not config.reconstruction:
        return None
    return make_decoder(who.encoder, who.config.signal, who.recipe)


def _augment(config: Config, who: Learner) -> nn.Module | None:
    """What training sees in place of a record."""
    encoder = who.encoder
    if isinstance(encoder, ClipEncoder):
        if config.augment.draws:
            raise RunError(
                "error[augment] --augment is for signals, and the records are videos: take --draw "
                "anew, which shifts and turns clips (--clip_views)",
                code=2,
            )
        scale: Any = who.model["arguments"]["scale"]
        return None if config.draw == "alike" else clip_views(config.clip_views, scale)
    if who.train.pages:
        if config.augment.draws:
            raise RunError(
                "error[augment] --augment is for signals, and the records are pages: take --draw "
                "anew, which draws the faults of a scan (--views)",
                code=2,
            )
        return None if config.draw == "alike" else page_faults(config.views)
    augment = views_of(config.augment, who.config.signal, who.recipe)
    if config.draw == "alike":
        return augment
    if not isinstance(encoder, PageEncoder):
        raise RunError(
            f"error[draw] draw {config.draw} is for a network that sees pages; this one is a "
            f"{type(encoder).__name__}, which sees signals: take --draw alike",
            code=2,
        )
    pages = page_views(config.views, encoder)
    return pages if augment is None else nn.Sequential(augment, pages)


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
