"""What ops do about samples that are NaN or infinite; kernels find them, see csrc/core/gaps.h."""

from __future__ import annotations

import torch
from torch import Tensor

POLICIES = ("raise", "zero", "interpolate", "propagate")


def expect_policy(on_gap: str) -> None:
    """Refuses an unknown word."""
    if on_gap not in POLICIES:
        raise ValueError(f"on_gap must be one of {', '.join(POLICIES)}, got {on_gap!r}")


def native(on_gap: str) -> int:
    """OnGap of csrc/core/gaps.h: rows that raise later are computed as they are."""
    return {"zero": 1, "interpolate": 2}.get(on_gap, 0)


def refuse_gaps(x: Tensor, gaps: Tensor, *, name: str = "x") -> None:
    """Raises ValueError if ``gaps``, the counts of all rows of ``x``, are not zeros."""
    rows = gaps.flatten().nonzero().flatten().tolist()
    if not rows:
        return
    samples, leading = x.shape[-1], x.shape[:-1]
    count = int(gaps.flatten()[rows[0]])
    first = x.reshape(-1, samples)[rows[0]]
    at = (~first.isfinite()).nonzero().flatten()[:3].tolist()
    if len(leading) == 2:
        place = f" in record {rows[0] // leading[1]}, lead {rows[0] % leading[1]}"
    else:
        index = [int(i) for i in torch.unravel_index(torch.tensor(rows[0]), leading)]
        place = f" in row {index[0] if len(index) == 1 else tuple(index)}" if index else ""
    others = f" ({len(rows)} rows in all)" if leading else ""
    raise ValueError(
        f"{name} has {count} of {samples} samples missing (NaN or infinite){place}, the first at"
        f" {', '.join(map(str, at))}{others}; pass on_gap='zero' or 'interpolate'"
    )


def fill_gaps_reference(x: Tensor, on_gap: str) -> Tensor:
    """The gaps filled as ``on_gap`` says, in plain torch. Differentiable."""
    valid = x.isfinite()
    values = torch.where(valid, x, 0)
    if on_gap == "zero" or not x.numel():
        return values
    if on_gap != "interpolate":
        return x
    left, right, weight = _neighbours(valid, x.dtype)
    between = values.gather(-1, left) * (1 - weight) + values.gather(-1, right) * weight
    return torch.where(valid, values, between)


def fill_gaps_backward(grad: Tensor, x: Tensor, gaps: Tensor, on_gap: str) -> Tensor:
    """From the gradient of the filled rows to that of ``x``. Rows without gaps pay nothing.

    Args:
        grad: As ``x``; is changed.
        x: ``(..., T)``, with gaps.
        gaps: How many in each row, ``(rows,)``.
        on_gap: What they were filled with.
    """
    if native(on_gap) == 0:
        return grad
    rows = gaps.flatten().nonzero().flatten()
    if not len(rows):
        return grad
    every = grad.view(-1, grad.shape[-1])
    g = every[rows]
    valid = x.reshape(every.shape)[rows].isfinite()
    own = torch.where(valid, g, 0)
    if on_gap == "interpolate":
        left, right, weight = _neighbours(valid, g.dtype)
        lent = torch.where(valid, 0, g)
        own = own.scatter_add(-1, left, lent * (1 - weight)).scatter_add(-1, right, lent * weight)
        own = torch.where(valid, own, 0)  # a row without any value has no neighbours
    every[rows] = own
    return grad


def _neighbours(valid: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For every sample the places of the values at its sides, and the weight of the right one."""
    samples = valid.shape[-1]
    place = torch.arange(samples, device=valid.device).expand(valid.shape)
    left = torch.where(valid, place, -1).cummax(dim=-1).values
    right = torch.where(valid, place, samples).flip(-1).cummin(dim=-1).values.flip(-1)
    left, right = (
        torch.where(left < 0, right.clamp(max=samples - 1), left),
        torch.where(right == samples, left.clamp(min=0), right),
    )
    weight = (place - left).double() / (right - left).clamp(min=1)
    return left, right, torch.where(right > left, weight, 0).to(dtype)
