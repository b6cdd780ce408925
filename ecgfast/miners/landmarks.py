"""Where a record stands among fixed records: coordinates that keep distances in input space."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfast.miners.distance import InputDistance
from ecgfast.miners.kept import Kept
from ecgfast.miners.pools import Pool
from ecgfast.miners.rows import Ids, Rows


class Landmarks(Pool):
    r"""Coordinates of records by their distances from landmarks (de Silva & Tenenbaum, 2004).

    Classical scaling of the landmarks: with their squared distances S, the centring
    :math:`J = I - \frac1m 1 1^T` and the largest eigenvalues and their vectors of
    :math:`-\frac12 J S J`, a record whose squared distances from the m landmarks are s has

    .. math:: c_k = -\frac{v_k^T (s - \bar S)}{2 \sqrt{\lambda_k}}

    and the Euclidean distances of the c are, as well as so many numbers allow, those in input
    space. Then each coordinate is brought to mean 0 and variance 1, as other records have them: a
    wave that is small everywhere, such as P, then counts as much as the axis of QRS.

    m distances a record, once: coordinates are kept by the number of the record. Landmarks and
    projection are state of a checkpoint, so that a run that goes on has the same coordinates.

    Args:
        distance: Between records, in input space.
        reference: What :meth:`InputDistance.compared` makes of at least 2 (dims + 2) records,
            ``(R, ...)``: the first half are landmarks, the others give means and variances.
        dims: Coordinates.
        keep: MB of coordinates that are kept; 0 keeps none.

    Raises:
        ValueError: Too few records, or distances that so many coordinates cannot be made of.

    Example:
        >>> line = torch.randn(64, 3, 1)
        >>> own = torch.arange(64)
        >>> pool = Landmarks(InputDistance("euclidean"), line, dims=3)
        >>> pool(line, Ids(own, own, own), own).coordinates.shape
        torch.Size([64, 3])
    """

    marks: Tensor
    centre: Tensor
    weights: Tensor
    shift: Tensor

    def __init__(
        self, distance: InputDistance, reference: Tensor, *, dims: int = 32, keep: int = 0
    ) -> None:
        super().__init__(distance)
        if dims < 1:
            raise ValueError(f"dims must be at least 1, got {dims}")
        if len(reference) < 2 * (dims + 2):
            raise ValueError(
                f"{dims} coordinates need {2 * (dims + 2)} reference records or more, got "
                f"{len(reference)}"
            )
        half = len(reference) // 2
        marks, others = reference[:half], reference[half:]
        squared = distance.between(marks).double().square()
        squared.fill_diagonal_(0)
        found = torch.linalg.eigh(-0.5 * _centred(squared))
        values, vectors = found.eigenvalues.flip(0)[:dims], found.eigenvectors.flip(1)[:, :dims]
        if not values[-1] > 1e-9 * values[0].abs():
            there = int((values > 1e-9 * values[0].abs()).sum())
            raise ValueError(
                f"distances of {half} landmarks make {there} coordinates, not {dims}: ask for "
                "fewer, or look whether records are copies of each other"
            )
        largest = vectors.abs().argmax(dim=0, keepdim=True)  # a sign, whatever the solver
        weights = -0.5 * vectors * vectors.gather(0, largest).sign() / values.sqrt()
        self.register_buffer("marks", marks.clone())  # nobody else writes into them
        self.register_buffer("centre", squared.mean(dim=0))
        self.register_buffer("weights", weights)
        self.register_buffer("shift", weights.new_zeros(dims))
        seen = self.place(others)
        spread = seen.std(dim=0)
        self.weights = weights / spread
        self.shift = seen.mean(dim=0) / spread
        self.kept = Kept(keep) if keep else None

    @torch.no_grad()
    def place(self, rows: Tensor) -> Tensor:
        """Coordinates ``(N, K)``, float64, of what is compared of records."""
        squared = self.distance.between(rows, self.marks).double().square()
        return (squared - self.centre) @ self.weights - self.shift

    @torch.no_grad()
    def forward(self, ecg: Tensor, ids: Ids, draws: Tensor) -> Rows:
        """Places the records of a step, which come as they are; nobody has a positive."""
        made = self._placed(ecg) if self.kept is None else self.kept(ids.record, ecg, self._placed)
        coordinates, eligible = made
        itself = torch.arange(len(ecg), device=ecg.device)
        return Rows(ecg, ids, itself, eligible & False, eligible, None, coordinates)

    def _placed(self, ecg: Tensor) -> tuple[Tensor, Tensor]:
        _, rows, eligible = self.distance.compared(ecg)
        return self.place(rows).float(), eligible


def _centred(squared: Tensor) -> Tensor:
    """Means of rows and columns taken out."""
    mean = squared.mean(dim=0)
    return squared - mean - mean[:, None] + mean.mean()
