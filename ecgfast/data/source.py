"""What is trained on or scored: records of some stores, or of the SYNTHETIC cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecgfast.config import Signal
from ecgfast.config.pages import PageFit
from ecgfast.data.dataset import PageRecords, Records, patient_codes
from ecgfast.data.page_store import PageStore, open_store
from ecgfast.data.records import DataError
from ecgfast.data.split import half, listed, nested_fraction
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import restore
from ecgfast.data.synthetic import make_cohort

SYNTHETIC = "the SYNTHETIC cohort"


class Joined(Dataset[dict[str, Tensor]]):
    """Data sets one after the other, or some of their records; ``index`` counts through these.

    Args:
        parts: Map-style data sets.
        keep: Places in all of them together.
        label: Of each kept record, where the parts do not know it; float32.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        keep: NDArray[np.int64],
        label: NDArray[np.float32] | None = None,
    ) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.keep = keep
        self.label = label

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once: as the records one by one, stacked."""
        index = np.asarray(indices, dtype=np.int64)
        places = self.keep[index]
        part = np.searchsorted(self.ends, places, side="right")
        begins = np.concatenate([[0], self.ends])[part]
        of_parts = np.unique(part)
        batches = [self.parts[p].batch((places - begins)[part == p].tolist()) for p in of_parts]
        if len(batches) == 1:
            whole = batches[0]
        else:
            order = np.concatenate([np.flatnonzero(part == p) for p in of_parts])
            back = torch.from_numpy(np.argsort(order))
            whole = {name: torch.cat([b[name] for b in batches])[back] for name in batches[0]}
        whole = {**whole, "index": torch.from_numpy(index)}
        if self.label is not None:
            whole["label"] = torch.from_numpy(self.label[index])
        return whole


class Made(Dataset[dict[str, Tensor]]):
    """Records in memory.

    Args:
        ecg: mV, ``(N, L, T)``.
        patient: Codes ``(N,)``.
        label: ``(N,)``, if one is learned.
    """

    def __init__(
        self,
        ecg: NDArray[np.float32],
        patient: NDArray[np.int64],
        label: NDArray[np.float32] | None,
    ) -> None:
        self.ecg = torch.from_numpy(ecg)
        self.patient = torch.from_numpy(patient)
        self.label = None if label is None else torch.from_numpy(label)

    def __len__(self) -> int:
        return len(self.ecg)

    def batch(self, places: list[int]) -> dict[str, Tensor]:
        """A batch at once."""
        batch = {"ecg": self.ecg[places], "patient": self.patient[places]}
        return batch if self.label is None else {**batch, "label": self.label[places]}


@dataclass(frozen=True)
class Source:
    """A data set and the table that belongs to it, row by row.

    Attributes:
        dataset: Yields ``ecg`` (L, T), ``index`` (the row), ``patient`` (a code, the same in every
            store), and ``label`` if one was asked for.
            Records of a store are int16 and come with ``gain``, mV a step; made ones are mV.
        table: record_id, patient_id, and what else the manifests say.
        signals: What each store of signals holds, by its name.
        synthetic: Whether any of it is made up.
        label: The column that was asked for, if one was.
        classes: The names that it takes, if it is one of names: ``label`` is a place among these.
        unknown: How many records were left out because their label is another name, by the name.
        pages: What each store of pages holds. ``ecg`` is then a page (C, H, W) uint8, without gain.
        event: The column that says of which records the label, a time, is that of the event. Labels
            are then signed: the time where the event was seen, minus the time where it was not.
        unseen: How many records were left out because nobody knows of the event.
    """

    dataset: Joined
    table: pd.DataFrame
    signals: dict[str, Signal]
    synthetic: bool
    label: str | None = None
    classes: tuple[str, ...] | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    pages: dict[str, PageFit] = field(default_factory=dict)
    event: str | None = None
    unseen: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def millivolts(self, row: int) -> NDArray[np.float32]:
        """The ``(L, T)`` of one record in mV, NaN where nothing was recorded."""
        item = self.dataset[row]
        ecg: NDArray[Any] = item["ecg"].numpy()
        return restore(ecg, float(item["gain"])) if "gain" in item else ecg

    def names(self, rows: Sequence[int]) -> list[str]:
        """Record ids."""
        return [str(name) for name in self.table["record_id"].iloc[list(rows)]]

    def column(self, name: str) -> NDArray[Any]:
        """A column of the table."""
        return self.table[name].to_numpy()

    def labels(self) -> NDArray[np.float64]:
        """What each record is labelled with: a number, or the place of its name among classes.

        With an ``event`` a signed time: see there.
        """
        assert self.label is not None
        column = self.table[self.label]
        if self.event is not None:
            time = column.to_numpy().astype(np.float64)
            return np.where(self.table[self.event].to_numpy() == 1, time, -time)
        if self.classes is None:
            return column.to_numpy().astype(np.float64)
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place[name] for name in class_names(column)], dtype=np.float64)

    def patients(self) -> NDArray[np.int64]:
        """A code of each record's patient; a record of nobody known is a patient of its own."""
        return patient_codes(self.table["patient_id"], self.table["record_id"])

    def take(self, rows: NDArray[np.int64]) -> Source:
        """Some of the records."""
        label = None if self.dataset.label is None else self.dataset.label[rows]
        dataset = Joined(self.dataset.parts, self.dataset.keep[rows], label)
        return replace(self, dataset=dataset, table=self.table.iloc[rows].reset_index(drop=True))

    def half(self, which: Literal["first", "second"]) -> Source:
        """The records of about half of the patients; see ``split.half``."""
        return self.take(half(self.table, which))

    def of_patients(self, names: list[str]) -> tuple[Source, list[str]]:
        """The records of listed patients, and those of the list who have none here."""
        rows, absent = listed(self.table, names)
        return self.take(rows), absent

    def fraction(self, share: float, *, seed: int, label: str) -> Source:
        """The records of a share of the patients; see ``split.nested_fraction``."""
        return self.take(nested_fraction(self.table, share, seed, label))


def open_source(
    paths: Sequence[str],
    splits: Sequence[str],
    *,
    signal: Signal,
    patients: int,
    label: str | None = None,
    limit: int = 0,
    classes: Sequence[str] | None = None,
    event: str | None = None,
) -> Source:
    """Opens stores, or makes the SYNTHETIC cohort if there are none.

    Args:
        paths: Folders of stores.
        splits: Parts; ``all`` is every record that is not in a test part.
        signal: Of the SYNTHETIC cohort. Stores are as they are: compare ``signals``.
        patients: Of the SYNTHETIC cohort, which is always the same one.
        label: Column to learn; records without it are left out.
        limit: The first so many records; 0 is all.
        classes: For a label of names (numbers are names, too): these, in this order, and records of
            other names are left out and counted. An empty list takes all names there are, sorted.
        event: For a label that is a time: column of 0 and 1; records without it are left out.

    Raises:
        DataError: A store cannot be read, there are no such records, a time is not positive, or an
            event is not 0 or 1.
    """
    text = label is not None and classes is not None
    if paths:
        source = _open(paths, splits, label, text)
    else:
        source = _make(splits, signal, patients, label, text)
    if limit:
        source = source.take(np.arange(min(limit, len(source))))
    source = replace(source, label=label)
    if event is not None and label is not None:
        return timed(source, event)
    return _classed(source, classes) if text and classes is not None else source


def class_names(column: pd.Series[Any]) -> list[str]:
    """The values of a column as names: 3.0 is "3"."""
    numbers = (int, float, np.number)
    return [f"{v:g}" if isinstance(v, numbers) else str(v).strip() for v in column]


def timed(source: Source, event: str) -> Source:
    """The records whose event is known, with signed times for labels.

    Raises:
        DataError: There is no such column, or a time or an event is not what it must be.
    """
    label = source.label
    if event not in source.table:
        raise DataError(
            f"error[event] the records have no column {event!r}; there are "
            f"{', '.join(map(str, source.table.columns[:30]))}"
        )
    column = pd.to_numeric(source.table[event], errors="coerce")
    asked = source.table[event].notna().to_numpy()
    kept = source.take(np.flatnonzero(asked))
    happened, time = column[asked].to_numpy(np.float64), kept.table[label].to_numpy(np.float64)
    names = kept.table["record_id"].to_numpy()
    for what, values, right, want in (
        (event, kept.table[event].to_numpy(), np.isin(happened, (0, 1)), "0 (censored) or 1"),
        (label, time, np.isfinite(time) & (time > 0), "a time over 0"),
    ):
        wrong = np.flatnonzero(~right)
        if len(wrong):
            raise DataError(
                f"error[time] {what} must be {want}, got {values[wrong[0]]} in record "
                f"{names[wrong[0]]} ({len(wrong)} of {len(kept)} records): mend the manifest's "
                "source, or leave these records out, and convert again"
            )
    if not len(kept):
        raise DataError(f"error[event] none of {len(source)} records has a value in {event!r}")
    table = kept.table.assign(**{event: happened})  # "1" is 1
    kept = replace(kept, event=event, table=table, unseen=len(source) - len(kept))
    labels = kept.labels().astype(np.float32)
    return replace(kept, dataset=Joined(kept.dataset.parts, kept.dataset.keep, labels))


def _classed(source: Source, classes: Sequence[str]) -> Source:
    names = class_names(source.table[source.label])
    known = tuple(classes) or tuple(sorted(set(names)))
    inside = np.array([name in known for name in names], dtype=bool)
    if not inside.any():
        raise DataError(
            f"error[label] none of {len(names)} records has a {source.label} that was learned: "
            f"{', '.join(sorted(set(names))[:5])} are here, {', '.join(known[:5])} were learned"
        )
    unknown = Counter(name for name in names if name not in known)
    kept = replace(source.take(np.flatnonzero(inside)), classes=known, unknown=dict(unknown))
    labels = kept.labels().astype(np.float32)
    return replace(kept, dataset=Joined(kept.dataset.parts, kept.dataset.keep, labels))


def _open(paths: Sequence[str], splits: Sequence[str], label: str | None, text: bool) -> Source:
    twice = {path for path in paths if list(paths).count(path) > 1}
    if twice:
        raise DataError(f"error[store_twice] {', '.join(sorted(twice))} is named more than once")
    stores = {f"store {path}": open_store(path) for path in paths}
    pages = {name: store.fit for name, store in stores.items() if isinstance(store, PageStore)}
    _check_alike(list(stores), pages)
    rows = [store.select(splits, label, text=text) for store in stores.values()]
    numbers = None if text else label
    pairs = list(zip(stores.values(), rows, strict=True))
    parts = [_records(store, index, numbers) for store, index in pairs]
    tables = [store.manifest.iloc[index] for store, index in pairs]
    shared = [n for n in tables[0].columns if all(n in table.columns for table in tables)]
    return Source(
        dataset=Joined(parts, np.arange(sum(map(len, parts)))),
        table=pd.concat([table[shared] for table in tables], ignore_index=True),
        signals={n: store.signal for n, store in stores.items() if isinstance(store, ECGStore)},
        synthetic=any(store.synthetic for store in stores.values()),
        pages=pages,
    )


def _records(
    store: ECGStore | PageStore, index: NDArray[np.int64], label: str | None
) -> Records | PageRecords:
    if isinstance(store, PageStore):
        return PageRecords(store, index, label)
    return Records(store, index, label)


def _check_alike(names: Sequence[str], pages: dict[str, PageFit]) -> None:
    """Refuses signals beside pages, and pages that were made in different ways."""
    if not pages:
        return
    signals = [name for name in names if name not in pages]
    if signals:
        raise DataError(
            f"error[mixed_stores] {signals[0]} holds signals, {next(iter(pages))} pages: name "
            "stores of one kind"
        )
    (first, mine), *others = pages.items()
    for name, its in others:
        theirs, ours = its.plain(), mine.plain()
        differ = [
            f"{key}: {theirs[key]} and {ours[key]}" for key in ours if theirs[key] != ours[key]
        ]
        if differ:
            raise DataError(
                f"error[mixed_stores] pages of {name} and {first} differ in {', '.join(differ)}: "
                "convert the pictures again, alike"
            )


def _make(
    splits: Sequence[str], signal: Signal, patients: int, label: str | None, text: bool
) -> Source:
    if signal.stored_recipe:
        raise DataError(f"error[recipe] {SYNTHETIC} has been through no recipe")
    if patients < 1:
        raise DataError(f"error[empty] {SYNTHETIC} of {patients} patients; name --data.paths")
    ecg, columns = make_cohort(patients, signal=signal, seed=0)
    table = pd.DataFrame(columns)
    chosen = table["split"].isin(splits)
    if "all" in splits:
        chosen |= table["split"] != "test"
    if label is not None:
        if label not in table:
            raise DataError(
                f"error[label] {SYNTHETIC} has no column {label!r}; there are {', '.join(table)}"
            )
        chosen &= table[label].notna()
    rows = np.flatnonzero(chosen.to_numpy())
    if not len(rows):
        raise DataError(
            f"error[empty_split] no record of {SYNTHETIC} of {patients} patients is in "
            f"{', '.join(splits)}; take more --data.patients"
        )
    if label is not None and not text and not pd.api.types.is_numeric_dtype(table[label]):
        raise DataError(
            f"error[label] column {label!r} of {SYNTHETIC} holds text, not numbers; its classes "
            "can be learned: --task multiclass"
        )
    labels = None if label is None or text else table[label].to_numpy(np.float32)
    patient = patient_codes(table["patient_id"].tolist(), table["record_id"].tolist())
    whole = Joined([Made(ecg, patient, labels)], np.arange(len(ecg)))
    return Source(whole, table, {SYNTHETIC: signal}, synthetic=True).take(rows)
