"""What image_augment draws is spread as its names say, and what can be read off its pages."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft, stats

from ecgfast.ops import _image_plan as at
from ecgfast.ops._image_augment import coefficients, decoded, image_augment_reference
from ecgfast.ops.image_augment import ImageAugmentSpec, image_augment
from ecgfast.ops.rasterize_ecg import rasterize_ecg
from ecgfast.testing import make_ecg

SPEC = ImageAugmentSpec(
    rotation_degrees=(-40, 40),
    blur_px=(0.2, 2.0),
    crease_count=(0, 4),
    light=(0.1, 0.6),
    contrast=(0.5, 1.5),
    gamma=(0.5, 2.0),
    colour=(0.8, 1.2),
    noise=(1, 20),
    jpeg_quality=(30, 60),
)


def noise_pages(channels, height, width):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, channels, height, width), generator=draw, dtype=torch.uint8)


def test_what_is_switched_off_leaves_other_draws_alone():
    ids, page = np.arange(4), (60, 80)
    whole = at.image_plan(SPEC, 3, ids, page, page)
    off = {field.name: field.default for field in dataclasses.fields(SPEC)}
    for name, columns in (("blur_px", (10, 18)), ("light", (18, 22)), ("noise", (46, 47))):
        spec = ImageAugmentSpec(**{**off, name: getattr(SPEC, name)})
        alone = at.image_plan(spec, 3, ids, page, page)[:, slice(*columns)]
        assert np.array_equal(alone, whole[:, slice(*columns)])


def test_a_plan_does_not_know_its_batch():
    ids = np.array([5, -7, 2**50, *range(34)])
    for spec in (SPEC, ImageAugmentSpec(), dataclasses.replace(SPEC, rotation_degrees=(0, 0))):
        for size in ((60, 80), (48, 64)):
            whole = at.image_plan(spec, 3, ids, (60, 80), size)
            for n in range(0, len(ids), 3):
                alone = at.image_plan(spec, 3, ids[n : n + 1], (60, 80), size)
                assert np.array_equal(alone[0], whole[n])
            assert set(whole[:, at.SAMPLES]) <= {0, 1, 2}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_a_quarter_turn(device, turns):
    pages = noise_pages(3, 66, 66).to(device)
    degrees = 90.0 * turns
    spec = ImageAugmentSpec(rotation_degrees=(degrees, degrees))
    drawn = image_augment(pages, spec, seed=1, dtype=torch.uint8)
    assert torch.equal(drawn, torch.rot90(pages, turns, (2, 3)))


def test_corners_of_the_output_lie_where_they_were_drawn():
    spec = ImageAugmentSpec(rotation_degrees=(-180, 180), perspective=0.24, crop_area=(0.1, 1))
    draws = np.random.default_rng(0)
    quad = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * [300.0, 200.0]
    quad = quad + draws.uniform(-40, 40, (50, 4, 2))
    ends = np.array([(0, 0, 1), (77, 0, 1), (77, 55, 1), (0, 55, 1.0)])
    placed = np.einsum("nij,kj->nki", at.homography(quad, (55, 77)), ends)
    np.testing.assert_allclose(placed[..., :2] / placed[..., 2:], quad, rtol=0, atol=1e-9)
    plan = at.image_plan(spec, 1, np.arange(2000), (200, 300), (55, 77))
    depth = np.einsum("nij,kj->nki", plan[:, :9].reshape(-1, 3, 3), ends)[..., 2]
    assert depth.min() > 0  # nowhere beyond the horizon


def test_a_crop_shows_the_share_that_was_asked_for():
    spec = ImageAugmentSpec(crop_area=(0.25, 0.25))
    page = torch.arange(80.0).div(80).expand(200, 1, 60, 80)
    drawn = image_augment(page, spec, seed=1)[:, 0]
    span = 80 * (drawn[:, 30, 78] - drawn[:, 30, 1])  # the outermost are half paper
    torch.testing.assert_close(span, torch.full((200,), 77 / 2), rtol=0, atol=1e-3)
    left = 80 * drawn[:, 30, 1].double() + 0.5 - 0.75  # pixel i has its middle at i + 1/2
    assert stats.kstest(left.numpy(), stats.uniform(0, 40).cdf).pvalue > 1e-3


def test_thin_lines_pale_but_do_not_break():
    """Of a line of one pixel in five a fifth of its ink is left, wherever it lies."""
    pages = torch.full((1, 1, 500, 500), 255, dtype=torch.uint8)
    pages[..., 101, :] = 0
    drawn = 1 - image_augment(pages, ImageAugmentSpec(), seed=1, size=(100, 100))
    torch.testing.assert_close(drawn.sum(dim=2), torch.full((1, 1, 100), 0.2), rtol=0, atol=0.06)


@pytest.mark.parametrize("sd", [0.3, 1.0, 1.7, 2.0])
def test_a_blur_has_the_sd_that_was_asked_for(device, sd):
    pages = torch.zeros(1, 1, 21, 21, device=device)
    pages[..., 10, 10] = 1
    drawn = image_augment(pages, ImageAugmentSpec(blur_px=(sd, sd)), seed=1).double().cpu()[0, 0]
    away = torch.arange(21) - 10.0
    assert float(drawn.sum()) == pytest.approx(1, abs=1e-5)
    for axis in (0, 1):
        assert float((drawn.sum(axis) * away**2).sum()) ** 0.5 == pytest.approx(sd, rel=1e-3)


def test_noise_is_white_and_has_the_sd_that_was_asked_for(device):
    pages = torch.full((1, 3, 96, 100), 0.5, device=device)
    z = 255 / 10 * (image_augment(pages, ImageAugmentSpec(noise=(10, 10)), seed=3) - 0.5).double()
    assert stats.kstest(z.flatten().cpu().numpy(), "norm").pvalue > 1e-3
    for lag in (1, 8, 32):
        for axis in (2, 3):
            r = (z * z.roll(lag, axis)).mean()
            assert abs(r) < 4.5 / math.sqrt(z.numel())
    assert abs((z[:, 0] * z[:, 1]).mean()) < 4.5 / math.sqrt(z[:, 0].numel())


def test_draws_fill_their_ranges():
    spec, many = SPEC, 20_000
    plan = at.image_plan(spec, 9, np.arange(many), (50, 50), (50, 50))
    angle = np.degrees(np.arctan2(-plan[:, at.MAP + 1], plan[:, at.MAP]))
    for values, (low, high) in (
        (angle, spec.rotation_degrees),
        (plan[:, at.SD], spec.noise),
        (plan[:, at.GAMMA], spec.gamma),
        (plan[:, at.LIGHT + 3], spec.light),
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    folds = (plan[:, at.FOLDS : at.TONED].reshape(many, 4, 4)[..., 3] > 0).sum(axis=1)
    assert stats.chisquare(np.bincount(folds, minlength=5)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(plan[:, at.QUALITY].astype(int))[30:]).pvalue > 1e-3


def test_a_fold_is_darkest_at_a_third_of_its_width(device):
    pages = torch.ones(1, 1, 200, 200, device=device)
    words = dict(crease_count=(1, 1), crease_depth=(0.4, 0.4), crease_width=(0.1, 0.1))
    drawn = image_augment(pages * 0.5, ImageAugmentSpec(**words), seed=2)
    assert float(drawn.min()) == pytest.approx(0.5 * 0.6, abs=1e-3)
    assert float(drawn.max()) == pytest.approx(0.5 * (1 + 0.4 * 0.2074), abs=1e-3)
    light = image_augment(pages, ImageAugmentSpec(light=(0.5, 0.5)), seed=2)
    assert 0.5 <= float(light.min()) < 0.51  # of pixels' centres, not of the corner
    assert 1 >= float(light.max()) > 0.9999


@pytest.mark.parametrize("quality", [1, 35, 50, 80, 100])
def test_loss_is_that_of_a_dct_to_the_nearest_step(device, quality):
    pages = noise_pages(1, 32, 40).to(device)
    spec = ImageAugmentSpec(jpeg_quality=(quality, quality))
    drawn = 255 * image_augment(pages, spec, seed=1).double().cpu().numpy()[0, 0]
    steps = at.jpeg_steps(at.LUMA_STEPS, np.array([quality])).reshape(8, 8)
    blocks = pages.cpu().numpy()[0, 0].astype(float).reshape(4, 8, 5, 8).transpose(0, 2, 1, 3) - 128
    shares = fft.dctn(blocks, axes=(2, 3), norm="ortho") / steps
    back = fft.idctn(np.rint(shares) * steps, axes=(2, 3), norm="ortho")
    expected = np.clip(back + 128, 0, 255)
    near = np.abs(shares - np.floor(shares) - 0.5).min(axis=(2, 3)) < 1e-3
    away = np.abs(expected - drawn.reshape(4, 8, 5, 8).transpose(0, 2, 1, 3))[~near]
    assert near.mean() < 0.75  # levels are whole numbers: ties are no rarity
    assert away.max() < 1e-3
    if quality == 100:  # each coefficient is off by half at most
        assert np.abs(drawn - pages.cpu().numpy()[0, 0]).max() <= 4


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_loss_is_that_of_libjpeg(channels, quality):
    """But for whole numbers: it has no others for Y, Cb, Cr, between its sums, and for levels."""
    words = dict(fs=100.0, size=(152, 201), channels=channels)
    pages = rasterize_ecg(make_ecg(1, 12, 500), **words).images
    page = pages[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(page.squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
    theirs = np.asarray(Image.open(file)).reshape(page.shape).astype(float)
    spec = ImageAugmentSpec(jpeg_quality=(quality, quality))
    ours = 255 * image_augment(pages, spec, seed=1)[0].permute(1, 2, 0).double().numpy()
    away = np.abs(ours - theirs).mean()
    assert away < (0.6 if channels == 1 else 1.5)
    if quality < 90:
        assert away < 0.35 * np.abs(page - ours).mean()


def test_white_paper_stays_flat_and_grey_through_a_jpeg(device):
    """Also at quality 50, where its mean lies in the middle between two steps."""
    pages = torch.full((1, 3, 33, 20), 255, dtype=torch.uint8, device=device)
    for quality in (10, 50, 90):
        spec = ImageAugmentSpec(jpeg_quality=(quality, quality))
        drawn = image_augment(pages, spec, seed=1, dtype=torch.uint8)
        truth = image_augment_reference(pages, spec, seed=1, dtype=torch.uint8)
        assert torch.equal(drawn.cpu(), truth)
        assert torch.equal(drawn, drawn[:, :1, :1, :1].expand_as(drawn))


def test_steps_are_those_of_the_standard():
    steps = at.jpeg_steps(at.LUMA_STEPS, np.array([50, 100, 1, 25]))
    assert np.array_equal(steps[0], at.LUMA_STEPS)
    assert (steps[1] == 1).all()
    assert (steps[2] == 255).all()
    assert steps[3, 0] == 32


def test_the_reference_decodes_what_it_encodes():
    plan = at.image_plan(ImageAugmentSpec(jpeg_quality=(90, 90)), 1, np.arange(1), (16, 9), (16, 9))
    levels = noise_pages(3, 16, 9)[0].double().numpy()
    np.testing.assert_allclose(decoded(coefficients(levels, plan[0]), plan[0], (16, 9)), levels,
                               rtol=0, atol=1e-9)  # fmt: skip
