"""Freezes what scipy says of pairs of rows, one call of its distance functions a pair.

Run ``python python_tests/golden/pair_distance.py > python_tests/golden/pair_distance.json``; scipy
1.17.1 wrote the file that is here.
"""

import json

import numpy as np
from scipy.spatial import distance

X = np.sin(np.arange(24.0)).reshape(8, 3)
Y = np.cos(np.arange(15.0) * 0.7).reshape(5, 3)
PAIRS = [[0, 1, 2, 3, 3, 7, 5, 5], [1, 2, 0, 3, 4, 0, 4, 4]]


def _frozen() -> dict:
    frozen: dict = {"x": X.tolist(), "y": Y.tolist(), "pairs": PAIRS}
    for metric in ("sqeuclidean", "euclidean", "cosine"):
        measure = getattr(distance, metric)
        frozen[metric] = [
            float(measure(X[row], Y[column])) for row, column in zip(*PAIRS, strict=True)
        ]
    return frozen


if __name__ == "__main__":
    print(json.dumps(_frozen()))
