"""Wiring of BCL: two records of a patient, some time apart, as pages."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ecgfast.config.bcl import Config
from ecgfast.data.apart import DAY, Apart, times_of
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Lists, PairSampler, Partners
from ecgfast.data.source import Source
from ecgfast.methods.bcl import BCL
from ecgfast.systems.parts import make_page_encoder, settled_recipe
from ecgfast.systems.views import make_projector, make_run, open_records, page_views
from ecgfast.train.batches import Sampler
from ecgfast.train.fit import Run, say


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal = config.signal
    source = open_records(config)
    sampler = None
    if config.pair == "patient":
        source, sampler = _paired(source, config)
    recipe = settled_recipe(signal, source)
    encoder, model = make_page_encoder(config.encoder, signal, recipe)
    method = BCL(
        encoder,
        make_projector(config.projector, encoder.embedding_dim),
        page_views(config.views, encoder),
        pair=config.pair,
        temperature=config.temperature,
        gather=config.gather,
        optim=config.optim,
    )
    return make_run(config, source, method, model=model, recipe=recipe, sampler=sampler)


def _paired(source: Source, config: Config) -> tuple[Source, Sampler]:
    """The records that have a partner, and what deals them in pairs; says who is left out.

    Raises:
        DataError: There is no pair.
    """
    dated = times_of(source.table, config.date) if config.min_gap else None
    partners = _partners(source, config, dated)
    alone = partners.counts() < 1
    patients = source.patients()
    everyone, kept = (len(np.unique(some)) for some in (patients, patients[~alone]))
    _say_dates(source, config, dated)
    if alone.all():
        raise DataError(_no_pair(source, config, dated))
    if config.lone == "drop":
        say(
            f"pairs: {len(alone) - alone.sum()} records of {kept} patients; {everyone - kept} "
            f"patients ({alone.sum()} records in all) without a pair are left out (--lone augment "
            "keeps them)"
        )
        source = source.take(np.flatnonzero(~alone))
        dated = None if dated is None else (dated[0], dated[1][~alone])
        partners = _partners(source, config, dated)
    else:
        say(f"pairs: {len(alone)} records; {alone.sum()} of them are paired with themselves")
    units = Lists.of_groups(source.patients())
    fit = config.fit
    return source, partial(PairSampler, units, partners, fit.batch_size, seed=fit.seed)


def _partners(
    source: Source, config: Config, dated: tuple[str, NDArray[np.float64]] | None
) -> Apart | Partners:
    if dated is None:
        return Partners.of_groups(source.patients())
    return Apart.of_times(source.patients(), dated[1], config.min_gap * DAY)


def _say_dates(
    source: Source, config: Config, dated: tuple[str, NDArray[np.float64]] | None
) -> None:
    if not config.min_gap:
        return
    if dated is None:
        say(
            f"note: no column of dates, so that any two records of a patient are a pair, however "
            f"near in time (--min_gap {config.min_gap:g} asks for more; --date names a column)"
        )
        return
    known = np.isfinite(dated[1])
    patients = source.patients()
    say(
        f"dates: column {dated[0]}, of {known.sum()} of {len(known)} records, "
        f"{len(np.unique(patients[known]))} of {len(np.unique(patients))} patients; pairs are "
        f"{_days(config)} apart or more, a record without a date has no partner"
    )


def _no_pair(source: Source, config: Config, dated: tuple[str, NDArray[np.float64]] | None) -> str:
    patients = len(np.unique(source.patients()))
    unknown = int((source.table["patient_id"].fillna("") == "").sum())
    apart, lower = "", ""
    if dated is not None:
        apart = f" that lie {_days(config)} apart by column {dated[0]}"
        lower = "Lower --min_gap, "
    return (
        f"error[pairs] no patient has two records{apart}: {len(source)} records are of {patients} "
        f"patients ({unknown} records have no patient_id). {lower}"
        f"{'add' if lower else 'Add'} records of the same patients (--data.paths), name the "
        "patients when you convert, or pair each record with itself: --pair record"
    )


def _days(config: Config) -> str:
    return f"{config.min_gap:g} day{'s' * (config.min_gap != 1)}"
