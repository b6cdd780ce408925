"""Survival in an evaluation: chances over time, horizons, curves; the numbers are eval's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast import eval as scores
from ecgfast.data.records import DataError
from ecgfast.data.stores import open_store
from ecgfast.eval import follow_up
from ecgfast.eval.survival_curves import check_lifelines, cut_points, median
from ecgfast.systems.model import configured
from ecgfast.systems.scored import Asked, Facts, Found, predict_part, stores_of
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.contract import Contract

UNITS = {"day": "days", "week": "weeks", "month": "months", "year": "years"}


class Outlook(NamedTuple):
    """What a run says of the time to come.

    Attributes:
        chances: From times ``(M,)`` to chances ``(N, M)`` to be without event; None if unknown.
        last: The longest time that these reach.
        origin: Where they come from, or why there are none.
        cuts: Scores that part low, middle and high risk.
        cuts_from: Whose thirds these are.
    """

    chances: Callable[[ArrayLike], NDArray[np.float64]] | None
    last: float
    origin: str
    cuts: list[float]
    cuts_from: str


def unit_of(column: str) -> str:
    """The unit of time that a column's name speaks of; empty if none.

    Example:
        >>> unit_of("hf_days"), unit_of("futime")
        ('days', '')
    """
    return next((unit for word, unit in UNITS.items() if word in column.lower()), "")


def followed(found: Found) -> None:
    """Puts ``time`` and ``event`` beside the signed times.

    Raises:
        ValueError: A time has no sign, or a score is not finite.
    """
    found["time"], found["event"] = scores.from_signed(found["label"])
    wrong = np.flatnonzero(~np.isfinite(found["score"]))
    if len(wrong):
        raise ValueError(
            f"the log hazard of {len(wrong)} of {len(found['score'])} records is not finite "
            f"(first: {found['record_id'][wrong[0]]}): the training has diverged; train again with "
            "a smaller --optim.lr"
        )


def outlook(asked: Asked, contract: Contract, found: Found) -> Outlook:
    """Chances over time and cuts, by what the run has learned from.

    Hazards of intervals bring their own chances; a Cox model gets Breslow's baseline from the
    records that it was trained on. Cuts come from these, or from the validation part.
    """
    check_lifelines()
    run, task = asked.runs[0], contract.task or {}
    config, own = configured(run), stores_of(run, ())
    edges = task.get("edges")
    data = config.get("data") or {}
    parts = tuple(data.get("splits") or ("train",))
    if edges:
        parts = (str(config.get("validation") or "val"),)
    called = " and ".join(parts)
    try:
        known = predict_part(asked, asked.runs, own, parts)
        followed(known)
        mine = np.ones(len(known["score"]), bool) if edges else known["trained_on"]
        if not mine.any():
            raise DataError(f"the run was trained on none of the {len(mine)} records of {called}")
        score = known["score"][mine]
        cuts, cuts_from = cut_points(score), f"thirds of the {called} part"
        baseline = None
        if not edges:
            baseline = scores.breslow(score, known["time"][mine], known["event"][mine])
    except (DataError, ValueError) as error:
        baseline, why = None, str(error).splitlines()[0][:160]
        cuts = cut_points(found["score"])
        cuts_from = f"thirds of the scored records themselves: no {called} part ({why})"
    if edges:
        chances = partial(scores.between, found["survival"], np.asarray(edges))
        origin = f"the run's own hazards in {len(edges)} intervals"
        return Outlook(chances, float(edges[-1]), origin, cuts, cuts_from)
    if baseline is None:
        origin = f"no baseline hazard: {why}"
        return Outlook(None, np.inf, origin, cuts, cuts_from)
    origin = (
        f"Breslow's baseline of {baseline.records} records of the {called} part, "
        f"{baseline.events} of them with an event"
    )
    return Outlook(
        partial(baseline.survival, found["score"]), baseline.last, origin, cuts, cuts_from
    )


def survival(
    asked: Asked, contract: Contract, found: Found, groups: Mapping[str, NDArray[np.bool_]]
) -> tuple[list[dict[str, Any]], Facts]:
    """Rows of the table, and what the figures show; ``found`` gets times, events and risks.

    Raises:
        DataError: Patients of the test part are known from training.
        ImportError: lifelines is missing.
        ValueError: A time has no sign, or a score is not finite.
    """
    followed(found)
    _refuse_shared(asked, found)
    ahead = outlook(asked, contract, found)
    task = contract.task or {}
    score, time, event, patient = (found[k] for k in ("score", "time", "event", "patient_id"))
    unit = unit_of(task["label"])
    horizons = sorted(set(asked.horizons)) or follow_up.usual_horizons(unit)
    limit = np.inf if ahead.chances is None else ahead.last
    tau = min(follow_up.truncation(time), limit)
    how: dict[str, Any] = {"draws": asked.draws, "seed": asked.seed, "level": asked.how["level"]}
    rows = scores.survival_rows(score, time, event, patient, groups=groups, **how)
    rows += scores.follow_up_rows(
        score,
        time,
        event,
        patient,
        tau=tau,
        horizons=horizons,
        chances=ahead.chances,
        last=ahead.last,
        **how,
    )
    rows.append(scores.slope_row(score, time, event, patient, level=how["level"]))
    calibration = []
    for at in horizons:
        if ahead.chances is None:
            break
        risk = 1 - ahead.chances([at])[:, 0]
        if np.isfinite(risk).all():
            found[f"risk_at_{at:g}"] = risk
        if follow_up.unfit(at, time, event, patient, ahead.last) is None:
            line, points = scores.calibration_at(risk, time, event, patient, at=at, **how)
            rows.append(line)
            calibration.append({"at": at, "points": points})
    parted = scores.risk_groups(score, time, event, patient, cuts=ahead.cuts, level=how["level"])
    return rows, {
        "time": task["label"],
        "event": task["event"],
        "unit": unit,
        "events": int(event.sum()),
        "median_follow_up": median(time, 1 - event),
        "tau": tau,
        "asked": horizons,
        "horizons": [at for at in horizons if follow_up.unfit(at, time, event, patient) is None],
        "chances_from": ahead.origin,
        "chances": ahead.chances is not None,
        "groups": {"cuts_from": ahead.cuts_from, **parted},
        "calibration": calibration,
    }


def _refuse_shared(asked: Asked, found: Found) -> None:
    """A patient's follow-up is one: whose end was learned from one record says it of all others."""
    if asked.split != "test":
        return
    scored = {Path(path).resolve() for path in stores_of(asked.runs[0], asked.stores)}
    own = {(run, Path(path).resolve()) for run in asked.runs for path in stores_of(run, ())}
    for run, path in sorted(own):
        if path not in scored:
            continue
        manifest = open_store(path).manifest
        ids = manifest["record_id"].astype(str).to_numpy()
        learned = load_contract(run).trained_on.hold(ids)
        whose = manifest["patient_id"].astype(str).to_numpy()[learned]
        both = np.isin(found["patient_id"], whose)
        if both.any():
            names = np.unique(found["patient_id"][both])
            raise DataError(
                f"error[contamination] {len(names)} patients of the test part have other records "
                f"that were trained on (first: {names[0]}): split by patient (ecgfast split "
                f"{path} --by patient) and train again, or score another part with --split"
            )
