"""Triplet loss from index triplets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import dense_like, place, ready, register, sum_dtype, view


def triplet_loss(
    embeddings: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    valid: Tensor | None = None,
    margin: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    r"""Asks that every anchor be nearer to its positive than to its negative, by a margin.

    .. math:: h_k = \max(0, \|z_{a_k} - z_{p_k}\|^2 - \|z_{a_k} - z_{n_k}\|^2 + m)

    The distances are squared, so the margin is in squared units. The mean is over all valid
    triplets, also those whose hinge is zero. An invalid triplet contributes nothing, is not
    counted, and its indices are not looked at; without a valid one the loss is 0 with a zero
    gradient. Rows may repeat and coincide, within a triplet too. A NaN embedding gives a NaN
    loss if a valid triplet uses it. Embeddings are not normalised here, autocast does not touch
    the op, and no copy of size K x D or N x N is made. Values and gradients are the same bits
    in every run.

    On the CPU an index outside is refused. On CUDA that would mean waiting for the device:
    there its triplet reads no memory, gives no gradient and a NaN loss.

    Args:
        embeddings: ``(N, D)``, any float dtype and strides.
        anchors: Rows of ``embeddings``, ``(K,)`` int64, each in ``[0, N)``.
        positives: Rows that belong to the anchors, likewise.
        negatives: Rows that do not, likewise.
        valid: ``(K,)`` bool, which triplets count; all if None. Miners return it.
        margin: By how much the negative should be farther, in squared distance.
        reduction: ``"mean"`` over valid triplets, ``"sum"``, or ``"none"`` for the hinges.

    Returns:
        Tensor ``()``, or ``(K,)`` if ``reduction="none"``, float32 (float64 for float64), in
        squared units of the embeddings. Differentiable once, with respect to ``embeddings``.

    Raises:
        ValueError: If a shape or ``reduction`` is not as above, or tensors are on two devices.
        TypeError: If a dtype is not as above.
        IndexError: If a valid triplet has an index outside, on the CPU.

    Example:
        >>> triplet_loss(torch.eye(3), *torch.tensor([[0], [1], [2]]))
        tensor(0.2000)
    """
    if embeddings.dim() != 2:
        raise ValueError(f"embeddings must be (N, D), got {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise TypeError(f"embeddings must be of a float dtype, got {embeddings.dtype}")
    if anchors.dim() != 1:
        raise ValueError(f"anchors must be (K,), got {tuple(anchors.shape)}")
    rows = {"anchors": anchors, "positives": positives, "negatives": negatives}
    masks = {} if valid is None else {"valid": valid}
    for name, tensor in (rows | masks).items():
        wanted = torch.bool if name == "valid" else torch.int64
        if tensor.shape != anchors.shape:
            raise ValueError(
                f"{name} must be {tuple(anchors.shape)} as anchors, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != wanted:
            raise TypeError(f"{name} must be {wanted}, got {tensor.dtype}")
        if tensor.device != embeddings.device:
            raise ValueError(
                f"{name} must be on {embeddings.device} as embeddings, got {tensor.device}"
            )
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return _TripletLoss.apply(embeddings, anchors, positives, negatives, valid, margin, reduction)


def triplet_loss_reference(
    embeddings: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    valid: Tensor | None = None,
    margin: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """The same in plain torch: slow, obvious, the truth for tests and benchmarks."""
    counted = torch.ones_like(anchors, dtype=torch.bool) if valid is None else valid
    a, p, n = (embeddings[rows[counted]] for rows in (anchors, positives, negatives))
    hinge = torch.relu((a - p).square().sum(dim=1) - (a - n).square().sum(dim=1) + margin)
    if reduction == "none":
        return hinge.new_zeros(len(anchors)).masked_scatter(counted, hinge)
    return hinge.sum() / max(len(hinge), 1) if reduction == "mean" else hinge.sum()


def _forward_like(
    x: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    valid: Tensor | None,
    margin: float,
    mean: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(anchors.shape, dtype=sum_dtype(x)),
        x.new_empty((), dtype=sum_dtype(x)),
        x.new_empty((3, *anchors.shape), dtype=torch.int32),
        x.new_empty((), dtype=sum_dtype(x)),
    )


@register(
    "triplet_loss(Tensor x, Tensor anchors, Tensor positives, Tensor negatives, Tensor? valid,"
    " float margin, bool mean) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward_like,
)
def _forward(
    x: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    valid: Tensor | None,
    margin: float,
    mean: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = ready(x)
    rows = (anchors, positives, negatives)
    hinge, loss, owners, share = _forward_like(x, *rows, valid, margin, mean)
    faults = anchors.new_empty(())
    if _C.triplet_loss_forward(
        view(x),
        *map(view, rows),
        None if valid is None else view(valid.view(torch.uint8)),
        view(hinge),
        view(owners),
        view(loss),
        view(share),
        view(faults),
        margin,
        mean,
        place(x),
    ):
        raise IndexError(_first_fault(len(x), rows, valid))
    return hinge, loss, owners, share


def _first_fault(count: int, rows: tuple[Tensor, ...], valid: Tensor | None) -> str:
    """Says which index is outside, and how many triplets have one."""
    outside = torch.stack([(row < 0) | (row >= count) for row in rows])
    if valid is not None:
        outside &= valid
    k = int(outside.any(dim=0).nonzero()[0])
    which = int(outside[:, k].nonzero()[0])
    return (
        f"{('anchors', 'positives', 'negatives')[which]}[{k}] must be in [0, {count}), got"
        f" {int(rows[which][k])}; {int(outside.any(dim=0).sum())} of {outside.shape[1]} triplets"
        " have an index outside: mend them, or mark them as not valid"
    )


def _backward_like(
    grad: Tensor,
    x: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    owners: Tensor,
    share: Tensor,
) -> Tensor:
    return dense_like(x)


@register(
    "triplet_loss_backward(Tensor grad, Tensor x, Tensor anchors, Tensor positives,"
    " Tensor negatives, Tensor owners, Tensor share) -> Tensor",
    _backward_like,
)
def _backward(
    grad: Tensor,
    x: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    owners: Tensor,
    share: Tensor,
) -> Tensor:
    dtype, x = x.dtype, ready(x)
    rows = (anchors, positives, negatives)
    grad_x = _backward_like(grad, x, *rows, owners, share)
    # Stable, so that each row of x finds its parts in one order; and no device waits for it.
    in_order, slots = owners.flatten().sort(stable=True)
    _C.triplet_loss_backward(
        view(x),
        *map(view, rows),
        view(in_order),
        view(slots),
        view(grad.expand(anchors.shape)),
        view(share),
        view(grad_x),
        place(x),
    )
    return grad_x.to(dtype)


class _TripletLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        valid: Tensor | None,
        margin: float,
        reduction: str,
    ) -> Tensor:
        rows = (anchors, positives, negatives)
        hinge, loss, owners, share = _forward(x, *rows, valid, margin, reduction == "mean")
        ctx.save_for_backward(x, *rows, owners, share)
        return hinge if reduction == "none" else loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(grad, *ctx.saved_tensors), *(None,) * 6
