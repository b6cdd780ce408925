"""Data sets one after the other, from stores and from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


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
        return self.gather(
            np.asarray(indices, dtype=np.int64), lambda part, places, _: part.batch(places.tolist())
        )

    def gather(
        self,
        index: NDArray[np.int64],
        read: Callable[[Any, NDArray[np.int64], NDArray[np.int64]], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """A batch of what is read of each part, in the order of ``index``.

        Args:
            index: Of the records, ``(N,)``.
            read: Called with a part, the places in it, and which of ``index`` these are.
        """
        places = self.keep[index]
        part = np.searchsorted(self.ends, places, side="right")
        begins = np.concatenate([[0], self.ends])[part]
        which = [np.flatnonzero(part == p) for p in np.unique(part)]
        batches = [read(self.parts[part[at[0]]], (places - begins)[at], at) for at in which]
        if len(batches) == 1:
            whole = batches[0]
        else:
            back = torch.from_numpy(np.argsort(np.concatenate(which)))
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
