"""The SYNTHETIC echo cohort: made patients, their studies and videos of the parasternal long axis.

Nothing here was measured on a person; docs/synthetic.md says how it is made and what it is not.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgfast.config.clips import ClipFit
from ecgfast.data.synthetic_heart import Heart
from ecgfast.data.synthetic_patients import Integers, normals, split_of, uniforms
from ecgfast.data.synthetic_scan import View, scan

if TYPE_CHECKING:
    import pandas as pd

Table = dict[str, NDArray[Any]]
MOST_STUDIES, MOST_VIDEOS = 8, 16
SEVERE_CM2 = 1.0  # an aortic valve under this is severely stenosed
HEAVY = {0: 95.0, 1: 115.0}  # g/m2 of women and men: over this a ventricle is hypertrophied
MOST_BYTES = 8 << 30
TOGETHER = 64  # videos that are scanned before they are written


def make_echo_cohort(
    patients: int, *, size: int = 112, frames: int = 32, fps: float = 30.0, seed: int = 0
) -> tuple[NDArray[np.uint8], Table]:
    """Makes the first patients of an echo cohort, in memory.

    The same seed gives the same bits whatever the number of patients and threads: fewer patients
    are the beginning of more. As many threads work as torch is set to.

    Args:
        patients: How many.
        size: Height and width of a frame, pixels.
        frames: Of a video.
        fps: Frames a second.
        seed: Which cohort.

    Returns:
        Videos ``(V, F, S, S)`` uint8 sorted by patient and study, and columns ``(V,)``: record_id,
        patient_id, study_id, split (train, val, test by patient, 3 : 1 : 1), view, fps, age
        (years), sex (1 male), bsa_m2, heart_rate (of the video, a minute), lvef (%), septum_mm,
        posterior_mm and wall_mm (their mean), lvid_mm, lv_mass_index (g/m2), lvh (1 over 115 for
        men and 95 for women), valve_area_cm2, as_severe (1 under 1 cm2).

    Raises:
        ValueError: No patients, an impossible size, number or rate of frames, or more pixels than
            memory should hold.

    Example:
        >>> videos, table = make_echo_cohort(1, size=32, frames=4)
        >>> videos.shape[1:], sorted(set(table["study_id"].tolist()))
        ((4, 32, 32), ['p000000-s0'])
    """
    _check(patients, size, frames, fps)
    table, jobs = echo_table(patients, fps=fps, seed=seed)
    shape = (len(jobs), frames, size, size)
    if np.prod(shape, dtype=np.int64) > MOST_BYTES:
        raise ValueError(
            f"{patients} patients are {len(jobs)} videos of {np.prod(shape[1:]) / 2**20:.1f} MiB "
            "each: take fewer patients or frames, or smaller ones; write_echo_cohort writes them "
            "to a store piece by piece"
        )
    videos = np.empty(shape, dtype=np.uint8)
    _scan(seed, jobs, fps, videos)
    return videos, table


def write_echo_cohort(
    path: str | Path,
    patients: int,
    *,
    size: int = 112,
    frames: int = 32,
    fps: float = 30.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Writes a cohort as a store of clips, marked as synthetic; a call that was cut off goes on.

    Args:
        path: Folder of the store.
        patients: See make_echo_cohort; here memory is no limit.
        size: See make_echo_cohort.
        frames: See make_echo_cohort.
        fps: See make_echo_cohort.
        seed: See make_echo_cohort.

    Returns:
        The manifest.

    Raises:
        ValueError: See make_echo_cohort.
        DataError: The folder holds something else.
    """
    from ecgfast.data.clip_store import ClipStore, ClipWriter

    _check(patients, size, frames, fps)
    facts = {"patients": patients, "frames": frames, "fps": float(fps), "seed": seed}
    plan = json.dumps({"synthetic": facts, "size": size})
    fit = ClipFit(size=size)  # the fan is all there is: a mask would change nothing
    writer = ClipWriter(path, fit, made_by={"SYNTHETIC": facts}, synthetic=True, plan=plan)
    if writer.finished:
        return ClipStore.open(path).manifest
    table, jobs = echo_table(patients, fps=fps, seed=seed)
    videos = np.empty((TOGETHER, frames, size, size), dtype=np.uint8)
    for begin in range(writer.done, len(jobs), TOGETHER):
        some = jobs[begin : begin + TOGETHER]
        _scan(seed, some, fps, videos)
        for i, (_, view) in enumerate(some):
            row = {name: column[begin + i].item() for name, column in table.items()}
            writer.add(
                videos[i, :, None],
                record_id=row.pop("record_id"),
                patient_id=row.pop("patient_id"),
                study_id=row.pop("study_id"),
                split=row.pop("split"),
                view=row.pop("view"),
                fps=row.pop("fps"),
                spacing_mm=view.spacing_mm(size),
                labels=row,
                source=f"SYNTHETIC seed {seed}",
            )
    return writer.close()


def _scan(seed: int, jobs: list[tuple[Heart, View]], fps: float, videos: NDArray[np.uint8]) -> None:
    """Fills the first videos (V, F, S, S), each in one thread."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        done = [pool.submit(scan, seed, *job, fps, videos[i]) for i, job in enumerate(jobs)]
        for one in done:
            one.result()


def echo_table(patients: int, *, fps: float, seed: int) -> tuple[Table, list[tuple[Heart, View]]]:
    """Columns of the cohort, and each video's heart and view."""
    numbers = np.arange(patients)
    chance = uniforms(seed, numbers, 41, 4)
    studies = np.where(chance[:, 0] < 0.35, 2, 1)
    patient = np.repeat(numbers, studies)
    study = np.concatenate([np.arange(n) for n in studies])
    facts = _studies(seed, patient, study)
    number = patient * MOST_STUDIES + study
    videos = 2 + (uniforms(seed, number, 43, 1)[:, 0] * 5).astype(np.int64)
    of = np.repeat(np.arange(len(patient)), videos)
    place = np.concatenate([np.arange(n) for n in videos])
    table, jobs = _videos(seed, number[of], place, {k: v[of] for k, v in facts.items()})
    names = [f"p{p:06d}" for p in patient[of]]
    ids = [f"{p}-s{s}" for p, s in zip(names, study[of], strict=True)]
    return {
        "record_id": np.array([f"{s}-v{v}" for s, v in zip(ids, place, strict=True)]),
        "patient_id": np.array(names),
        "study_id": np.array(ids),
        "split": split_of(seed, patient[of]),
        "view": np.full(len(of), "PLAX"),
        "fps": np.full(len(of), float(fps)),
        **table,
    }, jobs


def _check(patients: int, size: int, frames: int, fps: float) -> None:
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}")
    if not 16 <= size <= 1024:
        raise ValueError(f"size must be 16 to 1024 pixels, got {size}")
    if not 1 <= frames <= 4096:
        raise ValueError(f"frames must be 1 to 4096, got {frames}")
    if not 1 <= fps <= 1000:
        raise ValueError(f"fps must be 1 to 1000, got {fps}")


def _studies(seed: int, patient: Integers, study: Integers) -> dict[str, NDArray[Any]]:
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
    rate = np.clip(69 + 9 * own[10] + 5 * now[5] + 0.25 * np.clip(55 - lvef, 0, 40), 45, 125)
    facts["_rate"] = rate
    facts["_length"] = 2.15 * lvid / 2 * np.exp(0.06 * own[11])
    facts["_calcium"] = np.clip(1.15 * stenosis - 0.2 + 0.22 * own[12] + 0.15 * old, 0, 1)
    facts["_root"] = np.clip(
        (27 + 2.5 * male) * (bsa / 1.9) ** 0.4 * np.exp(0.08 * own[13]), 20, 42
    )
    atrium = (
        33
        * (bsa / 1.9) ** 0.4
        * np.exp(0.12 * own[14] + 0.03 * old + 0.05 * own[7] + 0.05 * stenosis)
    )
    facts["_atrium"] = np.clip(atrium, 24, 60)
    facts["_chest"] = 19 + 9 * (bsa - 1.5) + 2 * own[15]
    return facts


def _videos(
    seed: int, study: Integers, place: Integers, facts: dict[str, NDArray[Any]]
) -> tuple[Table, list[tuple[Heart, View]]]:
    number = study * MOST_VIDEOS + place
    n, u = normals(seed, number, 44, 24).T, uniforms(seed, number, 49, 12).T
    habit = normals(seed, study, 51, 6).T  # of whoever scanned the study, and of the chest
    rate = np.clip(facts["_rate"] + 2.0 * n[0], 40, 140).round(1)
    oblique = np.exp(0.05 * n[1])
    hearts = [
        Heart(*map(float, row))
        for row in zip(
            facts["lvid_mm"] * np.exp(-0.03 * np.abs(n[2])),
            facts["_length"] * (1 - 0.22 * u[0]),
            facts["septum_mm"] * oblique,
            facts["posterior_mm"] * oblique,
            facts["lvef"] / 100,
            facts["valve_area_cm2"],
            np.clip(facts["_calcium"] + 0.10 * n[3], 0, 1),
            facts["_root"],
            facts["_atrium"] * np.exp(0.04 * n[4]),
            60 / rate,
            strict=True,
        )
    ]
    middle = facts["_chest"] + 18 + facts["septum_mm"] + facts["lvid_mm"] / 2
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
    table = {k: v for k, v in facts.items() if not k.startswith("_")}
    return {**table, "heart_rate": rate}, list(zip(hearts, views, strict=True))
