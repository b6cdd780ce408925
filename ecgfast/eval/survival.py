"""How well a hazard orders the times of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats, Statistic, no_records, replicate, row

NO_PAIR = "no pair can be compared: that takes an event, and a record observed beyond its time"


def c_index(log_hazard: ArrayLike, time: ArrayLike, event: ArrayLike) -> float:
    r"""Share of comparable pairs in which the one with the earlier event has the higher hazard.

    Harrell's C (Harrell et al., JAMA 1982). A pair is comparable if one of the two had the event
    and the other was then still observed without it: its time is later, or the same and it was
    censored. Two events at one time are no pair. Equal hazards count one half. 0.5 is chance; a
    score that is high for *late* events comes out as 1 - C. It takes O(n log n).

    Args:
        log_hazard: ``(N,)``; any increasing function of it will do. Higher means an earlier event.
        time: ``(N,)`` from the start of observation to event or censoring, in any one unit.
        event: ``(N,)``, 1 or True where the event was seen, 0 where the record was censored.

    Returns:
        C in [0, 1].

    Raises:
        ValueError: If shapes differ, a value is not finite, a time is negative, an event is not 0
            or 1, or no pair can be compared.

    Example:
        >>> c_index([2.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1, 1, 0])
        0.8333333333333334
    """
    hazard, time, event, _ = checked_follow_up(log_hazard, time, event, np.zeros(np.shape(time)))
    value = float(statistic(hazard, time, event)(np.ones((1, len(time))))["c_index"][0])
    if np.isnan(value):
        raise ValueError(f"{NO_PAIR}; {int(event.sum())} of {len(event)} records have an event")
    return value


def statistic(
    hazard: Floats,
    time: Floats,
    event: Floats,
    *,
    name: str = "c_index",
    factor: Callable[[Floats], Floats] | None = None,
) -> Statistic:
    """The C-index as a function of weights ``(B, N)``; two copies of a record are no pair.

    ``factor`` takes the weights and gives what a pair counts by its event, ``(B, N)``; without it
    all pairs count the same.

    Records get a code that grows with time, an event before those censored at its time: an event
    and a record of a higher code are a comparable pair, and no others are. Two codes first differ
    in one binary digit, so that each pair is counted once: at that digit, in the block of codes
    with the same digits above it. There, records of digit 1 are sorted by hazard, and the weight
    below that of an event of digit 0 is a difference of running sums. What is sorted and where to
    look does not depend on the weights: it is found once for all draws.
    """
    _, code = np.unique(np.stack([time, 1 - event]), axis=1, return_inverse=True)
    code = code.reshape(-1)
    _, rank = np.unique(hazard, return_inverse=True)
    ranks = int(rank.max()) + 1
    events = np.flatnonzero(event == 1)
    levels = []
    for digit in range(int(code.max()).bit_length()):
        block, one = code >> (digit + 1), (code >> digit) & 1 == 1
        key = block * ranks + rank
        later = np.flatnonzero(one)
        later = later[np.argsort(key[later], kind="stable")]
        earlier = events[~one[events]]
        opening = block[earlier] * ranks
        edges = [
            np.searchsorted(key[later], key[earlier], "left"),
            np.searchsorted(key[later], key[earlier], "right"),
            np.searchsorted(key[later], opening, "left"),
            np.searchsorted(key[later], opening + ranks, "left"),
        ]
        some = edges[2] < edges[3]
        levels.append((later, earlier[some], [edge[some] for edge in edges]))

    def of(weights: Floats) -> Mapping[str, Floats]:
        by_record = np.ascontiguousarray(weights.T)  # (N, B): a record's draws side by side
        pairs = np.zeros(len(weights))
        twice = np.zeros(len(weights))  # whole numbers (without a factor): the sums are exact
        counts = by_record if factor is None else by_record * factor(weights).T
        for later, earlier, (below, up_to, start, end) in levels:
            running = np.zeros((len(later) + 1, len(weights)))
            np.cumsum(by_record[later], axis=0, out=running[1:])
            own, before = counts[earlier], running[start]
            twice += np.einsum("nb,nb->b", own, running[below] + running[up_to] - 2 * before)
            pairs += np.einsum("nb,nb->b", own, running[end] - before)
        return {name: twice / np.where(pairs > 0, 2 * pairs, np.nan)}

    return of


def survival_rows(
    log_hazard: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    patient: ArrayLike,
    *,
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """The C-index of all records and of each group, with its interval over patients.

    Args:
        log_hazard: ``(N,)``, as for `c_index`.
        time: ``(N,)``, likewise.
        event: ``(N,)``, likewise.
        patient: ``(N,)`` ids.
        groups: Masks ``(N,)`` by name.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them; positives counts the events.

    Raises:
        ValueError: As `c_index` does; where no pair can be compared, the row says so instead.
    """
    hazard, time, event, patient = checked_follow_up(log_hazard, time, event, patient)
    rows = []
    everyone = {None: np.ones(len(time), bool)}
    for group, mask in (everyone | dict(groups or {})).items():
        if not mask.any():
            rows.append(no_records("c_index", group, level))
            continue
        of = statistic(hazard[mask], time[mask], event[mask])
        estimate = float(of(np.ones((1, int(mask.sum()))))["c_index"][0])
        values = replicate(of, patient[mask], draws=draws, seed=seed)["c_index"]
        rows.append(
            row(
                "c_index",
                estimate,
                values,
                patient[mask],
                subgroup=group,
                positives=int(event[mask].sum()),
                level=level,
                support={"an event": len(np.unique(patient[mask & (event == 1)]))},
                undefined=NO_PAIR,
            )
        )
    return rows


def from_signed(label: ArrayLike) -> tuple[Floats, Floats]:
    """Times and events out of signed times: +t where the event was seen at t, -t where censored.

    Returns:
        time ``(N,)`` above 0, and event ``(N,)``, 1 or 0.

    Raises:
        ValueError: A value is not finite, or 0, which has no sign.

    Example:
        >>> [values.tolist() for values in from_signed([30.0, -12.0])]
        [[30.0, 12.0], [1.0, 0.0]]
    """
    label = np.asarray(label, np.float64)
    wrong = np.flatnonzero(~np.isfinite(label) | (label == 0))
    if len(wrong):
        raise ValueError(
            f"signed times must be finite and not 0, got {label[wrong[0]]:g} in row {wrong[0]} "
            f"({len(wrong)} of {len(label)} rows): follow-up begins after the record, so leave out "
            "who was lost, or had the event, at once"
        )
    return np.abs(label), (label > 0).astype(np.float64)


def checked_follow_up(
    log_hazard: ArrayLike, time: ArrayLike, event: ArrayLike, patient: ArrayLike
) -> tuple[Floats, Floats, Floats, NDArray[Any]]:
    """The arrays in one type, or an error that says what is wrong, where and how often."""
    hazard, time, event = (np.asarray(x, np.float64) for x in (log_hazard, time, event))
    patient = np.asarray(patient)
    if not hazard.shape == time.shape == event.shape == patient.shape or time.ndim != 1:
        shapes = f"{hazard.shape}, {time.shape}, {event.shape}, {patient.shape}"
        raise ValueError(f"log_hazard, time, event and patient must be (N,) each, got {shapes}")
    if not len(time):
        raise ValueError("no records to score")
    for name, values, right, wanted in (
        ("log_hazard", hazard, np.isfinite(hazard), "finite"),
        ("time", time, np.isfinite(time) & (time >= 0), "finite and at least 0"),
        ("event", event, (event == 0) | (event == 1), "0 (censored) or 1"),
    ):
        wrong = np.flatnonzero(~right)
        if len(wrong):
            raise ValueError(
                f"{name} must be {wanted}, got {values[wrong[0]]:g} in row {wrong[0]}"
                f" ({len(wrong)} of {len(values)} rows): mend these rows, or leave them out"
            )
    return hazard, time, event, patient
