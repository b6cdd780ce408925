"""What systems that need no labels share: the layers between, and a run of all parts."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

from ecgfast.config import Augment as AugmentConfig
from ecgfast.config import Projector as ProjectorConfig
from ecgfast.config import Signal, Store
from ecgfast.config.clips import ClipFit, ClipNet
from ecgfast.config.clips import ClipViews as ClipViewsConfig
from ecgfast.config.pages import PageViews as ViewsConfig
from ecgfast.data.sampler import StepSampler
from ecgfast.data.source import Source, open_source
from ecgfast.models.heads import Projector
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.ops import ImageAugmentSpec
from ecgfast.systems.clips import check_clips
from ecgfast.systems.parts import augmentation, check_source, preparation
from ecgfast.train.batches import Batches, Sampler
from ecgfast.train.contract import Contract, Records
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run
from ecgfast.train.method import Method
from ecgfast.transforms.augment import Augment
from ecgfast.transforms.clip import ClipTransform
from ecgfast.transforms.page import PageFaults, PageViews
from ecgfast.transforms.recipes import Recipe


def open_records(config: Any) -> Source:
    """The records of a configuration, of the leads, rate and length that it says."""
    data, signal = config.data, config.signal
    source = open_source(
        data.paths, data.splits, signal=signal, patients=data.patients, limit=data.limit
    )
    check_source(source, signal, chosen=True)
    return source


def open_videos(data: Store, net: ClipNet) -> Source:
    """The videos of a configuration, of the size and colour that a network sees.

    Raises:
        ContractError: The stores hold something else.
    """
    source = open_source(
        data.paths,
        data.splits,
        signal=Signal(),
        patients=data.patients,
        limit=data.limit,
        clips=ClipFit(size=net.size, grey=net.grey),
    )
    model = {"class": "ClipEncoder", "arguments": {"size": net.size, "grey": net.grey}}
    check_clips(source.clips, model, others=[*source.signals, *source.pages])
    return source


def make_views(
    config: AugmentConfig, signal: Signal, recipe: dict[str, Any] | None, *, parts: int = 1
) -> Augment:
    """The layer that draws a view of a prepared record, or of one of its equal parts.

    Raises:
        RunError: A number is out of its range, or takes more samples than there are.
    """
    fs, samples = signal.fs, signal.samples
    if recipe is not None:
        fs, samples = Recipe.from_dict(recipe).result(fs, samples)
    samples //= parts
    layer = augmentation(config, fs=fs)
    spec, out = layer.spec, layer.spec.length(samples)
    wrong = ""
    if not 0 < out <= samples:
        wrong = f"crop_s {config.crop_s:g} s is longer than"
    elif spec.shift_samples() > samples:
        wrong = f"shift_s {config.shift_s:g} s is longer than"
    elif config.mask_count[1] and spec.whole_samples(config.mask_s)[1] > out:
        wrong = f"mask_s reaches {config.mask_s[1]:g} s, more than is left of"
    elif config.warp_strength > 0 and spec.warp_knots + 2 > samples:
        wrong = f"warp_strength needs {spec.warp_knots + 2} samples, more than there are in"
    if wrong:
        what = "a record" if parts == 1 else f"one of {parts} parts of a record"
        raise RunError(
            f"error[augment] {wrong} {what}, {samples / fs:g} s ({samples} samples at {fs:g} Hz): "
            f"lower --augment.{wrong.split()[0]}",
            code=2,
        )
    return layer


def views_of(
    config: AugmentConfig, signal: Signal, recipe: dict[str, Any] | None
) -> Augment | None:
    """As :func:`make_views`; none where nothing is drawn, and the network sees the record."""
    return make_views(config, signal, recipe) if config.draws else None


def page_views(config: ViewsConfig, encoder: PageEncoder) -> PageViews:
    """The layer that draws pages anew, of the leads, rate and size that an encoder expects.

    Raises:
        RunError: A number is out of its range, or there is no such layout.
    """
    spec = _faults(config)
    try:
        return PageViews(
            fs=encoder.fs,
            leads=encoder.leads,
            size=encoder.size,
            layouts=config.layouts,
            looks=config.looks,
            shuffles=config.shuffles,
            grey=encoder.grey,
            spec=spec,
        )
    except ValueError as error:
        raise RunError(f"error[views] {error} (--views)", code=2) from error


def page_faults(config: ViewsConfig) -> PageFaults:
    """The layer that draws the faults of a scan on pages that are there.

    Raises:
        RunError: A number is out of its range.
    """
    return PageFaults(_faults(config))


def clip_views(
    config: ClipViewsConfig, scale: Literal["min_max", "standard", "kinetics"]
) -> ClipTransform:
    """The layer that moves clips anew and scales them as an encoder expects.

    Raises:
        RunError: A number is out of its range.
    """
    try:
        return ClipTransform(**dataclasses.asdict(config), scale=scale)
    except ValueError as error:
        raise RunError(f"error[views] {error} (--views)", code=2) from error


def _faults(config: ViewsConfig) -> ImageAugmentSpec:
    words = dataclasses.asdict(config)
    for name in ("layouts", "looks", "shuffles"):
        del words[name]
    try:
        return ImageAugmentSpec(**words)
    except ValueError as error:
        raise RunError(f"error[views] {error} (--views)", code=2) from error


def make_projector(
    config: ProjectorConfig, embedding_dim: int, *, last_bias: bool = True
) -> Projector:
    """What the loss sees embeddings through."""
    return Projector(
        embedding_dim,
        config.dim or embedding_dim,
        hidden=config.hidden or embedding_dim,
        layers=config.layers,
        batch_norm=config.batch_norm,
        last_bias=last_bias,
    )


def make_run(
    config: Any,
    source: Source,
    method: Method,
    *,
    model: dict[str, Any],
    recipe: dict[str, Any] | None,
    sampler: Sampler | None = None,
    batch_size: int | None = None,
    collapse: tuple[float, int] | None = None,
    alignment: dict[str, Any] | None = None,
) -> Run:
    """A run of a method that needs no labels.

    Args:
        config: Of the system.
        source: The records.
        method: What trains.
        model: How the contract describes the encoder.
        recipe: The settled words of the signal's recipe, if it names one.
        sampler: As ``Batches`` takes it; records in shuffled order if none.
        batch_size: Records that a step reads, where these are not all that it encodes.
        collapse: As ``Run`` has it; none logs the spread and never stops.
        alignment: As the contract has it.
    """
    fit = config.fit
    batches = Batches(
        source.dataset,
        preparation(config.signal, recipe),
        sampler or partial(StepSampler, len(source), fit.batch_size, seed=fit.seed),
        seed=fit.seed,
        batch_size=batch_size or fit.batch_size,
        workers=config.data.workers,
        names=source.names,
    )
    contract = Contract(
        signal=config.signal,
        recipe=recipe,
        model=model,
        synthetic=source.synthetic,
        trained_on=Records.of(source.column("record_id")),
        alignment=alignment,
    )
    return Run(method, batches, contract, config, collapse=collapse or (0.0, fit.steps))
