"""moving_average against its reference and scipy: values, gradients, edges, torch integration."""

from __future__ import annotations

import functools

import pytest
import torch
from scipy import ndimage

from ecgfast import _C
from ecgfast.ops.moving_average import moving_average, moving_average_reference
from ecgfast.testing import assert_as_accurate, make_ecg

# (N, L, T) and window: one sample, even, wider than the signal, odd, 600 ms of two tiles
CASES = [((1, 1, 1), 3), ((2, 3, 33), 4), ((1, 2, 15), 50), ((17, 1, 257), 15), ((2, 2, 5200), 300)]
MODES = ["nearest", "reflect", "mirror", "constant", "wrap"]


def forms(window, **options):
    return (
        functools.partial(op, window=window, **options)
        for op in (moving_average, moving_average_reference)
    )


def scipy_form(x, window, mode):
    y = ndimage.uniform_filter1d(x.double().cpu().numpy(), window, axis=-1, mode=mode)
    return torch.from_numpy(y)


@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, shape, window):
    assert_as_accurate(*forms(window), make_ecg(*shape, device=device, dtype=dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [1, 8, 45, 100])
def test_matches_reference_at_every_edge(device, mode, window):
    assert_as_accurate(*forms(window, mode=mode), make_ecg(2, 3, 30, device=device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    assert_as_accurate(*forms(20), make_ecg(2, 8, 501, device=device, dtype=dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_equals_scipy(device, mode, shape, window):
    x = make_ecg(*shape, device=device) + 1
    truth = scipy_form(x, window, mode)
    error = (moving_average(x, window, mode=mode).double().cpu() - truth).abs().max()
    assert error <= 1e-6 * x.abs().max()  # the figure


def test_every_instruction_set_matches_reference(isa):
    assert_as_accurate(*forms(30), make_ecg(3, 7, 1001))


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(device, mode):
    x = make_ecg(1, 2, 11, device=device, dtype=torch.float64).requires_grad_()
    for window in (4, 5, 30):
        assert torch.autograd.gradcheck(lambda x: moving_average(x, window, mode=mode), (x,))  # noqa: B023


@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_gradcheck_across_gaps(device, on_gap):
    x = make_ecg(1, 2, 13, device=device, dtype=torch.float64)
    x[0, 0, 4:7] = torch.nan
    x[0, 1, :2] = torch.inf
    known = x.isfinite()

    def op(values):
        return moving_average(x.masked_scatter(known, values), 4, on_gap=on_gap)

    assert torch.autograd.gradcheck(op, (x[known].requires_grad_(),))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [7, 300, 1000])
def test_gradient_is_the_transposed_map(device, mode, window):
    x = make_ecg(2, 2, 301, device=device, dtype=torch.float64).requires_grad_()
    y = moving_average(x, window, mode=mode)
    other = make_ecg(2, 2, 301, device=device, dtype=torch.float64, seed=1)
    (back,) = torch.autograd.grad(y, x, other)
    there, here = (y * other).sum().item(), (x * back).sum().item()
    assert abs(there - here) <= 1e-12 * x.norm().item() * other.norm().item()  # the figure


def test_refuses_a_second_derivative(device):
    x = make_ecg(1, 1, 9, device=device).requires_grad_()
    (gradient,) = torch.autograd.grad(moving_average(x, 3).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_sums_do_not_drift(device):
    """After a stretch of volts the small signal is as exact as before it."""
    x = make_ecg(1, 1, 4000, device=device)
    loud = x.clone()
    loud[..., 500:600] = 1e6
    quiet = slice(700, 4000)
    allowed = 1e-6 * x.abs().max().item()
    difference = moving_average(loud, 50) - moving_average(x, 50)
    assert difference[..., quiet].abs().max() <= allowed


def test_propagate_keeps_to_the_windows_that_hold_it(device):
    x = make_ecg(1, 4, 60, device=device)
    x[0, 0, 20] = torch.nan
    x[0, 1, 20] = torch.inf
    x[0, 2, 20], x[0, 2, 22] = torch.inf, -torch.inf
    x[0, 3, 0] = torch.nan
    for mode in MODES:
        y = moving_average(x, 5, mode=mode, on_gap="propagate")
        truth = moving_average_reference(x, 5, mode=mode, on_gap="propagate")
        torch.testing.assert_close(y, truth, equal_nan=True)
        assert y[0, 0].isnan().sum() == 5


def test_records_do_not_mix(device):
    x = make_ecg(5, 7, 200, device=device)
    one_by_one = torch.stack([moving_average(lead, 12) for record in x for lead in record])
    torch.testing.assert_close(moving_average(x, 12).flatten(0, 1), one_by_one, rtol=0, atol=0)


def test_thread_count_does_not_show():
    x = make_ecg(16, 12, 5000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = moving_average(x, 100)
    torch.set_num_threads(5)
    together = moving_average(x, 100)
    torch.set_num_threads(before)
    torch.testing.assert_close(alone, together, rtol=0, atol=0)


def test_a_gap_is_named(device):
    x = make_ecg(4, 3, 500, device=device)
    x[1, 2, 40:52] = torch.nan
    x[3, 0, 7] = torch.inf
    with pytest.raises(
        ValueError,
        match=r"x has 12 of 500 samples missing .* in record 1, lead 2, the first at 40, 41, 42"
        r" \(2 rows in all\); pass on_gap='zero' or 'interpolate'",
    ):
        moving_average(x, 10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_gaps_are_filled_before_all_else(device, mode, on_gap):
    x = make_ecg(2, 3, 120, device=device)
    x[0, 1, 3:60] = torch.nan
    x[1, 0, :9] = -torch.inf
    x[1, 1, 100:] = torch.nan
    x[1, 2] = torch.nan
    truth = moving_average_reference(x.double(), 20, mode=mode, on_gap=on_gap)
    y = moving_average(x, 20, mode=mode, on_gap=on_gap)
    assert (y - truth).abs().max() <= 1e-6 * x[x.isfinite()].abs().max()
    assert not y[1, 2].any()
    torch.testing.assert_close(y[0, 0], moving_average(x[0, 0], 20, mode=mode), rtol=0, atol=0)


def test_a_gap_reaches_over_tiles(device):
    x = make_ecg(1, 1, 12_000, device=device, dtype=torch.float64)
    x[..., 3000:11_000] = torch.nan
    truth = moving_average_reference(x, 40, on_gap="interpolate")
    torch.testing.assert_close(
        moving_average(x, 40, on_gap="interpolate"), truth, rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 3:-1],  # a crop
        lambda x: x[:, ::3],  # some leads
        lambda x: x[:, :, ::2],  # a decimation
        lambda x: x.transpose(1, 2),  # samples first
        lambda x: x[:1].expand(4, -1, -1),  # one record, many times
        lambda x: x[0, 0],  # one signal
        lambda x: x[0],  # one record
        lambda x: x.view(3, 2, 6, -1).transpose(0, 1),  # views first
    ],
)
def test_takes_any_strides(device, change):
    x = change(make_ecg(3, 12, 101, device=device, dtype=torch.float64))
    truth = moving_average_reference(x, 9)
    torch.testing.assert_close(moving_average(x, 9), truth, rtol=0, atol=1e-14)


def test_gradient_of_any_strides(device):
    x = make_ecg(2, 3, 40, device=device).requires_grad_()
    expanded = make_ecg(2, 3, 1, device=device).expand(2, 3, 40)  # as .sum() would send it
    (from_expanded,) = torch.autograd.grad(moving_average(x, 6), x, expanded)
    (from_dense,) = torch.autograd.grad(moving_average(x, 6), x, expanded.contiguous())
    torch.testing.assert_close(from_expanded, from_dense, rtol=0, atol=0)


def test_empty_batch(device):
    empty = torch.zeros(0, 12, 500, device=device, requires_grad=True)
    y = moving_average(empty, 9)
    assert y.shape == (0, 12, 500)
    y.sum().backward()


def test_torch_knows_the_op(device):
    x = make_ecg(2, 3, 64, device=device)
    op = torch.ops.ecgfast.moving_average.default
    for changed in (x, x.transpose(1, 2), x.half()):
        torch.library.opcheck(op, (changed, 6, "nearest", "zero"))
    y, gaps = op(x, 6, "nearest", "zero")
    back = torch.ops.ecgfast.moving_average_backward.default
    torch.library.opcheck(back, (y, x, gaps, 6, "nearest", "zero"))
    torch.library.opcheck(back, (y, None, gaps, 6, "constant", "raise"))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def loss(x):
        return (moving_average(x * 2, 8) ** 3).mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x = make_ecg(records, 3, 64, device=device).requires_grad_()
        eager, same = loss(x), compiled(x)
        torch.testing.assert_close(same, eager)
        torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (same, eager)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x = make_ecg(2, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = moving_average(x, 30)
    torch.testing.assert_close(inside, moving_average(x, 30), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=torch.zeros(3, 0)), ValueError, "T > 0"),
        (dict(x=torch.zeros(5, dtype=torch.int16)), TypeError, "float dtype"),
        (dict(window=0), ValueError, "window must be positive"),
        (dict(window=2.5), TypeError, "window must be an int, in samples"),
        (dict(mode="interp"), ValueError, "mode must be one of"),
        (dict(on_gap="skip"), ValueError, "on_gap must be one of"),
    ],
)
def test_refuses(change, error, message):
    with pytest.raises(error, match=message):
        moving_average(**(dict(x=torch.zeros(1, 12, 500), window=5) | change))


def test_border_guards_memory():
    def view(tensor, code, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=code, device=-1) | lies
        return tuple(facts.values())

    tensors = [torch.zeros(size) for size in [(2, 3, 8), (2, 3, 8), (6, 1), (1, 4096)]]

    def call(*, y=None, gaps=None, scratch=None, **numbers):
        lies, codes = [{}, y or {}, gaps or {}, scratch or {}], [2, 2, 6, 4]
        views = [view(t, code, **lie) for t, code, lie in zip(tensors, codes, lies, strict=True)]
        plan = dict(window=3, left=1, start=0, tile=8, beyond=0, on_gap=0) | numbers
        _C.moving_average_forward(*views, *plan.values(), (-1, 0, 1))

    call()
    for lie, message in [
        (dict(y=dict(shape=(2, 3, 9))), "y must be|gaps must be"),
        (dict(y=dict(dtype=3)), "dtype"),
        (dict(y=dict(stride=(24, 8, 2))), "dense"),
        (dict(gaps=dict(shape=(6, 2))), "gaps must be"),
        (dict(gaps=dict(data=0)), "no memory"),
        (dict(scratch=dict(shape=(1, 64))), "too small"),
        (dict(scratch=dict(device=0)), "one device"),
        (dict(window=0), "window"),
        (dict(tile=0), "tile"),
        (dict(beyond=5), "beyond"),
        (dict(on_gap=3), "on_gap"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**lie)
