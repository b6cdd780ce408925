"""pairwise_distance against its reference: values, gradients, near rows, edges, torch."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.pairwise_distance import (
    METRICS,
    pairwise_distance,
    pairwise_distance_reference,
)
from ecgfast.testing import assert_as_accurate

# (N, M, D): one of all; under a vector; over one; a tile and a bit; a block, a stretch and a bit
SHAPES = [(1, 1, 1), (3, 5, 7), (5, 4, 33), (9, 66, 130), (33, 35, 1041)]
room = importlib.import_module("ecgfast.ops.pairwise_distance")  # the package has the op's name
metrics = pytest.mark.parametrize("metric", METRICS)


def make_rows(rows, columns, *, seed=0, dtype=torch.float32, device="cpu"):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw, dtype=torch.float64).to(device, dtype)


def make_sides(shape, **facts):
    n, m, d = shape
    return make_rows(n, d, **facts), make_rows(m, d, seed=1, **facts)


def both(metric):
    """The op and its reference, the former in the dtype of its inputs."""

    def op(x, y=None):
        return pairwise_distance(x, y, metric=metric).to(x.dtype)

    return op, functools.partial(pairwise_distance_reference, metric=metric)


@metrics
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, shape, metric):
    x, y = make_sides(shape, device=device, dtype=dtype)
    assert_as_accurate(*both(metric), x, y)
    assert_as_accurate(*both(metric), x)


@metrics
def test_whole_signals_match_reference(metric):
    x, y = make_sides((3, 4, 30000))  # 12 leads of 10 s at 250 Hz
    assert_as_accurate(*both(metric), x, y)
    assert_as_accurate(*both(metric), x)


@metrics
def test_segments_of_their_own_blocks_give_the_same(device, metric, monkeypatch):
    sides = make_sides((5, 4, 2500), device=device)
    for y in (sides[1], None):
        whole = pairwise_distance(sides[0], y, metric=metric)
        with monkeypatch.context() as patch:
            patch.setattr(room, "_segments", lambda x, distance: 3)
            assert torch.equal(pairwise_distance(sides[0], y, metric=metric), whole)


@metrics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype, metric):
    x, y = make_sides(SHAPES[3], device=device, dtype=dtype)
    assert_as_accurate(*both(metric), x, y)
    assert_as_accurate(*both(metric), x)


@metrics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_is_measured_in_float32(device, dtype, metric):
    x, y = make_sides(SHAPES[3], device=device, dtype=dtype)
    torch.testing.assert_close(
        pairwise_distance(x, y, metric=metric),
        pairwise_distance(x.float(), y.float(), metric=metric),
        rtol=0,
        atol=0,
    )


@metrics
def test_every_instruction_set_matches_reference(isa, metric):
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            x, y = make_sides(shape, dtype=dtype)
            assert_as_accurate(*both(metric), x, y)
            assert_as_accurate(*both(metric), x)


@metrics
def test_gradcheck(device, metric):
    x, y = make_sides((4, 3, 5), device=device, dtype=torch.float64)
    distance = functools.partial(pairwise_distance, metric=metric)
    assert torch.autograd.gradcheck(distance, (x.requires_grad_(), y.requires_grad_()))
    assert torch.autograd.gradcheck(distance, (x, y.detach()))
    assert torch.autograd.gradcheck(distance, (x.detach(), y))
    assert torch.autograd.gradcheck(distance, (x,))


@metrics
def test_refuses_a_second_derivative(device, metric):
    x = make_rows(3, 5, device=device).requires_grad_()
    distance = pairwise_distance(x, metric=metric).square().sum()
    (gradient,) = torch.autograd.grad(distance, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@metrics
def test_other_rows_do_not_show(device, metric):
    x, y = make_sides((37, 70, 1030), device=device)
    whole = pairwise_distance(x, y, metric=metric)
    for i, j in [(0, 0), (36, 69), (5, 33)]:
        alone = pairwise_distance(x[i : i + 1], y[j : j + 1], metric=metric)
        assert alone.item() == whole[i, j].item()


@metrics
def test_without_y_it_is_symmetric_with_a_diagonal_of_zeros(device, metric):
    x = make_rows(70, 131, device=device)
    distance = pairwise_distance(x, metric=metric)
    assert torch.equal(distance, distance.T)
    assert not distance.diagonal().any()
    assert torch.equal(distance, pairwise_distance(x, x.clone(), metric=metric))


@metrics
def test_thread_count_does_not_show(metric):
    x, y = (rows.requires_grad_() for rows in make_sides((40, 70, 2500)))

    def run(threads):
        torch.set_num_threads(threads)
        outputs = []
        for sides in [(x, y), (x,)]:
            distance = pairwise_distance(*sides, metric=metric)
            outputs += [distance, *torch.autograd.grad(distance.square().sum(), sides)]
        return outputs

    before = torch.get_num_threads()
    alone, together = run(1), run(5)
    torch.set_num_threads(before)
    assert all(map(torch.equal, alone, together))


@metrics
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_near_rows_lose_no_digits(device, dtype, metric):
    # rows of length about 23, and copies of them 23, 2.3, ... 2.3e-5 away: one bin a power of ten
    x = make_rows(96, 512, device=device)
    steps = 10.0 ** -torch.arange(6, device=device).repeat_interleave(16)[:, None]
    x, y = x.to(dtype), (x + steps * make_rows(96, 512, seed=1, device=device)).to(dtype)
    truth = direct(x.double(), y.double(), metric)
    plain = direct(x.float(), y.float(), metric).double()
    fused = pairwise_distance(x, y, metric=metric).diagonal().double()
    assert torch.equal(fused == 0, truth == 0)
    for bin_ in range(6):
        at = slice(16 * bin_, 16 * bin_ + 16)
        size = truth[at].clamp_min(1e-300)
        error = ((fused - truth)[at].abs() / size).max().item()
        allowed = 2 * ((plain - truth)[at].abs() / size).max().item()
        assert error <= allowed + 4 * torch.finfo(torch.float32).eps, f"1e-{bin_}: {error:.1e}"


def direct(x, y, metric):
    """Row i of x to row i of y, differences first."""
    if metric == "cosine":
        x, y = (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True) for rows in (x, y))
        return (x - y).square().sum(dim=1) / 2
    distances = [
        pairwise_distance_reference(a, b, metric=metric)
        for a, b in zip(x.split(1), y.split(1), strict=True)
    ]
    return torch.cat(distances).flatten()


@metrics
def test_equal_rows_are_at_zero_with_gradient_zero(device, metric):
    x = make_rows(6, 40, device=device)
    y = x.clone().requires_grad_()
    x[3] = x[1]
    x.requires_grad_()
    distance = pairwise_distance(x, y, metric=metric)
    assert distance[1, 1] == distance[3, 1] == 0
    at_zero = torch.zeros_like(distance)
    at_zero[1, 1] = at_zero[3, 1] = 1
    for gradient in torch.autograd.grad(distance, (x, y), at_zero):
        assert not gradient.any()
    (gradient,) = torch.autograd.grad(pairwise_distance(x, metric=metric).sum(), x)
    assert gradient.isfinite().all()


@metrics
def test_a_nan_stays_in_its_row_and_column(device, metric):
    x, y = make_sides((5, 4, 20), device=device)
    x[2, 7] = torch.nan
    y[1, 0] = torch.inf
    clean = pairwise_distance(x.nan_to_num(0, 0), y.nan_to_num(0, 0, 0), metric=metric)
    spoilt = pairwise_distance(x, y, metric=metric)
    assert spoilt[2].isnan().all()
    assert not spoilt[:, 1].isfinite().any()
    kept = torch.ones_like(clean, dtype=torch.bool)
    kept[2] = kept[:, 1] = False
    assert torch.equal(spoilt[kept], clean[kept])
    itself = pairwise_distance(x, metric=metric)
    assert itself.isnan().sum() == 9
    assert itself[2, 2].isnan()


def test_a_zero_row_is_at_cosine_distance_1(device):
    x, y = (rows.double() for rows in make_sides((4, 3, 20), device=device))
    x[1] = x[2] = y[0] = 0
    x.requires_grad_()
    y.requires_grad_()
    distance = pairwise_distance(x, y, metric="cosine")
    assert (distance[1:3] == 1).all()
    assert (distance[:, 0] == 1).all()
    gradients = torch.autograd.grad(distance.sum(), (x, y))
    assert not gradients[0][1:3].any()
    assert not gradients[1][0].any()
    plain = torch.autograd.grad(
        pairwise_distance_reference(x[[0, 3]], y[1:], metric="cosine").sum(), (x, y)
    )
    torch.testing.assert_close(gradients, plain)
    itself = pairwise_distance(x, metric="cosine")
    assert itself[1, 2] == itself[0, 1] == 1
    assert not itself.diagonal().any()


def test_rows_of_any_length_have_a_cosine(device):
    x, y = make_sides((3, 4, 100), device=device)
    for scale in (2.0**-100, 2.0**-130, 2.0**100):  # squares under and over float32; subnormal rows
        same = pairwise_distance(x * scale, y, metric="cosine")
        rounded = pairwise_distance(x * scale / scale, y, metric="cosine")
        torch.testing.assert_close(same, rounded, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, 3:-1],  # a crop
        lambda x: x[::3],  # some rows
        lambda x: x[:, ::2],  # some columns
        lambda x: x.T[:, :9],  # columns first
        lambda x: x[:1].expand(9, -1),  # one row, many times
        lambda x: x[:, :1].expand(-1, 9),  # one column, many times
    ],
)
@metrics
def test_takes_any_strides(device, change, metric):
    any_sides = [change(rows) for rows in make_sides((12, 12, 37), device=device)]
    outcomes = []
    for sides in (any_sides, [rows.contiguous() for rows in any_sides]):
        x, y = (rows.detach().requires_grad_() for rows in sides)
        cross, own = pairwise_distance(x, y, metric=metric), pairwise_distance(x, metric=metric)
        gradients = torch.autograd.grad(cross.square().sum() + own.square().sum(), (x, y))
        outcomes.append([cross, own, *gradients])
    assert all(map(torch.equal, *outcomes))


@metrics
def test_gradient_of_any_strides(device, metric):
    x, y = (rows.requires_grad_() for rows in make_sides((5, 7, 40), device=device))
    expanded = torch.ones(1, device=device).expand(5, 7)  # as .sum() would send it
    turned = make_rows(7, 5, device=device).T
    for grad in (expanded, turned):
        distance = pairwise_distance(x, y, metric=metric)
        from_any = torch.autograd.grad(distance, (x, y), grad, retain_graph=True)
        from_dense = torch.autograd.grad(distance, (x, y), grad.contiguous())
        assert all(map(torch.equal, from_any, from_dense))


@metrics
@pytest.mark.parametrize("shape", [(0, 4, 7), (4, 0, 7), (0, 0, 7)], ids=str)
def test_empty(device, shape, metric):
    x, y = (rows.requires_grad_() for rows in make_sides(shape, device=device))
    distance = pairwise_distance(x, y, metric=metric)
    assert distance.shape == shape[:2]
    for rows, gradient in zip((x, y), torch.autograd.grad(distance.sum(), (x, y)), strict=True):
        assert torch.equal(gradient, torch.zeros_like(rows))


@metrics
def test_holds_no_more_than_rows_and_pairs(metric):
    x, y = (rows.requires_grad_() for rows in make_sides((300, 200, 400)))
    rows, pairs = x.nbytes + y.nbytes, 4 * 300 * 200
    with torch.profiler.profile(profile_memory=True) as profile:
        torch.autograd.grad(pairwise_distance(x, y, metric=metric).sum(), (x, y))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 2 * max(rows, pairs)  # a hundredth of 300 x 200 x 400 floats


@metrics
def test_torch_knows_the_op(device, metric):
    x, y = make_sides((5, 4, 33), device=device)
    forward = torch.ops.ecgfast.pairwise_distance.default
    backward = torch.ops.ecgfast.pairwise_distance_backward.default
    distance = pairwise_distance(x, y, metric=metric)
    for sides in [(x, y), (x, None), (x[:, :5].T, y[:, 1:6]), (x.half(), y.half())]:
        torch.library.opcheck(forward, (*sides, metric))
    for sides in [(x, y), (x.half(), y.half())]:
        torch.library.opcheck(backward, (distance, *sides, distance, metric))
    torch.library.opcheck(backward, (distance.T, y, x, distance.T, metric))


@metrics
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic, metric):
    def loss(x, y):
        own, cross = pairwise_distance(x * 2, metric=metric), pairwise_distance(x, y, metric=metric)
        return own.mean() + (cross**2).mean()

    torch._dynamo.reset()  # every metric is one more compilation of the same lines
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (2, 5):
        sides = make_sides((rows, 4, 33), device=device)
        x, y = (side.requires_grad_() for side in sides)
        eager, same = loss(x, y), compiled(x, y)
        torch.testing.assert_close(same, eager)
        torch.testing.assert_close(*(torch.autograd.grad(value, (x, y)) for value in (same, eager)))


@metrics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype, metric):
    x, y = make_sides((5, 4, 33), device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = pairwise_distance(x, y, metric=metric)
    assert torch.equal(inside, pairwise_distance(x, y, metric=metric))


@pytest.mark.parametrize(
    ("x", "y", "metric", "error", "message"),
    [
        (torch.zeros(3), None, "l1", ValueError, r"x must be \(rows, D\), got \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(2), "l1", ValueError, r"y must be \(rows, D\), got \(2,\)"),
        (torch.zeros(3, 0), None, "l1", ValueError, "x has no columns"),
        (torch.zeros(3, 2), torch.zeros(4, 5), "l1", ValueError, "x has 2 columns and y has 5"),
        (torch.zeros(3, 2).int(), None, "l1", TypeError, "x must be .* got torch.int32"),
        (torch.zeros(3, 2), torch.zeros(3, 2).half(), "l1", TypeError, "float32 and y is torch.f"),
        (torch.zeros(3, 2), torch.zeros(3, 2, device="meta"), "l1", ValueError, "y on meta"),
        (torch.zeros(3, 2), None, "euclidian", ValueError, "did you mean euclidean"),
        (torch.zeros(3, 2), None, "L1", ValueError, "did you mean l1"),
        (torch.zeros(3, 2), None, "meanl1", ValueError, "did you mean mean_l1"),
    ],
)
def test_refuses(x, y, metric, error, message):
    with pytest.raises(error, match=message):
        pairwise_distance(x, y, metric=metric)


def test_border_guards_memory():
    def view(tensor, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype={4: 2, 8: 3}[tensor.element_size()], device=-1) | lies
        return tuple(facts.values())

    x, y, distance = torch.zeros(2, 8), torch.zeros(3, 8), torch.zeros(2, 3)
    none, pairs = torch.zeros(0, dtype=torch.float64), torch.zeros(0, 2, 3)
    honest = dict(x=x, y=y, norm_x=none, norm_y=none, distance=distance, partial=pairs)
    for name, lie, message in [
        ("x", dict(shape=(2, 0)), "columns > 0"),
        ("x", dict(stride=(16, 2)), "dense"),
        ("x", dict(dtype=1), "without a kernel"),
        ("y", dict(shape=(3, 9)), "y must be"),
        ("y", dict(shape=(24,), stride=(1,)), "y must be"),
        ("y", dict(dtype=3), "dtype"),
        ("norm_x", dict(shape=(2,)), "norm_x must be"),
        ("distance", dict(shape=(3, 2)), "distance must be"),
        ("distance", dict(stride=(4, 1)), "dense"),
        ("distance", dict(device=0), "one device"),
        ("distance", dict(data=0), "no memory"),
        ("partial", dict(shape=(7, 2, 3)), "partial must be"),
    ]:
        views = [view(rows, **(lie if key == name else {})) for key, rows in honest.items()]
        with pytest.raises(ValueError, match=message):
            _C.pairwise_distance_forward(*views, 3, False, (-1, 0, 1))
    views = [view(rows) for rows in honest.values()]
    for metric, same, message in [(5, False, "no such metric"), (3, True, "x itself")]:
        with pytest.raises(ValueError, match=message):
            _C.pairwise_distance_forward(*views, metric, same, (-1, 0, 1))
    with pytest.raises(TypeError):
        _C.pairwise_distance_forward(x, *views[1:], 3, False, (-1, 0, 1))
    grad = view(distance, shape=(2, 4))
    with pytest.raises(ValueError, match="must be"):
        _C.pairwise_distance_backward(*views[:5], grad, view(x), 3, False, (-1, 0, 1))
    with pytest.raises(ValueError, match="grad_x must be"):
        _C.pairwise_distance_backward(*views[:5], views[4], view(y), 3, False, (-1, 0, 1))


@metrics
def test_matches_what_scipy_said(device, metric):
    frozen = json.loads((Path(__file__).parent / "golden/pairwise_distance.json").read_text())
    x, y, distance = (
        torch.tensor(frozen[name], dtype=torch.float64, device=device)
        for name in ("x", "y", metric)
    )
    torch.testing.assert_close(pairwise_distance(x, y, metric=metric), distance)
