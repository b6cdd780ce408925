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
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import of_videos


class Rows(Dataset[dict[str, Tensor]]):
    """Some rows of a store, one dict each: ``index``, ``patient``, ``label``, and what is stored.

    A patient's code is a hash of the id, so that it is the same in every store and process. A
    record whose patient nobody knows is a patient of its own.

    Args:
        manifest: Of the store.
        index: Positions in it.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(
        self, manifest: pd.DataFrame, index: NDArray[np.int64], label: str | None = None
    ) -> None:
        self.index = index
        self.patient = patients_of(manifest.iloc[index])
        self.label = None if label is None else manifest[label].iloc[index].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([at]).items()}

    def batch(self, at: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once: as the records one by one, stacked."""
        places = np.asarray(at, dtype=np.int64)
        return {**self._stored(self.index[places]), **self.columns(places)}

    def columns(self, places: NDArray[np.int64]) -> dict[str, Tensor]:
        """What the manifest says of these rows."""
        columns = {
            "index": torch.from_numpy(self.index[places]),
            "patient": torch.from_numpy(self.patient[places]),
        }
        if self.label is not None:
            columns["label"] = torch.from_numpy(self.label[places])
        return columns

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        """What lies in the shards at these positions of the manifest."""
        raise NotImplementedError


class Records(Rows):
    """Records of a store, one dict each.

    ``ecg`` is the stored ``(L, T)`` int16, ``gain`` its mV a step (float32): half the bytes of
    millivolts on the way to the device. -32768 is a sample that is not there.

    Args:
        store: Where they lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(self, store: ECGStore, index: NDArray[np.int64], label: str | None = None) -> None:
        super().__init__(store.manifest, index, label)
        self.store = store

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        signal = self.store.signal
        ecg = np.empty((len(index), len(signal.leads), signal.samples), dtype=np.int16)
        for row, out in zip(index.tolist(), ecg, strict=True):
            self.store.steps(row, out)
        return {"ecg": torch.from_numpy(ecg), "gain": torch.from_numpy(self.store.gains(index))}


class PageRecords(Rows):
    """Pages of a store, one dict each: ``ecg`` is the stored ``(C, H, W)`` uint8, without a gain.

    Args:
        store: Where they lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(
        self, store: PageStore, index: NDArray[np.int64], label: str | None = None
    ) -> None:
        super().__init__(store.manifest, index, label)
        self.store = store

    def _stored(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        pages = np.empty((len(index), *self.store.shape), dtype=np.uint8)
        for row, out in zip(index.tolist(), pages, strict=True):
            self.store.pixels(row, out)
        return {"ecg": torch.from_numpy(pages)}


def studies_of(table: pd.DataFrame) -> NDArray[np.int64]:
    """The study of each row of a manifest of videos."""
    return study_codes(table["study_id"], table["record_id"])


def patients_of(table: pd.DataFrame) -> NDArray[np.int64]:
    """The patient of each row of a manifest."""
    studies = table["study_id"] if of_videos(table) else None
    return patient_codes(table["patient_id"], table["record_id"], studies)


def patient_codes(
    patients: Sequence[str], records: Sequence[str], studies: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """An int64 for each patient id; records without one get their own, or that of their study."""
    codes, known = _coded("patient", patients)
    if studies is not None:
        theirs, examined = _coded("study", studies)
        codes[~known], known = theirs[~known], known | examined
    return _alone(codes, known, records)


def study_codes(studies: Sequence[str], records: Sequence[str]) -> NDArray[np.int64]:
    """An int64 for each study id; records without one get their own."""
    return _alone(*_coded("study", studies), records)


def _coded(kind: str, names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A code for each name, and whether it is one."""
    number, unique = pd.factorize(np.asarray(names, dtype=object), use_na_sentinel=False)
    known = np.array([bool(name) and name == name for name in unique], dtype=bool)
    return _codes(f"{kind} {name}" for name in unique)[number], known[number]


def _alone(
    codes: NDArray[np.int64], known: NDArray[np.bool_], records: Sequence[str]
) -> NDArray[np.int64]:
    """The codes, and one of its own for each record that has none."""
    alone = np.flatnonzero(~known)
    if len(alone):
        codes[alone] = _codes(f"record {name}" for name in np.asarray(records, dtype=object)[alone])
    return codes


def _codes(names: Iterable[str]) -> NDArray[np.int64]:
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
