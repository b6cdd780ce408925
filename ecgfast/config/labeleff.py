"""Label efficiency: what each start is worth with few labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ecgfast.config import Augment, Encoder, Fit, Optim, Signal, Store
from ecgfast.config.clips import ClipNet
from ecgfast.config.pages import PageNet

HOWS = ("probe", "logistic", "full")
NEIGHBOURS = {
    "dtw-knn": "dtw",
    "beat-knn": "beat_dtw",  # dtw of median beats
    "l1-knn": "mean_l1",
    "euclidean-knn": "euclidean",
}
RANDOM = "random"
METRICS = {  # the first of each task is the one that is drawn, unless another is asked for
    "classification": ("auroc", "auprc"),
    "multiclass": ("auroc_macro",),
    "regression": ("mae", "rmse", "pearson_r", "r2"),
}
FALLING = ("mae", "rmse")  # less is better


class Start(NamedTuple):
    """One line of the table: where it begins and how it learns.

    Attributes:
        name: For tables and files.
        runs: Folders of pretrainings: one for all seeds, or one a seed; a text with `{seed}` in
            it stands for one a seed. None begins from random weights, or learns nothing.
        how: probe, logistic, full, or what a training-free start compares records by.
    """

    name: str
    runs: tuple[str, ...]
    how: str

    @property
    def distance(self) -> str | None:
        """What a training-free start compares records by."""
        return self.how if self.how in NEIGHBOURS.values() else None

    def run(self, seed: int) -> str | None:
        """The pretraining that a seed begins from."""
        if not self.runs:
            return None
        return self.runs[seed if len(self.runs) > 1 else 0].replace("{seed}", str(seed))


def start_of(word: str, how: str) -> Start:
    """What `NAME=RUN@HOW`, `random` or `dtw-knn` stands for.

    Raises:
        ValueError: It stands for nothing.
    """
    name, named, what = word.rpartition("=")
    rest, _, own = what.rpartition("@")
    if own in HOWS and rest:
        what, how = rest, own
    if what in NEIGHBOURS:
        if own in HOWS:
            raise ValueError(f"init {word}: {what} learns nothing, it takes no @{own}")
        how = NEIGHBOURS[what]
    if not named:
        if what not in NEIGHBOURS and what != RANDOM:
            kinds = ", ".join([RANDOM, *NEIGHBOURS])
            raise ValueError(f"init {word}: write NAME=RUN for a run; without a name: {kinds}")
        name = word.replace("@", "-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name):
        raise ValueError(
            f"init {word}: the name {name!r} becomes a folder; letters, digits and . _ + - will do"
        )
    runs = () if what == RANDOM or what in NEIGHBOURS else tuple(what.split(","))
    if not all(runs):
        raise ValueError(f"init {word}: a run is missing")
    return Start(name, runs, how)


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Training on the labels of a subset.

    Attributes:
        hidden: Width of the head's hidden layer; 0 is a linear head.
        head_dropout: Before the last layer.
        class_weight: Of the loss of each class: none, balanced, or how many times a record of the
            positive class counts.
        freeze_steps: Of full: train the head alone for the first so many steps, then all.
        freeze_norms: Of full: leave the encoder's batch norms as the pretraining left them.
        encoder_lr: Of full: learning rate of the encoder; none is that of optim.
        augment: What training sees in place of a record.
        draw: Of a network for pages: alike draws training records as it draws all; anew gives each
            another layout and look every time. Of clips anew shifts and turns them.
        optim: How the parameters move.
    """

    hidden: int = 0
    head_dropout: float = 0.0
    class_weight: Literal["none", "balanced"] | float = "none"
    freeze_steps: int = 0
    freeze_norms: bool = False
    encoder_lr: float | None = None
    augment: Augment = field(default_factory=Augment)
    draw: Literal["alike", "anew"] = "alike"
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-3, weight_decay=0.0, warmup_steps=20))


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The vote of the nearest labelled records, as signals.

    Attributes:
        k: How many vote; all labelled ones where they are fewer. Weights are inverse distances.
        cost: Between samples, for dtw: see `ecgfast.ops.dtw`.
        radius: Seconds that a warping may shift a sample by; none for any number.
        beat_radius: The same for median beats.
        fs: Rate at which records are compared, Hz, or their own if that is less; none is theirs.
    """

    k: int = 15
    cost: Literal["l1", "sqeuclidean", "euclidean"] = "l1"
    radius: float | None = 0.5
    beat_radius: float | None = 0.03
    fs: float | None = 100.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"neighbours.k must be 1 or more, got {self.k}")
        for name in ("radius", "beat_radius"):
            given = getattr(self, name)
            if given is not None and not given >= 0:
                raise ValueError(f"neighbours.{name} must be at least 0 s, got {given}")
        if self.fs is not None and not self.fs > 0:
            raise ValueError(f"neighbours.fs must be positive, got {self.fs}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Scores of every start on every share of the labelled patients.

    Attributes:
        init: What to compare, each `NAME=RUN`, `NAME=RUN0,RUN1,...` with a pretraining for each
            seed, `NAME=runs/x-{seed}` for the same, `random` (or `NAME=random`) for random weights,
            `dtw-knn`, `beat-knn` (median beats), `l1-knn` or `euclidean-knn` for votes of
            neighbours. `@probe`, `@logistic` or `@full` after one of them takes the place of how.
        how: logistic is a penalised linear model on frozen embeddings (ridge for a value); probe
            trains a linear head on a frozen encoder, full the whole network, both by `fit.steps`
            steps.
        signal: The signal contract of random weights and of votes; where there are runs, the one of
            the first is taken.
        data: Where records come from; its splits are those whose patients are drawn from.
        validation: Part that probe and full choose their weights by; empty keeps the last ones. Its
            labels come on top of every share. logistic and votes never see it.
        looks: At the validation part, spread evenly over a run of probe or full.
        test: Part that is scored.
        label: Column of the manifest.
        task: regression of the label; classification, whether it is above the threshold; or
            multiclass, which of its names it is.
        threshold: The positive class is label > threshold, strictly; none means that the label
            itself is 0 or 1.
        fractions: Shares of the patients; each lies in the next larger one.
        seeds: How many; seed s draws the same patients for all starts, and all else in training.
        encoder: The network of random weights; where there are runs, the one of the first is taken.
        page: The same, of a network for pages; with weights, random begins from these.
        clip: The same, of one for clips; its frames and step are those of all starts.
        probe: How a linear head is trained.
        full: How the whole network is trained.
        neighbours: How neighbours vote.
        fit: Steps, batch size and device of probe and full; its seed and out are the sweep's.
        reference: Name of the start that all others are compared with; empty is the first.
        metric: What the table and the curve show; empty is auroc for a class (auroc_macro for
            several), mae for a value.
        bootstrap: Draws of test patients.
        keep_runs: Keeps the folders of probe and full, weights included.
        keep: Folder of embeddings and distances, which sweeps of other labels on the same records
            may share; empty is the one of the sweep.
        out: Folder of the sweep; an interrupted one goes on.
    """

    init: tuple[str, ...] = (RANDOM, "dtw-knn")
    how: Literal["probe", "logistic", "full"] = "logistic"
    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=Store)
    validation: str = "val"
    looks: int = 10
    test: str = "test"
    label: str = "mpcwp"
    task: Literal["regression", "classification", "multiclass"] = "regression"
    threshold: float | None = None
    fractions: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    seeds: int = 5
    encoder: Encoder = field(default_factory=Encoder)
    page: PageNet = field(default_factory=lambda: PageNet(net="none"))
    clip: ClipNet = field(default_factory=lambda: ClipNet(net="none", frames=16))
    probe: Tune = field(default_factory=Tune)
    full: Tune = field(
        default_factory=lambda: Tune(
            hidden=128, head_dropout=0.3, optim=Optim(lr=5e-4, weight_decay=0.0, warmup_steps=20)
        )
    )
    neighbours: Neighbours = field(default_factory=Neighbours)
    fit: Fit = field(
        default_factory=lambda: Fit(steps=300, batch_size=64, devices=1, progress=False)
    )
    reference: str = ""
    metric: str = ""
    bootstrap: int = 1000
    keep_runs: bool = False
    keep: str = ""
    out: str = "runs/labeleff"

    def __post_init__(self) -> None:
        if not self.fractions:
            raise ValueError("fractions must name at least one share of the patients")
        if wrong := [f for f in self.fractions if not 0 < f <= 1]:
            raise ValueError(f"fractions must lie in (0, 1], got {wrong[0]:g}")
        if len(set(self.fractions)) < len(self.fractions):
            raise ValueError(f"fractions must differ, got {list(self.fractions)}")
        if min(self.seeds, self.bootstrap, self.looks) < 1:
            raise ValueError("seeds, bootstrap and looks must be 1 or more")
        if self.fit.devices not in (1, "1"):
            raise ValueError(f"fit.devices must be 1 here, got {self.fit.devices}: cells are small")
        if self.task != "classification" and self.threshold is not None:
            raise ValueError("threshold belongs to task=classification")
        if self.metric and self.metric not in METRICS[self.task]:
            raise ValueError(
                f"metric must be one of {', '.join(METRICS[self.task])} for a {self.task}, got "
                f"{self.metric}"
            )
        self._check_phases()
        names = [start.name for start in self.starts()]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"init names {twice[0]} more than once")
        for start in self.starts():
            if 1 < len(start.runs) < self.seeds:
                raise ValueError(
                    f"init {start.name} has {len(start.runs)} runs for {self.seeds} seeds: give "
                    "one a seed, or one for all"
                )
        if self.reference and self.reference not in names:
            raise ValueError(f"reference {self.reference} is none of {', '.join(names)}")

    def _check_phases(self) -> None:
        probe, full = self.probe, self.full
        if probe.freeze_steps or probe.freeze_norms or probe.encoder_lr is not None:
            raise ValueError(
                "probe holds the encoder still: freeze_steps, freeze_norms and encoder_lr are "
                "words of full (--full.freeze_steps)"
            )
        if not 0 <= full.freeze_steps < self.fit.steps:
            raise ValueError(
                f"full.freeze_steps must lie in [0, fit.steps = {self.fit.steps}), got "
                f"{full.freeze_steps}"
            )

    def starts(self) -> list[Start]:
        """What is compared, the first being the reference unless another is named."""
        if not self.init:
            raise ValueError("init must name at least one start")
        return [start_of(word, self.how) for word in self.init]
