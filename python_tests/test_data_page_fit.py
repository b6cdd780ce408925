"""From a scanned page to the one that a model takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecgfast.data.page_fit import PageFit, find_border, fit_page, paper_colour, parse_crop
from ecgfast.data.records import DataError, Page
from ecgfast.ops import PageStyle, rasterize_ecg
from python_tests.page_files import drawn


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: a page is a big tensor."""


def as_page(pixels):
    return Page(np.ascontiguousarray(pixels), "PNG")


def means(pixels, height, width):
    """The mean over the area that each pixel covers, by sums of shares, in float64."""

    def weights(many, few):
        edges = np.arange(few + 1) * many / few
        low = np.maximum.outer(edges[:-1], np.arange(many))
        high = np.minimum.outer(edges[1:], np.arange(1, many + 1))
        return np.clip(high - low, 0, None) * few / many

    down, across = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    return np.einsum("ih,hwc->ciw", down, pixels.astype(float)) @ across.T


@pytest.mark.parametrize("size", [(64, 64), (170, 30), (37, 219), (170, 220)], ids=str)
def test_a_pixel_is_the_mean_of_its_area(size):
    page = drawn()[0]
    out, issues = fit_page(as_page(page), PageFit(height=size[0], width=size[1], aspect="stretch"))
    assert out.dtype == np.uint8
    assert np.abs(out - means(page, *size)).max() <= 0.501
    assert not issues


def test_no_line_is_lost_however_much_a_page_shrinks():
    """Lines of one pixel, 7.4 to an output pixel: four samples a pixel would miss some of them."""
    page = np.full((740, 740, 1), 255, np.uint8)
    lines = np.arange(3, 740, 37)
    page[:, lines] = 0
    out, _ = fit_page(as_page(page), PageFit(height=100, width=100, grey=True))
    lost = (255 - out[0, 0].astype(float)) / 255 * 7.4
    for line in lines:
        near = int(line / 7.4)
        assert lost[max(0, near - 1) : near + 2].sum() == pytest.approx(1, abs=0.05)


def test_the_grid_of_a_scan_pales_as_a_drawn_one():
    """Means of areas are how the grid is drawn: drawn large and shrunk is as drawn small."""
    style = PageStyle(names=False, pulse=False, separators=False, footer="", px_per_mm=1.0)
    empty = torch.full((1, 12, 500), torch.nan)
    small = rasterize_ecg(empty, fs=100, size=(200, 250), style=style).images[0].numpy()
    larger = PageStyle(names=False, pulse=False, separators=False, footer="", px_per_mm=7.0)
    large = rasterize_ecg(empty, fs=100, size=(1400, 1750), style=larger).images[0]
    out, _ = fit_page(as_page(np.moveaxis(large.numpy(), 0, -1)), PageFit(height=200, width=250))
    assert small.std() > 5
    assert np.abs(out.astype(int) - small).mean() < 1.5


def test_a_mm_stays_as_long_across_as_down():
    page = drawn(size=(100, 200))[0]
    out, _ = fit_page(as_page(page), PageFit(height=80, width=80))
    np.testing.assert_array_equal(
        out[:, 20:60], fit_page(as_page(page), PageFit(height=40, width=80))[0]
    )
    paper = paper_colour(np.moveaxis(out[:, 20:60], 0, -1))
    for rest in (out[:, :20], out[:, 60:]):
        assert (rest == paper[:, None, None]).all()
    tall = drawn(size=(200, 100))[0]
    out, _ = fit_page(as_page(tall), PageFit(height=80, width=80))
    assert (out[:, :, :20] == out[:, :1, :1]).all()


def test_colours():
    page = drawn()[0]
    grey, _ = fit_page(as_page(page), PageFit(height=170, width=220, grey=True))
    luma = page @ np.array([0.299, 0.587, 0.114])
    assert grey.shape == (1, 170, 220)
    assert np.abs(grey[0] - luma).max() <= 1
    colour, _ = fit_page(as_page(page[..., :1]), PageFit(height=170, width=220))
    assert colour.shape == (3, 170, 220)
    assert (colour == page[..., 0]).all()


def test_what_is_enlarged_says_so():
    page = drawn(size=(100, 120))[0]
    out, issues = fit_page(as_page(page), PageFit(height=200, width=200))
    assert out.shape == (3, 200, 200)
    assert [(i.name, i.severity) for i in issues] == [("low_resolution", "warning")]
    assert "120 x 100 pixels were enlarged to 200 x 167" in issues[0].message
    assert len(np.unique(out)) > 50  # joined by lines, not repeated


def test_a_border_of_one_colour_is_trimmed():
    """A page on a scanner: white above and at the right, the black lid at the left and below."""
    page = np.maximum(drawn(size=(400, 500))[0], 90)
    scan = np.full((500, 620, 3), 255, np.uint8)
    scan[:, :70] = 4
    scan[460:] = 4
    scan[60:460, 70:570] = page
    draws = np.random.default_rng(0)
    scan = np.clip(scan + draws.integers(-6, 7, scan.shape), 0, 255).astype(np.uint8)
    scan[10, 300] = 0  # a speck of dust
    left, top, right, bottom = find_border(scan)
    assert 70 - 7 <= left <= 70
    assert 60 - 6 <= top <= 60 + 40  # of the drawn page no line near its edge need be found
    assert 460 <= bottom <= 460 + 6
    assert 570 - 20 <= right <= 570 + 7
    out, issues = fit_page(as_page(scan), PageFit(height=100, width=100, crop="auto"))
    assert not issues
    plain, _ = fit_page(as_page(scan), PageFit(height=100, width=100))
    assert (plain < 20).mean() > 0.1  # of the lid, of which a margin of a hundredth is left:
    assert (out < 20).mean() < 0.03


def test_a_page_without_a_border_stays_as_it_is():
    draws = np.random.default_rng(0)
    table = draws.integers(60, 200, (200, 300, 3), dtype=np.uint8)  # the grain of a table
    table[40:160, 50:250] = 250
    assert find_border(table) == (0, 0, 300, 200)
    blank = np.full((200, 300, 3), 200, np.uint8)
    assert find_border(blank) == (0, 0, 300, 200)


def test_too_little_left_is_not_believed():
    scan = np.full((400, 400, 3), 255, np.uint8)
    scan[190:210, 190:210] = 0
    out, issues = fit_page(as_page(scan), PageFit(height=100, width=100, crop="auto"))
    assert [issue.name for issue in issues] == ["crop_unsure"]
    assert out[0, 50, 50] == 0
    assert out[0, 10, 10] == 255


def test_a_box_by_hand():
    page = drawn(size=(200, 400))[0]
    whole = PageFit(height=50, width=50, aspect="stretch")
    cut = fit_page(as_page(page[20:180, 100:300]), whole)[0]
    for words in ("0.25,0.1,0.75,0.9", "100,20,300,180"):
        fit = PageFit(height=50, width=50, aspect="stretch", crop=parse_crop(words))
        np.testing.assert_array_equal(fit_page(as_page(page), fit)[0], cut)
    outside = PageFit(height=50, width=50, crop=(500, 0, 600, 100))
    with pytest.raises(DataError, match=r"crop.*500,0,600,100 .* page of 400 x 200"):
        fit_page(as_page(page), outside)


def test_words_for_a_crop():
    assert parse_crop("auto") == "auto"
    assert parse_crop("none") == "none"
    assert parse_crop("0, 0.1,1,1") == (0.0, 0.1, 1.0, 1.0)
    for wrong in ("", "1,2,3", "0.5,0,0.2,1", "-1,0,1,1", "a,b,c,d", "0,0,nan,1", "0,0,inf,1"):
        with pytest.raises(DataError, match="LEFT,TOP,RIGHT,BOTTOM"):
            parse_crop(wrong)


@pytest.mark.parametrize(
    "wrong", [{"height": 7}, {"width": 5000}, {"aspect": "cut"}, {"crop": "all"}], ids=str
)
def test_fit_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PageFit(**{"height": 100, "width": 100, **wrong})
