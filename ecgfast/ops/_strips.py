"""Row strips of the matrix of all products: N x M is never held, and no product leaves the GEMM.

A strip is made by torch's matrix product, in float32 at least, whatever autocast says; an
epilogue kernel of the room then reads it, or overwrites it with gradient coefficients. Memory is
one strip. The height of the strips is part of what fixes the bits of a result, so it does not
depend on how much memory happens to be free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ecgfast.ops._native import sum_dtype

_ROWS = {"cpu": 256, "cuda": 1024}  # a GEMM near its peak; at M = 65,536: 67 MB, 268 MB
_KEPT_BYTES = 2**24  # all products of 2,048 rows in float32
_BLOCK = 512  # a GEMM near its peak, and three eighths fewer products of 2,048 rows
_WIDE = 256
_HALF = (torch.float16, torch.bfloat16)


def fits(rows: Tensor, columns: Tensor) -> bool:
    """Whether all products are so few that they are kept from forward to backward."""
    size = 8 if sum_dtype(rows) == torch.float64 else 4
    return len(rows) * len(columns) * size <= _KEPT_BYTES


def products(
    rows: Tensor, columns: Tensor, *, height: int | None = None, kept: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yields strips of ``rows @ columns.T``: which rows, and their products, dense ``(R, M)``.

    Every strip lies in the memory of the one before. Kernels may write into it. With ``kept``
    ``(N, M)`` there is one strip, in that memory.
    """
    if kept is not None:
        # mirroring costs as much as products of narrow rows
        half = columns is rows and len(rows) > _BLOCK and rows.shape[1] >= _WIDE
        whole = _symmetric(rows, kept) if half else _product(rows, columns.mT, kept)
        yield slice(0, len(rows)), whole
        return
    height = _ROWS[rows.device.type] if height is None else height
    strip = rows.new_empty((min(height, len(rows)), len(columns)), dtype=sum_dtype(rows))
    for first in range(0, len(rows), height):
        part = slice(first, min(first + height, len(rows)))
        yield part, _product(rows[part], columns.mT, strip[: part.stop - first])


def add_product(total: Tensor, coefficients: Tensor, rows: Tensor) -> None:
    """``total += coefficients @ rows``, where total and coefficients are in the dtype of sums."""
    with _no_autocast(rows):
        if rows.dtype in _HALF:  # on CUDA alone: a half is widened on the CPU
            total += torch.mm(coefficients.to(rows.dtype), rows, out_dtype=total.dtype)
        else:
            total.addmm_(coefficients, rows)


def _symmetric(rows: Tensor, out: Tensor) -> Tensor:
    """All products of rows with each other: blocks on and over the diagonal, the rest mirrored."""
    for first in range(0, len(rows), _BLOCK):
        last = first + _BLOCK
        _product(rows[first:last], rows[first:].mT, out[first:last, first:])
        out[last:, first:last] = out[first:last, last:].mT
    return out


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    with _no_autocast(a):
        if a.dtype in _HALF:
            return torch.mm(a, b, out_dtype=out.dtype, out=out)
        return torch.mm(a, b, out=out)


def _no_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """Autocast reaches into bodies of ops. To leave it costs as much as a small product."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
