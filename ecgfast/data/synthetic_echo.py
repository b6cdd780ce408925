"""The SYNTHETIC echo cohort: made patients, their studies and videos of the parasternal long axis.

Nothing here was measured on a person; docs/synthetic.md says how it is made and what it is not.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ecgfast.config.clips import ClipFit
from ecgfast.data.synthetic_echo_patients import Table, echo_table
from ecgfast.data.synthetic_heart import Heart
from ecgfast.data.synthetic_overlay import burn_in
from ecgfast.data.synthetic_scan import LONGEST, View, scan

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 8 << 30
TOGETHER = 64  # videos that are scanned before they are written


def make_echo_cohort(
    patients: int,
    *,
    size: int = 112,
    frames: int = 32,
    fps: float = 30.0,
    seed: int = 0,
    burnt_in: bool = False,
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
        burnt_in: Write a name, a ruler and an ECG around the fan, as scanners do: what
            `ecgfast.data.sector` must take away.

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
    if burnt_in:
        for video, job, name in zip(videos, jobs, table["patient_id"], strict=True):
            burn_in(seed, *job, fps, f"NAME {name}", video)
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


def _check(patients: int, size: int, frames: int, fps: float) -> None:
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}")
    if not 16 <= size <= 1024:
        raise ValueError(f"size must be 16 to 1024 pixels, got {size}")
    if not 1 <= frames <= 4096:
        raise ValueError(f"frames must be 1 to 4096, got {frames}")
    if not 1 <= fps <= 1000:
        raise ValueError(f"fps must be 1 to 1000, got {fps}")
    if frames / fps > LONGEST:
        raise ValueError(
            f"a video must last {LONGEST:g} s at most, got {frames} frames at {fps:g} a second"
        )
