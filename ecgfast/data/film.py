"""Frames of films (AVI, MP4, Matroska, ASF), GIFs and arrays, of which nothing is believed."""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.records import BadRecord, Issue, Video, bad

LEAST_SIDE = 16
MOST_SIDE = 8192
UNEVEN = 0.1  # of the usual time between frames: beyond, frames do not follow evenly


@dataclass(frozen=True, kw_only=True)
class VideoReading:
    """How videos are to be read.

    Attributes:
        least_frames: Shorter videos are rejected (short_video).
        pseudonyms: Ids of patients and studies in DICOM files become keyed hashes.
        salt: The key: equal for what shall be joined, known to nobody else. Of it 8 digits of a
            hash are stored, so that a run does not go on under another one.
        most_bytes: Larger files are not read.
        most_pixels: F x H x W beyond which nothing is decoded: 268 million are 370 frames of
            1016 x 708, 0.8 GB in colour.
    """

    least_frames: int = 2
    pseudonyms: bool = True
    salt: str = ""
    most_bytes: int = 2**30
    most_pixels: int = 2**28

    def __post_init__(self) -> None:
        if self.least_frames < 2:
            raise ValueError(f"least_frames must be 2 or more, got {self.least_frames}")

    def plain(self) -> dict[str, Any]:
        """Plain values without the salt: of it, a few digits that tell one from another."""
        salt = sha256(b"salt of ecgfast:" + self.salt.encode()).hexdigest()[:8]
        return {**asdict(self), "salt": salt if self.salt else ""}

    def expect(self, frames: int, height: int, width: int) -> None:
        """Holds a size against the limits before anything is decoded.

        Raises:
            BadRecord: size_limit, unreadable.
        """
        if min(height, width) < LEAST_SIDE:
            text = f"frames of {width} x {height} pixels are no picture, {LEAST_SIDE} is least"
            raise bad("unreadable", text)
        if max(height, width) > MOST_SIDE:
            text = f"frames of {width} x {height} pixels, a side of {MOST_SIDE} is read"
            raise bad("size_limit", text, count=max(height, width), total=MOST_SIDE)
        pixels = frames * height * width
        if pixels > self.most_pixels:
            text = (
                f"{frames} frames of {width} x {height} are {pixels} pixels, {self.most_pixels} "
                "are decoded: cut it into shorter clips"
            )
            raise bad("size_limit", text, count=pixels, total=self.most_pixels)


def container(raw: bytes) -> tuple[str, str] | None:
    """Form of a film and FFmpeg's name for it, by its first bytes; None if it is none.

    The container is named to the decoder, which else would also try playlists, that lead to other
    files.
    """
    if raw[:4] == b"RIFF" and raw[8:12] == b"AVI ":
        return "AVI", "avi"
    if raw[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "MP4", "mp4"
    if raw[:4] == b"\x1a\x45\xdf\xa3":
        return "MKV", "matroska"
    if raw[:4] == b"\x30\x26\xb2\x75":
        return "ASF", "asf"
    return None


def read_film(raw: bytes, form: str, demuxer: str, reading: VideoReading) -> Video:
    """All frames of the first video stream.

    Raises:
        BadRecord: unreadable, mixed_sizes, size_limit, truncated_video, ....
    """
    import av

    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    broken = ""
    # a coding may claim more than its container; opening a film decodes some frames already
    most = {"max_pixels": str(min(reading.most_pixels, MOST_SIDE**2))}
    words: dict[str, Any] = {"format": demuxer, "metadata_errors": "ignore"}
    try:
        with av.open(io.BytesIO(raw), mode="r", options=most, **words) as film:
            if not film.streams.video:
                raise bad("unreadable", f"this {form} holds no pictures")
            stream = film.streams.video[0]
            declared = int(stream.frames or 0)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            size = (stream.codec_context.height, stream.codec_context.width)
            if min(size) > 0:
                reading.expect(max(1, declared), *size)
            stream.codec_context.options = most
            try:
                for frame in film.decode(stream):
                    shape = (frame.height, frame.width)
                    _expect_same(shape, frames, reading)
                    broken = broken or ("a frame is damaged" if frame.is_corrupt else "")
                    frames.append(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
                    times.append(float("nan") if frame.time is None else float(frame.time))
            except (av.FFmpegError, EOFError) as error:
                broken = str(error)[:120]
    except (av.FFmpegError, OSError, ValueError, LookupError) as error:
        if isinstance(error, BadRecord):
            raise
        text = f"this {form} is damaged or breaks off: {str(error)[:120]}"
        raise bad("unreadable", f"{text}; copy or export it again") from None
    if not frames:
        why = f": {broken}" if broken else ""
        raise bad("unreadable", f"no frame of this {form} can be decoded{why}; export it again")
    issues = []
    if broken or len(frames) < declared:
        issues.append(truncated(len(frames), max(declared, len(frames)), broken))
    even, issue = even_times(np.array(times), rate)
    video = Video(_joined(frames), form, fps=even.fps, seconds=even.seconds)
    video.issues = issues + issue
    return video


def truncated(whole: int, declared: int, why: str = "") -> Issue:
    """The issue of a video that lacks frames."""
    text = f"{whole} of {declared} frames are whole" if whole < declared else f"{whole} frames"
    text += f" ({why})" if why else ""
    text += "; copy it again, or keep what is there: --policy truncated_video=keep"
    return Issue("truncated_video", "error", "", whole, declared, text)


@dataclass(frozen=True)
class Times:
    """How the frames of a video follow."""

    fps: float
    seconds: NDArray[np.float64] | None = None


def even_times(times: NDArray[np.float64], rate: float = 0.0) -> tuple[Times, list[Issue]]:
    """Rate of frames from when they are shown; the times are kept if they are uneven.

    Args:
        times: (F,) s.
        rate: What the file says, frames a second; holds where times say nothing.
    """
    rate = rate if np.isfinite(rate) and 0 < rate <= 10_000 else 0.0
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(steps).all() or (steps <= 0).any():
        missing = [] if rate else [_no_rate()]
        return Times(rate), missing
    usual = float(np.median(steps))
    away = int((np.abs(steps - usual) > UNEVEN * usual).sum())
    if not away:
        return Times(1 / float(steps.mean())), []
    text = (
        f"{away} of {len(steps)} steps between frames differ from {1000 * usual:.4g} ms by more "
        f"than {100 * UNEVEN:g} % ({1000 * steps.min():.4g} to {1000 * steps.max():.4g} ms)"
    )
    issue = Issue("mixed_rates", "warning", "", away, len(steps), text)
    return Times(1 / usual, times - times[0]), [issue]


def _no_rate() -> Issue:
    return Issue("fps_unknown", "note", message="the file names no frame rate; times are unknown")


def _expect_same(
    shape: tuple[int, int], frames: list[NDArray[np.uint8]], reading: VideoReading
) -> None:
    if frames and shape != frames[0].shape[:2]:
        height, width = frames[0].shape[:2]
        text = (
            f"frame {len(frames) + 1} has {shape[1]} x {shape[0]} pixels, those before have "
            f"{width} x {height}; export them as videos of their own"
        )
        raise bad("mixed_sizes", text, place=f"frame {len(frames) + 1}")
    reading.expect(len(frames) + 1, *shape)


def _joined(frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack(frames)


def read_gif(raw: bytes, reading: VideoReading) -> Video:
    """All frames of a GIF, in its colours.

    Raises:
        BadRecord: unreadable, size_limit.
    """
    from PIL import Image

    frames: list[NDArray[np.uint8]] = []
    steps: list[float] = []
    broken = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is refused below
        try:
            image = Image.open(io.BytesIO(raw), formats=["GIF"])
            reading.expect(1, image.height, image.width)
        except Image.DecompressionBombError as error:
            raise bad("size_limit", str(error)) from None
        except (OSError, SyntaxError) as error:
            raise bad("unreadable", f"this GIF is damaged: {str(error)[:120]}") from None
        try:
            while True:
                image.seek(len(frames))
                _expect_same((image.height, image.width), frames, reading)
                frames.append(np.array(image.convert("RGB")))
                steps.append(float(image.info.get("duration", 0)) / 1000)
        except EOFError:
            pass
        except (OSError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
            broken = str(error)[:120] or type(error).__name__
    if not frames:
        raise bad("unreadable", f"no frame of this GIF can be decoded: {broken}; export it again")
    times = np.concatenate([[0.0], np.cumsum(steps[:-1])])
    even, issues = even_times(times)
    video = Video(_joined(frames), "GIF", fps=even.fps, seconds=even.seconds, issues=issues)
    if broken:
        video.issues.append(truncated(len(frames), len(frames), broken))
    return video


def read_array(raw: bytes, reading: VideoReading) -> Video:
    """An array of uint8 ``(F, H, W)``, ``(F, H, W, 1)`` or ``(F, H, W, 3)`` as ``.npy``.

    Raises:
        BadRecord: unreadable, size_limit, truncated_video.
    """
    file = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}
        header[2, 0] = np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran, dtype = header[version](file)
    except Exception as error:  # numpy parses a line of Python here
        raise bad("unreadable", f"the header of this .npy is damaged: {str(error)[:120]}") from None
    if dtype != np.uint8:
        text = f"values of {dtype}; save frames as uint8, 0 black to 255 white"
        raise bad("unreadable", text)
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
        text = f"an array of shape {shape}; frames are (F, H, W) or (F, H, W, 3)"
        raise bad("unreadable", text)
    reading.expect(*shape[:3])
    size, there = int(np.prod(shape)), len(raw) - file.tell()
    if there < size:
        whole = 0 if fortran else there // int(np.prod(shape[1:]))
        text = f"{there} of {size} bytes are there: {whole} of {shape[0]} frames; copy it again"
        raise bad("truncated_video", text, count=whole, total=shape[0])
    values = np.frombuffer(raw, dtype=np.uint8, count=size, offset=file.tell())
    pixels = values.reshape(shape, order="F" if fortran else "C")
    return replace(Video(pixels, "NPY"), issues=[_no_rate()])
