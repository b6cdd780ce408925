"""image_augment against its reference."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast import _C
from ecgfast.ops import _image_plan as at
from ecgfast.ops._image_augment import coefficients, image_augment_reference, page_steps
from ecgfast.ops._native import place, view
from ecgfast.ops._page import LUMA
from ecgfast.ops.image_augment import ImageAugmentSpec, image_augment

STEPS = {
    "nothing": {},
    "rotation": dict(rotation_degrees=(-40, 40), fill=(10, 200, 30)),
    "perspective": dict(perspective=0.2),
    "crop": dict(crop_area=(0.2, 0.9), crop_aspect=(0.5, 2)),
    "blur": dict(blur_px=(0.2, 2.0)),
    "creases": dict(crease_count=(1, 4), crease_width=(0.05, 0.3)),
    "light": dict(light=(0.1, 0.6)),
    "tone": dict(contrast=(0.5, 1.5), brightness=(-40, 40), gamma=(0.5, 2), colour=(0.8, 1.2)),
    "noise": dict(noise=(1, 20)),
    "jpeg": dict(jpeg_quality=(10, 95)),
}
STEPS["all"] = {name: value for step in STEPS.values() for name, value in step.items()}
SPECS = {name: ImageAugmentSpec(**words) for name, words in STEPS.items()}
# (H, W), size: a pixel, less than a block, over tiles of the CPU and odd, larger, much smaller
SIZES = [
    ((1, 1), None),
    ((5, 7), None),
    ((70, 45), None),
    ((9, 8), (40, 72)),
    ((150, 110), (30, 20)),
]


def make_pages(count, channels, height, width, *, device="cpu", seed=0, dtype=torch.uint8):
    """Strokes, grid and grain: every level from 0 to 255, edges, and flat parts."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    page = 255 - 120 * ((x % 9 == 0) | (y % 9 == 0)) - 200 * (np.abs(y - x - 7) < 2)
    grain = draw.integers(-40, 40, (count, channels, height, width)) * (x > width / 2)
    pages = torch.from_numpy(np.clip(page + grain, 0, 255).astype(np.uint8)).to(device)
    return pages if dtype == torch.uint8 else (pages.double() / 255).to(dtype)


def settled(pages, spec, size, **words):
    """Pixels ``(N, C, H', W')`` that no coefficient near the middle between two steps decides."""
    size = tuple(pages.shape[2:]) if size is None else size
    ids = np.arange(len(pages))
    plan = at.image_plan(spec, words["seed"], ids, tuple(pages.shape[2:]), size)
    kept = np.ones((len(pages), pages.shape[1], *size), bool)
    if spec.jpeg_quality is None:
        return torch.from_numpy(kept)
    fill = np.array(spec.fill if pages.shape[1] == 3 else (np.dot(LUMA, spec.fill),))
    shares = pages.cpu().double().numpy()
    for n, page in enumerate(shares if pages.dtype != torch.uint8 else shares / 255):
        levels = np.where(np.isnan(page), fill[:, None, None], 255 * np.clip(page, 0, 1))
        found = coefficients(page_steps(levels, plan[n], size, fill), plan[n])
        tie = np.abs(found - np.floor(found) - 0.5).min(axis=(0, 2, 4)) < 1e-3
        kept[n] = ~np.kron(tie, np.ones((8, 8), bool))[: size[0], : size[1]]
    return torch.from_numpy(kept)


def assert_alike(images, pages, spec, *, seed, size=None, dtype=torch.float32, **words):
    """Holds images to the error that numpy makes in float32.

    Four times that and 8 units of the largest number, for another order of sums; on top comes what
    rounding to ``dtype`` adds: half a level of bytes, half a unit of halves.
    """
    words = dict(seed=seed, size=size, **words)
    truth = image_augment_reference(pages, spec, **words, dtype=torch.float64)
    plain = image_augment_reference(pages, spec, **words, dtype=torch.float64, real=np.float32)
    assert images.shape == truth.shape
    assert images.dtype == dtype
    kept = settled(pages, spec, size, seed=seed)
    if kept.numel() and spec.jpeg_quality is not None:
        assert kept.double().mean() > 0.5 or kept.numel() <= 3 * 64
    largest = max(1.0, float(truth.abs().max())) if truth.numel() else 1.0
    allowed = 8 * torch.finfo(torch.float32).eps * largest
    if kept.any():
        allowed += 4 * float((plain - truth).abs()[kept].max())
    if dtype == torch.uint8:
        allowed, images = allowed + 0.5 / 255, images.double() / 255
    else:
        allowed += torch.finfo(dtype).eps * largest * (dtype != torch.float32)
    away = (images.double().cpu() - truth).abs()[kept]
    assert not len(away) or away.max() <= allowed


@pytest.mark.parametrize(("page", "size"), SIZES, ids=str)
@pytest.mark.parametrize("step", SPECS)
def test_matches_reference(device, step, page, size):
    for channels in (1, 3):
        pages = make_pages(2, channels, *page, device=device)
        words = dict(seed=5, size=size)
        assert_alike(image_augment(pages, SPECS[step], **words), pages, SPECS[step], **words)


@pytest.mark.parametrize("step", SPECS)
def test_every_instruction_set_matches_reference(isa, step):
    pages = make_pages(2, 3, 130, 140)
    for size in (None, (67, 90)):
        words = dict(seed=8, size=size)
        assert_alike(image_augment(pages, SPECS[step], **words), pages, SPECS[step], **words)


def test_a_tile_that_shows_much_of_a_page_is_read_as_one_that_shows_little(isa):
    """700 pixels a tile are not brought to levels first."""
    pages = make_pages(1, 3, 700, 700)
    words = dict(seed=3, size=(60, 64))
    for step in ("nothing", "all"):
        assert_alike(image_augment(pages, SPECS[step], **words), pages, SPECS[step], **words)


@pytest.mark.parametrize("out", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_any_dtype_goes_in_and_out(device, dtype, out):
    pages = make_pages(1, 3, 20, 40, device=device, dtype=dtype)
    for step in ("nothing", "all"):
        words = dict(seed=2, dtype=out)
        assert_alike(image_augment(pages, SPECS[step], **words), pages, SPECS[step], **words)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_come_off_at_last(device, channels):
    pages = make_pages(2, channels, 20, 30, device=device)
    each = dict(mean=[0.485, 0.456, 0.406][:channels], std=[0.229, 0.224, 0.225][:channels])
    for words in (each, dict(mean=0.5, std=0.25), dict(std=2.0)):
        for step in ("nothing", "tone"):
            words = dict(seed=2, **words) if "seed" not in words else words
            assert_alike(image_augment(pages, SPECS[step], **words), pages, SPECS[step], **words)


def test_nothing_is_done_to_pages_of_which_nothing_is_asked(device):
    plain = ImageAugmentSpec()
    pages = make_pages(2, 3, 70, 45, device=device)
    assert torch.equal(image_augment(pages, plain, seed=1, dtype=torch.uint8), pages)
    shares = make_pages(2, 1, 70, 45, device=device, dtype=torch.float32)
    assert torch.equal(image_augment(shares, plain, seed=1), shares)


def test_a_nan_is_paper_and_floats_are_brought_into_0_to_1(device):
    pages = torch.tensor([math.nan, -math.inf, -0.5, 0.25, 1.5, math.inf], device=device)
    pages = pages.expand(1, 3, 2, 6)
    fill = (51.0, 102.0, 204.0)
    shares = torch.tensor(fill).view(3, 1) / 255
    expected = torch.tensor([0, 0, 0, 0.25, 1, 1]).expand(3, 2, 6).clone()
    expected[:, :, 0] = shares
    for spec in (ImageAugmentSpec(fill=fill), ImageAugmentSpec(fill=fill, contrast=(1, 1.0000001))):
        found = image_augment(pages, spec, seed=1).cpu()[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for step in ("rotation", "all"):
        spec = dataclasses.replace(SPECS[step], jpeg_quality=None)
        assert_alike(image_augment(pages, spec, seed=1), pages, spec, seed=1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    record=st.integers(-(2**63), 2**63 - 1),
    page=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    steps=st.sets(st.sampled_from(sorted(set(STEPS) - {"all", "jpeg"}))),
    channels=st.sampled_from([1, 3]),
    bytes_in=st.booleans(),
)
def test_anything_that_can_be_asked_for(seed, record, page, size, steps, channels, bytes_in):
    words = {name: value for step in steps for name, value in STEPS[step].items()}
    spec = ImageAugmentSpec(**words)
    dtype = torch.uint8 if bytes_in else torch.float32
    pages = make_pages(1, channels, *page, seed=record % 1000, dtype=dtype)
    words = dict(seed=seed, record_ids=torch.tensor([record]), size=size)
    assert_alike(image_augment(pages, spec, **words), pages, spec, **words)
    lossy = dataclasses.replace(spec, jpeg_quality=(1, 100))
    drawn = image_augment(pages, lossy, **words)
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_records_do_not_mix_and_threads_do_not_show(device):
    pages = make_pages(5, 3, 70, 90, device=device)
    ids = torch.tensor([7, -1, 2**40, 3, 0])
    words = dict(seed=11, size=(41, 66))
    together = image_augment(pages, SPECS["all"], record_ids=ids, **words)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            order = torch.tensor([3, 0, 4, 1, 2])
            again = image_augment(pages[order], SPECS["all"], record_ids=ids[order], **words)
            assert torch.equal(again, together[order])
            alone = image_augment(pages[2:3], SPECS["all"], record_ids=ids[2:3], **words)
            assert torch.equal(alone[0], together[2])
    finally:
        torch.set_num_threads(before)


def test_seed_and_record_make_the_difference(device):
    pages = make_pages(1, 1, 20, 30, device=device).expand(3, 1, 20, 30)
    drawn = image_augment(pages, SPECS["all"], seed=4)
    assert torch.equal(drawn, image_augment(pages, SPECS["all"], seed=4))
    assert torch.equal(drawn, image_augment(pages, SPECS["all"], seed=torch.tensor([4])))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, image_augment(pages, SPECS["all"], seed=5))
    assert not torch.equal(drawn, image_augment(pages, SPECS["all"], seed=4 + 2**32))


def test_strides_do_not_show(device):
    for dtype in (torch.uint8, torch.float32):
        pages = make_pages(4, 3, 40, 60, device=device, dtype=dtype)
        for odd in (pages[::2, :, ::2, ::3], pages[:, :1].expand(4, 3, 40, 60), pages.mT,
                    pages.contiguous(memory_format=torch.channels_last)):  # fmt: skip
            for step in ("nothing", "blur", "all"):
                found = image_augment(odd, SPECS[step], seed=6)
                expected = image_augment(odd.contiguous(), SPECS[step], seed=6)
                assert torch.equal(found, expected)


def test_no_record_no_page(device):
    drawn = image_augment(torch.zeros(0, 3, 9, 9, device=device), SPECS["all"], seed=1, size=(4, 5))
    assert drawn.shape == (0, 3, 4, 5)


def test_no_gradient_comes_through():
    pages = torch.rand(1, 1, 8, 8, requires_grad=True)
    assert not image_augment(pages, SPECS["all"], seed=1).requires_grad


def test_compiles_and_passes_opcheck():
    pages = make_pages(2, 3, 20, 30)
    plan = torch.from_numpy(at.image_plan(SPECS["all"], 1, np.arange(2), (20, 30), (10, 12)))
    words = [255.0] * 3 + [1.0] * 3 + [0.0] * 3
    for odd in (pages, pages.mT, pages.half() / 255):
        for dtype in (torch.uint8, torch.bfloat16):
            torch.library.opcheck(
                torch.ops.ecgfast.image_augment, (odd, plan, 10, 12, words, dtype)
            )

    def twice(x):
        return 2 * image_augment(x, SPECS["all"], seed=1)

    assert torch.equal(torch.compile(twice, backend="aot_eager")(pages), twice(pages))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"pages": torch.zeros(3, 9, 9)}, ValueError, r"\(N, C, H, W\) with C 1 or 3, got \(3, 9"),
        ({"pages": torch.zeros(1, 2, 9, 9)}, ValueError, "with C 1 or 3"),
        ({"pages": torch.zeros(1, 1, 0, 9)}, ValueError, "1 to 32768 pixels a side, got"),
        ({"pages": torch.zeros(1, 1, 9, 9, dtype=torch.int32)}, TypeError, "uint8 or of a float"),
        ({"dtype": torch.float64}, TypeError, "uint8, float32, float16 or bfloat16, got"),
        ({"size": (0, 4)}, ValueError, r"\(height, width\), 1 to 32768 pixels, got \(0, 4\)"),
        ({"size": (4, 40_000)}, ValueError, "1 to 32768"),
        ({"seed": 1.5}, ValueError, "whole number of 64 bits, got 1.5"),
        ({"seed": 2**64}, ValueError, "of 64 bits"),
        ({"seed": torch.arange(2)}, ValueError, r"seed must be one int64, got \(2,\)"),
        ({"record_ids": torch.arange(3)}, ValueError, r"\(N,\) = \(1,\) int64, got \(3,\)"),
        ({"mean": [0.5, 0.5]}, ValueError, "a number or one for each of 3, got"),
        ({"std": 0.0}, ValueError, "std must be positive, got 0"),
        ({"mean": math.nan}, ValueError, "mean must be a number"),
        ({"mean": 0.5, "dtype": torch.uint8}, ValueError, "for floats"),
    ],
)
def test_refuses(words, error, message):
    given = {"pages": torch.zeros(1, 3, 9, 9), "spec": ImageAugmentSpec(), "seed": 1, **words}
    with pytest.raises(error, match=message):
        image_augment(given.pop("pages"), given.pop("spec"), **given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"perspective": 0.25}, r"in \[0, 0.25\), got 0.25"),
        ({"fill": (0, 0, 256)}, "three numbers from 0 to 255"),
        ({"blur_px": (0, 2.5)}, "blur_px must be .low, high. with low <= high, from 0 to 2, got"),
        ({"gamma": (2, 1)}, "gamma must be"),
        ({"noise": (0, math.nan)}, "noise must be"),
        ({"crop_area": (0, 1)}, "crop_area must be"),
        ({"crease_count": (0, 5)}, "whole numbers from 0 to 4"),
        ({"crease_count": (0.5, 1)}, "whole numbers"),
        ({"jpeg_quality": (0, 50)}, "whole numbers from 1 to 100"),
    ],
)
def test_a_spec_that_cannot_be_drawn_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ImageAugmentSpec(**words)


def test_a_spec_comes_from_lists_too():
    assert ImageAugmentSpec(noise=[0, 8]) == ImageAugmentSpec(noise=(0, 8))


def test_border_guards_memory(device):
    pages = torch.zeros(1, 1, 9, 9, device=device)
    plan = torch.from_numpy(at.image_plan(SPECS["all"], 1, np.arange(1), (9, 9), (9, 9)))
    plan = plan.to(device)
    workers = 0 if pages.is_cuda else torch.get_num_threads()
    scratch = torch.zeros(workers, 256_000, dtype=torch.uint8, device=device)

    def run(images=pages, numbers=plan, room=scratch, out=None, words=(1.0,) * 9):
        out = torch.empty(1, 1, 9, 9, device=device) if out is None else out
        parts = (view(part) for part in (images, numbers, room, out))
        _C.image_augment(*parts, list(words), place(images))

    run()
    for message, words in (
        ("out must", dict(out=torch.empty(2, 1, 9, 9, device=device))),
        ("bytes or floats", dict(images=pages.double())),
        ("out must be dense", dict(out=torch.empty(1, 1, 9, 18, device=device)[..., ::2])),
        ("plan", dict(numbers=plan[:, :-1].contiguous())),
        ("plan", dict(numbers=plan.float())),
        ("words", dict(words=(1.0,) * 8)),
        ("words", dict(words=(math.nan,) * 9)),
    ):
        with pytest.raises(ValueError, match=message):
            run(**words)
    if pages.is_cuda:
        return
    for message, column, value in (
        ("finite", at.SD, math.nan),
        ("samples", at.SAMPLES, 5),
        ("radius", at.RADIUS, 6.5),
        ("32 bits", at.KEY, -1),
        ("steps", at.TABLES + 127, 0),
        ("horizon", at.MAP + 8, -1),
        ("far from", at.MAP + 2, 1e9),
    ):
        wrong = plan.clone()
        wrong[0, column] = value
        with pytest.raises(ValueError, match=message):
            run(numbers=wrong)
    plan[0, at.SAMPLES] = 0
    with pytest.raises(ValueError, match="as large as its page"):
        run(out=torch.empty(1, 1, 9, 10, device=device))
    with pytest.raises(ValueError, match="scratch"):
        run(room=scratch[:, :64].contiguous())
