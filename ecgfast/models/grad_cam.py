"""Where on a page, or in a clip, a score comes from."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Mapped(Protocol):
    """An encoder that shows its last maps."""

    def features(self, x: Tensor, /) -> Tensor:
        """``(N, D, ...)``: rows and columns, of clips frames before them."""

    def pooled(self, maps: Tensor, /) -> Tensor:
        """Embeddings of the maps."""


def grad_cam(encoder: Mapped, head: nn.Module, x: Tensor) -> Tensor:
    r"""Gradient-weighted class activation maps (Selvaraju et al., ICCV 2017).

    With the last maps A of the network and the score s of a page or a clip,

    .. math:: M = \max\Bigl(0, \sum_k \alpha_k A_k\Bigr), \qquad
        \alpha_k = \frac{1}{h w} \sum_{ij} \frac{\partial s}{\partial A_{kij}}

    (over the frames of maps, too, where there are any) which says what raises the score, no finer
    than the maps are: a cell of a page of 300 pixels has 30, one of a clip of 112 has 16 by 8
    frames. The score is the head's output: a value, a logit, or of several classes the largest
    logit. A map is not an explanation of a heart; it shows where the network looked.

    Args:
        encoder: Its weights and mode stay as they are; use it in evaluation mode.
        head: ``(N, D) -> (N, C)``.
        x: Pages ``(N, C, H, W)`` or clips ``(N, C, F, H, W)``, as the encoder takes them.

    Returns:
        ``(N, h, w)``, of clips ``(N, f, h, w)``, each one's largest being 1; 0 everywhere where
        nothing raises its score.
    """
    with torch.enable_grad():
        maps = encoder.features(x.detach())
        if not maps.requires_grad:  # frozen weights
            maps = maps.detach().requires_grad_()
        scores = head(encoder.pooled(maps)).flatten(1).max(dim=1).values
        (slopes,) = torch.autograd.grad(scores.sum(), maps)
    places = tuple(range(2, maps.dim()))
    weights = slopes.mean(dim=places, keepdim=True)
    found = (weights * maps.detach()).sum(dim=1).relu()
    most = found.amax(dim=tuple(range(1, found.dim())), keepdim=True)
    return torch.where(most > 0, found / most.clamp(min=1e-30), 0)
