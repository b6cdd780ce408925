"""dtw_path: a path of the band whose costs sum up to the distance."""

from __future__ import annotations

import pytest
import torch

from ecgfast.ops import dtw_path
from ecgfast.ops.dtw import COSTS, dtw
from python_tests.test_dtw import make_sides

SHAPES = [(1, 1, 1), (2, 1, 7), (2, 9, 3), (12, 40, 40), (3, 33, 60), (3, 70, 41)]  # (L, T, U)


def cost_along(path, x, y, cost):
    apart = x[:, path[:, 0]] - y[:, path[:, 1]]
    local = apart.abs().sum(0) if cost == "l1" else apart.square().sum(0)
    return (local.sqrt() if cost == "euclidean" else local).sum()


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("radius", [None, 0, 1, 6, 0.2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.filterwarnings("ignore:[xy] has .* leads of")
def test_its_costs_sum_up_to_the_distance(shape, radius, cost):
    leads, n, m = shape
    x, y = make_sides((1, leads, n, 1, m), dtype=torch.float64)
    path = dtw_path(x[0], y[0], cost=cost, radius=radius)
    distance = dtw(x, y, cost=cost, radius=radius, root=False)[0, 0]
    torch.testing.assert_close(cost_along(path, x[0], y[0], cost), distance)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [n - 1, m - 1]
    steps = {tuple(step) for step in path.diff(dim=0).tolist()}
    assert steps <= {(1, 1), (1, 0), (0, 1)}
    reach = n + m if radius is None else int(0.2 * min(n, m)) if radius == 0.2 else radius
    offsets = path[:, 1] - path[:, 0]
    assert offsets.min() >= -reach - max(0, n - m)
    assert offsets.max() <= reach + max(0, m - n)


def test_equal_records_go_along_the_diagonal():
    x = torch.zeros(2, 12)  # every path costs nothing
    assert dtw_path(x, x).tolist() == [[t, t] for t in range(12)]
    assert dtw_path(x[:, :2], x[:, :3]).tolist() == [[0, 0], [0, 1], [1, 2]]


def test_takes_any_dtype_and_strides():
    x, y = (side[0] for side in make_sides((1, 3, 20, 1, 25)))
    for dtype in (torch.float16, torch.float64):
        same = dtw_path(x.to(dtype).float(), y.to(dtype).float())
        assert torch.equal(dtw_path(x.to(dtype), y.to(dtype).requires_grad_()), same)
    assert torch.equal(dtw_path(x.T.contiguous().T, y), dtw_path(x, y))


@pytest.mark.parametrize(
    ("x", "y", "words", "message"),
    [
        (torch.zeros(1, 2, 9), torch.zeros(2, 9), {}, r"x must be \(leads, samples\), got"),
        (torch.zeros(2, 9), torch.zeros(2, 0), {}, r"y must be \(leads, samples\), got"),
        (torch.zeros(2, 9), torch.zeros(3, 9), {}, "x has 2 leads and y has 3"),
        (torch.zeros(2, 9), torch.full((2, 9), torch.nan), {}, "y has samples that are NaN"),
        (torch.zeros(2, 9), torch.zeros(2, 9), {"cost": "l2"}, "cost must be one of"),
        (torch.zeros(2, 9), torch.zeros(2, 9), {"radius": -2}, "radius must be at least 0"),
    ],
)
def test_refuses(x, y, words, message):
    with pytest.raises(ValueError, match=message):
        dtw_path(x, y, **words)
