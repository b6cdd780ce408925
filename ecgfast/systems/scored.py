"""Records of one part with their scores: what an evaluation and its comparisons begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.clips import FPS
from ecgfast.data.records import DataError
from ecgfast.data.stores import open_store
from ecgfast.data.synthetic import KNOWN
from ecgfast.data.synthetic_echo_patients import echo_table
from ecgfast.eval import threshold_at_sensitivity
from ecgfast.eval.studies import by_study, whose
from ecgfast.eval.subgroups import Cut
from ecgfast.systems.model import configured
from ecgfast.systems.predict import EXTRA, predict_ensemble
from ecgfast.train.checkpoint import load_contract

LEVEL = 0.95
STUDY = "study_id"

Found = dict[str, NDArray[Any]]
Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to score and how.

    Attributes:
        runs: Folders; of several the mean of the scores is scored.
        stores: Folders of records; none takes what the first run was trained from.
        split: Part of the records.
        draws: Of patients.
        seed: Of the draws.
        threshold: Of a class; none takes that of 90 % sensitivity on the validation part.
        above: Cuts at which a regression is scored as a class.
        subgroups: Columns, one or several crossed at a time; none takes sex and age if known.
        least_share: A group with a smaller share of the patients is called under-represented,
        least_patients: so is one with fewer patients.
        horizons: Times at which a survival is scored; none takes 1, 3 and 5 years.
        against: Folders of runs to compare with.
        order: Column that tells the order of visits; empty takes the first of `ORDERS`.
        keep: More columns to write beside the scores.
        layouts: To draw the records in, one after the other, for runs that see pages.
        by: What a score is of: record, each record or video; study, the mean over its videos; auto
            takes study where records are videos.
        workers: Processes that load records.
    """

    runs: tuple[str, ...]
    stores: tuple[str, ...] = ()
    split: str = "test"
    draws: int = 1000
    seed: int = 0
    threshold: float | None = None
    above: tuple[float, ...] = ()
    subgroups: tuple[tuple[Cut, ...], ...] | None = None
    least_share: float = 0.05
    least_patients: int = 30
    horizons: tuple[float, ...] = ()
    against: tuple[str, ...] = ()
    order: str = ""
    keep: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    by: Literal["auto", "record", "study"] = "auto"
    workers: int = 0

    @property
    def how(self) -> dict[str, Any]:
        """Words of the bootstrap."""
        return {"draws": self.draws, "seed": self.seed, "level": LEVEL}


def stores_of(run: str, named: Sequence[str]) -> list[str]:
    """Those that were named, or else those that the run was trained from."""
    return list(named) or [str(p) for p in configured(run).get("data", {}).get("paths") or ()]


def columns_of(stores: Sequence[str], run: str) -> list[str]:
    """Columns that all stores have; without stores those of the SYNTHETIC cohort of a run."""
    if not stores and load_contract(run).clips is not None:
        return [*echo_table(1, fps=FPS, seed=0)[0], "frames"]
    if not stores:
        return ["record_id", "patient_id", *KNOWN, "split"]
    first, *others = [list(open_store(path).manifest.columns) for path in stores]
    return [name for name in first if all(name in other for other in others)]


def predict_part(
    asked: Asked,
    runs: Sequence[str],
    stores: Sequence[str],
    split: str | Sequence[str],
    order: str = "",
    layout: str = "",
) -> Found:
    """Scores and what is known of each record; a patient whom nobody knows is one of their own."""
    cut = [c.column for cuts in asked.subgroups or () for c in cuts]
    found = predict_ensemble(
        runs,
        stores,
        splits=(split,) if isinstance(split, str) else tuple(split),
        patients=int(configured(runs[0]).get("data", {}).get("patients") or 400),
        workers=asked.workers,
        layout=layout,
        extra=tuple(dict.fromkeys([*EXTRA, STUDY, *cut, *asked.keep, *([order] if order else [])])),
    )
    found = _by(asked, runs, found)
    videos = load_contract(runs[0]).clips is not None
    return found | {"patient_id": whose(found, videos=videos)}


def _by(asked: Asked, runs: Sequence[str], found: Found) -> Found:
    if asked.by == "auto" and load_contract(runs[0]).clips is None:
        return {name: column for name, column in found.items() if name != STUDY}
    if asked.by == "record":
        return found
    if STUDY not in found:
        raise DataError(
            f"error[study] the records have no column {STUDY}: leave --by study out, or join a "
            "table with that column when converting (--labels)"
        )
    try:
        return by_study(found)
    except ValueError as error:
        raise DataError(str(error)) from error


def refuse_seen(found: Found, split: str) -> None:
    """A test on what was learned from is none."""
    fine, before = found["trained_on"], found["pretrained_on"]
    seen = fine | before
    if split != "test" or not seen.any():
        return
    first = found["record_id"][seen.argmax()]
    raise DataError(
        f"error[contamination] {int(seen.sum())} of {len(seen)} records of the test part were "
        f"trained on (first: {first}): {int(fine.sum())} by this run, {int(before.sum())} by the "
        "encoder it began from. Their scores say nothing about new patients. Split by patient "
        "(ecgfast split STORE --by patient) and train again without the test part, or score "
        "another part with --split"
    )


def thresholds_of(
    asked: Asked, runs: Sequence[str], task: Mapping[str, Any], stores: Sequence[str]
) -> tuple[Facts, list[float]]:
    """The score from which on a record is called positive, and its origin; that of each run."""
    if asked.threshold is not None:
        told = {"threshold": asked.threshold, "threshold_from": "given"}
        return told, [asked.threshold] * len(runs)
    part = str(configured(runs[0]).get("validation") or "val")
    why = f"one half: {part} is what is scored"
    if part != asked.split:
        try:
            held = predict_part(asked, runs, stores, part)
            label = classes_of(held["label"], task["threshold"])
            value = threshold_at_sensitivity(label, held["score"])
            each = [threshold_at_sensitivity(label, one) for one in held["scores"]]
            return {
                "threshold": value,
                "threshold_from": f"90 % sensitivity on the {part} part",
            }, each
        except (DataError, ValueError) as error:
            reason = str(error).splitlines()[0][:120]
            why = f"one half: no {part} part to choose by ({reason})"
    return {"threshold": 0.5, "threshold_from": why}, [0.5] * len(runs)


def classes_of(label: NDArray[Any], above: float | None) -> NDArray[np.float64]:
    """0 or 1; a label without a threshold is that already."""
    values = np.asarray(label, np.float64)
    return values if above is None else (values > above).astype(np.float64)
