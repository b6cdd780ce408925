"""sosfiltfilt and sosfilt against scipy and their references: values, gradients, edges, torch.

Long because the room has two functions, each with a gradient.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal as sg
import torch

from ecgfast import _C
from ecgfast.ops.sosfiltfilt import (
    sosfilt,
    sosfilt_reference,
    sosfiltfilt,
    sosfiltfilt_reference,
)
from ecgfast.testing import make_ecg
from python_tests.conftest import shared_data

NOTCH = np.r_[sg.iirnotch(50, 30, fs=500)][None]
BAND = sg.butter(4, [0.5, 40], "bandpass", fs=500, output="sos")
HIGH = sg.butter(5, 0.5, "highpass", fs=500, output="sos")  # has a section of first order
LOW = sg.butter(2, 25, fs=500, output="sos")
DELAY = np.array([[0, 1, 0, 1, 0, 0], [0, 0.2, 0.1, 1, -0.5, 0.06]])  # b0 of 0, poles at 0
TWINS = np.array([[1, 0.5, 0.2, 1, -1.8, 0.81], [0.3, 0, 0, 1, 0, 0]])  # equal poles; a mere gain
FILTERS = {
    "band and notch": np.vstack([BAND, NOTCH]),
    "high": HIGH,
    "low": LOW,
    "delay": DELAY,
    "twins": TWINS,
    "wide": sg.butter(3, [0.05, 150], "bandpass", fs=500, output="sos"),
    "12 sections": sg.butter(12, [1, 100], "bandpass", fs=500, output="sos"),
}
PADS = ["odd", "even", "constant", None]
# (N, L, T): just longer than the edges, odd, the real thing, more than a tile of CUDA
SHAPES = [(1, 1, 80), (3, 7, 1001), (1, 12, 5000), (1, 2, 11003)]
filters = pytest.mark.parametrize("sos", FILTERS.values(), ids=FILTERS)
PEAK = 1e-6  # of the peak: what was asked for in float32


def scipys(x, sos, **how) -> torch.Tensor:
    y = sg.sosfiltfilt(sos, x.detach().double().cpu().numpy(), **how)
    return torch.from_numpy(y.copy())


def assert_near(y, truth, allowed=PEAK):
    error = (y.double().cpu() - truth).abs().max().item()
    assert error <= allowed * truth.abs().max().item(), f"{error:.2e} of {truth.abs().max():.2e}"


def rounding(sos) -> float:
    """What float64 may lose: the level of a section comes from sums that cancel near 1."""
    worst = min(abs(1 + row[4] + row[5]) for row in sos)
    return 64 * np.finfo(float).eps * max(1, 1 / worst)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@filters
def test_matches_scipy(device, sos, shape):
    x = make_ecg(*shape, device=device)
    assert_near(sosfiltfilt(x, sos), scipys(x, sos))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@filters
def test_matches_scipy_in_double(device, sos, shape):
    x = make_ecg(*shape, device=device, dtype=torch.float64)
    assert_near(sosfiltfilt(x, sos), scipys(x, sos), rounding(sos))


@pytest.mark.parametrize("cutoff", [[0.05, 150], [0.5, 40], [0.67, 100]], ids=str)
@pytest.mark.parametrize("order", range(1, 9))
def test_every_order_stays_below_a_millionth_of_the_peak(device, order, cutoff):
    x = make_ecg(1, 2, 5000, device=device)
    for sos in (
        sg.butter(order, cutoff, "bandpass", fs=500, output="sos"),
        sg.butter(order, cutoff[0], "highpass", fs=500, output="sos"),
        sg.butter(order, cutoff[1], "lowpass", fs=500, output="sos"),
    ):
        assert_near(sosfiltfilt(x, sos), scipys(x, sos))


@pytest.mark.parametrize("padtype", PADS)
@pytest.mark.parametrize("padlen", [None, 0, 1, 50, 1000])
def test_pads_as_scipy(device, padtype, padlen):
    x = make_ecg(1, 3, 1001, device=device)
    sos = FILTERS["band and notch"]
    y = sosfiltfilt(x, sos, padtype=padtype, padlen=padlen)
    assert_near(y, scipys(x, sos, padtype=padtype, padlen=padlen))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_scipy_in_half(device, dtype):
    x = make_ecg(2, 3, 1001, device=device, dtype=dtype)
    y = sosfiltfilt(x, BAND)
    assert y.dtype == dtype
    assert_near(y, scipys(x, BAND), torch.finfo(dtype).eps)


@filters
def test_every_instruction_set_matches_scipy(isa, sos):
    x = make_ecg(3, 7, 1001)
    assert_near(sosfiltfilt(x, sos), scipys(x, sos))
    wide = x.double()
    assert_near(sosfiltfilt(wide, sos), scipys(x, sos), rounding(sos))
    y, zf = sosfilt(wide, sos, zi=torch.ones(3, 7, len(sos), 2))
    truth, state = sosfilt_reference(wide, sos, zi=torch.ones(3, 7, len(sos), 2).double())
    assert_near(y, truth, rounding(sos))
    assert_near(zf, state, rounding(sos))


@pytest.mark.parametrize("padtype", PADS)
@filters
def test_reference_is_scipys(sos, padtype):
    x = make_ecg(1, 2, 200, dtype=torch.float64)
    y = sosfiltfilt_reference(x, sos, padtype=padtype)
    assert_near(y, scipys(x, sos, padtype=padtype), rounding(sos))


@pytest.mark.parametrize("padlen", [None, 1, 30])
@pytest.mark.parametrize("padtype", PADS)
@pytest.mark.parametrize("samples", [120, 5100], ids=["a tile", "two tiles"])
def test_gradient_is_the_transpose(device, padtype, padlen, samples):
    def apply(signal):
        return sosfiltfilt(signal, sos, padtype=padtype, padlen=padlen)

    sos = FILTERS["band and notch"] if samples == 5100 else np.vstack([LOW, NOTCH])
    x = make_ecg(1, 2, samples, device=device, dtype=torch.float64).requires_grad_()
    g = make_ecg(1, 2, samples, device=device, dtype=torch.float64, seed=7)
    y = apply(x)
    (back,) = torch.autograd.grad(y, x, g)
    there, again = (y.detach() * g).sum(), (x.detach() * back).sum()
    size = y.detach().norm() * g.norm() + x.detach().norm() * back.norm()
    assert (there - again).abs() <= 1e-12 * size


@pytest.mark.parametrize("padtype", PADS)
@filters
def test_gradient_matches_reference(device, sos, padtype):
    x = make_ecg(1, 2, 150, device=device).requires_grad_()
    g = make_ecg(1, 2, 150, device=device, seed=3)
    wide = x.detach().double().requires_grad_()
    truth = sosfiltfilt_reference(wide, sos, padtype=padtype)
    (truth,) = torch.autograd.grad(truth, wide, g.double())
    (gradient,) = torch.autograd.grad(sosfiltfilt(x, sos, padtype=padtype), x, g)
    assert_near(gradient, truth.cpu(), 4 * PEAK)  # a sum over the edges weighs their rounding


@pytest.mark.parametrize("padtype", PADS)
def test_gradcheck(device, padtype):
    x = make_ecg(1, 2, 40, device=device, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: sosfiltfilt(s, LOW, padtype=padtype), (x,))


def test_gradcheck_of_sosfilt(device):
    x = make_ecg(1, 2, 20, device=device, dtype=torch.float64).requires_grad_()
    for sos in (HIGH, DELAY):
        zi = torch.randn(1, 2, len(sos), 2, dtype=torch.float64, device=device).requires_grad_()
        assert torch.autograd.gradcheck(lambda s, z, sos=sos: sosfilt(s, sos, zi=z), (x, zi))
    assert torch.autograd.gradcheck(lambda s: sosfilt(s, HIGH), (x,))


def test_refuses_a_second_derivative(device):
    x = make_ecg(1, 1, 60, device=device).requires_grad_()
    for op in (sosfiltfilt, sosfilt):
        (gradient,) = torch.autograd.grad(op(x, LOW).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_records_do_not_mix(device, dtype):
    x = make_ecg(5, 4, 333, device=device, dtype=dtype)
    one_by_one = torch.cat([sosfiltfilt(record[None], BAND) for record in x])
    assert torch.equal(sosfiltfilt(x, BAND), one_by_one)
    zi = torch.randn(5, 4, 4, 2, device=device)
    y, zf = sosfilt(x, BAND, zi=zi)
    for n, record in enumerate(x):
        for whole, alone in zip((y, zf), sosfilt(record, BAND, zi=zi[n]), strict=True):
            assert torch.equal(whole[n], alone)


def test_thread_count_does_not_show():
    x = make_ecg(8, 12, 1000)
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        y = sosfiltfilt(leaf, BAND)
        outcomes.append((y, *torch.autograd.grad(y, leaf, x), sosfilt(x, BAND)))
    torch.set_num_threads(before)
    for alone, together in zip(*outcomes, strict=True):
        assert torch.equal(alone, together)


@pytest.mark.parametrize("padtype", PADS)
def test_parts_of_long_signals_do_not_show(monkeypatch, padtype):
    x = make_ecg(1, 3, 1001).requires_grad_()

    def run():
        y = sosfiltfilt(x, BAND, padtype=padtype)
        return y, *torch.autograd.grad(y, x, x.detach())

    whole = run()
    causal = sosfilt(x, BAND)
    for most in (2, 300, 1000):
        monkeypatch.setattr(sys.modules[sosfiltfilt.__module__], "_WHOLE", most)
        for one, in_parts in zip(whole, run(), strict=True):
            assert torch.equal(one, in_parts)
        assert torch.equal(causal, sosfilt(x, BAND))


@filters
def test_sosfilt_matches_scipy(device, sos):
    x = make_ecg(2, 3, 5300, device=device, dtype=torch.float64)
    zi = torch.randn(2, 3, len(sos), 2, dtype=torch.float64)
    truth, state = sg.sosfilt(sos, x.cpu().numpy(), zi=np.moveaxis(zi.numpy(), -2, 0))
    y, zf = sosfilt(x, sos, zi=zi.to(device))
    assert_near(y, torch.from_numpy(truth), rounding(sos))
    assert_near(zf, torch.from_numpy(np.moveaxis(state, 0, -2).copy()), rounding(sos))
    assert_near(sosfilt(x, sos), torch.from_numpy(sg.sosfilt(sos, x.cpu().numpy())), rounding(sos))
    narrow = sosfilt(x.float(), sos, zi=zi.to(device))[0]
    truth, _ = sg.sosfilt(
        sos, x.float().cpu().numpy().astype(float), zi=np.moveaxis(zi.numpy(), -2, 0)
    )
    assert_near(narrow, torch.from_numpy(truth))


def test_chunks_of_a_stream_are_the_whole(device):
    x = make_ecg(2, 3, 1200, device=device)
    state = torch.zeros(2, 3, len(BAND), 2, dtype=torch.float64, device=device)
    whole, end = sosfilt(x, BAND, zi=state)
    parts = []
    for chunk in x.split([1, 7, 40, 41, 500, 611], dim=-1):
        y, state = sosfilt(chunk, BAND, zi=state)
        parts.append(y)
    assert_near(torch.cat(parts, dim=-1), whole.double().cpu())
    assert_near(state, end.cpu(), 4 * PEAK)


def test_chunks_are_the_whole_bit_for_bit(isa):
    x = make_ecg(2, 3, 1200)
    state = torch.zeros(2, 3, len(BAND), 2, dtype=torch.float64)
    whole, end = sosfilt(x, BAND, zi=state)
    parts = []
    for chunk in x.split(7, dim=-1):
        y, state = sosfilt(chunk, BAND, zi=state)
        parts.append(y)
    assert torch.equal(torch.cat(parts, dim=-1), whole)
    assert torch.equal(state, end)


@pytest.mark.parametrize("samples", [600, 5200], ids=["a tile", "two tiles"])
@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
def test_fills_gaps(device, on_gap, samples):
    x = make_ecg(3, 2, samples, device=device, dtype=torch.float64)
    x[0, 1, :5] = torch.nan
    x[1, 0, 100:130] = torch.inf
    x[1, 0, 400] = -torch.inf
    x[1, 1, -7:] = torch.nan
    x[2, 1] = torch.nan
    x.requires_grad_()
    filled = x.detach().cpu().numpy().copy()
    for row in filled.reshape(-1, samples):
        valid = np.isfinite(row)
        values = row[valid] if valid.any() else [0.0]
        at = np.flatnonzero(valid) if valid.any() else [0]
        row[~valid] = 0 if on_gap == "zero" else np.interp(np.flatnonzero(~valid), at, values)
    y = sosfiltfilt(x, BAND, on_gap=on_gap)
    assert_near(y, scipys(torch.from_numpy(filled), BAND), rounding(BAND))
    if samples > 600:
        return
    g = make_ecg(3, 2, samples, device=device, dtype=torch.float64, seed=5)
    (gradient,) = torch.autograd.grad(y, x, g)
    truth = sosfiltfilt_reference(x, BAND, on_gap=on_gap)
    (truth,) = torch.autograd.grad(truth, x, g)
    assert_near(gradient, truth.cpu(), rounding(BAND))


def test_a_gap_is_refused_by_name_or_stays_in_its_signal(device):
    x = make_ecg(18, 12, 500, device=device)
    x[17, 3, 20:32] = torch.nan
    x[2, 1, 0] = torch.inf
    with pytest.raises(ValueError, match=r"1 of 500 .* record 2, lead 1.* \(2 rows in all\)"):
        sosfiltfilt(x, BAND)
    y = sosfiltfilt(x, BAND, on_gap="propagate")
    assert not y[17, 3].isfinite().any()
    assert not y[2, 1].isfinite().any()
    assert (~y.isfinite()).sum() == 1000
    causal = sosfilt(x, BAND)
    assert causal[17, 3, :20].isfinite().all()
    assert not causal[17, 3, 20:].isfinite().any()


def test_silence_and_constants(device):
    x = torch.zeros(2, 3, 4000, device=device)
    x[1] = 5.0
    x[0, 0, 5] = 1e-3  # rings out into subnormal numbers
    for sos in (BAND, LOW):
        error = (sosfiltfilt(x, sos).double().cpu() - scipys(x, sos)).abs().amax(dim=(1, 2))
        assert (error <= PEAK * x.abs().amax(dim=(1, 2)).cpu()).all()


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
        lambda x: x.unflatten(0, (3, 1)).transpose(0, 2),  # many axes
    ],
)
def test_takes_any_strides_and_axes(device, change):
    x = change(make_ecg(3, 40, 101, device=device, dtype=torch.float64)).requires_grad_()
    assert_near(sosfiltfilt(x, LOW), scipys(x, LOW), rounding(LOW))
    g = make_ecg(1, 1, x.shape[-1], device=device, dtype=torch.float64)[0, 0].expand(x.shape)
    (strided,) = torch.autograd.grad(sosfiltfilt(x, LOW), x, g)
    (dense,) = torch.autograd.grad(sosfiltfilt(x, LOW), x, g.contiguous())
    assert torch.equal(strided, dense)
    zi = torch.ones(*x.shape[:-1], 1, 2, device=device)
    truth, _ = sosfilt_reference(x.detach(), LOW, zi=zi)
    assert_near(sosfilt(x, LOW, zi=zi)[0], truth.cpu(), rounding(LOW))


def test_empty_batch(device):
    x = torch.zeros(0, 12, 500, device=device)
    assert sosfiltfilt(x, BAND).shape == x.shape
    y, zf = sosfilt(x, BAND, zi=torch.zeros(0, 12, 4, 2, device=device))
    assert (y.shape, zf.shape) == (x.shape, (0, 12, 4, 2))


def test_torch_knows_the_op(device):
    ops, table = torch.ops.ecgfast, torch.from_numpy(LOW)
    x = make_ecg(2, 3, 64, device=device)
    for signal in (x, x.transpose(1, 2).repeat(1, 1, 20), x.half()):
        torch.library.opcheck(ops.sosfiltfilt.default, (signal, table, "odd", None, "raise"))
    gaps = torch.zeros(2, 3, dtype=torch.int32, device=device)
    how = ("even", 4, "zero")
    torch.library.opcheck(ops.sosfiltfilt_backward.default, (x, x, gaps, table, *how))
    zi = torch.zeros(2, 3, 1, 2, dtype=torch.float64, device=device)
    torch.library.opcheck(ops.sosfilt.default, (x, table, zi))
    torch.library.opcheck(ops.sosfilt_backward.default, (x, table, zi))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def loss(x, zi):
        y, zf = sosfilt(sosfiltfilt(x * 2, table), table, zi=zi)
        return (y**3).mean() + zf.square().mean()

    table = torch.from_numpy(LOW)
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x = make_ecg(records, 3, 64, device=device).requires_grad_()
        zi = torch.ones(records, 3, 1, 2, device=device)
        eager, same = loss(x, zi), compiled(x, zi)
        torch.testing.assert_close(same, eager)
        torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (same, eager)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x = make_ecg(2, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = sosfiltfilt(x, BAND)
    assert torch.equal(inside, sosfiltfilt(x, BAND))


@pytest.mark.parametrize(
    ("shape", "sos", "how", "error", "message"),
    [
        ((), LOW, {}, ValueError, r"\(\.\.\., T\)"),
        ((2, 0), LOW, {}, ValueError, "T > 0"),
        ((2, 9), LOW, {}, ValueError, "more than padlen = 9 samples, got 9"),
        ((2, 50), LOW, {"padlen": 50}, ValueError, "more than padlen = 50 samples, got 50"),
        ((2, 50), LOW, {"padlen": -1}, ValueError, "padlen must be at least 0, got -1"),
        ((2, 50), LOW, {"padtype": "zero"}, ValueError, "padtype must be odd"),
        ((2, 50), LOW, {"on_gap": "drop"}, ValueError, "on_gap must be one of"),
        ((2, 50), LOW[:, :5], {}, ValueError, r"\(K, 6\)"),
        ((2, 50), LOW[:0], {}, ValueError, "K > 0"),
        ((2, 50), np.tile(LOW, (17, 1)), {}, ValueError, "16 sections at most, got 17"),
        ((2, 50), 2 * LOW, {}, ValueError, r"sos\[0, 3\], a0, must be 1, got 2"),
        ((2, 50), LOW * np.nan, {}, ValueError, r"sos\[0\] is not finite"),
        ((2, 50), [[1, 0, 0, 1, -2.5, 1]], {}, ValueError, r"sos\[0\] .*a pole of radius 2,"),
        ((2, 50), [[1, 0, 0, 1, 0, 1]], {}, ValueError, r"sos\[0\] .*a pole of radius 1,"),
        ((2, 50), [[1, 0, 0, 1, -2, 1]], {}, ValueError, "is not stable"),
    ],
)
def test_refuses(device, shape, sos, how, error, message):
    with pytest.raises(error, match=message):
        sosfiltfilt(torch.zeros(shape, device=device), sos, **how)


def test_refuses_what_has_no_gradient_or_no_float(device):
    x = torch.zeros(2, 50, device=device)
    with pytest.raises(TypeError, match="float dtype"):
        sosfiltfilt(x.to(torch.int16), LOW)
    with pytest.raises(ValueError, match="no gradient"):
        sosfiltfilt(x, torch.from_numpy(LOW).requires_grad_())
    with pytest.raises(ValueError, match=r"zi must be \(2, 1, 2\), got \(1, 2\)"):
        sosfilt(x, LOW, zi=torch.zeros(1, 2, device=device))
    with pytest.raises(TypeError, match="zi must be of a float dtype"):
        sosfilt(x, LOW, zi=torch.zeros(2, 1, 2, dtype=torch.int64, device=device))


def test_border_guards_memory():
    def view(tensor, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        codes = {torch.float32: 2, torch.float64: 3, torch.int32: 6}
        facts |= dict(dtype=codes[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    x, y = make_ecg(2, 3, 40), torch.empty(2, 3, 40)
    honest = {
        "x": x,
        "sos": torch.from_numpy(LOW),
        "y": y,
        "gaps": torch.empty(2, 3, dtype=torch.int32),
        "scratch": torch.empty(1, 58, 16),
    }
    for name, lie, message in [
        ("x", dict(stride=(120, 40, 2)), "dense"),
        ("y", dict(shape=(2, 3, 41)), "y must be"),
        ("y", dict(dtype=3), "dtype"),
        ("y", dict(device=0), "one device"),
        ("y", dict(data=0), "no memory"),
        ("gaps", dict(shape=(2, 4)), "gaps must be"),
        ("gaps", dict(dtype=2), "dtype"),
        ("scratch", dict(shape=(1, 37, 16), stride=(592, 16, 1)), "too few"),
        ("scratch", dict(shape=(1, 116, 8), stride=(928, 8, 1)), "threads, moments, 16"),
        ("sos", dict(shape=(1, 5), stride=(5, 1)), r"\(K, 6\)"),
        ("sos", dict(dtype=2), "dtype"),
        ("sos", dict(data=0), "no memory"),
    ]:
        views = [view(rows, **(lie if key == name else {})) for key, rows in honest.items()]
        with pytest.raises(ValueError, match=message):
            _C.sosfiltfilt_forward(*views, 1, 9, 0, (-1, 0, 1))
    views = [view(rows) for rows in honest.values()]
    for pad, edge, on_gap, threads, message in [
        (4, 9, 0, 1, "no Pad"),
        (0, 9, 0, 1, "no edge"),
        (1, 40, 0, 1, "edge must be"),
        (1, 9, 3, 1, "no OnGap"),
        (1, 9, 0, 2, "threads"),
    ]:
        with pytest.raises(ValueError, match=message):
            _C.sosfiltfilt_forward(*views, pad, edge, on_gap, (-1, 0, threads))
    unstable = torch.tensor([[1.0, 0, 0, 1, 0, 1]], dtype=torch.float64)
    with pytest.raises(ValueError, match="not stable"):
        _C.sosfiltfilt_forward(views[0], view(unstable), *views[2:], 1, 9, 0, (-1, 0, 1))
    zi = torch.zeros(2, 3, 1, 2)
    with pytest.raises(ValueError, match="zi has the wrong dtype"):
        _C.sosfilt_forward(*views[:2], view(zi), views[2], view(zi), views[4], (-1, 0, 1))


def test_real_records_match_scipy(device):
    from ecgfast.data.wfdb import read_wfdb

    folder = shared_data("ptb-xl-500", "records500")
    paths = sorted(folder.rglob("*.hea"))[: 40 if device.type == "cuda" else 8]
    x = torch.stack([torch.as_tensor(read_wfdb(path).signal) for path in paths]).float()
    for sos in (FILTERS["band and notch"], FILTERS["wide"], HIGH):
        assert_near(sosfiltfilt(x.to(device), sos), scipys(x, sos))


def test_matches_what_scipy_said(device):
    frozen = json.loads((Path(__file__).parent / "golden/sosfiltfilt.json").read_text())
    x = torch.tensor(frozen["x"], dtype=torch.float64, device=device)
    for case in frozen["cases"]:
        y = sosfiltfilt(x, case["sos"], padtype=case["padtype"], padlen=case["padlen"])
        assert_near(y, torch.tensor(case["y"], dtype=torch.float64), rounding(case["sos"]))
