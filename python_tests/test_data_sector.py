"""The sector of a loop and nothing around it; frames brought to a size, a colour and a rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.config.clips import ClipFit
from ecgfast.data.fan import Fan
from ecgfast.data.page_fit import area_means
from ecgfast.data.records import BadRecord, Video
from ecgfast.data.sector import find_sector, fit_video, sector_mask
from ecgfast.data.videos import VideoReading, read_video
from python_tests.conftest import shared_data
from python_tests.echo_files import fan_mask, film, made_loop

WHOLE = ClipFit(mask="none")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: nothing of torch."""


def overlap(found, true):
    return (found & true).sum() / (found | true).sum()


def names(issues):
    return [issue.name for issue in issues]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(112, 112), (240, 320), (430, 600)]),
    half=st.floats(0.38, 0.8),
    near=st.floats(0.01, 0.16),
    across=st.floats(0.42, 0.58),
    strip=st.sampled_from(["sweep", "scroll", "none"]),
    tint=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_made_sectors_are_found(shape, half, near, across, strip, tint, seed):
    """SYNTHETIC, over sizes, angles, probes, places; chambers and a corner of it stand still."""
    apex = (0.04 * shape[0], across * shape[1])
    words = {"half": half, "near": near * shape[0], "apex": apex, "strip": strip, "tint": tint}
    pixels, true = made_loop(8, shape, seed=seed, **words)
    sector = find_sector(pixels)
    assert overlap(sector.mask, true) >= 0.9
    assert sector.fan


def test_what_is_written_around_it_goes():
    """Names, ruler, bar and the moving trace, as far as they lie outside of the sector."""
    pixels, true = made_loop(12, (430, 600), strip="sweep")
    bare, _ = made_loop(12, (430, 600), strip="none", text=False)
    written = (pixels != bare).any(axis=(0, 3))
    mask = sector_mask(pixels)
    grown = np.hypot(*np.gradient(true.astype(float))) > 0
    beyond = written & ~true & ~grown
    assert beyond.sum() > 3000
    assert (mask & beyond).sum() <= 0.002 * beyond.sum()


def test_apex_below():
    pixels, true = made_loop(10)
    sector = find_sector(np.ascontiguousarray(pixels[:, ::-1]))
    assert sector.fan
    assert overlap(sector.mask, true[::-1]) > 0.95


def test_steered_sectors():
    """Other angles to the left and to the right."""
    pixels, _ = made_loop(10, half=0.9)
    true = fan_mask((240, 320), (9.6, 160), 0.6, 4, 206, tilt=0.15)
    pixels[:, ~true] = 0
    assert overlap(sector_mask(pixels), true) > 0.9


def test_a_codec_that_makes_text_tremble(tmp_path):
    pixels, true = made_loop(16)
    (tmp_path / "clip.mp4").write_bytes(film(pixels, "mp4", codec="mpeg4"))
    video = read_video(tmp_path, "clip.mp4", VideoReading())
    assert (video.pixels[3] != pixels[3, ..., : video.pixels.shape[3]]).any()
    assert overlap(sector_mask(video.pixels), true) > 0.9


def test_the_region_of_the_header_bounds_it():
    left, true = made_loop(8, (240, 320))
    two = np.concatenate([left, left[::-1]], axis=2)
    mask = sector_mask(two, (0, 320, 240, 640))
    assert overlap(mask[:, 320:], true) > 0.9
    assert not mask[:, :310].any()


def test_a_rectangle_is_kept_as_its_hull():
    draws = np.random.default_rng(0)
    pixels = np.zeros((6, 120, 160, 1), np.uint8)
    pixels[:, 20:100, 30:140] = draws.integers(0, 255, (6, 80, 110, 1))
    sector = find_sector(pixels)
    true = np.zeros((120, 160), bool)
    true[20:100, 30:140] = True
    assert not sector.fan
    assert overlap(sector.mask, true) > 0.9
    _, _, issues = fit_video(Video(pixels, "NPY"), ClipFit())
    assert names(issues) == ["sector_unsure"]


def test_where_there_is_none():
    pixels, true = made_loop(8)
    still = np.repeat(pixels[:1], 8, axis=0)
    still[:, 100:110, 100:110] = np.arange(8, dtype=np.uint8)[:, None, None, None] * 30
    with pytest.raises(BadRecord, match="no_sector") as said:
        sector_mask(still)
    assert "--mask none" in said.value.issue.message
    frame = pixels.copy()
    frame[:, true] = 0  # a ring of noise is no sector
    frame[:, 10:16], frame[:, -16:-10] = pixels[:, 100:106], pixels[:, 100:106]
    with pytest.raises(BadRecord, match="no_sector"):
        fit_video(Video(frame, "NPY"), ClipFit())


def test_depth_is_the_distance_to_the_nearest_edge():
    fan = Fan(x=50.0, y=0.0, left=0.5, right=0.5, near=10.0, far=80.0)
    y, x = np.array([45.0, 5.0, 79.0, 85.0]), np.array([50.0, 50.0, 50.0, 50.0])
    np.testing.assert_allclose(fan.depth(y, x), [45 * np.sin(0.5), -5, 1, -5])
    inside = fan_mask((100, 100), (0, 50), 0.5, 10, 80)
    assert (fan.inside((100, 100)) != inside).mean() < 0.001


@pytest.mark.parametrize("shape", [(224, 224), (100, 162), (430, 600), (60, 50)])
@pytest.mark.parametrize("grey", [True, False])
def test_every_pixel_is_the_mean_of_its_area(shape, grey):
    """Against the area means that pages are scaled by, on the frame made square with black."""
    pixels = np.random.default_rng(3).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    side = max(shape)
    square = np.zeros((3, side, side, 3))
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    square[:, top : top + shape[0], left : left + shape[1]] = pixels
    frames, row, issues = fit_video(Video(pixels, "NPY"), ClipFit(mask="none", grey=grey, size=48))
    means = area_means(area_means(square, 48, 1), 48, 2)
    means = means @ np.array([[0.299], [0.587], [0.114]]) if grey else means
    expected = np.moveaxis(means, -1, 1)
    assert frames.shape == (len(pixels), 1 if grey else 3, 48, 48)
    assert np.abs(frames - expected).max() <= 0.51
    assert "no_sector" not in names(issues)
    assert (row["height_source"], row["width_source"]) == pixels.shape[1:3]


def test_enlarged_frames_lie_on_straight_lines():
    ramp = np.tile(np.arange(0, 240, 8, dtype=np.uint8)[:, None], (2, 1, 30))[..., None]
    frames, _, _ = fit_video(Video(ramp, "NPY"), ClipFit(mask="none", size=120))
    inner = frames[0, 0, 4:-4, 60].astype(float)
    assert np.abs(np.diff(inner) - 2).max() <= 1
    assert frames[0, 0, 60, 60] == pytest.approx(8 * (60.5 / 4 - 0.5), abs=1)


def test_spacing_follows_the_size():
    """A phantom of 40 mm stays 40 mm; pixels that are not square become so."""
    pixels = np.zeros((2, 200, 100, 1), np.uint8)
    pixels[0, 80:120, 40:60] = 255  # 40 rows of 0.5 mm, 20 columns of 1 mm: 20 x 20 mm
    video = Video(pixels, "NPY", spacing_mm=(0.5, 1.0))
    frames, row, _ = fit_video(video, ClipFit(mask="none", size=50))
    assert row["spacing_mm"] == pytest.approx(2.0)
    rows, columns = (frames[0, 0] > 128).any(axis=1).sum(), (frames[0, 0] > 128).any(axis=0).sum()
    assert (rows, columns) == (10, 10)
    _, row, _ = fit_video(Video(pixels, "NPY"), ClipFit(mask="none"))
    assert np.isnan(row["spacing_mm"])


def numbered(count, **words):
    pixels = np.zeros((count, 32, 32, 1), np.uint8)
    pixels[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Video(pixels, "NPY", **words)


def shown(video, fps):
    frames, row, issues = fit_video(video, ClipFit(mask="none", size=8, fps=fps))
    return frames[:, 0, 4, 4].tolist(), row["fps"], names(issues)


def test_frames_nearest_in_time():
    assert shown(numbered(7, fps=60.0), 30) == ([0, 2, 4, 6], 30, [])
    assert shown(numbered(3, fps=10.0), 20) == ([0, 0, 1, 1, 2], 20, ["low_frame_rate"])
    assert shown(numbered(4, fps=30.2), 30) == ([0, 1, 2], 30, [])
    uneven = numbered(4, fps=25.0, seconds=np.array([0, 0.04, 0.19, 0.24]))
    assert shown(uneven, 25)[0] == [0, 1, 1, 2, 2, 2, 3]
    assert shown(numbered(4), 0) == ([0, 1, 2, 3], 0, [])
    frames, fps, said = shown(numbered(4), 25)
    assert (frames, fps, said) == ([0, 1, 2, 3], 0, ["fps_unknown"])
    endless = numbered(4, fps=25.0, seconds=np.array([0, 0.04, 0.08, 1e9]))
    with pytest.raises(BadRecord, match="mixed_rates"):
        shown(endless, 25)


@pytest.mark.parametrize("grey", [True, False])
def test_flow_in_colours(grey):
    """Where grey is asked for it is an error, that a policy may keep; a tint is no flow."""
    fit = ClipFit(grey=grey)
    plain, _ = made_loop(8)
    assert names(fit_video(Video(plain, "NPY"), fit)[2]) == []
    tinted, _ = made_loop(8, tint=True)
    assert names(fit_video(Video(tinted, "NPY"), fit)[2]) == []
    flow, _ = made_loop(8, flow=True)
    frames, _, issues = fit_video(Video(flow, "NPY"), fit)
    assert names(issues) == ["colour_doppler"]
    assert issues[0].severity == ("error" if grey else "warning")
    assert ("--policy colour_doppler=keep" in issues[0].message) == grey
    assert frames.shape == (8, *fit.shape)


def test_outside_is_black_and_the_box_is_the_sectors():
    pixels, _ = made_loop(8, (240, 320))
    video = Video(pixels, "NPY", patient_id="p", study_id="s", view="A4C", source_sha256="0" * 64)
    frames, row, _ = fit_video(video, ClipFit())
    lit = (frames > 0).any(axis=(0, 1))
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) >= 109
    assert (frames[:, :, :8, :30] == 0).all()
    assert (frames[:, :, :8, -30:] == 0).all()
    assert (frames[:, :, -3:, :8] == 0).all()
    kept = {"patient_id": "p", "study_id": "s", "view": "A4C", "frames_source": 8}
    assert kept.items() <= row.items()
    assert (row["form_source"], row["source_sha256"]) == ("NPY", "0" * 64)


REAL = {  # apex and corners of the sectors (x, y) as read off the frames by eye
    "a4c_sonosite_30fr_examples_ybr_color.dcm": [(168, 18), (39, 152), (299, 152), (168, 201)],
    "plax_colour_acme_10fr_US-PAL-8-10x-echo.dcm": [(300, 12), (92, 275), (514, 275), (300, 352)],
    "alax_colour_vivid_e95_27fr_will-jxl.dcm": [(508, 78), (152, 537), (865, 537), (508, 654)],
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_clips(name):
    if "jxl" in name:
        pytest.importorskip("imagecodecs", reason="the extra ecgfast[echo] is not installed")
    video = read_video(shared_data("echo-dicom"), name, VideoReading())
    sector = find_sector(video.pixels, video.region)
    assert sector.fan
    height, width = sector.mask.shape
    (x, top), left, right, (_, bottom) = REAL[name]
    rows, columns = np.flatnonzero(sector.mask.any(1)), np.flatnonzero(sector.mask.any(0))
    near = 0.025 * max(height, width)
    assert abs(columns[0] - left[0]) < near
    assert abs(columns[-1] - right[0]) < near
    assert abs(rows[-1] - bottom) < near
    assert rows[0] - top < 2 * near
    assert abs(np.flatnonzero(sector.mask[rows[0] + 2]).mean() - x) < near
    issues = fit_video(video, ClipFit())[2]
    assert names(issues) == ([] if name.startswith("a4c") else ["colour_doppler"])


def test_small_frames_do_not_grow_beyond_the_limit():
    """A million frames of 16 x 16 pixels may be read; made larger they would be 13 GB."""
    pixels = np.broadcast_to(np.uint8(7), (2**20, 16, 16, 1))
    for fit, text in (
        (ClipFit(mask="none"), "13153337344"),
        (ClipFit(size=8, mask="none"), "67108864"),
    ):
        with pytest.raises(BadRecord, match=text) as said:
            fit_video(Video(pixels, "NPY"), fit)
        assert said.value.issue.name == "size_limit"
