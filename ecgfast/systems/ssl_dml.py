"""Wiring of SSL-DML: positives by distance in input space, or of the same patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from ecgfast.config.ssl_dml import Config
from ecgfast.data.identity import Identity, identity
from ecgfast.data.sampler import Lists, Mixture, PairSampler, Partners, StepSampler
from ecgfast.data.source import Source
from ecgfast.losses.coordinates import CoordinateLoss
from ecgfast.losses.log_ratio import LogRatioLoss
from ecgfast.losses.mined import MinedMultiSimilarityLoss, MinedNTXentLoss
from ecgfast.losses.triplet import MarginLoss, TripletLoss
from ecgfast.methods.ssl_dml import SSLDML, Loss
from ecgfast.miners.landmarks import Landmarks
from ecgfast.miners.pools import Dealt, InBatch, Pool, Ring
from ecgfast.miners.rows import Negatives
from ecgfast.models.heads import Projector
from ecgfast.systems.neighbours import input_distance, neighbours_of
from ecgfast.systems.parts import make_encoder, preparation, settled_recipe
from ecgfast.systems.views import make_run, open_records, views_of
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal, fit = config.signal, config.fit
    source = open_records(config)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    who = identity(source)
    method = SSLDML(
        encoder,
        _pool(config, source, recipe),
        Negatives(
            config.negative,
            topk=config.neg_topk,
            correction=config.hub_correction,
            hub_k=config.hub_k,
        ),
        _loss(config),
        ids=_ids(config, who),
        projector=_projector(config, encoder.embedding_dim),
        augment=views_of(config.augment, signal, recipe),
        normalise=config.normalise,
        seed=fit.seed,
        optim=config.optim,
    )
    return make_run(
        config,
        source,
        method,
        model=model,
        recipe=recipe,
        sampler=_sampler(config, source, who),
        batch_size=config.anchors if config.pool == "ring" else None,
        collapse=(config.collapse_below, config.collapse_patience),
    )


def _pool(config: Config, source: Source, recipe: dict[str, Any] | None) -> Pool:
    if config.loss == "landmarks":
        return _landmarks(config, source, recipe)
    distance = input_distance(config, config.signal, recipe, keep=config.beat_memory)
    far = config.negative == "farthest" and config.loss in ("triplet", "margin")
    far |= config.loss == "log_ratio"  # every distance teaches
    together = config.mine_over == "all"
    if config.dealt:
        views = config.augment.draws
        return Dealt(distance, itself=views, between_rows=far, gathered=together)
    words = {
        "rule": config.positive,
        "k": config.k_positives,
        "correction": config.hub_correction if config.hub_nearest else "none",
        "hub_k": config.hub_k,
        "between_rows": far,
        "gathered": together,
    }
    if config.pool == "ring":
        return Ring(distance, size=config.ring_size, **words)
    return InBatch(distance, **words)  # type: ignore[arg-type]


def _landmarks(config: Config, source: Source, recipe: dict[str, Any] | None) -> Landmarks:
    """Landmarks among the records, drawn by the seed."""
    distance = input_distance(config, config.signal, recipe)
    prepare = preparation(config.signal, recipe)
    rows = np.random.default_rng(config.fit.seed).permutation(len(source))[: 2 * config.landmarks]
    found: list[torch.Tensor] = []
    for some in np.array_split(rows, -(-len(rows) // 64)):
        batch = default_collate([source.dataset[int(row)] for row in some])
        ecg = prepare(*[batch[name] for name in ("ecg", "gain") if name in batch])
        _, compared, eligible = distance.compared(ecg)
        found.append(compared[eligible])
    reference = torch.cat(found)
    try:
        return Landmarks(distance, reference, dims=config.landmark_dims, keep=config.beat_memory)
    except ValueError as error:
        raise RunError(
            f"error[landmarks] {error}; {len(reference)} of {len(rows)} records that were drawn "
            "can be compared (--landmarks, --landmark_dims)",
            code=2,
        ) from error


def _projector(config: Config, embedding_dim: int) -> nn.Module | None:
    if config.loss == "landmarks":
        return nn.Linear(embedding_dim, config.landmark_dims)
    if not config.projection_dim:
        return None
    return Projector(embedding_dim, config.projection_dim, hidden=embedding_dim)


def _loss(config: Config) -> Loss:
    if config.loss == "triplet":
        return TripletLoss(config.margin)
    if config.loss == "margin":
        return MarginLoss(config.margin, config.beta)
    if config.loss == "landmarks":
        return CoordinateLoss()
    if config.loss == "nt_xent":
        return MinedNTXentLoss(config.temperature)
    return LogRatioLoss() if config.loss == "log_ratio" else MinedMultiSimilarityLoss()


def _ids(config: Config, who: Identity) -> torch.Tensor:
    """Who the records are to the miner; as published, all of them are strangers."""
    own = np.arange(len(who.record))
    record, group = (own, own) if config.groups == "none" else (who.record, who.group)
    return torch.from_numpy(np.stack([record, group, who.patient]))


def _sampler(config: Config, source: Source, who: Identity) -> Callable[..., Iterable[list[int]]]:
    """Which records a step reads: anchors, with a partner each where these are dealt."""
    fit = config.fit
    if not config.dealt:
        return partial(StepSampler, len(source), config.anchors, seed=fit.seed, order=config.order)
    visits = Partners.of_groups(source.patients())
    if config.positive == "patient":
        units = Lists.of_groups(source.patients(), least=2)
        if not len(units.lengths):
            raise RunError(
                f"error[patient] none of the {len(source)} records has another one of its patient: "
                "take another --positive, or records with patient_id",
                code=2,
            )
        return partial(PairSampler, units, visits, fit.batch_size, seed=fit.seed)
    k = 1 if config.positive == "nearest" else config.k_positives
    near = neighbours_of(config.graph, source, who, k)
    partners = near if config.positive != "both" else Mixture(visits, near, config.patient_share)
    paired = np.flatnonzero(partners.counts() > 0)
    units = Lists.of_rows(paired[:, None])
    return partial(PairSampler, units, partners, fit.batch_size, seed=fit.seed)
