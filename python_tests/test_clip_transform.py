"""clip_transform against its reference, scipy and torch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ecgfast import _C
from ecgfast.ops import _clip_plan as at
from ecgfast.ops._clip_transform import clip_transform_reference, placed, scaled, turned
from ecgfast.ops._native import place, view
from ecgfast.ops.clip_transform import ClipSpec, clip_transform

VIEWS = dict(pad=3, flip=0.5, rotate=0.7, rotation_degrees=(-180.0, 180.0))
ALL = ClipSpec(**VIEWS)
# (N, C, F, H, W): one pixel; one row; one frame, odd; 4 planes; 15, of which 16 are turned at once;
# 17; 21, wider than a vector of bytes
SHAPES = [
    (2, 1, 1, 1, 1),
    (2, 3, 2, 1, 9),
    (3, 1, 1, 7, 5),
    (4, 1, 4, 20, 33),
    (2, 3, 5, 16, 16),
    (2, 1, 17, 9, 15),
    (2, 3, 7, 40, 70),
]


def make_clips(count, channels, frames, height, width, *, device="cpu", seed=0):
    """Edges, flat parts and grain of every level, another in each frame and channel."""
    draw = np.random.default_rng(seed)
    clips = draw.integers(0, 256, (count, channels, frames, height, width))
    y, x = np.mgrid[:height, :width]
    shift = np.arange(frames).reshape(-1, 1, 1) + 5 * np.arange(channels).reshape(-1, 1, 1, 1)
    bars = 230 * ((x + y // 3 + shift) % 8 < 3)
    kept = np.where(x > width / 2, bars, clips)
    return torch.from_numpy(kept.astype(np.uint8)).to(device)


def exact_levels(clips, spec, *, seed, order=None, record_ids=None):
    """Levels before they are rounded to whole numbers."""
    count, _, frames = clips.shape[:3]
    ids = torch.arange(count) if record_ids is None else record_ids
    order = torch.arange(frames).expand(count, -1) if order is None else order
    plan = at.clip_plan(spec, seed, ids.numpy(), order.numpy(), tuple(clips.shape[3:]))
    clips = clips.cpu().numpy()
    exact = [turned(placed(clips[n], plan[n]), plan[n]) for n in range(count)]
    return np.stack(exact) if exact else np.zeros((0, *clips.shape[1:]))


def assert_alike(made, clips, spec, *, dtype=torch.float32, **words):
    """Levels are the nearest whole numbers, but for ties; they are scaled to a few units.

    Shares between pixels are good to 2^-15, twice, of differences of 255 at most; steps to 2^-8.
    """
    plain = ClipSpec(**{**vars(spec), "scale": "none", "mean": (), "std": ()})
    levels = clip_transform(clips, spec=plain, **words).double().cpu().numpy()
    exact = exact_levels(clips, spec, **words)
    assert levels.shape == exact.shape == tuple(made.shape)
    assert not levels.size or np.abs(levels - exact).max() <= 0.53
    assert np.array_equal(levels, np.rint(levels))
    truth = np.stack([scaled(of, spec) for of in levels]) if len(levels) else levels
    assert made.dtype == dtype
    assert made.isfinite().all()
    largest = max(1.0, float(np.abs(truth).max(initial=0)))
    unit = torch.finfo(torch.float32).eps + torch.finfo(dtype).eps * (dtype != torch.float32)
    assert (
        not levels.size or np.abs(made.double().cpu().numpy() - truth).max() <= 4 * unit * largest
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", at.SCALES)
def test_matches_reference(device, scale, shape):
    clips = make_clips(*shape, device=device)
    spec = ClipSpec(**VIEWS, scale=scale)
    made = clip_transform(clips, spec=spec, seed=5)
    assert_alike(made, clips, spec, seed=5)
    truth = clip_transform_reference(clips, spec=spec, seed=5, dtype=torch.float64)
    away = (made.double().cpu() - truth).abs()
    assert float((away < 1e-3 * max(1.0, float(truth.abs().max()))).double().mean()) > 0.98


@pytest.mark.parametrize("scale", at.SCALES)
def test_every_instruction_set_matches_reference(isa, scale):
    for shape in SHAPES:
        clips = make_clips(*shape)
        spec = ClipSpec(**VIEWS, scale=scale)
        assert_alike(clip_transform(clips, spec=spec, seed=8), clips, spec, seed=8)


def test_levels_are_the_same_on_every_instruction_set_and_device(device):
    spec = ClipSpec(**VIEWS, scale="none")
    before, found = _C.build_info()["isa"], []
    clips = make_clips(6, 3, 5, 31, 45)
    for name in _C.build_info()["isa_here"]:
        _C.use_isa(name)
        found.append(clip_transform(clips, spec=spec, seed=2))
    _C.use_isa(before)
    found.append(clip_transform(clips.to(device), spec=spec, seed=2).cpu())
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("degrees", [7.0, -10.0, 33.3, 90.0, 180.0, -179.5, 270.0])
def test_equals_the_chain_of_scipy(device, degrees):
    """Zero-pad, crop, flip, turn, order, min-max, as published, of bytes."""
    clips = make_clips(3, 3, 4, 30, 41, device=device)
    spec = ClipSpec(pad=4, flip=1.0, rotate=1.0, rotation_degrees=(degrees, degrees))
    order = torch.tensor([[2, 0, 3, 1], [3, 2, 1, 0], [0, 0, 1, 2]])
    made = clip_transform(clips, spec=spec, seed=9, order=order).cpu().numpy()
    plan = at.clip_plan(spec, 9, np.arange(3), order.numpy(), (30, 41))
    assert len({tuple(row) for row in plan[:, at.TOP : at.LEFT + 1]}) > 1
    for n, clip in enumerate(clips.cpu().numpy()):
        top, left = 4 + plan[n, at.TOP], 4 + plan[n, at.LEFT]
        padded = np.pad(clip, [(0, 0), (0, 0), (4, 4), (4, 4)])
        view = padded[..., top : top + 30, left : left + 41][..., ::-1]
        view = ndimage.rotate(view, degrees, axes=(2, 3), reshape=False, order=1)[:, order[n]]
        low, high = view.min(), view.max()
        truth = (view - low.astype(np.float64)) / (high - low)
        step = 1 / (high - low)
        away = np.abs(made[n] - truth)
        assert away.max() < 1.01 * step  # a level at a tie goes either way
        assert (away < 1e-6).mean() > 0.99


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_without_a_turn_it_is_torch_to_the_bit(device, flip):
    clips = make_clips(5, 3, 4, 21, 35, device=device)
    spec = ClipSpec(pad=30, flip=flip)  # a window may lie beyond the frame's middle, or all of it
    plan = at.clip_plan(spec, 4, np.arange(5), np.zeros((5, 1), int), (21, 35))
    views = []
    for clip, (top, left) in zip(clips, 30 + plan[:, at.TOP : at.LEFT + 1], strict=True):
        padded = torch.nn.functional.pad(clip, (30, 30, 30, 30))
        views.append(padded[..., top : top + 21, left : left + 35])
    view = torch.stack(views).flip(-1) if flip else torch.stack(views)
    made = clip_transform(clips, spec=spec, seed=4)
    low, high = view.amin((1, 2, 3, 4), True).float(), view.amax((1, 2, 3, 4), True).float()
    assert torch.equal(made, (view - low) / (high - low).clamp(min=1))
    unit = clip_transform(clips, spec=ClipSpec(pad=30, flip=flip, scale="unit"), seed=4)
    assert torch.equal(unit, view / 255)


def test_frames_come_in_the_order_asked_for(device):
    clips = make_clips(24, 1, 4, 6, 7, device=device)
    order = torch.tensor(list(itertools.permutations(range(4))))
    made = clip_transform(clips, spec=ClipSpec(scale="none"), order=order.to(device))
    expected = torch.stack([clip[:, o] for clip, o in zip(clips, order.to(device), strict=True)])
    assert torch.equal(made, expected.float())
    back = clip_transform(made.byte(), spec=ClipSpec(scale="none"), order=order.argsort(dim=1))
    assert torch.equal(back, clips.float())
    some = torch.tensor([[3, 3, 0, 1, 2, 0]]).expand(24, 6)  # more, and some of them twice
    spec = ClipSpec(**VIEWS, scale="standard")
    made = clip_transform(clips, spec=spec, order=some, seed=1)
    assert made.shape == (24, 1, 6, 6, 7)
    assert_alike(made, clips, spec, order=some, seed=1)


@pytest.mark.parametrize("scale", ["min_max", "standard"])
def test_a_flat_clip_is_0(device, scale):
    clips = torch.full((2, 3, 2, 5, 6), 77, dtype=torch.uint8, device=device)
    assert not clip_transform(clips, spec=ClipSpec(scale=scale)).any()
    shifted = clip_transform(clips, spec=ClipSpec(scale=scale, mean=(1.0,), std=(2.0,)))
    assert (shifted == -0.5).all()


@pytest.mark.parametrize("odd", [0, 255])
def test_the_sd_of_a_clip_of_nearly_one_level_is_exact(device, odd):
    clips = torch.full((1, 1, 16, 112, 112), abs(odd - 1), dtype=torch.uint8, device=device)
    clips[0, 0, 3, 50, 60] = odd
    made = clip_transform(clips, spec=ClipSpec(scale="standard")).double()
    truth = (clips.double() - clips.double().mean()) / clips.double().std(correction=0)
    torch.testing.assert_close(made, truth, rtol=1e-5, atol=1e-7)


def test_mean_and_std_come_off_at_last(device):
    for channels, mean, std in (
        (1, (0.5,), (0.25,)),
        (3, (0.1, 0.2, 0.3), (1, 2, 3)),
        (3, (), (2,)),
    ):
        clips = make_clips(2, channels, 3, 9, 11, device=device)
        for scale in ("none", "unit", "min_max", "standard"):
            spec = ClipSpec(**VIEWS, scale=scale, mean=mean, std=std)
            assert_alike(clip_transform(clips, spec=spec, seed=3), clips, spec, seed=3)
    kinetics = clip_transform(clips, spec=ClipSpec(scale="kinetics"))
    mean, std = (torch.tensor(of).view(3, 1, 1, 1) for of in (at.KINETICS_MEAN, at.KINETICS_STD))
    torch.testing.assert_close(kinetics.cpu(), (clips.cpu() / 255 - mean) / std)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_once_and_as_torch_does_it(device, dtype):
    clips = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 1, 16, 16)
    for std in (1e-4, 1.0, 3e3, 1e6, 1e10):  # beyond the largest half, and where its steps are even
        for mean in (0.0, 0.3333):
            spec = ClipSpec(scale="unit", mean=(mean,), std=(std,))
            made = clip_transform(clips, spec=spec, dtype=dtype)
            assert torch.equal(made, clip_transform(clips, spec=spec).to(dtype))
    clips = make_clips(3, 3, 5, 18, 27, device=device)
    for scale in at.SCALES:
        spec = ClipSpec(**VIEWS, scale=scale)
        made = clip_transform(clips, spec=spec, seed=1, dtype=dtype)
        assert_alike(made, clips, spec, seed=1, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_the_same_in_another_order(device, channels, dtype):
    clips = make_clips(3, channels, 5, 13, 22, device=device)
    words = dict(spec=ALL, seed=3, dtype=dtype)
    last = clip_transform(clips, memory_format=torch.channels_last_3d, **words)
    assert last.is_contiguous(memory_format=torch.channels_last_3d)
    plain = clip_transform(clips, **words)
    assert plain.is_contiguous()
    assert torch.equal(last, plain)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    record=st.integers(-(2**63), 2**63 - 1),
    shape=st.tuples(st.sampled_from([1, 3]), *(st.integers(1, n) for n in (19, 40, 40))),
    views=st.fixed_dictionaries(
        {
            "pad": st.integers(0, 50),
            "flip": st.sampled_from([0.0, 0.5, 1.0]),
            "rotate": st.sampled_from([0.0, 0.5, 1.0]),
            "rotation_degrees": st.tuples(st.floats(-360, 0), st.floats(0, 360)),
            "whole_degrees": st.booleans(),
            "scale": st.sampled_from(at.SCALES),
        }
    ),
    data=st.data(),
)
def test_anything_that_can_be_asked_for(seed, record, shape, views, data):
    clips = make_clips(1, *shape, seed=record % 1000)
    frames = st.lists(st.integers(0, shape[1] - 1), min_size=1, max_size=19)
    order = data.draw(st.none() | frames.map(lambda of: torch.tensor([of])))
    words = dict(seed=seed, record_ids=torch.tensor([record]), order=order)
    spec = ClipSpec(**views)
    assert_alike(clip_transform(clips, spec=spec, **words), clips, spec, **words)


def test_records_do_not_mix_and_threads_do_not_show(device):
    clips = make_clips(6, 3, 4, 30, 35, device=device)
    ids = torch.tensor([7, -1, 2**40, 3, 0, 12])
    together = clip_transform(clips, spec=ALL, seed=11, record_ids=ids)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            order = torch.tensor([3, 0, 4, 1, 2, 5])
            again = clip_transform(clips[order], spec=ALL, seed=11, record_ids=ids[order])
            assert torch.equal(again, together[order])
            alone = clip_transform(clips[2:3], spec=ALL, seed=11, record_ids=ids[2:3])
            assert torch.equal(alone[0], together[2])
    finally:
        torch.set_num_threads(before)


def test_seed_and_record_make_the_difference(device):
    clips = make_clips(1, 1, 2, 20, 30, device=device).expand(3, 1, 2, 20, 30)
    spec = ClipSpec(pad=9, rotate=1.0, rotation_degrees=(-90.0, 90.0))
    drawn = clip_transform(clips, spec=spec, seed=4)
    assert torch.equal(drawn, clip_transform(clips, spec=spec, seed=4))
    assert torch.equal(drawn, clip_transform(clips, spec=spec, seed=torch.tensor([4])))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, clip_transform(clips, spec=spec, seed=5))
    assert not torch.equal(drawn, clip_transform(clips, spec=spec, seed=4 + 2**32))
    torch.manual_seed(1)
    first = clip_transform(clips, spec=spec)
    assert not torch.equal(first, clip_transform(clips, spec=spec))
    torch.manual_seed(1)
    assert torch.equal(first, clip_transform(clips, spec=spec))


def test_strides_do_not_show(device):
    clips = make_clips(4, 3, 5, 20, 33, device=device)
    stored = clips.transpose(1, 2).contiguous().transpose(1, 2)  # (N, F, C, H, W), as in a store
    for odd in (stored, clips[::2, :, ::2, ::3], clips[..., ::2], clips.mT, clips[..., 5:20],
                clips[:, :1].expand(4, 3, 5, 20, 33), clips[:, :, 1:2].expand(-1, -1, 5, -1, -1),
                clips.contiguous(memory_format=torch.channels_last_3d)):  # fmt: skip
        for spec in (ClipSpec(), ALL):
            found = clip_transform(odd, spec=spec, seed=6)
            assert torch.equal(found, clip_transform(odd.contiguous(), spec=spec, seed=6))


def test_no_clip_no_view(device):
    drawn = clip_transform(torch.zeros(0, 3, 4, 9, 8, dtype=torch.uint8, device=device), spec=ALL)
    assert drawn.shape == (0, 3, 4, 9, 8)


def test_compiles_and_passes_opcheck():
    clips = make_clips(2, 3, 4, 12, 15)
    plan = torch.from_numpy(
        at.clip_plan(ALL, 1, np.arange(2), np.tile(np.arange(4), (2, 1)), (12, 15))
    )
    mean_std = [0.0] * 3 + [1.0] * 3
    for odd in (clips, clips.transpose(1, 2).contiguous().transpose(1, 2), clips[..., ::2]):
        for dtype, last in ((torch.float32, False), (torch.bfloat16, True)):
            torch.library.opcheck(
                torch.ops.ecgfast.clip_transform, (odd, plan, 2, mean_std, dtype, last)
            )

    def twice(x):
        return 2 * clip_transform(x, spec=ALL, seed=1)

    assert torch.equal(torch.compile(twice, backend="aot_eager")(clips), twice(clips))


def test_autocast_does_not_reach_in():
    clips = make_clips(1, 1, 2, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        made = clip_transform(clips, spec=ALL, seed=1)
    assert torch.equal(made, clip_transform(clips, spec=ALL, seed=1))


CLIP = torch.zeros(1, 3, 2, 9, 9, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"clips": CLIP[0]}, ValueError, r"\(N, C, F, H, W\) with C 1 or 3, got \(3, 2, 9, 9\)"),
        ({"clips": CLIP[:, :2]}, ValueError, "with C 1 or 3"),
        ({"clips": CLIP.float()}, TypeError, "levels from 0 to 255, got torch.float32"),
        ({"clips": CLIP[:, :, :0]}, ValueError, "must have a frame"),
        ({"clips": CLIP[..., :0]}, ValueError, "1 to 32768 pixels a side, got"),
        ({"dtype": torch.float64}, TypeError, "float32, float16 or bfloat16, got"),
        ({"memory_format": torch.channels_last}, ValueError, "channels_last_3d, got"),
        ({"seed": 1.5}, ValueError, "whole number of 64 bits, got 1.5"),
        ({"seed": 2**64}, ValueError, "of 64 bits"),
        ({"seed": torch.arange(2)}, ValueError, r"seed must be one int64, got \(2,\)"),
        ({"record_ids": torch.arange(3)}, ValueError, r"\(N,\) = \(1,\) int64, got \(3,\)"),
        ({"order": torch.arange(2)}, ValueError, r"order must be \(N, G\) = \(1, G\) int64"),
        ({"order": torch.zeros(1, 0).long()}, ValueError, "with G > 0"),
        ({"order": torch.zeros(1, 2).int()}, ValueError, "of torch.int32"),
        (
            {"order": torch.tensor([[0, 2]])},
            ValueError,
            r"0 to 1, but 1 of 2 do not: order\[0, 1\]",
        ),
        ({"order": torch.tensor([[-1, 0]])}, ValueError, r"order\[0, 0\] is -1"),
        ({"spec": ClipSpec(mean=(0.1, 0.2, 0.3)), "clips": CLIP[:, :1]}, ValueError, "3 numbers"),
    ],
)
def test_refuses(words, error, message):
    given = {"clips": CLIP, "spec": ClipSpec(pad=1), "seed": 1, **words}
    with pytest.raises(error, match=message):
        clip_transform(given.pop("clips"), **given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"pad": -1}, "from 0 to 32768, got -1"),
        ({"pad": 1.5}, "whole number"),
        ({"flip": 1.1}, r"flip must lie in \[0, 1\], got 1.1"),
        ({"rotate": math.nan}, r"rotate must lie in \[0, 1\]"),
        ({"rotation_degrees": (5, -5)}, "low <= high"),
        ({"rotation_degrees": (0, math.nan)}, "low <= high"),
        ({"rotation_degrees": (0.2, 0.8), "whole_degrees": True}, "no whole number of degrees"),
        ({"scale": "max"}, "one of none, unit, min_max, standard, kinetics, got 'max'"),
        ({"mean": (0.1, 0.2)}, "one number or three"),
        ({"mean": (math.inf,)}, "one number or three"),
        ({"std": (0.0,)}, "std must be positive"),
        ({"std": (1.0,), "scale": "kinetics"}, "a std of its own"),
    ],
)
def test_a_spec_that_cannot_be_drawn_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ClipSpec(**words)


def test_a_spec_comes_from_lists_too():
    assert ClipSpec(rotation_degrees=[0, 8]) == ClipSpec(rotation_degrees=(0, 8))


def test_border_guards_memory(device):
    clips = torch.zeros(2, 3, 4, 9, 8, dtype=torch.uint8, device=device)
    order = np.tile(np.arange(4), (2, 1))
    plan = torch.from_numpy(at.clip_plan(ALL, 1, np.arange(2), order, (9, 8))).to(device)
    workers = 0 if clips.is_cuda else torch.get_num_threads()
    scratch = torch.zeros(workers, 64_000, dtype=torch.uint8, device=device)

    def run(clips=clips, numbers=plan, room=scratch, out=None, how=2, words=(1.0,) * 6):
        out = torch.empty(2, 3, 4, 9, 8, device=device) if out is None else out
        parts = (view(part) for part in (clips, numbers, room, out))
        _C.clip_transform(*parts, how, list(words), place(clips))

    run()
    for message, words in (
        ("clips must", dict(clips=clips[:, :2])),
        ("wrong dtype", dict(clips=clips.float())),
        ("dense along", dict(clips=clips.mT.contiguous().mT)),
        ("out must", dict(out=torch.empty(2, 3, 4, 9, 9, device=device))),
        ("floats or halves", dict(out=torch.empty(2, 3, 4, 9, 8, device=device).double())),
        ("out must be dense", dict(out=torch.empty(2, 3, 4, 9, 16, device=device)[..., ::2])),
        ("plan", dict(numbers=plan[:, :-1].contiguous())),
        ("plan", dict(numbers=plan.double())),
        ("no such scale", dict(how=4)),
        ("words", dict(words=(1.0,) * 5)),
        ("words", dict(words=(math.nan,) * 6)),
    ):
        with pytest.raises(ValueError, match=message):
            run(**words)
    if clips.is_cuda:
        return
    for message, column, value in (
        ("near its frame", at.TOP, 2**40),
        ("near its frame", at.LEFT, -(2**20)),
        ("about itself", at.MAP, 2**60),
        ("about itself", at.MAP + 1, 2**33),
        ("frames that there are", at.FRAMES, 4),
        ("frames that there are", at.FRAMES + 3, -1),
    ):
        wrong = plan.clone()
        wrong[1, column] = value
        with pytest.raises(ValueError, match=message):
            run(numbers=wrong)
    with pytest.raises(ValueError, match="scratch"):
        run(room=scratch[:, :64].contiguous())
