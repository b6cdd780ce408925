"""What ops that warp time check and prepare alike: records, bands, lengths."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ecgfast.ops._native import ready, sum_dtype

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_LEADS = 24  # kMostDeviceLeads of contract.h

_ON_GAP = ("propagate", "raise")

Lengths: TypeAlias = Tensor | Sequence[int]


def expect_word(name: str, word: str, words: tuple[str, ...]) -> None:
    """Refuses a word that is none of these."""
    if word not in words:
        near = difflib.get_close_matches(str(word), words, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{name} must be one of {', '.join(words)}, got {word!r}; did you mean {near}?"
        )


def refuse_gaps(on_gap: str, name: str, records: Tensor | None, lengths: Tensor | None) -> None:
    """Raises, if that is asked for, where a record has a sample that is NaN or infinite."""
    expect_word("on_gap", on_gap, _ON_GAP)
    if on_gap != "raise" or records is None:
        return
    gaps = ~records.isfinite()
    if lengths is not None:
        gaps &= torch.arange(records.shape[-1], device=records.device) < lengths[:, None, None]
    wrong = gaps.flatten(1).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        lead, sample = gaps[wrong[0]].nonzero()[0].tolist()
        raise ValueError(
            f"{name} has {int(gaps[wrong[0]].sum())} samples missing (NaN or infinite) in record"
            f" {wrong[0]}, the first at lead {lead}, sample {sample} ({len(wrong)} records in all);"
            " fill them, or pass on_gap='propagate' for NaN from these records alone"
        )


def expect_sides(x: Tensor, y: Tensor | None) -> None:
    """Refuses records that cannot be compared; warns of axes that look swapped."""
    _expect_records("x", x)
    if y is None:
        return
    _expect_records("y", y)
    if y.shape[1] != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} leads and y has {y.shape[1]}")
    if y.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype} and y is {y.dtype}: cast one of them")
    if y.device != x.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}: move one of them")


def _expect_records(name: str, records: Tensor) -> None:
    shape = tuple(records.shape)
    if records.dim() != 3:
        raise ValueError(f"{name} must be (records, leads, samples), got {shape}")
    if 0 in shape[1:]:
        raise ValueError(f"{name} has no leads or no samples, got {shape}")
    if records.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {records.dtype}"
        )
    if records.is_cuda and records.dtype == torch.float64:
        raise TypeError(f"{name} is float64, which has a kernel on the CPU alone: cast or move it")
    if records.is_cuda and shape[1] > _MOST_LEADS:
        raise ValueError(f"{name} has {shape[1]} leads, CUDA kernels take {_MOST_LEADS} at most")
    if shape[1] > shape[2]:
        warnings.warn(
            f"{name} has {shape[1]} leads of {shape[2]} samples, got {shape}: time must be the last"
            " axis, pass x.mT if it is not",
            stacklevel=4,
        )


def radius_of(radius: int | float | None) -> tuple[int | None, float | None]:
    """In samples, or as a share of the shorter record."""
    if radius is None:
        return None, None
    if isinstance(radius, bool) or not isinstance(radius, (int, float)):
        raise ValueError(f"radius must be a number of samples, a share or None, got {radius!r}")
    if isinstance(radius, float):
        if not 0 <= radius <= 1:
            raise ValueError(
                f"radius as a share must be in [0, 1], got {radius}; pass an int for samples"
            )
        return None, radius
    if radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    return radius, None


def lengths_of(lengths: Any, x: Tensor, y: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if lengths is None:
        return None, None
    if y is None:
        return _length_of("lengths", lengths, x), None
    if not isinstance(lengths, tuple) or len(lengths) != 2:
        raise ValueError("lengths must be a pair, for x and for y: either may be None")
    own, other = lengths
    return (
        None if own is None else _length_of("lengths[0]", own, x),
        None if other is None else _length_of("lengths[1]", other, y),
    )


def _length_of(name: str, lengths: Any, records: Tensor) -> Tensor:
    length = torch.as_tensor(lengths)
    if length.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise ValueError(f"{name} must be whole numbers, got {length.dtype}")
    if tuple(length.shape) != (len(records),):
        raise ValueError(f"{name} must be ({len(records)},), got {tuple(length.shape)}")
    return length.to(records.device, torch.int64)


def computed(records: Tensor) -> Tensor:
    """In the dtype of the arithmetic, time dense."""
    return ready(records.to(sum_dtype(records)))


def flags(records: Tensor) -> Tensor:
    return records.new_empty(len(records), dtype=torch.int32)


def checked_lengths(name: str, records: Tensor, lengths: Tensor | None) -> Tensor:
    """As kernels trust them; none of them are no tensor at all."""
    if lengths is None:
        return records.new_empty(0, dtype=torch.int64)
    samples = records.shape[-1]
    wrong = ((lengths < 1) | (lengths > samples)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"lengths of {name} must be in [1, {samples}], got {int(lengths[wrong[0]])} for record"
            f" {wrong[0]} ({len(wrong)} records in all): drop empty records, clamp others"
        )
    return lengths.contiguous()
