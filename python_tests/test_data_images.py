"""Pictures from files of which nothing is believed: what is read, and what is refused how."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecgfast.data import images
from ecgfast.data.checks import FATAL, MEANING
from ecgfast.data.images import ImageReading, find_images, is_image, read_image
from ecgfast.data.pages import write_page
from ecgfast.data.records import BadRecord, DataError
from python_tests.conftest import shared_data
from python_tests.page_files import drawn, encoded, pdf, pdf_pages

PLAIN = ImageReading()


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: a page is a big tensor."""


@pytest.fixture(scope="module")
def page():
    return drawn()[0]


def put(folder, name, raw):
    (folder / name).write_bytes(raw)
    return name


def refused(folder, name, reading=PLAIN):
    with pytest.raises(BadRecord) as said:
        read_image(folder, name, reading)
    issue = said.value.issue
    assert issue.severity == "error"
    assert issue.name in MEANING
    return issue.name, issue.message


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pdf"])
def test_what_render_writes_is_read_as_it_was(tmp_path, page, suffix):
    path = tmp_path / f"page{suffix}"
    write_page(path, np.moveaxis(page, -1, 0), dpi=100)
    found = read_image(tmp_path, path.name, ImageReading(dpi=100))
    assert found.pixels.shape == page.shape
    away = np.abs(found.pixels.astype(int) - page)
    assert away.max() == 0 if suffix != ".pdf" else away.mean() < 8  # red for blue: 18
    assert found.form == {".png": "PNG", ".tif": "TIFF", ".pdf": "PDF"}[suffix]
    assert len(found.source_sha256) == 64
    assert not found.issues


def test_a_jpeg_is_near(tmp_path, page):
    found = read_image(tmp_path, put(tmp_path, "p.jpeg", encoded(page, "JPEG", quality=95)), PLAIN)
    assert np.abs(found.pixels.astype(int) - page).mean() < 4
    assert found.form == "JPEG"


def test_what_a_file_is_its_bytes_say(tmp_path, page):
    found = read_image(tmp_path, put(tmp_path, "page.jpg", encoded(page)), PLAIN)
    assert found.form == "PNG"
    np.testing.assert_array_equal(found.pixels, page)


def test_transparent_is_white(tmp_path, page):
    clear = np.concatenate([page, np.full((*page.shape[:2], 1), 255, np.uint8)], axis=2)
    clear[:40, :, 3] = 0
    clear[:40, :, :3] = 0  # black that nobody sees
    found = read_image(tmp_path, put(tmp_path, "p.png", encoded(clear)), PLAIN)
    assert (found.pixels[:40] == 255).all()
    np.testing.assert_array_equal(found.pixels[40:], page[40:])


def test_palette_with_a_transparent_colour(tmp_path, page):
    few = Image.fromarray(page).quantize(16)
    seen = np.asarray(few.convert("RGB"))
    found = read_image(tmp_path, put(tmp_path, "a.png", encoded(few)), PLAIN)
    np.testing.assert_array_equal(found.pixels, seen)
    hidden = int(np.asarray(few)[0, 0])
    found = read_image(tmp_path, put(tmp_path, "b.png", encoded(few, transparency=hidden)), PLAIN)
    away = np.asarray(few) == hidden
    assert (found.pixels[away] == 255).all()
    np.testing.assert_array_equal(found.pixels[~away], seen[~away])


def test_cmyk(tmp_path, page):
    inks = Image.fromarray(page).convert("CMYK")
    for form, name in (("TIFF", "p.tif"), ("JPEG", "p.jpg")):
        found = read_image(tmp_path, put(tmp_path, name, encoded(inks, form)), PLAIN)
        assert np.abs(found.pixels.astype(int) - page).mean() < 5, form


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_their_upper_half(tmp_path, page, form):
    grey = page[..., 1]
    deep = grey.astype(np.uint16) * 257
    found = read_image(tmp_path, put(tmp_path, "p", encoded(deep, form)), PLAIN)
    assert found.pixels.shape == (*grey.shape, 1)
    np.testing.assert_array_equal(found.pixels[..., 0], grey)


def test_thirty_two_bits_and_floats(tmp_path, page):
    grey = page[..., 1]
    for values in (grey.astype(np.int32), grey.astype(np.float32) / 255, grey * np.int32(1 << 20)):
        found = read_image(tmp_path, put(tmp_path, "p.tif", encoded(values, "TIFF")), PLAIN)
        assert np.abs(found.pixels[..., 0].astype(int) - grey * (255 / grey.max())).max() <= 4


def test_grey_stays_grey_and_a_bit_is_black_or_white(tmp_path, page):
    grey = page[..., 1]
    found = read_image(tmp_path, put(tmp_path, "g.png", encoded(grey)), PLAIN)
    np.testing.assert_array_equal(found.pixels[..., 0], grey)
    bits = Image.fromarray(grey).convert("1")
    found = read_image(tmp_path, put(tmp_path, "b.tif", encoded(bits, "TIFF")), PLAIN)
    assert set(np.unique(found.pixels)) == {0, 255}


@pytest.mark.parametrize("turned", range(1, 9))
def test_up_is_where_exif_says(tmp_path, page, turned):
    """The eight orientations: what is stored is the page, turned so that EXIF turns it back."""
    how = Image.Transpose
    back = [None, None, how.FLIP_LEFT_RIGHT, how.ROTATE_180, how.FLIP_TOP_BOTTOM, how.TRANSPOSE]
    back += [how.ROTATE_90, how.TRANSVERSE, how.ROTATE_270]
    image = Image.fromarray(page)
    stored = image if back[turned] is None else image.transpose(back[turned])
    exif = Image.Exif()
    exif[0x0112] = turned
    found = read_image(tmp_path, put(tmp_path, "p.png", encoded(stored, exif=exif)), PLAIN)
    np.testing.assert_array_equal(found.pixels, page)


def test_one_page_of_a_tiff(tmp_path):
    pages = drawn(3)
    first, *rest = map(Image.fromarray, pages)
    raw = encoded(first, "TIFF", save_all=True, append_images=rest)
    name = put(tmp_path, "pages.tif", raw)
    for number in (1, 2, 3):
        found = read_image(tmp_path, name, ImageReading(page=number))
        np.testing.assert_array_equal(found.pixels, pages[number - 1])
        assert [(i.name, i.count, i.total) for i in found.issues] == [("several_pages", 1, 3)]
    assert refused(tmp_path, name, ImageReading(page=4)) == (
        "missing_page",
        "--page 4 of a TIFF of 3",
    )


def test_the_first_picture_of_an_animation(tmp_path):
    pages = drawn(2)
    first, second = map(Image.fromarray, pages)
    raw = encoded(first, "PNG", save_all=True, append_images=[second])
    found = read_image(tmp_path, put(tmp_path, "moving.png", raw), PLAIN)
    np.testing.assert_array_equal(found.pixels, pages[0])
    assert [issue.name for issue in found.issues] == ["several_pages"]
    assert "2 pictures in one PNG" in found.issues[0].message


def test_a_page_of_a_pdf_at_its_dpi(tmp_path):
    name = put(tmp_path, "three.pdf", pdf_pages(3))
    for number in (1, 2, 3):
        found = read_image(tmp_path, name, ImageReading(page=number, dpi=144))
        assert found.pixels.shape == (340, 440, 3)
        assert f"page {number} of 3" in found.issues[0].message
        dark = np.flatnonzero((found.pixels < 128).all(axis=(2,)).any(axis=0))
        left = 2 * (20 + 40 * (number - 1))
        assert (dark[0], dark[-1]) == (left, left + 59)
    name, message = refused(tmp_path, name, ImageReading(page=4))
    assert (name, message) == ("missing_page", "--page 4 of a PDF of 3")


def test_an_encrypted_pdf_says_so(tmp_path):
    word = "(" + "x" * 32 + ")"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        f"<< /Filter /Standard /V 1 /R 2 /O {word} /U {word} /P -4 >>".encode(),
    ]
    ids = "<00112233445566778899aabbccddeeff>"
    raw = pdf(objects, f"/Encrypt 4 0 R /ID [{ids} {ids}]")
    name, message = refused(tmp_path, put(tmp_path, "secret.pdf", raw))
    assert name == "encrypted_file"
    assert "save a copy without a password" in message


def test_hostile_pdfs(tmp_path, monkeypatch):
    huge = pdf_pages(1, box=(0, 0, 14000, 14000))
    name, message = refused(tmp_path, put(tmp_path, "huge.pdf", huge))
    assert name == "size_limit"
    assert "38889 x 38889 pixels" in message
    strip = pdf_pages(1, box=(0, 0, 3000, 10))
    assert refused(tmp_path, put(tmp_path, "strip.pdf", strip))[0] == "unreadable"
    for size in (20, 200, len(huge) // 2):
        cut = put(tmp_path, "cut.pdf", pdf_pages()[:size])
        assert refused(tmp_path, cut)[0] in ("unreadable", "missing_page", "blank_page")
    monkeypatch.setattr(images, "MOST_PAGES", 2)
    name, message = refused(tmp_path, put(tmp_path, "book.pdf", pdf_pages(3)))
    assert (name, message) == ("size_limit", "a PDF of 3 pages, 2 are allowed")


def bomb(width, height):
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    """Below what Pillow minds, between its warning and its error, above, and beyond all sense."""
    name, message = refused(tmp_path, put(tmp_path, "bomb.png", bomb(side, side)))
    assert name == "size_limit" or side == 2**31 - 1
    assert name in ("size_limit", "unreadable")
    assert "50000000" in message or name == "unreadable"


def test_limits_are_the_callers(tmp_path, page):
    name = put(tmp_path, "p.png", encoded(page))
    found = refused(tmp_path, name, ImageReading(most_pixels=1000))
    assert found == ("size_limit", "220 x 170 pixels, 1000 are decoded: save it smaller")
    size = (tmp_path / name).stat().st_size
    found = refused(tmp_path, name, ImageReading(most_bytes=size - 1))
    assert found == ("size_limit", f"{size} bytes, {size - 1} are read")
    read_image(tmp_path, name, ImageReading(most_bytes=size, most_pixels=220 * 170))


@pytest.mark.parametrize(
    ("form", "how"),
    [("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_what_breaks_off_is_refused(tmp_path, page, form, how, share):
    raw = encoded(page, form, **how)
    name, message = refused(tmp_path, put(tmp_path, "cut", raw[: int(share * len(raw))]))
    assert name == "unreadable"
    assert message


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_changed_bytes_never_get_out(tmp_path, page, form):
    """Whatever is changed: a page, or a named reason; nothing else is raised, nothing warns."""
    raw = encoded(page[:60, :80], form)
    draws = np.random.default_rng(0)
    told = set()
    for _ in range(150):
        damaged = bytearray(raw)
        for place in draws.integers(0, len(raw), 4):
            damaged[place] = draws.integers(256)
        name = put(tmp_path, "damaged", bytes(damaged))
        try:
            read_image(tmp_path, name, ImageReading(most_pixels=10**6))
            told.add("read")
        except BadRecord as error:
            told.add(error.issue.name)
    assert "unreadable" in told
    assert told <= {"read", "unreadable", "size_limit", "missing_page", "blank_page"}


def test_a_jpeg_of_endless_scans(tmp_path, page):
    raw = encoded(page, "JPEG", progressive=True)
    place = raw.index(b"\xff\xda")
    scan = raw[place : raw.index(b"\xff\xda", place + 2)]
    found = refused(tmp_path, put(tmp_path, "slow.jpg", raw[:place] + 300 * scan + raw[place:]))
    assert found[0] == "size_limit"
    assert "scans, 200 are decoded" in found[1]
    read_image(tmp_path, put(tmp_path, "usual.jpg", raw), PLAIN)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"GIF89a" + bytes(40), "a GIF"),
        (b"PK\x03\x04" + bytes(40), "a ZIP"),
        (b"<!doctype html>", "a web page"),
        (b"hello", "no PNG, JPEG, TIFF or PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "its header is damaged"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, raw, word):
    name, message = refused(tmp_path, put(tmp_path, "p.png", raw))
    assert name == "unreadable"
    assert word in message


def test_nothing_and_almost_nothing(tmp_path):
    assert refused(tmp_path, put(tmp_path, "empty.png", b""))[0] == "empty_file"
    blank = np.full((100, 100, 3), 250, np.uint8)
    assert refused(tmp_path, put(tmp_path, "blank.png", encoded(blank)))[0] == "blank_page"
    dot = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    assert refused(tmp_path, put(tmp_path, "dot.png", encoded(dot)))[0] == "unreadable"
    strip = np.random.default_rng(0).integers(0, 255, (20, 900, 3), np.uint8)
    assert "a strip" in refused(tmp_path, put(tmp_path, "strip.png", encoded(strip)))[1]
    assert refused(tmp_path, "absent.png")[0] == "missing_file"
    (tmp_path / "folder.png").mkdir()
    assert refused(tmp_path, "folder.png")[0] == "missing_file"
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path, "pipe.png")[0] == "missing_file"  # and does not wait for a writer


def test_no_link_leads_out(tmp_path, page):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    put(outside, "p.png", encoded(page))
    (inside / "link.png").symlink_to(outside / "p.png")
    (inside / "nowhere.png").symlink_to(outside / "absent.png")
    put(inside, "here.png", encoded(page))
    (inside / "near.png").symlink_to("here.png")
    assert refused(inside, "link.png")[0] == "unsafe_path"
    assert refused(inside, "../out/p.png")[0] == "unsafe_path"
    assert refused(inside, "nowhere.png")[0] == "missing_file"
    np.testing.assert_array_equal(read_image(inside, "near.png", PLAIN).pixels, page)


def test_folders_are_searched(tmp_path):
    for name in ("b/scan.PNG", "a/scan.jpg", "a/scan.png", "notes.txt", "record.hea", "c.Tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_images([tmp_path])
    assert [item.path for item in found] == ["c.Tiff", "a/scan.jpg", "a/scan.png", "b/scan.PNG"]
    assert len({item.record_id for item in found}) == 4
    assert found[3].record_id == "b/scan"
    assert find_images([tmp_path / "c.Tiff"])[0].record_id == "c"
    (tmp_path / "none").mkdir()
    for wrong, word in (("none", "no_images"), ("absent", "no_source"), ("notes.txt", "no_images")):
        with pytest.raises(DataError, match=word):
            find_images([tmp_path / wrong])
    assert is_image("A.JPEG")
    assert not is_image("a.hea")


@pytest.mark.parametrize(
    "wrong", [{"page": 0}, {"page": 1001}, {"dpi": 5}, {"dpi": float("nan")}], ids=str
)
def test_reading_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageReading(**wrong)


def test_what_leaves_no_page_cannot_be_kept():
    assert {"encrypted_file", "missing_page"} <= FATAL


def test_real_scans_are_all_read():
    folder = shared_data("ecg-images")
    found = find_images([folder])
    assert len(found) == 16
    for item in found:
        page = read_image(Path(item.root), item.path, PLAIN)
        assert page.pixels.shape == (1572, 2213, 3)
        assert (page.form, page.issues) == ("JPEG", [])
        assert np.median(page.pixels) > 230  # paper
        assert page.pixels.min() < 40  # ink
