"""What a record is: an ECG, the picture of one, a video; and the issues found in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import LEADS

Severity = Literal["error", "warning", "note"]


class DataError(ValueError):
    """Data that cannot be used; the message is ready to print and names a way out."""


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong, or worth knowing, about one record.

    Attributes:
        name: What it is called everywhere: on the screen, in flags, in rejected.csv.
        severity: An error rejects the record unless a policy keeps it; the others are flags.
        place: Where in the record: `lead V3`, `r5.dat`; empty for all of it.
        count: How many samples, bytes or leads are concerned.
        total: Of how many.
        message: The whole sentence, with the numbers and a way out.
    """

    name: str
    severity: Severity
    place: str = ""
    count: int = 0
    total: int = 0
    message: str = ""

    def line(self, record: str = "") -> str:
        """As it is printed: `error[nan_values] rec 17 lead V3: 412 of 5000 samples ...`."""
        where = " ".join(part for part in (record and f"rec {record}", self.place) if part)
        return printable(
            f"{self.severity}[{self.name}] {where}{': ' if where else ''}"
        ) + printable(self.message)


class BadRecord(DataError):
    """A record that could not be read at all; holds the issue that says why."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(issue.line())
        self.issue = issue

    def __reduce__(self) -> tuple[Any, ...]:  # it travels between processes
        return BadRecord, (self.issue,)


def bad(name: str, message: str, *, place: str = "", count: int = 0, total: int = 0) -> BadRecord:
    """The exception for a record that cannot be read."""
    return BadRecord(Issue(name, "error", place, count, total, message))


def printable(text: str) -> str:
    """Text of a foreign file without what could steer a terminal or break a line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@dataclass
class ECG:
    """A record as read: nothing resampled, nothing cropped, nothing invented.

    Attributes:
        signal: (L, T) in mV, NaN where the file holds no value.
        leads: The canonical name of each row, or the file's own name where it is no standard lead.
        fs: Samples a second, Hz.
        record_id: Name of the record.
        issues: What the reader noticed.
        labels: What the header says about the patient, as text.
        source: The file it came from, relative to the folder that was named.
        source_sha256: Of the bytes of its files.
        lead_in: Samples before the part that is meant, for filters to settle.
    """

    signal: NDArray[np.float64]
    leads: tuple[str, ...]
    fs: float
    record_id: str
    issues: list[Issue] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    source: str = ""
    source_sha256: str = ""
    lead_in: int = 0

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.signal.shape[1] / self.fs


@dataclass
class Page:
    """A picture of an ECG as read: upright, on white, nothing cut, nothing scaled.

    Attributes:
        pixels: (H, W, C) uint8, C 3 for red, green, blue, or 1 for grey.
        form: What the file is: PNG, JPEG, TIFF, PDF.
        record_id: Name of the record.
        issues: What the reader noticed.
        source: The file it came from, relative to the folder that was named.
        source_sha256: Of the bytes of its file.
    """

    pixels: NDArray[np.uint8]
    form: str
    record_id: str = ""
    issues: list[Issue] = field(default_factory=list)
    source: str = ""
    source_sha256: str = ""


@dataclass
class Video:
    """Moving pictures of a heart as read: nothing cut, nothing scaled, nothing blackened.

    Attributes:
        pixels: (F, H, W, C) uint8, C 3 for red, green, blue, or 1 for grey.
        form: What the file is: DICOM, AVI, MP4, MKV, ASF, GIF, NPY.
        fps: Frames a second; 0 where nobody knows.
        seconds: (F,) when each frame is shown, from 0, where the frames do not follow evenly.
        spacing_mm: Of a pixel, down and across; None where nobody knows.
        region: Top, left, bottom, right of what the file says is the picture of the heart, pixels.
        patient_id: As the file has it, or its pseudonym; empty if unknown.
        study_id: Likewise.
        view: Name of the view; empty if unknown.
        issues: What the reader noticed.
        source_sha256: Of the bytes of its file.
    """

    pixels: NDArray[np.uint8]
    form: str
    fps: float = 0.0
    seconds: NDArray[np.float64] | None = None
    spacing_mm: tuple[float, float] | None = None
    region: tuple[int, int, int, int] | None = None
    patient_id: str = ""
    study_id: str = ""
    view: str = ""
    issues: list[Issue] = field(default_factory=list)
    source_sha256: str = ""


_BY_KEY = {lead.casefold(): lead for lead in LEADS} | {"di": "I", "dii": "II", "diii": "III"}
# SCP-ECG numbers, as DICOM writes them: 5.6.3-9-<number>
_SCP = dict(zip([1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8], LEADS, strict=True))
_FILLERS = {"mdc", "ecg", "ekg", "lead"}


def lead_name(text: str) -> str | None:
    """The canonical name of a lead, or None if it is not one of the twelve.

    Case, spaces, underscores, and the words around the name do not matter: `AVR`, `Lead I
    (Einthoven)`, `MDC_ECG_LEAD_I`, `ecg v1`, `5.6.3-9-62`. What only resembles a lead (`MLII`, `V`,
    `-aVR`, `ECG 1`) is not taken for one.
    """
    if len(text) > 80:
        return None
    if scp := re.fullmatch(r"5\.6\.3-9-(\d{1,2})", text.strip()):
        return _SCP.get(int(scp.group(1)))
    text = re.sub(r"\([^()]*\)", " ", text).strip().casefold()
    if text.startswith("-"):  # an inverted lead is another signal
        return None
    words = re.sub(r"[\s_\-:]+", " ", text).split()
    while words and words[0] in _FILLERS:
        words.pop(0)
    return _BY_KEY.get("".join(words))


_VOLTS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "mc": 1e-6, "n": 1e-9}
_WORDS = {"volt": 1.0, "millivolt": 1e-3, "microvolt": 1e-6, "nanovolt": 1e-9}


def millivolts_per(unit: str) -> float | None:
    """What one of a declared unit is in mV, or None if it is no voltage (`NU`, `mmHg`, `adu`).

    Case does not count, but for what it can mean: `MV` is millivolts, as nobody records megavolts.
    """
    text = unit.strip().casefold()
    for word, volts in _WORDS.items():
        if text in (word, word + "s"):
            return volts * 1e3
    if text.endswith("v") and text[:-1] in _VOLTS:
        return round(_VOLTS[text[:-1]] * 1e3, 9)
    return None


def identifier(value: Any) -> str:
    """An id as text: `15709.0` and `15709` are the same patient, an empty cell is nobody."""
    text = str(value).strip()
    if text.casefold() in ("", "nan", "none", "<na>"):
        return ""
    return re.sub(r"(?<=\d)\.0+$", "", text)


def sex_code(value: Any, *, male: str = "1") -> float:
    """1 male, 0 female, NaN unknown, from words or from a code whose male value is named."""
    text = identifier(value).casefold()
    if text in ("m", "male", "man", "true"):
        return 1.0
    if text in ("f", "female", "woman", "w", "false"):
        return 0.0
    return float(text == male) if text in ("0", "1") else float("nan")


def age_years(value: Any) -> float:
    """Age in years; NaN if unknown. PTB-XL writes 300 for over 89, which becomes 90."""
    try:
        age = float(str(value).strip())
    except ValueError:
        return float("nan")
    if age == 300:
        return 90.0
    return age if 0 <= age <= 120 else float("nan")
