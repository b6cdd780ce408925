"""Corrections of hubs against plain loops in float64, and that they do away with hubs."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from ecgfast.miners import hubs
from ecgfast.miners.hubs import corrected, csls, mutual_proximity

SHAPES = [
    (6, 6),  # a batch
    (3, 9),  # anchors against a ring
    (1, 1),
]


def matrix(n, m, seed=0):
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5


def looked_at(n, m, seed=1):
    counts = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) < 0.7
    counts[0] = True
    return counts


def csls_by_loops(distances, counts, k):
    n, m = distances.shape
    rows = [sorted(float(distances[i, j]) for j in range(m) if counts[i, j])[:k] for i in range(n)]
    columns = [
        sorted(float(distances[i, j]) for i in range(n) if counts[i, j])[:k] for j in range(m)
    ]
    out = torch.full_like(distances, torch.nan)
    for i in range(n):
        for j in range(m):
            if counts[i, j]:
                near = sum(rows[i]) / len(rows[i]) + sum(columns[j]) / len(columns[j])
                out[i, j] = 2 * distances[i, j] - near
    return out


def beyond(value, values):
    """P(X > value) of a normal X with the mean and deviation of values."""
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return 0.5 * math.erfc((value - mean) / sd / math.sqrt(2)) if sd else math.nan


def proximity_by_loops(distances, counts):
    n, m = distances.shape
    out = torch.full_like(distances, torch.nan)
    for i in range(n):
        for j in range(m):
            if counts[i, j]:
                d = float(distances[i, j])
                row = [float(distances[i, c]) for c in range(m) if counts[i, c]]
                column = [float(distances[r, j]) for r in range(n) if counts[r, j]]
                out[i, j] = -math.log(beyond(d, row) * beyond(d, column))
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("some", [False, True])
def test_csls_is_its_formula(shape, k, some):
    distances = matrix(*shape)
    counts = looked_at(*shape) if some else torch.ones(shape, dtype=torch.bool)
    found = csls(distances, k=k, counts=counts if some else None)
    expected = csls_by_loops(distances, counts, k)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("some", [False, True])
def test_mutual_proximity_is_its_formula(shape, some):
    distances = matrix(*shape)
    counts = looked_at(*shape) if some else torch.ones(shape, dtype=torch.bool)
    found = mutual_proximity(distances, counts=counts if some else None)
    expected = proximity_by_loops(distances, counts)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11, equal_nan=True)


def test_far_pairs_are_told_apart_where_the_proximity_itself_is_zero():
    distances = torch.full((40, 40), 1.0, dtype=torch.float64) + 0.01 * matrix(40, 40)
    distances[0, 1:3] = torch.tensor([9.0, 8.0], dtype=torch.float64)
    found = mutual_proximity(distances)
    assert found[0, 1] > found[0, 2] > found[0, 3:].max()
    assert found.isfinite().all()


@pytest.mark.parametrize("how", ["csls", "mutual_proximity"])
def test_hubs_are_smaller_on_both_ends(how):
    """300 normal points in 50 dimensions, where hubs come by themselves."""
    points = torch.randn(300, 50, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(points, points)
    others = ~torch.eye(300, dtype=torch.bool)

    def largest_hubs(matrix):
        near = matrix.masked_fill(~others, torch.inf).argmin(dim=1).bincount()
        far = matrix.masked_fill(~others, -torch.inf).argmax(dim=1).bincount()
        return int(near.max()), int(far.max())

    plain = largest_hubs(distances)
    mended = largest_hubs(corrected(distances, how, counts=others))
    assert plain >= (12, 25)
    assert mended[0] <= plain[0] / 2
    assert mended[1] <= 0.7 * plain[1]


def test_an_outlier_beyond_all_measure_stays_the_farthest():
    """What is far from all by far is far, corrected or not: quality has to be checked first."""
    points = torch.randn(60, 20, generator=torch.Generator().manual_seed(2))
    points[7] *= 10
    others = ~torch.eye(60, dtype=torch.bool)
    far = csls(torch.cdist(points, points), counts=others).masked_fill(~others, -torch.inf)
    assert (far.argmax(dim=1) == 7).sum() == 59


@pytest.mark.parametrize("how", ["csls", "mutual_proximity"])
def test_a_record_with_gaps_does_not_touch_the_others(how):
    distances = matrix(8, 8)
    whole = torch.ones(8, 8, dtype=torch.bool)
    whole[3] = whole[:, 3] = False
    broken = distances.clone()
    broken[3] = broken[:, 3] = torch.nan
    kept = [i for i in range(8) if i != 3]
    for given in (corrected(broken, how), corrected(distances, how, counts=whole)):
        assert given[3].isnan().all()
        expected = corrected(distances[kept][:, kept], how)
        torch.testing.assert_close(given[kept][:, kept], expected)


def test_nothing_is_given_back_as_it_is_and_words_are_refused():
    distances = matrix(3, 3)
    assert corrected(distances, "none") is distances
    with pytest.raises(ValueError, match="csls or mutual_proximity, got 'best'"):
        corrected(distances, "best")
    with pytest.raises(ValueError, match="k must be at least 1"):
        csls(distances, k=0)
    with pytest.raises(ValueError, match=r"\(N, M\) of a float dtype, got \(3,\)"):
        csls(distances[0])
    with pytest.raises(ValueError, match=r"counts must be \(3, 3\)"):
        mutual_proximity(distances, counts=torch.ones(2, 3, dtype=torch.bool))
    assert csls(matrix(0, 4)).shape == (0, 4)


def test_examples():
    assert doctest.testmod(hubs).failed == 0
