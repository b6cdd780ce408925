"""A store looked at again: whether it is whole, and what its records are like."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.checks import OF_RAW_SIGNALS, Limits, check
from ecgfast.data.clip_store import ClipStore
from ecgfast.data.records import ECG, DataError, Issue
from ecgfast.data.shards import ShardStore
from ecgfast.data.split import check_leaks, patients
from ecgfast.data.store import NAN, ECGStore
from ecgfast.data.store_format import fingerprint, restore

BLANK = 8  # levels from the darkest to the brightest pixel; less shows nothing


@dataclass
class Validation:
    """What was found.

    Attributes:
        store: What was looked at.
        faults: What makes the store unfit: damaged shards, leaks between splits. Ready to print.
        issues: Of records, as in a conversion; (record_id, issue).
        rejected: rejected.csv, empty if there is none.
    """

    store: ECGStore | ClipStore
    faults: list[str] = field(default_factory=list)
    issues: list[tuple[str, Issue]] = field(default_factory=list)
    rejected: pd.DataFrame = field(default_factory=pd.DataFrame)

    def summary(self) -> dict[str, Any]:
        """Counts as plain values, for JSON."""
        manifest = self.store.manifest
        split = manifest["split"].replace("", "none")
        by_issue = {
            name: len({record for record, issue in self.issues if issue.name == name})
            for name in sorted({issue.name for _, issue in self.issues})
        }
        bad = {record for record, _ in self.issues}
        reasons = self.rejected.drop_duplicates("record_id") if len(self.rejected) else None
        return {
            "store": str(self.store.path),
            "synthetic": self.store.synthetic,
            "contract": self.store.about["contract"],
            "records": len(manifest),
            "patients": int(patients(manifest).nunique()),
            "patients_unknown": int((manifest["patient_id"] == "").sum()),
            "splits": {str(k): int(v) for k, v in split.value_counts().items()},
            **self._more(),
            "records_without_issue": len(manifest) - len(bad),
            "issues": by_issue,
            "rejected": {} if reasons is None else dict(Counter(reasons["issue"])),
            "faults": self.faults,
            "records_with_issues": [
                {
                    "record_id": record,
                    "issue": issue.name,
                    "severity": issue.severity,
                    "place": issue.place,
                    "count": issue.count,
                    "total": issue.total,
                    "message": issue.message,
                }
                for record, issue in self.issues
            ],
        }

    def _more(self) -> dict[str, Any]:
        """What is said of records, or of videos."""
        manifest = self.store.manifest
        rate = "fps" if isinstance(self.store, ClipStore) else "fs_source"
        rates = {f"{k:.4g}": int(v) for k, v in manifest[rate].value_counts().items()}
        if rate == "fs_source":
            return {rate: rates}
        studies = manifest["study_id"]
        return {
            "studies": int(studies[studies != ""].nunique()),
            "studies_unknown": int((studies == "").sum()),
            "frames": int(manifest["frames"].sum()),
            "fps": rates,
        }


def validate(
    store: ECGStore,
    *,
    limits: Limits | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> Validation:
    """Reads every record, compares it with its checksum, and checks it as a conversion does.

    Args:
        store: What to look at.
        limits: Where plausible ends.
        progress: Wraps the positions of the records.
    """
    found = Validation(store)
    found.rejected = read_rejected(store)
    manifest = store.manifest
    damaged: list[str] = []
    places = range(len(store))
    columns = zip(
        places,
        manifest["record_id"].astype(str),
        manifest["gain"],
        manifest["n_valid"],
        manifest["n_nan"],
        manifest["sha256"],
        manifest["fs_source"],
        strict=True,
    )
    bar = iter(progress(places) if progress else places)
    seen: dict[str, str] = {}
    for index, record, gain, valid, gaps, sha, _ in columns:
        next(bar, None)
        why = _damage(store, index, float(gain), int(valid), int(gaps), str(sha))
        if why:
            damaged.append(f"{record} ({why})")
            continue
        steps = store.steps(index)[:, : int(valid)]
        ecg = ECG(
            signal=restore(steps, float(gain)).astype(np.float64),
            leads=store.signal.leads,
            fs=store.signal.fs,
            record_id=record,
        )
        issues = check(ecg, store.signal.leads, limits=limits)
        if store.signal.stored_recipe:  # what is left of millivolts is not to be judged as such
            issues = [issue for issue in issues if issue.name not in OF_RAW_SIGNALS]
        if int(valid) < store.signal.samples:
            text = f"{int(valid)} of {store.signal.samples} samples are there, zeros follow"
            issues.append(
                Issue("short_after_crop", "note", "", int(valid), store.signal.samples, text)
            )
        if sha in seen:
            text = f"sample for sample the same as {seen[sha]}"
            issues.append(Issue("duplicate_signal", "warning", message=text))
        seen.setdefault(sha, record)
        found.issues += [(record, issue) for issue in issues]
    list(bar)
    found.faults = _faults(store, damaged, "records")
    return found


def validate_clips(
    store: ClipStore, *, progress: Callable[[Iterable[int]], Iterable[int]] | None = None
) -> Validation:
    """Reads every frame, compares each video with its checksum, and looks whether it moves.

    Args:
        store: What to look at.
        progress: Wraps the positions of the videos.
    """
    found = Validation(store)
    found.rejected = read_rejected(store)
    damaged: list[str] = []
    seen: dict[str, str] = {}
    places = range(len(store))
    names, hashes = store.manifest["record_id"].astype(str), store.manifest["sha256"].astype(str)
    for index in progress(places) if progress else places:
        record, sha = names.iloc[index], hashes.iloc[index]
        try:
            frames = store.frames(index)
        except (DataError, IndexError) as error:
            damaged.append(f"{record} ({str(error)[:120]})")
            continue
        if sha and hashlib.sha256(frames.data).hexdigest() != sha:
            damaged.append(f"{record} (other frames than its sha256)")
            continue
        issues = _still(frames)
        if sha in seen:
            text = f"frame for frame the same as {seen[sha]}"
            issues.append(Issue("duplicate_video", "warning", message=text))
        seen.setdefault(sha, record)
        found.issues += [(record, issue) for issue in issues]
    found.faults = _faults(store, damaged, "videos")
    return found


def _still(frames: NDArray[np.uint8]) -> list[Issue]:
    """What is wrong with frames in which nobody could see a heart beat."""
    count, low, high = len(frames), int(frames.min()), int(frames.max())
    if high - low < BLANK:
        text = f"all pixels of {count} frames lie from {low} to {high}"
        return [Issue("blank_video", "error", "", count, count, text)]
    if count > 1 and not (frames[1:] != frames[0]).any():
        text = f"{count} frames are the same"
        return [Issue("frozen_video", "error", "", count, count, text)]
    return []


def _faults(store: ShardStore, damaged: list[str], what: str) -> list[str]:
    """What makes a store unfit, ready to print."""
    faults = []
    if damaged:
        faults.append(
            f"error[corrupt_store] {len(damaged)} of {len(store)} {what} are not as they were "
            f"written (first: {damaged[0]}); convert again with --overwrite"
        )
    try:
        check_leaks(store.manifest)
    except DataError as error:
        faults.append(str(error))
    return faults


def read_rejected(store: ShardStore) -> pd.DataFrame:
    """rejected.csv as a table; empty if the store has none."""
    path = store.path / "rejected.csv"
    if not path.is_file():
        return pd.DataFrame()
    return pd.read_csv(path, dtype={"record_id": str}, keep_default_na=False)


def _damage(store: ECGStore, index: int, gain: float, valid: int, gaps: int, sha: str) -> str:
    """Why a stored record cannot be trusted; empty if it can."""
    try:
        steps = store.steps(index)
    except (DataError, IndexError) as error:
        return str(error)[:120]
    if not (np.isfinite(gain) and gain > 0):
        return f"gain {gain}"
    if not 0 < valid <= store.signal.samples:
        return f"n_valid {valid}"
    if int((steps == NAN).sum()) != gaps:
        return f"{int((steps == NAN).sum())} gaps, the manifest says {gaps}"
    return "" if not sha or fingerprint(steps, gain) == sha else "other samples than its sha256"
