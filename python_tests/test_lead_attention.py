"""lead_attention against its reference: values, gradients, maps, edges, torch integration."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from ecgfast import _C
from ecgfast.ops.lead_attention import (
    lead_attention,
    lead_attention_maps,
    lead_attention_maps_reference,
    lead_attention_reference,
)
from ecgfast.testing import assert_as_accurate

# (N, L, S, D), heads: one of all, one token, fewer rows than a vector and columns that fill none,
# one more than fill one, the widest head, more queries than a block has threads, the real thing
SHAPES = [
    ((1, 1, 1, 1), 1),
    ((3, 2, 1, 4), 2),
    ((1, 5, 3, 6), 2),
    ((3, 11, 7, 10), 5),
    ((2, 3, 9, 16), 2),
    ((1, 2, 157, 4), 2),
    ((3, 12, 19, 16), 8),
]
every_shape = pytest.mark.parametrize(("shape", "heads"), SHAPES, ids=str)


def make_qkv(records, leads, tokens, width, *, device="cpu", dtype=torch.float32, spread=1.5):
    draw = torch.Generator().manual_seed(0)
    shape = records, leads, tokens, 3 * width
    qkv = spread * torch.randn(shape, generator=draw, dtype=torch.float64)
    return qkv.to(device=device, dtype=dtype)


def op_and_reference(heads):
    return (functools.partial(f, heads=heads) for f in (lead_attention, lead_attention_reference))


def with_gradient(qkv, heads):
    qkv = qkv.detach().requires_grad_()
    y = lead_attention(qkv, heads=heads)
    return y.detach(), torch.autograd.grad((y * y).sum(), qkv)[0]


@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, shape, heads):
    assert_as_accurate(*op_and_reference(heads), make_qkv(*shape, device=device, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    assert_as_accurate(*op_and_reference(8), make_qkv(2, 3, 19, 16, device=device, dtype=dtype))


@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set_matches_reference(isa, dtype, shape, heads):
    assert_as_accurate(*op_and_reference(heads), make_qkv(*shape, dtype=dtype))


def test_equals_the_middle_of_multihead_attention(device):
    """With identity projections torch's module is nothing but what this op computes."""
    module = nn.MultiheadAttention(16, 8, batch_first=True, dtype=torch.float64)
    qkv = make_qkv(2, 3, 19, 16, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(16).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(16))
        for bias in (module.in_proj_bias, module.out_proj.bias):
            bias.zero_()
        inputs = (part.flatten(0, 1) for part in qkv.chunk(3, dim=-1))
        expected, maps = module(*inputs, average_attn_weights=False)
    y, found = lead_attention_maps(qkv.to(device), heads=8)
    torch.testing.assert_close(y.cpu().flatten(0, 1), expected)
    torch.testing.assert_close(found.cpu().flatten(0, 1), maps)


@pytest.mark.parametrize(("width", "heads"), [(4, 2), (6, 2)], ids=str)
def test_gradcheck(device, width, heads):
    qkv = make_qkv(2, 2, 3, width, device=device, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(functools.partial(lead_attention, heads=heads), (qkv,))


def test_refuses_a_second_derivative(device):
    qkv = make_qkv(1, 1, 3, 4, device=device).requires_grad_()
    y = lead_attention(qkv, heads=2)
    (gradient,) = torch.autograd.grad(y.square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@every_shape
def test_maps_match_reference_and_leave_the_output_alone(device, shape, heads):
    qkv = make_qkv(*shape, device=device)
    y, maps = lead_attention_maps(qkv, heads=heads)
    _, plain = lead_attention_maps_reference(qkv, heads=heads)
    _, truth = lead_attention_maps_reference(qkv.double(), heads=heads)
    eps = torch.finfo(torch.float32).eps
    assert maps.shape == truth.shape
    assert (maps - truth).abs().max() <= 2 * (plain - truth).abs().max() + 4 * eps
    assert (maps.double().sum(dim=-1) - 1).abs().max() <= 4 * eps * shape[2] ** 0.5
    assert torch.equal(y, lead_attention(qkv, heads=heads))


def test_gradient_with_maps_is_that_without(device):
    qkv = make_qkv(2, 3, 5, 8, device=device).requires_grad_()
    y, maps = lead_attention_maps(qkv, heads=4)
    (dx,) = torch.autograd.grad((y * y).sum(), qkv)
    assert not maps.requires_grad
    assert torch.equal(dx, with_gradient(qkv, 4)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_records_do_not_mix(device, dtype):
    qkv = make_qkv(5, 7, 6, 8, device=device, dtype=dtype)
    whole = with_gradient(qkv, 4)
    for n in range(5):
        alone = with_gradient(qkv[n : n + 1], 4)
        assert all(torch.equal(w[n : n + 1], a) for w, a in zip(whole, alone, strict=True))
    for lead in range(7):
        alone = with_gradient(qkv[:, lead : lead + 1], 4)
        assert all(torch.equal(w[:, lead : lead + 1], a) for w, a in zip(whole, alone, strict=True))


def test_thread_count_does_not_show():
    qkv = make_qkv(33, 12, 19, 16)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = with_gradient(qkv, 8)
    torch.set_num_threads(5)
    together = with_gradient(qkv, 8)
    torch.set_num_threads(before)
    assert all(torch.equal(a, t) for a, t in zip(alone, together, strict=True))


def test_one_token_gives_its_value(device):
    qkv = make_qkv(3, 4, 1, 8, device=device).requires_grad_()
    y = lead_attention(qkv, heads=4)
    g = make_qkv(3, 4, 1, 8, device=device)[..., 4:12]
    (dx,) = torch.autograd.grad(y, qkv, g)
    dq, dk, dv = dx.chunk(3, dim=-1)
    assert torch.equal(y, qkv.chunk(3, dim=-1)[2])
    assert not dq.any()
    assert not dk.any()
    assert torch.equal(dv, g)


def test_equal_keys_give_the_mean(device):
    qkv = make_qkv(2, 3, 19, 16, device=device, dtype=torch.float64)
    qkv[..., 16:32] = qkv[..., :1, 16:32]
    y = lead_attention(qkv, heads=8)
    torch.testing.assert_close(y, qkv[..., 32:].mean(dim=2, keepdim=True).expand_as(y))


@pytest.mark.parametrize("spread", [1e-12, 300.0], ids=str)
def test_scores_of_any_size(device, spread):
    """Scores near zero, and so far apart that one weight is 1 and the others underflow."""
    qkv = make_qkv(2, 3, 19, 16, device=device, spread=spread)
    assert_as_accurate(*op_and_reference(8), qkv)
    y, dx = with_gradient(qkv, 8)
    assert y.isfinite().all()
    assert dx.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("column", [5, 8 + 5, 16 + 5])  # of queries, keys, values: head 2 of 4
def test_what_is_not_finite_stays_in_its_row_and_head(device, bad, column):
    qkv = make_qkv(3, 4, 6, 8, device=device)
    y, dx = with_gradient(qkv, 4)
    qkv[1, 2, 3, column] = bad
    spoilt, dx_spoilt = with_gradient(qkv, 4)
    head = torch.zeros(8, dtype=torch.bool, device=device)
    head[4:6] = True
    kept = torch.ones_like(y, dtype=torch.bool)
    kept[1, 2, :, head] = False
    assert torch.equal(spoilt[kept], y[kept])
    assert not spoilt[1, 2, :, head].isfinite().all()
    kept = torch.ones_like(dx, dtype=torch.bool)
    kept[1, 2, :, head.repeat(3)] = False
    assert torch.equal(dx_spoilt[kept], dx[kept])
    assert not dx_spoilt[1, 2, :, head.repeat(3)].isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 1:-1],  # a crop
        lambda x: x[:, ::2],  # some leads
        lambda x: x[..., ::2],  # columns apart: copied
        lambda x: x.transpose(0, 1),  # leads first
        lambda x: x.transpose(1, 2),  # tokens before leads
        lambda x: x[:1].expand(4, -1, -1, -1),  # one record, many times
    ],
)
def test_takes_any_strides(device, change):
    qkv = change(make_qkv(3, 4, 8, 12, device=device))
    assert_as_accurate(*op_and_reference(3), qkv)
    y, dx = with_gradient(qkv, 3)
    dense = with_gradient(qkv.contiguous(), 3)
    assert torch.equal(y, dense[0])
    assert torch.equal(dx, dense[1])


def test_gradient_of_any_strides(device):
    qkv = make_qkv(2, 3, 5, 8, device=device).requires_grad_()
    y = lead_attention(qkv, heads=4)
    for g in (
        make_qkv(2, 3, 5, 1, device=device)[..., :1].expand(2, 3, 5, 8),  # as .sum() would send it
        make_qkv(2, 5, 3, 8, device=device)[..., :8].transpose(1, 2),
    ):
        (from_strided,) = torch.autograd.grad(y, qkv, g, retain_graph=True)
        (from_dense,) = torch.autograd.grad(y, qkv, g.contiguous(), retain_graph=True)
        assert torch.equal(from_strided, from_dense)


@pytest.mark.parametrize("shape", [(0, 12, 19, 16), (3, 0, 19, 16)], ids=str)
def test_empty_batch(device, shape):
    qkv = make_qkv(*shape, device=device).requires_grad_()
    y, maps = lead_attention_maps(qkv, heads=8)
    (dx,) = torch.autograd.grad(y.sum(), qkv)
    assert y.shape == shape
    assert maps.shape == (*shape[:2], 8, 19, 19)
    assert dx.shape == qkv.shape


def test_torch_knows_the_op(device):
    ops = torch.ops.ecgfast
    qkv = make_qkv(2, 3, 5, 8, device=device)
    for x in (qkv, qkv.transpose(1, 2), qkv.half()):
        for maps in (False, True):
            torch.library.opcheck(ops.lead_attention.default, (x, 4, maps))
        g = x[..., :8]
        torch.library.opcheck(ops.lead_attention_backward.default, (x, g, 4))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    torch._dynamo.reset()

    def loss(qkv):
        y, maps = lead_attention_maps(qkv * 2, heads=4)
        return (y**3).mean() + (lead_attention(qkv, heads=4) ** 3).mean() + maps.sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        qkv = make_qkv(records, 3, 5, 8, device=device).requires_grad_()
        eager, same = loss(qkv), compiled(qkv)
        torch.testing.assert_close(same, eager)
        torch.testing.assert_close(*(torch.autograd.grad(value, qkv)[0] for value in (same, eager)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    qkv = make_qkv(2, 3, 5, 8, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = lead_attention(qkv, heads=4)
    assert torch.equal(inside, lead_attention(qkv, heads=4))


@pytest.mark.parametrize(
    ("qkv", "heads", "error", "message"),
    [
        (torch.zeros(12, 19, 48), 8, ValueError, r"must be \(N, L, S, 3 D\).*got \(12, 19, 48\)"),
        (torch.zeros(1, 12, 19, 47), 8, ValueError, "3 D"),
        (torch.zeros(1, 12, 0, 48), 8, ValueError, "S and D positive"),
        (torch.zeros(1, 12, 19, 0), 8, ValueError, "S and D positive"),
        (torch.zeros(1, 12, 19, 48), 5, ValueError, "heads must divide D = 16, got 5"),
        (torch.zeros(1, 12, 19, 48), 0, ValueError, "heads must divide"),
        (torch.zeros(1, 12, 19, 54), 2, ValueError, "at most, got 9 and 38"),
        (torch.zeros(1, 1, 513, 48), 8, ValueError, "at most, got 2 and 4104"),
        (torch.zeros(1, 12, 19, 48, dtype=torch.int32), 8, TypeError, "float dtype"),
    ],
)
@pytest.mark.parametrize("op", [lead_attention, lead_attention_maps])
def test_refuses(device, op, qkv, heads, error, message):
    with pytest.raises(error, match=message):
        op(qkv.to(device), heads=heads)


def test_border_guards_memory():
    def view(tensor, **lies):
        code = 4 if tensor.dtype == torch.uint8 else 2
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        return tuple((facts | dict(dtype=code, device=-1) | lies).values())

    qkv, y, maps = make_qkv(2, 3, 5, 8), torch.empty(2, 3, 5, 8), torch.empty(2, 3, 4, 5, 5)
    calls = {
        _C.lead_attention_forward: dict(qkv=qkv, y=y, maps=maps),
        _C.lead_attention_backward: dict(qkv=qkv, grad_y=y, grad_qkv=torch.empty_like(qkv)),
    }
    for (call, tensors), backward in zip(calls.items(), (False, True), strict=True):
        enough = _C.lead_attention_scratch(view(qkv), backward)
        tensors["scratch"] = torch.empty(1, enough, dtype=torch.uint8)
        _, middle, last, _ = tensors
        for which, lie, message in [
            ("qkv", dict(shape=(2, 3, 5, 25)), "3 D"),
            ("qkv", dict(stride=(360, 120, 24, 2)), "dense"),
            (middle, dict(shape=(2, 3, 5, 9)), "y must be"),
            (middle, dict(dtype=3), "dtype"),
            (last, dict(shape=(*tensors[last].shape[:-1], 7)), f"{last} must be"),
            (last, dict(dtype=3), "dtype"),
            (last, dict(device=0), "one device"),
            (last, dict(data=0), "no memory"),
            ("scratch", dict(shape=(1, enough - 1)), "scratch must be"),
            ("scratch", dict(shape=(0, enough)), "scratch must be"),
        ]:
            views = [view(t, **(lie if name == which else {})) for name, t in tensors.items()]
            with pytest.raises(ValueError, match=message):
                call(*views, 4, (-1, 0, 1))
        views = [view(t) for t in tensors.values()]
        for heads in (0, 3):
            with pytest.raises(ValueError, match="heads must divide"):
                call(*views, heads, (-1, 0, 1))
        call(*views, 4, (-1, 0, 1))
