"""The store: int16 shards that numpy reads, a parquet manifest, and what was left out and why.

store.json         what the records are (leads, fs, seconds, mV) and what made them
signals-00000.npy  (N, L, T) int16 in C order; times the record's gain it is mV; -32768 is NaN
manifest.parquet   a row a record: where it lies, whose it is, its flags and labels
rejected.csv       a row for each reason why a record is not here
issues.csv         a row for each issue of a record that is here
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.data.shards import ShardStore, read_store
from ecgfast.data.store_format import COLUMNS as COLUMNS
from ecgfast.data.store_format import NAN as NAN
from ecgfast.data.store_format import restore
from ecgfast.data.store_writer import StoreWriter as StoreWriter

if TYPE_CHECKING:
    from ecgfast.data.dataset import Records


class ECGStore(ShardStore):
    """A finished store of signals, read in place.

    Attributes:
        path: Its folder.
        manifest: A row a record; see `COLUMNS` and the labels after them.
        signal: Leads, rate, length, and the recipe that the records have been through, if any.
        about: What store.json says.
    """

    columns, name, dtype = COLUMNS, "signals", np.int16
    made_by = "ecgfast convert RECORDS STORE"

    def __init__(self, path: Path, about: dict[str, Any], manifest: pd.DataFrame) -> None:
        contract = about["contract"]
        self.signal = Signal(
            leads=tuple(contract["leads"]),
            fs=contract["fs"],
            seconds=contract["seconds"],
            stored_recipe=(contract.get("recipe") or {}).get("name", ""),
        )
        super().__init__(path, about, manifest, (len(self.signal.leads), self.signal.samples))
        self._gain = manifest["gain"].to_numpy(np.float64)
        self._gaps = manifest["n_nan"].to_numpy(np.int64) > 0

    @classmethod
    def open(cls, path: str | Path) -> ECGStore:
        """Opens the folder that `ecgfast convert` made.

        Args:
            path: Of the folder.

        Raises:
            DataError: if it is none, or is not finished.
        """
        return cls(*read_store(path, cls))

    def steps(self, index: int, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """The stored (L, T) int16 of a record, in memory of its own or in ``out``, C order."""
        return self.read_row(index, out)

    def gain(self, index: int) -> np.float32:
        """What a step of a record is, mV."""
        return np.float32(self._gain[index])

    def gains(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """What a step of each record is, mV."""
        return self._gain[index].astype(np.float32)

    def read(self, index: int) -> NDArray[np.float32]:
        """A record (L, T) in mV; NaN where the source has no value, zeros after n_valid."""
        return restore(self.steps(index), self._gain[index], bool(self._gaps[index]))

    def dataset(
        self, splits: Iterable[str] = ("all",), label: str | None = None, limit: int = 0
    ) -> Records:
        """A torch data set of those records: ecg, index, patient, and label if one is named."""
        from ecgfast.data.dataset import Records  # torch is not needed to convert

        return Records(self, self.select(splits, label, limit), label)
