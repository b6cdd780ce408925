"""EchoCLR: contrastive learning between videos of a study, and the order of frames."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.contrastive import NTXentLoss
from ecgfast.losses.frame_order import UNKNOWN, FrameOrderLoss
from ecgfast.methods.views import similarity, spread
from ecgfast.train.method import Method


class EchoCLR(Method):
    """Two clips of a pair attract each other and repel the others; each tells its frames' order.

    The first half of a batch are anchors, the second half their partners: who is paired is the
    sampler's matter. All frames of a clip are moved alike. With ``orders`` the frames of each clip
    are shown in an order of its own, and a linear layer on the embedding says in which: the loss is
    NT-Xent of the projections plus ``order`` times the cross entropy of the orders (Holste et al.,
    Commun Med 2024). A clip whose order cannot be told, or only by its padding, is not asked for
    it: see :func:`has_order`.

    Logged are both losses (``contrastive``, ``order_loss``), the share of orders that were told
    (``order_accuracy``) among those that were asked for, the share of these (``order_known``), the
    spread of the embeddings, and the mean cosine of the projections of a pair (``similarity``) and
    of different pairs (``similarity_others``).

    Args:
        encoder: ``(N, C, F, H, W) -> (N, D)``, of floats.
        projector: ``(N, D) -> (N, P)``.
        views: Moves and scales clips, ``(N, C, F, H, W)`` uint8 and an order ``(N, F)`` or none to
            floats, drawn anew at each call.
        orders: Draws orders ``(N, F)`` and their codes ``(N,)`` for N clips; none leaves frames in
            their order, and asks nothing.
        order_head: ``(N, D) -> (N, F!)``, with orders.
        order: Weight of the loss of orders.
        mask: Clips of other pairs that do not repel: none does, those of the same study, or those
            of the same patient.
        temperature: Of the contrastive loss.
        gather: Negatives are the clips of all ranks.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        views: nn.Module,
        *,
        orders: nn.Module | None = None,
        order_head: nn.Module | None = None,
        order: float = 1.0,
        mask: Literal["none", "study", "patient"],
        temperature: float,
        gather: bool,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.projector = projector
        self.views = views
        self.orders = orders
        self.order_head = order_head
        self.order = order
        self.mask = mask
        self.loss = NTXentLoss(temperature, gather=gather)
        self.order_loss = FrameOrderLoss(gather=gather)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the clips ``ecg`` ``(N, C, F, H, W)`` uint8 of N / 2 pairs."""
        clips = batch["ecg"]
        with self.clock.part("views", clips.device):
            shown, code = self._drawn(clips)
            seen = self.views(clips, shown)
        embeddings = self.embed(seen)
        projections = self.projector(embeddings)
        groups = None if self.mask == "none" else batch[self.mask]
        loss: Tensor = self.loss(projections, pair_labels(batch["index"]), groups=groups)
        logged = {"contrastive": loss.detach()}
        if self.order_head is not None and code is not None:
            logits = self.order_head(embeddings)
            told: Tensor = self.order_loss(logits, code)
            loss = loss + self.order * told
            logged |= {"order_loss": told.detach(), **_told(logits, code)}
        self.log_dict(
            {
                "loss": loss.detach(),
                **logged,
                **spread(embeddings),
                **similarity(*projections.chunk(2)),
            }
        )
        return loss

    def _drawn(self, clips: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Orders ``(N, F)`` and codes ``(N,)`` of a batch, -1 where none is asked for."""
        if self.orders is None:
            return None, None
        shown, code = self.orders(len(clips))
        return shown, torch.where(has_order(clips), code, UNKNOWN)


def pair_labels(index: Tensor) -> Tensor:
    """Labels ``(N,)`` that the two clips of a pair share, and no other pair.

    Args:
        index: Numbers of the videos ``(N,)``, of all ranks different ones: of all anchors, then of
            their partners. Under 2^31.
    """
    anchors, partners = index.chunk(2)
    return (anchors * 2**31 + partners).repeat(2)


def has_order(clips: Tensor) -> Tensor:
    """Of which clips ``(N, C, F, H, W)`` the order of frames can be asked for, ``(N,)``.

    Where two frames are the same there is no one order. Where a frame is of one level there is no
    picture: it pads a video that is shorter than a clip, and as that is known to be the last, it
    would give away a part of the answer.

    Example:
        >>> clips = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 2, 2)
        >>> clips[1, :, 3] = 0
        >>> has_order(clips)
        tensor([ True, False])
    """
    frames = clips.transpose(1, 2).flatten(2)
    blank = (frames == frames[..., :1]).all(dim=2).any(dim=1)
    alike = [
        (frames[:, one] == frames[:, other]).all(dim=1)
        for one, other in combinations(range(frames.shape[1]), 2)
    ]
    return ~torch.stack([blank, *alike]).any(dim=0)


def _told(logits: Tensor, code: Tensor) -> dict[str, Tensor]:
    known = code != UNKNOWN
    right = (logits.detach().argmax(dim=1) == code).sum()  # no argmax is -1
    count = known.sum()
    return {"order_accuracy": right / count.clamp(min=1), "order_known": count / len(code)}
