"""ECGs beside what is written of them: alignment, what keeps it from collapse, reconstruction."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ecgfast.losses.contrastive import InfoNCELoss
from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.ops import gather as gather_ranks


class Aligned(NamedTuple):
    """Parts of a loss, each a tensor ``()``."""

    alignment: Tensor
    guard: Tensor


class AlignmentLoss(nn.Module):
    r"""Brings projections of ECGs and of their texts together, row by row.

    ``cosine`` is what Chen et al. publish (arXiv 2403.10581), :math:`1 - \cos(g_n, h_n)` in the
    mean over rows; nothing repels, and a constant is a perfect answer. ``infonce`` is
    :class:`InfoNCELoss` in both directions: with labels, rows of one label are positives of each
    other; with groups, rows of a group under other labels are left out of the negatives.

    The guard is the variance and, with 1/25 of its weight, the covariance of
    :class:`VICRegLoss`, of both projections, for rows that stand as they are, not of unit length.

    Rows that are not valid are in neither. With ``gather`` the rows of all ranks are one batch, and
    each rank has the loss of one process on all of it, with the exact gradient.

    Args:
        kind: ``infonce`` or ``cosine``.
        temperature: Of infonce, at first; 0.01 or more.
        learnable: Whether it is trained.
        guard: Whether to compute the guard; otherwise it is 0.
        gather: Use the rows of all ranks.

    Example:
        >>> loss = AlignmentLoss("cosine")
        >>> loss(torch.eye(2), torch.eye(2), valid=torch.tensor([True, False])).alignment
        tensor(0.)
    """

    def __init__(
        self,
        kind: Literal["infonce", "cosine"] = "infonce",
        *,
        temperature: float = 0.07,
        learnable: bool = True,
        guard: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("infonce", "cosine"):
            raise ValueError(f"kind must be 'infonce' or 'cosine', got {kind!r}")
        self.info_nce = InfoNCELoss(temperature, learnable) if kind == "infonce" else None
        self.guard = VICRegLoss(0.0, 1.0, 0.04) if guard else None
        self.gather = gather

    def forward(
        self,
        ecg: Tensor,
        texts: Tensor,
        *,
        valid: Tensor,
        labels: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Aligned:
        """The parts, of projections ``(N, P)`` of ECGs and of their texts.

        Args:
            ecg: Row n is an ECG,
            texts: and row n what is written of it.
            valid: ``(N,)`` bool, which rows count.
            labels: ``(N,)`` int64, of infonce; none makes each row its only positive.
            groups: ``(N,)`` int64, such as patients, of infonce.

        Raises:
            ValueError: If the shapes differ.
        """
        if ecg.dim() != 2 or ecg.shape != texts.shape or valid.shape != ecg.shape[:1]:
            raise ValueError(
                f"ecg and texts must be (N, P), valid (N,), got {tuple(ecg.shape)}, "
                f"{tuple(texts.shape)} and {tuple(valid.shape)}"
            )
        ids = [labels, groups]
        if self.gather:
            ecg, texts = gather_ranks(ecg), gather_ranks(texts)
            valid = gather_ranks(valid.long())
            ids = [None if one is None else gather_ranks(one) for one in ids]
        kept = valid.nonzero()[:, 0]
        nothing = 0 * (ecg.sum() + texts.sum())  # with a gradient of 0: ranks wait for each other
        ecg, texts = ecg.index_select(0, kept), texts.index_select(0, kept)
        labels, groups = (None if one is None else one[kept] for one in ids)
        guard = alignment = nothing
        if self.info_nce is not None:
            alignment = alignment + 0 * self.info_nce.log_scale  # ranks wait for its gradient, too
        if len(kept) and self.info_nce is not None:
            alignment = alignment + self.info_nce(ecg, texts, labels=labels, groups=groups)
        elif len(kept):
            cosine = nn.functional.cosine_similarity(ecg.float(), texts.float(), dim=1)
            alignment = alignment + (1 - cosine).mean()
        if len(kept) > 1 and self.guard is not None:
            guard = guard + self.guard(ecg, texts)
        return Aligned(alignment, guard)


def reconstruction_loss(drawn: Tensor, ecg: Tensor) -> Tensor:
    """Mean squared error ``()`` over the samples of ``ecg`` ``(N, L, T)`` that were recorded.

    A missing sample is NaN; where there is no other, the loss is 0.

    Example:
        >>> reconstruction_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, torch.nan]))
        tensor(4.)
    """
    there = ecg.isfinite()
    drawn = drawn if drawn.dtype == torch.float64 else drawn.float()
    apart = torch.where(there, drawn - ecg.nan_to_num(0.0, 0.0, 0.0), 0.0)
    loss: Tensor = apart.square().sum() / there.sum().clamp(min=1)
    return loss
