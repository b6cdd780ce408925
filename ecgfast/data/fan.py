"""The fan that an ultrasound probe scans, fitted to where pixels move."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

GRID = 96  # points of the longer side on which a fan is fitted
MISSED = 6.0  # what a moving pixel outside of the fan costs, in still pixels inside of it
SOFT = (2.0, 0.7)  # points over which an edge fades, first and last


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

    Minimised is the number of still points inside of the fan plus six times that of active points
    outside of it, edges at first soft.

    Args:
        active: ``(H, W)``, some of it true.
    """
    step = max(1, -(-max(active.shape) // GRID))
    small = active[::step, ::step]
    y, x = (grid.astype(np.float64) for grid in np.mgrid[: small.shape[0], : small.shape[1]])
    weight = np.where(small, -MISSED, 1.0)
    found = _first(small)
    size = float(max(small.shape))
    scale = np.array([size, size, 1.0, 1.0, size, size])
    for soft in SOFT:

        def cost(words: NDArray[np.float64], soft: float = soft) -> float:
            fan = Fan(*(words * scale))
            if not (0.05 < fan.left < 1.5 and 0.05 < fan.right < 1.5 and -1 <= fan.near < fan.far):
                return float(MISSED * small.size)
            depth = np.clip(fan.depth(y, x) / soft, -30, 30)
            return float((weight / (1 + np.exp(-depth))).sum())

        begin = np.array(found) / scale
        simplex = np.vstack([begin, begin + np.diag([0.04, 0.04, 0.08, 0.08, 0.04, 0.04])])
        how = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 0.1, "maxfev": 600}
        best = minimize(cost, begin, method="Nelder-Mead", options=how)
        found = Fan(*(best.x * scale))
    x0, y0, left, right, near, far = found
    return Fan(x0 * step, y0 * step, left, right, near * step, far * step)


def _first(small: NDArray[np.bool_]) -> Fan:
    """A fan from the rows and columns that active points reach."""
    rows = np.flatnonzero(small.any(axis=1))
    top, bottom = float(rows[0]), float(rows[-1])
    x = float(np.flatnonzero(small[rows[0] : rows[0] + 3].any(axis=0)).mean())
    points = np.argwhere(small)
    down = np.maximum(points[:, 0] - top + 1, 1.0)
    angle = np.arctan((points[:, 1] - x) / down)
    deep = down > 0.3 * (bottom - top)
    if not deep.any():
        deep[:] = True
    left, right = -np.quantile(angle[deep], 0.005), np.quantile(angle[deep], 0.995)
    return Fan(x, top - 1, float(max(left, 0.15)), float(max(right, 0.15)), 0.0, bottom - top + 1)
