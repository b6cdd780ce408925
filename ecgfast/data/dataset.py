"""A store as torch sees it: as it lies on the disk, for the device to make millivolts of."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecgfast.data.store import ECGStore


class Records(Dataset[dict[str, Tensor]]):
    """Records of a store, one dict each.

    ``ecg`` is the stored ``(L, T)`` int16, ``gain`` its mV a step (float32): half the bytes of
    millivolts on the way to the device. -32768 is a sample that is not there.

    A patient's code is a hash of the id, so that it is the same in every store and process. A
    record whose patient nobody knows is a patient of its own.

    Args:
        store: Where they lie.
        index: Positions in the manifest.
        label: A numeric column that comes along as `label`, float32.
    """

    def __init__(self, store: ECGStore, index: NDArray[np.int64], label: str | None = None) -> None:
        self.store, self.index = store, index
        table = store.manifest.iloc[index]
        self.patient = patient_codes(table["patient_id"].tolist(), table["record_id"].tolist())
        self.label = None if label is None else table[label].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        index = int(self.index[at])
        item = {
            "ecg": torch.from_numpy(self.store.steps(index).copy()),
            "gain": torch.tensor(self.store.gain(index)),
            "index": torch.tensor(index),
            "patient": torch.tensor(self.patient[at]),
        }
        if self.label is not None:
            item["label"] = torch.tensor(self.label[at])
        return item


def patient_codes(patients: list[str], records: list[str]) -> NDArray[np.int64]:
    """An int64 for each patient id; records without one get their own."""
    names = (f"patient {p}" if p else f"record {r}" for p, r in zip(patients, records, strict=True))
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
