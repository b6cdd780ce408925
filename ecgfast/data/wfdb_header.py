"""WFDB headers, read strictly: what a file claims is checked before anything is opened for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ecgfast.data.records import BadRecord, bad

MAX_HEADER = 1 << 20  # bytes
MAX_SIGNALS = 256
MAX_SEGMENTS = 10_000
MAX_SAMPLES = 1 << 26  # of all signals of a record; 0.5 GB as float64
MIN_FS, MAX_FS = 1.0, 1e5  # Hz
BYTES = {"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4}  # of a sample
BITS = {"212": 12, "310": 10, "311": 10, "508": 8, "516": 16, "524": 24} | {
    fmt: 8 * size for fmt, size in BYTES.items()
}
FLAC = ("508", "516", "524")

_SAFE = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_.+~-]*", re.ASCII)
_RECORD = re.compile(
    r"(?P<name>\S+?)(?:/(?P<segments>\d+))?\s+(?P<signals>\d+)"
    r"(?:\s+(?P<fs>[\d.eE+-]+)(?:/\S*)?(?:\s+(?P<length>\d+)(?:\s+.*)?)?)?",
    re.ASCII,
)
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", re.ASCII)
_GAIN = re.compile(r"([\d.eE+-]+)(?:\((-?\d+)\))?(?:/(\S+))?", re.ASCII)


@dataclass(frozen=True)
class Signal:
    """One signal line."""

    file: str
    fmt: str
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    units: str
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Header:
    """A header: either signals or segments."""

    name: str
    fs: float
    fs_declared: bool
    length: int | None  # frames
    signals: tuple[Signal, ...]
    segments: tuple[tuple[str, int], ...]
    comments: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Reads and checks a header.

    Raises:
        BadRecord: corrupt_header, unsafe_path, size_limit, empty_file, or missing_file.
    """
    raw = _bytes(path)
    # samples keep their units only if the micro sign survives: UTF-8, or else Latin-1
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\0\x1a")
    if strange := sum(not (c.isprintable() or c in "\n\t") for c in text):
        raise _corrupt(
            path, f"{strange} of {len(text)} characters are not text", strange, len(text)
        )
    lines = [line.strip() for line in text.split("\n")]
    comments = tuple(line.strip("# \t") for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise _corrupt(path, "it has comments only, no record line")
    first = _RECORD.fullmatch(lines[0])
    if first is None:
        raise _corrupt(path, f"record line {lines[0][:60]!r} is not 'name signals rate length'")
    count, segments = _count(first["signals"]), _count(first["segments"])
    if not 0 < count <= MAX_SIGNALS:
        raise _limit(path, f"it claims {count} signals; 1 to {MAX_SIGNALS} are possible", count)
    if segments > MAX_SEGMENTS:
        raise _limit(path, f"it claims {segments} segments; at most {MAX_SEGMENTS} are", segments)
    fs = _number(path, first["fs"] or "250", "rate")  # 250 Hz is what the format assumes
    if not MIN_FS <= fs <= MAX_FS:
        raise _corrupt(path, f"a rate of {fs:g} Hz is impossible ({MIN_FS:g} to {MAX_FS:g})")
    length = _count(first["length"])
    if length * count > MAX_SAMPLES:
        raise _limit(
            path,
            f"it claims {length} samples of {count} signals; at most {MAX_SAMPLES} in all are read",
            length,
        )
    want = segments or count
    if len(lines) - 1 != want:
        what = "segments" if segments else "signals"
        raise _corrupt(
            path, f"{len(lines) - 1} of {want} {what} are described", len(lines) - 1, want
        )
    return Header(
        name=path.stem,
        fs=fs,
        fs_declared=bool(first["fs"]),
        length=length or None,  # 0 means not known
        signals=()
        if segments
        else tuple(_signal(path, i, line) for i, line in enumerate(lines[1:])),
        segments=tuple(_segment(path, line) for line in lines[1:]) if segments else (),
        comments=comments,
    )


def bytes_needed(fmt: str, samples: int) -> int:
    """Bytes that so many samples of one signal file take."""
    if fmt == "212":
        return -(-samples * 3 // 2)
    if fmt == "310" and samples % 3 == 2:  # the third sample is spread over the whole quartet
        return 4 * -(-samples // 3)
    if fmt in ("310", "311"):
        return -(-samples * 4 // 3)
    return samples * BYTES[fmt]


def beside(path: Path, name: str, root: Path) -> Path:
    """The file that a header names: in the header's own folder, and a plain file within root."""
    _check_name(path, name)
    found = path.parent / name
    if not found.exists():
        raise bad(
            "missing_file",
            f"{path.name} names {name}, which is not beside it; fetch it",
            place=name,
        )
    if not found.resolve().is_relative_to(root.resolve()):
        raise bad(
            "unsafe_path",
            f"{name} is a link out of {root.name or root}; name the folder it leads to as a source",
            place=name,
        )
    if not found.is_file():
        raise bad("unsafe_path", f"{name} is not a plain file", place=name)
    return found


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise bad("missing_file", f"there is no file {path.name}", place=path.name)
    size = path.stat().st_size
    if size == 0:
        raise bad("empty_file", "the header has 0 bytes; fetch it again", place=path.name)
    if size > MAX_HEADER:
        raise _limit(path, f"it has {size} bytes; a header has at most {MAX_HEADER}", size)
    return path.read_bytes()


def _corrupt(path: Path, why: str, count: int = 0, total: int = 0) -> BadRecord:
    return bad(
        "corrupt_header",
        f"{why}; repair or fetch the header again",
        place=path.name,
        count=count,
        total=total,
    )


def _limit(path: Path, why: str, count: int) -> BadRecord:
    return bad("size_limit", f"{why}; nothing was read", place=path.name, count=count)


def _check_name(path: Path, name: str) -> None:
    if not _SAFE.fullmatch(name) or name.startswith("~"):
        raise bad(
            "unsafe_path",
            f"it names {name[:80]!r}; only files in its own folder, with plain names, are read",
            place=path.name,
        )


def _count(digits: str | None) -> int:
    """A whole number; one too long to be meant counts as the largest."""
    return int(digits or "0") if len(digits or "0") <= 18 else 1 << 62


def _number(path: Path, text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _corrupt(path, f"{what} {text[:40]!r} is no number") from None


def _signal(path: Path, number: int, line: str) -> Signal:
    words = line.split(None, 8)
    _check_name(path, words[0])
    fmt = _FORMAT.fullmatch(words[1]) if len(words) > 1 else None
    if fmt is None:
        raise _corrupt(path, f"signal line {line[:60]!r} has no format")
    if fmt[1] not in BITS:
        raise _corrupt(
            path, f"format {fmt[1][:12]} is not one of {', '.join(sorted(BITS, key=int))}"
        )
    gain = _GAIN.fullmatch(words[2]) if len(words) > 2 else None
    if len(words) > 2 and gain is None:
        raise _corrupt(path, f"gain {words[2][:40]!r} is not 'gain(baseline)/units'")
    per_mv = _number(path, gain[1], "gain") if gain else 0.0
    if not abs(per_mv) < 1e15:
        raise _corrupt(path, f"gain {per_mv:g} is impossible")
    integers: list[int | None] = [_integer(path, word) for word in words[3:8]]
    integers += [None] * (5 - len(integers))  # resolution, zero, first value, checksum, block
    baseline = int(gain[2]) if gain and gain[2] else integers[1] or 0
    per_frame, skew, offset = map(_count, fmt.groups()[1:])
    if per_frame > 1000 or skew > 100_000 or offset > 1 << 38:
        raise _limit(path, f"frame, skew or offset of {words[1][:40]!r} is absurd", per_frame)
    return Signal(
        file=words[0],
        fmt=fmt[1],
        per_frame=per_frame or 1,
        skew=skew,
        offset=offset,
        gain=per_mv or 200.0,  # a gain of 0 or none means 200 per mV
        baseline=baseline,
        units=(gain[3] if gain else None) or "mV",
        checksum=integers[3],
        name=words[8].strip() if len(words) > 8 else f"signal {number}",
    )


def _integer(path: Path, word: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", word, re.ASCII):
        raise _corrupt(path, f"{word[:40]!r} in a signal line is no whole number")
    return int(word)


def _segment(path: Path, line: str) -> tuple[str, int]:
    words = line.split()
    if len(words) != 2 or not re.fullmatch(r"\d{1,12}", words[1], re.ASCII):
        raise _corrupt(path, f"segment line {line[:60]!r} is not 'name length'")
    if words[0] != "~":
        _check_name(path, words[0])
    return words[0], int(words[1])
