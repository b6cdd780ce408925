"""augment against its reference: values on the same draws, edges, torch integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ecgfast import _C
from ecgfast.ops._augment import augment_reference
from ecgfast.ops._philox import philox_reference
from ecgfast.ops.augment import MAX_COUNT, AugmentSpec, augment
from ecgfast.testing import make_ecg

SEED = 2**40 + 5  # fills both words of the key
STEPS = {  # each step alone, from the first to the last
    "warp": dict(warp_strength=0.4, warp_knots=5),
    "shift": dict(shift_s=0.3),
    "crop": dict(crop_s=1.1),
    "gain": dict(gain=(0.5, 2.0)),
    "lead_gain": dict(lead_gain=(0.8, 1.25)),
    "flip": dict(flip_p=0.5),
    "wander": dict(wander_mv=(0.1, 0.5)),
    "mains": dict(mains_mv=(0.05, 0.2)),
    "noise": dict(noise_mv=(0.01, 0.2)),
    "emg": dict(emg_mv=(0.1, 0.4), emg_bursts=(0, 4), emg_s=(0.1, 0.9)),
    "mask": dict(mask_count=(0, 4), mask_s=(0.05, 0.5)),
    "subset": dict(lead_subset_p=0.5),
    "dropout": dict(lead_dropout_p=0.5),
}
ALL = {name: value for words in STEPS.values() for name, value in words.items()}
SPECS = {name: AugmentSpec(fs=500, **words) for name, words in (STEPS | {"all": ALL}).items()}
EVERY = SPECS["all"]


def assert_matches(x, spec, *, seed=SEED, record_ids=None):
    """Draws of samples are float32 whatever x is: 4 units of it, of the largest that is in play."""
    truth = augment_reference(x.double(), spec, seed, record_ids=record_ids)
    y = augment(x, spec, seed, record_ids=record_ids)
    assert y.dtype == x.dtype
    assert y.shape == truth.shape
    noise = spec.noise_mv[1] + spec.emg_mv[1]
    added = spec.mains_mv[1] + spec.wander_mv[1] + 6 * noise
    exact = x.dtype == torch.float64 and added == 0
    epsilon = 16 * 2.0**-52 if exact else 4 * max(2.0**-24, torch.finfo(x.dtype).eps / 2)
    peak = 2.0 * spec.gain[1] * spec.lead_gain[1] + added  # make_ecg stays within 2 mV
    error = (y.double() - truth).abs().max().item()
    assert error <= epsilon * peak, f"{error:.2e} over {epsilon * peak:.2e}"
    assert torch.equal(y == 0, truth == 0)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(device, dtype, name):
    assert_matches(make_ecg(6, 12, 1003, device=device, dtype=dtype), SPECS[name])


# (N, L, T): the fewest samples that six knots allow, one tile, a tile and one, the real thing
@pytest.mark.parametrize("shape", [(2, 1, 7), (2, 2, 64), (2, 3, 65), (2, 12, 5000)], ids=str)
def test_matches_reference_at_any_length(device, shape):
    words = ALL | dict(crop_s=None, shift_s=0.01, mask_s=(0.002, 0.01), lead_subset_p=0.0)
    assert_matches(make_ecg(*shape, device=device), AugmentSpec(fs=500, **words))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    x = make_ecg(3, 12, 1003, device=device, dtype=dtype)
    truth = augment_reference(x.double(), EVERY, SEED)
    y = augment(x, EVERY, SEED)
    assert y.dtype == dtype
    assert (y.double() - truth).abs().max() <= truth.abs().max() * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["all", "noise"])
def test_every_instruction_set_matches_reference(isa, name):
    assert_matches(make_ecg(4, 12, 1003), SPECS[name])


def test_nothing_drawn_changes_nothing(device):
    x = make_ecg(3, 12, 333, device=device)
    assert torch.equal(augment(x, AugmentSpec(), SEED), x)


def test_philox_gives_its_published_answers(device):
    """Of the known-answer file that its authors publish with Random123."""
    for counter, key, answer in [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]:
        words = [int(word, 16) for word in answer.split()]
        assert list(_C.augment_philox(counter, key)) == words
        assert philox_reference(np.array(counter), np.array(key)).tolist() == words


def test_records_do_not_mix(device):
    x = make_ecg(5, 12, 700, device=device)
    ids = torch.tensor([7, -3, 2**40 + 1, 0, 7], device=device)
    together = augment(x, EVERY, SEED, record_ids=ids)
    for n in range(5):
        alone = augment(x[n : n + 1], EVERY, SEED, record_ids=ids[n : n + 1])
        assert torch.equal(together[n : n + 1], alone)
    order = torch.tensor([3, 0, 4, 1, 2], device=device)
    assert torch.equal(augment(x[order], EVERY, SEED, record_ids=ids[order]), together[order])
    assert torch.equal(
        augment(x, EVERY, SEED), augment(x, EVERY, SEED, record_ids=torch.arange(5, device=device))
    )
    assert_matches(x, EVERY, record_ids=ids)


def test_thread_count_does_not_show():
    x = make_ecg(9, 12, 2000)
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        outcomes.append(augment(x, EVERY, SEED))
    torch.set_num_threads(before)
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])


def test_the_seed_is_all_that_varies(device):
    x = make_ecg(4, 12, 600, device=device)
    same = [augment(x, EVERY, seed) for seed in (SEED, torch.tensor([SEED], device=device))]
    assert torch.equal(*same)
    for other in (SEED + 1, SEED + 2**32, 0, -1):
        assert not torch.equal(augment(x, EVERY, other), same[0])
    torch.manual_seed(3)
    first, second = augment(x, EVERY), augment(x, EVERY)
    torch.manual_seed(3)
    assert torch.equal(augment(x, EVERY), first)
    assert not torch.equal(first, second)


def test_what_is_switched_on_leaves_the_rest_alone(device):
    x = torch.zeros(3, 12, 800, device=device)
    noise = augment(x, SPECS["noise"], SEED)
    both = AugmentSpec(fs=500, **STEPS["noise"], **STEPS["mask"], **STEPS["subset"])
    y = augment(x, both, SEED)
    kept = y != 0
    assert 0.1 < kept.float().mean() < 0.99
    assert torch.equal(y[kept], noise[kept])


def test_the_warp_is_monotone_and_keeps_the_ends(device):
    ramp = torch.arange(500.0, device=device, dtype=torch.float64).expand(50, 1, 500)
    for strength in (0.01, 0.5, 0.999):
        y = augment(ramp, AugmentSpec(warp_strength=strength, warp_knots=9), SEED)
        assert (y.diff() >= 0).all()
        assert (y[..., 0] == 0).all()
        assert (y[..., -1] - 499).abs().max() < 1e-3
        fastest = (1 + strength) / (1 - strength)
        assert y.diff().max() <= fastest * 1.1  # knots on whole samples: 50 +- 1 apart


def test_wander_stays_within_its_amplitude_and_emg_within_its_bursts(device):
    x = torch.zeros(40, 2, 5000, device=device)
    wander = augment(x, AugmentSpec(fs=500, wander_mv=(0.5, 0.5)), SEED)
    assert 0.3 < wander.abs().max() <= 0.5
    assert torch.equal(wander[:, 0], wander[:, 1])
    spec = AugmentSpec(fs=500, emg_mv=(1, 1), emg_bursts=(1, 1), emg_s=(0.5, 0.5))
    emg = augment(x, spec, SEED)
    lengths = (emg[:, 0] != 0).sum(-1)
    assert lengths.max() <= 250
    assert (lengths >= 248).float().mean() > 0.8  # the rest runs past the end
    assert not torch.equal(emg[:, 0], emg[:, 1])


def test_the_mains_has_its_frequency(device):
    y = augment(torch.zeros(3, 2, 5000, device=device), AugmentSpec(fs=500, mains_mv=(1, 1)), SEED)
    power = torch.fft.rfft(y.double()).abs()
    assert (power.argmax(-1) == 500).all()  # 50 Hz in steps of 0.1 Hz
    torch.testing.assert_close(power.amax(-1), torch.full_like(power[..., 0], 2500.0))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_at_its_place(device, bad):
    x = make_ecg(4, 12, 1000, device=device)
    x[1, 2, 300:310] = bad
    for name, spec in SPECS.items():
        y = augment(x, spec, SEED)
        spoilt = ~y.isfinite()
        truth = ~augment_reference(x, spec, SEED).isfinite()
        assert torch.equal(spoilt, truth), name
        assert not spoilt[[0, 2, 3]].any()
        assert not spoilt[1, [0, 1, *range(3, 12)]].any()
        assert spoilt.sum() <= 30


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :, 3:-1],
        lambda x: x[:, ::3],
        lambda x: x[:, :, ::2],
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x[:1].expand(4, -1, -1),
    ],
)
def test_takes_any_strides(device, change):
    x = change(make_ecg(3, 36, 1501, device=device))
    spec = AugmentSpec(fs=500, **(ALL | dict(lead_subset_sizes=(2,), lead_subset_probs=(1.0,))))
    assert torch.equal(augment(x, spec, SEED), augment(x.clone(), spec, SEED))


@pytest.mark.parametrize("shape", [(0, 12, 900), (3, 0, 900)], ids=str)
def test_empty_batch(device, shape):
    spec = AugmentSpec(fs=500, noise_mv=(0, 1), crop_s=1.0)
    assert augment(torch.zeros(shape, device=device), spec, SEED).shape == (*shape[:2], 500)


def test_torch_knows_the_op(device):
    op = torch.ops.ecgfast.augment.default
    x = make_ecg(2, 12, 700, device=device)
    seed, ids = torch.tensor([SEED], device=device), torch.arange(2, device=device)
    for given in (x, x.half(), x.transpose(1, 2).contiguous().transpose(1, 2)):
        torch.library.opcheck(op, (given, seed, ids, 550, EVERY.words()))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    torch._dynamo.reset()

    def step(x, seed):
        return augment(x * 2, EVERY, seed) + 1

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    seed = torch.tensor([SEED], device=device)
    for records in (2, 5):
        x = make_ecg(records, 12, 700, device=device)
        assert torch.equal(compiled(x, seed), step(x, seed))
    drawing = torch.compile(lambda x: augment(x, EVERY), fullgraph=True, backend="aot_eager")
    assert not torch.equal(drawing(x), drawing(x))  # the seed is drawn at every call


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x = make_ecg(2, 12, 700, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = augment(x, EVERY, SEED)
    assert torch.equal(inside, augment(x, EVERY, SEED))


def test_refuses_a_gradient(device):
    x = make_ecg(1, 12, 700, device=device).requires_grad_()
    with pytest.raises(ValueError, match="passes no gradient"):
        augment(x, EVERY, SEED)
    with torch.no_grad():
        assert not augment(x, EVERY, SEED).requires_grad


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(warp_strength=1.0), "warp_strength must be in"),
        (dict(warp_strength=-0.1), "warp_strength must be in"),
        (dict(warp_knots=0), "warp_knots must be whole numbers from 1"),
        (dict(warp_knots=2.5), "warp_knots must be whole numbers"),
        (dict(wander_sines=MAX_COUNT + 1), "from 1 to 1024, got 1025"),
        (dict(noise_mv=(-0.1, 0.1)), r"noise_mv must be \(low, high\), numbers from 0"),
        (dict(noise_mv=(0.2, 0.1)), "low <= high"),
        (dict(emg_mv=(0.0, math.nan)), "emg_mv must be"),
        (dict(gain=(0.0, 1.0)), "gain must be .* positive"),
        (dict(lead_gain=(1.0, math.inf)), "lead_gain must be"),
        (dict(flip_p=1.5), r"flip_p must be in \[0, 1\], got 1.5"),
        (dict(lead_dropout_p=math.nan), "lead_dropout_p must be in"),
        (dict(lead_subset_probs=(0.5,) * 6), "with sum 1, got .* with sum 3.0"),
        (dict(lead_subset_sizes=(1, 2)), "as many of each, got 2 and 6"),
        (dict(lead_subset_sizes=(0,), lead_subset_probs=(1.0,)), "whole numbers from 1"),
        (dict(shift_s=1.0), r"fs \(Hz\) must be given for shift_s"),
        (dict(mains_mv=(0, 1), emg_mv=(0, 1)), "given for mains_mv, emg_mv"),
        (dict(fs=-1.0), "fs must be positive"),
        (dict(fs=100.0, mains_mv=(0, 1)), "mains_hz must lie under fs / 2 = 50.0 Hz, got 50.0"),
        (dict(shift_s=-1.0, fs=1.0), "shift_s must be at least 0"),
        (dict(crop_s=0.0, fs=1.0), "crop_s must be positive"),
        (dict(mask_count=(0, 1.5), fs=1.0), "mask_count must be whole numbers"),
    ],
    ids=str,
)
def test_refuses_a_spec(words, message):
    with pytest.raises(ValueError, match=message):
        AugmentSpec(**words)


@pytest.mark.parametrize(
    ("x", "words", "more", "error", "message"),
    [
        (torch.zeros(12, 500), {}, {}, ValueError, r"x must be \(N, L, T\), got \(12, 500\)"),
        (torch.zeros(1, 2, 5, dtype=torch.int16), {}, {}, TypeError, "float dtype"),
        (torch.zeros(1, 2, 0), {}, {}, ValueError, "x has no samples"),
        (torch.zeros(1, 2, 50), dict(crop_s=1), {}, ValueError, "500 samples, but x has 50"),
        (torch.zeros(1, 2, 5), dict(warp_strength=0.1), {}, ValueError, "4 warp_knots need more"),
        (torch.zeros(1, 2, 50), dict(shift_s=1), {}, ValueError, "shift_s = 1 s is longer"),
        (torch.zeros(1, 2, 50), dict(mask_count=(1, 1)), {}, ValueError, "mask_s reaches 0.5"),
        (torch.zeros(1, 2, 50), dict(lead_subset_p=0.1), {}, ValueError, "reach 12, but x has 2"),
        (torch.zeros(1, 2, 50), {}, dict(seed=torch.zeros(2).long()), ValueError, "one int64"),
        (torch.zeros(1, 2, 50), {}, dict(seed=torch.zeros(1)), ValueError, "one int64"),
        (
            torch.zeros(1, 2, 50),
            {},
            dict(record_ids=torch.zeros(2).long()),
            ValueError,
            r"= \(1,\)",
        ),
    ],
)
def test_refuses(device, x, words, more, error, message):
    with pytest.raises(error, match=message):
        augment(x.to(device), AugmentSpec(fs=500, **words), **more)


def test_border_guards_memory():
    def view(tensor, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        codes = {torch.float32: 2, torch.float64: 3, torch.uint8: 4, torch.int64: 7}
        facts |= dict(dtype=codes[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    x, ids, seed = make_ecg(2, 12, 550), torch.arange(2), torch.tensor([SEED])
    columns = 6 + 7 + 2 * (3 + 4 + 4) + 12
    plan = torch.empty(2, columns, dtype=torch.float64)
    scratch, y = torch.empty(1, 16 * 576, dtype=torch.uint8), torch.empty(2, 12, 550)
    good = dict(
        x=view(x),
        seed=view(seed),
        record_ids=view(ids),
        plan=view(plan),
        scratch=view(scratch),
        y=view(y),
        words=EVERY.words(),
        place=(-1, 0, 1),
    )
    _C.augment(*good.values())
    words = EVERY.words()
    for lie, message in [
        (dict(y=view(y, shape=(2, 12, 551))), "0 < S <= T"),
        (dict(y=view(y, shape=(2, 11, 550))), "y must be"),
        (dict(plan=view(plan, shape=(2, columns - 1))), "plan must be"),
        (dict(scratch=view(scratch, shape=(1, 16 * 512))), "scratch must"),
        (dict(place=(-1, 0, 2)), "scratch must have a row a thread"),
        (dict(record_ids=view(ids, shape=(3,))), "record_ids must be"),
        (dict(seed=view(x[0, 0, :1])), "dtype"),
        (dict(x=view(x, data=0)), "no memory"),
        (dict(words=words[:-1]), "63 words"),
        (dict(words=[1.0, *words[1:]]), "warp must be"),
        (dict(words=[*words[:27], 551.0, *words[28:]]), "masked segment"),
        (dict(words=[math.nan, *words[1:]]), "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            _C.augment(*(good | lie).values())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_graph_replays_with_what_its_seed_holds():
    x = make_ecg(4, 12, 700, device="cuda")
    seed, ids = torch.tensor([SEED], device="cuda"), torch.arange(4, device="cuda")
    augment(x, EVERY, seed, record_ids=ids)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = augment(x, EVERY, seed, record_ids=ids)
    for value in (SEED, 9):
        seed.fill_(value)
        graph.replay()
        assert torch.equal(y, augment(x, EVERY, value))
