"""What systems that learn a label share: whom from, from which encoder, what the contract says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from ecgfast.config import Labelled, Signal
from ecgfast.config.clips import ClipFit
from ecgfast.data.moments import Moments
from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.data.split import read_patients
from ecgfast.models.heads import Head, RiskHead
from ecgfast.systems.parts import (
    ENCODERS,
    AnyEncoder,
    check_source,
    describe,
    from_description,
    make_clip_encoder,
    make_encoder,
    make_page_encoder,
    preparation,
    settled_recipe,
)
from ecgfast.systems.windows import fit_of_net, moments_of
from ecgfast.train.batches import Batches, Sampler
from ecgfast.train.checkpoint import load_contract, load_encoder
from ecgfast.train.contract import MOST_CLASSES, Contract, Records, check_signal
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run, say
from ecgfast.train.method import Method

MOST_LOOKS = 50  # at the validation part in a run, unless it is told otherwise
FEW = 5  # training patients of a class: fewer are worth a word


C = TypeVar("C", bound=Any)


class Learner(NamedTuple):
    """Who learns from whom.

    Attributes:
        config: As it was resolved: the signal of the encoder it begins from, the hash of a list.
        train: The training records.
        validation: Those that choose the weights, if any.
        labels: Of the training records ``(N,)``: values, or places among the classes.
        start: The contract of the encoder it begins from, if any.
        recipe: Of the preparation, with its scale.
        encoder: With its weights.
        model: How a contract describes it.
        head: For the task.
        edges: Of a hazard in intervals: where these end, ``(K,)``.
    """

    config: Any
    train: Source
    validation: Source | None
    labels: NDArray[np.float64]
    start: Contract | None
    recipe: dict[str, Any] | None
    encoder: AnyEncoder
    model: dict[str, Any]
    head: Head | RiskHead
    edges: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """A small share of the labels may not fill a batch."""
        return min(self.config.fit.batch_size, len(self.train))

    def targets(self) -> NDArray[np.int64]:
        """The class of each training record; of a classification 0 or 1."""
        return classes_of(self.config, self.labels)

    def class_weights(self) -> Tensor | None:
        """What a record of each class counts in the loss, ``(C,)``."""
        weight = self.config.class_weight
        if weight == "none":
            return None
        if weight != "balanced":
            return torch.tensor([1.0, float(weight)])
        classes = len(self.train.classes or (0, 1))
        counts = np.bincount(self.targets(), minlength=classes)
        # a class without records, which a small share may lack, has a weight that nothing uses
        balanced = len(self.labels) / (classes * np.maximum(counts, 1))
        return torch.tensor(balanced, dtype=torch.float32)


def learner(config: C) -> Learner:
    """Opens what a configuration names, and makes the encoder and the head.

    Raises:
        DataError: The labels teach nothing, or nobody is left to train on.
        ContractError: Records and encoder do not belong together.
    """
    start = load_contract(config.init) if config.init else None
    if start is not None:
        config = _with_signal_of(start, config)
    data, signal = config.data, config.signal
    chosen = start is None
    classes = () if config.task == "multiclass" else None
    clips = start.clips if start is not None else fit_of_net(config.clip)
    train = _open(config, data.splits, classes, limit=data.limit, clips=clips)
    _say_unseen(train, "training")
    described = _described(config, start)
    check_source(train, signal, chosen=chosen, model=described)
    if (train.pages or train.clips) and start is None and signal.recipe:
        raise RunError(
            f"error[recipe] recipe {signal.recipe} is done to signals, and the records are "
            f"{'pages' if train.pages else 'videos'}: add --signal.recipe ''",
            code=2,
        )
    if train.classes is not None:
        _check_names(config, train.classes)
    config, train = _some_patients(config, train)
    if config.fraction < 1:
        train = train.fraction(
            config.fraction,
            seed=config.fit.seed,
            label=config.event if config.task == "survival" else config.label,
        )
    labels = train.labels()
    _check_labels(config, train, labels)
    validation = None
    if config.validation:
        validation = _open(config, (config.validation,), train.classes, clips=clips)
        check_source(validation, signal, chosen=chosen, model=described)
        if config.half != "all":
            validation = _not_empty(validation.half(config.half), config, "validation part")
        _say_unknown(validation, config)
        _say_unseen(validation, "validation")
        if config.task == "survival":
            _check_events(config, validation.labels(), "validation")
            _check_apart(config, train, validation)
    recipe = settled_recipe(signal, train) if start is None else start.recipe

    encoder, model = _encoder(config, start, recipe)
    edges = _edges(config, labels)
    arguments = _head_arguments(config, train, encoder.embedding_dim, edges)
    if config.task == "survival":
        risk = RiskHead(**arguments)
        if edges is not None:
            risk.set_hazards(_share_with_event(labels, edges.numpy()))
        return Learner(
            config, train, validation, labels, start, recipe, encoder, model, risk, edges
        )
    head = Head(**arguments)
    if config.task == "regression" and config.zscore:
        head.set_scale(float(labels.mean()), float(labels.std()))
    return Learner(config, train, validation, labels, start, recipe, encoder, model, head)


def run_of(who: Learner, method: Method, sampler: Callable[[int], Sampler]) -> Run:
    """The run of a method that learns a label.

    Args:
        who: Learns.
        method: How.
        sampler: From the size of a batch to what deals the training records.
    """
    config, train, validation = who.config, who.train, who.validation
    fit = config.fit
    dataset: Dataset[Any] = train.dataset
    deal = sampler(who.batch_size)
    if train.clips:
        words = who.model["arguments"]
        frames, step = int(words["frames"]), int(words["step"])
        dataset = Moments(train.dataset, frames=frames, step=step)
        deal = moments_of(deal, train.lengths(), frames=frames, step=step, seed=fit.seed)
        if validation is not None:  # a clip of each video: many looks, and most of them early
            validation = validation.windows(frames=frames, step=step)
    seen = bool(train.pages or train.clips)
    batches = Batches(
        dataset,
        nn.Identity() if seen else preparation(config.signal, who.recipe),
        deal,
        seed=fit.seed,
        batch_size=who.batch_size,
        workers=config.data.workers,
        validation=None if validation is None else validation.dataset,
        names=train.names,
    )
    several = train.classes is not None or config.task == "survival"
    task: dict[str, Any] = {
        "kind": config.task,
        "label": config.label,
        "threshold": config.threshold,
        "mean": None if several else float(who.labels.mean()),
        "sd": None if several else float(who.labels.std()),
        "dropout_at_test": config.dropout_at_test,
    }
    if train.classes is not None:
        task["classes"] = list(train.classes)
    if config.task == "survival":
        task["event"] = config.event
        task["edges"] = None if who.edges is None else who.edges.tolist()
    arguments = _head_arguments(config, train, who.encoder.embedding_dim, who.edges)
    contract = Contract(
        signal=config.signal,
        recipe=who.recipe,
        model=who.model,
        head=None
        if method.head is None
        else {"class": type(who.head).__name__, "arguments": arguments},
        task=None if method.head is None else task,
        synthetic=train.synthetic or (who.start is not None and who.start.synthetic),
        trained_on=Records.of(train.column("record_id")),
        pretrained_on=None if who.start is None else who.start.trained_on,
        pages=next(iter(train.pages.values()), None),
        clips=next(iter(train.clips.values()), None),
    )
    every = config.validate_every
    every = every or max(len(train) // who.batch_size, -(-fit.steps // MOST_LOOKS))
    return Run(
        method,
        batches,
        contract,
        config,
        keep_best=config.keep == "best",
        validate_every=every,
        patience=config.patience,
    )


def classes_of(config: Labelled, labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of each label."""
    if config.threshold is not None:
        return (labels > config.threshold).astype(np.int64)
    return labels.astype(np.int64)


def _open(
    config: Any,
    splits: tuple[str, ...],
    classes: tuple[str, ...] | None,
    limit: int = 0,
    *,
    clips: ClipFit | None,
) -> Source:
    return open_source(
        config.data.paths,
        splits,
        signal=config.signal,
        patients=config.data.patients,
        label=config.label,
        limit=limit,
        classes=classes,
        event=config.event if config.task == "survival" else None,
        clips=clips,
    )


def _some_patients(config: C, train: Source) -> tuple[C, Source]:
    """The training records of the half and of the list that the configuration names."""
    if config.half != "all":
        train = _not_empty(train.half(config.half), config, "training part")
    if not config.train_on:
        return config, train
    names, sha256 = read_patients(config.train_on)
    if config.train_on_sha256 not in ("", sha256):
        raise DataError(
            f"error[patients] {config.train_on} has SHA-256 {sha256[:12]}..., the configuration "
            f"says {config.train_on_sha256[:12]}...: it was changed. Restore it, or leave "
            "--train_on_sha256 out"
        )
    some, absent = train.of_patients(names)
    if not len(some):
        raise DataError(
            f"error[patients] none of the {len(names)} patients in {config.train_on} (first: "
            f"{names[0]}) is among the training records; these begin with patient "
            f"{train.column('patient_id')[0]}"
        )
    if absent:
        say(
            f"note: {len(absent)} of {len(names)} patients in {config.train_on} have no training "
            f"record with a {config.label} (first: {absent[0]})"
        )
    return dataclasses.replace(config, train_on_sha256=sha256), some


def _not_empty(source: Source, config: Labelled, what: str) -> Source:
    if not len(source):
        raise DataError(
            f"error[half] the {config.half} half of the {what} has no patient: take more patients, "
            "or --half all"
        )
    return source


def _with_signal_of(start: Contract, config: C) -> C:
    """The encoder's signal contract; another one that was asked for is refused."""
    if config.signal not in (type(config)().signal, start.signal):
        every = [field.name for field in dataclasses.fields(Signal)]
        check_signal(
            start.signal,
            config.signal,
            what="--signal",
            fields=every,
            way=f"leave --signal out: with --init the encoder's own holds ({describe(start)})",
        )
    replaced: C = dataclasses.replace(config, signal=start.signal)
    return replaced


def _described(config: Any, start: Contract | None) -> dict[str, Any] | None:
    """The encoder as a contract describes it, as far as is known before it is made."""
    if start is not None:
        return start.model
    if config.clip.net != "none":
        clip = {"size": config.clip.size, "grey": config.clip.grey}
        return {"class": "ClipEncoder", "arguments": clip}
    if config.page.net == "none":
        return None
    page = {"size": config.page.size, "grey": config.page.grey}
    return {"class": "PageEncoder", "arguments": page}


def _encoder(
    config: Any, start: Contract | None, recipe: dict[str, Any] | None
) -> tuple[AnyEncoder, dict[str, Any]]:
    if start is None and config.clip.net != "none":
        return make_clip_encoder(config.clip)
    if start is None and config.page.net != "none":
        return make_page_encoder(config.page, config.signal, recipe)
    if start is None:
        return make_encoder(config.encoder, config.signal, recipe)
    arguments = {**start.model["arguments"], "dropout": config.encoder.dropout}
    if start.model["class"] == "ClipEncoder":
        clip = config.clip
        arguments |= {"frames": clip.frames, "step": clip.step, "dropout": clip.dropout}
    model = {**start.model, "arguments": arguments}
    encoder = from_description(model, ENCODERS)
    load_encoder(config.init, encoder, say=say)
    return encoder, model


def _edges(config: Any, labels: NDArray[np.float64]) -> Tensor | None:
    """Ends of intervals of time with as many training events each, up to the last event."""
    if config.task != "survival" or config.hazard == "cox":
        return None
    events = labels[labels > 0]
    ends = np.unique(np.quantile(events, np.linspace(0, 1, config.intervals + 1)[1:]))
    if len(ends) < 2:
        raise DataError(
            f"error[event] all {len(events)} training events are at time {ends[0]:g}: intervals of "
            "time need two times; take --hazard cox"
        )
    return torch.tensor(ends, dtype=torch.float32)


def _share_with_event(
    labels: NDArray[np.float64], edges: NDArray[np.float32]
) -> NDArray[np.float64]:
    """A life table: of those at risk at the beginning of an interval, who have the event in it."""
    ends = edges.astype(np.float64)
    begins = np.concatenate([[0.0], ends[:-1]])
    time = np.abs(labels)[:, None]
    events = ((labels[:, None] > begins) & (labels[:, None] <= ends)).sum(axis=0)
    share: NDArray[np.float64] = events / np.maximum((time > begins).sum(axis=0), 1)
    return share


def _head_arguments(
    config: Labelled, train: Source, embedding_dim: int, edges: Tensor | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "embedding_dim": embedding_dim,
        "hidden": config.hidden,
        "dropout": config.head_dropout,
    }
    if edges is not None:
        return {**arguments, "outputs": len(edges)}
    return arguments if train.classes is None else {**arguments, "outputs": len(train.classes)}


def _check_names(config: Labelled, classes: tuple[str, ...]) -> None:
    """Of the whole training part: the same classes for every share of it."""
    if len(classes) < 2:
        raise DataError(
            f"error[label] all training records have {config.label} {classes[0]!r}: there is "
            "nothing to tell apart; choose another label, or more records"
        )
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"error[label] column {config.label} has {len(classes)} different values among the "
            f"training records ({', '.join(classes[:3])}, ...), {MOST_CLASSES} classes are "
            "allowed: choose another label, or join its values to fewer before converting; "
            "numbers are learned by --task regression"
        )
    long = [name for name in classes if len(name) > 200]
    if long:
        raise DataError(
            f"error[label] column {config.label} has {len(long)} values of over 200 letters: "
            "these are texts, not names of classes"
        )


def _check_labels(config: Labelled, train: Source, labels: NDArray[np.float64]) -> None:
    """Labels must be finite and differ; a class needs both of its values among them."""
    wrong = labels[~np.isfinite(labels.astype(np.float32))]
    if len(wrong):
        raise DataError(
            f"error[label] {len(wrong)} of {len(labels)} training labels {config.label} are not "
            f"finite (first: {wrong[0]:g}): mend them in the manifest's source and convert again"
        )
    if train.classes is not None:
        _say_few(config, train, labels)
        return
    if config.task == "survival":
        _check_events(config, labels, "training")
        return
    if config.task == "regression":
        if len(labels) < 2 or labels.std() == 0:
            raise DataError(
                f"error[label] all {len(labels)} training labels {config.label} are equal: there "
                "is nothing to learn; choose another label, or more records"
            )
        return
    if config.threshold is None:
        wrong = labels[~np.isin(labels, (0, 1))]
        if len(wrong):
            raise DataError(
                f"error[label] {len(wrong)} of {len(labels)} labels {config.label} are not 0 or 1 "
                f"(first: {wrong[0]:g}): name a --threshold, or --task regression"
            )
    positive = classes_of(config, labels) == 1
    if positive.all() or not positive.any():
        rule = "= 1" if config.threshold is None else f"> {config.threshold:g}"
        raise DataError(
            f"error[label] {int(positive.sum())} of {len(labels)} training records have "
            f"{config.label} {rule}: a class needs both kinds"
        )


def _check_apart(config: Any, train: Source, validation: Source) -> None:
    """A patient's follow-up is one: known from training, it says nothing in the validation part."""
    both = np.isin(train.patients(), validation.patients())
    if both.any():
        names = train.column("patient_id")[both].astype(str)
        raise DataError(
            f"error[patients] {len(np.unique(names))} patients have records in the training part "
            f"and in the validation part (first: {names[0]}): split by patient (ecgfast split "
            "STORE --by patient), or choose another --validation"
        )


def _check_events(config: Any, labels: NDArray[np.float64], part: str) -> None:
    events = int((labels > 0).sum())
    if not events:
        raise DataError(
            f"error[event] none of {len(labels)} {part} records has an event ({config.event} = 1): "
            "all are censored, and there is nothing to learn from or to judge by; take more "
            "patients, or another part"
        )
    if events == len(labels) == 1:
        raise DataError("error[event] one record alone has nobody to be compared with")
    if events < FEW:
        say(f"note: {events} of {len(labels)} {part} records have an event ({config.event})")


def _say_few(config: Labelled, train: Source, labels: NDArray[np.float64]) -> None:
    """Names the classes of which there are few patients; one class alone teaches nothing."""
    classes = train.classes or ()
    patients = train.patients()
    counts = [len(set(patients[labels == c].tolist())) for c in range(len(classes))]
    if sum(count > 0 for count in counts) < 2:
        raise DataError(
            f"error[label] all {len(labels)} training records that are left have {config.label} "
            f"{classes[int(np.argmax(counts))]!r}: take more patients"
        )
    few = [f"{n} ({c})" for n, c in zip(classes, counts, strict=True) if c < FEW]
    if few:
        more = f" and {len(few) - 8} more" if len(few) > 8 else ""
        say(
            f"note: {len(few)} of {len(classes)} classes of {config.label} have fewer than {FEW} "
            f"training patients: {', '.join(few[:8])}{more}"
        )


def _say_unseen(source: Source, part: str) -> None:
    if source.unseen:
        say(
            f"note: {source.unseen} records of the {part} part have {source.label} and are left "
            f"out: nothing is known of their {source.event}"
        )


def _say_unknown(source: Source, config: Labelled) -> None:
    if source.unknown:
        some = sorted(source.unknown.items(), key=lambda item: -item[1])
        names = ", ".join(f"{name} ({count})" for name, count in some[:5])
        say(
            f"note: {sum(source.unknown.values())} records of the validation part are left out: "
            f"no training record has their {config.label} {names}"
        )
