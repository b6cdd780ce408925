"""How pixels lie in a DICOM file, and how a screen would show them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.records import bad

JPEG = "1.2.840.10008.1.2.4."
# of codings that an old pydicom does not know
NAMES = {"110": "JPEG XL lossless", "111": "JPEG XL recompression of JPEG", "112": "JPEG XL"}


@dataclass(frozen=True)
class Layout:
    """How the pixels of a file lie."""

    syntax: str
    frames: int
    height: int
    width: int
    samples: int
    bits: int
    stored: int
    signed: bool
    planar: bool
    colour: str

    @classmethod
    def of(cls, header: Any, syntax: str) -> Layout:
        """From a header of which nothing is believed.

        Raises:
            BadRecord: unreadable.
        """

        def whole(name: str, usual: int | None = None) -> int:
            value = header.get(name)
            value = usual if value is None or value == "" else value
            try:
                return int(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                what = str(header.get("SOPClassUID", "") and header.SOPClassUID.name)[:60]
                text = f"a DICOM file without {name}: no pictures ({what or 'of no known kind'})"
                raise bad("unreadable", text) from None

        height, width = whole("Rows"), whole("Columns")
        bits = whole("BitsAllocated", 8)
        layout = cls(
            syntax=syntax or "1.2.840.10008.1.2",
            frames=whole("NumberOfFrames", 1),
            height=height,
            width=width,
            samples=whole("SamplesPerPixel", 1),
            bits=bits,
            stored=whole("BitsStored", bits),
            signed=whole("PixelRepresentation", 0) == 1,
            planar=whole("PlanarConfiguration", 0) == 1,
            colour=str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip(),
        )
        fine = layout.samples in (1, 3) and bits in (8, 16) and 1 <= layout.stored <= bits
        if not fine or min(height, width, layout.frames) < 1:
            text = (
                f"{layout.frames} frames of {width} x {height} pixels, {layout.samples} samples of "
                f"{bits} bits ({layout.stored} stored): 1 or 3 samples of 8 or 16 bits are read"
            )
            raise bad("unreadable", text)
        return layout

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples, in the order of bytes of this machine."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits // 8}")

    @property
    def name(self) -> str:
        """Of the transfer syntax, for people."""
        from pydicom.uid import UID

        known = UID(self.syntax).name
        own = NAMES.get(self.syntax.removeprefix(JPEG), "")
        return own if known == self.syntax else known


def shown(values: NDArray[Any], layout: Layout, header: Any, colour: str) -> NDArray[np.uint8]:
    """``(F, H, W, C)`` samples as a screen would show them: grey or RGB, 8 bits, 0 black."""
    if layout.samples == 3:
        if layout.bits > 8:
            values = values >> max(0, layout.stored - 8)
        values = values.astype(np.uint8, copy=False)
        return _from_ybr(values) if colour.startswith("YBR") else np.ascontiguousarray(values)
    if colour == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        if "RedPaletteColorLookupTableData" not in header:
            # few bytes of a table in segments stand for any number of its entries
            raise bad(
                "unsupported_syntax", "its palette is in segments, or missing: save it as RGB"
            )
        rgb = apply_color_lut(values[..., 0], header)
        whole = apply_color_lut(np.arange(2**layout.bits, dtype=f"u{layout.bits // 8}"), header)
        deep = whole.dtype.itemsize > 1 and int(whole.max()) > 255  # some write 0 to 255 there
        return (rgb >> 8 if deep else rgb).astype(np.uint8)[..., :3]
    grey = _levels(values, layout, header)
    return 255 - grey if colour == "MONOCHROME1" else grey


def _from_ybr(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601 in full range, a frame at a time."""
    out = np.empty(values.shape, dtype=np.uint8)
    back = np.array([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]], dtype=np.float32)
    for frame, shown in zip(values, out, strict=True):
        rgb = (frame.astype(np.float32) - np.array([0, 128, 128], dtype=np.float32)) @ back
        shown[:] = np.clip(np.rint(rgb), 0, 255)
    return out


def _levels(values: NDArray[Any], layout: Layout, header: Any) -> NDArray[np.uint8]:
    """Grey of 8 bits: by the window if there is one, else by the range of the stored bits."""
    if not layout.signed and layout.stored < layout.bits:
        values = values & ((1 << layout.stored) - 1)  # overlays once lay in the bits above
    if layout.stored == 8 and not layout.signed:
        return values.astype(np.uint8)
    low = -(2.0 ** (layout.stored - 1)) if layout.signed else 0.0
    high = low + 2.0**layout.stored - 1
    slope, offset = _first(header, "RescaleSlope", 1.0), _first(header, "RescaleIntercept", 0.0)
    if slope == 0:
        slope = 1.0
    centre, width = _first(header, "WindowCenter", math.nan), _first(header, "WindowWidth", 0.0)
    if math.isfinite(centre) and width > 1:  # PS3.3 C.11.2.1.2
        low = (centre - 0.5 - (width - 1) / 2 - offset) / slope
        high = (centre - 0.5 + (width - 1) / 2 - offset) / slope
    out = np.empty(values.shape, dtype=np.uint8)
    for frame, shown in zip(values, out, strict=True):
        share = (frame.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        shown[:] = np.rint(255 * np.clip(share, 0, 1))
    return out


def _first(header: Any, name: str, usual: float) -> float:
    value = header.get(name)
    if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return usual
    return number if math.isfinite(number) else usual
