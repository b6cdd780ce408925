"""dtw in precision "fast": as "exact" where nothing is rounded, within its bound elsewhere."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.dtw import dtw_mine, dtw_reference
from python_tests.test_dtw import NATIVE, RADII, SHAPES, make_records, make_sides, quiet


def fast(x, y=None, **words):
    return quiet(x, y, precision="fast", **words)


def whole_sides(shape, **facts):
    """Whole numbers so small that norms, products and sums are exact in float32."""
    x, y = (side.round() for side in make_sides(shape, **facts))
    largest = sum(side.abs().max().item() ** 2 for side in (x, y)) * shape[1]
    assert 2 * largest * (shape[2] + shape[4]) < 2**24
    return x, y


def assert_within_bound(found, x, y, **words):
    """Of one cost: 3 L + 1 operations, each on at most 2 (|x|^2 + |y|^2), round by half a unit.

    The norms take L of them, their sum one, the products the rest. A path has n + m - 1 cells at
    most, and a minimum moves by no more than the largest of the sums that it is taken over.
    """
    truth = quiet(x.double(), y.double(), op=dtw_reference, root=False, **words)
    samples, leads, unit = x.shape[-1] + y.shape[-1], x.shape[1], torch.finfo(found.dtype).eps / 2
    norms = [side.double().square().sum(1).amax(1) for side in (x, y)]
    together = norms[0][:, None] + norms[1]
    cells = 2 * (3 * leads + 1) * unit * (samples - 1) * together
    slack = 1 + (samples + leads + 4) * unit  # rounded sums of what is rounded, as in assert_right
    allowed = cells * slack + (slack - 1) * truth
    assert found.isfinite().all()
    assert ((found.double() - truth).abs() <= allowed).all()


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_numbers_are_exact(device, shape, radius):
    x, y = whole_sides(shape, device=device)
    assert torch.equal(fast(x, y, radius=radius), quiet(x, y, radius=radius))
    assert torch.equal(fast(y, x, radius=radius), quiet(y, x, radius=radius))
    assert torch.equal(fast(x, radius=radius, root=False), quiet(x, radius=radius, root=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_whole_numbers_are_exact_in_every_instruction_set(isa, dtype):
    for shape in SHAPES:
        x, y = whole_sides(shape, dtype=dtype)
        for radius in (None, 3, 20):
            assert torch.equal(fast(x, y, radius=radius), quiet(x, y, radius=radius))


@pytest.mark.parametrize("radius", [None, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_within_its_bound(device, shape, radius):
    x, y = make_sides(shape, device=device)
    for a, b in [(x, y), (x, 1.01 * x), (50 + x, 50 + x + 1e-3 * x.roll(1, -1))]:
        assert_within_bound(fast(a, b, radius=radius, root=False), a, b, radius=radius)


def test_is_within_its_bound_in_float64():
    x, y = make_sides(SHAPES[3], dtype=torch.float64)
    # the reference rounds as much, in its own way
    apart = (fast(x, y, root=False) - dtw_reference(x, y, root=False)).abs()
    assert (apart <= 1e-12 * dtw_reference(x, y, root=False)).all()


@pytest.mark.parametrize("radius", [None, 11])
def test_instruction_sets_and_cuda_kernels_agree_bit_for_bit(device, radius, monkeypatch):
    sides = [make_sides(shape) for shape in SHAPES]
    found = [fast(*(s.to(device) for s in pair), radius=radius) for pair in sides]
    for name, kernel in NATIVE.items():
        monkeypatch.setattr(_C, name, kernel)
    before = _C.build_info()["isa"]
    for level in set(_C.build_info()["isa_here"]) - {"baseline"}:  # it has no fused multiply-add
        _C.use_isa(level)
        again = [fast(*pair, radius=radius) for pair in sides]
        _C.use_isa(before)
        for shape, a, b in zip(SHAPES, found, again, strict=True):
            assert torch.equal(a.cpu(), b), f"{level} {shape}"


@pytest.mark.parametrize("radius", [None, 0, 9, 0.2])
def test_is_symmetric_bit_for_bit(device, radius):
    x, y = make_sides((6, 5, 70, 3, 45), device=device)
    own = fast(x, radius=radius)
    assert torch.equal(own, own.T)
    assert not own.diagonal().any()
    assert torch.equal(own, fast(x, x.clone(), radius=radius).fill_diagonal_(0))
    assert torch.equal(fast(x, y, radius=radius), fast(y, x, radius=radius).T)


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_is_symmetric_in_other_instruction_sets(level):
    before = _C.build_info()["isa"]
    if level not in _C.build_info()["isa_here"]:
        pytest.skip(f"this processor has no {level}")
    x, y = make_sides(SHAPES[3])
    _C.use_isa(level)
    there, back = fast(x, y), fast(y, x)
    _C.use_isa(before)
    assert torch.equal(there, back.T)


@pytest.mark.parametrize("radius", [None, 9])
def test_records_do_not_mix(device, radius):
    x, y = make_sides((5, 3, 70, 3, 81), device=device)
    whole = fast(x, y, radius=radius)
    assert torch.equal(fast(x.flip(0), y.flip(0), radius=radius), whole.flip(0, 1))
    for i, j in [(0, 0), (4, 2), (2, 1)]:
        assert fast(x[i : i + 1], y[j : j + 1], radius=radius).item() == whole[i, j].item()


def test_thread_count_does_not_show():
    x, y = make_sides((24, 12, 300, 20, 300))
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        outcomes.append([fast(x), fast(x, y), fast(x, radius=0.1), fast(x.double())])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *outcomes))


@pytest.mark.parametrize("radius", [None, 9])
def test_scratch_may_hold_anything(device, radius, monkeypatch):
    if device.type == "cuda":
        pytest.skip("its memory is out of reach here")
    x, y = make_sides((3, 12, 70, 2, 150), device=device)
    wanted = fast(x, y, radius=radius)
    forward = _C.dtw_forward

    def on_zeros(*arguments):
        pointer, shape = arguments[6][:2]
        ctypes.memset(pointer, 0, 4 * math.prod(shape))
        forward(*arguments)

    monkeypatch.setattr(_C, "dtw_forward", on_zeros)
    assert torch.equal(fast(x, y, radius=radius), wanted)


@pytest.mark.parametrize("radius", [None, 0, 4, 0.2])
def test_lengths_are_crops(device, radius):
    x, y = make_sides((4, 2, 60, 3, 50), device=device)
    n, m = [60, 1, 33, 17], [2, 50, 31]
    truth = [
        [fast(x[i, None, :, :a], y[j, None, :, :b], radius=radius).item() for j, b in enumerate(m)]
        for i, a in enumerate(n)
    ]
    x[1, :, 1:] = torch.nan  # what lies behind the end is not looked at
    y[0, :, 2:] = torch.inf
    found = fast(x, y, radius=radius, lengths=(n, m))
    assert found.tolist() == truth
    own = fast(x, radius=radius, lengths=n)
    assert torch.equal(own, fast(x, x, radius=radius, lengths=(n, n)).fill_diagonal_(0))


def test_a_nan_stays_in_its_row_and_column(device):
    x, y = make_sides((5, 3, 40, 4, 40), device=device)
    clean = fast(x, y)
    x[2, 1, 7] = torch.nan
    y[1, 2, 0] = -torch.inf
    spoilt = fast(x, y)
    assert spoilt[2].isnan().all()
    assert spoilt[:, 1].isnan().all()
    kept = [0, 1, 3, 4]
    assert torch.equal(spoilt[kept][:, [0, 2, 3]], clean[kept][:, [0, 2, 3]])
    own = fast(x)
    assert own[2].isnan().all()
    assert own.isnan().sum() == 9


def test_a_cost_never_goes_below_zero(device):
    x = 50 + make_records(3, 12, 40, device=device)  # of equal records only rounding is left
    assert (fast(x, x.clone()) >= 0).all()  # the root of less would be NaN


@pytest.mark.parametrize("size", [3e38, 1.5e38, 2e19])  # -2 y, x - y, and a square are too large
def test_a_norm_beyond_the_dtype_is_infinitely_far(device, size):
    x = torch.full((3, 3, 20), size, device=device)
    x[1] = -size
    x[2] = 1
    wanted = torch.full((3, 3), torch.inf)
    wanted[2, 2] = 0
    assert torch.equal(fast(x, x.clone()).cpu(), wanted)
    assert torch.equal(fast(x).cpu(), wanted.fill_diagonal_(0))


@pytest.mark.parametrize(
    "change", [lambda x: x[:, ::2, ::2], lambda x: x.transpose(0, 1), torch.Tensor.half]
)
def test_takes_any_strides_and_halves(device, change):
    x, y = (change(side) for side in make_sides((4, 6, 33, 4, 33), device=device))
    assert torch.equal(fast(x, y), fast(x.float().contiguous(), y.float().contiguous()))


@pytest.mark.parametrize("shape", [(0, 2, 7, 3, 5), (4, 2, 7, 0, 5), (0, 2, 7, 0, 5)], ids=str)
def test_empty(device, shape):
    x, y = make_sides(shape, device=device)
    assert fast(x, y).shape == (shape[0], shape[3])
    assert fast(x).shape == (shape[0], shape[0])


def test_torch_knows_the_op(device):
    x, y = make_sides((4, 5, 20, 3, 23), device=device)
    op = torch.ops.ecgfast.dtw.default
    for sides in [(x, y), (x, None)]:
        torch.library.opcheck(op, (*sides, None, None, "sqeuclidean", 4, None, True, "fast"))


def test_mining_passes_it_on(device):
    x = make_records(5, 2, 30, device=device)
    mined = dtw_mine(x, precision="fast", radius=4)
    wanted = fast(x, radius=4).gather(1, mined.indices)
    assert torch.equal(mined.distances, wanted)
