"""Wiring of PCLR: two records of a patient."""

from __future__ import annotations

from functools import partial

import numpy as np

from ecgfast.config.pclr import Config
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Lists, PairSampler, Partners
from ecgfast.data.source import Source
from ecgfast.methods.pclr import PCLR
from ecgfast.systems.parts import make_encoder, settled_recipe
from ecgfast.systems.views import make_projector, make_run, make_views, open_records
from ecgfast.train.fit import Run, say


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal, fit = config.signal, config.fit
    source = open_records(config)
    if config.lone == "drop":
        source = of_several(source)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    method = PCLR(
        encoder,
        make_projector(config.projector, encoder.embedding_dim),
        make_views(config.augment, signal, recipe),
        temperature=config.temperature,
        gather=config.gather,
        optim=config.optim,
    )
    patients = source.patients()
    units, partners = Lists.of_groups(patients), Partners.of_groups(patients)
    sampler = partial(PairSampler, units, partners, fit.batch_size, seed=fit.seed)
    return make_run(config, source, method, model=model, recipe=recipe, sampler=sampler)


def of_several(source: Source) -> Source:
    """The records of patients who have two or more; says how many are left out.

    Raises:
        DataError: There is no such patient.
    """
    patients = source.patients()
    records = np.unique(patients, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(records[2][records[1]] > 1)
    alone = int((records[2] == 1).sum())
    if not len(kept):
        unknown = int((source.table["patient_id"].fillna("") == "").sum())
        raise DataError(
            f"error[pairs] no patient has two records: {len(source)} records are of {alone} "
            f"patients ({unknown} records have no patient_id). Add records of the same patients "
            "(--data.paths), name the patients when you convert, or pair each record with itself: "
            "--lone augment --augment.crop_s 5, say"
        )
    say(
        f"pairs: {len(kept)} records of {len(records[2]) - alone} patients; {alone} patients with "
        "one record are left out (--lone augment keeps them)"
    )
    return source.take(kept)
