"""SYNTHETIC outcomes: who has hypertension or an infarct behind them, and when the heart fails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.synthetic_patients import Floats, Records, uniforms

OUTCOMES = ("hypertension", "infarct", "hf_event", "hf_days")
YEAR = 365.25
SHAPE = 1.3  # of the Weibull time: the hazard rises slowly
SCALE = 400 * YEAR  # by when 63 % of those without any risk would have failed
FOLLOWED = (30.0, 83.0)  # months, fewest and most


def outcomes(seed: int, records: Records) -> dict[str, Floats]:
    """Outcomes of all records of some patients, ``(N,)`` each.

    A patient's heart fails once, so that the days until then fall from visit to visit; who is not
    followed until then is censored. The risk is of the patient: of the means of pressure, LVEF and
    age over the visits, of fibrillation, hypertension and infarct. Of the last two nothing shows in
    the ECG.

    Args:
        seed: Of the cohort.
        records: All records of these patients.

    Returns:
        hypertension and infarct (0 or 1); hf_event, whether the heart failed while the patient was
        followed; and hf_days from the visit until then, or until the patient was last heard of.
    """
    patient, row = np.unique(records.patient, return_inverse=True)
    of = {name: _mean(values, row) for name, values in records.labels.items()}
    old = (of["age"] - 63) / 14
    weak = np.clip((63 - of["lvef"]) / 12, 0, 3)
    pressure = (np.log(of["mpcwp"]) - 2.661) / 0.4724
    chance = uniforms(seed, patient, 21, 4).T
    hypertension = chance[0] < 1 / (1 + np.exp(0.2 - 0.6 * old))
    infarct = chance[1] < 1 / (1 + np.exp(1.9 - 0.5 * old - 0.5 * weak))
    risk = 0.9 * pressure + 0.6 * weak + 0.35 * old
    risk += 0.4 * of["af"] + 0.2 * hypertension + 0.3 * infarct
    fails = SCALE * (-np.log(chance[2]) * np.exp(-risk)) ** (1 / SHAPE)
    low, high = FOLLOWED
    followed = (low + (high - low) * chance[3]) * YEAR / 12
    # both are counted from the last visit: nobody has failed before
    last = np.zeros(len(patient))
    np.maximum.at(last, row, records.labels["age"])
    until_last = (last[row] - records.labels["age"]) * YEAR
    return {
        "hypertension": hypertension[row].astype(np.float64),
        "infarct": infarct[row].astype(np.float64),
        "hf_event": (fails <= followed)[row].astype(np.float64),
        "hf_days": np.ceil(until_last + np.minimum(fails, followed)[row]),
    }


def _mean(values: Floats, row: NDArray[np.int64]) -> Floats:
    """Of each patient's visits."""
    mean: Floats = np.bincount(row, weights=values) / np.bincount(row)
    return mean
