"""Freezes what torch's own triplet loss says, with the squared L2 distance in float64.

Run ``python python_tests/golden/triplet_loss.py > python_tests/golden/triplet_loss.json``; torch
2.13.0 wrote the file that is here.
"""

import json

import torch
from torch import Tensor
from torch.nn.functional import triplet_margin_with_distance_loss

EMBEDDINGS = torch.sin(torch.arange(24, dtype=torch.float64)).reshape(8, 3)  # (N, D)
ROWS = torch.tensor([[0, 1, 2, 3, 3, 7, 5], [1, 2, 0, 3, 6, 6, 4], [2, 7, 4, 5, 5, 0, 4]])


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(dim=-1)


def _frozen() -> dict:
    embeddings = EMBEDDINGS.clone().requires_grad_()
    frozen = {"embeddings": EMBEDDINGS.tolist(), "rows": ROWS.tolist()}
    for reduction in ("none", "mean", "sum"):
        loss = triplet_margin_with_distance_loss(
            *(embeddings[row] for row in ROWS),
            distance_function=_squared,
            margin=0.2,
            reduction=reduction,
        )
        (gradient,) = torch.autograd.grad(loss.sum(), embeddings)
        frozen[reduction] = {"loss": loss.tolist(), "gradient": gradient.tolist()}
    return frozen


if __name__ == "__main__":
    print(json.dumps(_frozen()))
