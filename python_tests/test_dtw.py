"""dtw against its reference: values, bands, lengths, bits, edges, torch, other packages."""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from ecgfast import _C
from ecgfast.ops.dtw import COSTS, dtw, dtw_reference

# (N, L, T, M, U): one of all; the smallest warping; a strip of the widest vectors less and more by
# one; a pass of the CUDA kernel and a bit; passes with more leads than it keeps four columns of
SHAPES = [(1, 1, 1, 1, 1), (2, 2, 2, 3, 3), (3, 3, 63, 2, 65), (2, 12, 33, 3, 130)]
SHAPES += [(2, 13, 64, 1, 129), (1, 8, 130, 2, 17)]
RADII = [None, 0, 1, 7, 0.25, 1000]
NATIVE = {name: getattr(_C, name) for name in dir(_C) if name.startswith("dtw_")}
costs = pytest.mark.parametrize("cost", COSTS)


def make_records(records, leads, samples, *, seed=0, dtype=torch.float32, device="cpu"):
    """Ramps with noise, later records shifted in time and longer: bands cut paths on them."""
    draw = torch.Generator().manual_seed(seed)
    t = torch.arange(samples, dtype=torch.float64) / 8
    late = torch.arange(records, dtype=torch.float64)[:, None, None] * (2 + seed)
    slope = 1 + torch.rand(records, leads, 1, generator=draw, dtype=torch.float64)
    noise = torch.randn(records, leads, samples, generator=draw, dtype=torch.float64)
    return (slope * (t - late).clamp(min=0) + 0.3 * noise).to(device, dtype)


def make_sides(shape, **facts):
    n, leads, t, m, u = shape
    return make_records(n, leads, t, **facts), make_records(m, leads, u, seed=1, **facts)


def quiet(*inputs, op=dtw, **words):
    """Without the warning about more leads than samples, which some shapes here have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[xy] has .* leads of")
        return op(*inputs, **words)


def assert_right(found, truth, samples, leads):
    """All terms are positive, so each addition on the way costs half a unit at most."""
    rounding = (samples + leads + 4) * torch.finfo(found.dtype).eps / 2
    assert found.shape == truth.shape
    assert found.isfinite().all()
    assert ((found.double() - truth).abs() <= rounding * truth).all()


def check(x, y=None, **words):
    found = quiet(x, y, **words)
    truth = quiet(x.double(), None if y is None else y.double(), op=dtw_reference, **words)
    samples = x.shape[-1] + (x if y is None else y).shape[-1]
    assert_right(found.cpu(), truth.cpu(), samples, x.shape[1])
    return found


@costs
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(device, shape, radius, cost):
    x, y = make_sides(shape, device=device)
    check(x, y, cost=cost, radius=radius)
    check(y, x, cost=cost, radius=radius)


@costs
@pytest.mark.parametrize("radius", [None, 5])
@pytest.mark.parametrize("records", [1, 2, 3, 6, 7])
def test_matches_reference_without_y(device, records, radius, cost):
    check(make_records(records, 3, 40, device=device), cost=cost, radius=radius)


@costs
def test_matches_reference_in_float64(cost):
    for shape in SHAPES:
        x, y = make_sides(shape, dtype=torch.float64)
        for radius in RADII:
            check(x, y, cost=cost, radius=radius, root=False)


@costs
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_is_compared_in_float32(device, dtype, cost):
    x, y = make_sides(SHAPES[3], device=device, dtype=dtype)
    assert torch.equal(dtw(x, y, cost=cost), dtw(x.float(), y.float(), cost=cost))


@costs
def test_every_instruction_set_matches_reference(isa, cost):
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            x, y = make_sides(shape, dtype=dtype)
            for radius in (None, 3, 20):
                check(x, y, cost=cost, radius=radius)


@costs
@pytest.mark.parametrize("radius", [None, 11])
def test_instruction_sets_and_cuda_kernels_agree_bit_for_bit(device, radius, cost, monkeypatch):
    if device.type == "cuda" and cost == "euclidean":
        pytest.skip("its root is approximate on CUDA")
    sides = [make_sides(shape) for shape in SHAPES]
    found = [quiet(*(s.to(device) for s in pair), cost=cost, radius=radius) for pair in sides]
    for name, kernel in NATIVE.items():
        monkeypatch.setattr(_C, name, kernel)
    before = _C.build_info()["isa"]
    for level in _C.build_info()["isa_here"]:
        if level == "baseline" and cost != "l1":
            continue  # it has no fused multiply-add
        _C.use_isa(level)
        again = [quiet(*pair, cost=cost, radius=radius) for pair in sides]
        _C.use_isa(before)
        for shape, a, b in zip(SHAPES, found, again, strict=True):
            assert torch.equal(a.cpu(), b), f"{level} {shape}"


@pytest.mark.parametrize(
    ("share", "samples"),
    [(0.0, 0), (0.1, 10), (0.29, 28), (0.999, 99), (1.0, 100)],  # 0.29 * 100 is under 29
)
def test_a_share_is_of_the_shorter_record_rounded_down(device, share, samples):
    x, y = make_sides((2, 2, 100, 2, 140), device=device)
    assert torch.equal(dtw(x, y, radius=share), dtw(x, y, radius=samples))


def test_a_refused_gradient(device):
    x = make_records(2, 2, 20, device=device).requires_grad_()
    with pytest.raises(RuntimeError, match=r"not differentiable: detach"):
        dtw(x)
    with torch.no_grad():
        dtw(x)
    dtw(x.detach())


@costs
@pytest.mark.parametrize("radius", [None, 9])
def test_records_do_not_mix(device, radius, cost):
    x, y = make_sides((5, 3, 70, 3, 81), device=device)
    whole = dtw(x, y, cost=cost, radius=radius)
    assert torch.equal(dtw(x.flip(0), y.flip(0), cost=cost, radius=radius), whole.flip(0, 1))
    for i, j in [(0, 0), (4, 2), (2, 1)]:
        alone = dtw(x[i : i + 1], y[j : j + 1], cost=cost, radius=radius)
        assert alone.item() == whole[i, j].item()


@costs
@pytest.mark.parametrize("radius", [None, 0, 9, 0.2])
def test_is_symmetric_bit_for_bit(device, radius, cost):
    x, y = make_sides((6, 5, 70, 3, 45), device=device)
    own = dtw(x, cost=cost, radius=radius)
    assert torch.equal(own, own.T)
    assert not own.diagonal().any()
    assert torch.equal(own, dtw(x, x.clone(), cost=cost, radius=radius))
    there = dtw(x, y, cost=cost, radius=radius)
    assert torch.equal(there, dtw(y, x, cost=cost, radius=radius).T)


def test_thread_count_does_not_show():
    x, y = make_sides((24, 12, 300, 20, 300))  # so much work that threads do run side by side
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        outcomes.append([dtw(x), dtw(x, y), dtw(x, radius=0.1), dtw(x.double(), cost="l1")])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *outcomes))


@pytest.mark.parametrize("radius", [None, 9])
def test_scratch_may_hold_anything(device, radius, monkeypatch):
    if device.type == "cuda":
        pytest.skip("its memory is out of reach here")
    x, y = make_sides((3, 12, 70, 2, 150), device=device)
    wanted = dtw(x, y, radius=radius)
    forward = _C.dtw_forward

    def on_zeros(*arguments):  # less than any cost, and NaN is passed over by a minimum
        pointer, shape = arguments[6][:2]
        ctypes.memset(pointer, 0, 4 * math.prod(shape))
        forward(*arguments)

    monkeypatch.setattr(_C, "dtw_forward", on_zeros)
    assert torch.equal(dtw(x, y, radius=radius), wanted)


@costs
@pytest.mark.parametrize("radius", [None, 0, 4, 0.2])
def test_lengths_are_crops(device, radius, cost):
    x, y = make_sides((4, 2, 60, 3, 50), device=device)
    n, m = [60, 1, 33, 17], [2, 50, 31]
    truth = torch.stack(
        [
            torch.cat(
                [
                    quiet(x[i, None, :, :a], y[j, None, :, :b], cost=cost, radius=radius)[0]
                    for j, b in enumerate(m)
                ]
            )
            for i, a in enumerate(n)
        ]
    )
    x[1, :, 1:] = torch.nan  # what lies behind the end is not looked at
    y[0, :, 2:] = torch.inf
    assert torch.equal(dtw(x, y, cost=cost, radius=radius, lengths=(n, torch.tensor(m))), truth)
    whole = dtw(x[:1], y, cost=cost, radius=radius, lengths=(None, m))
    assert torch.equal(whole, truth[:1])
    own = dtw(x, cost=cost, radius=radius, lengths=n)
    assert torch.equal(own, own.T)
    assert not own.diagonal().any()
    cross = dtw(x, x, cost=cost, radius=radius, lengths=(n, n))
    assert torch.equal(own, cross)


def test_radius_0_is_the_distance_without_warping(device):
    x, y = make_sides((3, 4, 77, 2, 77), device=device)
    plain = torch.cdist(x.double().flatten(1).cpu(), y.double().flatten(1).cpu())
    assert_right(dtw(x, y, radius=0).cpu(), plain, 154, 4)


def test_a_wider_band_is_never_farther(device):
    x, y = make_sides((3, 2, 60, 3, 75), device=device)
    distances = [dtw(x, y, radius=radius) for radius in (0, 1, 2, 5, 15, 40, 74, None)]
    for narrow, wide in itertools.pairwise(distances):
        assert (wide <= narrow).all()
    assert torch.equal(distances[-1], distances[-2])
    assert (distances[0] > distances[-1]).any()


@pytest.mark.parametrize("radius", [0, 4, 61])
def test_a_path_along_the_edge_of_a_band_stays_inside(device, radius):
    draw = torch.Generator().manual_seed(0)
    ramp = torch.rand(1, 1, 160, generator=draw).cumsum(-1).to(device)
    late = pad(ramp, (radius + 1, 0), mode="replicate")  # free one column outside the band
    for behind in (radius + 1, radius + 61):
        early = pad(ramp, (0, behind), mode="replicate")
        check(early, late, radius=radius)
        check(late, early, radius=radius)


@pytest.mark.parametrize("radius", [None, 2])
def test_more_pairs_than_a_block_takes(device, radius):
    x, y = make_sides((2, 13, 3, 35, 4), device=device)  # 8 of so many leads, 32 with a band
    check(x, y, radius=radius)
    check(make_records(18, 13, 3, device=device), radius=radius)  # 9 partners or 8


def test_more_edges_than_scratch_holds(device):
    x = torch.zeros(3, 1, 2**19, device=device)  # so long that a launch has 64 pairs, or 2 blocks
    y = make_records(1, 1, 6, seed=1, device=device)
    x[:, :, :6] = make_records(3, 1, 6, device=device)
    alone = dtw(x[:, :, :6], y, radius=2)
    assert torch.equal(dtw(x, y, radius=2, lengths=([6, 6, 6], None)), alone)


def test_repeated_samples_cost_nothing(device):
    x = make_records(1, 3, 50, device=device)
    assert dtw(x, x.repeat_interleave(3, dim=-1)).item() == 0
    assert dtw(x, x.repeat_interleave(2, dim=-1)[..., 1:]).item() == 0


def test_near_records_lose_no_digits(device):
    x = 50 + make_records(4, 12, 64, device=device)  # far from zero: norms would cancel
    y = x + 1e-3 * make_records(4, 12, 64, seed=5, device=device)
    check(x, y, root=False)


def test_a_nan_stays_in_its_row_and_column(device):
    x, y = make_sides((5, 3, 40, 4, 40), device=device)
    clean, itself = dtw(x, y), dtw(x)
    x[2, 1, 7] = torch.nan
    x[4, 0, 39] = -torch.inf
    y[1, 2, 0] = torch.inf
    spoilt = dtw(x, y)
    assert spoilt[[2, 4]].isnan().all()
    assert spoilt[:, 1].isnan().all()
    kept = torch.ones_like(clean, dtype=torch.bool)
    kept[[2, 4]] = kept[:, 1] = False
    assert torch.equal(spoilt[kept], clean[kept])
    own = dtw(x, radius=3)
    assert torch.equal(own, dtw(x, radius=3).T) or own.isnan().any()
    assert own.isnan().sum() == 25 - 9
    assert own[2, 2].isnan()
    kept = [0, 1, 3]
    assert torch.equal(dtw(x)[kept][:, kept], itself[kept][:, kept])


def test_a_sum_beyond_the_dtype_is_infinite(device):
    x = torch.full((2, 3, 20), 3e38, device=device)
    x[1] = -3e38
    assert torch.equal(dtw(x).cpu(), torch.tensor([[0, torch.inf], [torch.inf, 0]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 3:-1],  # a crop
        lambda x: x[::2],  # some records
        lambda x: x[:, ::2],  # some leads
        lambda x: x[:, :, ::2],  # some samples
        lambda x: x.transpose(0, 1),  # leads first
        lambda x: x[:, :, :6].mT,  # time first
        lambda x: x[:1].expand(4, -1, -1),  # one record, many times
        lambda x: x[:, :, :1].expand(-1, -1, 9),  # one sample, many times
    ],
)
def test_takes_any_strides(device, change):
    x, y = (change(records) for records in make_sides((4, 6, 33, 4, 33), device=device))
    assert torch.equal(quiet(x, y), quiet(x.contiguous(), y.contiguous()))
    assert torch.equal(quiet(x), quiet(x.contiguous()))


@pytest.mark.parametrize("shape", [(0, 2, 7, 3, 5), (4, 2, 7, 0, 5), (0, 2, 7, 0, 5)], ids=str)
def test_empty(device, shape):
    x, y = make_sides(shape, device=device)
    assert dtw(x, y).shape == (shape[0], shape[3])
    assert dtw(x).shape == (shape[0], shape[0])


def test_never_holds_a_matrix_of_a_pair():
    x = make_records(4, 12, 2000)
    with torch.profiler.profile(profile_memory=True) as profile:
        dtw(x)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 3 * x.nbytes  # 2000 x 2000 floats are 42 times as large


def test_torch_knows_the_op(device):
    x, y = make_sides((4, 5, 20, 3, 23), device=device)
    op = torch.ops.ecgfast.dtw.default
    n, m = torch.tensor([3, 20, 7, 1], device=device), torch.tensor([23, 5, 9], device=device)
    for sides in [(x, y), (x, None), (x.transpose(0, 1), y[:, :4].mT[:, :4]), (x.half(), y.half())]:
        torch.library.opcheck(op, (*sides, None, None, "l1", None, None, False, "exact"))
    torch.library.opcheck(op, (x, y, None, None, "euclidean", 40, None, False, "exact"))
    torch.library.opcheck(op, (x, y, n, m, "sqeuclidean", None, 0.3, True, "exact"))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def nearest(x, y):
        return (dtw(x * 2, radius=5).sum() + dtw(x, y, radius=0.5)).min()

    torch._dynamo.reset()
    compiled = torch.compile(nearest, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x, y = make_sides((records, 3, 25, 4, 30), device=device)
        torch.testing.assert_close(compiled(x, y), nearest(x, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x, y = make_sides((3, 3, 33, 2, 31), device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = dtw(x, y)
    assert torch.equal(inside, dtw(x, y))


def test_matches_what_dtaidistance_tslearn_and_aeon_said(device):
    frozen = json.loads((Path(__file__).parent / "golden/dtw.json").read_text())
    x, y = (torch.tensor(frozen[name], device=device) for name in ("x", "y"))
    rounding = (24 + 31 + 3 + 4) * torch.finfo(torch.float32).eps / 2  # as in assert_right
    for pair in frozen["pairs"]:
        for cost in ("sqeuclidean", "euclidean"):
            found = dtw(x, y, cost=cost, radius=pair["radius"])[pair["i"], pair["j"]]
            assert abs(found.item() - pair[cost]) <= rounding * pair[cost]
        assert abs(pair["tslearn"] - pair["sqeuclidean"]) <= 1e-12 * pair["tslearn"]
    for pair in frozen["aeon"]:
        found = dtw(x, radius=pair["share"], root=False)[pair["i"], pair["j"]]
        assert abs(found.item() - pair["sqeuclidean"]) <= rounding * pair["sqeuclidean"]
