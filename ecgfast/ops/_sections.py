"""Second-order sections as users give them, for the ops that filter; see csrc/core/biquad.h."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

Sos: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Sequence[float]]"

PADS = (None, "odd", "even", "constant")  # numbered as Pad of csrc/core/biquad.h
MOST_SECTIONS = 16  # kMaxSections there


def sections(sos: Sos) -> Tensor:
    """The sections as a float64 tensor on the CPU, of the right shape; looks at no value."""
    table = torch.as_tensor(sos, dtype=torch.float64)  # rows of numbers too, at all their digits
    if table.dim() != 2 or table.shape[1] != 6 or len(table) == 0:
        raise ValueError(f"sos must be (K, 6) with K > 0, got {tuple(table.shape)}")
    if len(table) > MOST_SECTIONS:
        raise ValueError(f"sos must have {MOST_SECTIONS} sections at most, got {len(table)}")
    if table.requires_grad:
        raise ValueError("sos has no gradient here: pass sos.detach()")
    return table.cpu()


def refuse_unstable(sos: Tensor) -> None:
    """Raises ValueError for a section that is not finite, not scaled, or rings for ever."""
    for k, (b0, b1, b2, a0, a1, a2) in enumerate(sos.tolist()):
        if not all(map(math.isfinite, (b0, b1, b2, a0, a1, a2))):
            raise ValueError(f"sos[{k}] is not finite: {sos[k].tolist()}")
        if a0 != 1:
            raise ValueError(
                f"sos[{k}, 3], a0, must be 1, got {a0:g}: divide the section by it, as scipy's"
                " designs do"
            )
        if not (abs(a2) < 1 and abs(a1) < 1 + a2):
            root = cmath.sqrt(a1 * a1 - 4 * a2)
            radius = max(abs(-a1 + root), abs(-a1 - root)) / 2
            raise ValueError(
                f"sos[{k}] is not stable: it has a pole of radius {radius:.9g}, which must be"
                " below 1; is a cut-off outside (0, fs / 2)?"
            )


def edge_of(sos: Tensor, padtype: str | None, padlen: int | None) -> int:
    """How many samples zero-phase filtering adds at each end: scipy's default without padlen."""
    if padtype is None:
        return 0
    if padlen is not None:
        return padlen
    values = sos.tolist()
    first_order = min(sum(row[2] == 0 for row in values), sum(row[5] == 0 for row in values))
    return 3 * (2 * len(values) + 1 - first_order)
