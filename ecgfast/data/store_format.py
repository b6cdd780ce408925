"""What a store is on the disk: steps and gains, columns, files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

VERSION = 1
NAN = -32768
PARTS = ".unfinished"
COLUMNS = (
    "record_id",
    "patient_id",
    "split",
    "shard",
    "row",
    "gain",
    "n_valid",
    "n_nan",
    "fs_source",
    "flags",
    "source",
    "sha256",
    "source_sha256",
)
PAGE_COLUMNS = (
    "record_id",
    "patient_id",
    "split",
    "shard",
    "row",
    "height_source",
    "width_source",
    "form_source",
    "copy_of",
    "flags",
    "source",
    "sha256",
    "source_sha256",
)
CLIP_COLUMNS = (
    "record_id",
    "patient_id",
    "study_id",
    "split",
    "shard",
    "row",
    "frames",
    "fps",
    "spacing_mm",
    "view",
    "height_source",
    "width_source",
    "frames_source",
    "form_source",
    "flags",
    "source",
    "sha256",
    "source_sha256",
)
ISSUE_COLUMNS = ("record_id", "source", "issue", "severity", "place", "count", "total", "message")


def of_videos(manifest: pd.DataFrame) -> bool:
    """Whether the rows are videos: these know of examinations, as a patient has several."""
    return {"study_id", "frames", "fps"} <= set(manifest.columns)


def quantise(ecg: NDArray[Any]) -> tuple[NDArray[np.int16], float]:
    """Turns (L, T) mV into int16 and the gain in mV a step; NaN becomes -32768.

    The gain takes the largest sample to 32767, so that the error is at most half a step, which is
    the largest sample over 65534.
    """
    finite = np.isfinite(ecg)
    whole = bool(finite.all())
    peak = float(np.abs(ecg if whole else np.where(finite, ecg, 0)).max(initial=0.0))
    gain = peak / 32767 if peak >= 1e-30 else 1e-3
    out = np.rint((ecg if whole else np.where(finite, ecg, 0)) / np.float64(gain)).astype(np.int16)
    if not whole:
        out[~finite] = NAN
    return out, gain


def restore(steps: NDArray[np.int16], gain: float, gaps: bool = True) -> NDArray[np.float32]:
    """The mV of `quantise`, in float32."""
    ecg = steps.astype(np.float32)
    if gaps:
        ecg[steps == NAN] = np.nan
    ecg *= np.float32(gain)
    return ecg


def fingerprint(steps: NDArray[np.int16], gain: float) -> str:
    """sha256 of a stored record."""
    return hashlib.sha256(np.float64(gain).tobytes() + np.ascontiguousarray(steps).data).hexdigest()


def read_manifest(path: Path) -> pd.DataFrame:
    """Text stays in the columns it is stored in: a million records are no million objects."""
    with pd.option_context("future.infer_string", True):
        return pd.read_parquet(path / "manifest.parquet")


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Replaces the manifest in one go."""
    temporary = path / ".manifest.parquet"
    manifest.to_parquet(temporary, index=False)
    temporary.replace(path / "manifest.parquet")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
