"""WFDB records, decoded by the wfdb package; what it accepts without a word is checked here."""

from __future__ import annotations

import hashlib
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.conform import resample
from ecgfast.data.mat import load_matrix
from ecgfast.data.records import ECG, Issue, bad, lead_name, millivolts_per
from ecgfast.data.wfdb_header import (
    BITS,
    FLAC,
    MAX_SAMPLES,
    Header,
    Signal,
    beside,
    bytes_needed,
    read_header,
)


def read_wfdb(path: Path, *, root: Path | None = None, units: str = "") -> ECG:
    """Reads a record by its header.

    Samples become mV by the declared gain and unit; those that the format reserves for missing ones
    become NaN. Signals that are neither one of the twelve leads nor a voltage are left out and
    named in an issue; where there is a standard lead, so is every other signal.

    Args:
        path: The `.hea` file.
        root: Folder that no file of the record may lie outside of, links followed; the record's own
            folder by default.
        units: Overrides the declared unit of all leads.

    Raises:
        BadRecord: if there is nothing to read, or the files are not what the header says.
    """
    if "::" in str(path) or "://" in str(path):  # wfdb's file layer would take these for addresses
        raise bad("unsafe_path", "a path with '::' or '://' is not read; rename the folder")
    root = root or path.parent
    header = read_header(path)
    files = {path: None}
    if not header.segments:
        rows, issues = _read_signals(path, header, root, files)
        rows = _choose(rows)
    else:
        rows, issues = _read_segments(path, header, root, files)
    if not header.fs_declared:
        issues.append(
            Issue(
                "fs_assumed", "warning", path.name, message="no rate in the header: 250 Hz assumed"
            )
        )
    signal, leads, fs = _in_millivolts(rows, header, units, issues)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return ECG(
        signal=signal,
        leads=leads,
        fs=fs,
        record_id=path.stem,
        issues=issues,
        labels=comment_labels(header.comments),
        source=str(path.relative_to(root)) if path.is_relative_to(root) else path.name,
        source_sha256=digest.hexdigest(),
    )


# one signal: its line, its samples in the declared unit, and how many of them a frame has
_Row = tuple[Signal, NDArray[np.float64]]


def _read_signals(
    path: Path, header: Header, root: Path, files: dict[Path, None]
) -> tuple[list[_Row], list[Issue]]:
    """All signals of a header without segments, in the declared units."""
    issues: list[Issue] = []
    length = header.length
    for name, group in groupby(sorted(header.signals, key=lambda s: s.file), key=lambda s: s.file):
        signals = list(group)
        file = beside(path, name, root)
        files[file] = None
        if len({(s.fmt, s.offset) for s in signals}) > 1:
            raise bad("corrupt_header", f"{name} is given two formats or offsets", place=path.name)
        issues += _check_length(file, signals, length)
    if len(header.signals) > 1 and _is_matlab(header):
        digital = _matlab(path, header, next(f for f in files if f.suffix == ".mat"))
    else:
        digital = _decode(path, header, skewed=False)
    issues += _check_sums(header, digital)
    if any(s.skew for s in header.signals):
        digital = _decode(path, header, skewed=True)
    rows = []
    for signal, samples in zip(header.signals, digital, strict=True):
        physical = np.asarray((samples - float(signal.baseline)) / signal.gain, np.float64)
        if signal.fmt != "8":  # differences have no reserved value
            physical[samples == -(1 << (BITS[signal.fmt] - 1))] = np.nan
        rows.append((signal, physical))
    return rows, issues


def _check_length(file: Path, signals: list[Signal], length: int | None) -> list[Issue]:
    """Compares the size of a signal file with what its header says; refuses a short one."""
    found = file.stat().st_size
    if found == 0:
        raise bad("empty_file", "the signal file has 0 bytes; fetch it again", place=file.name)
    first, per_frame = signals[0], sum(s.per_frame for s in signals)
    if first.fmt in FLAC:
        return _check_flac(file, signals, length)
    if length is None:
        if found * 8 // BITS[first.fmt] > MAX_SAMPLES:
            raise bad(
                "size_limit", f"{found} bytes; at most {MAX_SAMPLES} samples", place=file.name
            )
        return []
    need = first.offset + bytes_needed(first.fmt, length * per_frame)
    shape = f"{len(signals)} signals x {length} samples in format {first.fmt}"
    if found < need:
        frames = max(0, found - first.offset) * length // max(1, need - first.offset)
        raise bad(
            "truncated_signal",
            f"{found} bytes; the header needs {need} ({shape}): {length - frames} of {length} "
            "samples are missing; fetch it again",
            place=file.name,
            count=found,
            total=need,
        )
    if found - need >= max(4, first.offset and 8):  # a few bytes fill up the last block
        return [
            Issue(
                "wrong_length",
                "warning",
                file.name,
                found,
                need,
                f"{found} bytes; the header needs {need} ({shape}) and the rest is not read",
            )
        ]
    return []


def _check_flac(file: Path, signals: list[Signal], length: int | None) -> list[Issue]:
    import soundfile

    try:
        about = soundfile.info(str(file))
    except (RuntimeError, OSError) as error:
        raise bad("unreadable", f"not FLAC: {str(error)[-100:]}", place=file.name) from None
    need = signals[0].offset + (length or 0) * signals[0].per_frame
    if about.channels != len(signals):
        raise bad(
            "wrong_length",
            f"{about.channels} channels; the header says {len(signals)}",
            place=file.name,
            count=about.channels,
            total=len(signals),
        )
    if about.frames * about.channels > MAX_SAMPLES:
        raise bad("size_limit", f"{about.frames} frames", place=file.name, count=about.frames)
    if 0 < about.frames < need:  # 0: the length of a stream need not be written
        raise bad(
            "truncated_signal",
            f"{about.frames} samples a channel; the header needs {need}; fetch it again",
            place=file.name,
            count=about.frames,
            total=need,
        )
    return []


def _decode(path: Path, header: Header, *, skewed: bool) -> list[NDArray[np.int64]]:
    """Digital samples by the wfdb package, every sample of every frame."""
    import wfdb

    # its way for several samples a frame fails on format 160, which it holds as unsigned
    uniform = all(s.per_frame == 1 for s in header.signals)
    try:
        record: Any = wfdb.rdrecord(
            str(path.absolute().with_suffix("")),
            physical=False,
            smooth_frames=uniform,
            ignore_skew=not skewed,
        )
        read = record.d_signal.T if uniform else record.e_d_signal
        digital = [np.asarray(samples, np.int64) for samples in read]
    except Exception as error:  # wfdb raises whatever it stumbles on
        why = f"wfdb cannot read it ({type(error).__name__}: {str(error)[:160]})"
        raise bad("unreadable", f"{why}; repair or fetch it again", place=path.name) from None
    as_read = [*zip(record.file_name, record.fmt, record.samps_per_frame, strict=True)]
    if as_read != [(s.file, s.fmt, s.per_frame) for s in header.signals]:
        raise bad("corrupt_header", "wfdb understands it differently; repair it", place=path.name)
    frames = {len(d) / s.per_frame for d, s in zip(digital, header.signals, strict=True)}
    if header.length is not None and frames != {header.length}:
        raise bad(
            "truncated_signal",
            f"{min(frames):g} of {header.length} samples could be read; fetch it again",
            place=path.name,
            count=int(min(frames)),
            total=header.length,
        )
    return digital


def _is_matlab(header: Header) -> bool:
    """A challenge record: one MATLAB v4 matrix behind its 24 bytes of header."""
    first = header.signals[0]
    return first.file.endswith(".mat") and all(
        (s.file, s.fmt, s.per_frame, s.skew, s.offset) == (first.file, "16", 1, 0, 24)
        for s in header.signals
    )


def _matlab(path: Path, header: Header, file: Path) -> list[NDArray[np.int64]]:
    """Samples of a challenge record, also where line 1 names `E00015.mat`, which wfdb refuses."""
    matrix = load_matrix(file, key="val")
    want = (len(header.signals), header.length or matrix.shape[1])
    if matrix.shape != want:
        raise bad(
            "wrong_length",
            f"the matrix is {matrix.shape[0]} x {matrix.shape[1]}; {path.name} says "
            f"{want[0]} x {want[1]}; fetch both again",
            place=file.name,
            count=matrix.shape[1],
            total=want[1],
        )
    return [*matrix.astype(np.int64)]


def _check_sums(header: Header, digital: list[NDArray[np.int64]]) -> list[Issue]:
    issues = []
    for signal, samples in zip(header.signals, digital, strict=True):
        found = int(samples.sum()) & 0xFFFF
        if signal.checksum is None or header.length is None or signal.checksum & 0xFFFF == found:
            continue
        signed = found - (1 << 16) if found >= 1 << 15 and signal.checksum < 1 << 15 else found
        issues.append(
            Issue(
                "checksum_mismatch",
                "error",
                f"{signal.file} signal {signal.name or '?'}",
                1,
                len(header.signals),
                f"checksum {signal.checksum} in the header, {signed} in the data; fetch it again, "
                "or --policy checksum_mismatch=keep",
            )
        )
    return issues


def _read_segments(
    path: Path, header: Header, root: Path, files: dict[Path, None]
) -> tuple[list[_Row], list[Issue]]:
    """Joins segments by signal name; what a segment lacks is NaN."""
    if sum(length for _, length in header.segments) > MAX_SAMPLES:
        raise bad("size_limit", "the segments claim too many samples", place=path.name)
    parts: list[tuple[int, list[_Row]]] = []
    issues: list[Issue] = []
    for name, length in header.segments:
        if length == 0:  # the layout of a record with changing signals: no samples
            continue
        if name == "~":
            parts.append((length, []))
            continue
        own = beside(path, f"{name}.hea", root)
        files[own] = None
        inner = read_header(own)
        if inner.segments:
            raise bad("corrupt_header", f"segment {name} has segments of its own", place=path.name)
        if inner.length != length or inner.fs != header.fs:
            raise bad(
                "wrong_length",
                f"segment {name} has {inner.length} samples at {inner.fs:g} Hz; {path.name} says "
                f"{length} at {header.fs:g} Hz",
                place=own.name,
                count=inner.length or 0,
                total=length,
            )
        rows, found = _read_signals(own, inner, root, files)
        parts.append((length, rows))
        # one file may hold several segments one after the other: the rest is not lost
        issues += [issue for issue in found if issue.name != "wrong_length"]
    kinds: dict[str, Signal] = {}
    for _, rows in parts:
        for signal, _ in _choose(rows):
            known = kinds.setdefault(signal.name, signal)
            if (known.units, known.per_frame) != (signal.units, signal.per_frame):
                raise bad(
                    "corrupt_header",
                    f"{signal.name} changes its unit or rate between segments",
                    place=path.name,
                )
    joined = []
    for name, signal in kinds.items():
        pieces = []
        for length, rows in parts:
            own_rows = [samples for s, samples in rows if s.name == name]
            gap = np.full(length * signal.per_frame, np.nan)
            pieces.append(own_rows[0] if own_rows else gap)
        joined.append((signal, np.concatenate(pieces)))
    return joined, issues


def _choose(rows: list[_Row]) -> list[_Row]:
    """The standard leads; where there are none, all voltages."""
    leads = [row for row in rows if lead_name(row[0].name)]
    return leads or [row for row in rows if millivolts_per(row[0].units) is not None]


def _in_millivolts(
    rows: list[_Row], header: Header, units: str, issues: list[Issue]
) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    """Scales the chosen signals and brings them to one rate."""
    chosen = {signal.name for signal, _ in rows}
    left = [f"{s.name} ({s.units})" for s in header.signals if s.name not in chosen]
    if left:
        text = f"no lead of the twelve, left out: {', '.join(left)}"
        issues.append(
            Issue("other_signals", "note", "", len(left), len(header.signals), message=text)
        )
    if not rows:
        raise bad("missing_leads", "no signal is a lead or a voltage", total=len(header.signals))
    names = [lead_name(signal.name) or signal.name for signal, _ in rows]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise bad("corrupt_header", f"lead {', '.join(twice)} is there more than once")
    per_frame = max(signal.per_frame for signal, _ in rows)
    signals = []
    for name, (signal, samples) in zip(names, rows, strict=True):
        factor = millivolts_per(units or signal.units)
        if factor is None:
            factor = 1.0
            issues.append(
                Issue(
                    "unit_unknown",
                    "error",
                    f"lead {name}",
                    1,
                    len(rows),
                    f"unit {signal.units!r} is no voltage; if it is one all the same, --units mV",
                )
            )
        if signal.per_frame != per_frame:
            rate = header.fs * signal.per_frame
            samples = resample(samples[None], rate, header.fs * per_frame)[0]
            issues.append(
                Issue(
                    "fs_mismatch",
                    "note",
                    f"lead {name}",
                    1,
                    len(rows),
                    f"{rate:g} Hz beside leads of {header.fs * per_frame:g} Hz: brought to those",
                )
            )
        signals.append(samples * factor)
    return np.stack(signals), tuple(names), header.fs * per_frame


def comment_labels(comments: tuple[str, ...]) -> dict[str, str]:
    """`Key: value` lines of a header as text; `Unknown` and its like are left out.

    Keys become column names: `Patient ID` is patient_id. At most 64 are taken.
    """
    labels: dict[str, str] = {}
    for line in comments:
        tagged = re.findall(r"<(\w[\w ]{0,39})>:\s*([^<]*)", line)
        plain = re.fullmatch(r"(\w[\w ()/.-]{0,39}?)\s*:\s*(.*)", line)
        for key, value in tagged or ([plain.groups()] if plain else []):
            name = re.sub(r"\W+", "_", key.strip().casefold()).strip("_")
            value = value.strip()
            if value.casefold() in ("", "unknown", "nan", "n/a", "na", "none", "(none)", "not"):
                continue
            if name and len(labels) < 64:
                labels.setdefault(name, value[:1000])
    return labels
