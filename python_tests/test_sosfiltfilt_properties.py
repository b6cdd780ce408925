"""What must hold of sosfiltfilt and sosfilt for any filter, length, padding and strides."""

from __future__ import annotations

import sys

import numpy as np
import scipy.signal as sg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecgfast.ops._sections import edge_of
from ecgfast.ops.sosfiltfilt import sosfilt, sosfiltfilt
from ecgfast.testing import make_ecg
from python_tests.test_sosfiltfilt import rounding, scipys

module = sys.modules[sosfiltfilt.__module__]
FS = 500


def _cutoffs(kind: str, low: float, wide: float):
    return [low, min(low * wide, 0.48 * FS)] if kind.startswith("band") else low


@st.composite
def sections(draw):
    """Any design of orders 1 to 8, or any stable sections."""
    family = draw(st.sampled_from(["butter", "cheby1", "cheby2", "ellip", "notch", "poles"]))
    order = draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["lowpass", "highpass", "bandpass", "bandstop"]))
    cut = _cutoffs(kind, draw(st.floats(0.3, 100)), draw(st.floats(1.8, 200)))
    if family == "butter":
        return sg.butter(order, cut, kind, fs=FS, output="sos")
    if family == "cheby1":
        return sg.cheby1(order, draw(st.floats(0.1, 3)), cut, kind, fs=FS, output="sos")
    if family == "cheby2":
        return sg.cheby2(order, draw(st.floats(20, 60)), cut, kind, fs=FS, output="sos")
    if family == "ellip":
        return sg.ellip(order, 0.5, draw(st.floats(20, 60)), cut, kind, fs=FS, output="sos")
    if family == "notch":
        return np.r_[sg.iirnotch(draw(st.floats(1, 240)), draw(st.floats(1, 60)), fs=FS)][None]
    rows = []
    for _ in range(order):
        a2 = draw(st.floats(-0.95, 0.95))
        a1 = draw(st.floats(-0.95, 0.95)) * (1 + a2)
        b = [draw(st.floats(-2, 2)) for _ in range(3)]
        rows.append([*b, 1, a1, a2])
    return np.array(rows)


pads = st.sampled_from(["odd", "even", "constant", None])
lengths = st.integers(1, 400)


def _exactly(x, sos, padtype, edge):
    """Scipy's sosfilt in long double, with states and edges of as many digits."""
    signal = module._extended_reference(x, padtype, edge).numpy().astype(np.longdouble)
    rows, level, states = np.asarray(sos).astype(np.longdouble), np.longdouble(1), []
    for b0, b1, b2, _, a1, a2 in rows:
        gain = (b0 + b1 + b2) / (1 + a1 + a2)
        second = b2 - a2 * gain
        states.append([level * (b1 - a1 * gain + second), level * second])
        level *= gain
    zi = np.array(states)[:, None]  # (K, signals, 2) with the first sample
    for _ in range(2):
        signal = sg.sosfilt(rows, signal, zi=zi * signal[..., :1])[0][..., ::-1]
    return signal[..., edge : signal.shape[-1] - edge]


def _allowed(x, sos, truth, scipys) -> float:
    """32 times what scipy's float64 loses, but no less than a section's rounding of its levels."""
    signal, level = x.numpy(), 0.0
    for row in np.asarray(sos):
        signal = sg.sosfilt(row[None], signal)
        level = max(level, np.abs(signal).max())
    lost = np.abs(scipys.numpy() - truth).max()
    return 32 * max(float(lost), 64 * np.finfo(float).eps * max(level, float(np.abs(truth).max())))


@settings(deadline=None, max_examples=150)
@given(sections(), lengths, pads, st.integers(0, 60) | st.none(), st.integers(0, 99))
def test_is_scipys(sos, samples, padtype, padlen, seed):
    edge = edge_of(torch.from_numpy(sos), padtype, padlen)
    x = make_ecg(1, 2, samples, dtype=torch.float64, seed=seed)
    if samples <= edge:
        for function in (
            lambda: sosfiltfilt(x, sos, padtype=padtype, padlen=padlen),
            lambda: scipys(x, sos, padtype=padtype, padlen=padlen),
        ):
            try:
                function()
            except ValueError as error:
                assert "padlen" in str(error)  # noqa: PT017
            else:
                raise AssertionError("took a signal that its edges reach beyond")
        return
    theirs = scipys(x, sos, padtype=padtype, padlen=padlen)
    assume(theirs.isfinite().all())
    truth = _exactly(x[0], sos, padtype, edge)[None]
    y = sosfiltfilt(x, sos, padtype=padtype, padlen=padlen)
    assert np.abs(y.numpy() - truth).max() <= _allowed(x, sos, truth, theirs)


@settings(deadline=None, max_examples=60)
@given(sections(), st.integers(200, 400), pads, st.integers(0, 99))
def test_transpose(sos, samples, padtype, seed):
    x = make_ecg(1, 1, samples, dtype=torch.float64, seed=seed).requires_grad_()
    g = make_ecg(1, 1, samples, dtype=torch.float64, seed=seed + 1)
    y = sosfiltfilt(x, sos, padtype=padtype)
    (back,) = torch.autograd.grad(y, x, g)
    there, again = (y.detach() * g).sum(), (x.detach() * back).sum()
    size = y.detach().norm() * g.norm() + x.detach().norm() * back.norm()
    # Where a pole nearly rings or a level is a sum that cancels, the sums of the edges feel it.
    ringing = min(1 - np.abs(np.roots(row[3:])).max(initial=0) for row in np.asarray(sos))
    assert (there - again).abs() <= max(1e-12, rounding(sos) * len(sos) / ringing) * size


@settings(deadline=None, max_examples=40)
@given(sections(), st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(1, 40))
def test_chunks_are_the_whole(sos, chunks, signals):
    x = make_ecg(signals, 1, sum(chunks))
    state = torch.zeros(signals, 1, len(sos), 2, dtype=torch.float64)
    whole, end = sosfilt(x, sos, zi=state)
    parts = []
    for chunk in x.split(chunks, dim=-1):
        y, state = sosfilt(chunk, sos, zi=state)
        parts.append(y)
    assert torch.equal(torch.cat(parts, dim=-1), whole)
    assert torch.equal(state, end)


@settings(deadline=None, max_examples=40)
@given(sections(), st.integers(1, 40), st.integers(1, 3), st.integers(0, 3))
def test_signals_do_not_mix_whatever_the_strides(sos, signals, step, offset):
    x = make_ecg(2, signals, 700)[:, :, offset::step].flip(0).transpose(0, 1)
    y = sosfiltfilt(x, sos)
    for one, row in zip(y.flatten(0, 1), x.flatten(0, 1), strict=True):
        assert torch.equal(sosfiltfilt(row.clone(), sos), one)


@settings(deadline=None, max_examples=40)
@given(sections(), st.integers(-20, 20))
def test_a_power_of_two_scales_exactly(sos, power):
    x = make_ecg(1, 2, 300, dtype=torch.float64)
    scaled = sosfiltfilt(x * 2.0**power, sos)
    assert torch.equal(scaled, sosfiltfilt(x, sos) * 2.0**power)
