"""Which records are copies of each other, and which must never be told apart in training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecgfast.data.source import Source


class Identity(NamedTuple):
    """Codes of the records of a source, ``(N,)`` int64 each, from 0.

    Attributes:
        record: Equal for records whose stored samples are equal.
        group: Equal for the records of a patient, and of the patients that share a copy.
        patient: -1 where nobody knows.
    """

    record: NDArray[np.int64]
    group: NDArray[np.int64]
    patient: NDArray[np.int64]


def identity(source: Source) -> Identity:
    """Who the records of a source are, by their hashes and patient ids."""
    unknown = (source.table["patient_id"].fillna("") == "").to_numpy()
    whose = _codes(source.patients())
    record = np.arange(len(source), dtype=np.int64)
    if "sha256" in source.table:
        hashes = source.table["sha256"].fillna("")
        same = pd.factorize(hashes)[0].astype(np.int64)  # no objects: a million hashes are text
        record = _codes(np.where((hashes == "").to_numpy(), len(source) + record, same))
    patients = int(whose.max(initial=-1)) + 1
    size = patients + int(record.max(initial=-1)) + 1
    ones = np.ones(len(whose), dtype=np.int8)
    edges = coo_array((ones, (whose, patients + record)), shape=(size, size))
    component = connected_components(edges, directed=False)[1].astype(np.int64)
    return Identity(record, component[whose], np.where(unknown, -1, whose))


def _codes(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
