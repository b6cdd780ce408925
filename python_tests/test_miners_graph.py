"""A graph made tile by tile is that of the whole matrix, whatever the tiles."""

from __future__ import annotations

import pytest
import torch

from ecgfast.miners.distance import InputDistance
from ecgfast.miners.graph import Graph, grow
from ecgfast.testing import make_ecg

N, K, FAR = 23, 4, 2


def records(levels=None):
    ecg = make_ecg(N, 2, 40, seed=3)
    if levels is not None:  # ties
        ecg = (ecg * levels).round() / levels
        ecg[5] = ecg[11] = ecg[2]
    return ecg


def grown(ecg, *, block, distance, begin=None, record=None, eligible=None, **words):
    graph = Graph.empty(N, K, FAR, torch.device("cpu"))
    steps = grow(
        graph,
        lambda start, stop: ecg[start:stop],
        distance,
        record=torch.arange(N) if record is None else record,
        eligible=torch.ones(N, dtype=torch.bool) if eligible is None else eligible,
        block=block,
        **words,
    )
    assert list(steps) == list(range(1, -(-N // block) + 1))
    return graph


def by_loops(distances, record, eligible, least=0.0):
    near, far = [], []
    for i in range(N):
        others = [
            j
            for j in range(N)
            if eligible[i] and eligible[j] and record[i] != record[j] and distances[i, j] >= least
        ]
        near.append(sorted(others, key=lambda j: (float(distances[i, j]), j))[:K])
        far.append(sorted(others, key=lambda j: (-float(distances[i, j]), j))[:FAR])
    return near, far


@pytest.mark.parametrize("block", [1, 5, 8, 23, 100])
@pytest.mark.parametrize("levels", [None, 2])
def test_tiles_do_not_show(block, levels):
    ecg, distance = records(levels), InputDistance("dtw", radius=5)
    record, eligible = torch.arange(N), torch.ones(N, dtype=torch.bool)
    record[14] = record[3]  # copies
    eligible[[0, 20]] = False
    found = grown(ecg, block=block, distance=distance, record=record, eligible=eligible)
    distances = distance(ecg)
    near, far = by_loops(distances, record, eligible)
    for rows, values, expected, none in (
        (found.nearest, found.distances, near, torch.inf),
        (found.farthest, found.far_distances, far, -torch.inf),
    ):
        assert [[j for j in row if j >= 0] for row in rows.tolist()] == expected
        reached = distances.gather(1, rows.clamp(min=0)).masked_fill(rows < 0, none)
        assert torch.equal(values, reached)
    assert (found.nearest[[0, 20]] == -1).all()


def test_pairs_that_are_nearer_than_asked_for_are_not_kept():
    ecg, distance = records(2), InputDistance("l1")
    found = grown(ecg, block=6, distance=distance, min_distance=1e-3)
    near, _ = by_loops(distance(ecg), range(N), [True] * N, least=1e-3)
    assert found.nearest.tolist() == near
    assert (found.distances >= 1e-3).all()
    assert (grown(ecg, block=6, distance=distance).distances == 0).any()


@pytest.mark.parametrize("at", [1, 3])
def test_what_was_stopped_goes_on(at):
    ecg, distance = records(), InputDistance("mean_l1")
    whole = grown(ecg, block=5, distance=distance)
    half = Graph.empty(N, K, FAR, torch.device("cpu"))
    words = {"record": torch.arange(N), "eligible": torch.ones(N, dtype=torch.bool), "block": 5}
    compared = []

    def load(start, stop):
        compared.append(start)
        return ecg[start:stop]

    for done in grow(half, load, distance, **words):
        if done == at:
            break
    compared.clear()
    for _ in grow(half, load, distance, begin=at, **words):
        pass
    assert min(compared) == 5 * at  # what is done is not done again
    assert all(torch.equal(one, other) for one, other in zip(half, whole, strict=True))
