"""What is trained on or scored: records of some stores, or of the SYNTHETIC cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecgfast.config import Signal
from ecgfast.data.dataset import patient_codes
from ecgfast.data.records import DataError
from ecgfast.data.split import nested_fraction
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import restore
from ecgfast.data.synthetic import make_cohort

SYNTHETIC = "the SYNTHETIC cohort"


class Joined(Dataset[dict[str, Tensor]]):
    """Data sets one after the other, or some of their records; ``index`` counts through these.

    Args:
        parts: Map-style data sets.
        keep: Places in all of them together.
    """

    def __init__(self, parts: Sequence[Any], keep: NDArray[np.int64]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.keep = keep

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = int(self.keep[index])
        part = int(np.searchsorted(self.ends, place, side="right"))
        begin = int(self.ends[part - 1]) if part else 0
        return {**self.parts[part][place - begin], "index": torch.tensor(index)}


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

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {"ecg": self.ecg[index], "patient": self.patient[index]}
        return item if self.label is None else {**item, "label": self.label[index]}


@dataclass(frozen=True)
class Source:
    """A data set and the table that belongs to it, row by row.

    Attributes:
        dataset: Yields ``ecg`` (L, T), ``index`` (the row), ``patient`` (a code, the same in every
            store), and ``label`` if one was asked for.
            Records of a store are int16 and come with ``gain``, mV a step; made ones are mV.
        table: record_id, patient_id, and what else the manifests say.
        signals: What each store holds, by its name.
        synthetic: Whether any of it is made up.
    """

    dataset: Joined
    table: pd.DataFrame
    signals: dict[str, Signal]
    synthetic: bool

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

    def patients(self) -> NDArray[np.int64]:
        """A code of each record's patient; a record of nobody known is a patient of its own."""
        names = self.table["patient_id"].fillna("").astype(str).tolist()
        return patient_codes(names, self.table["record_id"].astype(str).tolist())

    def take(self, rows: NDArray[np.int64]) -> Source:
        """Some of the records."""
        dataset = Joined(self.dataset.parts, self.dataset.keep[rows])
        table = self.table.iloc[rows].reset_index(drop=True)
        return Source(dataset, table, self.signals, self.synthetic)

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
) -> Source:
    """Opens stores, or makes the SYNTHETIC cohort if there are none.

    Args:
        paths: Folders of stores.
        splits: Parts; ``all`` is every record that is not in a test part.
        signal: Of the SYNTHETIC cohort. Stores are as they are: compare ``signals``.
        patients: Of the SYNTHETIC cohort, which is always the same one.
        label: Column to learn; records without it are left out.
        limit: The first so many records; 0 is all.

    Raises:
        DataError: A store cannot be read, or there are no such records.
    """
    source = _open(paths, splits, label) if paths else _make(splits, signal, patients, label)
    return source.take(np.arange(min(limit, len(source)))) if limit else source


def _open(paths: Sequence[str], splits: Sequence[str], label: str | None) -> Source:
    twice = {path for path in paths if list(paths).count(path) > 1}
    if twice:
        raise DataError(f"error[store_twice] {', '.join(sorted(twice))} is named more than once")
    stores = {f"store {path}": ECGStore.open(path) for path in paths}
    parts = [store.dataset(splits, label) for store in stores.values()]
    tables = [store.manifest.iloc[store.select(splits, label)] for store in stores.values()]
    shared = [n for n in tables[0].columns if all(n in table.columns for table in tables)]
    return Source(
        dataset=Joined(parts, np.arange(sum(map(len, parts)))),
        table=pd.concat([table[shared] for table in tables], ignore_index=True),
        signals={name: store.signal for name, store in stores.items()},
        synthetic=any(store.synthetic for store in stores.values()),
    )


def _make(splits: Sequence[str], signal: Signal, patients: int, label: str | None) -> Source:
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
    labels = None if label is None else table[label].to_numpy(np.float32)
    patient = patient_codes(table["patient_id"].tolist(), table["record_id"].tolist())
    whole = Joined([Made(ecg, patient, labels)], np.arange(len(ecg)))
    return Source(whole, table, {SYNTHETIC: signal}, synthetic=True).take(rows)
