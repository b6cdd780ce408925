"""The path behind one distance of dtw, for plots: in plain torch, since nobody needs many."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfast.ops.dtw import expect_how

_DIAGONAL, _ROW = 0, 1  # where a cell came from: both a sample back, or that of x alone; else y's


def dtw_path(
    x: Tensor, y: Tensor, *, cost: str = "sqeuclidean", radius: int | float | None = None
) -> Tensor:
    """Finds which samples of two records dynamic time warping puts side by side.

    The sum of the local costs along it is what ``dtw(..., root=False)`` gives for the two, up to
    rounding: it is computed in float64 on the CPU. Of paths equally short it is the one that, seen
    from the end, steps along the diagonal first, then along ``x``. It keeps a byte for each of the
    T x U cells.

    Args:
        x: One record, ``(L, T)``.
        y: Another, ``(L, U)``.
        cost: As for ``dtw``.
        radius: As for ``dtw``.

    Returns:
        Tensor ``(K, 2)`` int64 on the CPU, from (0, 0) to (T - 1, U - 1): a sample of ``x``, the
        one of ``y`` beside it.

    Raises:
        ValueError: If a record is not as above, has a sample that is NaN or infinite, or the leads
            differ; and for ``cost`` and ``radius`` as ``dtw``.

    Example:
        >>> dtw_path(torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.0, 1, 1]])).tolist()
        [[0, 0], [1, 0], [2, 1], [2, 2]]
    """
    expect_how(cost, radius)
    for name, record in (("x", x), ("y", y)):
        if record.dim() != 2 or 0 in record.shape:
            raise ValueError(f"{name} must be (leads, samples), got {tuple(record.shape)}")
        if not record.isfinite().all():
            raise ValueError(f"{name} has samples that are NaN or infinite: fill them first")
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"x has {x.shape[0]} leads and y has {y.shape[0]}")
    return _walked(_origins(x.detach().double().cpu(), y.detach().double().cpu(), cost, radius))


def _origins(x: Tensor, y: Tensor, cost: str, radius: int | float | None) -> Tensor:
    """Where each cell came from, ``(T, U)``. Cells with one sum of indices are made together."""
    n, m = x.shape[1], y.shape[1]
    reach = n + m if radius is None else radius
    reach = int(reach * min(n, m)) if isinstance(reach, float) else reach
    back = y.flip(1)
    origins = torch.zeros(n, m, dtype=torch.uint8)
    # D of the last two such sets by sample of x, one place further on: in front there is nothing
    former = torch.full((n + 1,), torch.inf, dtype=torch.float64)
    latest = former.clone()
    former[0] = 0
    for k in range(n + m - 1):
        low, high = max(0, k - m + 1), min(n - 1, k)
        s = torch.arange(low, high + 1)
        apart = x[:, low : high + 1] - back[:, m - 1 - k + low : m - k + high]
        local = apart.abs().sum(0) if cost == "l1" else apart.square().sum(0)
        local = local.sqrt() if cost == "euclidean" else local
        steps = torch.stack([former[s], latest[s], latest[s + 1]])
        origin = steps.argmin(0)
        offset = k - 2 * s  # sample of y less that of x
        outside = (offset < -reach - max(0, n - m)) | (offset > reach + max(0, m - n))
        former, latest = latest, torch.full_like(latest, torch.inf)
        latest[s + 1] = (local + steps.amin(0)).masked_fill(outside, torch.inf)
        origins[s, k - s] = origin.to(torch.uint8)
    return origins


def _walked(origins: Tensor) -> Tensor:
    s, t = origins.shape[0] - 1, origins.shape[1] - 1
    path = [(s, t)]
    while s or t:
        origin = int(origins[s, t])
        s -= origin in (_DIAGONAL, _ROW)
        t -= origin != _ROW
        path.append((s, t))
    return torch.tensor(path[::-1])
