"""pair_distance against its reference: values, gradients, edges, torch integration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ecgfast import _C
from ecgfast.ops import pairwise_distance
from ecgfast.ops.pair_distance import METRICS, pair_distance, pair_distance_reference
from ecgfast.testing import assert_as_accurate

# (N, M, D, K): one of each, odd, more columns than a tile and rows without a pair, rows that share
# hundreds of pairs, the real thing; M = 0: y is x
SHAPES = [(1, 0, 1, 1), (5, 0, 3, 7), (9, 4, 131, 5), (4, 3, 33, 1000), (64, 0, 128, 96)]


def draw(n, m, d, k, *, device="cpu", dtype=torch.float32, seed=0):
    """Both sides (N, D) and (M, D) or None, and index pairs (2, K)."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(c, d, generator=generator, dtype=torch.float64) for c in (n, m))
    pairs = torch.stack([torch.randint(c, (k,), generator=generator) for c in (n, m or n)])
    x, y = x.to(device=device, dtype=dtype), y.to(device=device, dtype=dtype)
    return x, y if m else None, pairs.to(device)


def some(pairs):
    """A mask that leaves about two thirds of the pairs."""
    return torch.arange(pairs.shape[1], device=pairs.device) % 3 != 1


def assert_matches(x, y, pairs, **options):
    def with_pairs(op):  # of a half it is float32; assert_as_accurate wants the input's dtype
        return lambda x, y=None: op(x, *pairs, y, **options).to(x.dtype)

    inputs = (x,) if y is None else (x, y)
    assert_as_accurate(with_pairs(pair_distance), with_pairs(pair_distance_reference), *inputs)


def gradients(x, y, pairs, weights=None, **options):
    leaves = [side.detach().requires_grad_() for side in (x, y) if side is not None]
    distance = pair_distance(leaves[0], *pairs, leaves[1] if len(leaves) > 1 else None, **options)
    return torch.autograd.grad(
        distance, leaves, torch.ones_like(distance) if weights is None else weights
    )


def only_different(x, y, pairs):
    """The pairs without those of a row with itself."""
    return pairs if y is not None else pairs[:, pairs[0] != pairs[1]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_matches_reference(device, dtype, shape, metric):
    x, y, pairs = draw(*shape, device=device, dtype=dtype)
    assert_matches(x, y, pairs, metric=metric)
    assert_matches(x, y, pairs, metric=metric, valid=some(pairs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_matches_reference_in_half(device, dtype, metric):
    x, y, pairs = draw(20, 9, 64, 50, device=device, dtype=dtype)
    assert_matches(x, y, pairs, metric=metric, valid=some(pairs))
    assert_matches(x, None, pairs, metric=metric)
    assert pair_distance(x, *pairs, y, metric=metric).dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_every_instruction_set_matches_reference(isa, shape, metric):
    assert_matches(*draw(*shape), metric=metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("m", [0, 4])
def test_gradcheck(device, metric, m):
    x, y, pairs = draw(5, m, 4, 12, device=device, dtype=torch.float64)
    pairs = only_different(x, y, pairs)
    sides = [side.requires_grad_() for side in (x, y) if side is not None]

    def distances(x, y=None):
        return pair_distance(x, *pairs, y, metric=metric, valid=some(pairs))

    assert torch.autograd.gradcheck(distances, sides)


def test_refuses_a_second_derivative(device):
    x, _, pairs = draw(4, 0, 3, 6, device=device)
    x.requires_grad_()
    (first,) = torch.autograd.grad(pair_distance(x, *pairs).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_by_hand(device):
    x = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 0.0]], device=device)
    pairs = torch.tensor([[0, 0, 2], [1, 2, 2]], device=device)
    said = {
        "sqeuclidean": [10.0, 25.0, 0.0],
        "euclidean": [10.0**0.5, 5.0, 0.0],
        "cosine": [0.2, 1.0, 1.0],
        "dot": [20.0, 0.0, 0.0],
    }
    for metric, expected in said.items():
        distance = pair_distance(x, *pairs, metric=metric)
        torch.testing.assert_close(distance.cpu(), torch.tensor(expected))
    moved = gradients(x, None, pairs[:, 1:2])  # 5 apart along (3, 4)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-0.6, -0.8]], device=device)
    torch.testing.assert_close(moved[0], expected)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_agrees_with_all_pairs(device, metric):
    x, y, pairs = draw(9, 7, 40, 60, device=device, dtype=torch.float64)
    listed = pair_distance(x, *pairs, y, metric=metric)
    torch.testing.assert_close(listed, pairwise_distance(x, y, metric=metric)[pairs[0], pairs[1]])


def test_both_ends_of_a_pair_may_be_one_row(device):
    x, _, _ = draw(3, 0, 17, 1, device=device, dtype=torch.float64)
    pairs = torch.tensor([[0, 1, 1], [0, 1, 2]], device=device)
    for metric in METRICS:
        assert_matches(x, None, pairs, metric=metric)
    assert pair_distance(x, *pairs)[:2].tolist() == [0, 0]
    assert not gradients(x, None, pairs[:, :2])[0].any()


@pytest.mark.parametrize("metric", METRICS)
def test_y_that_is_x_is_x(device, metric):
    x, _, pairs = draw(6, 0, 9, 30, device=device, dtype=torch.float64)
    (moved,) = gradients(x, None, pairs, metric=metric)
    parts = gradients(x, x.clone(), pairs, metric=metric)
    torch.testing.assert_close(moved, parts[0] + parts[1])


@pytest.mark.parametrize("metric", METRICS)
def test_only_one_side_may_need_a_gradient(device, metric):
    x, y, pairs = draw(6, 8, 9, 30, device=device)
    both = gradients(x, y, pairs, metric=metric)
    for side, expected in enumerate(both):
        sides = [x, y]
        sides[side] = leaf = sides[side].clone().requires_grad_()
        distance = pair_distance(sides[0], *pairs, sides[1], metric=metric)
        (moved,) = torch.autograd.grad(distance.sum(), leaf)
        torch.testing.assert_close(moved, expected, rtol=0, atol=0)


def test_equal_rows_have_distance_0_and_no_gradient(device):
    x = torch.full((4, 37), 0.1, device=device)
    pairs = torch.tensor([[0, 1, 2], [1, 3, 2]], device=device)
    for metric in ("sqeuclidean", "euclidean", "cosine"):
        assert not pair_distance(x, *pairs, metric=metric).any()
        assert not gradients(x, None, pairs, metric=metric)[0].any()


def test_a_zero_row_has_no_direction(device):
    x, _, _ = draw(4, 0, 7, 1, device=device)
    x[1] = 0
    x[2] *= 1e-40  # shorter than any normal number
    pairs = torch.tensor([[0, 1, 1, 2, 0], [1, 0, 1, 3, 3]], device=device)
    distance = pair_distance(x, *pairs, metric="cosine")
    assert distance[:4].tolist() == [1, 1, 1, 1]
    (moved,) = gradients(x, None, pairs, metric="cosine")
    assert not moved[1:3].any()
    alone = gradients(x, None, pairs[:, 4:], metric="cosine")[0]
    torch.testing.assert_close(moved, alone, rtol=0, atol=0)


def test_short_and_long_rows_have_a_direction(device):
    x = torch.tensor([[3e-36, 4e-36], [3e18, 4e18], [4e36, 3e36]], device=device)
    pairs = torch.tensor([[0, 0, 1], [1, 2, 2]], device=device)
    distance = pair_distance(x, *pairs, metric="cosine").cpu()
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.04, 0.04]), rtol=1e-5, atol=1e-7)


def test_near_rows_do_not_cancel(device):
    x, _, pairs = draw(8, 0, 64, 30, device=device)
    pairs = only_different(x, None, pairs)
    x = 100.0 + 1e-3 * x
    for metric in ("sqeuclidean", "euclidean"):
        found = pair_distance(x, *pairs, metric=metric).double()
        truth = pair_distance(x.double(), *pairs, metric=metric)
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=0)
    # 1 - cosine is 1e-10 here; a product of unit rows would say 0 or 6e-8. What is left is the
    # rounding of the unit rows themselves: eps |u - v| a pair
    found = pair_distance(x, *pairs, metric="cosine").double()
    truth = pair_distance(x.double(), *pairs, metric="cosine")
    assert ((found - truth).abs() <= 0.02 * truth).all()


def test_invalid_pairs_are_not_looked_at(device):
    x, y, pairs = draw(5, 3, 4, 6, device=device)
    valid = some(pairs)
    clean = pair_distance(x, *pairs, y, valid=valid)
    moved = gradients(x, y, pairs, valid=valid)
    pairs[:, ~valid] = torch.tensor([[-1], [2**40]], device=device)
    torch.testing.assert_close(pair_distance(x, *pairs, y, valid=valid), clean, rtol=0, atol=0)
    same = gradients(x, y, pairs, valid=valid)
    torch.testing.assert_close(same, moved, rtol=0, atol=0)
    assert not clean[~valid].any()
    nothing = torch.zeros_like(valid)
    x[:] = torch.nan
    assert not pair_distance(x, *pairs, y, valid=nothing).any()
    assert not any(side.any() for side in gradients(x, y, pairs, valid=nothing))


@pytest.mark.parametrize("metric", METRICS)
def test_a_nan_shows_where_it_is_used_and_nowhere_else(device, metric):
    x, _, _ = draw(6, 0, 5, 1, device=device)
    x[4, 3] = torch.nan
    x[5] = 0
    pairs = torch.tensor([[0, 4, 0, 1, 4], [1, 1, 4, 2, 5]], device=device)
    distance = pair_distance(x, *pairs, metric=metric)
    assert distance.isnan().tolist() == [False, True, True, False, True]
    (moved,) = gradients(x, None, pairs, metric=metric)
    assert moved.isnan().any(dim=1).tolist()[:4] == [True, True, False, False]
    closed = (~distance.isnan()).float()  # a pair that the loss does not use
    (moved,) = gradients(x, None, pairs, closed, metric=metric)
    assert not moved.isnan().any()


def test_a_row_without_end(device):
    x = torch.tensor([[torch.inf, 1.0], [2.0, 3.0]], device=device)
    pair = torch.tensor([[0], [1]], device=device)
    assert pair_distance(x, *pair).isinf().all()
    assert pair_distance(x, *pair, metric="cosine").isnan().all()


def test_pairs_do_not_mix_and_have_two_ways_round(device):
    x, y, pairs = draw(20, 11, 37, 64, device=device)
    for metric in METRICS:
        together = pair_distance(x, *pairs, y, metric=metric)
        alone = [pair_distance(x, *pair[:, None], y, metric=metric) for pair in pairs.T]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)
        turned = pair_distance(y, pairs[1], pairs[0], x, metric=metric)
        torch.testing.assert_close(together, turned, rtol=0, atol=0)


def test_one_row_may_be_in_all_pairs(device):
    x, _, pairs = draw(50, 0, 40, 3000, device=device)
    pairs[1] = 7
    pairs[0, ::2] = 11
    for metric in METRICS:
        assert_matches(x, None, only_different(x, None, pairs), metric=metric)


@pytest.mark.parametrize("metric", METRICS)
def test_thread_count_does_not_show(metric):
    x, y, pairs = draw(700, 300, 128, 5000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        results.append(
            [pair_distance(x, *pairs, y, metric=metric), *gradients(x, y, pairs, metric=metric)]
        )
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_runs_do_not_show(device):
    x, _, pairs = draw(40, 0, 130, 900, device=device)
    first = gradients(x, None, pairs)[0]
    for _ in range(2 if device.type == "cpu" else 20):
        torch.testing.assert_close(gradients(x, None, pairs)[0], first, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, 3:-1],  # a crop
        lambda x: x[::2],  # some rows
        lambda x: x[:, ::2],  # some columns
        lambda x: x.T.contiguous().T,  # columns first
        lambda x: x[:1].expand(6, -1),  # one row, many times
    ],
)
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_takes_any_strides(device, change, metric):
    x, y, pairs = draw(12, 12, 21, 40, device=device, dtype=torch.float64)
    assert_matches(change(x), change(y), pairs % 6, valid=some(pairs), metric=metric)


def test_takes_indices_and_gradients_of_any_strides(device):
    x, y, pairs = draw(12, 12, 21, 40, device=device)
    weights = torch.arange(80.0, device=device)[::2]
    interleaved = pairs.T.contiguous().T  # as the columns of a list of pairs
    valid = some(pairs).repeat_interleave(2)[::2]
    strided = pair_distance(x, *interleaved, y, valid=valid)
    torch.testing.assert_close(
        strided, pair_distance(x, *pairs, y, valid=some(pairs)), rtol=0, atol=0
    )
    same = (
        gradients(x, y, interleaved, weights, valid=valid),
        gradients(x, y, pairs, weights.contiguous(), valid=some(pairs)),
    )
    torch.testing.assert_close(*same, rtol=0, atol=0)
    one = torch.ones((), device=device).expand(40)
    torch.testing.assert_close(gradients(x, y, pairs, one), gradients(x, y, pairs))


@pytest.mark.parametrize("shape", [(0, 0, 4, 0), (5, 0, 4, 0), (3, 2, 0, 2), (0, 5, 3, 0)], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_empty(device, shape, metric):
    n, m, d, k = shape
    x, y = torch.ones(n, d, device=device), torch.ones(m, d, device=device) if m else None
    pairs = torch.zeros(2, k, dtype=torch.int64, device=device)
    distance = pair_distance(x, *pairs, y, metric=metric)
    assert distance.tolist() == [1.0 if metric == "cosine" else 0.0] * k  # rows of nothing are zero
    for side, moved in zip((x, y), gradients(x, y, pairs, metric=metric), strict=False):
        assert moved.shape == side.shape
        assert not moved.any()


def test_invalid_pairs_of_no_rows(device):
    x = torch.ones(0, 4, device=device)
    pairs = torch.zeros(2, 3, dtype=torch.int64, device=device)
    nothing = torch.zeros(3, dtype=torch.bool, device=device)
    assert not pair_distance(x, *pairs, valid=nothing).any()
    moved = gradients(torch.ones(2, 4, device=device), x, pairs, valid=nothing)
    assert [side.shape for side in moved] == [(2, 4), (0, 4)]
    assert not moved[0].any()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_torch_knows_the_op(device, metric):
    x, y, pairs = draw(6, 6, 8, 10, device=device)
    op, backward = torch.ops.ecgfast.pair_distance, torch.ops.ecgfast.pair_distance_backward
    for own in (x, x.T.contiguous().T, x.half()):
        for other in (None, y.to(own.dtype)):
            for valid in (None, some(pairs)):
                torch.library.opcheck(op.default, (own, other, *pairs, valid, metric))
            distance, owners, *norms = op(own, other, *pairs, None, metric)
            owners = owners if other is None else owners[0]
            kept = (own, other, *pairs, owners, distance, *norms)
            torch.library.opcheck(backward.default, (torch.ones_like(distance), *kept, metric))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def objective(x, y, pairs, valid):
        near = pair_distance(x, *pairs, metric="euclidean")
        far = pair_distance(x * 2, *pairs, y, metric="cosine", valid=valid)
        return torch.relu(near - far + 0.2).mean()

    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((5, 5, 8, 12), (7, 8, 9, 20)):
        x, y, pairs = draw(*shape, device=device)
        pairs %= 5
        x.requires_grad_()
        losses = [f(x, y, pairs, some(pairs)) for f in (objective, compiled)]
        torch.testing.assert_close(*losses)
        moved = [torch.autograd.grad(loss, x)[0] for loss in losses]
        torch.testing.assert_close(*moved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x, y, pairs = draw(6, 7, 40, 10, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = [pair_distance(x, *pairs, y, metric="dot"), *gradients(x, y, pairs)]
    outside = [pair_distance(x, *pairs, y, metric="dot"), *gradients(x, y, pairs)]
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)


LONGS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=torch.zeros(6)), ValueError, r"x must be \(rows, D\), got \(6,\)"),
        (dict(x=LONGS[:, None]), TypeError, "float64, got torch.int64"),
        (dict(y=torch.zeros(3, 4)), ValueError, "x has 2 columns and y has 4"),
        (dict(y=torch.zeros(3, 2).double()), TypeError, "x is torch.float32 and y is torch.float6"),
        (dict(rows=LONGS[:, None]), ValueError, r"rows must be \(K,\), got \(4, 1\)"),
        (dict(columns=LONGS[:3]), ValueError, r"columns must be \(4,\) as rows, got \(3,\)"),
        (dict(columns=LONGS.int()), TypeError, "columns must be torch.int64, got torch.int32"),
        (dict(valid=LONGS), TypeError, "valid must be torch.bool, got torch.int64"),
        (dict(valid=LONGS[:2] > 0), ValueError, r"valid must be \(4,\) as rows, got \(2,\)"),
        (dict(metric="euclid"), ValueError, "got 'euclid'; did you mean euclidean"),
    ],
)
def test_refuses(device, change, error, message):
    arguments = dict(x=torch.zeros(5, 2), rows=LONGS, columns=LONGS) | change
    for name, value in arguments.items():
        arguments[name] = value.to(device) if isinstance(value, torch.Tensor) else value
    with pytest.raises(error, match=message):
        pair_distance(**arguments)


def test_refuses_tensors_of_two_devices():
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match="columns must be on cpu as x, got meta"):
        pair_distance(x, LONGS, LONGS.to("meta"))
    with pytest.raises(ValueError, match="y must be on cpu as x, got meta"):
        pair_distance(x, LONGS, LONGS, x.to("meta"))


@pytest.mark.parametrize("m", [0, 3])
def test_an_index_outside_is_refused_or_gives_nan(device, m):
    x, y, pairs = draw(5, m, 3, 6, device=device)
    pairs[1, 2], pairs[1, 4], pairs[0, 5] = -1, m or 5, 2**40
    outside = torch.tensor([False, False, True, False, True, True], device=device)
    if device.type == "cuda":  # where nobody waits for the answer
        for metric in METRICS:
            distance = pair_distance(x, *pairs, y, metric=metric)
            torch.testing.assert_close(distance.isnan(), outside)
            moved = gradients(x, y, pairs, metric=metric)
            kept = gradients(x, y, pairs, metric=metric, valid=~outside)
            torch.testing.assert_close(moved, kept, rtol=0, atol=0)
        return
    message = rf"columns\[2\] must be in \[0, {m or 5}\), got -1; 3 of 6 pairs"
    with pytest.raises(IndexError, match=message):
        pair_distance(x, *pairs, y)
    outside[5] = False  # so the others are not valid
    with pytest.raises(IndexError, match=r"rows\[5\] must be in \[0, 5\), got 1099511627776; 1 of"):
        pair_distance(x, *pairs, y, valid=~outside)


def test_the_device_says_nan_where_nobody_asked(device):
    x, _, pairs = draw(5, 0, 3, 6, device=device)
    pairs[1, 2] = 5
    distance, norms = torch.empty(6, device=device), x.new_empty(0, dtype=torch.float64)
    owners = torch.zeros(2, 6, dtype=torch.int32, device=device)
    views = (x, x, *pairs), (norms, norms, distance, owners)
    _C.pair_distance_forward(
        *(_view(t) for t in views[0]), None, *(_view(t) for t in views[1]), None, 0, _place(device)
    )
    assert distance.isnan().nonzero().tolist() == [[2]]
    assert owners[:, 2].tolist() == [2**31 - 1] * 2


def _view(tensor, **lies):
    codes = {torch.float32: 2, torch.float64: 3, torch.uint8: 4, torch.int32: 6, torch.int64: 7}
    facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
    facts |= dict(dtype=codes[tensor.dtype], device=tensor.get_device()) | lies
    return tuple(facts.values())


def _place(device):
    if device.type == "cpu":
        return -1, 0, 1
    return torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream, 0


def test_border_guards_memory():
    x, y, pairs = draw(5, 4, 3, 6)
    norms = torch.zeros(5, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    shared = dict(x=x, y=y, rows=pairs[0], columns=pairs[1])
    forward = shared | dict(valid=torch.ones(6, dtype=torch.uint8), norm_x=norms[0])
    forward |= dict(norm_y=norms[1], distance=torch.empty(6))
    forward |= dict(owners=torch.zeros(2, 6, dtype=torch.int32))
    forward |= dict(outside=torch.zeros((), dtype=torch.int32))
    order = dict(owners=torch.zeros(6, dtype=torch.int32), slots=torch.arange(6))
    backward = shared | dict(norm_x=norms[0], norm_y=norms[1], distance=torch.ones(6)) | order
    backward |= dict(grad=torch.ones(6), grad_x=torch.empty(5, 3))
    lengths = dict(x=x, norm_x=norms[0])
    everywhere = [dict(device=0), dict(dtype=9), dict(shape=(17,), stride=(1,)), dict(data=0)]
    place = (-1, 0, 1)
    for call, tensors, rest, lies in [
        (_C.pair_distance_norms, lengths, (place,), dict(norm_x=dict(stride=(2,)))),
        (_C.pair_distance_forward, forward, (2, place), dict(distance=dict(stride=(2,)))),
        (_C.pair_distance_backward, backward, (2, place), dict(slots=dict(stride=(2,)))),
    ]:
        call(*map(_view, tensors.values()), *rest)
        told = [(name, lie) for name in tensors for lie in everywhere]
        told += [*lies.items(), ("x", dict(stride=(1, 5))), ("x", dict(dtype=0))]
        for name, lie in told:
            views = [_view(t, **(lie if n == name else {})) for n, t in tensors.items()]
            with pytest.raises(ValueError, match=r"must be|dtype|no memory|without a kernel"):
                call(*views, *rest)
        with pytest.raises(TypeError):
            call(x, *map(_view, list(tensors.values())[1:]), *rest)
    for metric in (-1, 4):
        with pytest.raises(ValueError, match="metric must be in"):
            _C.pair_distance_backward(*map(_view, backward.values()), metric, place)
    twice = backward | dict(owners=torch.zeros(12, dtype=torch.int32), slots=torch.arange(12))
    with pytest.raises(ValueError, match=r"or \(2 K,\) if y is x"):
        _C.pair_distance_backward(*map(_view, twice.values()), 2, place)


def test_backward_reads_no_row_that_is_not_there(device):
    # What no caller of ours sends: the indices changed under way.
    x, y, pairs = draw(5, 4, 3, 6, device=device)
    distance, owners, *norms = torch.ops.ecgfast.pair_distance(x, y, *pairs, None, "cosine")
    for wrong in (-1, 5, 2**40):
        changed = torch.full_like(pairs, wrong)
        kept = (owners[0], distance, *norms)
        moved = torch.ops.ecgfast.pair_distance_backward(
            torch.ones_like(distance), x, y, *changed, *kept, "cosine"
        )
        assert not moved.any()


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_matches_what_scipy_said(device, metric):
    frozen = json.loads((Path(__file__).parent / "golden/pair_distance.json").read_text())

    def tensor(numbers):
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    x, y, pairs = tensor(frozen["x"]), tensor(frozen["y"]), tensor(frozen["pairs"]).long()
    distance = pair_distance(x, *pairs, y, metric=metric)
    torch.testing.assert_close(distance, tensor(frozen[metric]))
