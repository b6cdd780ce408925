"""What is trained on or scored: records of some stores, or of the SYNTHETIC cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit
from ecgfast.config.pages import PageFit
from ecgfast.data.clip_store import ClipStore
from ecgfast.data.clips import ClipRecords, Windows, synthetic_videos
from ecgfast.data.dataset import PageRecords, Records, patients_of, studies_of
from ecgfast.data.joined import Joined as Joined
from ecgfast.data.joined import Made
from ecgfast.data.page_store import PageStore
from ecgfast.data.records import DataError
from ecgfast.data.split import half, listed, nested_fraction
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import restore
from ecgfast.data.stores import Store, open_store
from ecgfast.data.synthetic import make_cohort

SYNTHETIC = "the SYNTHETIC cohort"


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
        clips: What each store of videos holds. ``ecg`` is then (C, F, S, S) uint8, without gain:
            the clips that :meth:`windows` says; and ``study`` is a code of the study.
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
    clips: dict[str, ClipFit] = field(default_factory=dict)
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
        return patients_of(self.table)

    def studies(self) -> NDArray[np.int64]:
        """A code of each video's study; a video of no known study is a study of its own.

        Raises:
            ValueError: The records are no videos.
        """
        self._of_videos()
        return studies_of(self.table)

    def lengths(self) -> NDArray[np.int64]:
        """Frames of each video.

        Raises:
            ValueError: The records are no videos.
        """
        self._of_videos()
        return self.table["frames"].to_numpy(np.int64)

    def windows(self, *, frames: int, step: int = 1, count: int = 1) -> Source:
        """The same videos; a batch of them has evenly spaced clips of each.

        The first frames of the clips are the rounded ``linspace(0, F - span, count)`` of a video of
        F frames, the first of all if a clip is longer. Clips lie one after the other along time:
        ``ecg`` is ``(N, C, count * frames, S, S)``; frames after the end of a video are black.

        Args:
            frames: Of a clip.
            step: From one frame of a clip to the next.
            count: Clips of a video.

        Raises:
            ValueError: The records are no videos, or a number is below 1.
        """
        self._of_videos()
        if min(frames, step, count) < 1:
            raise ValueError(
                f"frames, step and count must be 1 or more, got {frames}, {step} and {count}"
            )
        asked = Windows(frames, step, count)
        parts = [part.windowed(asked) for part in self.dataset.parts]
        return replace(self, dataset=Joined(parts, self.dataset.keep, self.dataset.label))

    def _of_videos(self) -> None:
        if not self.clips:
            raise ValueError("the records are no videos: a store of clips is needed")

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
    clips: ClipFit | None = None,
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
        clips: Frames of the SYNTHETIC videos that are wanted in place of signals; stores are as
            they are.

    Raises:
        DataError: A store cannot be read, there are no such records, a time is not positive, or an
            event is not 0 or 1.
    """
    text = label is not None and classes is not None
    if paths:
        source = _open(paths, splits, label, text)
    elif clips is not None:
        source = _make_clips(splits, clips, patients, label, text)
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
    clips = {name: store.fit for name, store in stores.items() if isinstance(store, ClipStore)}
    _check_alike({name: store.name for name, store in stores.items()}, {**pages, **clips})
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
        clips=clips,
    )


def _records(
    store: Store, index: NDArray[np.int64], label: str | None
) -> Records | PageRecords | ClipRecords:
    if isinstance(store, PageStore):
        return PageRecords(store, index, label)
    if isinstance(store, ClipStore):
        return ClipRecords(store, index, label)
    return Records(store, index, label)


def _check_alike(holds: dict[str, str], fits: Mapping[str, PageFit | ClipFit]) -> None:
    """Refuses stores of several kinds, and pages or clips that were made in different ways."""
    (first, kind), *rest = holds.items()
    for name, other in rest:
        if other != kind:
            raise DataError(
                f"error[mixed_stores] {first} holds {kind}, {name} {other}: name stores of one kind"
            )
        if first not in fits:
            continue
        ours, theirs = fits[first].plain(), fits[name].plain()
        differ = [
            f"{key}: {theirs[key]} and {ours[key]}" for key in ours if theirs[key] != ours[key]
        ]
        if differ:
            what = {"pages": "pictures", "clips": "videos"}[kind]
            raise DataError(
                f"error[mixed_stores] {kind} of {name} and {first} differ in {', '.join(differ)}: "
                f"convert the {what} again, alike"
            )


def _make(
    splits: Sequence[str], signal: Signal, patients: int, label: str | None, text: bool
) -> Source:
    if signal.stored_recipe:
        raise DataError(f"error[recipe] {SYNTHETIC} has been through no recipe")
    _check_patients(patients)
    ecg, columns = make_cohort(patients, signal=signal, seed=0)
    table = pd.DataFrame(columns)
    rows = _chosen(table, splits, patients, label, text)
    labels = None if label is None or text else table[label].to_numpy(np.float32)
    whole = Joined([Made(ecg, patients_of(table), labels)], np.arange(len(ecg)))
    return Source(whole, table, {SYNTHETIC: signal}, synthetic=True).take(rows)


def _make_clips(
    splits: Sequence[str], clips: ClipFit, patients: int, label: str | None, text: bool
) -> Source:
    _check_patients(patients)
    try:
        videos = synthetic_videos(patients, clips)
    except ValueError as error:
        raise DataError(f"error[synthetic] {SYNTHETIC}: {error}") from None
    rows = _chosen(videos.manifest, splits, patients, label, text)
    table = videos.manifest.iloc[rows].reset_index(drop=True)
    part = ClipRecords(videos, rows, None if text else label)
    fits = {SYNTHETIC: clips}
    return Source(Joined([part], np.arange(len(rows))), table, {}, synthetic=True, clips=fits)


def _check_patients(patients: int) -> None:
    if patients < 1:
        raise DataError(f"error[empty] {SYNTHETIC} of {patients} patients; name --data.paths")


def _chosen(
    table: pd.DataFrame, splits: Sequence[str], patients: int, label: str | None, text: bool
) -> NDArray[np.int64]:
    """The rows of the SYNTHETIC cohort that are wanted."""
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
    return rows
