"""Pictures of ECGs, read from files of which nothing is believed: PNG, JPEG, TIFF, PDF."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ecgfast.data.records import DataError, Issue, Page, bad
from ecgfast.data.sources import Item, whole_file, with_ids

FORMS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
SUFFIXES = (*FORMS, ".pdf")
MOST_SCANS = 200  # of a progressive JPEG: each is a pass over all of it; ten are usual
MOST_PAGES = 1000
MOST_ASPECT = 20  # a strip of paper is no page
LEAST_SIDE = 16
_PDFIUM = threading.Lock()  # PDFium runs in one thread at a time
# what Pillow's decoders raise over bytes that are not what they say
_FAULTS: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, LookupError)
_FAULTS += (EOFError, struct.error, zlib.error, ArithmeticError, AttributeError, RuntimeError)
_ORIENTATION = 0x0112  # of EXIF


@dataclass(frozen=True, kw_only=True)
class ImageReading:
    """How pictures are to be read.

    Attributes:
        page: Which page of a PDF or of a TIFF, from 1.
        dpi: At which a PDF is drawn, pixels an inch.
        most_bytes: Larger files are not read.
        most_pixels: Larger pictures are not decoded: an A4 page at 600 dpi has 35 million.
    """

    page: int = 1
    dpi: float = 200.0
    most_bytes: int = 64 * 2**20
    most_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.page <= MOST_PAGES:
            raise ValueError(f"page must be 1 to {MOST_PAGES}, got {self.page}")
        if not 20 <= self.dpi <= 1200:
            raise ValueError(f"dpi must be 20 to 1200, got {self.dpi:g}")


def is_image(path: str | Path) -> bool:
    """Whether a name is one of a picture, in upper or lower case."""
    return str(path).lower().endswith(SUFFIXES)


def find_images(sources: Iterable[Path], *, skip: Iterable[Path] = ()) -> list[Item]:
    """All pictures of the named folders and files, in a fixed order, each with its own id.

    Args:
        sources: Folders, searched to the bottom, or files.
        skip: Files that are no records.

    Raises:
        DataError: A source is not there or holds none.
    """
    skipped = {path.resolve() for path in skip}
    items: list[Item] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"error[no_source] there is no {source}")
        found = [source.name] if source.is_file() else _search(source)
        root = source.parent if source.is_file() else source
        kept = [Item(str(root), path) for path in found if (root / path).resolve() not in skipped]
        if not kept or not all(is_image(item.path) for item in kept):
            raise DataError(
                f"error[no_images] {source} holds no picture: looked for {', '.join(SUFFIXES)}"
            )
        items += kept
    return with_ids(items)


def _search(folder: Path) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(place, folder)
        for name in sorted(filter(is_image, names)):
            found.append(name if inside == "." else f"{inside}/{name}")
    return found


def read_image(root: Path, path: str, reading: ImageReading) -> Page:
    """Reads one picture.

    What the file is its bytes say, not its name. The size that a header states is held against the
    limit before anything is decoded. Transparent parts show white; 16 bits become 8, CMYK and
    palettes red, green, blue; what EXIF says of up and down is done. Of a file of several pages one
    is read, and the rest is noted.

    Args:
        root: The folder that was named; a link out of it is refused.
        path: Within it.
        reading: Page, dpi, limits.

    Raises:
        BadRecord: With the issue that says why it cannot be read.
    """
    raw = whole_file(root, path, reading.most_bytes)
    try:
        if raw[:1024].lstrip().startswith(b"%PDF-"):
            pixels, issues = _read_pdf(raw, reading)
            form = "PDF"
        else:
            pixels, form, issues = _read_picture(raw, reading)
    except MemoryError:
        raise bad("size_limit", "there is not enough memory to decode it") from None
    if min(pixels.shape[:2]) < LEAST_SIDE:
        text = f"{pixels.shape[1]} x {pixels.shape[0]} pixels are no page, {LEAST_SIDE} is least"
        raise bad("unreadable", text)
    low, high = int(pixels.min()), int(pixels.max())
    if high - low < 8:
        text = f"all {pixels.shape[0] * pixels.shape[1]} pixels lie from {low} to {high}; is it "
        raise bad("blank_page", f"{text}another page of the file (--page N)?")
    digest = hashlib.sha256(raw).hexdigest()
    return Page(pixels, form, issues=issues, source_sha256=digest)


def _read_picture(raw: bytes, reading: ImageReading) -> tuple[NDArray[np.uint8], str, list[Issue]]:
    issues: list[Issue] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or does no harm
        try:
            image = Image.open(io.BytesIO(raw), formats=sorted(set(FORMS.values())))
        except Image.DecompressionBombError as error:
            raise bad("size_limit", f"{error}; {reading.most_pixels} are decoded") from None
        except _FAULTS as error:
            raise bad("unreadable", _not_a_picture(raw, error)) from None
        with image:
            form = "JPEG" if image.format == "MPO" else str(image.format)
            if form == "JPEG" and (scans := raw.count(b"\xff\xda")) > MOST_SCANS:
                raise bad("size_limit", f"a JPEG of {scans} scans, {MOST_SCANS} are decoded")
            if form == "TIFF":
                issues += _turn_to(image, reading)
            elif (frames := int(getattr(image, "n_frames", 1))) > 1:
                text = f"{frames} pictures in one {form}, the first was read"
                issues.append(Issue("several_pages", "warning", "", 1, frames, text))
            _expect_size(image.size, reading)
            try:
                image.load()
                pixels = _eight_bits(_upright(image))
            except Image.DecompressionBombError as error:
                raise bad("size_limit", str(error)) from None
            except _FAULTS as error:
                text = f"the picture breaks off or is damaged: {str(error)[:120]}"
                raise bad("unreadable", f"{text}; copy or scan it again") from None
    return pixels, form, issues


def _turn_to(image: Any, reading: ImageReading) -> list[Issue]:
    """Goes to the page that was asked for; says if there are others."""
    count = 1
    try:
        while count <= MOST_PAGES:
            image.seek(count)  # from 0: the page behind those that were counted
            count += 1
    except EOFError:
        pass
    except _FAULTS as error:
        if count < reading.page:
            text = f"page {count + 1} cannot be found: {str(error)[:120]}"
            raise bad("unreadable", text) from None
    if count < reading.page:
        text = f"--page {reading.page} of a TIFF of {count}"
        raise bad("missing_page", text, count=reading.page, total=count)
    image.seek(reading.page - 1)
    return _others(reading.page, count)


def _others(page: int, count: int) -> list[Issue]:
    if count == 1:
        return []
    text = f"page {page} of {count} was read; --page N reads another"
    return [Issue("several_pages", "note", f"page {page}", 1, count, text)]


def _expect_size(size: tuple[int, int], reading: ImageReading) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise bad("unreadable", f"it says it has {width} x {height} pixels")
    if width * height > reading.most_pixels:
        text = f"{width} x {height} pixels, {reading.most_pixels} are decoded: save it smaller"
        raise bad("size_limit", text, count=width * height, total=reading.most_pixels)
    if max(size) > MOST_ASPECT * min(size):
        raise bad("unreadable", f"{width} x {height} pixels are a strip, not a page")


def _upright(image: Image.Image) -> Image.Image:
    """As EXIF says the camera was held; text that cannot be understood turns nothing."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1)
    except _FAULTS:
        return image
    return ImageOps.exif_transpose(image) if turned in range(2, 9) else image


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """``(H, W, C)`` uint8 of whatever a file holds, on white."""
    if image.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        return _narrowed(np.asarray(image))[..., None]
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(white, over).convert("RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _narrowed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of 16 bits by its upper half; of 32 bits, and floats, by the least usual range."""
    wide = values.astype(np.float32)
    finite = np.isfinite(wide)
    if not finite.all():
        wide = np.where(finite, wide, wide[finite].max() if finite.any() else 1.0)
    top = float(wide.max(initial=0.0))
    usual = (65535.0,) if values.dtype.itemsize == 2 else (255.0, 65535.0)
    if values.dtype.kind == "f":
        usual = (1.0, *usual)
    white = next((level for level in usual if top <= level), top)
    return np.clip(np.rint(wide * (255 / white)), 0, 255).astype(np.uint8)


def _not_a_picture(raw: bytes, error: Exception) -> str:
    kinds = {b"GIF8": "a GIF", b"BM": "a BMP", b"RIFF": "a WebP", b"<svg": "an SVG"}
    kinds |= {b"<?xml": "XML", b"PK\x03\x04": "a ZIP archive", b"<!": "a web page"}
    for begin, name in kinds.items():
        if raw.startswith(begin):
            return f"it is {name}, not a PNG, JPEG, TIFF or PDF: save it as one of these"
    if raw.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")):
        return f"its header is damaged: {str(error)[:120]}"
    return "its bytes are no PNG, JPEG, TIFF or PDF"


def _read_pdf(raw: bytes, reading: ImageReading) -> tuple[NDArray[np.uint8], list[Issue]]:
    import pypdfium2  # most people have no PDFs: what the rest needs shall not fail for it

    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(raw)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower() or "security" in str(error).lower():
                text = "this PDF is encrypted; save a copy without a password"
                raise bad("encrypted_file", text) from None
            raise bad("unreadable", f"this PDF is damaged: {str(error)[:120]}") from None
        try:
            count = len(document)
            if count > MOST_PAGES:
                text = f"a PDF of {count} pages, {MOST_PAGES} are allowed"
                raise bad("size_limit", text, count=count, total=MOST_PAGES)
            if reading.page > count:
                text = f"--page {reading.page} of a PDF of {count}"
                raise bad("missing_page", text, count=reading.page, total=count)
            page = document[reading.page - 1]
            width, height = page.get_size()  # in points of 1/72 inch
            scale = reading.dpi / 72 * (1 - 1e-6)  # 220.00001 pixels are not 221
            if not (0 < width < 1e6 and 0 < height < 1e6):
                raise bad("unreadable", f"page {reading.page} is {width:g} x {height:g} points")
            pixels = (math.ceil(width * scale), math.ceil(height * scale))
            _expect_size(pixels, reading)
            drawn = page.render(scale=scale, may_draw_forms=False, rev_byteorder=True)
            image = np.array(drawn.to_numpy()[..., :3])
        except pypdfium2.PdfiumError as error:
            text = f"page {reading.page} cannot be drawn: {str(error)[:120]}"
            raise bad("unreadable", text) from None
        finally:
            document.close()
    return image, _others(reading.page, count)
