"""What miners return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Triplets(NamedTuple):
    """One triplet an anchor, always N of them; what is not valid points at itself.

    Attributes:
        anchors: Indices ``(N,)`` int64, 0 to N - 1.
        positives: Indices ``(N,)``, into the references where the miner was given some.
        negatives: Indices ``(N,)``, likewise.
        valid: ``(N,)`` bool; the loss counts these alone.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor
    valid: Tensor


class PositivePairs(NamedTuple):
    """At most one pair an anchor, always N of them; what is not valid points at itself.

    Attributes:
        anchors: Indices ``(N,)`` int64, 0 to N - 1.
        positives: Indices ``(N,)``.
        valid: ``(N,)`` bool; the loss counts these alone.
    """

    anchors: Tensor
    positives: Tensor
    valid: Tensor
