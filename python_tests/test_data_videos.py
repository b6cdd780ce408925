"""Videos from films, GIFs and arrays, and what every file must pass, whatever it is."""

from __future__ import annotations

import os
import struct
import time

import numpy as np
import pytest

from ecgfast.data.checks import MEANING
from ecgfast.data.film import even_times
from ecgfast.data.records import BadRecord, DataError
from ecgfast.data.videos import VideoReading, find_videos, is_video, read_video
from python_tests.echo_files import dicom, film, gif, made_loop, npy

PLAIN = VideoReading()


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: nothing of torch."""


@pytest.fixture(scope="module")
def loop():
    return made_loop(10, (96, 128), flow=True)[0]


@pytest.fixture(scope="module")
def grey():
    pixels = made_loop(10, (96, 128), text=False, strip="none")[0]
    assert (pixels[..., :1] == pixels).all()
    return pixels


def read(folder, raw, reading=PLAIN, name="clip"):
    (folder / name).write_bytes(raw)
    return read_video(folder, name, reading)


def refused(folder, raw, reading=PLAIN):
    with pytest.raises(BadRecord) as said:
        read(folder, raw, reading)
    assert said.value.issue.name in MEANING
    return said.value.issue


def names(video):
    return [issue.name for issue in video.issues]


FILMS = [
    ("avi", "ffv1", "AVI", 0.5),
    ("avi", "mjpeg", "AVI", 12),
    ("mp4", "mpeg4", "MP4", 12),
    ("mov", "mpeg4", "MP4", 12),
    ("matroska", "ffv1", "MKV", 0.5),
    ("asf", "msmpeg4v3", "ASF", 12),
]


@pytest.mark.parametrize(("container", "codec", "form", "near"), FILMS)
def test_films(tmp_path, loop, container, codec, form, near):
    kind = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    video = read(tmp_path, film(loop, container, codec=codec, pix_fmt=kind))
    assert video.form == form
    assert video.pixels.shape == loop.shape
    # halved colours cost at the edges of flow; the order of frames and channels would cost far more
    assert np.abs(video.pixels.astype(int) - loop).mean() < near
    assert np.abs(video.pixels[..., ::-1].astype(int) - loop).mean() > 2 * near or near > 2
    assert video.fps == pytest.approx(25, rel=0.01)
    assert not video.issues
    assert (video.spacing_mm, video.patient_id, video.study_id) == (None, "", "")


def test_gif_and_array(tmp_path, loop, grey):
    few = (loop // 64) * 64  # a GIF has 256 colours
    video = read(tmp_path, gif(few, duration=40))
    assert (video.form, video.fps, video.issues) == ("GIF", 25.0, [])
    np.testing.assert_array_equal(video.pixels, few)
    for pixels in (loop, grey[..., 0], grey[..., :1], np.asfortranarray(loop)):
        video = read(tmp_path, npy(pixels))
        assert (video.form, video.fps, names(video)) == ("NPY", 0.0, ["fps_unknown"])
        np.testing.assert_array_equal(video.pixels, pixels.reshape(video.pixels.shape))


def test_three_equal_channels_are_one(tmp_path, grey):
    assert read(tmp_path, npy(grey)).pixels.shape == (*grey.shape[:3], 1)
    assert read(tmp_path, film(grey, codec="ffv1", pix_fmt="gray")).pixels.shape == (
        *grey.shape[:3],
        1,
    )
    touched = grey.copy()
    touched[-1, -1, -1, 2] ^= 1
    assert read(tmp_path, npy(touched)).pixels.shape == grey.shape


def test_what_a_file_is_its_bytes_say(tmp_path, loop):
    assert read(tmp_path, gif(loop), name="clip.dcm").form == "GIF"
    assert read(tmp_path, dicom(loop), name="clip.avi").form == "DICOM"


def test_frames_that_do_not_follow_evenly(tmp_path, loop):
    video = read(tmp_path, gif(loop, duration=[40, 40, 40, 200] + [40] * 6))
    assert video.fps == pytest.approx(25)
    assert names(video) == ["mixed_rates"]
    expected = np.cumsum([0, 40, 40, 40, 200] + [40] * 5) / 1000
    np.testing.assert_allclose(video.seconds, expected)
    assert "1 of 9 steps" in video.issues[0].message


def test_rates_from_times():
    assert even_times(np.arange(5) / 50)[0].fps == pytest.approx(50)
    for times in ([0, 0, 0], [0, 1, 1], [2, 1, 0], [0, np.nan, 1], [0.0]):
        found, issues = even_times(np.array(times, dtype=float))
        assert (found.fps, [issue.name for issue in issues]) == (0.0, ["fps_unknown"])
    for rate in (-1.0, float("nan"), float("inf"), 1e9):
        assert even_times(np.zeros(0), rate)[0].fps == 0
    assert even_times(np.zeros(0), 30.0) == (even_times(np.zeros(0), 30.0)[0], [])


def test_stills_short_frozen_and_blank(tmp_path, loop):
    issue = refused(tmp_path, npy(loop[:1]))
    assert (issue.name, issue.count) == ("single_frame", 1)
    assert refused(tmp_path, gif(loop[:1])).name == "single_frame"
    video = read(tmp_path, npy(loop[:5]), VideoReading(least_frames=6))
    issue = next(i for i in video.issues if i.name == "short_video")
    assert (issue.severity, issue.count, issue.total) == ("error", 5, 6)
    assert "short_video" not in names(read(tmp_path, npy(loop), VideoReading(least_frames=10)))
    still = np.repeat(loop[:1], 5, axis=0)
    assert "frozen_video" in names(read(tmp_path, npy(still)))
    assert "frozen_video" in names(read(tmp_path, film(still, codec="mpeg4")))  # a codec trembles
    blank = np.full((5, 64, 64), 7, np.uint8)
    assert "blank_video" in names(read(tmp_path, npy(blank)))
    assert {"frozen_video", "blank_video"}.isdisjoint(names(read(tmp_path, npy(loop))))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda f: f.astype(np.float32) / 255, "values of float32"),
        (lambda f: f.astype(object), "values of object"),
        (lambda f: f[0, 0], "shape (128, 3)"),
        (lambda f: np.concatenate([f, f], axis=3), "shape (10, 96, 128, 6)"),
        (lambda f: f[:0], "shape (0, 96, 128, 3)"),
        (lambda f: f.view([("x", "u1")]), "values of"),
    ],
)
def test_arrays_that_are_no_frames(tmp_path, loop, make, text):
    """Objects would be pickles: none is ever opened."""
    issue = refused(tmp_path, npy(make(loop)))
    assert issue.name == "unreadable"
    assert text in issue.message


def test_claims_are_held_against_limits_first(tmp_path, loop, monkeypatch):
    header = npy(np.zeros((1, 16, 16), np.uint8)).replace(b"(1, 16, 16)", b"(9999, 4096, 4096)")
    issue = refused(tmp_path, header.replace(b"  \n", b"\n"))
    assert issue.name in ("size_limit", "unreadable")
    size = loop.shape[0] * loop.shape[1] * loop.shape[2]
    for raw in (npy(loop), gif(loop), film(loop, codec="mpeg4"), dicom(loop)):
        read(tmp_path, raw, VideoReading(most_pixels=size))
        issue = refused(tmp_path, raw, VideoReading(most_pixels=size - 1))
        assert issue.name == "size_limit"
        assert "cut it into shorter clips" in issue.message
        issue = refused(tmp_path, raw, VideoReading(most_bytes=len(raw) - 1))
        assert (issue.name, issue.total) == ("size_limit", len(raw) - 1)
    canvas = bytearray(gif(loop))
    canvas[6:10] = b"\xff\xff\xff\xff"
    begun = time.perf_counter()
    assert refused(tmp_path, bytes(canvas)).name == "size_limit"
    assert time.perf_counter() - begun < 2
    assert refused(tmp_path, npy(np.zeros((9, 8, 8), np.uint8))).name == "unreadable"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"PK\x03\x04" + bytes(500), "ZIP archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "PNG, a still"),
        (b"#EXTM3U\nhttp://example.org/clip.ts\n", "a playlist"),
        (b"nothing of the kind" * 50, "no DICOM, AVI"),
        (b"RIFF\x10\0\0\0AVI " + bytes(100), "AVI"),
        (bytes(128) + b"DICM", "DICOM"),
        (bytes(128) + b"DICM" + bytes(300), ""),
        (b"GIF89a", "GIF"),
        (b"\x93NUMPY\x01\x00", ".npy"),
    ],
)
def test_what_is_no_video_says_what_it_is(tmp_path, raw, text):
    issue = refused(tmp_path, raw)
    assert issue.name in ("unreadable", "truncated_video")
    assert text in issue.message


def test_files_that_are_not_there(tmp_path, loop):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.npy").write_bytes(npy(loop))
    os.symlink(tmp_path / "secret.npy", tmp_path / "in" / "link.npy")
    (tmp_path / "in" / "empty.avi").write_bytes(b"")
    for name, said in (
        ("link.npy", "unsafe_path"),
        ("empty.avi", "empty_file"),
        ("no", "missing_file"),
    ):
        with pytest.raises(BadRecord) as error:
            read_video(tmp_path / "in", name, PLAIN)
        assert error.value.issue.name == said


@pytest.mark.parametrize("kind", ["avi", "mp4", "matroska", "gif", "npy"])
def test_changed_and_cut_bytes_never_get_out(tmp_path, loop, kind):
    small = np.ascontiguousarray(loop[:6, ::2, ::2])
    raw = {"gif": gif, "npy": npy}.get(kind, lambda f: film(f, kind, codec="mpeg4"))(small)
    draws = np.random.default_rng(2)
    told = set()
    begun = time.perf_counter()
    for turn in range(90):
        damaged = bytearray(raw)
        if turn % 3 == 0:
            damaged = damaged[: draws.integers(1, len(raw))]
        else:
            top = len(raw) if turn % 3 == 1 else min(len(raw), 600)
            for place in draws.integers(0, top, 4):
                damaged[place] = draws.integers(256)
        try:
            read(tmp_path, bytes(damaged), VideoReading(most_pixels=10**6))
            told.add("read")
        except BadRecord as error:
            told.add(error.issue.name)
    assert told <= {"read", *MEANING}
    assert len(told) > 1
    assert time.perf_counter() - begun < 60


def test_a_film_that_breaks_off_keeps_what_is_whole(tmp_path, loop):
    many = np.concatenate([loop] * 3)
    raw = film(many, "avi", codec="mjpeg", pix_fmt="yuvj420p")
    video = read(tmp_path, raw[: len(raw) // 2])
    assert 1 < len(video.pixels) < len(many)
    issue = next(i for i in video.issues if i.name == "truncated_video")
    assert (issue.severity, issue.count, issue.total) == ("error", len(video.pixels), len(many))
    assert "--policy truncated_video=keep" in issue.message


def test_find(tmp_path, loop):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "clip.AVI").write_bytes(b"x")
    (tmp_path / "a" / "b" / "1.2.840.113").write_bytes(dicom(loop[:2]))
    (tmp_path / "a" / "notes.txt").write_bytes(b"x")
    (tmp_path / "a" / "DICOMDIR").write_bytes(dicom(loop[:2]))
    (tmp_path / "one.npy").write_bytes(b"x")
    found = find_videos([tmp_path / "a", tmp_path / "one.npy"])
    assert [item.path for item in found] == ["clip.AVI", "b/1.2.840.113", "one.npy"]
    assert len({item.record_id for item in found}) == 3
    again = find_videos([tmp_path / "a"], skip=[tmp_path / "a" / "clip.AVI"])
    assert [item.path for item in again] == ["b/1.2.840.113"]
    assert is_video("clip.Mp4")
    assert not is_video("clip.txt")
    with pytest.raises(DataError, match="no_source"):
        find_videos([tmp_path / "nowhere"])
    for nothing in (tmp_path / "a" / "notes.txt", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="no_videos"):
            find_videos([nothing])


def test_least_frames_is_checked():
    with pytest.raises(ValueError, match="least_frames must be 2 or more, got 1"):
        VideoReading(least_frames=1)


def test_a_frame_larger_than_the_limit_is_not_decoded(tmp_path):
    """The container lies, the frames of the coding are large: no memory is taken for them."""
    large = np.zeros((3, 1024, 1024, 3), dtype=np.uint8)
    large[1] = 90
    raw = film(large, "avi", codec="mjpeg", pix_fmt="yuvj420p")
    lie = struct.pack("<I", 1024)
    for _ in range(4):  # width and height, of the stream and of its format
        raw = raw.replace(lie, struct.pack("<I", 64), 1)
    reading = VideoReading(most_pixels=2**18)
    (tmp_path / "clip").write_bytes(raw)
    with pytest.raises(BadRecord) as said:
        read_video(tmp_path, "clip", reading)
    assert said.value.issue.name == "unreadable"
    assert "no frame" in said.value.issue.message


def test_a_file_without_permission_is_named_without_its_folders(tmp_path, loop, monkeypatch):
    (tmp_path / "clip").write_bytes(npy(loop))

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "clip"))

    monkeypatch.setattr("ecgfast.data.videos.whole_file", denied)
    with pytest.raises(BadRecord, match="Permission denied") as said:
        read_video(tmp_path, "clip", PLAIN)
    assert str(tmp_path) not in str(said.value)
