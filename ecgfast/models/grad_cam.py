"""Where on a page a score comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.models.page_encoder import PageEncoder


def grad_cam(encoder: PageEncoder, head: nn.Module, pages: Tensor) -> Tensor:
    r"""Gradient-weighted class activation maps (Selvaraju et al., ICCV 2017).

    With the last maps A of the network and the score s of a page,

    .. math:: M = \max\Bigl(0, \sum_k \alpha_k A_k\Bigr), \qquad
        \alpha_k = \frac{1}{h w} \sum_{ij} \frac{\partial s}{\partial A_{kij}}

    which says what raises the score, no finer than the maps are: a cell of a page of 300 pixels has
    30. The score is the head's output: a value, a logit, or of several classes the largest logit.
    A map is not an explanation of a heart; it shows where the network looked.

    Args:
        encoder: Its weights and mode stay as they are; use it in evaluation mode.
        head: ``(N, D) -> (N, C)``.
        pages: ``(N, C, H, W)`` as the encoder takes them.

    Returns:
        ``(N, h, w)``, each page's largest being 1; 0 everywhere where nothing raises its score.
    """
    with torch.enable_grad():
        maps = encoder.features(pages.detach())
        if not maps.requires_grad:  # frozen weights
            maps = maps.detach().requires_grad_()
        embeddings = encoder.embed(encoder.dropout(maps.mean(dim=(2, 3))))
        scores = head(embeddings).flatten(1).max(dim=1).values
        (slopes,) = torch.autograd.grad(scores.sum(), maps)
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    found = (weights * maps.detach()).sum(dim=1).relu()
    most = found.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, found / most.clamp(min=1e-30), 0)
