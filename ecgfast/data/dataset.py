"""A store as torch sees it: as it lies on the disk, for the device to make millivolts of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecgfast.data.page_store import PageStore
from ecgfast.data.shards import ShardStore
from ecgfast.data.store import ECGStore


class _Rows(Dataset[dict[str, Tensor]]):
    """Some rows of a store, one dict each: ``index``, ``patient``, ``label``, and what is stored.

    A patient's code is a hash of the id, so that it is the same in every store and process. A
    record whose patient nobody knows is a patient of its own.
    """

    def __init__(
        self, store: ShardStore, index: NDArray[np.int64], label: str | None = None
    ) -> None:
        self.index = index
        columns = ["patient_id", "record_id", *([] if label is None else [label])]
        table = store.manifest[columns].iloc[index]
        self.patient = patient_codes(table["patient_id"], table["record_id"])
        self.label = None if label is None else table[label].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([at]).items()}

    def batch(self, at: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once: as the records one by one, stacked."""
        places = np.asarray(at, dtype=np.int64)
        index = self.index[places]
        batch = {
            **self._stored(index),
            "index": torch.from_numpy(index),
            "patient": torch.from_numpy(self.patient[places]),
        }
        if self.label is not None:
            batch["label"] = torch.from_numpy(self.label[places])
        return batch

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        """What lies in the shards at these positions of the manifest."""
        raise NotImplementedError


class Records(_Rows):
    """Records of a store, one dict each.

    ``ecg`` is the stored ``(L, T)`` int16, ``gain`` its mV a step (float32): half the bytes of
    millivolts on the way to the device. -32768 is a sample that is not there.

    Args:
        store: Where they lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(self, store: ECGStore, index: NDArray[np.int64], label: str | None = None) -> None:
        super().__init__(store, index, label)
        self.store = store

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        signal = self.store.signal
        ecg = np.empty((len(index), len(signal.leads), signal.samples), dtype=np.int16)
        for row, out in zip(index.tolist(), ecg, strict=True):
            self.store.steps(row, out)
        return {"ecg": torch.from_numpy(ecg), "gain": torch.from_numpy(self.store.gains(index))}


class PageRecords(_Rows):
    """Pages of a store, one dict each: ``ecg`` is the stored ``(C, H, W)`` uint8, without a gain.

    Args:
        store: Where they lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(
        self, store: PageStore, index: NDArray[np.int64], label: str | None = None
    ) -> None:
        super().__init__(store, index, label)
        self.store = store

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        pages = np.empty((len(index), *self.store.shape), dtype=np.uint8)
        for row, out in zip(index.tolist(), pages, strict=True):
            self.store.pixels(row, out)
        return {"ecg": torch.from_numpy(pages)}


def patient_codes(patients: Sequence[str], records: Sequence[str]) -> NDArray[np.int64]:
    """An int64 for each patient id; records without one get their own."""
    number, names = pd.factorize(np.asarray(patients, dtype=object), use_na_sentinel=False)
    known = np.array([bool(name) and name == name for name in names], dtype=bool)
    codes = _codes(f"patient {name}" for name in names)[number]
    alone = np.flatnonzero(~known[number])
    if len(alone):
        codes[alone] = _codes(f"record {name}" for name in np.asarray(records, dtype=object)[alone])
    return codes


def _codes(names: Iterable[str]) -> NDArray[np.int64]:
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
