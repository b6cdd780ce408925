"""Videos of hearts, read from files of which nothing is believed: DICOM, films, GIF, arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.dicom_video import is_dicom, read_dicom
from ecgfast.data.film import VideoReading as VideoReading
from ecgfast.data.film import container, read_array, read_film, read_gif
from ecgfast.data.records import BadRecord, DataError, Issue, Video, bad
from ecgfast.data.sources import Item, whole_file, with_ids

SUFFIXES: tuple[str, ...] = (".dcm", ".dicom", ".ima", ".avi", ".mp4", ".m4v", ".mov", ".mkv")
SUFFIXES += (".webm", ".wmv", ".gif", ".npy")
STILL = 8  # levels by which a codec lets a pixel of a still picture tremble
MOVING = 1e-3  # share of pixels that must move more than that


def is_video(path: str | Path) -> bool:
    """Whether a file is taken for a video: by its suffix, or, whatever its name, a DICOM file."""
    if str(path).lower().endswith(SUFFIXES):
        return True
    path = Path(path)
    if path.name == "DICOMDIR" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def find_videos(sources: Iterable[Path], skip: Iterable[Path] = ()) -> list[Item]:
    """All videos of the named folders and files, in a fixed order, each with its own id.

    Args:
        sources: Folders, searched to the bottom but for stores in them, or files.
        skip: Files that are no records.

    Raises:
        DataError: A source is not there or holds none.
    """
    skipped = {path.resolve() for path in skip}
    items: list[Item] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"error[no_source] there is no {source}")
        root = source.parent if source.is_file() else source
        found = [source.name] if source.is_file() else _search(source)
        kept = [Item(str(root), path) for path in found if (root / path).resolve() not in skipped]
        if not kept or (source.is_file() and not is_video(source)):
            known = ", ".join(SUFFIXES)
            raise DataError(
                f"error[no_videos] {source} holds no video: looked for {known}, and for DICOM "
                "files of any name"
            )
        items += kept
    return with_ids(items)


def _search(folder: Path) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder):
        if place != str(folder) and "store.json" in names:  # of ours: its arrays are no videos
            folders.clear()
            continue
        folders.sort()
        inside = os.path.relpath(place, folder)
        for name in sorted(names):
            if is_video(Path(place) / name):
                found.append(name if inside == "." else f"{inside}/{name}")
    return found


def read_video(root: Path, path: str, reading: VideoReading) -> Video:
    """Reads one video.

    What the file is its bytes say, not its name. Sizes that headers state are held against the
    limits before anything is decoded. Frames that are grey in three channels come out in one.

    Args:
        root: The folder that was named; a link out of it is refused.
        path: Within it.
        reading: Least length, pseudonyms, limits.

    Raises:
        BadRecord: With the issue that says why it cannot be read.
    """
    try:
        raw = whole_file(Path(root), path, reading.most_bytes)
        video = _decoded(raw, reading)
    except (BadRecord, ModuleNotFoundError):  # a package that is not there is no fault of the file
        raise
    except OSError as error:  # its text would hold the whole path
        text = f"it cannot be read: {error.strerror or type(error).__name__}"
        raise bad("unreadable", text) from None
    except MemoryError:
        raise bad("size_limit", "there is not enough memory to decode it") from None
    except Exception as error:  # libraries raise what they like over bytes that are not theirs
        text = f"its bytes are damaged ({type(error).__name__}: {str(error)[:120]}); copy it again"
        raise bad("unreadable", text) from None
    cut = [issue for issue in video.issues if issue.name == "truncated_video"]
    if cut and len(video.pixels) == 1:  # no still, though one frame alone is whole
        raise BadRecord(cut[0])
    video.pixels = _grey_if_grey(video.pixels)
    video.issues += _looked_at(video.pixels, reading)
    video.source_sha256 = hashlib.sha256(raw).hexdigest()
    return video


def _decoded(raw: bytes, reading: VideoReading) -> Video:
    if is_dicom(raw):
        return read_dicom(raw, reading)
    if raw[:6] in (b"GIF87a", b"GIF89a"):
        return read_gif(raw, reading)
    if raw[:6] == b"\x93NUMPY":
        return read_array(raw, reading)
    if film := container(raw):
        return read_film(raw, *film, reading)
    raise bad("unreadable", _not_a_video(raw))


def _not_a_video(raw: bytes) -> str:
    kinds = {b"PK\x03\x04": "a ZIP archive: unpack it", b"\x1f\x8b": "a gzip file: unpack it"}
    kinds |= {b"\x89PNG": "a PNG, a still", b"\xff\xd8\xff": "a JPEG, a still", b"<": "XML or HTML"}
    kinds |= {b"#EXTM3U": "a playlist", b"%PDF": "a PDF"}
    for begin, name in kinds.items():
        if raw.startswith(begin):
            return f"it is {name}; videos are DICOM, AVI, MP4, MOV, MKV, WMV, GIF or .npy"
    return "its bytes are no DICOM, AVI, MP4, MOV, MKV, WMV, GIF or .npy"


def _grey_if_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.shape[3] == 1:
        return pixels
    for frame in pixels:
        if not (
            np.array_equal(frame[..., 0], frame[..., 1])
            and np.array_equal(frame[..., 0], frame[..., 2])
        ):
            return pixels
    return np.ascontiguousarray(pixels[..., :1])


def long_enough(frames: int, reading: VideoReading) -> list[Issue]:
    """The issue of a video that has fewer frames than are asked for, as read or at another rate."""
    if frames >= reading.least_frames:
        return []
    text = f"{frames} frames, {reading.least_frames} are asked for"
    return [Issue("short_video", "error", "", frames, reading.least_frames, text)]


def _looked_at(pixels: NDArray[np.uint8], reading: VideoReading) -> list[Issue]:
    """Checks that every video must pass, whatever it came from."""
    frames = len(pixels)
    if frames == 1:
        text = "1 frame: a still where a clip is needed; leave stills out, or export the loop"
        raise bad("single_frame", text, count=1, total=reading.least_frames)
    issues = long_enough(frames, reading)
    low, high = pixels[0].copy(), pixels[0].copy()
    for frame in pixels[1:]:
        np.minimum(low, frame, out=low)
        np.maximum(high, frame, out=high)
    darkest, brightest = int(low.min()), int(high.max())
    if brightest - darkest < 8:
        text = f"all pixels of {frames} frames lie from {darkest} to {brightest}"
        return [*issues, Issue("blank_video", "error", "", frames, frames, text)]
    moving = float(((high - low).max(axis=2) > STILL).mean())
    if moving < MOVING:
        text = f"{100 * moving:.2g} % of the pixels move in {frames} frames: a still in disguise"
        issues.append(Issue("frozen_video", "error", "", frames, frames, text))
    return issues
