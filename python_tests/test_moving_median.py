"""moving_median against its reference and scipy: values, edges, torch integration."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage, signal

from ecgfast import _C
from ecgfast.ops.moving_median import moving_median, moving_median_reference
from ecgfast.testing import make_ecg

# (N, L, T) and window: one sample, even, wider than the signal, odd, 600 ms, tiles of a long signal
CASES = [
    ((1, 1, 1), 3),
    ((2, 3, 33), 4),
    ((1, 2, 15), 50),
    ((17, 1, 257), 15),
    ((1, 2, 1000), 300),
    ((1, 1, 9000), 100),
]
MODES = ["nearest", "reflect", "mirror", "constant", "wrap"]


def scipy_form(x, window, mode):
    size = (1,) * (x.dim() - 1) + (window,)
    return torch.from_numpy(ndimage.median_filter(x.cpu().numpy(), size=size, mode=mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_is_scipy_and_the_reference_bit_for_bit(device, dtype, mode, shape, window):
    x = make_ecg(*shape, device=device, dtype=dtype)
    y = moving_median(x, window, mode=mode)
    assert torch.equal(y, moving_median_reference(x, window, mode=mode))
    if window // 2 < shape[2]:  # scipy errs where a window reaches round the signal more than once
        assert torch.equal(y.cpu(), scipy_form(x, window, mode))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    x = make_ecg(2, 8, 501, device=device, dtype=dtype)
    assert torch.equal(moving_median(x, 20), moving_median_reference(x, 20))


def test_every_instruction_set_matches_reference(isa):
    for dtype in (torch.float32, torch.float64):
        x = make_ecg(3, 7, 1001, dtype=dtype)
        assert torch.equal(moving_median(x, 30), moving_median_reference(x, 30))


@pytest.mark.parametrize("window", [1, 3, 51])
def test_zeros_beyond_are_medfilt(device, window):
    x = make_ecg(1, 1, 300, device=device)[0, 0]
    truth = torch.from_numpy(signal.medfilt(x.cpu().numpy(), window))
    assert torch.equal(moving_median(x, window, mode="constant").cpu(), truth)


@pytest.mark.parametrize("window", [2, 7, 64])
def test_ties_and_a_flat_lead(device, window):
    """Steps of an ADC, as in stored records: most samples of a window are equal."""
    x = (make_ecg(2, 3, 500, device=device) * 20).round() / 20
    x[0, 1] = 0.25
    y = moving_median(x, window)
    assert torch.equal(y, moving_median_reference(x, window))
    assert (y[0, 1] == 0.25).all()


def test_signs_sizes_and_infinities_are_in_order(device):
    x = torch.tensor([1e-40, -1e-40, 3e38, -3e38, 0.0, -0.0, 1.0, -1.0] * 4, device=device)
    for dtype in (torch.float32, torch.float64):
        y = moving_median(x.to(dtype), 5)
        assert torch.equal(y, moving_median_reference(x.to(dtype), 5))
    x[3], x[9] = torch.inf, -torch.inf
    y = moving_median(x, 3, on_gap="propagate")
    assert torch.equal(y, moving_median_reference(x, 3, on_gap="propagate"))


def test_propagate_keeps_to_the_windows_that_hold_it(device):
    x = make_ecg(1, 3, 60, device=device)
    x[0, 0, 20] = torch.nan
    x[0, 1, 0] = -torch.tensor(torch.nan)
    for mode in MODES:
        y = moving_median(x, 5, mode=mode, on_gap="propagate")
        truth = moving_median_reference(x, 5, mode=mode, on_gap="propagate")
        torch.testing.assert_close(y, truth, rtol=0, atol=0, equal_nan=True)
        assert y[0, 0].isnan().sum() == 5


def test_refuses_a_gradient(device):
    x = make_ecg(1, 1, 9, device=device).requires_grad_()
    with pytest.raises(RuntimeError, match=r"not differentiable.*detach"):
        moving_median(x, 3)
    with torch.no_grad():
        moving_median(x, 3)
    moving_median(x.detach(), 3)


def test_records_do_not_mix(device):
    x = make_ecg(5, 7, 200, device=device)
    one_by_one = torch.stack([moving_median(lead, 12) for record in x for lead in record])
    torch.testing.assert_close(moving_median(x, 12).flatten(0, 1), one_by_one, rtol=0, atol=0)


def test_thread_count_does_not_show():
    x = make_ecg(16, 12, 5000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = moving_median(x, 100)
    torch.set_num_threads(5)
    together = moving_median(x, 100)
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
        moving_median(x, 10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_gaps_are_filled_before_all_else(device, mode, on_gap):
    x = make_ecg(2, 3, 120, device=device)
    x[0, 1, 3:60] = torch.nan
    x[1, 0, :9] = -torch.inf
    x[1, 1, 100:] = torch.nan
    x[1, 2] = torch.nan
    truth = moving_median_reference(x.double(), 20, mode=mode, on_gap=on_gap)
    y = moving_median(x, 20, mode=mode, on_gap=on_gap)
    assert (y - truth).abs().max() <= 1e-6 * x[x.isfinite()].abs().max()
    assert not y[1, 2].any()
    torch.testing.assert_close(y[0, 0], moving_median(x[0, 0], 20, mode=mode), rtol=0, atol=0)


def test_a_gap_reaches_over_tiles(device):
    x = make_ecg(1, 1, 12_000, device=device, dtype=torch.float64)
    x[..., 3000:11_000] = torch.nan
    truth = moving_median_reference(x, 40, on_gap="interpolate")
    torch.testing.assert_close(
        moving_median(x, 40, on_gap="interpolate"), truth, rtol=0, atol=1e-14
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
    truth = moving_median_reference(x, 9)
    torch.testing.assert_close(moving_median(x, 9), truth, rtol=0, atol=1e-14)


def test_empty_batch(device):
    assert moving_median(torch.zeros(0, 12, 500, device=device), 9).shape == (0, 12, 500)


def test_torch_knows_the_op(device):
    x = make_ecg(2, 3, 64, device=device)
    op = torch.ops.ecgfast.moving_median.default
    for changed in (x, x.transpose(1, 2), x.half()):
        torch.library.opcheck(op, (changed, 6, "nearest", "zero"))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def baseline(x):
        return x - moving_median(moving_median(x * 2, 8), 20)

    compiled = torch.compile(baseline, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x = make_ecg(records, 3, 64, device=device)
        torch.testing.assert_close(compiled(x), baseline(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x = make_ecg(2, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = moving_median(x, 30)
    torch.testing.assert_close(inside, moving_median(x, 30), rtol=0, atol=0)


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
        moving_median(**(dict(x=torch.zeros(1, 12, 500), window=5) | change))


def test_border_guards_memory():
    def view(tensor, code, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=code, device=-1) | lies
        return tuple(facts.values())

    tensors = [torch.zeros(size) for size in [(2, 3, 8), (2, 3, 8), (6, 1), (1, 4096)]]

    def call(*, y=None, gaps=None, scratch=None, **numbers):
        lies, codes = [{}, y or {}, gaps or {}, scratch or {}], [2, 2, 6, 4]
        views = [view(t, code, **lie) for t, code, lie in zip(tensors, codes, lies, strict=True)]
        plan = dict(window=3, tile=8, beyond=0, on_gap=0) | numbers
        _C.moving_median_forward(*views, *plan.values(), (-1, 0, 1))

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
