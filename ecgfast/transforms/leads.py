"""Records that show some of their leads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# of I II III aVR aVL aVF V1-V6: those of the PhysioNet challenge of 2021, and the eight independent
SUBSETS = (
    (0, 1),
    (0, 1, 7),
    (0, 1, 2, 7),
    (0, 1, 2, 3, 4, 5),
    (0, 1, 6, 7, 8, 9, 10, 11),
    tuple(range(12)),
)
SHARES = (0.1, 0.1, 0.1, 0.1, 0.1, 0.5)
LEADS = 12


class LeadSubsets(nn.Module):
    """Sets the leads outside a drawn subset to 0, for a part of the records.

    A subset has 2 (I, II), 3 (and V2), 4 (and III), 6 (limb leads), 8 (I, II, V1-V6) or all 12
    leads; the five smaller ones come one time in ten each (Chen et al., arXiv 2403.10581). Each
    record draws its own, from torch's global generator of its device.

    Args:
        p: Share of the records that draw.

    Example:
        >>> LeadSubsets(0.0)(torch.ones(1, 12, 5)).sum()
        tensor(60.)
    """

    keep: Tensor
    bounds: Tensor

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in [0, 1], got {p}")
        self.p = p
        keep = torch.zeros(len(SUBSETS), LEADS, dtype=torch.bool)
        for row, leads in zip(keep, SUBSETS, strict=True):
            row[list(leads)] = True
        self.register_buffer("keep", keep, persistent=False)
        bounds = torch.tensor(SHARES, dtype=torch.float64).cumsum(0)[:-1].float()
        self.register_buffer("bounds", bounds, persistent=False)

    def forward(self, ecg: Tensor) -> Tensor:
        """Signals ``(N, 12, T)``, other leads than those drawn set to 0.

        Raises:
            ValueError: There are not 12 leads.
        """
        if ecg.dim() != 3 or ecg.shape[1] != LEADS:
            raise ValueError(f"ecg must be (N, {LEADS}, T), got {tuple(ecg.shape)}")
        draws, which = torch.rand(2, len(ecg), device=ecg.device)
        keep = self.keep[torch.bucketize(which, self.bounds, right=True)]
        keep = keep | (draws >= self.p)[:, None]
        return ecg.masked_fill(~keep[:, :, None], 0.0)
