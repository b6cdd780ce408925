"""What must hold of augment for any spec, any signals and any ids."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops._augment import augment_reference
from ecgfast.ops.augment import AugmentSpec, augment
from ecgfast.testing import make_ecg

chance = st.floats(0, 1)
level = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)).map(lambda pair: tuple(sorted(pair)))
factor = st.tuples(st.floats(0.25, 4), st.floats(0.25, 4)).map(lambda pair: tuple(sorted(pair)))
count = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: tuple(sorted(pair)))
length = st.tuples(st.floats(0.01, 0.1), st.floats(0.01, 0.1)).map(lambda p: tuple(sorted(p)))
specs = st.builds(
    AugmentSpec,
    fs=st.sampled_from((100.0, 250.0, 257.0)),
    warp_strength=st.floats(0, 0.99),
    warp_knots=st.integers(1, 20),
    shift_s=st.floats(0, 0.2),
    crop_s=st.none() | st.floats(0.12, 0.2),
    gain=factor,
    lead_gain=factor,
    flip_p=chance,
    wander_mv=level,
    wander_sines=st.integers(1, 5),
    mains_mv=level,
    mains_hz=st.floats(1, 49),
    noise_mv=level,
    emg_mv=level,
    emg_bursts=count,
    emg_s=length,
    mask_count=count,
    mask_s=length,
    lead_subset_p=chance,
    lead_subset_sizes=st.just((1, 2)),
    lead_subset_probs=st.sampled_from(((0.5, 0.5), (0.0, 1.0), (1.0, 0.0))),
    lead_dropout_p=chance,
)
signals = st.builds(
    make_ecg,
    st.integers(1, 3),
    st.integers(2, 5),
    st.integers(52, 300),
    seed=st.integers(0, 1000),
)
numbers = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60, deadline=None)
@given(signals, specs, numbers, numbers)
def test_is_its_reference(x, spec, seed, first):
    ids = torch.full((len(x),), first)
    truth = augment_reference(x.double(), spec, seed, record_ids=ids)
    y = augment(x, spec, seed, record_ids=ids)
    peak = 2 * spec.gain[1] * spec.lead_gain[1] + spec.mains_mv[1] + spec.wander_mv[1]
    peak += 6 * (spec.noise_mv[1] + spec.emg_mv[1])
    assert (y.double() - truth).abs().max() <= 4 * 2.0**-24 * peak


@settings(max_examples=60, deadline=None)
@given(signals, specs, numbers, st.lists(numbers, min_size=3, max_size=3))
def test_a_batch_is_its_records(x, spec, seed, ids):
    ids = torch.tensor(ids[: len(x)])
    together = augment(x, spec, seed, record_ids=ids)
    for n in range(len(x)):
        alone = augment(x[n : n + 1], spec, seed, record_ids=ids[n : n + 1])
        assert torch.equal(alone[0], together[n])


@settings(max_examples=60, deadline=None)
@given(signals, specs, numbers)
def test_a_lead_always_stays_and_all_is_finite(x, spec, seed):
    y = augment(torch.ones_like(x), spec, seed)
    assert y.isfinite().all()
    bare = AugmentSpec(
        lead_dropout_p=spec.lead_dropout_p,
        lead_subset_p=spec.lead_subset_p,
        lead_subset_sizes=spec.lead_subset_sizes,
        lead_subset_probs=spec.lead_subset_probs,
    )
    kept = (augment(torch.ones_like(x), bare, seed) != 0).any(dim=-1)
    assert kept.any(dim=-1).all()
    assert not y[~kept].any()
