"""Whether what is predicted follows a patient over visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats, Statistic, checked, replicate, row

LEAST_VISITS = 3
WHY_UNDEFINED = {
    "change_pearson_r": "changes do not vary",
    "within_patient_r": "values do not vary within patients",
    "change_sign_agreement": "no measured value changes",
}


class Visits(NamedTuple):
    """Visits of patients with several, sorted by patient and time; ``(V,)`` each.

    A visit is all records of a patient with the same time; its values are their means.
    """

    patient: NDArray[Any]
    time: NDArray[Any]
    label: Floats
    score: Floats


def visits(
    label: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike,
    time: ArrayLike,
    *,
    least: int = LEAST_VISITS,
) -> Visits:
    """Puts records in the order of time, patient by patient.

    Args:
        label: ``(N,)`` measured.
        score: ``(N,)`` predicted.
        patient: ``(N,)`` ids.
        time: ``(N,)`` numbers, or texts that sort as times do (2019-03-21); records without one
            (NaN, empty) are left out.
        least: Patients with fewer visits are left out.

    Returns:
        The visits; none if nobody has so many.
    """
    y, s, who = checked(label, score, patient, classes=False)
    when = np.asarray(time)
    if when.dtype.kind in "biufmM":
        known = ~np.isnat(when) if when.dtype.kind in "mM" else np.isfinite(when.astype(float))
    else:
        when = np.array(["" if t is None else str(t) for t in when])
        known = ~np.isin(when, ("", "nan", "NaT"))
    y, s, who, when = y[known], s[known], who[known], when[known]
    if not len(y):
        return Visits(who, when, y, s)
    codes = np.unique(who, return_inverse=True)[1].reshape(-1)
    at = np.unique(when, return_inverse=True)[1].reshape(-1)
    both = codes.astype(np.int64) * (int(at.max()) + 1) + at
    _, first, visit = np.unique(both, return_index=True, return_inverse=True)
    visit = visit.reshape(-1)
    count = np.bincount(visit)
    means = [np.bincount(visit, x) / count for x in (y, s)]
    often = np.bincount(codes[first])[codes[first]] >= least
    keep = first[often]
    return Visits(who[keep], when[keep], means[0][often], means[1][often])


def _statistic(found: Visits) -> Statistic:
    """As a function of weights ``(B, V)``, those of a patient's visits being the same."""
    who = np.unique(found.patient, return_inverse=True)[1].reshape(-1)
    later = np.flatnonzero(who[1:] == who[:-1]) + 1
    dy, ds = (
        found.label[later] - found.label[later - 1],
        found.score[later] - found.score[later - 1],
    )
    y, s = (x - (np.bincount(who, x) / np.bincount(who))[who] for x in (found.label, found.score))
    moved = dy != 0
    agree = np.where(ds == 0, 0.5, np.sign(dy) == np.sign(ds)) * moved
    # changes about their own mean; deviations within a patient have mean 0 already
    powers = np.stack([np.ones_like(dy), dy, ds, dy * dy, ds * ds, dy * ds, moved, agree], axis=1)
    within = np.stack([y * y, s * s, y * s], axis=1)

    def of(weights: Floats) -> Mapping[str, Floats]:
        n, a, b, aa, bb, ab, changed, same = (weights[:, later] @ powers).T
        yy, ss, ys = (weights @ within).T
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = (aa - a * a / n) * (bb - b * b / n)
            changes = (ab - a * b / n) / np.sqrt(np.where(spread > 1e-12 * aa * bb, spread, np.nan))
            inside = ys / np.sqrt(np.where(yy * ss > 0, yy * ss, np.nan))
            share = same / np.where(changed > 0, changed, np.nan)
        return {
            "change_pearson_r": np.clip(changes, -1, 1),
            "within_patient_r": np.clip(inside, -1, 1),
            "change_sign_agreement": share,
        }

    return of


def serial_rows(
    found: Visits, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> list[dict[str, Any]]:
    """Numbers of change over visits, with intervals from draws of patients.

    - ``change_pearson_r``: of predicted with measured change from one visit to the next.
    - ``within_patient_r``: of predicted with measured values, both about the patient's own mean
      (Bland and Altman 1995): what differs between patients is taken out.
    - ``change_sign_agreement``: share of measured changes whose direction is predicted; no
      predicted change counts one half, a measured change of 0 is left out. By chance: one half.

    Args:
        found: As `visits` gives them.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        Rows as `ecgfast.eval.bootstrap.row` gives them; n counts visits.
    """
    if not len(found.patient):
        why = "no patient has so many visits"
        none = np.full(draws, np.nan)
        return [
            row(name, np.nan, none, found.patient, level=level, undefined=why)
            for name in WHY_UNDEFINED
        ]
    of = _statistic(found)
    values = replicate(of, found.patient, draws=draws, seed=seed)
    once = of(np.ones((1, len(found.patient))))
    return [
        row(name, float(once[name][0]), values[name], found.patient, level=level, undefined=why)
        for name, why in WHY_UNDEFINED.items()
    ]


def longest(found: Visits, most: int = 12) -> list[Any]:
    """Patients to show: most visits first, then largest measured change, then by name."""
    names, start, count = np.unique(found.patient, return_index=True, return_counts=True)
    change = [np.ptp(found.label[i : i + n]) for i, n in zip(start, count, strict=True)]
    order = np.lexsort((names, -np.array(change), -count))
    return [names[i] for i in order[:most]]
