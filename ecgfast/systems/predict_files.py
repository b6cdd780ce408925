"""What a run, or an ensemble of runs, says of files and of stores: a row a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ecgfast.data.convert import Plan, Ready
from ecgfast.data.page_convert import PagePlan
from ecgfast.data.records import Issue
from ecgfast.data.source import open_source
from ecgfast.eval import between
from ecgfast.eval.follow_up import usual_horizons
from ecgfast.systems.files import Found, batches, file_of, plan_for, tensors
from ecgfast.systems.intervals import Interval
from ecgfast.systems.model import Model
from ecgfast.systems.parts import check_source
from ecgfast.systems.time_to_event import unit_of
from ecgfast.systems.windows import WindowPlan, windowed
from ecgfast.train.contract import ContractError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one record.

    Attributes:
        file: Where it was read from: a file, or a store.
        record_id: Its name.
        estimate: Of a regression, in the label's unit: the mean over the members.
        lower: End of its interval, if one was measured.
        upper: The other end.
        probability: Of the class, or of the likeliest of several: the mean over the members.
        log_hazard: Of a time to an event: the mean over the members, higher means earlier. It has
            no unit, and says nothing but the order of records.
        risks: Of the event until some times, by the time, where the run has hazards of intervals.
        likeliest: Of several classes.
        probabilities: Of each of several classes, by name.
        members: What each run of an ensemble says: estimates, or probabilities of the class (of
            the likeliest, where there are several). Empty without an ensemble.
        error: Name of the issue for which there is no prediction.
        issues: What was noticed, that one first.
    """

    file: str
    record_id: str
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    probability: float | None = None
    log_hazard: float | None = None
    risks: dict[str, float] | None = None
    likeliest: str | None = None
    probabilities: dict[str, float] | None = None
    members: list[float] = field(default_factory=list)
    error: str | None = None
    issues: list[Issue] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Plain values in a fixed order."""
        return asdict(self)


def predict_files(
    models: Sequence[Model],
    found: Found,
    plan: Plan | PagePlan | WindowPlan,
    *,
    interval: Interval | None = None,
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[Prediction]:
    """Reads and scores files; one that cannot be read gives a row that says why.

    Args:
        models: One, or an ensemble (``load_ensemble``).
        found: The files.
        plan: How they are read, and what is done to them on the way: of signals, pictures or
            videos.
        interval: Of these models.
        batch_size: Records at a time.
        workers: Processes that read.

    Raises:
        ContractError: The models have no head, or expect what files cannot be.
    """
    _check_head(models)
    if isinstance(plan, Plan):
        plan = plan_for(models[0].signal, plan)
    for path, issue in found.failures:
        yield Prediction(file=path, record_id="", error=issue.name, issues=[issue])
    for batch in batches(found.items, plan, size=batch_size, workers=workers):
        good, ecg, gain = tensors(batch)
        scores = dict(zip(good, _said(models, ecg, gain), strict=True)) if good else {}
        for place, ready in enumerate(batch):
            known = Prediction(
                file=file_of(ready.item),
                record_id=ready.item.record_id,
                issues=[*ready.issues, *_slow(ready, models[0])],
            )
            if place in scores:
                yield _row(models[0], *scores[place], interval, known)
            else:
                yield replace(known, error=known.issues[0].name)


def predict_store(
    models: Sequence[Model],
    path: str,
    *,
    splits: Sequence[str] = ("all", "test"),
    interval: Interval | None = None,
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[Prediction]:
    """Scores the records of a store, whether they have a label or not.

    Args:
        models: One, or an ensemble.
        path: Folder of the store.
        splits: Parts of it; the default is every record.
        interval: Of these models.
        batch_size: Records at a time.
        workers: Processes that load.

    Raises:
        ContractError: The store does not hold what the models expect.
        DataError: There are no such records.
    """
    _check_head(models)
    signal, contract = models[0].signal, models[0].contract
    source = open_source([path], splits, signal=signal, patients=1)
    check_source(source, signal, model=contract.model, pages=contract.pages, clips=contract.clips)
    source = windowed(source, contract)
    names = source.names(range(len(source)))
    flags = [str(text) for text in source.column("flags")]
    row = 0
    for batch in DataLoader(source.dataset, batch_size=batch_size, num_workers=workers):
        for scores, risks in _said(models, batch["ecg"], batch.get("gain")):
            issues = [Issue(name, "warning") for name in flags[row].split(",") if name]
            known = Prediction(file=path, record_id=names[row], issues=issues)
            yield _row(models[0], scores, risks, interval, known)
            row += 1


def _slow(ready: Ready, model: Model) -> list[Issue]:
    """What a resampled record cannot hold."""
    fs = float(ready.row.get("fs_source", np.inf))
    if fs >= model.signal.fs:
        return []
    text = (
        f"recorded at {fs:g} Hz, the run expects {model.signal.fs:g}: nothing above {fs / 2:g} Hz"
    )
    return [Issue("low_rate", "note", message=text)]


def _check_head(models: Sequence[Model]) -> None:
    for model in models:
        if not model.task:
            raise ContractError(
                f"error[task] {model.folder} has no head, it predicts nothing: fit one "
                f"(ecgfast finetune --init {model.folder} --label NAME), or take its embeddings "
                f"(ecgfast embed {model.folder})"
            )


def _said(
    models: Sequence[Model], ecg: torch.Tensor, gain: torch.Tensor | None
) -> Iterator[tuple[NDArray[np.float64], dict[str, float] | None]]:
    """Of each record ``(M,)`` of M members, or ``(M, C)`` of several classes, and risks if any."""
    said = [model(ecg, gain) for model in models]
    scores = np.stack([one["score"].cpu().numpy().astype(np.float64) for one in said], axis=1)
    if not all("survival" in one for one in said):
        yield from ((score, None) for score in scores)
        return
    task = models[0].task
    ends = [at for at in usual_horizons(unit_of(task["label"])) if at <= task["edges"][-1]]
    ends = ends or [task["edges"][-1]]
    alive = np.mean([one["survival"].cpu().numpy().astype(np.float64) for one in said], axis=0)
    for score, risk in zip(scores, 1 - between(alive, task["edges"], ends), strict=True):
        yield score, {f"{at:g}": float(value) for at, value in zip(ends, risk, strict=True)}


def _row(
    model: Model,
    scores: NDArray[np.float64],
    risks: dict[str, float] | None,
    interval: Interval | None,
    known: Prediction,
) -> Prediction:
    """From what each member says, ``(M,)`` or ``(M, C)``."""
    if not np.isfinite(scores).all():
        text = "the model's score is not finite; look at the record with `ecgfast inspect`"
        broken = Issue("not_finite", "error", message=text)
        return replace(known, error=broken.name, issues=[broken, *known.issues])
    mean = scores.mean(axis=0)
    members = scores if len(scores) > 1 else scores[:0]
    kind = model.task["kind"]
    if kind == "regression":
        lower, upper = interval.of(float(mean)) if interval else (None, None)
        said = replace(known, estimate=float(mean), lower=lower, upper=upper)
        return replace(said, members=members.tolist())
    if kind == "multiclass":
        best = int(mean.argmax())
        classes = [str(name) for name in model.task["classes"]]
        said = replace(known, probability=float(mean[best]), likeliest=classes[best])
        shares = dict(zip(classes, mean.tolist(), strict=True))
        return replace(said, probabilities=shares, members=members[:, best].tolist())
    if kind == "survival":
        return replace(known, log_hazard=float(mean), risks=risks, members=members.tolist())
    return replace(known, probability=float(mean), members=members.tolist())
