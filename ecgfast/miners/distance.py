"""How far the records of a batch lie from each other, in input space."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ecgfast.miners.kept import Kept
from ecgfast.ops import dtw, lead_norm, pairwise_distance, resample_poly, soft_dtw

Distance = Literal[
    "dtw", "soft_dtw", "mean_l1", "l1", "sqeuclidean", "euclidean", "cosine", "lead_dtw"
]


View = Callable[[Tensor], tuple[Tensor, Tensor]]


class Compared(NamedTuple):
    """A batch, ready to be compared.

    Attributes:
        clean: The records ``(N, L, T)``, zeros where a record has a sample that is not finite.
        rows: What :meth:`InputDistance.between` takes in their place, ``(N, ...)``.
        eligible: ``(N,)`` bool: the record is finite, and the view has something of it.
    """

    clean: Tensor
    rows: Tensor
    eligible: Tensor


class InputDistance(nn.Module):
    """Distances between all records of a batch, as signals: no network takes part.

    ``dtw`` and ``soft_dtw`` warp time, all leads together; the other words compare sample with
    sample, so that two records agree only where their beats fall at the same moments (``lead_dtw``,
    what the published code computes, does not shift time either). Half the sampling rate is a
    quarter of the work of warping, and its band another factor: `docs/dtw.md` says what both cost
    in neighbours.

    Args:
        distance: ``dtw``, ``soft_dtw`` (its divergence, with squared costs, which is 0 for equal
            records), ``lead_dtw``, or a metric of ``pairwise_distance`` on records as rows of L T
            numbers.
        cost: Between samples, for ``dtw``: see :func:`ecgfast.ops.dtw`.
        radius: Of the band of both, in samples of the records as they are compared or as a share
            of their length; None is the full window.
        gamma: How soft ``soft_dtw`` is, in the square of the records' unit.
        resample: Factor ``(up, down)`` of the sampling rate at which records are compared, not
            above 1.
        view: What of each record is compared in its place, such as its median beat, before the
            rate changes: from ``(N, L, T)`` without gaps to ``(N, L, S)``, and ``(N,)`` bool, which
            records have it. None compares the whole record.
        zscore: Whether every lead of what is compared is brought to mean 0 and variance 1 first:
            its shape then counts, not its voltage.
        keep: MB of views that are kept, where :meth:`compared` is told who the records are: the
            view of a record is then made once, not in every epoch.

    Example:
        >>> warped = InputDistance("dtw", cost="l1", radius=25, resample=(1, 2))
        >>> warped(torch.randn(8, 12, 500)).shape
        torch.Size([8, 8])
    """

    def __init__(
        self,
        distance: Distance = "mean_l1",
        *,
        cost: str = "l1",
        radius: int | float | None = None,
        gamma: float = 0.1,
        resample: tuple[int, int] = (1, 1),
        view: View | None = None,
        zscore: bool = False,
        keep: int = 0,
    ) -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(f"distance must be one of {get_args(Distance)}, got {distance}")
        up, down = resample
        if not 0 < up <= down:
            raise ValueError(f"resample must be a factor in (0, 1], got {up} / {down}")
        self.distance: Distance = distance
        self.cost = cost
        self.radius = radius
        self.gamma = gamma
        self.resample = resample
        self.view = view
        self.zscore = zscore
        self.kept = Kept(keep) if view is not None and keep else None

    def forward(self, ecg: Tensor) -> Tensor:
        """Distances ``(N, N)`` of records ``(N, L, T)`` without gaps; the diagonal says nothing."""
        return self.between(self.compared(ecg).rows)

    @torch.no_grad()
    def compared(self, ecg: Tensor, record: Tensor | None = None) -> Compared:
        """What is compared of records ``(N, L, T)``, and which of them can be.

        Args:
            ecg: The records, prepared.
            record: ``(N,)`` int64, who they are; one number must always mean the same samples.
                None makes the views anew.
        """
        if ecg.dim() != 3:
            raise ValueError(f"ecg must be (N, L, T), got {tuple(ecg.shape)}")
        eligible = ecg.isfinite().flatten(1).all(dim=1)
        clean = torch.where(eligible[:, None, None], ecg, 0)
        if self.view is None:
            return Compared(clean, self.resampled(clean), eligible)
        if self.kept is None or record is None:
            rows, there = self._viewed(clean)
        else:
            rows, there = self.kept(record, clean, self._viewed)
        return Compared(clean, rows, eligible & there)

    def _viewed(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        assert self.view is not None
        viewed, there = self.view(clean)
        return self.resampled(viewed), there

    @torch.no_grad()
    def resampled(self, ecg: Tensor) -> Tensor:
        """Records, or what is viewed of them, at the rate and scale at which they are compared."""
        up, down = self.resample
        if up != down:
            ecg = resample_poly(ecg, up, down, padtype="line")  # an offset must not bend the ends
        return lead_norm(ecg) if self.zscore else ecg

    @torch.no_grad()
    def between(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Distances ``(N, M)`` of all of ``x`` from all of ``y``, or of itself, as compared."""
        if self.distance == "dtw":
            return dtw(x, y, cost=self.cost, radius=self.radius)
        if self.distance == "soft_dtw":
            return soft_dtw(x, y, gamma=self.gamma, radius=self.radius, divergence=True)
        if self.distance == "lead_dtw":
            return lead_dtw(x, y)
        columns = None if y is None else y.flatten(1)
        return pairwise_distance(x.flatten(1), columns, metric=self.distance)


class EmbeddingDistance(InputDistance):
    """Euclidean distances between the embeddings that a frozen encoder gives of records.

    The encoder belongs to an earlier run: it is no part of the module's state, is never trained and
    stays in evaluation mode.

    Args:
        encoder: ``(N, L, T) -> (N, D)``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__("euclidean")
        self._encoder = (encoder.requires_grad_(False).eval(),)  # hidden from train() and state

    @torch.no_grad()
    def resampled(self, ecg: Tensor) -> Tensor:
        """The embeddings ``(N, D)``, which take the place of the records."""
        (encoder,) = self._encoder
        with torch.autocast(ecg.device.type, enabled=False):
            embeddings: Tensor = encoder.to(ecg.device)(ecg)
        return embeddings


def rate_factor(fs: float, mine_fs: float | None) -> tuple[int, int]:
    """The factor between two sampling rates, in whole numbers.

    Raises:
        ValueError: If the second is higher, or their ratio is none of small numbers.
    """
    if mine_fs is None:
        return 1, 1
    if not 0 < mine_fs <= fs:
        raise ValueError(f"mine_fs must be in (0, fs = {fs:g}], got {mine_fs:g}")
    factor = (Fraction(mine_fs) / Fraction(fs)).limit_denominator(1000)
    if abs(factor * Fraction(fs) - Fraction(mine_fs)) > Fraction(fs) / 10**6:
        raise ValueError(
            f"mine_fs must be a ratio of whole numbers below 1000 to {fs:g}: {mine_fs:g}"
        )
    return factor.numerator, factor.denominator


def lead_dtw(ecg: Tensor, other: Tensor | None = None) -> Tensor:
    r"""Dynamic time warping over the leads in their order: not over time.

    This is what the published self-supervised code computes (defect B1): its arrays are leads
    times samples, the library takes the first axis for time. With leads :math:`a_l, b_m` as points
    in T dimensions and monotone paths :math:`\pi` from (1, 1) to (L, L) in steps of one:

    .. math:: d(a, b) = \sqrt{\min_\pi \sum_{(l, m) \in \pi} \lVert a_l - b_m \rVert^2}

    Samples are never shifted in time. Holds the N L M L distances of all leads.

    Args:
        ecg: Records ``(N, L, T)``.
        other: Records ``(M, L, T)`` to compare with; None is ``ecg``.

    Returns:
        Distances ``(N, M)`` in the unit of ``ecg``, not differentiable.
    """
    n, leads, _ = ecg.shape
    m = n if other is None else len(other)
    columns = None if other is None else other.detach().flatten(0, 1)
    cost = pairwise_distance(ecg.detach().flatten(0, 1), columns, metric="sqeuclidean")
    cost = cost.reshape(n, leads, m, leads).permute(1, 3, 0, 2)  # (L, L, N, M)
    best = cost.new_full((leads + 1, leads + 1, n, m), torch.inf)
    best[0, 0] = 0
    for diagonal in range(2 * leads - 1):  # cells of one anti-diagonal do not need each other
        i = torch.arange(max(0, diagonal - leads + 1), min(diagonal, leads - 1) + 1)
        j = diagonal - i
        before = torch.minimum(torch.minimum(best[i, j], best[i, j + 1]), best[i + 1, j])
        best[i + 1, j + 1] = cost[i, j] + before
    return best[leads, leads].sqrt()
