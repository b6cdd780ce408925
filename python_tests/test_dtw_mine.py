"""dtw_mine: the finished matrix looked through, ties, gaps, too few records; real records."""

from __future__ import annotations

import pytest
import torch

from ecgfast.ops import lead_norm
from ecgfast.ops.dtw import COSTS, dtw, dtw_mine
from python_tests.conftest import shared_data
from python_tests.test_dtw import make_records
from python_tests.test_dtw_refusals import RECORDS


@pytest.mark.parametrize(("k_near", "k_far"), [(1, 2), (0, 3), (5, 0), (6, 8)])
def test_mining_equals_a_sort_of_the_matrix(device, k_near, k_far):
    x = make_records(6, 2, 40, device=device)
    mined = dtw_mine(x, k_near=k_near, k_far=k_far, radius=0.2)
    assert [part.shape for part in mined] == 3 * [(6, k_near + k_far)]
    for i, row in enumerate(dtw(x, radius=0.2).tolist()):
        others = [j for j in range(6) if j != i]
        near = sorted(others, key=lambda j: (row[j], j))[:k_near]
        far = sorted(others, key=lambda j: (-row[j], j))[:k_far]
        wanted = near + [-1] * (k_near - len(near)) + far + [-1] * (k_far - len(far))
        assert mined.indices[i].tolist() == wanted
        assert mined.valid[i].tolist() == [j >= 0 for j in wanted]
        for j, distance in zip(wanted, mined.distances[i].tolist(), strict=True):
            assert distance == row[j] if j >= 0 else distance != distance


def test_ties_go_to_the_lowest_index(device):
    x = torch.zeros(6, 1, 9, device=device)
    x[[1, 4]] = 1  # 0 is at 3 from 1 and 4, and at 0 from 2, 3, 5
    mined = dtw_mine(x, k_near=2, k_far=2)
    assert mined.indices[0].tolist() == [2, 3, 1, 4]
    assert mined.indices[5].tolist() == [0, 2, 1, 4]
    assert mined.indices[1].tolist() == [4, 0, 0, 2]


def test_a_record_with_a_gap_is_nobodys_neighbour(device):
    x = make_records(4, 2, 30, device=device)
    x[1, 0, 3] = torch.nan
    mined = dtw_mine(x, k_near=2, k_far=2)
    assert not (mined.indices[[0, 2, 3]] == 1).any()
    assert mined.valid[[0, 2, 3]].all()
    assert not mined.valid[1].any()
    assert (mined.indices[1] == -1).all()
    x[2:] = torch.inf
    mined = dtw_mine(x)
    assert not mined.valid.any()
    assert mined.distances.isnan().all()


def test_mining_so_far_that_it_is_infinite(device):
    x = torch.tensor([3e38, -3e38, 0.0], device=device)[:, None, None].repeat(1, 1, 4)
    assert dtw_mine(x, k_near=2, k_far=1).indices[0].tolist() == [1, 2, 1]
    assert dtw_mine(x, k_near=2, k_far=1).valid.all()


def test_mining_refuses():
    with pytest.raises(ValueError, match="k_far must be at least 0, got -1"):
        dtw_mine(RECORDS, k_far=-1)
    assert dtw_mine(RECORDS[:1]).indices.tolist() == [[-1, -1, -1]]
    assert dtw_mine(RECORDS[:0]).indices.shape == (0, 3)


def real_records(count, folder="records500"):
    from ecgfast.data.wfdb import read_wfdb

    paths = sorted(shared_data("ptb-xl-500", folder).rglob("*.hea"))[:count]
    x = torch.stack([torch.as_tensor(read_wfdb(path).signal) for path in paths])
    return lead_norm(x.float())


def test_real_records_match_float64():
    x = real_records(4)  # 10 s at 500 Hz
    for cost in COSTS:
        for radius in (None, 0.1):
            truth = dtw(x.double(), cost=cost, radius=radius)
            error = (dtw(x, cost=cost, radius=radius) - truth).abs()
            assert (error <= 1e-5 * truth).all()


def test_mining_real_records_equals_a_sort_in_float64():
    x = real_records(24)[:, :, ::4].contiguous()
    mined = dtw_mine(x, k_near=2, k_far=3, radius=0.1)
    truth = dtw(x.double(), radius=0.1).fill_diagonal_(torch.nan)
    near = truth.nan_to_num(torch.inf).argsort(dim=1)[:, :2]
    far = truth.nan_to_num(-torch.inf).argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(mined.indices, torch.cat([near, far], dim=1))


@pytest.mark.parametrize("radius", [None, 0.1])
def test_fast_mines_the_same_real_records(radius):
    x = real_records(64, "records100")  # 10 s at 100 Hz
    exact = dtw_mine(x, radius=radius)
    fast = dtw_mine(x, radius=radius, precision="fast")
    assert torch.equal(fast.indices, exact.indices)
    assert torch.equal(fast.valid, exact.valid)
    assert ((fast.distances - exact.distances).abs() <= 1e-5 * exact.distances)[exact.valid].all()
