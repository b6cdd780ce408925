"""SYNTHETIC patients with echoes: what is drawn for each, each study of theirs and each video.

Every number is drawn by counting: it depends on the seed, the patient, the study, the video and its
own place, never on how many patients there are. docs/synthetic.md has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.synthetic_heart import Heart
from ecgfast.data.synthetic_patients import Integers, normals, split_of, uniforms
from ecgfast.data.synthetic_scan import View

Table = dict[str, NDArray[Any]]
Jobs = list[tuple[Heart, View]]
BLOCK = 32  # patients that are drawn together, always all of them: their bits never change
MOST_STUDIES, MOST_VIDEOS = 8, 16
SECOND = 0.35  # share of patients that have a second study
FEWEST, MOST = 2, 6  # videos of a study
SEVERE_CM2 = 1.0  # an aortic valve under this is severely stenosed
HEAVY = {0: 95.0, 1: 115.0}  # g/m2 of women and men: over this a ventricle is hypertrophied


def echo_table(patients: int, *, fps: float, seed: int) -> tuple[Table, Jobs]:
    """Columns of the first patients' videos (V,), and each video's heart and view."""
    blocks = [_block(first, patients, fps, seed) for first in range(0, patients, BLOCK)]
    table = {name: np.concatenate([b[0][name] for b in blocks]) for name in blocks[0][0]}
    return table, [job for _, jobs in blocks for job in jobs]


def _block(first: int, patients: int, fps: float, seed: int) -> tuple[Table, Jobs]:
    """Of a block of patients, cut at the last one that is asked for."""
    numbers = np.arange(first, first + BLOCK)
    studies = np.where(uniforms(seed, numbers, 41, 4)[:, 0] < SECOND, 2, 1)
    patient = np.repeat(numbers, studies)
    study = np.concatenate([np.arange(n) for n in studies])
    facts, hidden = _studies(seed, patient, study)
    number = patient * MOST_STUDIES + study
    drawn = uniforms(seed, number, 43, 1)[:, 0] * (MOST - FEWEST + 1)
    videos = FEWEST + drawn.astype(np.int64)
    of = np.repeat(np.arange(len(patient)), videos)
    place = np.concatenate([np.arange(n) for n in videos])

    def rows(values: Table) -> Table:
        return {name: column[of] for name, column in values.items()}

    rate, jobs = _videos(seed, number[of], place, rows(facts), rows(hidden))
    names = [f"p{p:06d}" for p in patient[of]]
    ids = [f"{p}-s{s}" for p, s in zip(names, study[of], strict=True)]
    table = {
        "record_id": np.array([f"{s}-v{v}" for s, v in zip(ids, place, strict=True)]),
        "patient_id": np.array(names),
        "study_id": np.array(ids),
        "split": split_of(seed, patient[of]),
        "view": np.full(len(of), "PLAX"),
        "fps": np.full(len(of), float(fps)),
        **rows(facts),
        "heart_rate": rate,
    }
    end = int((patient[of] < patients).sum())
    return {name: column[:end] for name, column in table.items()}, jobs[:end]


def _studies(seed: int, patient: Integers, study: Integers) -> tuple[Table, Table]:
    """Columns of each study, and what no column shows."""
    own = normals(seed, patient, 40, 16).T
    chance = uniforms(seed, patient, 41, 4).T
    now = normals(seed, patient * MOST_STUDIES + study, 42, 16).T
    male = (chance[1] < 0.55).astype(np.int64)
    age = np.clip(64 + 14 * own[0], 20, 95) + study * (0.5 + 2 * chance[2])
    old = (age - 64) / 14
    height = 162 + 13 * male + 6.5 * own[1]
    weight = np.exp(3.27 + 0.16 * own[2] + 0.02 * now[0]) * (height / 100) ** 2
    bsa = np.sqrt(height * weight / 3600)
    stenosis = 1 / (1 + np.exp(-(2.2 * (own[3] + 0.45 * old) - 1.0 + 0.35 * study + 0.15 * now[1])))
    weak = np.logaddexp(0, 1.2 * (own[4] - 0.2))
    lvef = np.clip(66 - 13 * weak + 2.5 * own[5] + 2 * now[2], 15, 78)
    area = np.clip(3.3 * bsa / 1.9 * np.exp(0.1 * own[6]) * (1 - 0.86 * stenosis), 0.4, 4.5)
    wall = (
        (9.1 + 0.9 * male)
        * (bsa / 1.9) ** 0.4
        * np.exp(0.22 * own[7] + 0.03 * old + 0.02 * now[3] + 0.13 * stenosis)
    )
    lopsided = np.exp(0.05 * np.abs(own[8]))
    lvid = 44.5 * (bsa / 1.9) ** 0.45 + 1.5 * male + 3.2 * own[9] + 0.30 * np.clip(60 - lvef, 0, 40)
    lvid = np.clip(lvid + 0.6 * now[4], 33, 75)
    facts = {
        "age": age.round(1),
        "sex": male,
        "bsa_m2": bsa.round(2),
        "lvef": lvef.round(1),
        "septum_mm": np.clip(wall * lopsided, 6, 24).round(1),
        "posterior_mm": np.clip(wall / lopsided, 6, 22).round(1),
        "lvid_mm": lvid.round(1),
        "valve_area_cm2": area.round(2),
    }
    septum, posterior, inner = (facts[n] / 10 for n in ("septum_mm", "posterior_mm", "lvid_mm"))
    mass = 0.8 * 1.04 * ((septum + posterior + inner) ** 3 - inner**3) + 0.6
    facts["wall_mm"] = ((facts["septum_mm"] + facts["posterior_mm"]) / 2).round(2)
    facts["lv_mass_index"] = (mass / facts["bsa_m2"]).round(1)
    heavy = np.where(male == 1, HEAVY[1], HEAVY[0])
    facts["lvh"] = (facts["lv_mass_index"] > heavy).astype(np.int64)
    facts["as_severe"] = (facts["valve_area_cm2"] < SEVERE_CM2).astype(np.int64)
    hidden = {}
    rate = np.clip(69 + 9 * own[10] + 5 * now[5] + 0.25 * np.clip(55 - lvef, 0, 40), 45, 125)
    hidden["rate"] = rate
    hidden["length"] = 2.15 * lvid / 2 * np.exp(0.06 * own[11])
    hidden["calcium"] = np.clip(1.15 * stenosis - 0.2 + 0.22 * own[12] + 0.15 * old, 0, 1)
    hidden["root"] = np.clip(
        (27 + 2.5 * male) * (bsa / 1.9) ** 0.4 * np.exp(0.08 * own[13]), 20, 42
    )
    atrium = (
        33
        * (bsa / 1.9) ** 0.4
        * np.exp(0.12 * own[14] + 0.03 * old + 0.05 * own[7] + 0.05 * stenosis)
    )
    hidden["atrium"] = np.clip(atrium, 24, 60)
    hidden["chest"] = 19 + 9 * (bsa - 1.5) + 2 * own[15]
    return facts, hidden


def _videos(
    seed: int, study: Integers, place: Integers, facts: Table, hidden: Table
) -> tuple[NDArray[np.float64], Jobs]:
    number = study * MOST_VIDEOS + place
    n, u = normals(seed, number, 44, 24).T, uniforms(seed, number, 49, 12).T
    habit = normals(seed, study, 51, 6).T  # of whoever scanned the study, and of the chest
    rate = np.clip(hidden["rate"] + 2.0 * n[0], 40, 140).round(1)
    oblique = np.exp(0.05 * n[1])
    hearts = [
        Heart(*map(float, row))
        for row in zip(
            facts["lvid_mm"] * np.exp(-0.03 * np.abs(n[2])),
            hidden["length"] * (1 - 0.22 * u[0]),
            facts["septum_mm"] * oblique,
            facts["posterior_mm"] * oblique,
            facts["lvef"] / 100,
            facts["valve_area_cm2"],
            np.clip(hidden["calcium"] + 0.10 * n[3], 0, 1),
            hidden["root"],
            hidden["atrium"] * np.exp(0.04 * n[4]),
            60 / rate,
            strict=True,
        )
    ]
    middle = hidden["chest"] + 18 + facts["septum_mm"] + facts["lvid_mm"] / 2
    below = facts["lvid_mm"] / 2 + facts["posterior_mm"]
    # most scan at one depth, and go deeper if the back wall is not in view
    depth = 150 * np.exp(0.07 * habit[0] + 0.05 * n[5])
    depth = np.maximum(depth, middle + below + 8)
    views = [
        View(
            number=int(number[i]),
            depth=float(np.clip(depth[i], 95, 240)),
            half_angle=float(np.deg2rad((37, 40, 43, 46)[int(4 * u[1][i])])),
            turn=float(np.deg2rad(-2 + 6 * habit[1][i] + 7 * n[6][i])),
            centre=(float(-17 + 6 * n[7][i]), float(middle[i] + 3 * n[8][i])),
            gain=float(3.0 * habit[2][i] + 2.0 * n[9][i]),
            span=float(np.clip(54 + 5 * habit[3][i] + 2 * n[10][i], 40, 70)),
            fade=float(0.45 * abs(habit[4][i]) + 0.25 * abs(n[11][i])),
            haze=float(-12 + 5 * n[12][i]),
            lost=(
                float(25 * u[2][i]),
                float(25 * u[3][i]),
                float(22 * max(0, n[13][i])),
                float(12 * max(0, n[14][i])),
            ),
            ribs=(float(-1 + 0.5 * u[4][i]), float(2 * u[5][i] - 1)),
            grain=float(5.0 * np.exp(0.12 * n[15][i])),
            clutter=float(4 + 5 * u[6][i] + 3 * habit[5][i]),
            breath=(float(1.5 + 2 * u[7][i]), float(0.2 + 0.12 * u[8][i])),
            start=float(u[9][i]),
        )
        for i in range(len(number))
    ]
    return rate, list(zip(hearts, views, strict=True))
