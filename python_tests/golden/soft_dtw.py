"""Freezes what tslearn says of soft-DTW, in float64.

Run ``python soft_dtw.py > soft_dtw.json`` in this folder; tslearn 0.10.0 wrote the file that is
here.
"""

import json

import numpy as np
from tslearn import metrics

DRAW = np.random.default_rng(11)


def _records(count: int, samples: int) -> np.ndarray:
    t = np.arange(samples)
    slow = np.sin(t / np.arange(4, 7)[:, None] + DRAW.uniform(0, 3, (count, 3, 1)))
    return np.round(slow + 0.03 * t + 0.2 * DRAW.standard_normal(slow.shape), 3)


def _frozen() -> dict:
    x, y = _records(3, 26), _records(2, 26)
    a, b = x.transpose(0, 2, 1), y.transpose(0, 2, 1)  # time first
    said = [
        {
            "gamma": gamma,
            "cdist": metrics.cdist_soft_dtw(a, b, gamma=gamma).tolist(),
            "self": metrics.cdist_soft_dtw(a, gamma=gamma).tolist(),
            "divergence": metrics.cdist_soft_dtw_normalized(a, b, gamma=gamma).tolist(),
            "alone": metrics.soft_dtw(a[0], b[1], gamma=gamma),
        }
        for gamma in (0.01, 1.0, 100.0)
    ]
    return {"x": x.tolist(), "y": y.tolist(), "said": said}


if __name__ == "__main__":
    print(json.dumps(_frozen(), indent=1))
