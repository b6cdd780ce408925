"""Freezes what scipy's cdist says, in float64.

Run ``python pairwise_distance.py > pairwise_distance.json`` in this folder; scipy 1.17.1 wrote the
file that is here.
"""

import json

import numpy as np
from scipy.spatial.distance import cdist

X = np.sin(np.arange(45.0)).reshape(5, 9)
Y = np.cos(2 * np.arange(36.0)).reshape(4, 9)
Y[2] = X[1]  # a duplicate
Y[3] = X[4] + 1e-3  # a near one
SAME_NAME = ("sqeuclidean", "euclidean", "cosine")


def _frozen() -> dict:
    frozen = {metric: cdist(X, Y, metric) for metric in SAME_NAME}
    frozen["l1"] = cdist(X, Y, "cityblock")
    frozen["mean_l1"] = cdist(X, Y, "cityblock") / X.shape[1]
    rows = {"x": X, "y": Y} | frozen
    return {name: array.tolist() for name, array in rows.items()}


if __name__ == "__main__":
    print(json.dumps(_frozen(), indent=1))
