"""rasterize_ecg against its reference, and what can be read back from a page."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks

from ecgfast.config import LEADS
from ecgfast.ops import _page
from ecgfast.ops.rasterize_ecg import (
    LAYOUTS,
    PageLayout,
    PageStyle,
    layout_named,
    rasterize_ecg,
    rasterize_ecg_reference,
)
from ecgfast.testing import make_ecg
from python_tests.conftest import shared_data

PLAIN = PageStyle(grid="none", names=False, pulse=False, separators=False, footer="")
WILD = PageStyle(
    mm_per_s=50,
    mm_per_mv=20,
    grid="5mm",
    paper=(200, 255, 10),
    coarse=(0, 90, 3.5),
    ink=(250, 0, 120),
    coarse_mm=2.0,
    line_mm=1.7,
    header="SYNTHETIC: 0123456789 aVR, +-=/_ <(?)>",
    footer="Z",
    overflow="clip",
)
BANDS = PageStyle(fine_mm=1.0, coarse_mm=4.9, fine=(0, 0, 0), line_mm=0.01)
STYLES = {"default": PageStyle(), "plain": PLAIN, "wild": WILD, "bands": BANDS}
PARTS = ("look", "strips", "strokes", "groups")
# (H, W): a pixel, under a tile, over tiles and odd, the usual
SIZES = [(1, 1), (31, 45), (70, 133), (128, 192)]


def assert_alike(images, ecg, **words):
    """Half a level from rounding ink to 255ths, half from rounding a byte; on the whole nothing."""
    truth = rasterize_ecg_reference(ecg, **{**words, "dtype": torch.float64}).double()
    assert images.shape == truth.shape
    allowed = 0.5 + 1e-3
    if images.dtype == torch.uint8:
        images, allowed = images.double() / 255, allowed + 0.5
    else:
        allowed += 255 * torch.finfo(images.dtype).eps
    away = 255 * (images.double().cpu() - truth)
    assert away.abs().max() <= allowed
    if images.dtype == torch.float32:
        assert away.mean().abs() < 0.05


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("style", STYLES)
def test_matches_reference(device, size, style):
    ecg = make_ecg(2, 12, 300, device=device)
    for dtype in (torch.uint8, torch.float32):
        words = dict(fs=100.0, size=size, style=STYLES[style], dtype=dtype)
        assert_alike(rasterize_ecg(ecg, **words).images, ecg, **words)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_layout_matches_reference(device, layout, channels):
    ecg = 2 * make_ecg(1, 12, 400, device=device)
    words = dict(fs=125.0, size=(90, 120), layout=layout, channels=channels)
    assert_alike(rasterize_ecg(ecg, **words).images, ecg, **words)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_floats_are_from_0_to_1(device, dtype):
    ecg = make_ecg(2, 12, 300, device=device)
    words = dict(fs=100.0, size=(60, 81), dtype=dtype)
    images = rasterize_ecg(ecg, **words).images
    assert_alike(images, ecg, **words)
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_any_float_is_drawn(device, dtype):
    ecg = make_ecg(2, 12, 300, device=device, dtype=dtype)
    words = dict(fs=100.0, size=(60, 81))
    assert_alike(rasterize_ecg(ecg, **words).images, ecg, **words)


@pytest.mark.parametrize("fs", [20.0, 100.0, 1000.0])
def test_every_instruction_set_matches_reference(isa, fs):
    ecg = make_ecg(2, 12, int(3 * fs))
    ecg[0, 3, 5:9] = torch.nan
    words = dict(fs=fs, size=(150, 170), style=[PageStyle(), WILD])
    assert_alike(rasterize_ecg(ecg, **words).images, ecg, **words)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    samples=st.integers(1, 60),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    mv=st.floats(0, 50),
    gaps=st.floats(0, 0.5),
    line=st.floats(0.01, 8),
    speed=st.floats(1, 200),
    clip=st.booleans(),
)
def test_anything_that_can_be_asked_for(seed, samples, height, width, mv, gaps, line, speed, clip):
    draw = np.random.default_rng(seed)
    ecg = mv * draw.normal(size=(1, 12, samples))
    ecg[draw.random(ecg.shape) < gaps] = draw.choice([np.nan, np.inf, -np.inf, 1e30])
    style = PageStyle(mm_per_s=speed, line_mm=line, overflow="clip" if clip else "overlap")
    layout = LAYOUTS[draw.choice(sorted(LAYOUTS))].shuffled(seed)
    words = dict(fs=float(draw.uniform(1, 300)), size=(height, width), style=style, layout=layout)
    ecg = torch.from_numpy(ecg)
    assert_alike(rasterize_ecg(ecg, **words).images, ecg, **words)


def test_records_do_not_mix_and_threads_do_not_show(device):
    ecg = make_ecg(5, 12, 300, device=device)
    styles = [PageStyle(), WILD, PLAIN, BANDS, dataclasses.replace(WILD, grid="mm")]
    layouts = ["12x1", "3x4+3", LAYOUTS["6x2"].shuffled(1), "3x4", PageLayout((("V1",),))]
    words = dict(fs=100.0, size=(70, 90))
    together = rasterize_ecg(ecg, style=styles, layout=layouts, **words)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for n in range(5):
            alone = rasterize_ecg(ecg[n : n + 1], style=styles[n], layout=layouts[n], **words)
            assert torch.equal(alone.images[0], together.images[n])
            assert alone.boxes[0] == together.boxes[n]
            assert alone.px_per_mm[0] == together.px_per_mm[n]
    finally:
        torch.set_num_threads(before)


def test_strides_do_not_show(device):
    ecg = make_ecg(4, 24, 600, device=device)
    odd = ecg[::2, ::2, ::2]
    words = dict(fs=100.0, size=(60, 80))
    expected = rasterize_ecg(odd.contiguous(), **words).images
    assert torch.equal(rasterize_ecg(odd, **words).images, expected)
    turned = odd.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(rasterize_ecg(turned, **words).images, expected)


def test_no_record_no_page(device):
    pages = rasterize_ecg(torch.zeros(0, 12, 100, device=device), fs=100.0, size=(20, 30))
    assert pages.images.shape == (0, 3, 20, 30)
    assert pages.boxes == ()


def test_compiles_and_passes_opcheck():
    ecg = make_ecg(2, 12, 200)
    plan = [_page.page_plan(LAYOUTS["3x4"], PLAIN, (40, 50), LEADS, 100.0, 200)] * 2
    numbers = [torch.from_numpy(np.stack([getattr(one, part) for one in plan])) for part in PARTS]
    torch.library.opcheck(torch.ops.ecgfast.rasterize_ecg, (ecg, *numbers, 40, 50, 3, torch.uint8))
    drawn = torch.compile(lambda x: 2 * rasterize_ecg(x, fs=100.0, size=(40, 50)).images)
    assert torch.equal(drawn(ecg), 2 * rasterize_ecg(ecg, fs=100.0, size=(40, 50)).images)


# ---- what can be read back


def ink_of(ecg, **words):
    """Pages of ink on white, and the boxes; 1 is ink."""
    style = dataclasses.replace(PLAIN, ink=(0, 0, 0), paper=(255, 255, 255), line_mm=0.01)
    pages = rasterize_ecg(ecg, style=style, channels=1, dtype=torch.float32, **words)
    return 1 - pages.images[:, 0].double().cpu(), pages.boxes


@pytest.mark.parametrize("size", [(1700, 2200), (425, 550)], ids=str)
def test_a_value_is_read_back_from_its_column(device, size):
    """Flat leads, so that the centre of a column's ink is the baseline less the value."""
    values = torch.linspace(-0.7, 0.7, 12, device=device)
    ecg = values[None, :, None].expand(1, 12, 1000)
    ink, (boxes,) = ink_of(ecg, fs=100.0, size=size, layout="6x2")
    rows = torch.arange(size[0]) + 0.5
    for box in boxes:
        column = ink[0, :, round((box.left + box.right) / 2)].clone()
        column[: math.floor(box.top)] = 0
        column[math.ceil(box.bottom) :] = 0
        at = float((column * rows).sum() / column.sum())
        read = (box.baseline - at) / box.px_per_mv
        assert read == pytest.approx(float(values[LEADS.index(box.lead)]), abs=0.5 / box.px_per_mv)
        assert float(column.sum()) == pytest.approx(1, abs=0.02)  # a line of a pixel, wherever


def test_peaks_and_intervals_are_read_back_within_a_pixel(device):
    t = torch.arange(5000, device=device) / 500
    beats = 0.6 * torch.exp(-(((t % 0.8 - 0.4) / 0.01) ** 2))
    ink, (boxes,) = ink_of(beats.expand(1, 12, 5000), fs=500.0, layout="12x1")
    box = boxes[1]
    part = ink[0, math.floor(box.top) : math.ceil(box.bottom)]
    top = torch.where(part > 0.5, torch.arange(len(part))[:, None], len(part)).amin(dim=0)
    for beat in range(12):
        expected = box.x0 + box.dx * 500 * (0.4 + 0.8 * beat)
        begin = round(expected) - 20
        near = top[begin : begin + 41]
        columns = begin + 0.5 + torch.nonzero(near == near.min()).double()
        assert abs(float(columns.mean()) - expected) <= 1
        assert abs(math.floor(box.top) + int(near.min()) - box.baseline + 0.6 * box.px_per_mv) <= 1


def test_real_r_peaks_are_read_back_within_a_pixel():
    """Amplitudes and intervals of real beats, from the page alone where R is known to be.

    An R that is flat or notched within a pixel's height has no place to be read: intervals are of
    those that fall by a pixel within two samples.
    """
    folder = shared_data("ptb-xl-500", "records500")
    heights, intervals = [], []
    for header in sorted(folder.rglob("*.hea")):
        record = wfdb.rdrecord(str(header.with_suffix("")))
        lead = torch.tensor(record.p_signal[:, record.sig_name.index("II")], dtype=torch.float32)
        ink, (boxes,) = ink_of(lead.view(1, 1, -1), fs=500.0, layout="rows:II", leads=("II",))
        box, signal = boxes[0], lead.double().numpy()
        rows = np.where(ink[0].numpy() > 0.25, np.arange(ink.shape[1])[:, None], ink.shape[1])
        top = rows.min(axis=0)
        beats, _ = find_peaks(signal, distance=200, prominence=0.5)
        beats = beats[(beats > 100) & (beats < len(signal) - 100)]
        errors = []
        for beat in beats:
            begin = round(box.x0 + box.dx * beat) - 15  # 76 ms: only this beat's R
            near = top[begin : begin + 31]
            heights.append(box.baseline - near.min() - 0.5 - signal[beat] * box.px_per_mv)
            tip = ink[0, near.min(), begin : begin + 31].numpy()
            at = begin + 0.5 + np.average(np.arange(31), weights=tip)
            aside = np.delete(signal[beat - 38 : beat + 39], range(36, 41)).max()
            sharp = (signal[beat] - aside) * box.px_per_mv > 1
            errors.append(at - box.x0 - box.dx * beat if sharp else np.nan)
        intervals.append(np.diff(errors))
    errors = np.concatenate(intervals)
    errors = errors[np.isfinite(errors)]
    assert len(heights) > 1500
    assert len(errors) > 1000
    assert np.abs(heights).max() <= 1
    assert np.abs(errors).max() <= 1


def test_the_grid_is_5_mm_and_1_mm():
    """Lines of known area, and the pitch by the strongest frequency of a row."""
    style = dataclasses.replace(PLAIN, grid="mm", paper=(0, 0, 0), fine=(255, 255, 255))
    style = dataclasses.replace(style, coarse=(255, 255, 255), fine_mm=0.2, coarse_mm=1e-6)
    ecg = torch.full((1, 12, 2500), torch.nan)
    pages = rasterize_ecg(ecg, fs=250.0, style=style, channels=1, dtype=torch.float32)
    page = pages.images[0, 0].double()
    assert float(page.mean()) == pytest.approx(1 - 0.8**2, abs=0.01)
    row = page[:, :2048].mean(dim=0)
    spectrum = torch.fft.rfft(row - row.mean()).abs()
    found = int(spectrum[150:400].argmax()) + 150
    assert found == pytest.approx(2048 / pages.px_per_mm[0], abs=0.6)


@pytest.mark.parametrize("overflow", ["clip", "overlap"])
def test_what_is_beyond_its_row_is_clipped_or_overlaps(device, overflow):
    ecg = torch.zeros(1, 12, 500, device=device)
    ecg[0, 1, 100:120] = 9.0
    style = dataclasses.replace(PLAIN, overflow=overflow)
    pages = rasterize_ecg(ecg, fs=100.0, style=style, layout="12x1", size=(425, 550), channels=1)
    above, box = pages.boxes[0][0], pages.boxes[0][1]
    columns = slice(round(box.x0 + 105 * box.dx), round(box.x0 + 115 * box.dx))
    between = pages.images[0, 0, : math.floor(box.top) - 1, columns].double()
    flat = float(pages.images[0, 0, : math.floor(box.top) - 1, columns.stop + 20].double().min())
    assert above.bottom == pytest.approx(box.top)
    steep = pages.images[0, 0, : math.floor(above.top) - 1, columns.start - 5 : columns.stop + 5]
    dark = float(steep.double().min()) if steep.numel() else 255.0
    assert flat < 100  # the lead above
    assert (dark < 100) == (overflow == "overlap") or between.numel() == 0


def test_a_gap_is_a_gap_and_a_lead_that_is_not_there_is_blank(device):
    ecg = torch.zeros(1, 12, 500, device=device)
    ecg[0, 0, 200:300] = torch.nan
    ecg[0, 2] = torch.nan
    pages = rasterize_ecg(ecg, fs=100.0, style=PLAIN, layout="12x1", size=(425, 550), channels=1)
    page = pages.images[0, 0].cpu()
    first, second, third = pages.boxes[0][:3]
    at = lambda box, t: int(page[math.floor(box.baseline), round(box.x0 + t * box.dx)])  # noqa: E731
    assert at(first, 150) < 128 < at(first, 250)
    assert at(first, 350) < 128
    assert at(second, 250) < 128 < at(third, 250)


def test_leads_are_found_by_name(device):
    ecg = make_ecg(1, 12, 300, device=device)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    words = dict(fs=100.0, size=(70, 90))
    expected = rasterize_ecg(ecg, **words).images
    names = [LEADS[i] for i in order]
    assert torch.equal(rasterize_ecg(ecg[:, order], leads=names, **words).images, expected)
    few = rasterize_ecg(ecg[:, :2], leads=LEADS[:2], **words)
    assert len(few.boxes[0]) == 13
    with pytest.raises(ValueError, match=r"record 0 lacks aVR, V1, .*V6, which its layout shows"):
        rasterize_ecg(ecg[:, :2], leads=LEADS[:2], missing="raise", **words)
    ecg[:, 5] = torch.nan
    with pytest.raises(ValueError, match="record 0 lacks aVF, which"):
        rasterize_ecg(ecg, missing="raise", **words)
    rasterize_ecg(ecg, layout=PageLayout((("I", "V6"),)), missing="raise", **words)


def test_a_shuffled_layout_has_the_same_leads_elsewhere():
    plain = LAYOUTS["3x4+1"]
    other = plain.shuffled(3)
    assert other != plain
    assert other == plain.shuffled(3)
    assert sorted(other.leads) == sorted(plain.leads)
    assert other.rhythm == plain.rhythm
    assert [len(row) for row in other.rows] == [4, 4, 4]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"ecg": torch.zeros(12, 100)}, ValueError, r"\(N, L, T\) with samples, got \(12, 100\)"),
        ({"ecg": torch.zeros(1, 12, 0)}, ValueError, "with samples"),
        ({"ecg": torch.zeros(1, 12, 9, dtype=torch.int32)}, TypeError, "float dtype"),
        ({"fs": 0.0}, ValueError, "fs must be positive, got 0"),
        ({"fs": math.nan}, ValueError, "fs must be positive"),
        ({"size": (0, 10)}, ValueError, r"\(height, width\), 1 to 32768 pixels, got \(0, 10\)"),
        ({"size": (10, 40_000)}, ValueError, "1 to 32768"),
        ({"layout": "4x3"}, ValueError, "one of 12x1, 6x2, 3x4, 3x4.1, 3x4.3, got '4x3'"),
        ({"layout": ["12x1"]}, ValueError, "one a record, got 1 for 2"),
        ({"style": [PLAIN] * 3}, ValueError, "style must be one, or one a record, got 3 for 2"),
        ({"channels": 4}, ValueError, "channels must be 1 or 3, got 4"),
        ({"dtype": torch.int32}, TypeError, "uint8, float32, float16 or bfloat16"),
        ({"leads": LEADS[:5]}, ValueError, "must name the 12 leads of ecg"),
        ({"leads": ["I"] * 12}, ValueError, "each once"),
        ({"missing": "ignore"}, ValueError, "'blank' or 'raise', got 'ignore'"),
    ],
)
def test_refuses(words, error, message):
    given = {"ecg": torch.zeros(2, 12, 100), "fs": 100.0, "size": (20, 30), **words}
    with pytest.raises(error, match=message):
        rasterize_ecg(given.pop("ecg"), **given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"mm_per_s": 0.0}, "mm_per_s must be positive"),
        ({"line_mm": math.inf}, "line_mm must be positive"),
        ({"fine_mm": 1.5}, "thinner than what is between"),
        ({"ink": (0, 0, 256)}, "ink must be three numbers from 0 to 255"),
        ({"grid": "cm"}, "grid must be one of mm, 5mm, none, got 'cm'"),
        ({"overflow": "hide"}, "overflow must be one of"),
    ],
)
def test_a_style_that_cannot_be_drawn_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        PageStyle(**words)


def test_rows_of_some_leads_are_a_layout_by_name():
    assert layout_named("rows:II") == PageLayout((("II",),))
    assert layout_named("rows:II+V1") == PageLayout((("II",), ("V1",)))
    one = make_ecg(2, 1, 500)
    drawn = rasterize_ecg(one, fs=100, layout="rows:II", size=(64, 64), leads=("II",))
    assert [box.lead for box in drawn.boxes[0]] == ["II"]
    assert drawn.boxes[0][0].samples == 500
    for name, lead in (("rows:II+x", "'x'"), ("rows:", "''"), ("rows:I,II", "'I,II'")):
        with pytest.raises(ValueError, match=f"names {lead}, which is none of the twelve"):
            layout_named(name)


def test_a_layout_that_is_no_table_is_refused():
    with pytest.raises(ValueError, match=r"as many columns each, got \[2, 1\]"):
        PageLayout((("I", "II"), ("III",)))
    with pytest.raises(ValueError, match="needs a row or a rhythm strip"):
        PageLayout(())


def test_no_gradient_comes_through():
    ecg = make_ecg(1, 12, 100).requires_grad_()
    assert not rasterize_ecg(ecg, fs=100.0, size=(20, 30)).images.requires_grad


def test_a_page_is_the_one_of_matplotlib():
    """Grid and traces by another hand; letters are of another font and left out."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    source = Path(__file__).parents[1] / "bench" / "bench_rasterize_ecg.py"
    spec = importlib.util.spec_from_file_location("pages_by_matplotlib", source)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    size, ecg = (550, 700), make_ecg(1, 12, 2500)
    style = PageStyle(names=False, pulse=False, separators=False, footer="")
    drawn = rasterize_ecg(ecg, fs=250, size=size, style=style)
    page = bench.by_matplotlib(ecg, drawn.boxes, size, drawn.px_per_mm[0], 3, names=False)
    other = torch.from_numpy(page).movedim(3, 1)
    mine, its = (images.float().mean(dim=1, keepdim=True) for images in (drawn.images, other))
    assert float(ssim(mine, its, data_range=255.0)) > 0.98
    assert float(ssim(mine, its.roll(1, dims=3), data_range=255.0)) < 0.8  # a pixel beside
