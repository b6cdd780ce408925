"""Words of recipes that set the level of a signal, or make one beat of many."""
# ruff: noqa: D102  (recipe_word.Word says what the methods of a word are)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ecgfast.ops.preprocess import Normalise as NormaliseBy
from ecgfast.transforms.beats import median_beats
from ecgfast.transforms.recipe_word import Array, Place, Word

if TYPE_CHECKING:
    from ecgfast.ops.preprocess import Step


@dataclass(frozen=True)
class Normalise(Word):
    """Moves and scales each lead, or a record as a whole: see `ecgfast.ops.preprocess.Normalise`.

    Args:
        kind: ``zscore``, ``min_max``, ``rms``, or ``fixed`` by numbers of a training set.
        scope: ``lead`` or ``record``; not of ``fixed``.
        eps: Of the divisor.
        eps_inside: Whether it goes inside the root: ``sqrt(var + eps)``, not ``sd + eps``.
        mean: Of ``fixed``, mV: a number, or one for each lead; none as long as it is not known.
        std: Likewise.
    """

    kind: Literal["zscore", "min_max", "rms", "fixed"] = "zscore"
    scope: Literal["lead", "record"] = "lead"
    eps: float = 0.0
    eps_inside: bool = False
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, list):  # of JSON
                object.__setattr__(self, name, tuple(value))
        if self.kind != "fixed" or (self.mean is not None and self.std is not None):
            self._step()  # checks itself

    def _step(self) -> NormaliseBy:
        return NormaliseBy(
            self.kind,
            scope=self.scope,
            eps=self.eps,
            eps_inside=self.eps_inside,
            mean=self.mean,
            std=self.std,
        )

    def after(self, at: Place) -> tuple[float, int]:
        if self.kind == "fixed" and (self.mean is None or self.std is None):
            raise at.fail("has no numbers of a training set yet: Recipe.scaled(mean, std)")
        return at.fs, at.samples

    def steps(self, at: Place) -> tuple[Step, ...]:
        self.after(at)
        return (self._step(),)

    def reference(self, ecg: Array, at: Place) -> Array:
        if self.kind == "fixed":
            mean, std = (np.reshape(np.array(v), (-1, 1)) for v in (self.mean, self.std))
            return (ecg - mean) / std
        over = (-2, -1) if self.scope == "record" else (-1,)
        low, high = ecg.min(axis=over, keepdims=True), ecg.max(axis=over, keepdims=True)
        if self.kind == "min_max":
            moved, size = ecg - low, high - low
        else:
            mean = ecg.mean(axis=over, keepdims=True)
            moved = ecg - mean if self.kind == "zscore" else ecg
            size = np.square(moved).mean(axis=over, keepdims=True)
            size = np.sqrt(size + self.eps) if self.eps_inside else np.sqrt(size)
        divisor = size if self.eps_inside and self.kind != "min_max" else size + self.eps
        return np.divide(moved, divisor, out=np.zeros_like(moved), where=divisor > 0)


@dataclass(frozen=True)
class Scale(Word):
    """Multiplies by a number; 1000 turns mV into uV.

    Args:
        factor: Above 0.
    """

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < float("inf"):
            raise ValueError(f"Scale needs a finite factor above 0, got {self.factor}")

    def steps(self, at: Place) -> tuple[Step, ...]:
        return (NormaliseBy("fixed", mean=0.0, std=1 / self.factor),)

    def reference(self, ecg: Array, at: Place) -> Array:
        return ecg * self.factor


@dataclass(frozen=True)
class MedianBeat(Word):
    """One beat for each lead: the median over the record's beats, aligned on R.

    See `ecgfast.transforms.beats.median_beats`, which tells which records have too few beats.

    Args:
        samples: Of the beat.
        before: Of these before the R peak.
        lead: Where R is looked for; none for all leads together.
        least: Beats that make a median.
        clean: Whether to filter before beats are looked for; not if the recipe has done so.
        poor: What to do with a record of too few beats: raise, or nan, which leaves nothing of it.
    """

    samples: int
    before: int
    lead: int | None = None
    least: int = 3
    clean: bool = True
    poor: Literal["raise", "nan"] = "raise"

    def fuses(self, at: Place) -> bool:
        return False

    def after(self, at: Place) -> tuple[float, int]:
        if at.samples < self.samples:
            raise at.fail(f"needs {self.samples} samples for one beat")
        return at.fs, self.samples

    def moments(self, at: Place, times: Array) -> Array:
        raise at.fail("makes one beat of many, which have no single moment: restore=False")

    def apply(self, ecg: Tensor, at: Place) -> Tensor:
        made = median_beats(
            ecg,
            fs=at.fs,
            samples=self.samples,
            before=self.before,
            lead=self.lead,
            least=self.least,
            clean=self.clean,
        )
        if self.poor == "nan":
            return made.beats.masked_fill(~made.valid[:, None, None], torch.nan)
        if not made.valid.all():
            poor = (~made.valid).nonzero().flatten().tolist()
            named = ", ".join(f"{n} ({int(made.made_of[n])})" for n in poor[:8])
            more = ", ..." if len(poor) > 8 else ""
            raise at.fail(
                f"{len(poor)} of {len(ecg)} records have fewer than {self.least} whole beats:"
                f" records {named}{more}; leave them out, or take median_beats, which flags them"
            )
        return made.beats

    def reference(self, ecg: Array, at: Place) -> Array:
        leads = torch.from_numpy(ecg.copy())
        return (
            self.apply(leads.reshape(-1, *ecg.shape[-2:]), at)
            .reshape(*ecg.shape[:-1], self.samples)
            .numpy()
        )
