"""What must hold of preprocess for any steps, signals and gaps."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from ecgfast.ops.preprocess import (
    Crop,
    Filter,
    Normalise,
    Resample,
    preprocess,
    preprocess_reference,
)

MISSING = -32768


@st.composite
def designs(draw):
    kind = draw(st.sampled_from(["lowpass", "highpass", "bandpass", "notch"]))
    low = draw(st.floats(0.002, 0.4))
    if kind == "notch":
        return signal.tf2sos(*signal.iirnotch(2 * low, draw(st.floats(5, 40))))
    order = draw(st.integers(1, 4))
    edge = (2 * low, min(2 * low * draw(st.floats(2, 50)), 0.95))
    return signal.butter(order, edge if kind == "bandpass" else edge[0], kind, output="sos")


lines = st.sampled_from(["odd", "even", "constant", None])
steps_known = st.one_of(
    st.builds(
        Resample,
        st.integers(1, 12),
        st.integers(1, 12),
        mode=st.sampled_from(["polyphase", "linear"]),
        padtype=st.sampled_from(["constant", "line"]),
    ),
    st.builds(Filter, designs(), lines),
    st.builds(Filter, designs(), lines, st.integers(0, 40)),
    st.builds(
        Normalise,
        st.sampled_from(["zscore", "min_max", "rms"]),
        st.sampled_from(["lead", "record"]),
        eps=st.sampled_from([1e-6, 1e-3]),
        eps_inside=st.booleans(),
    ),
    st.builds(Crop, st.integers(0, 60), st.integers(1, 300)),
)


@st.composite
def problems(draw):
    """Any strides of int16 or float with gaps, and as many of the steps as they are long enough."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 20)), draw(st.integers(1, 400))
    rows = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = torch.from_numpy(rows.normal(0, 500, shape).round().astype(np.int16))
    gaps = torch.from_numpy(rows.random(shape) < draw(st.sampled_from([0.0, 0.01, 0.5])))
    x = x.masked_fill(gaps, MISSING)
    missing = draw(st.sampled_from([None, MISSING]))
    if missing is None:
        x = x.to(draw(st.sampled_from([torch.float32, torch.float64]))).masked_fill(gaps, torch.nan)
    if draw(st.booleans()):
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    chosen, samples = [], shape[2]
    for step in draw(st.lists(steps_known, max_size=5)):
        try:
            made = step.samples(samples)
        except ValueError:
            continue
        if made <= 5000:
            chosen.append(step)
            samples = made
    gain = 0.001 * rows.uniform(0.5, 2, shape[: draw(st.integers(0, 2))])
    return x, tuple(chosen), missing, gain


def largest(values):
    return float(np.abs(np.nan_to_num(values)).max())


def expect_near(got, x, steps, options, part):
    """Within a part of the peak of each step, times what the normalisations after it multiply by.

    The sd of a lead that a filter has left little of is small, and makes much of what rounding did.
    """
    quiet = options | {"restore": False, "dtype": torch.float64}
    before = preprocess_reference(x, (), **quiet).numpy()
    allowed = part * largest(before)
    for count, step in enumerate(steps, start=1):
        after = preprocess_reference(x, steps[:count], **quiet).numpy()
        if isinstance(step, Normalise):
            allowed *= 1 / divisor(step, before).min() if largest(after) > 0 else 0
        allowed += part * largest(after)
        before = after
    truth = preprocess_reference(x, steps, **(options | {"dtype": torch.float64}))
    assert got.shape == truth.shape
    assert torch.equal(got.isnan(), truth.isnan())
    error = largest((got.double() - truth).numpy())
    assert error <= allowed, f"error {error:.2e} over {allowed:.2e}"


def divisor(step, y):
    over = (1, 2) if step.scope == "record" else 2
    if step.kind == "min_max":
        return np.ptp(y, axis=over) + step.eps
    square = np.square(y - (y.mean(over, keepdims=True) if step.kind == "zscore" else 0)).mean(over)
    return np.sqrt(square + step.eps) if step.eps_inside else np.sqrt(square) + step.eps


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(["zero", "interpolate"]), st.booleans())
def test_equals_scipy_and_numpy(problem, on_gap, restore):
    x, steps, missing, gain = problem
    options = {"gain": gain, "missing": missing, "on_gap": on_gap, "restore": restore}
    wide = preprocess(x, steps, **options, dtype=torch.float64)
    expect_near(wide, x, steps, options, 1e-12)
    expect_near(preprocess(x, steps, **options), x, steps, options, 1e-6)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["zero", "interpolate"]))
def test_a_batch_is_its_records(problem, on_gap):
    x, steps, missing, gain = problem
    gain = np.broadcast_to(gain.reshape(gain.shape + (1,) * (2 - gain.ndim)), x.shape[:2])
    options = {"missing": missing, "on_gap": on_gap}
    together = preprocess(x, steps, gain=gain.copy(), **options)
    for number, record in enumerate(together):
        alone = preprocess(
            x[number : number + 1], steps, gain=gain[number : number + 1].copy(), **options
        )
        assert torch.equal(record, alone[0])


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([0.25, 8.0]))
def test_without_normalisation_a_power_of_two_passes_through(problem, scale):
    x, steps, missing, gain = problem
    linear = tuple(step for step in steps if isinstance(step, Filter) and step.padlen < x.shape[2])
    options = {"missing": missing, "on_gap": "interpolate"}
    once = preprocess(x, linear, gain=gain, **options)
    scaled = preprocess(x, linear, gain=gain * scale, **options)
    torch.testing.assert_close(
        scaled, once * scale, rtol=0, atol=1e-30
    )  # what underflows beside it
