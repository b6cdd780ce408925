"""Wiring of CLOCS-CMSC: the two halves of a record in time."""

from __future__ import annotations

from ecgfast.config.cmsc import Config
from ecgfast.methods.cmsc import CMSC
from ecgfast.systems.parts import make_encoder, settled_recipe
from ecgfast.systems.views import make_projector, make_run, make_views, open_records
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal = config.signal
    source = open_records(config)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    method = CMSC(
        encoder,
        make_projector(config.projector, encoder.embedding_dim),
        make_views(config.augment, signal, recipe, parts=2),
        temperature=config.temperature,
        by_patient=config.positives == "patient",
        mask_patients=config.mask_patients,
        gather=config.gather,
        optim=config.optim,
    )
    return make_run(config, source, method, model=model, recipe=recipe)
