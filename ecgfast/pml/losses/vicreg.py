"""Variance, invariance and covariance of two views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ecgfast.pml.losses._loss import BaseMetricLossFunction
from ecgfast.pml.reducers import BaseReducer, LossDict


class VICRegLoss(BaseMetricLossFunction):
    r"""Brings two views together, keeps columns apart from a constant and from each other.

    .. math:: L = \lambda \langle (z - z')^2 \rangle + \frac{\mu}{2} \sum_{u \in \{z, z'\}}
              \Bigl\langle \max\bigl(0, 1 - \sqrt{\mathrm{var}(u_d) + \epsilon}\bigr)
              \Bigr\rangle_d + \nu \sum_{u} \frac1D \sum_{d \ne e} \mathrm{cov}(u_d, u_e)^2

    (Bardes, Ponce, LeCun 2022.) ``loss(embeddings, ref_emb=other_view)``; it takes neither labels
    nor lists, and needs two rows at least.

    Args:
        invariance_lambda: :math:`\lambda`.
        variance_mu: :math:`\mu`.
        covariance_v: :math:`\nu`.
        eps: :math:`\epsilon`.
        reducer: Of each part but the covariance. Default: the mean.
        collect_stats: None or False.
    """

    def __init__(
        self,
        invariance_lambda: float = 25,
        variance_mu: float = 25,
        covariance_v: float = 1,
        eps: float = 1e-4,
        *,
        reducer: BaseReducer | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(reducer, None, collect_stats)
        self.invariance_lambda = invariance_lambda
        self.variance_mu = variance_mu
        self.covariance_v = covariance_v
        self.eps = eps

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Sequence[Tensor] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> LossDict:
        """The four parts."""
        for name, given in (
            ("labels", labels),
            ("ref_labels", ref_labels),
            ("indices_tuple", indices_tuple),
        ):
            if given is not None:
                raise ValueError(f"VICRegLoss takes no {name}")
        if ref_emb.shape != embeddings.shape:
            raise ValueError(
                f"ref_emb must be {tuple(embeddings.shape)} as embeddings, got"
                f" {tuple(ref_emb.shape)}"
            )
        if len(embeddings) < 2:
            raise ValueError(f"VICRegLoss needs 2 rows for a variance, got {len(embeddings)}")
        apart = (embeddings - ref_emb).square().mean(dim=1)
        spread = [self._spread(view) for view in (embeddings, ref_emb)]
        covariance = _covariance(embeddings) + _covariance(ref_emb)
        return {
            "invariance_loss": _part(self.invariance_lambda * apart),
            "variance_loss1": _part(self.variance_mu * spread[0]),
            "variance_loss2": _part(self.variance_mu * spread[1]),
            "covariance_loss": {
                "losses": self.covariance_v * covariance,
                "indices": None,
                "reduction_type": "already_reduced",
            },
        }

    def _spread(self, view: Tensor) -> Tensor:
        return torch.relu(1 - torch.sqrt(view.var(dim=0) + self.eps)) / 2

    def _sub_loss_names(self) -> list[str]:
        return ["invariance_loss", "variance_loss1", "variance_loss2", "covariance_loss"]


def _part(losses: Tensor) -> dict[str, Any]:
    everyone = torch.arange(len(losses), device=losses.device)
    return {"losses": losses, "indices": everyone, "reduction_type": "element"}


def _covariance(view: Tensor) -> Tensor:
    centred = view - view.mean(dim=0)
    covariance = centred.mT @ centred / (len(view) - 1)
    return 2 * covariance.triu(1).square().sum() / view.shape[1]
