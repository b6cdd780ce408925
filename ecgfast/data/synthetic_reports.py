"""SYNTHETIC reports: what a reader writes of a made ECG, in PTB-XL's codes and in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.synthetic_patients import WAVES, Floats, Records, uniforms

WRITTEN = ("report", "scp_codes")
SEEN, IMAGINED = 0.9, 0.02  # how often a reader writes what is there, and what is not
LIKELIHOODS = (100, 80, 50, 35, 15)
SLIP = 0.04  # of a word, a letter of which is lost


class Finding(NamedTuple):
    """Something that a reader may write.

    Attributes:
        code: Of PTB-XL's statements.
        words: Ways to say it.
        rhythm: Rhythms have likelihood 0, as in PTB-XL.
    """

    code: str
    words: tuple[str, ...]
    rhythm: bool = False


FINDINGS = (
    Finding("AFIB", ("atrial fibrillation", "afib", "irregular rhythm without p waves"), True),
    Finding("SR", ("sinus rhythm", "regular sinus rhythm", "sr"), True),
    Finding("SBRAD", ("sinus bradycardia", "slow sinus rhythm"), True),
    Finding("STACH", ("tachycardia", "fast ventricular rate"), True),
    Finding("LAO/LAE", ("left atrial enlargement", "broad p waves", "p mitrale", "wide p")),
    Finding(
        "IVCD", ("intraventricular conduction delay", "wide qrs", "delayed ventricular conduction")
    ),
    Finding(
        "LVH", ("left ventricular hypertrophy", "high voltage qrs", "voltage criteria for lvh")
    ),
    Finding("NDT", ("t wave abnormality", "flat or inverted t waves", "abnormal repolarisation")),
    Finding("STD_", ("st depression", "lowered st segments", "st t changes")),
    Finding("ALAX", ("left axis deviation", "axis to the left")),
    Finding("ARAX", ("right axis deviation", "axis to the right")),
)
NORMAL = Finding("NORM", ("normal ecg", "otherwise normal", "within normal limits"))
OPENINGS = ("", "", "", "ecg shows ", "resting ecg: ", "compared with before ")
STATEMENTS = {  # code: category and description, as a reader of statements gets them
    "NORM": "normal/abnormal : normal ECG",
    "AFIB": "rhythm : atrial fibrillation",
    "SR": "rhythm : sinus rhythm",
    "SBRAD": "rhythm : sinus bradycardia",
    "STACH": "rhythm : sinus tachycardia",
    "LAO/LAE": "atrial overload : left atrial overload or enlargement",
    "IVCD": "conduction : non-specific intraventricular conduction disturbance",
    "LVH": "hypertrophy : left ventricular hypertrophy",
    "NDT": "repolarisation : non-diagnostic T abnormalities",
    "STD_": "repolarisation : ST depression",
    "ALAX": "axis : left axis deviation",
    "ARAX": "axis : right axis deviation",
}

SUPERCLASSES = {  # code: diagnostic superclass, as in PTB-XL; forms, rhythms and axes have none
    "NORM": "NORM",
    "LAO/LAE": "HYP",
    "LVH": "HYP",
    "IVCD": "CD",
    "NDT": "STTC",
}


def reports(seed: int, records: Records) -> dict[str, NDArray[np.str_]]:
    """A report and SCP codes of each record, ``(N,)`` each.

    A reader sees the heart's own numbers, writes nine of ten findings and now and then one that is
    not there, in words that differ from record to record, with slips of the pen.

    Args:
        seed: Of the cohort.
        records: As they were drawn.
    """
    there = _there(records)
    number = records.patient * 64 + records.visit
    count = len(FINDINGS)
    chance = uniforms(seed, number, 22, count)
    written = np.where(there, chance < SEEN, chance < IMAGINED)
    # a rhythm is either fibrillation or one of the sinus node
    written[:, 1] &= ~written[:, 0]
    written[:, 2] &= ~written[:, 0]
    pick = uniforms(seed, number, 23, 3 * (count + 1) + 1)
    slips = uniforms(seed, number, 24, 64)
    lines, codes = [], []
    for i in range(len(number)):
        found = [FINDINGS[k] for k in np.flatnonzero(written[i])]
        if all(one.rhythm for one in found):
            found.append(NORMAL)
        order = np.argsort(pick[i, : len(found)])
        choice = pick[i, count + 1 :]
        said = [found[k].words[int(choice[k] * len(found[k].words))] for k in order]
        opening = OPENINGS[int(pick[i, -1] * len(OPENINGS))]
        lines.append(_with_slips(f"{opening}{', '.join(said)}".split(), slips[i]))
        sure = choice[count + 1 :]
        codes.append(
            {
                one.code: 0.0 if one.rhythm else float(LIKELIHOODS[int(sure[k] ** 2 * 5)])
                for k, one in enumerate(found)
            }
        )
    return {"report": np.array(lines), "scp_codes": np.array([str(one) for one in codes])}


def _there(records: Records) -> NDArray[np.bool_]:
    """Which findings a record has, ``(N, F)``."""
    wave = {name: i for i, name in enumerate(WAVES)}
    rate, af = 60 / records.rr, records.labels["af"] > 0
    right, left, r, t = (wave[name] for name in ("P right", "P left", "R", "T"))
    p_length = records.centre[:, left] - records.centre[:, right]
    p_length = p_length + 2 * (records.width[:, left] + records.width[:, right])
    main: Floats = records.vector[:, r]
    axis = np.degrees(np.arctan2(main[:, 1], main[:, 0]))
    return np.stack(
        [
            af,
            ~af & (rate >= 60),
            ~af & (rate < 60),
            rate > 100,
            ~af & (p_length > 0.132),
            records.width[:, r] > 0.0129,
            np.linalg.norm(main, axis=1) > 1.5,
            records.vector[:, t, 0] < 0.16,
            records.vector[:, wave["ST"], 0] < -0.03,
            axis < 0,
            axis > 85,
        ],
        axis=1,
    )


def _with_slips(words: Iterable[str], chance: Floats) -> str:
    """The words with a letter lost here and there."""
    kept = []
    for word, u in zip(words, np.resize(chance, 64), strict=False):
        place = int(u / SLIP * len(word)) if u < SLIP and len(word) > 3 else -1
        kept.append(word if place < 0 else word[:place] + word[place + 1 :])
    return " ".join(kept)
