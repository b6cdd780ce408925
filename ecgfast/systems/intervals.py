"""Prediction intervals of a regression by split conformal prediction.

Held-out patients tell how far predictions miss; the interval of a new record is its estimate plus
and minus the quantile of that. If the new patient is exchangeable with those (drawn from where they
were drawn, not chosen by the model or by its result), the interval holds the measured value in at
least the stated share of cases, whatever the model and however errors are distributed. One record a
patient is used, as records of one patient resemble each other.

Vovk, Gammerman, Shafer: Algorithmic learning in a random world, 2005. Lei, G'Sell, Rinaldo,
Tibshirani, Wasserman: Distribution-free predictive inference for regression, JASA 113, 2018. One
record a patient: Dunn, Wasserman, Ramdas: Distribution-free prediction sets for two-layer
hierarchical models, JASA 118, 2023.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.records import DataError
from ecgfast.eval.studies import whose
from ecgfast.systems.model import Model, configured, weights_of
from ecgfast.systems.predict import predict_ensemble
from ecgfast.train.checkpoint import write_at_once
from ecgfast.train.contract import ContractError

INTERVALS = "intervals.json"
VERSION = 1
MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What is added to and taken from an estimate.

    Attributes:
        weights: Whose predictions were measured; see ``model.weights_of``.
        label: What they predict.
        level: Share of new patients whose value the interval holds, at least.
        half_width: In the label's unit.
        patients: That were measured, one record of each.
        records: That these patients have.
        stores: Where they came from; none is the SYNTHETIC cohort.
        split: Part of the records.
        seed: Of the choice of one record a patient.
        chose_weights: Whether this part also chose the weights to keep, which makes errors on it
            somewhat too small.
        pretrained: How many of the records the encoder has seen in pretraining, without labels:
            errors on them may be somewhat too small, too.
        synthetic: Whether the records are made up.
    """

    weights: str
    label: str
    level: float
    half_width: float
    patients: int
    records: int
    stores: tuple[str, ...]
    split: str
    seed: int
    chose_weights: bool
    pretrained: int
    synthetic: bool

    def of(self, estimate: float) -> tuple[float, float]:
        """Lower and upper end."""
        return estimate - self.half_width, estimate + self.half_width


def half_width(
    errors: NDArray[np.float64],
    patient: Sequence[str],
    record: Sequence[str],
    *,
    level: float,
    seed: int = 0,
) -> tuple[float, int]:
    """The conformal quantile of absolute errors, one record a patient, and how many patients.

    Args:
        errors: Predicted minus measured, ``(N,)``.
        patient: Whose record it is.
        record: Its id; with the seed it chooses the patient's record.
        level: In (0, 1).
        seed: Of that choice.

    Raises:
        DataError: Too few patients for the level, or an error that is not finite.
    """
    if not 0 < level < 1:
        raise DataError(f"error[level] the level must lie in (0, 1), got {level}")
    if not np.isfinite(errors).all():
        bad = int((~np.isfinite(errors)).sum())
        raise DataError(f"error[not_finite] {bad} of {len(errors)} errors are not finite")
    draws = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in record]
    chosen: dict[str, int] = {}
    for row, name in enumerate(patient):
        if name not in chosen or draws[row] < draws[chosen[name]]:
            chosen[name] = row
    count = len(chosen)
    rank = math.ceil((count + 1) * level - 1e-9)  # 0.95 * 20 is 19, not a bit more
    if rank > count:
        need = math.ceil(level / (1 - level) - 1e-9)
        raise DataError(
            f"error[too_few_patients] {count} patients; an interval of {100 * level:g} % needs "
            f"{need} or more: take a larger part (--split), another --store, or a lower --level"
        )
    return float(np.sort(np.abs(errors[list(chosen.values())]))[rank - 1]), count


def calibrate(
    models: Sequence[Model],
    stores: Sequence[str],
    *,
    split: str,
    level: float,
    seed: int = 0,
    workers: int = 0,
) -> Interval:
    """Measures how far the mean of some runs misses, and writes it into the first one's folder.

    Args:
        models: One, or an ensemble.
        stores: Folders of records; none takes those that the first run was trained from.
        split: Part of the records; none of them may have been trained on.
        level: Of the interval.
        seed: Of the choice of one record a patient.
        workers: Processes that load.

    Raises:
        DataError: There are too few such patients, or records that were trained on.
        ContractError: The run is no regression.
    """
    first = models[0]
    if first.task.get("kind") != "regression":
        kind = first.task.get("kind", "run without a head")
        raise ContractError(
            f"error[task] {first.folder} is a {kind}: intervals are of a regression's values. The "
            "probability of a class says itself how sure it is; `ecgfast evaluate` tells how well"
        )
    config = configured(first.folder)
    data = config.get("data") or {}
    paths = list(stores) or list(data.get("paths") or ())
    found = predict_ensemble(
        [model.folder for model in models],
        paths,
        splits=(split,),
        patients=int(data.get("patients") or 400),
        workers=workers,
        extra=("study_id",),
    )
    seen = found["trained_on"]
    names = found["record_id"]
    if seen.any():
        raise DataError(
            f"error[contamination] {int(seen.sum())} of {len(seen)} records of part {split} were "
            f"trained on (first: {names[seen.argmax()]}): errors on them are too small. Take "
            "a part that no training saw"
        )
    patient = whose(found, videos=first.contract.clips is not None)
    width, count = half_width(
        found["score"].astype(np.float64) - found["label"],
        patient.tolist(),
        names.tolist(),
        level=level,
        seed=seed,
    )
    own_part = not stores or sorted(stores) == sorted(data.get("paths") or ())
    interval = Interval(
        weights=weights_of(models),
        label=str(first.task["label"]),
        level=level,
        half_width=width,
        patients=count,
        records=len(names),
        stores=tuple(paths),
        split=split,
        seed=seed,
        chose_weights=bool(
            own_part and config.get("keep") == "best" and config.get("validation") == split
        ),
        pretrained=int(found["pretrained_on"].sum()),
        synthetic=bool(not paths or any(_synthetic(path) for path in paths)),
    )
    _write(first.folder / INTERVALS, interval)
    return interval


def interval_of(models: Sequence[Model]) -> tuple[Interval | None, str]:
    """The interval that was measured for these weights, or the reason why there is none.

    Raises:
        ContractError: The file is not what it must be.
    """
    if models[0].task.get("kind") != "regression":
        return None, ""
    folder = models[0].folder
    members = "".join(f" {model.folder}" for model in models[1:])
    way = f"ecgfast calibrate {folder}" + (f" --ensemble{members}" if members else "")
    kept = _read(folder / INTERVALS)
    for interval in kept:
        if interval.weights == weights_of(models):
            return interval, ""
    why = "that of other weights is there" if kept else "none was measured"
    return None, f"no interval: {why}; {way}"


def _synthetic(path: str) -> bool:
    from ecgfast.data.stores import open_store

    return open_store(path).synthetic


def _write(path: Path, interval: Interval) -> None:
    """Beside those of other ensembles that begin with this run."""
    kept = [one for one in _read(path) if one.weights != interval.weights]
    content = {
        "version": VERSION,
        "method": "split conformal: estimate plus and minus half_width",
        "intervals": [asdict(one) for one in [*kept, interval]],
    }
    write_at_once(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _read(path: Path) -> list[Interval]:
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r}, this ecgfast reads {VERSION}")
        return [_checked(one) for one in content["intervals"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ContractError(
            f"error[intervals] {path}: {what}; remove it and run `ecgfast calibrate` again"
        ) from error


def _checked(content: dict[str, Any]) -> Interval:
    one = Interval(**{**content, "stores": tuple(content["stores"])})
    if not (0 < one.level < 1 and math.isfinite(one.half_width) and one.half_width >= 0):
        raise ValueError(f"level {one.level} and half_width {one.half_width}")
    return one
