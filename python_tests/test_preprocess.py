"""preprocess against scipy and numpy in float64: every step, gaps, edges, torch integration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from ecgfast import _C
from ecgfast.ops.preprocess import (
    Crop,
    Filter,
    Normalise,
    Resample,
    preprocess,
    preprocess_reference,
)
from ecgfast.testing import make_ecg
from python_tests.conftest import shared_data

BAND = signal.butter(4, [0.5, 40], "band", fs=250, output="sos")
NOTCH = signal.tf2sos(*signal.iirnotch(50, 30, fs=250))
HIGH_PASS = signal.butter(5, 0.5, "high", fs=500, output="sos")  # odd: a section of one pole
DEFAULT = (Resample(1, 2), Filter(BAND), Filter(NOTCH), Normalise("zscore"))
MISSING = -32768
CHAINS = {
    "nothing": (),
    "halve": (Resample(1, 2),),
    "257 to 250 Hz": (Resample(250, 257, padtype="line"),),
    "double": (Resample(2, 1, window=signal.firwin(41, 0.5)),),
    "linear": (Resample(5, 8, mode="linear"),),
    "linear up": (Resample(5, 3, mode="linear"), Crop(3, 200)),
    "odd": (Filter(HIGH_PASS),),
    "even": (Filter(BAND, "even"),),
    "constant": (Filter(NOTCH, "constant", 5),),
    "no padding": (Filter(BAND, None),),
    "crop": (Crop(7, 200), Crop(10, 150), Filter(BAND), Crop(40, 100)),
    "crop of a resampling": (Resample(2, 3), Crop(33, 100)),
    "zscore": (Normalise("zscore"),),
    "zscore, eps outside": (Normalise("zscore", eps=0.1, eps_inside=False),),
    "zscore of a record": (
        Resample(1, 2),
        Filter(NOTCH),
        Normalise("zscore", "record"),
        Crop(3, 90),
    ),
    "min-max": (Normalise("min_max", low=-1.0, high=2.0, eps=0.0),),
    "min-max of a record": (Normalise("min_max", "record"), Filter(NOTCH)),
    "rms": (Normalise("rms", eps=1e-3, eps_inside=False),),
    "rms of a record": (Normalise("rms", "record"), Resample(1, 2), Normalise("rms", "record")),
    "fixed": (Normalise("fixed", mean=0.1, std=0.2),),
    "fixed by lead": (Normalise("fixed", mean=np.arange(12) / 10, std=np.arange(12) + 1.0),),
    "default": DEFAULT,
    "all": (Crop(1, 590), *DEFAULT, Normalise("min_max", "record"), Resample(5, 4), Crop(4, 128)),
}


def expect_near(got, steps, x, *, within=1e-6, **options):
    """Within the issue's figure of the truth in float64, over its peak."""
    truth = preprocess_reference(x, steps, **options, dtype=torch.float64)
    assert got.shape == truth.shape
    error = (got.double() - truth).abs().nan_to_num(nan=0.0).max()
    assert torch.equal(got.isnan(), truth.isnan())
    assert error <= within * truth.nan_to_num(nan=0.0).abs().max(), f"error {error:.2e}"


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, name):
    x = make_ecg(2, 12, 601, device=device, dtype=dtype)  # a beat of 417, and a half
    within = 1e-6 if dtype == torch.float32 else 1e-9
    expect_near(preprocess(x, CHAINS[name], dtype=dtype), CHAINS[name], x, within=within)


# one sample; as short as the filter takes; one lane more than a group; a tile and more than one
@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((1, 1, 1), (Resample(3, 2), Normalise("zscore"))),
        ((3, 1, 28), (Filter(BAND[:1], padlen=27),)),
        ((17, 1, 600), DEFAULT),
        ((1, 2, 5000), DEFAULT),
        ((1, 2, 5200), (Filter(HIGH_PASS), Normalise("zscore", "record"))),
        ((1, 1, 11000), (Filter(BAND), Filter(NOTCH, None))),
    ],
    ids=lambda value: str(value) if isinstance(value[0], int) else len(value),
)
def test_any_shape_matches_reference(device, shape, steps):
    x = make_ecg(*shape, device=device)
    expect_near(preprocess(x, steps), steps, x)


@pytest.mark.parametrize("per", [(), (3,), (3, 4)], ids=str)
def test_codes_become_millivolts(device, per):
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.integers(-20000, 20000, (3, 4, 500), dtype=np.int16)).to(device)
    gain, offset = draw.uniform(1e-4, 1e-2, per), draw.uniform(-20, 20, per)
    for steps in ((), DEFAULT):
        got = preprocess(x, steps, gain=gain, offset=offset)
        expect_near(got, steps, x, gain=gain, offset=offset)


def test_codes_of_a_large_baseline_keep_their_digits(device):
    x = (make_ecg(2, 3, 400, device=device) * 200 + 16384).to(torch.int16)
    options = {"gain": 0.005, "offset": -16384 * 0.005}
    expect_near(preprocess(x, (), **options), (), x, within=2e-7, **options)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8)], ids=str)
def test_in_half(device, dtype, digits):
    x = make_ecg(3, 8, 501, device=device)
    got = preprocess(x, DEFAULT, dtype=dtype)
    assert got.dtype == dtype
    assert torch.equal(got, preprocess(x, DEFAULT).to(dtype))
    expect_near(preprocess(x.to(dtype), DEFAULT), DEFAULT, x.to(dtype))
    expect_near(got, DEFAULT, x, within=2.0**-digits + 1e-6)
    assert preprocess(x.double(), DEFAULT, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["default", "all", "257 to 250 Hz", "linear", "no padding"])
def test_every_instruction_set_matches_reference(isa, name, dtype):
    x = (make_ecg(9, 12, 601) * 500).to(torch.int16)
    x[3, 4, 100:150] = MISSING
    options = {"gain": 0.002, "missing": MISSING, "on_gap": "interpolate", "restore": True}
    got = preprocess(x, CHAINS[name], **options, dtype=dtype)
    within = {torch.float32: 1e-6, torch.float64: 1e-9, torch.bfloat16: 2.0**-8}[dtype]
    expect_near(got, CHAINS[name], x, within=within, **options)


def holed(device, code=None):
    """Gaps at the start, within, at the end, all over, and none; of codes or of floats."""
    x = make_ecg(2, 3, 600, device=device)
    if code is not None:
        x = (x * 1000).to(torch.int16)
    gap = torch.nan if code is None else code
    x[0, 0, :70] = gap
    x[0, 1, 333:335] = gap
    x[0, 1, 10] = gap if code is not None else torch.inf
    x[0, 2, -1] = gap
    x[1, 0] = gap
    x[1, 1, 1::2] = gap
    return x


@pytest.mark.parametrize("code", [None, MISSING, 7], ids=str)
@pytest.mark.parametrize("on_gap", ["zero", "interpolate"])
@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("steps", [(), DEFAULT, CHAINS["zscore of a record"]], ids=len)
def test_gaps_are_filled_and_marked(device, code, on_gap, restore, steps):
    x = holed(device, code)
    options = {"missing": code, "on_gap": on_gap, "restore": restore, "gain": 0.5, "offset": 0.1}
    got = preprocess(x, steps, **options)
    assert restore or got.isfinite().all()
    expect_near(got, steps, x, **options)


@pytest.mark.parametrize("code", [None, MISSING], ids=str)
def test_a_gap_is_refused_by_name(device, code):
    x = holed(device, code)
    with pytest.raises(ValueError, match=r"70 of 600 samples missing.*record 0, lead 0.*5 rows"):
        preprocess(x, DEFAULT, missing=code)
    if code is not None:  # as a number it is one
        assert preprocess(x, DEFAULT).isfinite().all()


@pytest.mark.parametrize("scope", ["lead", "record"])
@pytest.mark.parametrize("kind", ["zscore", "min_max", "rms"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_what_comes_in_flat_goes_out_zero(device, scope, kind, eps):
    x = make_ecg(3, 4, 600, device=device)
    x[0, 1] = 0.3
    x[1] = 0.1
    steps = (Filter(HIGH_PASS), Normalise(kind, scope, eps=eps))
    got = preprocess(x, steps)
    assert got.isfinite().all()
    assert not got[1].any()
    assert scope == "record" or not got[0, 1].any()
    expect_near(got, steps, x)


@pytest.mark.parametrize("kind", ["zscore", "min_max", "rms"])
def test_a_lead_that_is_not_there_does_not_show_in_the_numbers_of_its_record(device, kind):
    x = make_ecg(2, 5, 600, device=device)
    x[0, 3] = torch.nan
    steps = (Filter(NOTCH), Normalise(kind, "record"))
    got = preprocess(x, steps, on_gap="interpolate", restore=True)
    assert got[0, 3].isnan().all()
    others = [0, 1, 2, 4]
    alone = preprocess(x[:1, others], steps)
    torch.testing.assert_close(got[:1, others], alone, rtol=1e-6, atol=1e-6)
    x[1] = torch.nan
    nothing = preprocess(x[1:], steps, on_gap="interpolate")
    assert not nothing.any()


def test_an_offset_of_300_mv_costs_no_more_than_its_own_rounding(device):
    x = make_ecg(2, 3, 2000, device=device) + 300.0
    truth = preprocess_reference(x, (Filter(HIGH_PASS),), dtype=torch.float64)
    error = (preprocess(x, (Filter(HIGH_PASS),)).double() - truth).abs().max()
    assert error <= 1e-6 * x.max()  # the figure, of the peak that the filter is given


@pytest.mark.parametrize("name", ["default", "all"])
def test_records_do_not_mix(device, name):
    x = make_ecg(6, 5, 600, device=device)
    x[3, 2, 5:9] = torch.nan
    options = {"on_gap": "interpolate", "gain": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    steps = CHAINS[name]
    for number, record in enumerate(preprocess(x, steps, **options)):
        alone = preprocess(x[number][None], steps, on_gap="interpolate", gain=number + 1.0)
        torch.testing.assert_close(record, alone[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["default", "all"])
def test_thread_count_does_not_show(name):
    x = make_ecg(33, 12, 600)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = preprocess(x, CHAINS[name])
    torch.set_num_threads(5)
    together = preprocess(x, CHAINS[name])
    torch.set_num_threads(before)
    torch.testing.assert_close(alone, together, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 3:-1],  # a crop
        lambda x: x[:, ::3],  # some leads
        lambda x: x[:, :, ::2],  # a decimation
        lambda x: x.transpose(1, 2),  # samples first
        lambda x: x[:1].expand(4, -1, -1),  # one record, many times
    ],
)
def test_takes_any_strides(device, change):
    x = change(make_ecg(3, 90, 101, device=device))
    steps = (Filter(NOTCH), Normalise("zscore", "record"))
    torch.testing.assert_close(
        preprocess(x, steps), preprocess(x.contiguous(), steps), rtol=0, atol=0
    )


def test_empty_batch(device):
    assert preprocess(torch.zeros(0, 12, 500, device=device), DEFAULT).shape == (0, 12, 250)
    none = torch.zeros(0, 12, 600, dtype=torch.int16, device=device)
    assert preprocess(none, CHAINS["all"], gain=torch.ones(0, 12)).shape == (0, 12, 128)


def test_torch_knows_the_op(device):
    x = make_ecg(2, 3, 64, device=device)
    text = "[" + ", ".join(s.text for s in (Resample(1, 2), Normalise("zscore", "record"))) + "]"
    gain = torch.ones(2, 1, dtype=torch.float64).expand(2, 3)
    op = torch.ops.ecgfast.preprocess.default
    for signals in (x, x.half(), (x * 100).to(torch.int16), x[:, :, ::2]):
        for dtype in (torch.float32, torch.bfloat16):
            torch.library.opcheck(op, (signals, gain, None, text, None, "zero", False, dtype))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def prepared(x):
        return preprocess(x * 2, CHAINS["all"], gain=0.5, on_gap="zero") + 1

    compiled = torch.compile(prepared, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for records in (2, 5):
        x = make_ecg(records, 3, 600, device=device)
        torch.testing.assert_close(compiled(x), prepared(x), rtol=0, atol=0)


def test_autocast_leaves_it_alone(device):
    x = make_ecg(2, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = preprocess(x, DEFAULT)
    torch.testing.assert_close(inside, preprocess(x, DEFAULT), rtol=0, atol=0)


def test_refuses_a_gradient(device):
    x = make_ecg(1, 2, 400, device=device).requires_grad_()
    with pytest.raises(ValueError, match=r"x\.detach\(\)"):
        preprocess(x, DEFAULT)
    with torch.no_grad():
        assert not preprocess(x, DEFAULT).requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resample(0, 1), "up must be a whole number"),
        (lambda: Resample(1, 2.5), "down must be a whole number"),
        (lambda: Resample(500_000, 360_001), "500000 / 360001, .* has a term over"),
        (lambda: Resample(1, 2, mode="cubic"), "mode must be one of polyphase, linear"),
        (lambda: Resample(1, 2, window="hann"), "window must be"),
        (lambda: Resample(1, 2, window=np.ones((2, 2))), "window must be finite taps"),
        (lambda: Resample(1, 2, padtype="mean"), "padtype must be one of constant, line"),
        (lambda: Filter(BAND[:, :5]), r"sos must be \(K, 6\)"),
        (lambda: Filter(BAND * 2), "a0 = 1"),
        (lambda: Filter(BAND * np.nan), "sos must be finite"),
        (
            lambda: Filter([[1, 0, 0, 1, -2.1, 1.2]]),
            r"unstable: section 0 has a pole at radius 1\.",
        ),
        (lambda: Filter([[1, 0, 0, 1, -1, 0]]), "unstable"),
        (lambda: Filter(BAND, "reflect"), "padtype must be one of None, odd"),
        (lambda: Filter(BAND, padlen=-1), "padlen must be a whole number"),
        (lambda: Normalise("l2"), "kind must be one of zscore"),
        (lambda: Normalise("rms", "batch"), "scope must be one of lead, record"),
        (lambda: Normalise(eps=-1), "eps must be at least 0"),
        (lambda: Normalise("min_max", low=1), "low must be under high"),
        (lambda: Normalise("fixed", mean=0), "fixed needs mean and std"),
        (lambda: Normalise("fixed", mean=0, std=[1, 0]), "std must be positive"),
        (lambda: Normalise("zscore", std=1), "of kind 'fixed'"),
        (lambda: Crop(-1, 5), "start must be a whole number of at least 0"),
        (lambda: Crop(0, 0), "length must be a whole number of at least 1"),
    ],
)
def test_steps_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


X = torch.zeros(2, 3, 40)


@pytest.mark.parametrize(
    ("x", "steps", "options", "error", "message"),
    [
        (X[0], (), {}, ValueError, r"\(N, L, T\)"),
        (X[:, :, :0], (), {}, ValueError, "no samples"),
        (X.int(), (), {}, TypeError, "int16 or of a float"),
        (X, (), {"dtype": torch.int16}, TypeError, "dtype must be float16"),
        (X, (), {"missing": 3}, ValueError, "mark gaps by NaN"),
        (X, (), {"on_gap": "hold"}, ValueError, "on_gap must be one of"),
        (X, ("zscore",), {}, TypeError, r"steps\[0\] must be one of Resample"),
        (X, (Crop(0, 30),) * 13, {}, ValueError, "12 at most"),
        (X, (Filter(np.tile(BAND, (4, 1)), padlen=1),) * 3, {}, ValueError, "48 sections"),
        (X, (Crop(0, 27), Filter(BAND)), {}, ValueError, r"steps\[1\]: Filter pads 27 .* gets 27"),
        (X, (Resample(1, 2), Crop(15, 6)), {}, ValueError, "samples 15 to 20, and gets 20"),
        (X, (Crop(0, 1), Resample(1, 2, padtype="line")), {}, ValueError, "needs two samples"),
        (X, (Normalise("fixed", mean=[1, 2], std=1),), {}, ValueError, "2 numbers for 3 leads"),
        (X, (), {"gain": [1.0, 2.0, 3.0]}, ValueError, r"\(N,\) = \(2,\).*got \(3,\)"),
        (X, (), {"gain": [1.0, 0.0]}, ValueError, "not 0, got 0.0 in record 1, lead 0 .1 records"),
        (
            X,
            (),
            {"offset": [torch.inf, 1.0]},
            ValueError,
            "offset must be finite, got inf in record 0",
        ),
    ],
)
def test_refuses(device, x, steps, options, error, message):
    with pytest.raises(error, match=message):
        preprocess(x.to(device), steps, **options)


def test_border_guards_memory():
    def view(tensor, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=codes[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    codes = {torch.float32: 2, torch.float64: 3, torch.int16: 5, torch.int32: 6, torch.int64: 7}
    x, y, one = make_ecg(2, 3, 40), torch.empty(2, 3, 20), torch.ones(2, 3, dtype=torch.float64)
    plan = torch.tensor([[0, 1, 2, 1, 0, 0, 3, 0], [1, 1, 1, 9, 0, 0, 0, 0]])
    numbers, taps, levels = torch.tensor([1.0, 0, 0, 1, 0, 0]).double(), torch.ones(3), one[0, :0]
    gaps = torch.empty(2, 3, dtype=torch.int32)
    facts = (plan, numbers, taps, levels)
    size = _C.preprocess_scratch(view(x), *map(view, facts), view(y), (-1, 0, 1))
    tensors = dict(x=x, gain=one, offset=one, plan=plan, numbers=numbers, taps=taps)
    tensors |= dict(levels=levels, y=y, gaps=gaps, scratch=torch.empty(size))

    def call(**lies):
        views = [view(tensor, **lies.get(name, {})) for name, tensor in tensors.items()]
        _C.preprocess(*views, None, 1, False, (-1, 0, 1))

    call()
    for lies, message in [
        (dict(y=dict(shape=(2, 3, 21))), "y must be"),
        (dict(y=dict(dtype=6)), "dtype"),
        (dict(x=dict(stride=(120, 40, 2))), "dense"),
        (dict(x=dict(dtype=6)), "dtype"),
        (dict(gain=dict(shape=(3, 3))), "gain or offset must be"),
        (dict(gaps=dict(dtype=2)), "gaps has the wrong dtype"),
        (dict(taps=dict(shape=(2,))), "taps has fewer"),
        (dict(numbers=dict(shape=(5,))), "numbers has fewer"),
        (dict(scratch=dict(shape=(1, size[1] - 1))), "scratch must be"),
        (dict(y=dict(device=0)), "one device"),
        (dict(gaps=dict(data=0)), "no memory"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**lies)
    for row, column, value, message in [
        (0, 1, 0, "up and down"),
        (0, 0, 9, "unknown step"),
        (0, 3, -1, "centre"),
        (0, 4, 3, "unknown ends"),
        (1, 3, 20, "pads by more"),
        (1, 1, 17, "too many sections"),
        (1, 2, 4, "unknown padding"),
        (1, 4, -1, "numbers has fewer"),
    ]:
        before = plan[row, column].item()
        plan[row, column] = value
        with pytest.raises(ValueError, match=message):
            call()
        plan[row, column] = before
    call()


@pytest.mark.parametrize("step", [DEFAULT, DEFAULT[:-1], CHAINS["zscore of a record"][:-1]])
def test_real_records_match_scipy(device, step):
    wfdb = pytest.importorskip("wfdb")
    folder = shared_data("ptb-xl-500")
    names = (folder / "RECORDS500").read_text().split()[: 40 if device.type == "cuda" else 8]
    codes, gains = [], []
    for name in names:
        record = wfdb.rdrecord(str(folder / name), physical=False)
        codes.append(record.d_signal.T)
        gains.append(1 / np.array(record.adc_gain))
    x = torch.from_numpy(np.stack(codes).astype(np.int16)).to(device)
    gain = torch.from_numpy(np.stack(gains))
    if not x.is_cuda and _C.preprocess.__module__ != "ecgfast._C":
        x, gain = x[:2, :3], gain[:2, :3]  # the emulator takes its time
    expect_near(preprocess(x, step, gain=gain), step, x, gain=gain)


def test_a_moment_halfway_between_two_samples_belongs_to_the_later(device):
    """5/6 of a sample, nine times, is 7.5: sample 8 is the nearest, and it is missing."""
    ecg = torch.randn(1, 1, 17, dtype=torch.float64, device=device)
    ecg[0, 0, 8] = torch.nan
    steps = (Resample(12, 10), Crop(5, 5), Resample(1, 1))
    for ops in (preprocess, preprocess_reference):
        made = ops(ecg, steps, on_gap="zero", restore=True, dtype=torch.float64)
        assert made.isnan().tolist() == [[[False, False, False, False, True]]]
