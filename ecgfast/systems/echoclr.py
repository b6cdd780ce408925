"""Wiring of EchoCLR: clips of two videos of a study, and the order of their frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ecgfast.config import Signal
from ecgfast.config.echoclr import Config
from ecgfast.data.moments import Moments, MomentSampler
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Lists, PairSampler, Partners
from ecgfast.data.source import Source
from ecgfast.data.video_pairs import ListedPairs, OneMoment, pairs_within
from ecgfast.methods.echoclr import EchoCLR
from ecgfast.models.heads import OrderHead
from ecgfast.systems.parts import make_clip_encoder
from ecgfast.systems.views import clip_views, make_projector, open_videos
from ecgfast.train.batches import Batches, Sampler
from ecgfast.train.contract import Contract, Records
from ecgfast.train.fit import Run, say
from ecgfast.transforms.frame_order import FrameOrders


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    net, fit = config.encoder, config.fit
    source = open_videos(config.data, net)
    _say_lengths(source, config)
    sampler = _sampler(source, config)
    encoder, model = make_clip_encoder(net)
    ordered = bool(config.order)
    method = EchoCLR(
        encoder,
        make_projector(config.projector, encoder.embedding_dim, last_bias=False),
        clip_views(config.views, net.scale),
        orders=FrameOrders(net.frames) if ordered else None,
        order_head=OrderHead(encoder.embedding_dim, net.frames) if ordered else None,
        order=config.order,
        mask=config.mask,
        temperature=config.temperature,
        gather=config.gather,
        optim=config.optim,
    )
    batches = Batches(
        Moments(source.dataset, frames=net.frames, step=net.step),
        nn.Identity(),  # the method moves and scales clips
        sampler,
        seed=fit.seed,
        batch_size=fit.batch_size,
        workers=config.data.workers,
        names=source.names,
    )
    contract = Contract(
        signal=Signal(),  # of nothing: clips are no signals
        model=model,
        synthetic=source.synthetic,
        trained_on=Records.of(source.column("record_id")),
        clips=next(iter(source.clips.values())),
    )
    return Run(method, batches, contract, config, collapse=(0.0, fit.steps))


def _sampler(source: Source, config: Config) -> Sampler:
    """What deals pairs of videos and the moment of each; says who is paired."""
    studies, batch_size, seed = source.studies(), config.fit.batch_size, config.fit.seed
    units = Lists.of_groups(studies)
    alone = int((units.lengths == 1).sum())
    inner: Callable[..., ListedPairs | PairSampler]
    if config.deal == "pairs":
        groups = np.arange(len(studies)) if config.pair == "video" else studies
        pairs = pairs_within(groups, own=config.pair != "study")
        inner = partial(ListedPairs, pairs, batch_size, seed=seed)
        dealt = f"{len(pairs)} pairs, each once an epoch"
    else:
        partners = Partners.of_groups(studies)
        if config.pair == "video":
            partners = Partners.of_rows(np.full((len(studies), 1), -1))
        elif config.pair == "both":
            partners = partners._replace(place=np.full(len(studies), -1))
        inner = partial(PairSampler, units, partners, batch_size, seed=seed)
        dealt = "one pair a study a batch"
    lone = f", {alone} of them of one video, which is paired with itself" if alone else ""
    if config.pair == "video":
        lone = ", each video with itself"
    say(
        f"pairs: {len(studies)} videos of {len(units.lengths)} studies of "
        f"{len(np.unique(source.patients()))} patients{lone}; {dealt}"
    )
    lengths, net = source.lengths(), config.encoder
    kind = OneMoment if config.moment == "same" else MomentSampler

    def sampler(**how: Any) -> MomentSampler:
        return kind(inner(**how), lengths, net.frames, net.step, seed)

    return sampler


def _say_lengths(source: Source, config: Config) -> None:
    """Says how long a clip is, and how many videos are shorter.

    Raises:
        DataError: All of them are, and an order is to be learned.
    """
    net = config.encoder
    lengths = source.lengths()
    short = int((lengths < net.span).sum())
    fps = source.column("fps").astype(np.float64)
    usual = float(np.median(fps[fps > 0])) if (fps > 0).any() else 0.0
    time = f", {1000 * (net.span - 1) / usual:.0f} ms at {usual:g} frames/s" if usual else ""
    line = f"clips: {net.frames} frames, {net.step} apart{time}"
    if short:
        line += (
            f"; {short} of {len(lengths)} videos have under {net.span} frames: black ones fill "
            f"their clips{', whose order is not asked for' if config.order else ''}"
        )
    say(line)
    if config.order and any(fit.mask == "none" for fit in source.clips.values()):
        say(
            "note: frames are not masked, and a clock or an ECG's trace beside the sector gives "
            "their order away (ecgfast convert --mask sector, or --order 0)"
        )
    if short == len(lengths) and config.order:
        raise DataError(
            f"error[frames] the longest of {short} videos has {lengths.max()} frames, a clip spans "
            f"{net.span}: no order can be learned; lower --encoder.step or --encoder.frames, or "
            "--order 0"
        )
