"""Pixels of DICOM files: parted into frames, each decoded and brought to grey or RGB of 8 bits."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.dicom_layout import JPEG, Layout, shown
from ecgfast.data.film import VideoReading, container, read_film
from ecgfast.data.records import BadRecord, bad

NATIVE = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
RLE = "1.2.840.10008.1.2.5"
PILLOW = {JPEG + "50", JPEG + "51", JPEG + "90", JPEG + "91"}
# the decoder in imagecodecs
WITH_IMAGECODECS = {JPEG + number: "ljpeg" for number in ("57", "70")}
WITH_IMAGECODECS |= {JPEG + number: "jpegls" for number in ("80", "81")}
WITH_IMAGECODECS |= {JPEG + number: "jpegxl" for number in ("110", "111", "112")}
WITH_IMAGECODECS |= {JPEG + number: "htj2k" for number in ("201", "202", "203")}
FILMS = {JPEG + number: "mpegvideo" for number in ("100", "100.1", "101", "101.1")}
FILMS |= {
    JPEG + n + more: "h264" for n in ("102", "103", "104", "105", "106") for more in ("", ".1")
}
FILMS |= {JPEG + number: "hevc" for number in ("107", "108")}
STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ")


def decoded(
    rest: memoryview, layout: Layout, header: Any, reading: VideoReading
) -> tuple[NDArray[np.uint8], str]:
    """``(F, H, W, C)`` uint8 of the frames that are whole, and why some are not.

    Args:
        rest: The file from the element of its pixels on.
        layout: From its header.
        header: For palettes and levels.
        reading: Limits.

    Raises:
        BadRecord: unsupported_syntax, unreadable, mixed_sizes, truncated_video.
    """
    if layout.syntax in NATIVE:
        values, why = _native(rest, layout)
        return shown(values, layout, header, layout.colour), why
    decode = _decoder(layout)
    fragments, why = _fragments(rest)
    if layout.syntax in FILMS:
        return _film(b"".join(fragments[1:]), FILMS[layout.syntax], layout, reading)
    frames = _frames(fragments, layout.frames, header)
    out: NDArray[np.uint8] | None = None
    done = 0
    for number, coded in enumerate(frames):
        try:
            values, colour = decode(coded)
        except BadRecord as error:
            if error.issue.name == "mixed_sizes":
                text = f"frame {number + 1}: {error.issue.message}"
                raise bad("mixed_sizes", text, place=f"frame {number + 1}") from None
            raise
        except Exception as error:  # each decoder has faults of its own
            why = f"frame {number + 1} is damaged: {type(error).__name__} {str(error)[:80]}"
            break
        picture = shown(values[None], layout, header, colour)[0]
        if out is None:
            out = np.empty((len(frames), *picture.shape), dtype=np.uint8)
        if picture.shape != out.shape[1:]:
            raise bad("mixed_sizes", f"frame {number + 1} has other channels than those before")
        out[done] = picture
        done += 1
    if out is None:
        raise bad(
            "truncated_video",
            f"0 of {layout.frames} frames are whole ({why or 'no frame is there'}); copy it again",
            total=layout.frames,
        )
    return out[:done], why or "the rest is missing"


def _native(rest: memoryview, layout: Layout) -> tuple[NDArray[Any], str]:
    """Samples that are not coded; 4:2:2 is brought to a colour for every pixel."""
    order = NATIVE[layout.syntax]
    begin = 8
    if layout.syntax != "1.2.840.10008.1.2" and bytes(rest[4:6]) in (b"OB", b"OW", b"UN"):
        begin = 12
    if len(rest) < begin or struct.unpack_from(f"{order}HH", rest) != (0x7FE0, 0x0010):
        raise bad("truncated_video", "it ends before its pictures; copy it again")
    halved = layout.colour == "YBR_FULL_422" and layout.samples == 3
    height, width, samples = layout.height, layout.width, 2 if halved else layout.samples
    size = height * width * samples * (layout.bits // 8)
    there = min(len(rest) - begin, struct.unpack_from(f"{order}I", rest, begin - 4)[0])
    whole = min(layout.frames, there // size)
    why = f"{there} of {layout.frames * size} bytes are there" if whole < layout.frames else ""
    kind = np.dtype(f"{order}{layout.dtype.kind}{layout.bits // 8}")
    flat = np.frombuffer(rest, dtype=kind, count=whole * size // kind.itemsize, offset=begin)
    if halved:
        pairs = flat.reshape(whole, height, width // 2, 4)  # Y Y Cb Cr
        y = pairs[..., :2].reshape(whole, height, width)
        rest_of = np.repeat(pairs[..., 2:], 2, axis=2)
        return np.concatenate([y[..., None], rest_of], axis=3), why
    if layout.planar and samples == 3:
        return np.moveaxis(flat.reshape(whole, 3, height, width), 1, -1), why
    return flat.reshape(whole, height, width, samples), why


def _fragments(rest: memoryview) -> tuple[list[bytes], str]:
    """The items of encapsulated pixels that are whole, the table of offsets first."""
    if len(rest) < 12 or struct.unpack_from("<HH", rest) != (0x7FE0, 0x0010):
        raise bad("truncated_video", "it ends before its pictures; copy it again")
    at = 12
    found: list[bytes] = []
    while at + 8 <= len(rest):
        group, element, length = struct.unpack_from("<HHI", rest, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            return found, ""
        if (group, element) != (0xFFFE, 0xE000):
            return found, f"what follows fragment {len(found)} is damaged"
        if at + 8 + length > len(rest):
            return found, f"{len(rest) - at - 8} of {length} bytes of the last frame are there"
        found.append(bytes(rest[at + 8 : at + 8 + length]))
        at += 8 + length
    return found, "the file ends within its frames"


def _frames(fragments: list[bytes], count: int, header: Any) -> list[bytes]:
    """Fragments joined to frames: by number, by the table of offsets, by how codings begin."""
    if len(fragments) < 2:
        return []
    table, parts = fragments[0], fragments[1:]
    if len(parts) <= count and all(part.startswith(STARTS) for part in parts):
        return parts
    if len(parts) == count:
        return parts
    offsets = list(struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4]))
    extended = header.get("ExtendedOffsetTable")
    if not offsets and isinstance(extended, bytes) and len(extended) % 8 == 0:
        offsets = list(struct.unpack(f"<{len(extended) // 8}Q", extended))
    if len(offsets) == count:
        begins, at = set(offsets), 0
        groups: list[list[bytes]] = []
        for part in parts:
            if at in begins or not groups:
                groups.append([])
            groups[-1].append(part)
            at += 8 + len(part)
        # of the last frame nobody knows whether it is whole, if others are missing
        whole = groups if len(groups) == count else groups[:-1]
        return [b"".join(group) for group in whole]
    groups = []
    for part in parts:
        if part.startswith(STARTS) or not groups:
            groups.append([])
        groups[-1].append(part)
    return [b"".join(group) for group in groups[:count]]


def _decoder(layout: Layout) -> Any:
    """What turns a coded frame into samples ``(H, W, C)`` and the name of their colours."""
    if layout.syntax == RLE:
        return lambda coded: (_rle(coded, layout), layout.colour)
    if layout.syntax in PILLOW:
        return lambda coded: _pillow(coded, layout)
    if layout.syntax in FILMS:
        return None
    kind = WITH_IMAGECODECS.get(layout.syntax)
    if kind:
        try:
            import imagecodecs
        except ImportError:
            imagecodecs = None  # type: ignore[assignment,unused-ignore]
        if imagecodecs is not None and getattr(imagecodecs, kind.upper()).available:
            decode = getattr(imagecodecs, f"{kind}_decode")
            return lambda coded: _imagecodecs(decode, coded, layout)
    way = (
        "pip install imagecodecs (the extra ecgfast[echo]) reads it"
        if kind
        else ("no package known here reads it: save it uncompressed (gdcmconv --raw)")
    )
    text = f"transfer syntax {layout.syntax[:64]} ({layout.name[:60]}); {way}"
    raise bad("unsupported_syntax", text)


def _rle(coded: bytes, layout: Layout) -> NDArray[Any]:
    """PackBits of each byte of each sample, the highest byte first."""
    count = layout.samples * (layout.bits // 8)
    number, *offsets = struct.unpack_from("<16I", coded)
    if number != count:
        raise ValueError(f"{number} segments, {count} are expected")
    bounds = [*offsets[:count], len(coded)]
    planes = np.empty((count, layout.height * layout.width), dtype=np.uint8)
    for index in range(count):
        planes[index] = _unpacked(coded[bounds[index] : bounds[index + 1]], planes.shape[1])
    width = layout.bits // 8
    samples = planes.reshape(layout.samples, width, layout.height, layout.width)
    bytes_last = np.ascontiguousarray(np.moveaxis(samples, (0, 1), (2, 3)))
    return bytes_last.view(layout.dtype.newbyteorder(">"))[..., 0]


def _unpacked(packed: bytes, size: int) -> NDArray[np.uint8]:
    out, at = bytearray(), 0
    while at < len(packed) and len(out) < size:
        head = packed[at]
        if head < 128:
            out += packed[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            out += packed[at + 1 : at + 2] * (257 - head)
            at += 2
        else:
            at += 1
    if len(out) < size:
        raise ValueError(f"{len(out)} of {size} bytes of a segment")
    return np.frombuffer(out, dtype=np.uint8, count=size)


def _pillow(coded: bytes, layout: Layout) -> tuple[NDArray[Any], str]:
    """JPEG and JPEG 2000; the size that the coding states is compared before it is decoded."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(coded), formats=["JPEG", "JPEG2000"])
    except Image.DecompressionBombError as error:
        raise bad("mixed_sizes", str(error)) from None
    with image:
        _expect_size(image.size, layout)
        colour = layout.colour
        if image.format == "JPEG2000":  # its own transform, if any, is undone by the decoder
            colour = {"YBR_ICT": "RGB", "YBR_RCT": "RGB"}.get(colour, colour)
        elif layout.samples == 3:
            # what the coding says of itself goes before what the header says; both may be silent
            said = "jfif" in image.info or "adobe" in image.info
            if said or colour.startswith("YBR"):
                colour = "RGB"
            else:
                first = image.tile[0]
                image.tile = [first._replace(args=("RGB", ""))]
        values = np.asarray(image)
    return _with_channels(values, layout), colour


def _imagecodecs(decode: Any, coded: bytes, layout: Layout) -> tuple[NDArray[Any], str]:
    """The array is made first: a coding that says it is larger is refused before it is decoded."""
    shape = (layout.height, layout.width, layout.samples)[: 3 if layout.samples > 1 else 2]
    kind = np.dtype(f"u{layout.bits // 8}")
    try:
        values = decode(coded, out=np.empty(shape, dtype=kind))
    except ValueError as error:
        if "shape" not in str(error):
            raise
        text = f"the header says {shape}: {str(error)[:100]}"
        raise bad("mixed_sizes", text) from None
    colour = layout.colour
    if layout.samples == 3 and (
        decode.__name__.startswith("jpegxl") or colour in ("YBR_ICT", "YBR_RCT")
    ):
        colour = "RGB"
    return _with_channels(values.view(layout.dtype), layout), colour


def _expect_size(size: tuple[int, int], layout: Layout) -> None:
    if size != (layout.width, layout.height):
        text = (
            f"its coding has {size[0]} x {size[1]} pixels, the header says {layout.width} x "
            f"{layout.height}"
        )
        raise bad("mixed_sizes", text)


def _with_channels(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    values = values if values.ndim == 3 else values[..., None]
    if values.shape != (layout.height, layout.width, layout.samples):
        raise ValueError(f"an array of shape {values.shape} came out")
    return values


def _film(
    raw: bytes, demuxer: str, layout: Layout, reading: VideoReading
) -> tuple[NDArray[np.uint8], str]:
    if raw[:4] == b"\x00\x00\x01\xba":
        demuxer = "mpeg"
    elif raw[:1] == b"\x47" and raw[188:189] == b"\x47":
        demuxer = "mpegts"
    elif found := container(raw):
        demuxer = found[1]
    video = read_film(raw, "DICOM", demuxer, reading)
    shape = video.pixels.shape[1:3]
    if shape != (layout.height, layout.width):
        _expect_size((shape[1], shape[0]), layout)
    why = next((i.message for i in video.issues if i.name == "truncated_video"), "")
    return video.pixels[: layout.frames], why
