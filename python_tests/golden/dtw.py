"""Freezes what dtaidistance, tslearn and aeon say, in float64.

Run ``python dtw.py > dtw.json`` in this folder; dtaidistance 2.5.1, tslearn 0.10.0 and aeon 1.6.0
wrote the file that is here.
"""

import json

import numpy as np
from aeon.distances import dtw_distance
from dtaidistance import dtw_ndim
from tslearn import metrics

DRAW = np.random.default_rng(7)


def _records(count: int, samples: int) -> np.ndarray:
    t = np.arange(samples)
    slow = np.sin(t / np.arange(4, 7)[:, None] + DRAW.uniform(0, 3, (count, 3, 1)))
    return np.round(slow + 0.03 * t + 0.2 * DRAW.standard_normal(slow.shape), 3)


def _said(a: np.ndarray, b: np.ndarray, radius: int | None) -> dict:
    a, b = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)  # time first
    window, band = None, {}
    if radius is not None:
        window = radius + 1
        band = {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": radius}
    return {
        "sqeuclidean": dtw_ndim.distance(a, b, window=window),
        "euclidean": dtw_ndim.distance(a, b, window=window, inner_dist="euclidean"),
        "tslearn": metrics.dtw(a, b, **band),
    }


def _frozen() -> dict:
    x, y = _records(3, 24), _records(2, 31)
    pairs = [
        {"i": i, "j": j, "radius": radius, **_said(a, b, radius)}
        for radius in (None, 0, 1, 4, 12)
        for i, a in enumerate(x)
        for j, b in enumerate(y)
    ]
    # its band is slanted between records of two lengths, and it takes no root
    same = [
        {"i": i, "j": j, "share": share, "sqeuclidean": dtw_distance(x[i], x[j], window=share)}
        for share in (None, 0.1, 0.25)
        for i in range(len(x))
        for j in range(i)
    ]
    return {"x": x.tolist(), "y": y.tolist(), "pairs": pairs, "aeon": same}


if __name__ == "__main__":
    print(json.dumps(_frozen(), indent=1))
