"""Variance, invariance and covariance of two views."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ecgfast.ops import gather as gather_ranks


class VICRegLoss(nn.Module):
    r"""Brings two views together, and keeps columns apart from a constant and from each other.

    .. math::
        L = \lambda \frac{1}{N D} \sum_{n, d} (z_{nd} - z'_{nd})^2
        + \mu \sum_{u \in \{z, z'\}} \frac1D \sum_d
          \max\bigl(0, 1 - \sqrt{\mathrm{var}(u_d) + \epsilon}\bigr)
        + \nu \sum_{u \in \{z, z'\}} \frac1D \sum_{d \ne e} \mathrm{cov}(u_d, u_e)^2

    with variances and covariances over the rows, by N - 1 (Bardes, Ponce, LeCun: VICReg, ICLR
    2022). Where sources differ: the paper's equation sums the invariance over the columns, the
    authors' code takes the mean, which their weights 25, 25, 1 belong to, and so does this. The
    paper adds the variance terms of both views, as here; the authors' code and
    pytorch-metric-learning halve them: their ``variance_mu = 25`` is ``variance=12.5``.

    Plain torch, as a kernel could save little beside the product :math:`z^T z`: two of these and
    two in backward take two thirds of the time of both directions at N = D = 512 in float32, nine
    tenths at D = 2048 (measured on two cores). Memory is O(N D + D^2): the diagonal is set to zero
    in the matrix of covariances, nothing is picked from it. No product is rounded to a half,
    whatever the input or autocast says. Differentiable once.

    Args:
        invariance: :math:`\lambda`.
        variance: :math:`\mu`.
        covariance: :math:`\nu`.
        eps: :math:`\epsilon`, in the square of the unit of the embeddings.
        gather: Takes the rows of all ranks, with the exact gradient: every rank has the loss of
            one process on the whole batch. Every rank makes all of the products.

    Example:
        >>> views = torch.tensor([[[2.0], [0.0]], [[2.0], [0.0]]])
        >>> VICRegLoss()(*views)  # equal, and spread by more than 1
        tensor(0.)
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        eps: float = 1e-4,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance
        self.eps = eps
        self.gather = gather

    def forward(self, embeddings: Tensor, others: Tensor) -> Tensor:
        """The loss ``()`` of two views ``(N, D)``, row n of both from one record; N > 1.

        Raises:
            ValueError: If the shapes are not as above, or there is one row: it has no variance.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] == 0:
            raise ValueError(f"embeddings must be (N, D) with D > 0, got {tuple(embeddings.shape)}")
        if others.shape != embeddings.shape:
            raise ValueError(
                f"others must be {tuple(embeddings.shape)} as embeddings, got {tuple(others.shape)}"
            )
        views = [
            view if view.dtype == torch.float64 else view.float() for view in (embeddings, others)
        ]
        if self.gather:
            views = [gather_ranks(view) for view in views]
        rows, columns = views[0].shape
        if rows < 2:
            raise ValueError(
                f"embeddings have {rows} row: a variance needs 2. Give larger batches, or drop the"
                " last, smaller one"
            )
        loss = self.invariance * (views[0] - views[1]).square().mean()
        for view in views:
            centred = view - view.mean(dim=0)
            variances = centred.square().sum(dim=0) / (rows - 1)
            spread = torch.relu(1 - torch.sqrt(variances + self.eps)).mean()
            shared: Tensor = _Covariances.apply(centred)
            loss = loss + self.variance * spread + self.covariance * shared / columns
        return loss

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return (
            f"invariance={self.invariance}, variance={self.variance}, covariance={self.covariance},"
            f" eps={self.eps}, gather={self.gather}"
        )


class _Covariances(torch.autograd.Function):
    """The sum of squares of all covariances of two columns; backward is one product, not two."""

    @staticmethod
    def forward(ctx: Any, centred: Tensor) -> Tensor:
        with torch.autocast(centred.device.type, enabled=False):
            covariances = torch.mm(centred.mT, centred).div_(len(centred) - 1).fill_diagonal_(0)
        ctx.save_for_backward(centred, covariances)
        return torch.linalg.vector_norm(covariances).square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        centred, covariances = ctx.saved_tensors
        with torch.autocast(centred.device.type, enabled=False):
            return torch.mm(centred, covariances).mul_(4 * grad / (len(centred) - 1))
