"""Triplets from the extremes of a distance matrix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.miners.distance import Distance, InputDistance
from ecgfast.miners.triplets import Triplets


class NearestFarthest(nn.Module):
    """Positive and negative of each record by its distances to the others in the batch.

    Distances are taken in input space, on whole records. A record with a value that is not finite
    is nobody's neighbour and its own triplet is not valid; with fewer than three records left none
    is. Ties go to the lowest index. What is drawn is drawn on the generator's device, the CPU
    unless told otherwise, so that every device gets the same triplets.

    Args:
        distance: An :class:`InputDistance`, or a word for one.
        positive: ``nearest``, or ``two_farthest``, one of the two farthest (the published
            on-the-fly mode, defect B2).
        negative: ``farthest`` draws from the ``topk`` farthest, ``random`` from all; never the
            record itself nor its positive.
        topk: From how many farthest the negative is drawn. Where the positive is one of them, one
            fewer is left, but at least one.

    Example:
        >>> line = torch.tensor([0.0, 1.0, 3.0, 9.0]).reshape(4, 1, 1)
        >>> NearestFarthest(negative="farthest", topk=1)(line).positives
        tensor([1, 0, 1, 2])
    """

    def __init__(
        self,
        distance: Distance | InputDistance = "mean_l1",
        positive: Literal["nearest", "two_farthest"] = "nearest",
        negative: Literal["random", "farthest"] = "random",
        topk: int = 2,
    ) -> None:
        super().__init__()
        if positive not in ("nearest", "two_farthest"):
            raise ValueError(f"positive must be nearest or two_farthest, got {positive}")
        if negative not in ("random", "farthest"):
            raise ValueError(f"negative must be random or farthest, got {negative}")
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.distance = InputDistance(distance) if isinstance(distance, str) else distance
        self.positive = positive
        self.negative = negative
        self.topk = topk

    @torch.no_grad()
    def forward(self, ecg: Tensor, *, generator: torch.Generator | None = None) -> Triplets:
        """Mines a batch.

        Args:
            ecg: Records ``(N, L, T)``.
            generator: Of the draws; none takes torch's own on the CPU.

        Returns:
            N triplets.
        """
        if ecg.dim() != 3:
            raise ValueError(f"ecg must be (N, L, T), got {tuple(ecg.shape)}")
        eligible = ecg.isfinite().flatten(1).all(dim=1)
        clean = torch.where(eligible[:, None, None], ecg, 0)
        return self.mine(self.distance(clean), eligible, generator=generator)

    @torch.no_grad()
    def mine(
        self, distances: Tensor, eligible: Tensor, *, generator: torch.Generator | None = None
    ) -> Triplets:
        """Mines a distance matrix that is already there.

        Args:
            distances: ``(N, N)``; the diagonal is not read.
            eligible: ``(N,)`` bool.
            generator: As in forward.
        """
        n, device = len(distances), distances.device
        itself = torch.arange(n, device=device)
        if n == 0:
            return Triplets(itself, itself, itself, eligible)
        others = eligible & (itself != itself[:, None])  # (N, N): row's possible partners
        valid = eligible & (eligible.sum() >= 3)
        draws = torch.rand(
            2,
            n,
            dtype=torch.float64,
            generator=generator,
            device="cpu" if generator is None else generator.device,
        ).to(device)

        # overflown distances are far, not farther than what is excluded
        largest = torch.finfo(distances.dtype).max
        distances = distances.nan_to_num(nan=largest, posinf=largest)
        if self.positive == "nearest":
            positives = distances.masked_fill(~others, torch.inf).argmin(dim=1)
        else:
            positives = _pick(distances.masked_fill(~others, -torch.inf), draws[0], n_first=2)

        if self.negative == "random":  # all are equally far: in order of their index
            distances, n_first = torch.zeros_like(distances), n
        else:
            n_first = self.topk
        distances = distances.masked_fill(~others, -torch.inf)
        negatives = _pick(distances, draws[1], n_first=n_first, but=positives)
        return Triplets(
            itself,
            torch.where(valid, positives, itself),
            torch.where(valid, negatives, itself),
            valid,
        )


def _pick(distances: Tensor, draws: Tensor, *, n_first: int, but: Tensor | None = None) -> Tensor:
    """One of each row's ``n_first`` farthest, -inf never; ``but`` is taken out of these."""
    order = distances.argsort(dim=1, descending=True, stable=True)
    count = distances.isfinite().sum(dim=1).clamp(max=n_first)
    if but is None:
        rank = (draws * count).long()
    else:
        place = (order == but[:, None]).int().argmax(dim=1)
        count = (count - (place < count).long()).clamp(min=1)
        rank = (draws * count).long()
        rank += rank >= place  # step over it
    return order.gather(1, rank.clamp(max=order.shape[1] - 1)[:, None])[:, 0]
