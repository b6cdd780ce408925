"""From files to a store: many records, none of which may stop or slip out of the run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.data.checks import Limits, Policy, apply_policy, check
from ecgfast.data.conform import conform, derive_leads, fill_gaps, window
from ecgfast.data.labels import PTBXL, RESERVED, Joined, LabelTable, join, read_ptbxl, read_table
from ecgfast.data.prepared import Ready as Ready
from ecgfast.data.prepared import prepared as prepared
from ecgfast.data.records import ECG, BadRecord, DataError, Issue, bad
from ecgfast.data.sources import Item, Reading, find, read
from ecgfast.data.store_format import quantise
from ecgfast.data.store_writer import StoreWriter


class Recipe(Protocol):
    """A named preprocessing; ``ecgfast.transforms.signal.OneRecord`` is one. It can be pickled."""

    name: str
    units: str

    def to_dict(self) -> dict[str, Any]:
        """All its words and numbers, plain."""

    def result(self, fs: float, samples: int) -> tuple[float, int]:
        """Rate and length that come out."""

    def __call__(self, ecg: NDArray[np.float64], fs: float) -> NDArray[np.float64]:
        """Does it to (L, T) mV with NaN where nothing was recorded."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall become of the records.

    Attributes:
        signal: Leads, rate, length that all records are brought to.
        recipe: What they go through after that; the store has the rate and length that it gives.
        reading: How the sources are read.
        policy: Issue names that are to be kept or rejected against their habit.
        derive: Compute III, aVR, aVL and aVF from I and II where they are absent.
        fill_gaps_ms: Bridge gaps up to this.
        crop: Which part of a longer record is kept.
        min_seconds: Reject what is shorter.
        limits: Where plausible ends.
    """

    signal: Signal = field(default_factory=Signal)
    recipe: Recipe | None = None
    reading: Reading = field(default_factory=Reading)
    policy: Mapping[str, Policy] = field(default_factory=dict)
    derive: bool = False
    fill_gaps_ms: float = 0.0
    crop: Literal["first", "centre"] = "first"
    min_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def stored(self) -> Signal:
        """What the store holds."""
        if self.recipe is None:
            return self.signal
        fs, samples = self.recipe.result(self.signal.fs, self.signal.samples)
        return replace(self.signal, fs=fs, seconds=samples / fs, stored_recipe=self.recipe.name)

    def ready(self, items: list[Item]) -> list[Ready]:
        """Reads and prepares records: a result for each."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # wfdb and numpy warn where an issue is raised anyway
            return [prepare(item, ecg, self) for item, ecg in read(items, self.reading)]

    def plain(self) -> dict[str, Any]:
        """Plain values, for store.json."""
        recipe = None if self.recipe is None else self.recipe.to_dict()
        return json.loads(json.dumps({**asdict(replace(self, recipe=None)), "recipe": recipe}))


@dataclass
class Outcome:
    """What a run did."""

    manifest: pd.DataFrame
    joined: list[Joined]
    was_finished: bool
    resumed_at: int
    total: int


def convert(
    sources: Iterable[str | Path],
    store: str | Path,
    plan: Plan | None = None,
    *,
    records: str | Path | None = None,
    labels: str | Path | None = None,
    id_column: str = "record_id",
    id_pattern: str = "",
    patient_column: str = "",
    sex_male: str = "1",
    workers: int = -1,
    overwrite: bool = False,
    shard_records: int = 2048,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]] | None = None,
) -> Outcome:
    """Reads, checks, and stores all records of some folders.

    A record with an issue that its policy rejects is written to rejected.csv with the numbers;
    everything else is in the store with its issues as flags. Run again with the same arguments, it
    goes on after the last whole shard, or says that there is nothing left to do.

    Args:
        sources: Folders or files.
        store: Folder to be made.
        plan: What shall become of the records.
        records: A list of records within each folder; without it the folders are searched.
        labels: A table to join; PTB-XL's own is joined wherever it lies in a source.
        id_column: Its column of record ids.
        id_pattern: A regular expression whose first group, found in the file's name, is the id.
        patient_column: Its column of patient ids, if that is not patient_id.
        sex_male: What it calls male in numbers.
        workers: Processes; 0 reads here, -1 takes as many as it pays.
        overwrite: Replace a store that is there.
        shard_records: Records a shard.
        progress: Wraps the results: called with them, the number done before, and the total.

    Raises:
        DataError: if there is nothing to convert, or the store is of something else.
    """
    plan = plan or Plan()
    roots = [Path(source) for source in sources]
    skip = [Path(labels)] if labels else []
    items = find(roots, plan.reading, records=Path(records) if records else None, skip=skip)
    tables = [read_ptbxl(root) for root in roots if (root / PTBXL).is_file()]
    if labels and Path(labels).name == PTBXL:  # known by its name, wherever it lies
        tables = tables or [read_ptbxl(Path(labels).parent, anywhere=True)]
    elif labels:
        tables.append(
            read_table(Path(labels), id_column, male=sex_male, patient_column=patient_column)
        )
    made_by = {
        "command": "convert",
        "sources": [root.name for root in roots],
        "records": len(items),
        "plan": plan.plain(),
        "labels": [table.name for table in tables],
    }
    labelling = Labelling(items, tables, id_pattern)
    word = hashlib.sha256(
        json.dumps([made_by, [(i.path, i.member) for i in items], id_column, id_pattern]).encode()
    ).hexdigest()
    writer = StoreWriter(
        store,
        plan.stored(),
        recipe=None if plan.recipe is None else plan.recipe.to_dict(),
        units="mV" if plan.recipe is None else plan.recipe.units,
        made_by=made_by,
        plan=word,
        overwrite=overwrite,
        shard_records=shard_records,
    )
    if writer.finished:
        manifest = pd.read_parquet(Path(store) / "manifest.parquet")
        return Outcome(manifest, [], True, len(items), len(items))
    begun = writer.done
    left = items[begun:]  # starting a process takes as long as reading some hundred records
    results: Iterable[Ready] = prepared(left, plan, workers_for(workers, len(left), pays=1500))
    for ready in progress(results, begun, len(items)) if progress else results:
        _put(writer, ready, plan)
    manifest = writer.close(labelling)
    return Outcome(manifest, labelling.joined, False, begun, len(items))


def workers_for(asked: int, records: int, *, pays: int) -> int:
    """How many processes: those that were asked for, or (-1) all, where there is enough to do."""
    return asked if asked >= 0 else (os.cpu_count() or 1) * (records > pays)


class Labelling:
    """Joins tables of labels to the manifest of some items: the last change before it is written.

    Args:
        items: Of the run.
        tables: Of labels.
        pattern: A regular expression whose first group, found in the file's name, is the id.

    Attributes:
        joined: How each table and the records met, once it was called.
    """

    reserved: Collection[str] = RESERVED

    def __init__(self, items: list[Item], tables: list[LabelTable], pattern: str) -> None:
        self.tables = tables
        self.keys = {item.record_id: _keys(item, pattern) for item in items}
        self.roots = {item.record_id: item.root for item in items}
        self.joined: list[Joined] = []

    def __call__(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """The manifest with the columns of all tables."""
        accepted = set(manifest["record_id"])
        for table in self.tables:
            fits = {
                record: [] if table.within and self.roots[record] != table.within else own
                for record, own in self.keys.items()
            }
            out = [(r, k) for r, k in fits.items() if r not in accepted]
            own_keys = [fits[record] for record in manifest["record_id"]]
            manifest, report = join(manifest, out, table, own_keys, self.reserved)
            self.joined.append(report)
        if "patient_id" in manifest:
            manifest["patient_id"] = manifest["patient_id"].fillna("")
        return manifest


def prepare(item: Item, ecg: ECG | BadRecord, plan: Plan) -> Ready:
    """Checks a record, brings it into the store's shape, and quantises it."""
    if isinstance(ecg, BadRecord):
        return Ready(item, None, issues=(ecg.issue,))
    try:
        if plan.derive:
            ecg = derive_leads(ecg, plan.signal.leads)
        if plan.fill_gaps_ms:
            ecg = fill_gaps(ecg, plan.fill_gaps_ms)
        kept_part, ecg = window(ecg, plan.signal, crop=plan.crop)
        found = check(kept_part, plan.signal.leads, fs=plan.reading.fs, limits=plan.limits)
        found = [i for i in ecg.issues if _concerns(i, plan.signal.leads)] + found
        rejecting, kept = apply_policy(found, plan.policy)
        if rejecting:
            return Ready(item, None, issues=tuple(rejecting))
        out, valid, cropped = conform(ecg, plan.signal)
        if valid < plan.min_seconds * plan.signal.fs:
            text = f"{kept_part.seconds:.2f} s; --min-seconds demands {plan.min_seconds:g}"
            short = Issue("short_after_crop", "error", "", valid, plan.signal.samples, text)
            return Ready(item, None, issues=(short,))
        rejecting, more = apply_policy(cropped, plan.policy)
        if rejecting:
            return Ready(item, None, issues=tuple(rejecting))
        if plan.recipe is not None:
            out = plan.recipe(out, plan.signal.fs)
            stored = plan.stored()
            valid = min(round(valid * stored.fs / plan.signal.fs), stored.samples)
        steps, gain = quantise(out)
    except Exception as error:  # whatever a strange record brings about must not end the run
        text = f"{type(error).__name__}: {str(error)[:160]}"
        return Ready(item, None, issues=(bad("unreadable", text).issue,))
    return Ready(
        item,
        steps,
        gain,
        (*kept, *more),
        {
            "n_valid": valid,
            "fs_source": ecg.fs,
            "source": item.source,
            "source_sha256": ecg.source_sha256,
        },
        ecg.labels,
    )


def _concerns(issue: Issue, leads: tuple[str, ...]) -> bool:
    """A note about a lead that the store does not hold is no flag of the record."""
    return not issue.place.startswith("lead ") or issue.place[5:] in leads


def _put(writer: StoreWriter, ready: Ready, plan: Plan) -> None:
    if ready.steps is None:
        writer.reject(ready.item.record_id, ready.item.source, ready.issues)
        return
    labels = dict(ready.labels)
    patient = labels.pop("patient_id", "")
    writer.add_steps(
        ready.steps,
        ready.gain,
        record_id=ready.item.record_id,
        patient_id=patient,
        labels={_column(name): value for name, value in labels.items()},
        issues=ready.issues,
        keep_duplicates=plan.policy.get("duplicate_signal") == "keep",
        **ready.row,
    )


def _column(name: str) -> str:
    return f"label_{name}" if name in RESERVED else name


def _keys(item: Item, pattern: str) -> list[str]:
    """Names under which a record may stand in a table of labels."""
    keys = [item.key, item.stem, item.record_id]
    if pattern:
        try:
            found = re.search(pattern, item.stem)
        except re.error as error:
            raise DataError(f"error[labels] --id-pattern {pattern!r}: {error}") from None
        if found:
            keys.insert(0, found.group(1) if found.groups() else found.group(0))
    return keys
