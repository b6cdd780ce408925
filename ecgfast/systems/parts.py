"""What systems share: encoders by their description, signals that must fit, preparation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ecgfast.config import Augment as AugmentConfig
from ecgfast.config import Encoder, Signal
from ecgfast.config.clips import ClipFit, ClipNet
from ecgfast.config.pages import PageFit, PageNet
from ecgfast.data.source import Source
from ecgfast.miners.distance import View
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.conv_vae import ConvVAE
from ecgfast.models.dual_attention import LEADS, DualAttention, DualAttentionDecoder
from ecgfast.models.heads import Head, RiskHead
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.models.pretrained import load_pretrained
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.models.xresnet1d import XResNet1d
from ecgfast.ops.augment import AugmentSpec
from ecgfast.systems.clips import check_clips, fit_of_clips
from ecgfast.systems.pages import DRAW, check_pages
from ecgfast.train.contract import Contract, ContractError, check_signal
from ecgfast.train.errors import RunError
from ecgfast.train.fit import say
from ecgfast.transforms.augment import Augment
from ecgfast.transforms.beats import median_beats
from ecgfast.transforms.recipes import Recipe, recipe_named
from ecgfast.transforms.signal import OneRecord, Prepare

AnyEncoder = ResNet1d | DualAttention | XResNet1d | ConvVAE | PageEncoder | ClipEncoder
ENCODERS: dict[str, type[nn.Module]] = {
    "ResNet1d": ResNet1d,
    "DualAttention": DualAttention,
    "XResNet1d": XResNet1d,
    "ConvVAE": ConvVAE,
    "PageEncoder": PageEncoder,
    "ClipEncoder": ClipEncoder,
}
NETS = {  # by what configurations say
    "resnet18": "ResNet1d",
    "dual_attention": "DualAttention",
    "xresnet101": "XResNet1d",
    "conv_vae": "ConvVAE",
}
MOST_PARAMETERS = 2**29
BEFORE_R, BEAT = 0.25, 0.75  # s: of a median beat before R, and all of it
SCALED_BY = 4096  # training records that a recipe takes its scale from
HEADS: dict[str, type[nn.Module]] = {"Head": Head, "RiskHead": RiskHead}


def make_encoder(
    encoder: Encoder, signal: Signal, recipe: dict[str, Any] | None
) -> tuple[AnyEncoder, dict[str, Any]]:
    """The encoder of such signals, and how a contract describes it.

    Raises:
        RunError: The network is for other leads, or has no embedding of this size.
    """
    words: dict[str, Any] = {"dropout": encoder.dropout}
    if encoder.embedding_dim is not None:
        words["embedding_dim"] = encoder.embedding_dim
    if encoder.net == "dual_attention":
        if len(signal.leads) != LEADS:
            raise RunError(
                f"error[encoder] dual_attention attends over {LEADS} leads, --signal.leads names "
                f"{len(signal.leads)}: take all of them, or --encoder.net resnet18",
                code=2,
            )
        words |= {"samples": prepared(signal, recipe)[1], "mode": encoder.mode}
        words |= {"attention": encoder.attention}
    else:
        words |= {"num_leads": len(signal.leads), "width": encoder.width}
        if encoder.net == "resnet18":
            words["init"] = encoder.init
        if encoder.net == "conv_vae":
            words["samples"] = prepared(signal, recipe)[1]
    name = NETS[encoder.net]
    try:
        made: AnyEncoder = ENCODERS[name](**words)  # type: ignore[assignment]
    except ValueError as error:
        raise RunError(f"error[encoder] {error}", code=2) from error
    return made, {"class": name, "arguments": {**words, "embedding_dim": made.embedding_dim}}


def make_decoder(
    encoder: AnyEncoder, signal: Signal, recipe: dict[str, Any] | None
) -> DualAttentionDecoder:
    """What draws the prepared signal from an embedding.

    Raises:
        RunError: The network has no decoder, or the signal is not what it draws.
    """
    if not isinstance(encoder, DualAttention):
        raise RunError(
            f"error[decoder] the decoder belongs to dual_attention, and the network is a "
            f"{type(encoder).__name__}: --reconstruction 0",
            code=2,
        )
    name = signal.recipe or signal.stored_recipe
    scaled = bool(name) and OneRecord(recipe_named(name)).units != "mV"
    if signal.normalise != "lead" and not scaled:
        raise RunError(
            "error[decoder] the decoder draws leads of zero mean and unit variance, and the "
            "prepared signals are in mV: --signal.normalise lead, or --reconstruction 0",
            code=2,
        )
    return DualAttentionDecoder(prepared(signal, recipe)[1], encoder.embedding_dim)


def make_page_encoder(
    page: PageNet, signal: Signal, recipe: dict[str, Any] | None
) -> tuple[PageEncoder, dict[str, Any]]:
    """The encoder of pages with its weights, and how a contract describes it.

    Raises:
        RunError: The signal has no scale in mV, there is no such layout, or the file of weights is
            not what it must be.
    """
    check_scale(signal, recipe)
    words = {k: v for k, v in asdict(page).items() if k not in ("weights", "least_match")}
    fs = prepared(signal, recipe)[0]
    words |= {"num_leads": len(signal.leads), "leads": ",".join(signal.leads), "fs": fs}
    try:
        encoder = PageEncoder(**words)
        if page.weights:
            say(load_pretrained(page.weights, encoder.net, least_share=page.least_match).line())
    except ValueError as error:
        raise RunError(f"error[encoder] {error}", code=2) from error
    words["embedding_dim"] = encoder.embedding_dim
    return encoder, {"class": "PageEncoder", "arguments": words}


def make_clip_encoder(clip: ClipNet) -> tuple[ClipEncoder, dict[str, Any]]:
    """The encoder of clips with its weights, and how a contract describes it.

    Raises:
        RunError: The file of weights is not what it must be.
    """
    words = {k: v for k, v in asdict(clip).items() if k not in ("weights", "least_match")}
    try:
        encoder = ClipEncoder(**words)
        if clip.weights:
            say(load_pretrained(clip.weights, encoder.net, least_share=clip.least_match).line())
    except ValueError as error:
        raise RunError(f"error[encoder] {error}", code=2) from error
    words["embedding_dim"] = encoder.embedding_dim
    return encoder, {"class": "ClipEncoder", "arguments": words}


def check_scale(signal: Signal, recipe: dict[str, Any] | None) -> None:
    """Refuses signals that are not in mV: a page has a scale.

    Raises:
        RunError: Says what normalises them.
    """
    by = "" if signal.normalise == "none" else f"--signal.normalise {signal.normalise}"
    if signal.stored_recipe and OneRecord(recipe_named(signal.stored_recipe)).units != "mV":
        by = f"recipe {signal.stored_recipe}, which the records have been through,"
    if recipe is not None and OneRecord(Recipe.from_dict(recipe)).units != "mV":
        by = f"recipe {signal.recipe}"
    if by:
        raise RunError(
            f"error[scale] {by} leaves no amplitudes in mV, and a page of ECG paper has a scale: "
            "take a band and a notch instead, or a recipe without normalisation",
            code=2,
        )


def augmentation(config: AugmentConfig, *, fs: float) -> Augment:
    """The layer that draws a view of a record of ``fs`` Hz; a method calls it once a view.

    Raises:
        RunError: A number is out of its range.
    """
    try:
        return Augment(AugmentSpec(fs=fs, **asdict(config)))
    except ValueError as error:
        raise RunError(f"error[augment] {error} (--augment)", code=2) from error


def from_description(part: dict[str, Any], known: dict[str, type[nn.Module]]) -> Any:
    """A module with new weights, from what a contract says of it.

    Raises:
        ContractError: The class is not known here, or its arguments are others.
    """
    name, arguments = part["class"], part["arguments"]
    if name not in known:
        raise ContractError(
            f"error[contract] the model is a {name}; this ecgfast knows {', '.join(known)}"
        )
    try:
        with torch.device("meta"):  # costs nothing, whatever sizes a foreign file asks for
            count = sum(p.numel() for p in known[name](**arguments).parameters())
        if count > MOST_PARAMETERS:
            raise ValueError(f"it would have {count} parameters, {MOST_PARAMETERS} are allowed")
        return known[name](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContractError(f"error[contract] {name} does not take {arguments}: {error}") from error


def settled_recipe(signal: Signal, train: Source) -> dict[str, Any] | None:
    """The words of the recipe that a signal names, with the scale of the training records.

    Raises:
        RunError: There is no such recipe, or it cannot be done to such records.
    """
    if not signal.recipe:
        return None
    try:
        recipe = recipe_named(signal.recipe)
        before = recipe.unscaled()
        before.result(signal.fs, signal.samples)
        if before != recipe:
            recipe = recipe.scaled(*_scale(train, before, signal.fs))
        recipe.result(signal.fs, signal.samples)
    except ValueError as error:
        raise RunError(f"error[recipe] {error} (--signal.recipe)", code=2) from error
    return recipe.to_dict()


def _scale(train: Source, before: Recipe, fs: float) -> tuple[float, float]:
    """Mean and standard deviation of all samples of at most SCALED_BY training records."""
    prepare = Prepare(fs=fs, recipe=before)
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), SCALED_BY)).round()).astype(int)
    moments = np.zeros(3)  # samples, their sum, that of their squares; in double, and mV are small
    for some in np.array_split(rows, -(-len(rows) // 64)):
        batch = default_collate([train.dataset[int(row)] for row in some])
        found = prepare(*[batch[name] for name in ("ecg", "gain") if name in batch]).double()
        found = found[found.isfinite()]
        moments += [found.numel(), float(found.sum()), float(found.square().sum())]
    count, total, squares = moments
    mean = total / count if count else 0.0
    spread = float(np.sqrt(max(squares / count - mean**2, 0))) if count else 0.0
    if not spread > 0:
        raise ValueError(f"recipe {before.name!r}: all {len(rows)} training records are flat")
    return mean, spread


def preparation(signal: Signal, recipe: dict[str, Any] | None = None) -> Prepare:
    """Filters and normalisation of a contract.

    Raises:
        ContractError: The words of the recipe are no recipe that this ecgfast knows.
    """
    if recipe is None:
        return Prepare(
            fs=signal.fs, band=signal.band, notch=signal.notch, normalise=signal.normalise
        )
    try:
        words = Recipe.from_dict(recipe)
        words.result(signal.fs, signal.samples)
    except (TypeError, ValueError) as error:
        raise ContractError(f"error[contract] {error}") from error
    return Prepare(fs=signal.fs, recipe=words)


def beats(fs: float) -> View:
    """The median beat of records of ``fs`` Hz, as `docs/mining-study.md` compares them."""

    def view(ecg: Tensor) -> tuple[Tensor, Tensor]:
        made = median_beats(ecg, fs=fs, samples=round(BEAT * fs), before=round(BEFORE_R * fs))
        return made.beats, made.valid

    return view


def prepared(signal: Signal, recipe: dict[str, Any] | None) -> tuple[float, int]:
    """Rate and samples of the signals as they are prepared: some recipes change both."""
    if recipe is None:
        return signal.fs, signal.samples
    return Recipe.from_dict(recipe).result(signal.fs, signal.samples)


def check_source(
    source: Source,
    signal: Signal,
    *,
    chosen: bool = False,
    model: dict[str, Any] | None = None,
    pages: PageFit | None = None,
    clips: ClipFit | None = None,
) -> None:
    """Refuses records of other leads, rate or length, and pages or clips of another size or colour.

    Args:
        source: The records.
        signal: What is expected of them.
        chosen: By the user; otherwise by an encoder that is there.
        model: How a contract describes the encoder; none takes signals.
        pages: Which it has learned from, if not from signals.
        clips: The same, of videos.

    Raises:
        ContractError: Names what differs.
    """
    check_clips(source.clips, model, clips, others=[*source.signals, *source.pages])
    check_pages(source.pages, model, pages)
    if pages is not None and source.signals:
        raise ContractError(f"error[contract] {next(iter(source.signals))} holds signals: {DRAW}")
    for what, given in source.signals.items():
        way = (
            f"to train on these records as they are: --signal.fs {given.fs:g} --signal.seconds "
            f"{given.seconds:g} --signal.leads {','.join(given.leads)}"
        )
        if given.stored_recipe:
            way += f" --signal.stored_recipe {given.stored_recipe}"
        check_signal(
            signal,
            given,
            what=what,
            who="--signal" if chosen else "encoder",
            way=way if chosen else None,
        )


def describe(contract: Contract) -> str:
    """The signal of a contract in one line."""
    signal = contract.signal
    fit = contract.pages or fit_of_clips(contract)
    if fit is not None:
        return fit.line()
    shape = f"{len(signal.leads)} leads, {signal.fs:g} Hz, {signal.seconds:g} s, mV"
    if signal.recipe or signal.stored_recipe:
        done = f"recipe {signal.recipe}" if signal.recipe else f"stored by {signal.stored_recipe}"
        return f"{shape}, {done}"
    band = "no band" if signal.band is None else f"{signal.band[0]:g}-{signal.band[1]:g} Hz"
    notch = "" if signal.notch is None else f", notch {signal.notch:g} Hz"
    return f"{shape}, {band}{notch}, normalise {signal.normalise}"
