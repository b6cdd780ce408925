"""Multi-frame DICOM files: who and how fast from the header, then frame by frame its pictures."""

from __future__ import annotations

import hmac
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import numpy as np

from ecgfast.data.dicom_frames import decoded
from ecgfast.data.dicom_layout import Layout
from ecgfast.data.film import VideoReading, even_times, truncated
from ecgfast.data.records import BadRecord, Issue, Video, bad, identifier, printable

# what software writes where an id was removed: equal for all patients, and so no id
NOBODY = {"anonymized", "anonymised", "anonymous", "anonymized^", "anon", "deidentified", "removed"}
NOBODY |= {"unknown", "none", "null", "na", "n/a", "test", "patient", "patientid", "0", "xxx", "x"}
DEFLATED = b"1.2.840.10008.1.2.1.99"
RATES_AGREE = 0.1


def is_dicom(raw: bytes) -> bool:
    """Whether bytes begin as a DICOM file does."""
    return raw[128:132] == b"DICM"


def read_dicom(raw: bytes, reading: VideoReading) -> Video:
    """Frames as they are shown, in grey or red, green, blue, and what the header says of them.

    Raises:
        BadRecord: unreadable, single_frame, size_limit, unsupported_syntax, mixed_sizes,
            truncated_video.
    """
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # faults become issues
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header, syntax, rest = _parted(raw, reading.most_bytes)
        layout = Layout.of(header, syntax)
        if layout.frames == 1:
            text = "1 frame: a still where a clip is needed; leave stills out, or export the loop"
            raise bad("single_frame", text, count=1, total=reading.least_frames)
        reading.expect(layout.frames, layout.height, layout.width)
        pixels, why = decoded(rest, layout, header, reading)
        if not len(pixels):
            raise bad("truncated_video", f"0 of {layout.frames} frames are whole ({why})")
        issues = []
        if len(pixels) < layout.frames:
            issues.append(truncated(len(pixels), layout.frames, why))
        modality = printable(_text(header, "Modality"))
        if modality not in ("US", "IVUS", ""):
            text = f"its modality is {modality[:16]}, ultrasound is US"
            issues.append(Issue("not_ultrasound", "error", message=text))
        times, noticed = _times(header, layout.frames)
        issues += noticed
        region, spacing, noticed = _region(header, layout)
        issues += noticed
    patient, study = _who(header, reading)
    if not patient:
        text = "the file names no patient; the video is taken as a patient of its own"
        issues.append(Issue("no_patient_id", "warning", message=text))
    return Video(
        pixels,
        "DICOM",
        fps=times.fps,
        seconds=None if times.seconds is None else times.seconds[: len(pixels)],
        spacing_mm=spacing,
        region=region,
        patient_id=patient,
        study_id=study,
        view=_view(header),
        issues=issues,
    )


def pseudonym(value: str, salt: str) -> str:
    """A name that cannot be turned back without the salt: 16 hex digits of HMAC-SHA256.

    Without a salt whoever can list all possible ids can find the one behind a pseudonym.

    Example:
        >>> pseudonym("204", salt="of this project") == pseudonym("204", salt="of another")
        False
    """
    return hmac.new(salt.encode(), value.encode(), sha256).hexdigest()[:16] if value else ""


def _parted(raw: bytes, most: int) -> tuple[Any, str, memoryview]:
    """Header, UID of the transfer syntax, and the bytes from the pixel data's element on."""
    import pydicom

    try:
        if DEFLATED in raw[132:1024]:
            raw = _inflated(raw, most)
        file = io.BytesIO(raw)
        header = pydicom.dcmread(file, stop_before_pixels=True)
        header.decode()
        syntax = str(header.file_meta.get("TransferSyntaxUID", "")).strip()
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, BadRecord):
            raise
        text = f"its DICOM header is damaged or breaks off: {str(error)[:120]}"
        raise bad("unreadable", f"{text}; copy it again") from None
    return header, syntax, memoryview(raw)[file.tell() :]


def _inflated(raw: bytes, most: int) -> bytes:
    """The same file without deflation; pydicom would inflate a bomb to its end."""
    length = struct.unpack_from("<I", raw, 140)[0]  # of the group that names the syntax
    begin = 144 + length
    head = raw[:begin].replace(DEFLATED, b"1.2.840.10008.1.2.1\0\0\0")
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = unpack.decompress(raw[begin:], most + 1)
    except zlib.error as error:
        raise bad("unreadable", f"its deflated part is damaged: {error}; copy it again") from None
    if len(body) > most:
        raise bad("size_limit", f"it inflates to over {most} bytes", count=len(body), total=most)
    return head + body


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()


def _number(header: Any, name: str) -> float:
    """A positive number of the header; 0 where there is none."""
    try:
        value = float(_text(header, name) or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _who(header: Any, reading: VideoReading) -> tuple[str, str]:
    patient = identifier(_text(header, "PatientID"))
    if patient.casefold() in NOBODY:
        patient = ""
    study = identifier(_text(header, "StudyInstanceUID"))
    if reading.pseudonyms:
        return pseudonym(patient, reading.salt), pseudonym(study, reading.salt)
    return printable(patient)[:64], printable(study)[:64]


def _view(header: Any) -> str:
    """Meaning of the view's code; free text may hold names and is not read."""
    codes = header.get("ViewCodeSequence")
    if not codes:
        return ""
    return printable(_text(codes[0], "CodeMeaning") or _text(codes[0], "CodeValue"))[:64]


def _times(header: Any, frames: int) -> tuple[Any, list[Issue]]:
    """From the vector of times, or the time of a frame, or the rate of the cine loop."""
    vector = header.get("FrameTimeVector")
    if vector is not None and isinstance(vector, Iterable) and not isinstance(vector, str):
        steps = np.array([float(step) for step in vector], dtype=np.float64) / 1000
        if len(steps) == frames and (steps[1:] > 0).all():
            return even_times(np.cumsum(steps) - steps[0])
    step = _number(header, "FrameTime")
    cine = _number(header, "CineRate") or _number(header, "RecommendedDisplayFrameRate")
    rate = 1000 / step if step else cine
    times, issues = even_times(np.zeros(0), rate)
    if step and cine and abs(cine - rate) > RATES_AGREE * rate + 0.5:  # a cine rate is whole
        text = f"{step:g} ms a frame are {rate:.4g}/s, its cine rate is {cine:g}/s; the first holds"
        issues.append(Issue("mixed_rates", "warning", message=text))
    return times, issues


def _region(
    header: Any, layout: Layout
) -> tuple[tuple[int, int, int, int] | None, tuple[float, float] | None, list[Issue]]:
    """The largest region that is a two-dimensional picture, and mm of a pixel in it."""
    found: tuple[int, int, int, int] | None = None
    spacing: tuple[float, float] | None = None
    for part in header.get("SequenceOfUltrasoundRegions") or []:
        if _number(part, "RegionSpatialFormat") != 1 or _number(part, "RegionDataType") > 2:
            continue
        names = ("MinY0", "MinX0", "MaxY1", "MaxX1")
        top, left, bottom, right = (int(_number(part, f"RegionLocation{n}")) for n in names)
        box = (top, left, bottom + 1, right + 1)
        if found is not None and _area(box) <= _area(found):
            continue
        found, spacing = box, None
        down, across = _number(part, "PhysicalDeltaY"), _number(part, "PhysicalDeltaX")
        units = (_number(part, "PhysicalUnitsXDirection"), _number(part, "PhysicalUnitsYDirection"))
        if units == (3, 3) and 0 < down < 10 and 0 < across < 10:  # 3 is cm
            spacing = (10 * down, 10 * across)
    if found is None:
        return None, _plain_spacing(header), []
    if found[2] > layout.height or found[3] > layout.width or _area(found) < 256:
        text = (
            f"its region is x {found[1]} to {found[3] - 1}, y {found[0]} to {found[2] - 1} in "
            f"frames of {layout.width} x {layout.height}: the frames were scaled or cut "
            "afterwards, so neither the region nor its mm hold"
        )
        return None, None, [Issue("region_mismatch", "warning", message=text)]
    return found, spacing or _plain_spacing(header), []


def _area(box: tuple[int, int, int, int]) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _plain_spacing(header: Any) -> tuple[float, float] | None:
    value = header.get("PixelSpacing")
    try:
        down, across = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return (down, across) if 0 < down < 100 and 0 < across < 100 else None
