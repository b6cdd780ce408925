"""resample_poly against its reference and scipy: values, gradients, edges, torch integration."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy import signal

from ecgfast import _C
from ecgfast.ops._polyphase import kaiser_filter
from ecgfast.ops.resample_poly import resample_poly, resample_poly_reference
from ecgfast.testing import assert_as_accurate, make_ecg
from python_tests.conftest import shared_data

# (leading axes and T), up, down: one sample, shorter than the filter, 17 rows, halved, doubled,
# coprime terms that take the table of taps past CUDA's shared memory, many taps an output
CASES = [
    ((1, 1, 1), 1, 2),
    ((2, 3, 15), 5, 8),
    ((17, 1, 33), 2, 1),
    ((2, 3, 1001), 1, 2),
    ((1, 2, 800), 500, 257),
    ((1, 3, 700), 257, 1250),
    ((1, 2, 900), 1, 12),
]
PADTYPES = ["constant", "line", "mean", "median", "maximum", "minimum"]


def assert_as_scipy(x, up, down, **options):
    """To 1e-6 of the peak, as the issue has it; in float64 to the rounding of hundreds of terms."""
    truth = signal.resample_poly(x.double().cpu().numpy(), up, down, axis=-1, **options)
    truth = torch.from_numpy(truth)
    y = resample_poly(x, up, down, **options)
    assert y.shape == truth.shape
    allowed = 1e-6 if x.dtype == torch.float32 else 1e-14
    peak = max(truth.abs().max().item(), x.abs().max().item())
    assert (y.double().cpu() - truth).abs().max() <= allowed * peak


@pytest.mark.parametrize(("shape", "up", "down"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, shape, up, down):
    def form(op):
        return functools.partial(op, up=up, down=down)

    x = make_ecg(*shape, device=device, dtype=dtype)
    assert_as_accurate(form(resample_poly), form(resample_poly_reference), x)


@pytest.mark.parametrize(
    "options",
    [dict(mode="linear"), *(dict(padtype=padtype) for padtype in PADTYPES[1:])],
    ids=str,
)
@pytest.mark.parametrize(("up", "down"), [(3, 4), (7, 2), (1, 5)])
def test_matches_reference_at_every_edge(device, options, up, down):
    def form(op):
        return functools.partial(op, up=up, down=down, **options)

    x = make_ecg(2, 3, 80, device=device)
    assert_as_accurate(form(resample_poly), form(resample_poly_reference), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    def form(op):
        return functools.partial(op, up=2, down=5)

    x = make_ecg(2, 8, 501, device=device, dtype=dtype)
    assert_as_accurate(form(resample_poly), form(resample_poly_reference), x)


@pytest.mark.parametrize(("shape", "up", "down"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_scipy(device, dtype, shape, up, down):
    assert_as_scipy(make_ecg(*shape, device=device, dtype=dtype), up, down)


@pytest.mark.parametrize("padtype", PADTYPES)
def test_equals_scipy_at_every_edge(device, padtype):
    assert_as_scipy(make_ecg(2, 3, 500, device=device) + 3, 25, 36, padtype=padtype)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 301])
def test_equals_scipy_with_own_taps(device, length):
    taps = np.random.default_rng(0).standard_normal(length)
    for up, down in [(1, 3), (3, 1), (5, 4)]:
        assert_as_scipy(make_ecg(2, 2, 97, device=device).double(), up, down, window=taps)


def test_linear_is_numpy_interp(device):
    for up, down in [(250, 257), (1, 2), (5, 2)]:
        x = make_ecg(1, 2, 77, device=device, dtype=torch.float64)
        at = np.arange(-(-77 * up // down)) * down / up
        truth = np.stack([np.interp(at, np.arange(77), lead) for lead in x[0].cpu().numpy()])
        y = resample_poly(x, up, down, mode="linear")
        torch.testing.assert_close(y[0].cpu(), torch.from_numpy(truth), rtol=0, atol=1e-14)


def test_equals_scipy_on_real_records(device):
    wfdb = pytest.importorskip("wfdb")
    headers = sorted(shared_data("ptb-xl-500").rglob("*.hea"))[:3]
    for record in (wfdb.rdrecord(str(header.with_suffix(""))) for header in headers):
        x = torch.from_numpy(record.p_signal.T[:3, :2500].astype(np.float32)).to(device)
        assert_as_scipy(x, 1, 2)
        assert_as_scipy(x, 257, 500, padtype="line")


def test_the_filter_is_that_of_scipy():
    for up, down, beta in [(1, 2, 5.0), (250, 257, 5.0), (3, 1, 8.6)]:
        rate = max(up, down)
        taps = signal.firwin(20 * rate + 1, 1 / rate, window=("kaiser", beta)) * up
        # of the largest tap: both round a sine and a Bessel function
        assert np.abs(kaiser_filter(up, down, beta) - taps).max() <= 1e-15 * taps.max()


def test_every_instruction_set_matches_scipy(isa):
    for dtype in (torch.float32, torch.float64):
        assert_as_scipy(make_ecg(3, 7, 1001, dtype=dtype), 250, 257)
        assert_as_scipy(make_ecg(3, 7, 1001, dtype=dtype), 1, 2, padtype="line")


@pytest.mark.parametrize(
    "options",
    [{}, dict(mode="linear"), dict(padtype="line"), dict(padtype="mean"), dict(window=[1.0, 2, 4])],
    ids=str,
)
def test_gradcheck(device, options):
    x = make_ecg(1, 2, 13, device=device, dtype=torch.float64).requires_grad_()
    for up, down in [(2, 3), (3, 2)]:
        assert torch.autograd.gradcheck(lambda x: resample_poly(x, up, down, **options), (x,))  # noqa: B023


@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_gradcheck_across_gaps(device, on_gap):
    x = make_ecg(1, 3, 13, device=device, dtype=torch.float64)
    x[0, 0, 4:7] = torch.nan
    x[0, 1, :2] = torch.inf
    x[0, 1, -3:] = torch.nan
    known = x.isfinite()
    values = x[known].requires_grad_()

    def op(values):
        return resample_poly(x.masked_scatter(known, values), 2, 3, on_gap=on_gap)

    assert torch.autograd.gradcheck(op, (values,))


@pytest.mark.parametrize(
    "options", [{}, dict(mode="linear"), dict(padtype="line"), dict(padtype="mean")], ids=str
)
@pytest.mark.parametrize(("up", "down"), [(1, 2), (250, 257), (5, 1)])
def test_gradient_is_the_transposed_map(device, options, up, down):
    x = make_ecg(2, 2, 301, device=device, dtype=torch.float64).requires_grad_()
    y = resample_poly(x, up, down, **options)
    other = make_ecg(2, 2, y.shape[-1], device=device, dtype=torch.float64, seed=1)
    (back,) = torch.autograd.grad(y, x, other)
    there = (y * other).sum().item()
    size = y.norm().item() * other.norm().item()
    assert abs(there - (x * back).sum().item()) <= 1e-12 * size  # the figure


def test_refuses_a_second_derivative(device):
    x = make_ecg(1, 1, 9, device=device).requires_grad_()
    (gradient,) = torch.autograd.grad(resample_poly(x, 1, 2).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_records_do_not_mix(device):
    x = make_ecg(5, 7, 200, device=device)
    one_by_one = torch.stack([resample_poly(lead, 3, 4) for record in x for lead in record])
    torch.testing.assert_close(resample_poly(x, 3, 4).flatten(0, 1), one_by_one, rtol=0, atol=0)


def test_thread_count_does_not_show():
    x = make_ecg(16, 12, 5000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = resample_poly(x, 1, 2)
    torch.set_num_threads(5)
    together = resample_poly(x, 1, 2)
    torch.set_num_threads(before)
    torch.testing.assert_close(alone, together, rtol=0, atol=0)


def test_tiles_do_not_show(device):
    """A long signal is cut into tiles, and its middle alone is one."""
    x = make_ecg(1, 2, 20_000, device=device)
    whole = resample_poly(x, 1, 2)
    middle = resample_poly(x[..., 8000:12000], 1, 2)
    torch.testing.assert_close(whole[..., 4100:5900], middle[..., 100:1900], rtol=0, atol=0)


def test_a_line_and_gaps_reach_over_tiles(device):
    x = make_ecg(1, 2, 20_000, device=device, dtype=torch.float64)
    assert_as_scipy(x, 1, 2, padtype="line")
    holed = x.clone()
    holed[0, 0, 4000:13_000] = torch.nan  # wider than a tile
    holed[0, 1, 19_990:] = torch.nan
    filled = holed.clone()
    filled[0, 0, 4000:13_000] = torch.from_numpy(
        np.interp(np.arange(4000, 13_000), [3999, 13_000], x[0, 0, [3999, 13_000]].cpu())
    )
    filled[0, 1, 19_990:] = x[0, 1, 19_989]
    for padtype in ("constant", "line"):
        y = resample_poly(holed, 1, 2, padtype=padtype, on_gap="interpolate")
        torch.testing.assert_close(
            y, resample_poly(filled, 1, 2, padtype=padtype), rtol=0, atol=1e-14
        )


def test_a_gap_is_named(device):
    x = make_ecg(4, 3, 500, device=device)
    x[1, 2, 40:52] = torch.nan
    x[3, 0, 7] = torch.inf
    with pytest.raises(
        ValueError,
        match=r"x has 12 of 500 samples missing .* in record 1, lead 2, the first at 40, 41, 42"
        r" \(2 rows in all\); pass on_gap='zero' or 'interpolate'",
    ):
        resample_poly(x, 1, 2)
    with pytest.raises(ValueError, match=r"in row 2, the first"):
        resample_poly(x[1], 1, 2)
    with pytest.raises(ValueError, match=r"\(NaN or infinite\), the first at 40"):
        resample_poly(x[1, 2], 1, 2, padtype="mean")


@pytest.mark.parametrize("padtype", PADTYPES)
@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_gaps_are_filled_before_all_else(device, padtype, on_gap):
    x = make_ecg(2, 3, 120, device=device)
    x[0, 1, 3:60] = torch.nan
    x[1, 0, :9] = -torch.inf
    x[1, 1, 100:] = torch.nan
    x[1, 2] = torch.nan
    truth = resample_poly_reference(x.double(), 3, 4, padtype=padtype, on_gap=on_gap)
    y = resample_poly(x, 3, 4, padtype=padtype, on_gap=on_gap)
    assert (y - truth).abs().max() <= 1e-6 * x[x.isfinite()].abs().max()
    assert not y[1, 2].any()
    sound = resample_poly(x[0, :1], 3, 4, padtype=padtype)
    torch.testing.assert_close(y[0, :1], sound, rtol=0, atol=0)


def test_propagate_keeps_to_the_reach_of_the_filter(device):
    x = make_ecg(1, 2, 400, device=device)
    x[0, 0, 200] = torch.nan
    y = resample_poly(x, 1, 2, on_gap="propagate")
    assert y[0, 0, 90:111].isnan().all()  # 41 taps around 100
    assert y.isnan().sum() == 21
    assert resample_poly(x, 1, 2, padtype="mean", on_gap="propagate")[0, 0].isnan().all()


def test_equal_rates_give_a_copy(device):
    x = make_ecg(1, 2, 50, device=device)
    y = resample_poly(x, 250, 250, padtype="maximum")
    torch.testing.assert_close(y, x, rtol=0, atol=0)
    assert y.data_ptr() != x.data_ptr()


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
        lambda x: x[:, None, :, None],  # views
        lambda x: x.view(3, 2, 6, -1).transpose(0, 1),  # views first
    ],
)
def test_takes_any_strides(device, change):
    def form(op):
        return functools.partial(op, up=2, down=3)

    x = change(make_ecg(3, 12, 101, device=device, dtype=torch.float64))
    assert_as_accurate(form(resample_poly), form(resample_poly_reference), x)


def test_gradient_of_any_strides(device):
    x = make_ecg(2, 3, 40, device=device).requires_grad_()
    expanded = make_ecg(2, 3, 1, device=device).expand(2, 3, 20)  # as .sum() would send it
    (from_expanded,) = torch.autograd.grad(resample_poly(x, 1, 2), x, expanded)
    (from_dense,) = torch.autograd.grad(resample_poly(x, 1, 2), x, expanded.contiguous())
    torch.testing.assert_close(from_expanded, from_dense, rtol=0, atol=0)


def test_empty_batch(device):
    for padtype in PADTYPES:
        empty = torch.zeros(0, 12, 500, device=device, requires_grad=True)
        y = resample_poly(empty, 1, 2, padtype=padtype)
        assert y.shape == (0, 12, 250)
        y.sum().backward()


def test_torch_knows_the_op(device):
    x = make_ecg(2, 3, 64, device=device)
    op = torch.ops.ecgfast.resample_poly.default
    how = (None, 2, 3, "polyphase", 5.0, "zeros", "zero")
    for changed in (x, x.transpose(1, 2), x.half()):
        torch.library.opcheck(op, (changed, *how))
    window = torch.ones(5, dtype=torch.float64)
    torch.library.opcheck(op, (x, window, *how[1:]))
    y, gaps = op(x, *how)
    back = torch.ops.ecgfast.resample_poly_backward.default
    torch.library.opcheck(back, (y, x, gaps, 64, *how))
    torch.library.opcheck(back, (y, None, gaps, 64, None, 2, 3, "polyphase", 5.0, "line", "raise"))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("padtype", ["constant", "mean"])
def test_compiles_without_a_graph_break(device, dynamic, padtype):
    def loss(x):
        return (resample_poly(x * 2, 2, 3, padtype=padtype) ** 3).mean()

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
        inside = resample_poly(x, 1, 2)
    torch.testing.assert_close(inside, resample_poly(x, 1, 2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=torch.zeros(3, 0)), ValueError, "T > 0"),
        (dict(x=torch.zeros(5, dtype=torch.int16)), TypeError, "float dtype"),
        (dict(up=0), ValueError, "must be positive"),
        (dict(up=1.5), TypeError, "up must be an int"),
        (dict(up=10_007, down=20_011), ValueError, r"over 10000.*simpler ratio, as \d+ / \d+"),
        (dict(up=1, down=9000), ValueError, "two steps"),
        (dict(up=300, down=1), ValueError, "two steps"),
        (dict(mode="cubic"), ValueError, "mode must be one of"),
        (dict(padtype="reflect"), ValueError, "padtype must be one of"),
        (dict(x=torch.zeros(1), padtype="line"), ValueError, "two samples"),
        (dict(window="hann"), ValueError, "firwin"),
        (dict(window=("hann", 1.0)), ValueError, "firwin"),
        (dict(window=torch.ones(2, 2)), ValueError, r"\(taps,\)"),
        (dict(window=torch.tensor([1, torch.nan])), ValueError, "1 of 2 taps"),
        (dict(window=torch.ones(3, requires_grad=True)), ValueError, "not differentiated"),
        (dict(mode="linear", padtype="line"), ValueError, "no filter"),
        (dict(on_gap="skip"), ValueError, "on_gap must be one of"),
    ],
)
def test_refuses(change, error, message):
    with pytest.raises(error, match=message):
        resample_poly(**(dict(x=torch.zeros(1, 12, 500), up=1, down=2) | change))


def test_border_guards_memory():
    def view(tensor, code, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=code, device=-1) | lies
        return tuple(facts.values())

    tensors = [torch.zeros(size) for size in [(2, 3, 8), (1, 3), (2, 3, 4), (6, 1), (1, 4096)]]

    def call(*, y=None, taps=None, gaps=None, scratch=None, **numbers):
        lies = [{}, taps or {}, y or {}, gaps or {}, scratch or {}]
        codes = [2, 2, 2, 6, 4]
        views = [view(t, code, **lie) for t, code, lie in zip(tensors, codes, lies, strict=True)]
        plan = dict(up=1, down=2, offset=1, outside=0, on_gap=0, tile=4) | numbers
        _C.resample_poly_forward(*views, *plan.values(), (-1, 0, 1))

    call()
    for lie, message in [
        (dict(y=dict(shape=(2, 2, 4))), "y must be"),
        (dict(y=dict(dtype=3)), "dtype"),
        (dict(y=dict(stride=(12, 4, 2))), "dense"),
        (dict(taps=dict(shape=(2, 3))), "taps must be"),
        (dict(taps=dict(dtype=3)), "dtype"),
        (dict(taps=dict(data=0)), "no memory"),
        (dict(gaps=dict(shape=(6, 2))), "gaps must be"),
        (dict(scratch=dict(shape=(1, 64))), "too small"),
        (dict(scratch=dict(device=0)), "one device"),
        (dict(tile=0), "a tile"),
        (dict(up=20_000), "too large"),
        (dict(down=10_000, tile=16_000, offset=10**6), "too many inputs|too small"),
        (dict(outside=3), "outside"),
        (dict(on_gap=3), "on_gap"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**lie)
