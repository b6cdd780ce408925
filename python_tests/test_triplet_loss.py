"""triplet_loss against its reference: values, gradients, edges, torch integration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.triplet_loss import triplet_loss, triplet_loss_reference
from ecgfast.testing import assert_as_accurate

# (N, D, K): one of each, odd, more columns than a tile and rows without a triplet, rows that
# share hundreds of triplets, the real thing
SHAPES = [(1, 1, 1), (5, 3, 7), (9, 131, 4), (4, 33, 1000), (64, 128, 64)]


def draw(n, d, k, *, device="cpu", dtype=torch.float32, seed=0):
    """Embeddings (N, D) and index triplets (3, K), about half of them active."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator, dtype=torch.float64) / (d + 1) ** 0.25
    rows = torch.randint(n, (3, k), generator=generator)
    return embeddings.to(device=device, dtype=dtype), rows.to(device)


def some(rows):
    """A mask that leaves about two thirds of the triplets."""
    return torch.arange(rows.shape[1], device=rows.device) % 3 != 1


def assert_matches(embeddings, rows, **options):
    def with_rows(op):  # the loss of a half is float32; assert_as_accurate wants the input's dtype
        return lambda x: op(x, *rows, **options).to(x.dtype)

    assert_as_accurate(with_rows(triplet_loss), with_rows(triplet_loss_reference), embeddings)


def gradient(embeddings, rows, **options):
    leaf = embeddings.detach().requires_grad_()
    return torch.autograd.grad(triplet_loss(leaf, *rows, **options).sum(), leaf)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_matches_reference(device, dtype, shape, reduction):
    embeddings, rows = draw(*shape, device=device, dtype=dtype)
    assert_matches(embeddings, rows, reduction=reduction)
    assert_matches(embeddings, rows, reduction=reduction, valid=some(rows), margin=0.7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    embeddings, rows = draw(64, 128, 200, device=device, dtype=dtype)
    assert_matches(embeddings, rows, valid=some(rows))
    assert triplet_loss(embeddings, *rows).dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set_matches_reference(isa, shape):
    assert_matches(*draw(*shape))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(device, reduction):
    embeddings, rows = draw(6, 5, 20, device=device, dtype=torch.float64)

    def loss(x):
        return triplet_loss(x, *rows, valid=some(rows), reduction=reduction)

    assert torch.autograd.gradcheck(loss, embeddings.requires_grad_())


def test_refuses_a_second_derivative(device):
    embeddings, rows = draw(4, 3, 6, device=device)
    embeddings.requires_grad_()
    loss = triplet_loss(embeddings, *rows).square()
    (first,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_by_hand(device):
    # 3-4-5: |z0 - z1|^2 = 9, |z0 - z2|^2 = 16, |z1 - z2|^2 = 25
    embeddings = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], device=device)
    rows = torch.tensor([[0, 0, 1], [2, 1, 0], [1, 2, 2]], device=device)
    hinges = triplet_loss(embeddings, *rows, margin=0.5, reduction="none")
    assert hinges.tolist() == [16 - 9 + 0.5, 0.0, 0.0]
    assert triplet_loss(embeddings, *rows, margin=0.5).item() == 2.5
    # 2/3 (n - p), -2/3 (a - p) and 2/3 (a - n) of the one active triplet: a = z0, p = z2, n = z1
    expected = torch.tensor([[3.0, -4.0], [-3.0, 0.0], [0.0, 4.0]], device=device) * (2 / 3)
    torch.testing.assert_close(gradient(embeddings, rows, margin=0.5), expected)


def test_all_inactive_gives_zero_and_a_zero_gradient(device):
    embeddings = torch.tensor([[0.0], [0.1], [9.0]], device=device)
    rows = torch.tensor([[0, 1], [1, 0], [2, 2]], device=device)
    assert triplet_loss(embeddings, *rows).item() == 0
    assert not gradient(embeddings, rows).any()


def test_a_hinge_of_exactly_zero_is_inactive(device):
    embeddings = torch.tensor([[0.0], [1.0], [2.0]], device=device)
    rows = torch.tensor([[0], [1], [2]], device=device)  # 1 - 4 + 3
    assert triplet_loss(embeddings, *rows, margin=3.0).item() == 0
    assert not gradient(embeddings, rows, margin=3.0).any()


def test_rows_may_coincide_within_a_triplet(device):
    embeddings, _ = draw(3, 17, 1, device=device, dtype=torch.float64)
    for triplet in [(0, 0, 1), (0, 1, 0), (2, 2, 2)]:
        assert_matches(embeddings, torch.tensor(triplet, device=device)[:, None], margin=1e3)
    rows = torch.tensor([[0], [1], [1]], device=device)  # p = n: pulled and pushed alike
    assert triplet_loss(embeddings, *rows, margin=0.25).item() == 0.25
    part = 2 * (embeddings[0] - embeddings[1]).abs().max()
    assert gradient(embeddings, rows).abs().max() <= 4 * torch.finfo(part.dtype).eps * part


def test_one_row_may_hold_all_triplets(device):
    embeddings, rows = draw(50, 40, 3000, device=device)
    rows[2] = 7  # everybody's farthest
    rows[0, ::2] = 11
    assert_matches(embeddings, rows)


def test_triplets_do_not_mix(device):
    embeddings, rows = draw(20, 37, 64, device=device)
    together = triplet_loss(embeddings, *rows, reduction="none")
    alone = [triplet_loss(embeddings, *row[:, None], reduction="none") for row in rows.T]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)


def test_only_rows_of_active_triplets_get_a_gradient(device):
    embeddings, rows = draw(40, 9, 8, device=device)
    active = triplet_loss(embeddings, *rows, reduction="none") > 0
    moved = gradient(embeddings, rows).any(dim=1).nonzero().flatten().tolist()
    assert set(moved) <= set(rows[:, active].flatten().tolist())
    assert 0 < active.sum() < 8


def test_thread_count_does_not_show():
    embeddings, rows = draw(700, 128, 5000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        results.append((triplet_loss(embeddings, *rows), gradient(embeddings, rows)))
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_runs_do_not_show(device):
    embeddings, rows = draw(60, 64, 900, device=device)
    first = (triplet_loss(embeddings, *rows), gradient(embeddings, rows))
    for _ in range(5):
        again = (triplet_loss(embeddings, *rows), gradient(embeddings, rows))
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_invalid_triplets_are_not_looked_at(device):
    embeddings, rows = draw(10, 6, 12, device=device)
    valid = some(rows)
    filled = torch.where(valid, rows, torch.tensor([[-1], [99], [2**62]], device=device))
    filled[:, ~valid] += torch.arange(4, device=device) % 2
    loss, kept = triplet_loss(embeddings, *filled, valid=valid), rows[:, valid]
    torch.testing.assert_close(loss, triplet_loss(embeddings, *kept), rtol=0, atol=0)
    same = gradient(embeddings, filled, valid=valid), gradient(embeddings, kept)
    torch.testing.assert_close(*same, rtol=0, atol=0)
    hinges = triplet_loss(embeddings, *filled, valid=valid, reduction="none")
    assert not hinges[~valid].any()


def test_no_valid_triplet_gives_zero_and_a_zero_gradient(device):
    embeddings, rows = draw(5, 4, 6, device=device)
    embeddings[2] = torch.nan
    for reduction in ("mean", "sum", "none"):
        options = dict(valid=torch.zeros_like(rows[0], dtype=torch.bool), reduction=reduction)
        assert not triplet_loss(embeddings, *rows, **options).any()
        assert not gradient(embeddings, rows, **options).any()


def test_a_nan_shows_where_it_is_used_and_nowhere_else(device):
    embeddings, _ = draw(6, 5, 1, device=device)
    embeddings[4, 3] = torch.nan
    rows = torch.tensor([[0, 4, 0, 1], [1, 1, 4, 2], [2, 2, 1, 4]], device=device)
    hinges = triplet_loss(embeddings, *rows, reduction="none", margin=9.0)
    assert hinges.isnan().tolist() == [False, True, True, True]
    assert triplet_loss(embeddings, *rows).isnan()
    reference = embeddings.clone().requires_grad_()
    loss = triplet_loss_reference(reference, *rows, margin=9.0)
    (expected,) = torch.autograd.grad(loss, reference)
    torch.testing.assert_close(gradient(embeddings, rows, margin=9.0), expected, equal_nan=True)
    without = torch.tensor([True, False, False, False], device=device)
    assert not triplet_loss(embeddings, *rows, valid=without).isnan()
    assert not gradient(embeddings, rows, valid=without).isnan().any()


def test_an_infinite_hinge_is_active(device):
    embeddings = torch.tensor([[0.0], [1e30], [1.0]], device=device)
    rows = torch.tensor([[0], [1], [2]], device=device)
    assert triplet_loss(embeddings, *rows).isinf()
    assert gradient(embeddings, rows)[1] == 2e30


def test_near_rows_do_not_cancel(device):
    embeddings, rows = draw(8, 64, 30, device=device)
    embeddings = 100.0 + 1e-3 * embeddings
    assert_matches(embeddings, rows, margin=0.0)
    torch.testing.assert_close(
        triplet_loss(embeddings, *rows, margin=0.0).double(),
        triplet_loss(embeddings.double(), *rows, margin=0.0),
        rtol=1e-5,
        atol=0,
    )


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
def test_takes_any_strides(device, change):
    embeddings, rows = draw(12, 21, 40, device=device, dtype=torch.float64)
    assert_matches(change(embeddings), rows % 6, valid=some(rows))


def test_takes_indices_of_any_strides(device):
    embeddings, rows = draw(12, 21, 40, device=device)
    dense = triplet_loss(embeddings, *rows, valid=some(rows))
    interleaved = rows.T.contiguous().T  # as the columns of a list of triplets
    valid = some(rows).repeat_interleave(2)[::2]
    strided = triplet_loss(embeddings, *interleaved, valid=valid)
    torch.testing.assert_close(strided, dense, rtol=0, atol=0)
    same = gradient(embeddings, interleaved, valid=valid), gradient(embeddings, rows, valid=valid)
    torch.testing.assert_close(*same, rtol=0, atol=0)


def test_gradient_of_any_strides(device):
    embeddings, rows = draw(6, 5, 9, device=device)
    embeddings.requires_grad_()
    weights = torch.arange(18.0, device=device)[::2]
    hinges = triplet_loss(embeddings, *rows, reduction="none")
    (strided,) = torch.autograd.grad(hinges, embeddings, weights, retain_graph=True)
    (dense,) = torch.autograd.grad(hinges, embeddings, weights.contiguous())
    torch.testing.assert_close(strided, dense, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 4, 0), (5, 4, 0), (3, 0, 2)], ids=str)
def test_empty(device, shape):
    embeddings = torch.ones(shape[:2], device=device)
    rows = torch.zeros(3, shape[2], dtype=torch.int64, device=device)
    assert triplet_loss(embeddings, *rows).item() == pytest.approx(0.2 if shape[2] else 0)
    assert triplet_loss(embeddings, *rows, reduction="none").shape == (shape[2],)
    assert gradient(embeddings, rows).shape == embeddings.shape
    assert not gradient(embeddings, rows).any()


def test_torch_knows_the_op(device):
    embeddings, rows = draw(6, 8, 10, device=device)
    op, backward = torch.ops.ecgfast.triplet_loss, torch.ops.ecgfast.triplet_loss_backward
    for x in (embeddings, embeddings.T.contiguous().T, embeddings.half()):
        for valid in (None, some(rows)):
            torch.library.opcheck(op.default, (x, *rows, valid, 0.2, True))
        hinge, loss, owners, share = op(x, *rows, None, 0.2, False)
        torch.library.opcheck(backward.default, (loss, x, *rows, owners, share))
        torch.library.opcheck(backward.default, (hinge, x, *rows, owners, share))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def objective(x, rows, valid):
        hinges = triplet_loss(x, *rows, reduction="none")
        return triplet_loss(x * 2, *rows, valid=valid) + hinges.square().sum()

    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((5, 8, 12), (7, 9, 20)):
        embeddings, rows = draw(*shape, device=device)
        embeddings.requires_grad_()
        losses = [f(embeddings, rows, some(rows)) for f in (objective, compiled)]
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, embeddings)[0] for loss in losses]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    embeddings, rows = draw(6, 40, 10, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = triplet_loss(embeddings, *rows)
        moved = gradient(embeddings, rows)
    torch.testing.assert_close(inside, triplet_loss(embeddings, *rows), rtol=0, atol=0)
    torch.testing.assert_close(moved, gradient(embeddings, rows), rtol=0, atol=0)


LONGS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(embeddings=torch.zeros(6)), ValueError, r"embeddings must be \(N, D\), got \(6,\)"),
        (dict(embeddings=LONGS[:, None]), TypeError, "float dtype, got torch.int64"),
        (dict(anchors=LONGS[:, None]), ValueError, r"anchors must be \(K,\), got \(4, 1\)"),
        (dict(positives=LONGS[:3]), ValueError, r"positives must be \(4,\) as anchors, got \(3,\)"),
        (dict(negatives=LONGS.int()), TypeError, "negatives must be torch.int64, got torch.int32"),
        (dict(valid=LONGS), TypeError, "valid must be torch.bool, got torch.int64"),
        (dict(valid=LONGS[:2] > 0), ValueError, r"valid must be \(4,\) as anchors, got \(2,\)"),
        (dict(margin=-0.1), ValueError, "margin must be at least 0, got -0.1"),
        (dict(margin=float("nan")), ValueError, "margin must be at least 0, got nan"),
        (dict(reduction="max"), ValueError, "'mean', 'sum' or 'none', got 'max'"),
    ],
)
def test_refuses(device, change, error, message):
    arguments = dict(embeddings=torch.zeros(5, 2), anchors=LONGS, positives=LONGS, negatives=LONGS)
    arguments |= change
    for name, value in arguments.items():
        arguments[name] = value.to(device) if isinstance(value, torch.Tensor) else value
    with pytest.raises(error, match=message):
        triplet_loss(**arguments)


def test_refuses_tensors_of_two_devices():
    rows = [LONGS, LONGS.to("meta"), LONGS]
    with pytest.raises(ValueError, match="positives must be on cpu as embeddings, got meta"):
        triplet_loss(torch.zeros(5, 2), *rows)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_index_outside_is_refused_or_gives_nan(device, reduction):
    embeddings, rows = draw(5, 3, 6, device=device)
    rows[1, 2], rows[2, 4], rows[0, 5] = -1, 5, 2**40
    outside = torch.tensor([False, False, True, False, True, True], device=device)
    if device.type == "cuda":  # where nobody waits for the answer
        hinges = triplet_loss(embeddings, *rows, reduction="none", margin=9.0)
        torch.testing.assert_close(hinges.isnan(), outside)
        assert triplet_loss(embeddings, *rows).isnan()
        moved = gradient(embeddings, rows, reduction="sum")
        kept = gradient(embeddings, rows, reduction="sum", valid=~outside)
        torch.testing.assert_close(moved, kept, rtol=0, atol=0)
        return
    message = r"positives\[2\] must be in \[0, 5\), got -1; 3 of 6 triplets"
    with pytest.raises(IndexError, match=message):
        triplet_loss(embeddings, *rows, reduction=reduction)
    outside[4] = False  # so the others are not valid
    with pytest.raises(IndexError, match=r"negatives\[4\] must be in \[0, 5\), got 5; 1 of 6"):
        triplet_loss(embeddings, *rows, valid=~outside, reduction=reduction)


def test_border_guards_memory():
    def view(tensor, **lies):
        dtype = {torch.float32: 2, torch.uint8: 4, torch.int32: 6, torch.int64: 7}[tensor.dtype]
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=dtype, device=-1) | lies
        return tuple(facts.values())

    x, rows = draw(5, 3, 4)
    one, count = torch.tensor(1.0), torch.tensor(0)
    everywhere = [dict(device=0), dict(dtype=3), dict(shape=(7,), stride=(1,)), dict(data=0)]
    forward = dict(x=x, a=rows[0], p=rows[1], n=rows[2], valid=torch.ones(4, dtype=torch.uint8))
    forward |= dict(hinge=torch.empty(4), owners=torch.zeros(3, 4, dtype=torch.int32))
    forward |= dict(loss=one, share=one, outside=count)
    order = dict(owners=torch.zeros(12, dtype=torch.int32), slots=torch.arange(12))
    backward = dict(x=x, a=rows[0], p=rows[1], n=rows[2]) | order
    backward |= dict(grad=torch.ones(4), share=one, grad_x=torch.empty(5, 3))
    for call, tensors, rest, lies in [
        (_C.triplet_loss_forward, forward, (0.2, True, (-1, 0, 1)), dict(hinge=dict(stride=(2,)))),
        (_C.triplet_loss_backward, backward, ((-1, 0, 1),), dict(slots=dict(stride=(2,)))),
    ]:
        call(*map(view, tensors.values()), *rest)
        told = [(name, lie) for name in tensors for lie in everywhere]
        told += [*lies.items(), ("x", dict(stride=(1, 5))), ("x", dict(dtype=0))]
        for name, lie in told:
            views = [view(t, **(lie if n == name else {})) for n, t in tensors.items()]
            with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|without a kernel"):
                call(*views, *rest)
        with pytest.raises(TypeError):
            call(x, *map(view, list(tensors.values())[1:]), *rest)


def test_backward_reads_no_row_that_is_not_there():
    # What no caller of ours sends: the indices changed under way, and slots of nowhere.
    x, rows = draw(5, 3, 4)
    *_, owners, share = torch.ops.ecgfast.triplet_loss(x, *rows, None, 9.0, True)
    for wrong in (-1, 5, 2**40):
        moved = torch.ops.ecgfast.triplet_loss_backward(
            share, x, *torch.full_like(rows, wrong), owners, share
        )
        assert not moved.any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_matches_what_torch_said(device, reduction):
    frozen = json.loads((Path(__file__).parent / "golden/triplet_loss.json").read_text())

    def tensor(numbers):
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    embeddings, rows = tensor(frozen["embeddings"]), tensor(frozen["rows"]).long()
    said = {name: tensor(numbers) for name, numbers in frozen[reduction].items()}
    torch.testing.assert_close(triplet_loss(embeddings, *rows, reduction=reduction), said["loss"])
    moved = gradient(embeddings, rows, reduction=reduction)
    torch.testing.assert_close(moved, said["gradient"])
