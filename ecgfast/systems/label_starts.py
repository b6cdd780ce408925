"""What gives scores of test records from the labels of a few: a linear model, training, a vote.

A little long, since all three share the cohort, the network and the cache of what they computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ecgfast.config import Encoder, Signal, finetune
from ecgfast.config.clips import ClipNet
from ecgfast.config.labeleff import Config, Start, Tune
from ecgfast.config.pages import PageNet
from ecgfast.data.source import Source
from ecgfast.data.split import patients
from ecgfast.eval.probe import linear_probe
from ecgfast.eval.studies import by_study
from ecgfast.methods.dtw_knn import distances, vote
from ecgfast.miners.distance import Distance, InputDistance, rate_factor
from ecgfast.systems.finetune import build, load_run
from ecgfast.systems.parts import (
    beats,
    make_clip_encoder,
    make_encoder,
    make_page_encoder,
    preparation,
    prepared,
    settled_recipe,
)
from ecgfast.systems.predict import MOST_VIDEOS
from ecgfast.systems.windows import COUNT, of_windows
from ecgfast.train.batches import seed_draws
from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.contract import Contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from ecgfast.transforms.signal import Prepare

Floats = NDArray[np.floating[Any]]
N = TypeVar("N", Encoder, PageNet, ClipNet)
Scored = tuple[Floats, dict[str, Any]]  # of the test records, and what is worth telling
BATCH = 256
OF_BEATS = "beat_"  # before what median beats are compared by
FARTHEST = 1e30  # what has no beat is farther than any pair
SILENCE = 20.0  # seconds, then it says how far it is
COLUMNS = 64  # labelled records whose distances are one file of the cache
# of Fit: what does not change what a step computes
FREE = ("accelerator", "devices", "strategy", "progress", "log_every", "checkpoint_every", "out")
LINKS: dict[str, Callable[[Tensor], Tensor]] = {  # from what a head gives to scores
    "classification": torch.sigmoid,
    "multiclass": partial(torch.softmax, dim=1),
}
NO_PAGE, NO_CLIP = PageNet(net="none"), ClipNet(net="none")


class Cohort(NamedTuple):
    """Records that are learned from and scored.

    Attributes:
        train: Those whose patients are drawn from; all of them have a label.
        test: Those that are scored.
        target: ``(N,)`` of the training records: the class or the value.
        test_target: Of what is scored: the test records; where these are videos, their studies.
        patient: ``(N,)`` codes of the training records.
        test_patient: Of what is scored.
        scored: record_id, patient_id and the label of what is scored.
        sha256: Of who is where with which label.
        records_sha256: Of which records these are, whatever their label.
    """

    train: Source
    test: Source
    target: NDArray[np.float64]
    test_target: NDArray[np.float64]
    patient: NDArray[np.int64]
    test_patient: NDArray[np.int64]
    scored: dict[str, NDArray[Any]]
    sha256: str
    records_sha256: str

    def of_studies(self, score: Floats) -> Floats:
        """Scores of what is scored from those of the test records."""
        if not self.test.clips:
            return score
        return by_study({**videos_of(self.test), "score": score})["score"]


class Network(NamedTuple):
    """Random weights that all starts share the shape of, and what they are fed.

    Attributes:
        encoder: Of the first run, or as it was asked for.
        signal: Also.
        recipe: Words of ``signal.recipe``, if it has one.
        page: In place of the encoder, where it sees pages.
        clip: Also, where it sees clips; of these all starts have frames and step.
    """

    encoder: Encoder
    signal: Signal
    recipe: dict[str, Any] | None
    page: PageNet = NO_PAGE
    clip: ClipNet = NO_CLIP


class Learner(Protocol):
    """What a line of the table does."""

    def identity(self, seed: int) -> dict[str, Any]:
        """All that decides its scores but the subset, as plain values."""

    def scores(self, rows: NDArray[np.int64], seed: int, name: str) -> Scored:
        """Scores of the test records from the labels of some training records."""


def learner(
    start: Start,
    config: Config,
    cohort: Cohort,
    contracts: dict[str, Contract],
    network: Network,
    say: Callable[[str], None],
) -> Learner:
    """What a start stands for; it says what takes long."""
    if start.distance is not None:
        return Voting(start.distance, config, cohort, network, say)
    kind = Linear if start.how == "logistic" else Trained
    return kind(start, config, cohort, contracts, network, say)


class _FromWeights:
    """What starts from an encoder: of a run, or drawn."""

    def __init__(
        self,
        start: Start,
        config: Config,
        cohort: Cohort,
        contracts: dict[str, Contract],
        network: Network,
        say: Callable[[str], None],
    ) -> None:
        self.start, self.config, self.cohort = start, config, cohort
        self.contracts, self.network, self.say = contracts, network, say

    def weights(self, seed: int) -> dict[str, Any]:
        """What decides the weights that a seed begins from."""
        run, page, clip = self.start.run(seed), self.network.page, self.network.clip
        if run is None:
            return {
                "weights": f"random, seed {seed}",
                "encoder": dataclasses.asdict(self.network.encoder),
                "signal": dataclasses.asdict(self.network.signal),
                "recipe": self.network.recipe,
                **({} if page == NO_PAGE else {"page": dataclasses.asdict(page)}),
                **({} if clip.net == "none" else {"clip": dataclasses.asdict(clip)}),
            }
        contract = self.contracts[run]
        seen = {} if contract.clips is None else {"frames": clip.frames, "step": clip.step}
        return {
            "weights": contract.sha256["encoder.safetensors"],
            "signal": dataclasses.asdict(contract.signal),
            "recipe": contract.recipe,
            **seen,
        }


class Linear(_FromWeights):
    """A linear model on embeddings, which are computed once for each encoder."""

    def identity(self, seed: int) -> dict[str, Any]:
        """See ``Learner``."""
        return {"how": "logistic", **self.weights(seed)}

    def scores(self, rows: NDArray[np.int64], seed: int, name: str) -> Scored:
        """See ``Learner``."""
        train, test = self._embeddings(seed)
        # no label is needed for means and deviations: all training records tell them
        mean, spread = train.mean(axis=0), train.std(axis=0)
        spread[spread < 1e-6 * max(float(spread.max(initial=0.0)), 1e-12)] = 1.0
        cohort = self.cohort
        found = linear_probe(
            (train[rows] - mean) / spread,
            cohort.target[rows],
            cohort.patient[rows],
            classes=self.config.task != "regression",
        )
        facts = {"penalty": found.penalty, "penalty_folds": found.folds}
        score = found.score((test - mean) / spread)
        if self.config.task == "multiclass" and score.ndim == 1:
            score = np.stack([1 - score, score], axis=1)
        return score, facts

    def _embeddings(self, seed: int) -> tuple[Floats, Floats]:
        key = digest({**self.weights(seed), "records": self.cohort.records_sha256})
        path = Path(self.config.keep or self.config.out, "embeddings", f"{key[:24]}.npz")
        shapes = len(self.cohort.train), len(self.cohort.test)

        def compute() -> dict[str, Floats]:
            self.say(f"{self.start.name}: embedding {sum(shapes)} records, kept in {path}")
            encoder, prepare = self._encoder(seed)
            sides = {"train": self.cohort.train, "test": self.cohort.test}
            clip = self.network.clip
            return {
                name: embed(encoder, prepare, of, self.config, clip=clip)
                for name, of in sides.items()
            }

        found = cached(path, compute, shapes=dict(zip(("train", "test"), shapes, strict=True)))
        return found["train"].astype(np.float64), found["test"].astype(np.float64)

    def _encoder(self, seed: int) -> tuple[nn.Module, Prepare]:
        run = self.start.run(seed)
        if run is not None:
            loaded = load_run(run)
            return loaded.encoder, loaded.prepare
        seed_draws(seed, step=-1)  # as training from random weights draws them
        signal, recipe = self.network.signal, self.network.recipe
        if self.network.clip.net != "none":
            return make_clip_encoder(self.network.clip)[0].eval(), preparation(signal, recipe)
        if self.network.page != NO_PAGE:
            page, _ = make_page_encoder(self.network.page, signal, recipe)
            return page.eval(), preparation(signal, recipe)
        encoder, _ = make_encoder(self.network.encoder, signal, recipe)
        return encoder.eval(), preparation(signal, recipe)


class Trained(_FromWeights):
    """A head, or the whole network, trained on the subset by the same number of steps."""

    @property
    def tune(self) -> Tune:
        """How it is trained."""
        return self.config.probe if self.start.how == "probe" else self.config.full

    def identity(self, seed: int) -> dict[str, Any]:
        """See ``Learner``."""
        how = dataclasses.asdict(self.config.fit)
        return {
            "how": self.start.how,
            **self.weights(seed),
            "tune": dataclasses.asdict(self.tune),
            "fit": {name: value for name, value in how.items() if name not in (*FREE, "seed")},
            "validation": self.config.validation,
            "looks": self.config.looks,
        }

    def scores(self, rows: NDArray[np.int64], seed: int, name: str) -> Scored:
        """See ``Learner``."""
        config, cohort = self.config, self.cohort
        out = Path(config.out, "runs", name)
        names = set(patients(cohort.train.take(rows).table))
        chosen = out.with_suffix(".patients")
        chosen.parent.mkdir(parents=True, exist_ok=True)
        chosen.write_text("".join(f"{patient}\n" for patient in sorted(names)))
        how = finetune.Config(
            init=self.start.run(seed) or "",
            signal=finetune.Config().signal if self.start.runs else self.network.signal,
            data=config.data,
            validation=config.validation,
            label=config.label,
            task=config.task,
            threshold=config.threshold,
            page=NO_PAGE if self.start.runs else self.network.page,
            clip=dataclasses.replace(self.network.clip, net="none", weights="")
            if self.start.runs
            else self.network.clip,
            freeze=self.start.how == "probe",
            freeze_steps=self.tune.freeze_steps,
            freeze_norms=self.tune.freeze_norms,
            encoder_lr=self.tune.encoder_lr,
            class_weight=self.tune.class_weight,
            hidden=self.tune.hidden,
            head_dropout=self.tune.head_dropout,
            augment=self.tune.augment,
            draw=self.tune.draw,
            validate_every=-(-config.fit.steps // config.looks),
            encoder=self.network.encoder,
            keep="best" if config.validation else "last",
            optim=self.tune.optim,
            train_on=str(chosen),
            fit=dataclasses.replace(config.fit, seed=seed, out=str(out)),
        )
        with contextlib.redirect_stdout(io.StringIO()):  # hundreds of runs would say the same
            fit(build, how)
        loaded = load_run(out)
        assert loaded.head is not None
        facts = {"steps": loaded.contract.step, "weights_step": loaded.contract.weights_step}
        model = nn.Sequential(loaded.encoder, loaded.head)
        link = LINKS.get(config.task)
        given = embed(model, loaded.prepare, cohort.test, config, clip=self.network.clip, link=link)
        if not config.keep_runs:
            shutil.rmtree(out)
            chosen.unlink()
        score = given.astype(np.float64)
        return (score if config.task == "multiclass" else score[:, 0]), facts


class Voting:
    """Nearest neighbours as signals: distances are computed once, for all subsets."""

    def __init__(
        self,
        distance: str,
        config: Config,
        cohort: Cohort,
        network: Network,
        say: Callable[[str], None],
    ) -> None:
        self.distance, self.config, self.cohort, self.network = distance, config, cohort, network
        self.say = say
        self.matrix: Floats | None = None

    def identity(self, seed: int) -> dict[str, Any]:
        """See ``Learner``."""
        return {"how": "vote", "k": self.config.neighbours.k, **self._measured()}

    def scores(self, rows: NDArray[np.int64], seed: int, name: str) -> Scored:
        """See ``Learner``."""
        if self.matrix is None:
            self.matrix = self._matrix()
        k = self.config.neighbours.k
        label = self.cohort.target[rows]
        if self.config.task == "multiclass":
            label = (label[:, None] == np.unique(self.cohort.target)).astype(np.float64)
        voted = vote(self.matrix[:, rows], label, k=k)
        return voted, {"neighbours": min(k, len(rows))}

    def _measured(self) -> dict[str, Any]:
        how = self.config.neighbours
        warped = {"cost": how.cost, "radius": self._radius()} if "dtw" in self.distance else {}
        return {
            "distance": self.distance,
            **warped,
            "fs": how.fs,
            "signal": dataclasses.asdict(self.network.signal),
            "recipe": self.network.recipe,
        }

    def _radius(self) -> float | None:
        how = self.config.neighbours
        return how.beat_radius if self.distance.startswith(OF_BEATS) else how.radius

    def _matrix(self) -> Floats:
        """Distances ``(N, M)`` of test records from training records, block by block."""
        how, cohort = self.config.neighbours, self.cohort
        prepare = preparation(self.network.signal, self.network.recipe)
        own = prepared(self.network.signal, self.network.recipe)[0]
        try:
            factor = rate_factor(own, None if how.fs is None else min(how.fs, own))
        except ValueError as error:
            raise RunError(f"error[neighbours] {error} (--neighbours.fs)", code=2) from error
        seconds = self._radius()
        radius = None if seconds is None else round(seconds * own * factor[0] / factor[1])
        measure = InputDistance(
            cast(Distance, self.distance.removeprefix(OF_BEATS)),
            cost=how.cost,
            radius=radius,
            resample=factor,
            view=beats(own) if self.distance.startswith(OF_BEATS) else None,
        )
        place = device(self.config)
        key = digest({**self._measured(), "records": cohort.records_sha256})
        kept = Path(self.config.keep or self.config.out, "distances")
        folder = kept / f"{self.distance}-{key[:24]}"
        begins = range(0, len(cohort.train), COLUMNS)
        blocks, queries, said = [], None, time.monotonic()
        for number, begin in enumerate(begins):
            if time.monotonic() - said > SILENCE:
                said = time.monotonic()
                self.say(
                    f"{self.distance}: distances of {len(cohort.test)} test records from {begin} "
                    f"of {len(cohort.train)} training records, kept in {folder}"
                )
            rows = np.arange(begin, min(begin + COLUMNS, len(cohort.train)))

            def compute(rows: NDArray[np.int64] = rows) -> dict[str, Floats]:
                nonlocal queries
                if queries is None:
                    queries = signals(measure, prepare, cohort.test, place)
                some = signals(measure, prepare, cohort.train.take(rows), place)
                made = distances(measure, queries[0], some[0])
                made[~(queries[1][:, None] & some[1])] = FARTHEST
                return {"distance": made.cpu().numpy()}

            shape = len(cohort.test)
            found = cached(folder / f"{number:05d}.npz", compute, shapes={"distance": shape})
            blocks.append(found["distance"])
        return np.concatenate(blocks, axis=1)


def signals(
    measure: InputDistance, prepare: Prepare, source: Source, place: torch.device
) -> tuple[Tensor, Tensor]:
    """Prepared records as they are compared, without gaps, and which of them can be ``(N,)``."""
    loader = DataLoader(source.dataset, batch_size=BATCH)
    parts, there = [], []
    for batch in loader:
        given = [batch[name].to(place) for name in ("ecg", "gain") if name in batch]
        ecg = prepare.to(place)(*given).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        made = measure.compared(ecg)
        parts.append(made.rows)
        there.append(made.eligible)
    return torch.cat(parts), torch.cat(there)


@torch.inference_mode()
def embed(
    model: nn.Module,
    prepare: Prepare,
    source: Source,
    config: Config,
    *,
    clip: ClipNet,
    link: Callable[[Tensor], Tensor] | None = None,
) -> Floats:
    """What a model gives for each record, ``(N, D)`` float32, or through a link in float64.

    Of a video it is the mean over some clips.
    """
    place = device(config)
    model, prepare = model.to(place).eval(), prepare.to(place)

    def given(ecg: Tensor) -> dict[str, Tensor]:
        said = model(ecg.to(place)).float().cpu()
        return {"given": said if link is None else link(said.double())}

    size = BATCH
    if source.clips:
        source, size = source.windows(frames=clip.frames, step=clip.step, count=COUNT), MOST_VIDEOS
    parts = []
    for batch in DataLoader(source.dataset, batch_size=size, num_workers=config.data.workers):
        if source.clips:
            parts.append(of_windows(given, batch["ecg"], clip.frames)["given"])
            continue
        signals = [batch[name].to(place) for name in ("ecg", "gain") if name in batch]
        ready = prepare(*signals).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        parts.append(given(ready)["given"])
    found: Floats = torch.cat(parts).numpy()
    return found


def videos_of(source: Source) -> dict[str, NDArray[Any]]:
    """Whose and of which study each video is."""
    return {n: source.column(n).astype(str) for n in ("record_id", "patient_id", "study_id")}


def cached(
    path: Path, compute: Callable[[], dict[str, Floats]], *, shapes: dict[str, int]
) -> dict[str, Floats]:
    """Arrays of a file, which is made if it is not there or cannot be read.

    Args:
        path: Of an npz; its name says what it is of.
        compute: Makes the arrays.
        shapes: Rows that each must have.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in shapes}
        if all(found[name].shape[:1] == (rows,) for name, rows in shapes.items()):
            return found
    found = compute()
    content: dict[str, Any] = {**found}
    write_at_once(path, lambda file: np.savez(file, **content))
    return found


def network_of(config: Config, contracts: dict[str, Contract], train: Source) -> Network:
    """Shape and signal of what has no run: those of the first run, so that all are alike."""
    first = next(iter(contracts.values()), None)
    if first is None:
        recipe = settled_recipe(config.signal, train)
        return Network(config.encoder, config.signal, recipe, config.page, config.clip)
    encoder, page, clip = config.encoder, NO_PAGE, NO_CLIP
    if first.model["class"] == "PageEncoder":
        page = _shaped(config.page, first)
    elif first.model["class"] == "ClipEncoder":
        own = config.clip
        clip = dataclasses.replace(_shaped(own, first), frames=own.frames, step=own.step)
    else:
        encoder = _shaped(encoder, first)
    return Network(encoder, first.signal, first.recipe, page, clip)


def _shaped(network: N, contract: Contract) -> N:
    """A network as it was asked for, in the shape of a run's; dropout is no shape."""
    names = {field.name for field in dataclasses.fields(network)} - {"dropout"}
    arguments = contract.model["arguments"]
    return dataclasses.replace(network, **{k: v for k, v in arguments.items() if k in names})


def device(config: Config) -> torch.device:
    """As ``fit.accelerator`` names it; auto takes a GPU if there is one."""
    kind = config.fit.accelerator
    gpu = kind in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def digest(content: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
