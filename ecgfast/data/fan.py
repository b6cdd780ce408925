"""The fan that an ultrasound probe scans, fitted to where pixels move."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

GRID = 96  # points of the longer side on which a fan is fitted
UNEVEN = 1.0  # what angles cost that differ by a radian, of the moving pixels: few are steered
MISSED = 20.0  # what a moving pixel outside of the fan costs, in still pixels inside of it
SOFT = (1.5, 0.7, 0.3, 0.15)  # points over which an edge fades, step by step


class Fan(NamedTuple):
    """All points between two radii and two angles.

    Attributes:
        x: Of the apex, pixels.
        y: Of the apex, pixels; above the frame for a curved probe.
        left: Angle from straight down to the left edge, radians.
        right: Likewise to the right.
        near: Radius at which the fan begins, pixels.
        far: Radius at which it ends, pixels.
    """

    x: float
    y: float
    left: float
    right: float
    near: float
    far: float

    def inside(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """``(H, W)``: which pixels lie in the fan."""
        return self.depth(*np.mgrid[: shape[0], : shape[1]]) >= 0

    def depth(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels from each point to the nearest edge; negative outside."""
        across, down = x - self.x, y - self.y
        radius = np.hypot(across, down)
        edges = (
            across * np.cos(self.left) + down * np.sin(self.left),
            -across * np.cos(self.right) + down * np.sin(self.right),
            radius - self.near,
            self.far - radius,
        )
        return np.minimum(np.minimum(edges[0], edges[1]), np.minimum(edges[2], edges[3]))


def fit_fan(active: NDArray[np.bool_]) -> Fan:
    """The smallest fan, apex up, that holds nearly all that is active.

    Minimised is the number of still points inside of the fan plus twenty times that of active
    points outside of it, edges at first soft, and a little for angles that differ.

    Args:
        active: ``(H, W)``, some of it true.
    """
    step = max(1, -(-max(active.shape) // GRID))
    small = active[::step, ::step]
    y, x = (grid.astype(np.float64) for grid in np.mgrid[: small.shape[0], : small.shape[1]])
    weight = np.where(small, -MISSED, 1.0)
    found = _first(small)
    moving = int(small.sum())
    size = float(max(small.shape))
    scale = np.array([size, size, 1.0, 1.0, size, size])

    def cost(words: NDArray[np.float64], soft: float) -> float:
        fan = Fan(*(words * scale))
        if not (0.05 < fan.left < 1.5 and 0.05 < fan.right < 1.5 and -1 <= fan.near < fan.far):
            return float(MISSED * small.size)
        # without the shift soft edges would come to rest outside, as a miss costs more
        depth = np.clip(fan.depth(y, x) / soft + math.log(MISSED), -30, 30)
        uneven = UNEVEN * moving * (fan.left - fan.right) ** 2
        return float((weight / (1 + np.exp(-depth))).sum()) + uneven

    begin = np.array(found) / scale
    spread = np.diag([0.03, -0.04, 0.1, 0.1, 0.03, 0.04])
    for soft in SOFT:  # each with a new simplex: an old one may have collapsed on the way
        how = {"initial_simplex": np.vstack([begin, begin + spread]), "xatol": 1e-3, "fatol": 0.5}
        begin = minimize(cost, begin, (soft,), "Nelder-Mead", options=how).x
    x0, y0, left, right, near, far = begin * scale
    return Fan(x0 * step, y0 * step, left, right, near * step, far * step)


def _first(small: NDArray[np.bool_]) -> Fan:
    """A fan from the rows and columns that active points reach."""
    rows = np.flatnonzero(small.any(axis=1))
    top, bottom = float(rows[0]), float(rows[-1])
    x = float(np.flatnonzero(small[rows[0] : rows[0] + 3].any(axis=0)).mean())
    points = np.argwhere(small)
    angle = np.arctan2(np.abs(points[:, 1] - x), np.maximum(points[:, 0] - top + 1, 1.0))
    deep = points[:, 0] - top > 0.3 * (bottom - top)
    half = float(np.quantile(angle[deep], 0.99)) if deep.any() else 0.6
    half = min(max(half, 0.15), 1.2)
    return Fan(x, top - 1, half, half, 1.0, bottom - top + 1)
