"""soft_dtw against its reference: values, gradients, bands, bits, edges, torch, tslearn.

Long because each test is of values and gradients, for all pairs and for aligned ones.
"""

from __future__ import annotations

import ctypes
import json
import math
import warnings
from pathlib import Path

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.dtw import dtw
from ecgfast.ops.soft_dtw import soft_dtw, soft_dtw_reference
from ecgfast.testing import make_ecg

# (N, L, T, M, U): one of all; the smallest warping; a vector, a strip and a kept row of the widest
# vectors less and more by one; a pass of a CUDA kernel and a bit; an odd number of leads
SHAPES = [(1, 1, 1, 1, 1), (2, 2, 2, 3, 3), (2, 3, 15, 2, 17), (3, 3, 63, 2, 65)]
SHAPES += [(2, 12, 33, 3, 130), (2, 13, 64, 1, 129), (1, 8, 130, 2, 16), (1, 1, 257, 1, 127)]
RADII = [None, 0, 1, 7, 0.25, 1000]
PAIRS = ("all", "aligned")
NATIVE = _C.soft_dtw_forward
pairings = pytest.mark.parametrize("pairs", PAIRS)


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


def make_partners(shape, **facts):
    x, y = make_sides(shape, **facts)
    records = min(len(x), len(y))
    return x[:records], y[:records]


def quiet(*inputs, op=soft_dtw, **words):
    """Without the warnings about more leads than samples, and about what float32 resolves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[xy] has .* leads of|soft_dtw reaches")
        return op(*inputs, **words)


def largest(truth, samples, gamma):
    """What R comes to on the way: less than its end by what the number of paths can take off."""
    return truth.detach().abs() + 2 * samples * gamma * math.log(3)


def assert_right(found, truth, samples, leads, reached):
    """Each cell rounds its sum and its soft minimum, half a unit of what R comes to each."""
    eps = torch.finfo(found.dtype).eps
    assert found.shape == truth.shape
    assert found.isfinite().all()
    assert ((found.double() - truth).abs() <= (samples + leads) * eps * reached).all()


def assert_gradient(found, truth, reached, samples, gamma):
    """Weights are exponentials of such differences over gamma, multiplied along a path."""
    eps = torch.finfo(found.dtype).eps
    allowed = 2 * samples * eps * (1 + reached.max().item() / gamma) * truth.abs().max().item()
    assert found.shape == truth.shape
    assert (found.double() - truth).abs().max().item() <= allowed


def check(x, y=None, gamma=1.0, **words):
    """Values and gradients, against the reference in float64."""
    sides = [side for side in (x, y) if side is not None]
    leaves = [side.detach().requires_grad_() for side in sides]
    doubles = [side.detach().double().requires_grad_() for side in sides]
    found = quiet(*leaves, gamma=gamma, **words)
    truth = soft_dtw_reference(*doubles, gamma=gamma, **words)
    samples = x.shape[-1] + sides[-1].shape[-1]
    assert found.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    reached = largest(truth, samples, gamma)
    if words.get("divergence"):  # what it is made of may be larger, and cancel
        plain = soft_dtw_reference(*doubles, gamma=gamma, **words | {"divergence": False})
        reached = 2 * (reached + largest(plain, samples, gamma))
    assert_right(found.detach(), truth.detach(), samples, x.shape[1], reached)
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(truth.shape, generator=draw, dtype=torch.float64).to(truth.device)
    gradients = torch.autograd.grad(found, leaves, weights.to(found))
    truths = torch.autograd.grad(truth, doubles, weights)
    for gradient, right in zip(gradients, truths, strict=True):
        assert_gradient(gradient, right, reached, samples, gamma)
    return found


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(device, shape, radius):
    x, y = make_sides(shape, device=device)
    check(x, y, radius=radius, gamma=10.0)
    check(y, x, radius=radius, gamma=10.0)


@pytest.mark.parametrize("radius", [None, 5])
@pytest.mark.parametrize("records", [1, 2, 3, 6, 7])
def test_matches_reference_without_y(device, records, radius):
    check(make_records(records, 3, 40, device=device), radius=radius, gamma=10.0)


@pytest.mark.parametrize("radius", [None, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference_of_aligned_pairs(device, shape, radius):
    check(*make_partners(shape, device=device), radius=radius, gamma=10.0, pairs="aligned")


@pytest.mark.parametrize("gamma", [0.01, 1.0, 100.0])
def test_matches_reference_in_float64(gamma):
    for shape in SHAPES:
        x, y = make_sides(shape, dtype=torch.float64)
        for radius in RADII:
            check(x, y, gamma, radius=radius)


@pytest.mark.parametrize("gamma", [0.01, 1.0, 100.0])
def test_matches_reference_at_every_gamma(device, gamma):
    check(*make_sides((3, 3, 63, 2, 65), device=device), gamma)


@pairings
@pytest.mark.parametrize("radius", [None, 4, 0.2])
def test_matches_reference_with_lengths(device, radius, pairs):
    x, y = make_sides((3, 2, 60, 3, 90), device=device)
    n, m = [60, 1, 33], [2, 90, 65]
    words = dict(radius=radius, pairs=pairs, gamma=10.0)
    check(x, y, lengths=(n, m), **words)
    check(x, y, lengths=(None, m), divergence=True, **words)
    if pairs == "all":
        check(x, lengths=n, divergence=True, **words)


@pairings
def test_divergence_matches_reference(device, pairs):
    x, y = make_partners((2, 3, 33, 2, 50), device=device)
    check(x, y, 5.0, pairs=pairs, divergence=True)
    own = soft_dtw(x, x.clone(), 5.0, pairs=pairs, divergence=True)
    assert not (own if pairs == "aligned" else own.diagonal()).any()
    assert not soft_dtw(x, gamma=5.0, divergence=True).diagonal().any()


def test_every_instruction_set_matches_reference(isa):
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            x, y = make_sides(shape, dtype=dtype)
            for radius in (None, 3, 20):
                check(x, y, radius=radius, gamma=10.0)


def test_backward_takes_what_another_instruction_set_kept():
    x, y = make_sides((2, 3, 150, 2, 90))
    before = _C.build_info()["isa"]
    gradients = []
    for level in _C.build_info()["isa_here"]:
        leaf = x.clone().requires_grad_()
        _C.use_isa(level)
        value = soft_dtw(leaf, y, 10.0)
        _C.use_isa(before)
        gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
    reached = largest(value, 240, 10.0)
    for gradient in gradients:
        assert_gradient(gradient, gradients[-1].double(), reached, 240, 10.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_is_compared_in_float32(device, dtype):
    x, y = make_partners(SHAPES[3], device=device, dtype=dtype)
    leaf, wide = x.requires_grad_(), x.detach().float().requires_grad_()
    found, same = soft_dtw(leaf, y), soft_dtw(wide, y.float())
    assert torch.equal(found, same)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, torch.autograd.grad(same.sum(), wide)[0].to(dtype))


GRADCHECKS = [
    dict(),
    dict(radius=1),
    dict(radius=0.3, gamma=0.2),
    dict(lengths=([4, 5], [6, 2])),
    dict(radius=1, lengths=([1, 3], None)),
    dict(divergence=True, gamma=3.0),
    dict(divergence=True, radius=2, lengths=([4, 2], [7, 3])),
]


@pairings
@pytest.mark.parametrize("words", GRADCHECKS, ids=str)
def test_gradcheck(words, pairs):
    x, y = (side.requires_grad_() for side in make_sides((2, 3, 5, 2, 7), dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *sides: quiet(*sides, pairs=pairs, **words), (x, y))
    assert torch.autograd.gradcheck(lambda x: quiet(x, y.detach(), pairs=pairs, **words), x)
    assert torch.autograd.gradcheck(lambda y: quiet(x.detach(), y, pairs=pairs, **words), y)


@pytest.mark.parametrize(
    "words", [dict(), dict(radius=1), dict(lengths=[5, 2, 4]), dict(divergence=True)], ids=str
)
def test_gradcheck_without_y(words):
    x = make_records(3, 2, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: quiet(x, **words), x)


def test_refuses_a_second_derivative(device):
    x, y = make_partners((2, 2, 9, 2, 9), device=device)
    (gradient,) = torch.autograd.grad(
        soft_dtw(x.requires_grad_(), y).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("radius", [None, 5])
def test_a_small_gamma_tends_to_dtw(device, radius):
    x, y = make_sides((3, 3, 50, 2, 60), device=device)
    hard = dtw(x, y, radius=radius, root=False)
    former = torch.full_like(hard, -torch.inf)
    for gamma in (10.0, 1.0, 0.1, 0.01):
        soft = quiet(x, y, gamma, radius=radius)
        paths = 110 * gamma * math.log(3)  # at most 3 ways on at each step
        assert (soft <= hard + 1e-4 * hard).all()
        assert (soft >= hard - paths - 1e-4 * hard).all()
        assert (soft >= former - 1e-4 * hard).all()
        former = soft


def test_is_signed(device):
    x = make_records(3, 2, 40, device=device)
    assert (soft_dtw(x, gamma=100.0) < 0).all()


def test_each_sample_is_on_one_to_all_cells(device):
    n, m = 70, 45
    x = torch.linspace(1, 3, n, device=device)[None, None].requires_grad_()
    y = torch.zeros(1, 1, m, device=device)
    (gradient,) = torch.autograd.grad(soft_dtw(x, y, 2.0).sum(), x)
    cells = (gradient / (2 * x)).detach()[0, 0]  # E summed over the columns
    assert (cells >= 1 - 1e-4).all()
    assert (cells <= m + 1e-4).all()
    assert max(n, m) - 1e-2 <= cells.sum().item() <= n + m - 1 + 1e-2


@pairings
@pytest.mark.parametrize("radius", [None, 9])
def test_records_do_not_mix(device, radius, pairs):
    x, y = make_sides((4, 3, 70, 4, 81), device=device)
    leaves = [side.requires_grad_() for side in (x, y)]
    whole = soft_dtw(x, y, radius=radius, pairs=pairs)
    gradients = torch.autograd.grad(whole[2].sum(), leaves)
    for i, j in [(0, 0), (3, 3), (2, 1)]:
        if pairs == "aligned" and i != j:
            continue
        alone = soft_dtw(x[i : i + 1], y[j : j + 1], radius=radius)
        assert alone.item() == (whole[i] if pairs == "aligned" else whole[i, j]).item()
    others = [0, 1, 3]
    assert not gradients[0][others].any()
    if pairs == "aligned":
        few = soft_dtw(x[2:3], y[2:3], radius=radius)
        for gradient, same in zip(gradients, torch.autograd.grad(few.sum(), leaves), strict=True):
            assert torch.equal(gradient, same)


@pytest.mark.parametrize("radius", [None, 0, 9, 0.2])
def test_is_symmetric_bit_for_bit(device, radius):
    x, y = make_sides((5, 5, 70, 3, 45), device=device)
    own = soft_dtw(x, radius=radius)
    assert torch.equal(own, own.T)
    assert torch.equal(own, soft_dtw(x, x.clone(), radius=radius))
    assert torch.equal(own.diagonal(), soft_dtw(x, x, radius=radius, pairs="aligned"))
    there = soft_dtw(x, y, radius=radius)
    assert torch.equal(there, soft_dtw(y, x, radius=radius).T)


def outcomes(x, y):
    """Values and gradients of all sorts, as bits."""
    found = []
    for a, b, words in [
        (x, y, {}),
        (x, None, {}),
        (x, y, dict(radius=0.1)),
        (x[:7], y, dict(pairs="aligned")),
        (x.double(), y.double(), {}),
    ]:
        leaves = [side.detach().requires_grad_() for side in (a, b) if side is not None]
        value = quiet(*leaves, gamma=5.0, **words)
        found += [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]
    return found


def test_thread_count_does_not_show():
    x, y = make_sides((9, 12, 150, 7, 90))
    before = torch.get_num_threads()
    found = []
    for threads in (1, 5, 5):
        torch.set_num_threads(threads)
        found.append(outcomes(x, y))
    torch.set_num_threads(before)
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[1], found[2]))


def test_batches_of_pairs_do_not_show(device, monkeypatch):
    x, y = make_sides((5, 3, 40, 4, 30), device=device)
    shapes = _C.soft_dtw_shapes

    def gradients():
        leaves = [side.detach().requires_grad_() for side in (x, y)]
        value = soft_dtw(*leaves, gamma=5.0)
        both = torch.autograd.grad(value.square().sum(), leaves)
        own = soft_dtw(leaves[0], gamma=5.0)
        return *both, *torch.autograd.grad(own.square().sum(), leaves[0])

    whole = gradients()
    for batch in (1, 3, 7):

        def few(*facts, batch=batch):
            *others, dx, dy = shapes(*facts)
            return [*others, (batch, *dx[1:]), (batch, *dy[1:])]

        monkeypatch.setattr(_C, "soft_dtw_shapes", few)
        assert all(map(torch.equal, whole, gradients()))


def with_gradients(x, y, **words):
    """Values and gradients of all pairs, of the pairs without y, of those that are aligned."""
    found = []
    partners = dict(pairs="aligned", **words)
    for sides, how in [((x, y), words), ((x,), words), ((x, y[: len(x)]), partners)]:
        leaves = [side.detach().requires_grad_() for side in sides]
        value = soft_dtw(*leaves, **how)
        found += [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]
    return found


@pytest.mark.parametrize("radius", [None, 6])
def test_how_much_scratch_there_is_does_not_show(device, radius, monkeypatch):
    x, y = make_sides((5, 3, 40, 7, 70), device=device)
    words = dict(gamma=5.0, radius=radius)
    whole = with_gradients(x, y, **words)
    shapes = _C.soft_dtw_shapes

    def least(n, m, *facts):  # what one pair needs: the others wait for it
        rows, columns, _, _, *partial = shapes(n, m, *facts)
        return [rows, columns, *shapes(1, 1, *facts)[2:4], *partial]

    monkeypatch.setattr(_C, "soft_dtw_shapes", least)
    assert all(map(torch.equal, whole, with_gradients(x, y, **words)))


@pytest.mark.parametrize("radius", [None, 6])
def test_scratch_may_hold_anything(device, radius, monkeypatch):
    if device.type == "cuda":
        pytest.skip("its memory is out of reach here")
    x, y = make_sides((5, 3, 40, 7, 70), device=device)
    words = dict(gamma=5.0, radius=radius)
    whole = with_gradients(x, y, **words)

    def on_zeros(kernel, at):  # less than any R in front of a record, and not NaN
        def run(*arguments):
            pointer, shape = arguments[at][:2]
            ctypes.memset(pointer, 0, 4 * math.prod(shape))
            kernel(*arguments)

        return run

    monkeypatch.setattr(_C, "soft_dtw_forward", on_zeros(_C.soft_dtw_forward, 6))
    monkeypatch.setattr(_C, "soft_dtw_backward", on_zeros(_C.soft_dtw_backward, 7))
    assert all(map(torch.equal, whole, with_gradients(x, y, **words)))


@pytest.mark.parametrize("radius", [8, 10, 32])
def test_paths_cross_from_pass_to_pass_at_the_edge_of_a_band(device, radius):
    x, y = make_sides((2, 2, 70, 2, 70), device=device)
    check(x, y, radius=radius, gamma=10.0)  # a pass on CUDA has 32 columns


def test_subnormal_numbers_are_as_before(device):
    tiny = torch.full((64, 1, 64), 1e-41)
    small = torch.tensor(1e-38)
    before = torch.get_num_threads()
    torch.set_num_threads(4)  # dtw then runs on the threads that soft_dtw has run on
    wanted = dtw(tiny, -tiny, cost="l1")
    assert (wanted > 0).all()
    x = make_records(8, 3, 130, device=device).requires_grad_()
    quiet(x, gamma=0.1).sum().backward()
    assert torch.equal(dtw(tiny, -tiny, cost="l1"), wanted)
    torch.set_num_threads(before)
    assert (small * 1e-3).item() > 0


def test_weights_of_far_paths_cost_no_time_and_no_bits(device):
    x, y = make_sides((2, 3, 64, 2, 70), device=device)  # R differs by thousands of gammas
    check(x, y, 1e-3)
    gradient = torch.autograd.grad(quiet(x.requires_grad_(), y, 1e-30).sum(), x)[0]
    assert gradient.isfinite().all()


@pairings
@pytest.mark.parametrize("radius", [None, 0, 4])
def test_lengths_are_crops(device, radius, pairs):
    x, y = make_sides((3, 2, 70, 3, 50), device=device)
    n, m = [70, 1, 33], [2, 50, 31]
    x[1, :, 1:] = torch.nan  # what lies behind the end is not looked at
    y[0, :, 2:] = torch.inf
    leaves = [side.requires_grad_() for side in (x, y)]
    words = dict(radius=radius, pairs=pairs, divergence=True)
    found = soft_dtw(x, y, lengths=(n, torch.tensor(m)), **words)
    gradients = torch.autograd.grad(found.sum(), leaves)
    for side, gradient, lengths in zip(leaves, gradients, (n, m), strict=True):
        behind = (
            torch.arange(side.shape[-1], device=device)
            >= torch.tensor(lengths, device=device)[:, None]
        )
        assert not gradient.where(behind[:, None], 0).any()
        assert gradient.isfinite().all()
    for i, a in enumerate(n):
        for j, b in enumerate(m):
            if pairs == "aligned" and i != j:
                continue
            alone = quiet(x[i, None, :, :a], y[j, None, :, :b], **words)
            assert alone.item() == (found[i] if pairs == "aligned" else found[i, j]).item()


def test_radius_0_is_the_sum_along_the_diagonal(device):
    x, y = make_sides((3, 4, 77, 2, 77), device=device)
    plain = torch.cdist(x.double().flatten(1).cpu(), y.double().flatten(1).cpu()).square()
    assert_right(soft_dtw(x, y, radius=0).cpu(), plain, 154, 4, largest(plain, 154, 1.0))


def test_a_record_that_is_not_finite_spoils_no_other(device):
    x, y = make_sides((5, 3, 40, 4, 40), device=device)
    x[2, 1, 7] = torch.nan
    x[4, 0, 39] = -torch.inf
    y[1, 2, 0] = torch.inf
    leaves = [side.requires_grad_() for side in (x, y)]
    value = soft_dtw(x, y)
    assert value[[2, 4]].isnan().all()
    assert value[:, 1].isnan().all()
    rows, columns = [0, 1, 3], [0, 2, 3]
    kept = soft_dtw(x[rows], y[columns])
    assert torch.equal(value[rows][:, columns], kept)
    for gradient, same in zip(
        torch.autograd.grad(value.sum(), leaves),
        torch.autograd.grad(kept.sum(), leaves),
        strict=True,
    ):
        assert torch.equal(gradient, same)  # 0 for the records that are not finite
    own = soft_dtw(x)
    assert own.isnan().sum() == 25 - 9
    assert torch.autograd.grad(own.sum(), x)[0].isfinite().all()


def test_a_value_beyond_the_dtype_is_infinite(device):
    x = torch.full((2, 12, 900), 2e12, device=device)
    x[1] *= -1
    value = quiet(x.requires_grad_(), gamma=math.log2(math.e) / 4)  # packed: 4e12
    assert value[0, 1].item() == torch.inf
    assert value.diagonal().isfinite().all()
    assert torch.autograd.grad(value[0, 1], x)[0].isfinite().all()
    with pytest.raises(AssertionError):
        assert quiet(x * 10, gamma=1.0).isfinite().all()  # packed samples beyond 1e13


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 3:-1],  # a crop
        lambda x: x[::2],  # some records
        lambda x: x[:, :, ::2],  # some samples
        lambda x: x.transpose(0, 1),  # leads first
        lambda x: x[:, :, :6].mT,  # time first
        lambda x: x[:1].expand(4, -1, -1),  # one record, many times
        lambda x: x[:, :, :1].expand(-1, -1, 9),  # one sample, many times
    ],
)
def test_takes_any_strides(device, change):
    sides = [change(records) for records in make_sides((4, 6, 33, 4, 33), device=device)]
    odd = [side.detach().requires_grad_() for side in sides]
    dense = [side.detach().contiguous().requires_grad_() for side in sides]
    for pairs in PAIRS:
        found, same = quiet(*odd, pairs=pairs), quiet(*dense, pairs=pairs)
        assert torch.equal(found, same)
        grad = torch.linspace(1, 2, 1, device=device).expand(found.shape)
        for a, b in zip(
            torch.autograd.grad(found, odd, grad),
            torch.autograd.grad(same, dense, grad.contiguous()),
            strict=True,
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(0, 2, 7, 3, 5), (4, 2, 7, 0, 5), (0, 2, 7, 0, 5)], ids=str)
def test_empty(device, shape):
    x, y = (side.requires_grad_() for side in make_sides(shape, device=device))
    value = soft_dtw(x, y)
    assert value.shape == (shape[0], shape[3])
    for side, gradient in zip((x, y), torch.autograd.grad(value.sum(), (x, y)), strict=True):
        assert gradient.shape == side.shape
        assert not gradient.any()
    assert soft_dtw(x, divergence=True).shape == (shape[0], shape[0])
    if len(x) == len(y):
        assert soft_dtw(x, y, pairs="aligned").shape == (shape[0],)


def test_never_holds_a_matrix_of_a_pair():
    x = make_records(4, 12, 2000).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        quiet(x, x.detach(), pairs="aligned").sum().backward()
    largest_of = max(event.self_cpu_memory_usage for event in profile.events())
    threads = torch.get_num_threads()
    scratch = 4 * (3 + 12 + 4 * 64) * (2000 + 256) * threads
    assert largest_of <= scratch + x.nbytes  # a matrix for each of 4 pairs are 64 MB
    with torch.profiler.profile(profile_memory=True) as profile:
        quiet(x.detach())
    assert max(event.self_cpu_memory_usage for event in profile.events()) <= 3 * x.nbytes


def test_torch_knows_the_op(device):
    x, y = make_sides((3, 5, 20, 3, 23), device=device)
    ops = torch.ops.ecgfast
    n, m = torch.tensor([3, 20, 7], device=device), torch.tensor([23, 5, 9], device=device)
    for a, b, aligned, lengths, band in [
        (x, y, False, (None, None), (None, None)),
        (x, None, False, (n, None), (3, None)),
        (x, y, True, (n, m), (None, 0.3)),
        (x.transpose(0, 1), y[:, :3].mT[:, :3].mT, False, (None, None), (None, None)),
        (x.half(), y.half(), True, (None, None), (None, None)),
    ]:
        how = (1.0, *band, aligned)
        torch.library.opcheck(ops.soft_dtw.default, (a, b, *lengths, *how, False))
        torch.library.opcheck(ops.soft_dtw.default, (a, b, *lengths, *how, True))
        value, kept = ops.soft_dtw(a, b, *lengths, *how, True)
        facts = (torch.ones_like(value), a, b, *lengths, value, kept, *how)
        torch.library.opcheck(ops.soft_dtw_backward.default, facts)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def loss(x, y):
        own = soft_dtw(x * 2, radius=5, divergence=True).sum()
        return own + soft_dtw(x, y, 2.0, radius=0.5, pairs="aligned").square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x, y = make_partners((records, 3, 25, records, 30), device=device)
        x.requires_grad_()
        found, wanted = compiled(x, y), loss(x, y)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(wanted, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x, y = make_sides((3, 3, 33, 2, 31), device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = soft_dtw(x, y, divergence=True)
    assert torch.equal(inside, soft_dtw(x, y, divergence=True))


def test_what_float32_cannot_resolve_warns():
    x = 10 * make_records(2, 12, 200)
    with pytest.warns(UserWarning, match=r"float32 resolves .* pass float64 or a larger gamma"):
        soft_dtw(x, gamma=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        soft_dtw(x.double(), gamma=1e-3)
        soft_dtw(x, gamma=1e3)


def test_swapped_axes_warn():
    with pytest.warns(UserWarning, match=r"300 leads of 12 samples.*time must be the last axis"):
        soft_dtw(torch.randn(2, 300, 12))


RECORDS = torch.zeros(3, 2, 9)


@pytest.mark.parametrize(
    ("x", "y", "words", "error", "message"),
    [
        (torch.zeros(3, 9), None, {}, ValueError, r"x must be \(records, leads, samples\), got"),
        (RECORDS, torch.zeros(9), {}, ValueError, r"y must be \(records, leads, samples\), got"),
        (torch.zeros(3, 2, 0), None, {}, ValueError, "x has no leads or no samples"),
        (RECORDS.int(), None, {}, TypeError, "x must be .* got torch.int32"),
        (RECORDS, torch.zeros(3, 4, 9), {}, ValueError, "x has 2 leads and y has 4"),
        (RECORDS, RECORDS.half(), {}, TypeError, "cast one of them"),
        (RECORDS, RECORDS.to("meta"), {}, ValueError, "y on meta"),
        (RECORDS, None, {"gamma": 0}, ValueError, "gamma must be a number over 0, got 0"),
        (RECORDS, None, {"gamma": -1.0}, ValueError, "gamma must be a number over 0"),
        (RECORDS, None, {"gamma": math.inf}, ValueError, "gamma must be a number over 0"),
        (RECORDS, None, {"gamma": math.nan}, ValueError, "gamma must be a number over 0"),
        (RECORDS, None, {"gamma": True}, ValueError, "gamma must be a number over 0"),
        (RECORDS, None, {"gamma": torch.ones(2)}, ValueError, "gamma must be a number over 0"),
        (RECORDS, RECORDS, {"pairs": "align"}, ValueError, "did you mean aligned"),
        (RECORDS, None, {"pairs": "aligned"}, ValueError, "pass y"),
        (RECORDS, RECORDS[:2], {"pairs": "aligned"}, ValueError, "as many records .* 2 and 3"),
        (RECORDS, None, {"radius": -1}, ValueError, "radius must be at least 0, got -1"),
        (RECORDS, None, {"radius": 10.0}, ValueError, "an int for samples"),
        (RECORDS, None, {"radius": float("nan")}, ValueError, "an int for samples"),
        (RECORDS, None, {"radius": True}, ValueError, "radius must be a number"),
        (RECORDS, None, {"lengths": [9, 9]}, ValueError, r"lengths must be \(3,\), got \(2,\)"),
        (RECORDS, None, {"lengths": [9, 0, 0]}, ValueError, r"in \[1, 9\], got 0 for record 1 \(2"),
        (RECORDS, None, {"lengths": [9.0, 1.0, 2.0]}, ValueError, "whole numbers"),
        (RECORDS, RECORDS, {"lengths": [9, 9, 9]}, ValueError, "lengths must be a pair"),
    ],
)
def test_refuses(x, y, words, error, message):
    with pytest.raises(error, match=message):
        soft_dtw(x, y, **words)


def view(tensor, **lies):
    facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
    code = {torch.float32: 2, torch.float64: 3, torch.int32: 6, torch.int64: 7}[tensor.dtype]
    return tuple((facts | dict(dtype=code, device=-1) | lies).values())


def refused(function, honest, facts, lies):
    """Each lie about a view, or about a fact by its place, with what is said of it."""
    place = (-1, 0, 2)
    for name, lie, message in lies:
        views = [view(part, **(lie if key == name else {})) for key, part in honest.items()]
        said = [lie if at == name else fact for at, fact in enumerate(facts)]
        with pytest.raises(ValueError, match=message):
            function(*views, *said, place)


def test_border_guards_memory():
    place = (-1, 0, 2)
    shapes = _C.soft_dtw_shapes(2, 4, 3, 8, 9, 0, place)
    row, column, room, more, dx, dy = map(torch.zeros, shapes)
    sides = dict(
        rows=row,
        columns=column,
        x_length=torch.zeros(0, dtype=torch.int64),
        y_length=torch.full((4,), 9),
    )
    value, kept = torch.zeros(2, 4), torch.zeros(8, 1, 9)
    flags = torch.zeros(2, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    forward = dict(
        **sides, x_finite=flags[0], y_finite=flags[1], scratch=room, value=value, kept=kept
    )
    common = [
        ("rows", dict(shape=(2, 3, 8)), "rows must be"),
        ("columns", dict(shape=(4, 3, 9)), "columns must be"),
        ("columns", dict(stride=(0, 0, 1)), "dense"),
        ("x_length", dict(shape=(3,)), "x_length must be"),
        ("y_length", dict(dtype=6), "y_length has the wrong dtype"),
        ("scratch", dict(shape=(1, 1, 73)), "scratch must be"),
        ("value", dict(dtype=1), "without a kernel"),
        ("value", dict(shape=(8,), stride=(1,)), "value must be"),
        ("value", dict(device=0), "one device"),
        ("value", dict(data=0), "no memory"),
        ("kept", dict(shape=(7, 1, 9)), "kept must be"),
        (0, 0, "leads and samples"),
        (2, 2**31, "too large"),
        (3, 3, "no such pairs"),
        (3, 1, "x itself"),
        (5, -1, "radius must be"),
        (5, 18, "radius must be"),
        (6, 1.5, "fraction must be"),
    ]
    refused(_C.soft_dtw_forward, forward, (3, 8, 9, 0, 1.0, 5, -1.0), common)
    backward = dict(
        **sides, value=value, grad=value, kept=kept, scratch=more, dx=dx, dy=dy,
        grad_x=torch.zeros(2, 3, 8), grad_y=torch.zeros(4, 3, 9),
    )  # fmt: skip
    lies = [
        ("grad", dict(shape=(4, 2)), "grad must be"),
        ("dx", dict(shape=(9, 3, 8)), "a batch must have pairs"),
        ("dx", dict(shape=(0, 3, 8)), "a batch must have pairs"),
        ("dy", dict(shape=(7, 3, 9)), "y_partial must be"),
        ("grad_x", dict(shape=(2, 3, 9)), "grad_x must be"),
        ("grad_y", dict(shape=(0, 3, 9)), "grad_y must be"),
        ("grad_y", dict(stride=(0, 9, 1)), "dense"),
        (4, 0.0, "scale must be positive"),
        (4, math.inf, "scale must be positive"),
    ]
    refused(_C.soft_dtw_backward, backward, (3, 8, 9, 0, 1.0, 5, -1.0), common + lies)
    none = torch.zeros(0, 0, 0)
    prepare = dict(
        x=torch.zeros(2, 3, 8), length=sides["x_length"], rows=row, columns=none, finite=flags[0]
    )
    lies = [
        ("x", dict(shape=(2, 24), stride=(24, 1)), r"x must be \(N, L, T\)"),
        ("x", dict(stride=(24, 1, 3)), "dense"),
        ("rows", dict(shape=(2, 3, 8)), "rows must be"),
        ("columns", dict(shape=(2, 3, 8)), "columns must be"),
        ("finite", dict(shape=(4,)), "finite must be"),
        ("length", dict(shape=(4,)), "length must be"),
        (0, math.nan, "scale must be positive"),
    ]
    refused(_C.soft_dtw_prepare, prepare, (1.0,), lies)


def test_matches_what_tslearn_said(device):
    frozen = json.loads((Path(__file__).parent / "golden/soft_dtw.json").read_text())
    exact = [torch.tensor(frozen[name], dtype=torch.float64) for name in ("x", "y")]
    x, y = (side.to(device, torch.float32) for side in exact)
    for said in frozen["said"]:
        gamma = said["gamma"]
        wide, own, away = (
            torch.tensor(said[name], dtype=torch.float64)
            for name in ("cdist", "self", "divergence")
        )
        reached = largest(wide, 52, gamma)
        assert_right(quiet(x, y, gamma).cpu(), wide, 52, 3, reached)
        assert_right(quiet(x, gamma=gamma).cpu(), own, 52, 3, largest(own, 52, gamma))
        cancels = 2 * reached + own.abs().max()
        assert_right(quiet(x, y, gamma, divergence=True).cpu(), away, 52, 3, cancels)
        if device.type == "cpu" and _C.soft_dtw_forward is NATIVE:
            assert_right(soft_dtw(*exact, gamma), wide, 52, 3, reached)
            assert_right(soft_dtw(*exact, gamma, divergence=True), away, 52, 3, cancels)
        assert said["alone"] == pytest.approx(said["cdist"][0][1], rel=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_a_whole_record_keeps_its_accuracy(gamma):
    x, y = (make_ecg(2, 12, 1000, seed=seed) for seed in (1, 2))
    near = [side.requires_grad_() for side in (x, y)]
    exact = [side.detach().double().requires_grad_() for side in (x, y)]
    found, truth = (soft_dtw(*sides, gamma, pairs="aligned") for sides in (near, exact))
    assert ((found - truth).abs() <= 4e-6 * truth.abs()).all()
    gradients = (torch.autograd.grad(v.sum(), s) for v, s in ((found, near), (truth, exact)))
    for gradient, right in zip(*gradients, strict=True):
        error = (gradient - right).abs().amax((1, 2)) / right.abs().amax((1, 2))
        assert (error <= 2e-4).all()
