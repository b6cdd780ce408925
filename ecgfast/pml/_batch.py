"""Who is compared with whom in a call of a loss or miner."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ecgfast.pml.distances import wide


class Batch(NamedTuple):
    """What a call of a loss compares.

    Attributes:
        embeddings: Anchors ``(N, D)``, float32 or float64.
        labels: ``(N,)``, or None where the pairs are listed.
        references: ``(M, D)``; the very tensor of the anchors where there are no others.
        reference_labels: ``(M,)``, or None with the labels.
        places: ``(N,)`` int64, which reference is the anchor itself, -1 for none; None: no one is.
    """

    embeddings: Tensor
    labels: Tensor | None
    references: Tensor
    reference_labels: Tensor | None
    places: Tensor | None

    @property
    def same(self) -> bool:
        """The references are the anchors."""
        return self.references is self.embeddings

    def as_words(self) -> dict[str, Any]:
        """The batch as the ops on all pairs take it."""
        words: dict[str, Any] = {"embeddings": self.embeddings, "labels": self.labels}
        if not self.same:
            words |= {"references": self.references, "reference_labels": self.reference_labels}
            words |= {"places": self.places}
        return words


def as_batch(
    embeddings: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    places: Tensor | None,
) -> Batch:
    """Checks the call; gives labels whole numbers, all on one device."""
    same = ref_emb is None or ref_emb is embeddings
    if ref_emb is None and ref_labels is not None and ref_labels is not labels:
        raise ValueError("ref_labels were given without ref_emb")
    references = embeddings if ref_emb is None else ref_emb
    reference_labels = labels if same and ref_labels is None else ref_labels
    for name, what, side, ids in (
        ("labels", "embeddings", embeddings, labels),
        ("ref_labels", "ref_emb", references, reference_labels),
    ):
        if side.dim() != 2:
            raise ValueError(f"{what} must be (rows, D), got {tuple(side.shape)}")
        if not side.is_floating_point():
            raise TypeError(f"{what} must be of a float dtype, got {side.dtype}")
        if ids is not None and ids.shape != (len(side),):
            raise ValueError(f"{name} must be ({len(side)},) as {what}, got {tuple(ids.shape)}")
    if references.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"embeddings have {embeddings.shape[1]} columns, ref_emb {references.shape[1]}"
        )
    rows = wide(embeddings)
    columns = rows if same else wide(references).to(rows)
    if same and ref_labels is not None and ref_labels is not labels:
        columns = rows[:]  # the same rows, but not the same labels
    device = embeddings.device
    labels = _whole(labels, device)
    reference_labels = labels if columns is rows else _whole(reference_labels, device)
    if same and places is None:  # nobody is its own partner
        places = torch.arange(len(rows), device=device)
    return Batch(rows, labels, columns, reference_labels, places)


def _whole(labels: Tensor | None, device: torch.device) -> Tensor | None:
    """Labels of a float or bool dtype as the whole numbers that they are."""
    if labels is None:
        return None
    numbers = labels.to(device)
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        numbers = numbers.long()
        if labels.is_floating_point() and bool((numbers != labels.to(device)).any()):
            raise TypeError(
                f"labels must be whole numbers, got {labels.dtype} with fractions; continuous"
                " labels are mined with ecgfast.miners"
            )
    return numbers
