"""Records with what is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


class WithTexts(Dataset[dict[str, Tensor]]):
    """Adds to each record ``text`` ``(E,)``, a vector, and ``text_id``, equal for equal texts.

    A record of which nothing is written has a text of zeros and the id -1.

    Args:
        dataset: Gives whole batches.
        vectors: ``(M, E)`` of the writings.
        ids: ``(M,)`` of each writing.
        row: ``(N,)`` the writing of each record, -1 for none.
    """

    def __init__(
        self,
        dataset: Any,
        vectors: Tensor,
        ids: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> None:
        self.dataset = dataset
        self.vectors = torch.cat([vectors, torch.zeros(1, vectors.shape[1])])  # -1 is the last
        self.ids = torch.from_numpy(np.append(ids, -1))
        self.row = torch.from_numpy(row)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once."""
        row = self.row[torch.as_tensor(indices)]
        batch: dict[str, Tensor] = self.dataset.batch(indices)
        return {**batch, "text": self.vectors[row], "text_id": self.ids[row]}
