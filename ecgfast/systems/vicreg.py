"""Wiring of VICReg: two augmented views of a record, and an expander."""

from __future__ import annotations

from ecgfast.config.vicreg import Config
from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.methods.vicreg import VICReg
from ecgfast.systems.parts import make_encoder, settled_recipe
from ecgfast.systems.views import make_projector, make_run, make_views, open_records
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal = config.signal
    source = open_records(config)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    method = VICReg(
        encoder,
        make_projector(config.projector, encoder.embedding_dim),
        make_views(config.augment, signal, recipe),
        VICRegLoss(config.invariance, config.variance, config.covariance, gather=config.gather),
        optim=config.optim,
    )
    return make_run(config, source, method, model=model, recipe=recipe)
