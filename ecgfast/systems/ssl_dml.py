"""Wiring of SSL-DML: triplets by distance in input space."""

from __future__ import annotations

from functools import partial

from ecgfast.config.ssl_dml import Config
from ecgfast.data.sampler import StepSampler
from ecgfast.data.source import open_source
from ecgfast.methods.triplet import Triplet
from ecgfast.miners.distance import InputDistance, rate_factor
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.systems.parts import (
    check_source,
    make_encoder,
    preparation,
    prepared_fs,
    settled_recipe,
)
from ecgfast.train.batches import Batches
from ecgfast.train.contract import Contract, Records
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    data, signal, fit = config.data, config.signal, config.fit
    source = open_source(
        data.paths, data.splits, signal=signal, patients=data.patients, limit=data.limit
    )
    check_source(source, signal, chosen=True)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, num_leads=len(signal.leads))
    prepare = preparation(signal, recipe)
    distance = input_distance(config, fs=prepared_fs(signal, recipe))
    miner = NearestFarthest(distance, config.positive, config.negative, config.neg_topk)
    method = Triplet(encoder, miner, margin=config.margin, optim=config.optim)
    batches = Batches(
        source.dataset,
        prepare,
        partial(StepSampler, len(source), fit.batch_size, seed=fit.seed, order=config.order),
        seed=fit.seed,
        batch_size=fit.batch_size,
        workers=data.workers,
        names=source.names,
    )
    contract = Contract(
        signal=signal,
        recipe=recipe,
        model=model,
        synthetic=source.synthetic,
        trained_on=Records.of(source.column("record_id")),
    )
    return Run(method, batches, contract, config)


def input_distance(config: Config, *, fs: float) -> InputDistance:
    """What the configuration mines by, on records of ``fs`` Hz.

    Raises:
        RunError: The mining rate is above theirs, or no ratio to it.
    """
    try:
        factor = rate_factor(fs, config.mine_fs)
    except ValueError as error:
        raise RunError(f"error[mining] {error} (--mine_fs)", code=2) from error
    rate = fs * factor[0] / factor[1]
    radius = None if config.dtw_radius is None else round(config.dtw_radius * rate)
    return InputDistance(
        config.distance,
        cost=config.dtw_cost,
        radius=radius,
        gamma=config.soft_gamma,
        resample=factor,
    )
