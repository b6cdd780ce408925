"""What can be set from a file or the command line. Plain numbers and words; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ecgfast.config.clips import ClipNet
from ecgfast.config.pages import PageNet

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
QUANTITIES = {  # of labels by column: how they are called, and their unit
    "mpcwp": ("mPCWP", "mmHg"),
    "lvef": ("LVEF", "%"),
    "age": ("age", "years"),
    "af": ("atrial fibrillation", ""),
    "hf_event": ("heart failure", ""),
}


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What a model expects of an ECG: the signal contract that travels in the checkpoint.

    Amplitudes are in mV, always. A store holds leads, rate and length; the band, the mains notch
    and the normalisation are applied to the batch before the model sees it.

    Attributes:
        leads: Names, in the model's order.
        fs: Samples a second, Hz.
        seconds: Length of a record.
        band: Pass band of a zero-phase Butterworth filter of order 2, Hz; none leaves the signal.
        notch: Mains frequency to take out, Hz; none leaves the signal.
        normalise: none keeps millivolts; lead brings each lead to zero mean and unit variance;
            record divides a record by its root mean square.
        recipe: A named preprocessing of `ecgfast.transforms.recipes` instead of these three; it may
            change rate and length. Empty is none.
        stored_recipe: The one that the records have been through when they were converted
            (`ecgfast convert --recipe`), so that nothing is left but to normalise. Empty is none.
    """

    leads: tuple[str, ...] = LEADS
    fs: float = 250.0
    seconds: float = 10.0
    band: tuple[float, float] | None = None
    notch: float | None = None
    normalise: Literal["none", "lead", "record"] = "none"
    recipe: str = ""
    stored_recipe: str = ""

    def __post_init__(self) -> None:
        if not self.leads:
            raise ValueError("leads must name at least one lead")
        if len(set(self.leads)) != len(self.leads):
            raise ValueError(f"leads must differ, got {', '.join(self.leads)}")
        if self.fs <= 0 or self.seconds <= 0:
            raise ValueError(f"fs and seconds must be positive, got {self.fs} and {self.seconds}")
        if abs(self.samples - self.seconds * self.fs) > 1e-6:
            raise ValueError(f"{self.seconds} s at {self.fs} Hz is no whole number of samples")
        if self.band is not None and not 0 < self.band[0] < self.band[1] < self.fs / 2:
            raise ValueError(f"band must be 0 < low < high < fs / 2 = {self.fs / 2}: {self.band}")
        if self.notch is not None and not 0 < self.notch < self.fs / 2:
            raise ValueError(f"notch must lie in (0, {self.fs / 2}) Hz, got {self.notch}")
        set_too = [f"--signal.{n} null" for n in ("band", "notch") if getattr(self, n) is not None]
        if self.stored_recipe and (set_too or self.recipe):
            set_too += ["--signal.recipe ''"] * bool(self.recipe)
            raise ValueError(
                f"the records have been through recipe {self.stored_recipe}; filter them once: "
                f"add {' '.join(set_too)}"
            )
        set_too += ["--signal.normalise none"] * (self.normalise != "none")
        if self.recipe and set_too:
            raise ValueError(
                f"recipe {self.recipe} takes the place of band, notch and normalise: add "
                f"{' '.join(set_too)}"
            )

    @property
    def samples(self) -> int:
        """Length of a record in samples."""
        return round(self.seconds * self.fs)


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where records come from.

    Attributes:
        paths: Folders that `ecgfast convert` made, read one after the other; none takes the
            SYNTHETIC cohort.
        splits: Which parts to use; `all` takes every record that is not in a test part.
        patients: Patients of the SYNTHETIC cohort; used when there are no paths.
        limit: Use the first so many records; 0 uses all.
        workers: Processes that load; 0 loads in the main one.
    """

    paths: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    patients: int = 400
    limit: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("patients", "limit", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The network whose embeddings are kept.

    Attributes:
        net: resnet18, a residual network in one dimension; dual_attention, attention over time
            in each of 12 leads beside attention over leads, which is meant for median beats
            (--signal.recipe dual_attention); xresnet101, the residual network that led PTB-XL's
            benchmark; or conv_vae, the encoder of pretrain vae.
        embedding_dim: D, what it gives; none is that of the network: 128, of dual_attention 512,
            of xresnet101 8 width.
        width: Channels of the first stage of resnet18 and conv_vae, inner ones of each stage of
            xresnet101; 64 is the published network of both that have one, less is for trials.
        dropout: Inside the blocks; xresnet101 and conv_vae have it before their last layer.
        init: Standard deviation of resnet18's convolutions' weights: he is sqrt(2 / (k C_out));
            published is sqrt(2 / (k^2 C_out)), too small by sqrt(k) for one dimension.
        mode: Of dual_attention: fixed keeps leads apart until they are attended to; faithful is the
            published network, which mixes them before.
        attention: Of dual_attention: parallel adds both, sequential attends over leads after time;
            leads, time and none leave the others out.
    """

    net: Literal["resnet18", "dual_attention", "xresnet101", "conv_vae"] = "resnet18"
    embedding_dim: int | None = None
    width: int = 64
    dropout: float = 0.2
    init: Literal["he", "published"] = "he"
    mode: Literal["fixed", "faithful"] = "fixed"
    attention: Literal["parallel", "sequential", "leads", "time", "none"] = "parallel"

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "width"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"encoder.{name} must be 1 or more, got {size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"encoder.dropout must lie in [0, 1), got {self.dropout}")
        for name, nets in ENCODER_WORDS.items():
            if self.net not in nets and getattr(self, name) != getattr(Encoder, name):
                raise ValueError(
                    f"encoder.{name} belongs to encoder.net={' or '.join(nets)}, and the network "
                    f"is a {self.net}: leave it out"
                )


ENCODER_WORDS = {  # that some networks take
    "width": ("resnet18", "xresnet101", "conv_vae"),
    "init": ("resnet18",),
    "mode": ("dual_attention",),
    "attention": ("dual_attention",),
}


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is drawn anew for every view of a record; the default draws nothing.

    A pair is the ends of a range that each record draws from. Times are in seconds, amplitudes in
    the unit of the prepared signal (mV, unless it is normalised).

    Attributes:
        warp_strength: How much faster or slower time runs, in [0, 1).
        shift_s: Most seconds to shift by, either way.
        crop_s: Seconds to keep, from a place that is drawn; none keeps all.
        gain: Factor of all leads.
        lead_gain: Factor of each lead, on top.
        flip_p: Probability that all leads change their sign.
        wander_mv: Amplitude of the baseline's wander.
        noise_mv: SD of white normal noise.
        mask_count: How many segments to set to 0.
        mask_s: Length of a segment.
        lead_dropout_p: Probability that a lead is set to 0; one lead always stays.
    """

    warp_strength: float = 0.0
    shift_s: float = 0.0
    crop_s: float | None = None
    gain: tuple[float, float] = (1.0, 1.0)
    lead_gain: tuple[float, float] = (1.0, 1.0)
    flip_p: float = 0.0
    wander_mv: tuple[float, float] = (0.0, 0.0)
    noise_mv: tuple[float, float] = (0.0, 0.0)
    mask_count: tuple[int, int] = (0, 0)
    mask_s: tuple[float, float] = (0.1, 0.5)
    lead_dropout_p: float = 0.0

    @property
    def draws(self) -> bool:
        """Whether two views of a record can differ at all."""
        return replace(self, mask_s=Augment.mask_s) != Augment()


@dataclass(frozen=True, kw_only=True)
class Projector:
    """What pretraining puts on the encoder, and leaves behind when it is done.

    Attributes:
        dim: P, what the loss compares; none is that of the embedding.
        hidden: Width of the layers between; none is that of the embedding.
        layers: How many linear layers; 0 compares the embeddings themselves.
        batch_norm: After each layer but the last.
    """

    dim: int | None = None
    hidden: int | None = None
    layers: int = 2
    batch_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "hidden"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"projector.{name} must be 1 or more, got {size}")
        if self.layers < 0:
            raise ValueError(f"projector.layers must not be negative, got {self.layers}")
        if self.layers == 0 and (self.dim or self.hidden or self.batch_norm):
            raise ValueError("projector.layers 0 has no dim, no hidden and no batch_norm to set")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How parameters move.

    Attributes:
        kind: adamw decouples the weight decay and spares norms and biases; adam adds it to the
            gradient of all, as the published systems do.
        lr: Highest learning rate.
        weight_decay: See kind.
        warmup_steps: Steps of linear rise up to lr.
        schedule: After the warm-up: cosine decay to zero, or constant.
        clip: Largest norm of the gradient; 0 does not clip.
    """

    kind: Literal["adamw", "adam"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optim.lr must be positive, got {self.lr}")
        for name in ("weight_decay", "warmup_steps", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How long, on what, and where to.

    Attributes:
        steps: Optimiser steps in all.
        batch_size: Records a step and process.
        micro_batch: Records that are encoded at a time, their activations computed again for the
            gradient: mining and loss see the whole batch, memory holds a part. 0 is all at once.
        compile: Compiles the encoder (torch.compile).
        precision: As Lightning names it.
        accelerator: As Lightning names it.
        devices: Number of devices (processes on a CPU), or auto.
        nodes: Machines, each with so many devices.
        strategy: As Lightning names it.
        seed: Of everything that is drawn.
        checkpoint_every: Steps between two checkpoints; the last step always has one.
        log_every: Steps between two lines of the log.
        profile: Print what each part of a step takes when the run ends, and log the shares;
            `--profile` is short for it.
        progress: Show the progress bar.
        out: Folder of the run. If it holds an unfinished run of the same configuration, that run
            goes on, exactly.
    """

    steps: int = 100_000
    batch_size: int = 256
    micro_batch: int = 0
    compile: bool = False
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 10
    profile: bool = False
    progress: bool = True
    out: str = "runs/run"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "nodes", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"fit.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("micro_batch", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"fit.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What all training on a label has in common: the label, on whom, and what chooses the weights.

    Attributes:
        init: Folder of a pretrained encoder; empty starts from random weights.
        page: A network for pages in place of the one for signals, where there is no init.
        clip: The same, for clips of video. With an init for clips its frames, step and dropout hold
            all the same: longer clips are no other network.
        data: Where records come from; its splits are the ones to train on.
        validation: Part that chooses the weights to keep; empty needs keep=last.
        label: Column of the manifest.
        task: regression of the label; classification, whether it is above the threshold; or
            multiclass, which of its names it is (text, or numbers that are codes); or survival, of
            which the label is the time until the event, or until which there was none.
        threshold: The positive class is label > threshold, strictly; none means that the label
            itself is 0 or 1.
        half: Take about half of the patients, by a hash of their ids: to train a metric on the
            first and a head on the second, as published. Holds for the validation part, too.
        train_on: File of the patients to train on, one id a line; empty takes all.
        train_on_sha256: Of that file; filled in by the run. Another content is refused.
        fraction: Share of the training patients whose labels are used; smaller shares are nested
            in larger ones.
        class_weight: Of the loss of each class: none; balanced, records over classes times records
            of the class; or a number, how many times a record of the positive class counts.
        zscore: The head learns z-scores of the training labels, and gives the label's unit all the
            same.
        hidden: Width of the head's hidden layer; 0 is a linear head.
        head_dropout: Before the last layer.
        validate_every: Steps between two looks at the validation part; 0 takes an epoch, or a
            fiftieth of the run if that is more.
        patience: End the run after so many looks in a row without a better one; 0 never does.
        keep: Weights that are kept: the best on the validation part, or the last (B8).
        dropout_at_test: Leaves the head's dropout on at test, as the published code does (B7).
    """

    init: str = ""
    page: PageNet = field(default_factory=lambda: PageNet(net="none"))
    clip: ClipNet = field(default_factory=lambda: ClipNet(net="none", frames=16))
    data: Store = field(default_factory=Store)
    validation: str = "val"
    label: str = "mpcwp"
    task: Literal["regression", "classification", "multiclass", "survival"] = "regression"
    threshold: float | None = None
    half: Literal["all", "first", "second"] = "all"
    train_on: str = ""
    train_on_sha256: str = ""
    fraction: float = 1.0
    class_weight: Literal["none", "balanced"] | float = "none"
    zscore: bool = True
    hidden: int = 128
    head_dropout: float = 0.3
    validate_every: int = 0
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    dropout_at_test: bool = False

    def __post_init__(self) -> None:
        if self.init and self.page.net != "none":
            raise ValueError("page is a network that begins anew; init brings its own: leave one")
        if self.init and self.clip.net != "none":
            raise ValueError("clip.net is a network that begins anew; init brings its own")
        if self.page.net != "none" and self.clip.net != "none":
            raise ValueError("page and clip are networks of two kinds: name one of them")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")
        for name in ("validate_every", "patience", "hidden"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout must lie in [0, 1), got {self.head_dropout}")
        if not self.validation and self.keep == "best":
            raise ValueError("keep=best needs a validation part; name one, or take keep=last")
        if not self.validation and self.patience:
            raise ValueError("patience needs a validation part; name one, or take patience=0")
        if self.task != "classification" and self.threshold is not None:
            raise ValueError("threshold belongs to task=classification")
        if self.train_on_sha256 and not self.train_on:
            raise ValueError("train_on_sha256 is of the file train_on, which is not named")
        self._check_weight()

    def _check_weight(self) -> None:
        weight = self.class_weight
        if weight != "none" and self.task not in ("classification", "multiclass"):
            raise ValueError("class_weight belongs to task=classification or multiclass")
        if isinstance(weight, str):
            return
        if self.task == "multiclass":
            raise ValueError("a number as class_weight belongs to task=classification")
        if not 0 < weight < float("inf"):
            raise ValueError(f"class_weight must be positive, got {weight}")
