"""What stands beyond the ends of a signal under a moving window; see csrc/core/beyond.h."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MODES = ("nearest", "reflect", "mirror", "constant", "wrap")  # numbered as in csrc/core/beyond.h


def expect_window(x: Tensor, window: int, mode: str, modes: tuple[str, ...]) -> None:
    """Refuses what no moving window can run over."""
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., T) with T > 0, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be of a float dtype, got {x.dtype}")
    if not isinstance(window, int):
        raise TypeError(f"window must be an int, in samples, got {window!r}")
    if window < 1:
        raise ValueError(f"window must be positive, got {window}")
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {mode!r}")


def samples_at(places: NDArray[np.int64], samples: int, mode: str) -> NDArray[np.int64]:
    """Which sample stands at each place, -1 for a zero."""
    if mode == "constant":
        return np.where((places >= 0) & (places < samples), places, -1)
    if mode == "nearest" or samples == 1:
        return places.clip(0, samples - 1)
    if mode == "wrap":
        return places % samples
    period = 2 * samples if mode == "reflect" else 2 * samples - 2
    at = places % period
    return np.where(at < samples, at, period - at - (mode == "reflect"))


def padded(x: Tensor, before: int, after: int, mode: str) -> Tensor:
    """The signal with what stands beside it, ``(..., before + T + after)``."""
    places = samples_at(np.arange(-before, x.shape[-1] + after), x.shape[-1], mode)
    at = torch.from_numpy(places).to(x.device)
    return torch.where(at < 0, 0, x[..., at.clamp(min=0)])


def folded(grad: Tensor, before: int, samples: int, mode: str) -> Tensor:
    """The transposed map of ``padded``. Sums are made in one order on every device."""
    inside = grad[..., before : before + samples].contiguous()
    if mode == "constant":
        return inside
    # From the signal outwards: so many places in a row hold no sample twice, from turn to turn.
    once = samples - 1 if mode == "mirror" else samples
    beside = [np.arange(-1, -before - 1, -1), np.arange(samples, grad.shape[-1] - before)]
    for places in beside:
        at = samples_at(places, samples, mode)
        if mode == "nearest" or samples == 1:
            if len(places):
                inside[..., at[0]] += grad[..., torch.from_numpy(places + before)].sum(dim=-1)
            continue
        for first in range(0, len(places), once):
            part = slice(first, first + once)
            to = torch.from_numpy(at[part]).to(grad.device)
            inside[..., to] += grad[..., torch.from_numpy(places[part] + before).to(grad.device)]
    return inside
