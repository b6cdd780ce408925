"""Preprocessing by name: what published models were fed, and a default of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ecgfast.ops import preprocess as fused
from ecgfast.transforms.recipe_filters import (
    Butterworth,
    MedianBaseline,
    MovingAverageFilter,
    Notch,
)
from ecgfast.transforms.recipe_levels import MedianBeat, Normalise, Scale
from ecgfast.transforms.recipe_rates import Crop, Pad, Resample
from ecgfast.transforms.recipe_word import Array, Place, Word

if TYPE_CHECKING:
    from ecgfast.ops.preprocess import Steps

WORDS: dict[str, type[Word]] = {
    word.__name__: word
    for word in (
        Butterworth,
        Crop,
        MedianBaseline,
        MedianBeat,
        MovingAverageFilter,
        Normalise,
        Notch,
        Pad,
        Resample,
        Scale,
    )
}


@dataclass(frozen=True)
class Recipe:
    """A chain of preprocessing in words and numbers, which can be written as JSON or YAML.

    Args:
        name: Of the recipe; errors say it.
        source: Where it is from.
        words: What is done, in order, to mV.
        seconds: The only length of a record that the source defines it for; none for any.
    """

    name: str
    source: str
    words: tuple[Word, ...]
    seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        for word in self.words:
            if type(word).__name__ not in WORDS:
                raise TypeError(f"recipe {self.name!r}: {word!r} is none of {', '.join(WORDS)}")

    def places(self, fs: float, samples: int) -> list[tuple[Word, Place]]:
        """Each word with what arrives at it; raises if one cannot be done there.

        Args:
            fs: Rate of the record, Hz.
            samples: Its length.
        """
        if not 0 < fs < float("inf"):
            raise ValueError(f"fs must be above 0 Hz and finite, got {fs}")
        if self.seconds is not None and samples != round(self.seconds * fs):
            raise ValueError(
                f"recipe {self.name!r} is defined for {self.seconds:g} s, which are"
                f" {round(self.seconds * fs)} samples at {fs:g} Hz, got {samples}: crop or pad"
            )
        made = []
        for number, word in enumerate(self.words, 1):
            who = f"recipe {self.name!r}, step {number} ({type(word).__name__})"
            made.append((word, Place(who, fs, samples)))
            fs, samples = word.after(made[-1][1])
        return made

    def result(self, fs: float, samples: int) -> tuple[float, int]:
        """Rate and length that come out."""
        if not self.words:
            return fs, samples
        word, at = self.places(fs, samples)[-1]
        return word.after(at)

    def steps(self, fs: float, samples: int) -> Steps:
        """The whole recipe for `ecgfast.ops.preprocess`.

        Raises:
            ValueError: If a word cannot be done there, or is not one that a single pass knows.
        """
        made: list[Any] = []
        for word, at in self.places(fs, samples):
            if not word.fuses(at):
                raise at.fail("is not a step of ops.preprocess; use transforms.recipes.preprocess")
            made.extend(word.steps(at))
        return tuple(made)

    def scaled(self, mean: float | ArrayLike, std: float | ArrayLike) -> Recipe:
        """The same with the training set's numbers, mV: one, or one for each lead."""

        def plain(value: Any) -> Any:
            array = np.asarray(value, dtype=np.float64)
            return tuple(array.tolist()) if array.ndim else float(array)

        if not any(isinstance(word, Normalise) and word.kind == "fixed" for word in self.words):
            raise ValueError(f"recipe {self.name!r} takes no scale of a training set")
        words = tuple(
            replace(word, mean=plain(mean), std=plain(std))
            if isinstance(word, Normalise) and word.kind == "fixed"
            else word
            for word in self.words
        )
        return replace(self, words=words)

    def unscaled(self) -> Recipe:
        """The same up to the training set's scale: what its mean and deviation are taken of."""
        for number, word in enumerate(self.words):
            if isinstance(word, Normalise) and word.kind == "fixed":
                return replace(self, words=self.words[:number])
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values: dictionaries, lists, texts, numbers, none."""

        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, tuple) else value

        return {
            "name": self.name,
            "source": self.source,
            "seconds": self.seconds,
            "steps": [
                {"step": type(word).__name__}
                | {name: plain(value) for name, value in asdict(cast(Any, word)).items()}
                for word in self.words
            ],
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; what is left out of a step takes its default."""
        unknown = set(values) - {"name", "source", "seconds", "steps"}
        if unknown or "name" not in values or "steps" not in values:
            raise ValueError(
                "a recipe has name, source, seconds and steps, got " + ", ".join(map(str, values))
            )
        words = []
        for number, step in enumerate(values["steps"], 1):
            words.append(_word(f"recipe {values['name']!r}, step {number}", dict(step)))
        return Recipe(
            name=values["name"],
            source=values.get("source", ""),
            words=tuple(words),
            seconds=values.get("seconds"),
        )

    def reference(self, ecg: ArrayLike, fs: float) -> Array:
        """The same by scipy and numpy in float64: slow, obvious, the truth for tests.

        Args:
            ecg: mV, ``(N, L, T)``, without gaps.
            fs: Rate, Hz.
        """
        made: Array = np.array(ecg, dtype=np.float64)
        flat = np.ptp(made, axis=-1, keepdims=True) == 0
        for word, at in self.places(fs, made.shape[-1]):
            if isinstance(word, Normalise) and word.kind != "fixed":
                made = np.where(_still(word, flat), made[..., :1], made)
            made = word.reference(made, at)
        return made


def _word(who: str, values: dict[str, Any]) -> Word:
    kind = values.pop("step", None)
    if kind not in WORDS:
        raise ValueError(f"{who}: unknown step {kind!r}; known are {', '.join(WORDS)}")
    known = [field.name for field in fields(cast(Any, WORDS[kind]))]
    if set(values) - set(known):
        wrong = ", ".join(sorted(set(values) - set(known)))
        raise ValueError(f"{who}: {kind} has no {wrong}; it has {', '.join(known)}")
    try:
        return WORDS[kind](**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: {error}") from None


def recipe_named(name: str) -> Recipe:
    """The recipe of a name; the error lists all names."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
    return RECIPES[name]


def preprocess(
    x: Tensor,
    gain: float | ArrayLike | Tensor | None = None,
    offset: float | ArrayLike | Tensor | None = None,
    recipe: Recipe | str = "default",
    *,
    fs: float,
    missing: int | None = None,
    on_gap: Literal["raise", "zero", "interpolate"] = "raise",
    restore: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Does a recipe to a batch, on its device.

    Words that `ecgfast.ops.preprocess` knows run together in one pass; a recipe of nothing else
    is one pass in all. Records never mix. No gradient passes.

    Args:
        x: ``(N, L, T)``, int16 or any float dtype.
        gain: mV a unit of ``x``: a number, ``(N,)`` or ``(N, L)``; 1 if None. Not 0.
        offset: mV at 0, likewise; 0 if None.
        recipe: A `Recipe`, or its name in `RECIPES`.
        fs: Rate of ``x``, Hz.
        missing: The int16 code of a missing sample; NaN marks them in floats.
        on_gap: ``raise``, or fill gaps by ``zero`` mV, or by lines (``interpolate``).
        restore: Whether what was filled is NaN in the result.
        dtype: Of the result.

    Returns:
        Tensor ``(N, L, T')`` of ``dtype``: `Recipe.result` says at which rate and how long.

    Raises:
        ValueError: If a name is unknown, a word cannot be done at this rate and length (the error
            names recipe, step and numbers), or as of `ecgfast.ops.preprocess`.
        TypeError: As of `ecgfast.ops.preprocess`.

    Example:
        >>> ecg = torch.randn(2, 12, 5000)  # SYNTHETIC noise
        >>> preprocess(ecg, recipe="pclr", fs=500).shape
        torch.Size([2, 12, 4096])
    """
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    if x.dim() != 3:
        raise ValueError(f"x must be (N, L, T), got {tuple(x.shape)}")
    placed = recipe.places(fs, x.shape[2])
    wide = torch.float64 if torch.float64 in (dtype, x.dtype) else torch.float32
    head, start = _run(placed, 0)
    whole = start == len(placed)
    y = fused(
        x,
        head,
        gain=gain,
        offset=offset,
        missing=missing,
        on_gap=on_gap,
        restore=restore and whole,
        dtype=dtype if whole else wide,
    )
    if whole:
        return y
    flat = x.amax(dim=-1, keepdim=True) == x.amin(dim=-1, keepdim=True)
    lost: Tensor | None = None  # records of which a word has left nothing
    while start < len(placed):
        steps, after = _run(placed, start)
        if after > start:
            for word, _ in placed[start:after]:
                if isinstance(word, Normalise) and word.kind != "fixed":
                    y = torch.where(_still(word, flat), y[..., :1], y)
            y = fused(y, steps, dtype=wide)
        else:
            word, at = placed[start]
            y, after = word.apply(y, at), start + 1
            if isinstance(word, MedianBeat):
                lost = y.isnan().flatten(1).all(dim=1)[:, None, None]
                y = y.masked_fill(lost, 0.0)
        start = after
    if restore:
        y = _restore(y, x, missing, placed)
    return (y if lost is None else y.masked_fill(lost, torch.nan)).to(dtype)


def _run(placed: list[tuple[Word, Place]], start: int) -> tuple[Steps, int]:
    """The steps of as many words from ``start`` on as one pass does, and where it stops."""
    made: list[Any] = []
    for word, at in placed[start:]:
        if not word.fuses(at):
            break
        made.extend(word.steps(at))
        start += 1
    return tuple(made), start


def _still(word: Normalise, flat: Any) -> Any:
    """Which of what came in flat is normalised to zero, whatever rounding filters made of it."""
    return flat if word.scope == "lead" else flat.all(1)[:, None]


def _restore(y: Tensor, x: Tensor, missing: int | None, placed: list[tuple[Word, Place]]) -> Tensor:
    lost = ~x.isfinite() if missing is None else x == missing
    if not lost.any():
        return y
    times: Array = np.arange(x.shape[2], dtype=np.float64)
    for word, at in placed:
        times = word.moments(at, times)
    nearest = np.clip(np.floor(times + 0.5).astype(np.int64), 0, x.shape[2] - 1)
    return y.masked_fill(lost[..., torch.from_numpy(nearest).to(x.device)], torch.nan)


_CLEAN = (Butterworth(order=5, low=0.5), MovingAverageFilter(hz=50.0))  # neurokit2's
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "default",
            "ecgfast: what a filter of a monitor leaves, without delay, at 250 Hz",
            (
                Resample(250),
                Butterworth(order=2, low=0.5, high=40),
                Notch(50.0, q=30.0),
                Normalise("fixed"),
            ),
        ),
        Recipe(
            "ssldml",
            "Jeong, Stultz, Ghassemi, MLHC 2023; code: mandiehyewon/ssldml, data/unl_ecg.py",
            (Resample(250, "ends"),),
            seconds=10,
        ),
        Recipe(
            "pclr",
            "Diamant et al., PLOS Computational Biology, 2022 (pcbi.1009862); code:"
            " broadinstitute/ml4h, model_zoo/PCLR/preprocess_ecg.py",
            (Resample(409.6, "ends"),),
            seconds=10,
        ),
        Recipe(
            "ptbxl_benchmark",
            "Strodthoff et al., IEEE JBHI, 2021 (arXiv 2004.13701); code:"
            " helme/ecg_ptbxl_benchmarking, code/utils/utils.py",
            (Resample(100), Normalise("fixed")),
        ),
        Recipe(
            "ecgfounder",
            "Li et al., arXiv 2410.04133; code: filter_bandpass, resample_unequal and"
            " z_score_normalization as copied in UMCUtrecht-ECGxAI/ECGFounder",
            (
                Resample(500, "ends"),
                Notch(50.0, q=30.0),
                Butterworth(order=4, low=0.67, high=40),
                MedianBaseline((0.4,), mode="constant"),
                Normalise("zscore", scope="record", eps=1e-8),
            ),
            seconds=10,
        ),
        Recipe(
            "st_mem",
            "Na et al., ICLR 2024 (arXiv 2402.09450); code: bakqui/ST-MEM, util/transforms.py,"
            " configs/pretrain/st_mem.yaml",
            (
                Resample(250, "fourier"),
                Crop(9.0, "centre"),
                Butterworth(order=5, low=0.67),
                Butterworth(order=5, high=40),
                Normalise("zscore", scope="record"),
            ),
        ),
        Recipe(
            "neurokit",
            "Makowski et al., Behavior Research Methods 53, 2021; code: neurokit2 0.2.13,"
            " ecg_clean(method='neurokit')",
            _CLEAN,
        ),
        Recipe(
            "dual_attention",
            "Chen et al., IEEE Trans. Big Data 2025 (arXiv 2403.10581); code:"
            " cherise215/LLM-ECG-Dual-Attention, ECG/ecg_dataset.py; median beats are our own",
            (
                Resample(500),
                *_CLEAN,
                MedianBeat(samples=600, before=240, clean=False),
                Normalise("zscore", scope="lead"),
                Pad(608),
            ),
        ),
    )
}
