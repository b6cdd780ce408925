"""Multi-frame DICOM: codings and colours that are read, what is refused, what is kept of whom."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ecgfast.data.checks import FATAL, MEANING
from ecgfast.data.dicom_video import pseudonym
from ecgfast.data.records import BadRecord
from ecgfast.data.videos import VideoReading, read_video
from python_tests.conftest import shared_data
from python_tests.echo_files import dicom, film, made_loop

PLAIN = VideoReading()
JPEG = "1.2.840.10008.1.2.4."


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: nothing of torch."""


@pytest.fixture(scope="module")
def colour():
    return made_loop(5, (64, 80), flow=True)[0]


@pytest.fixture(scope="module")
def grey(colour):
    return np.ascontiguousarray(colour[..., 0])


def read(folder, raw, reading=PLAIN):
    (folder / "clip").write_bytes(raw)
    return read_video(folder, "clip", reading)


def refused(folder, raw, reading=PLAIN):
    with pytest.raises(BadRecord) as said:
        read(folder, raw, reading)
    assert said.value.issue.name in MEANING
    return said.value.issue


def names(video):
    return [issue.name for issue in video.issues]


@pytest.mark.parametrize("which", ["", ".1", ".1.99", ".2"])
def test_what_is_not_coded_comes_back_bit_for_bit(tmp_path, colour, grey, which):
    """Implicit types, explicit ones, deflated, big endian."""
    syntax = f"1.2.840.10008.1.2{which}"
    for pixels in (colour, grey):
        video = read(tmp_path, dicom(pixels, syntax))
        np.testing.assert_array_equal(video.pixels, pixels.reshape(*pixels.shape[:3], -1))
        assert (video.form, video.fps, video.issues) == ("DICOM", 25.0, [])
        assert len(video.source_sha256) == 64


def test_planes_one_after_the_other(tmp_path, colour):
    planes = np.ascontiguousarray(np.moveaxis(colour, -1, 1))
    raw = dicom(planes.reshape(colour.shape), PlanarConfiguration=1)
    np.testing.assert_array_equal(read(tmp_path, raw).pixels, colour)


def ybr(pixels):
    """The standard's own formula, PS3.3 C.7.6.3.1.2."""
    r, g, b = np.moveaxis(pixels.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = -0.1687 * r - 0.3313 * g + 0.5 * b + 128
    cr = 0.5 * r - 0.4187 * g - 0.0813 * b + 128
    return np.clip(np.rint(np.stack([y, cb, cr], axis=-1)), 0, 255).astype(np.uint8)


def test_ybr_full(tmp_path, colour):
    found = read(tmp_path, dicom(ybr(colour), colour="YBR_FULL")).pixels
    assert np.abs(found.astype(int) - colour).max() <= 2


def test_ybr_full_422(tmp_path, colour):
    """Pairs of pixels share their colours: Y Y Cb Cr."""
    pairs = colour.copy()
    pairs[:, :, 1::2] = pairs[:, :, ::2]
    y = ybr(pairs)
    packed = np.stack(
        [y[:, :, ::2, 0], y[:, :, 1::2, 0], y[:, :, ::2, 1], y[:, :, ::2, 2]], axis=-1
    )
    raw = dicom(colour, colour="YBR_FULL_422")
    at = raw.index(colour.tobytes())
    header = raw[: at - 4] + struct.pack("<I", packed.size)
    found = read(tmp_path, header + packed.tobytes()).pixels
    assert np.abs(found.astype(int) - pairs).max() <= 2


def test_palette(tmp_path, grey):
    ramp = np.arange(256, dtype=np.uint16)
    tables = {"Red": ramp[::-1] * 257, "Green": ramp * 257, "Blue": (ramp // 2) * 257}
    words = {}
    for name, table in tables.items():
        words[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        words[f"{name}PaletteColorLookupTableData"] = table.astype("<u2").tobytes()
    found = read(tmp_path, dicom(grey, colour="PALETTE COLOR", **words)).pixels
    expected = np.stack([255 - grey, grey, grey // 2], axis=-1)
    np.testing.assert_array_equal(found, expected)


def test_a_palette_is_as_deep_in_every_frame(tmp_path):
    """In frames that are coded one by one, a dark one keeps to the palette's 16 bits."""
    pixels = np.zeros((3, 32, 32), dtype=np.uint8)
    pixels[1] = np.arange(32) * 8
    pixels[2, 8:] = 1  # 1 of 65535
    table = np.arange(256, dtype="<u2") * 256
    table[1] = 255
    colours = ("Red", "Green", "Blue")
    words = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in colours}
    words |= {f"{c}PaletteColorLookupTableData": table.tobytes() for c in colours}
    coded = [rle(frame) for frame in pixels]
    raw = dicom(pixels, "1.2.840.10008.1.2.5", colour="PALETTE COLOR", coded=coded, **words)
    assert not read(tmp_path, raw).pixels[2].any()


def test_a_palette_in_segments_is_not_expanded(tmp_path, grey):
    """480 bytes of it would become 5 million entries."""
    table = struct.pack("<243H", 0, 1, 0, *[1, 65535, 65535, 1, 65535, 1] * 40)
    colours = ("Red", "Green", "Blue")
    words = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in colours}
    words |= {f"Segmented{c}PaletteColorLookupTableData": table for c in colours}
    issue = refused(tmp_path, dicom(grey, colour="PALETTE COLOR", **words))
    assert (issue.name, "segments" in issue.message) == ("unsupported_syntax", True)


def test_black_and_white_exchanged(tmp_path, grey):
    found = read(tmp_path, dicom(grey, colour="MONOCHROME1")).pixels[..., 0]
    np.testing.assert_array_equal(found, 255 - grey)


@pytest.mark.parametrize(
    ("kind", "stored", "factor", "offset"),
    [(np.uint16, 16, 257, 0), (np.uint16, 12, 4095 / 255, 0), (np.int16, 16, 257, -32768)],
)
def test_sixteen_bits_by_their_range(tmp_path, grey, kind, stored, factor, offset):
    deep = np.rint(grey.astype(float) * factor + offset).astype(kind)
    video = read(tmp_path, dicom(deep, BitsStored=stored, HighBit=stored - 1))
    np.testing.assert_array_equal(video.pixels[..., 0], grey)


def test_sixteen_bits_by_a_window_after_the_rescale(tmp_path, grey):
    """Stored s means 2 s - 1000; the window is 511 wide around 255.5: black at 0, white at 510."""
    deep = (500 + grey.astype(np.uint16)).astype(np.uint16)
    words = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "WindowCenter": 255.5,
        "WindowWidth": 511,
    }
    found = read(tmp_path, dicom(deep, **words)).pixels[..., 0]
    np.testing.assert_array_equal(found, grey)


def coded_by(frame, how, lossy=True):
    import imagecodecs

    if how in ("jpegls", "ljpeg", "jpegxl", "htj2k"):
        encode = getattr(imagecodecs, f"{how}_encode")
        return encode(frame, **({"lossless": True} if how == "jpegxl" else {}))
    file = io.BytesIO()
    words = {"JPEG": {"quality": 95}, "JPEG2000": {"no_jp2": True, "irreversible": lossy}}[how]
    Image.fromarray(frame).save(file, how, **words)
    return file.getvalue()


def rle(frame):
    """PackBits of each plane, as runs of up to 128 literals: as dull as the standard allows."""
    planes = np.atleast_3d(frame).reshape(-1, 1 if frame.ndim == 2 else 3).T
    segments = []
    for plane in planes:
        plain = plane.tobytes()
        parts = [plain[at : at + 128] for at in range(0, len(plain), 128)]
        segment = b"".join(bytes([len(part) - 1]) + part for part in parts)
        segments.append(segment + b"\x80" * (len(segment) % 2))
    offsets = 64 + np.cumsum([0] + [len(s) for s in segments[:-1]])
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


CODINGS = [
    (JPEG + "50", "JPEG", "MONOCHROME2", 6),
    (JPEG + "90", "JPEG2000", "MONOCHROME2", 0),
    (JPEG + "90", "JPEG2000", "YBR_RCT", 0),
    (JPEG + "91", "JPEG2000", "YBR_ICT", 4),
    (JPEG + "80", "jpegls", "MONOCHROME2", 0),
    (JPEG + "80", "jpegls", "RGB", 0),
    (JPEG + "70", "ljpeg", "MONOCHROME2", 0),
    (JPEG + "110", "jpegxl", "RGB", 0),
    (JPEG + "110", "jpegxl", "MONOCHROME2", 0),
]


@pytest.mark.parametrize(("syntax", "how", "meant", "near"), CODINGS)
def test_coded_frames(tmp_path, colour, grey, syntax, how, meant, near):
    if how.islower():
        pytest.importorskip("imagecodecs", reason="the extra ecgfast[echo] is not installed")
    pixels = grey if meant == "MONOCHROME2" else colour
    coded = [coded_by(frame, how, lossy=near > 0) for frame in pixels]
    video = read(tmp_path, dicom(pixels, syntax, colour=meant, coded=coded))
    found = video.pixels.reshape(pixels.shape).astype(int)
    assert np.abs(found - pixels).mean() <= near
    assert not video.issues


def test_jpeg_colours_are_what_the_coding_says_of_itself(tmp_path, colour):
    """JFIF is YCbCr whatever the header says; without any mark the header holds."""
    coded = [coded_by(frame, "JPEG") for frame in colour]
    for meant in ("YBR_FULL_422", "RGB"):
        found = read(tmp_path, dicom(colour, JPEG + "50", colour=meant, coded=coded)).pixels
        assert np.abs(found.astype(int) - colour).mean() < 12, meant
    bare = []
    for frame in colour:  # red, green, blue coded as they are, and no JFIF to say so
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=95, keep_rgb=True)
        raw = file.getvalue()
        length = struct.unpack(">H", raw[4:6])[0]
        bare.append(raw[:2] + raw[4 + length :] if raw[2:4] in (b"\xff\xe0", b"\xff\xee") else raw)
    found = read(tmp_path, dicom(colour, JPEG + "50", colour="RGB", coded=bare)).pixels
    assert np.abs(found.astype(int) - colour).mean() < 6


def test_rle(tmp_path, colour, grey):
    for pixels in (colour, grey):
        coded = [rle(frame) for frame in pixels]
        found = read(tmp_path, dicom(pixels, "1.2.840.10008.1.2.5", coded=coded)).pixels
        np.testing.assert_array_equal(found, pixels.reshape(found.shape))


def test_rle_as_pydicom_writes_it(tmp_path, colour):
    """16 bits too, whose bytes are planes of their own."""
    for pixels in (colour, (colour[..., 1].astype(np.uint16) * 257)):
        data = pydicom.dcmread(io.BytesIO(dicom(pixels)))
        data.compress(pydicom.uid.RLELossless)
        file = io.BytesIO()
        data.save_as(file)
        found = read(tmp_path, file.getvalue()).pixels
        shown = pixels if pixels.dtype == np.uint8 else pixels >> 8
        np.testing.assert_array_equal(found, shown.reshape(found.shape))


def test_frames_in_several_fragments(tmp_path, colour):
    """By the table of offsets, by the extended one, and by how a JPEG begins without either."""
    from pydicom.encaps import encapsulate, encapsulate_extended

    coded = [coded_by(frame, "JPEG") for frame in colour]
    whole = read(tmp_path, dicom(colour, JPEG + "50", coded=coded)).pixels
    raw = dicom(colour, JPEG + "50", coded=coded)
    plain = encapsulate(coded)
    for table in (True, False):
        parted = encapsulate(coded, fragments_per_frame=3, has_bot=table)
        end = raw.replace(plain, parted)
        assert end != raw
        np.testing.assert_array_equal(read(tmp_path, end).pixels, whole)
    data = pydicom.dcmread(io.BytesIO(raw))
    items = encapsulate_extended(coded)
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = items
    file = io.BytesIO()
    data.save_as(file)
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()).pixels, whole)


@pytest.mark.parametrize(
    ("number", "container", "codec"),
    [("100", "mpeg", "mpeg2video"), ("102", "h264", "libx264"), ("102", "mp4", "libx264")],
)
def test_a_film_inside(tmp_path, colour, number, container, codec):
    from av.codec import Codec, codecs_available

    if codec not in codecs_available or not Codec(codec, "w").is_encoder:
        pytest.skip(f"no {codec} here to write it with")
    big = np.repeat(np.repeat(colour, 2, axis=1), 2, axis=2)
    stream = film(big, container, codec=codec)
    raw = dicom(big, JPEG + number, colour="YBR_PARTIAL_420", coded=[stream])
    video = read(tmp_path, raw)
    assert video.pixels.shape[1:3] == big.shape[1:3]
    assert abs(len(video.pixels) - len(big)) <= 1
    assert np.abs(video.pixels[1].astype(int) - big[1]).mean() < 16


def test_a_syntax_that_nothing_reads_is_named(tmp_path, grey, monkeypatch):
    issue = refused(tmp_path, dicom(grey, JPEG + "52", coded=[b"\xff\xd8\xff" * 9] * len(grey)))
    assert issue.name == "unsupported_syntax"
    assert JPEG + "52" in issue.message
    assert UID(JPEG + "52").name[:20] in issue.message
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for number, name in (("80", "JPEG-LS"), ("110", "JPEG XL"), ("70", "JPEG Lossless")):
        coded = [b"\xff\xd8\xff" + bytes(20)] * len(grey)
        issue = refused(tmp_path, dicom(grey, JPEG + number, coded=coded))
        assert issue.name == "unsupported_syntax"
        assert name in issue.message
        assert "pip install imagecodecs" in issue.message
    assert "unsupported_syntax" in FATAL


def test_what_breaks_off_says_how_many_frames_are_whole(tmp_path, colour):
    raw = dicom(colour)
    begin = raw.index(colour.tobytes())
    size = colour[0].size
    cut = raw[: begin + 3 * size + size // 2]
    video = read(tmp_path, cut)
    np.testing.assert_array_equal(video.pixels, colour[:3])
    issue = next(i for i in video.issues if i.name == "truncated_video")
    assert (issue.severity, issue.count, issue.total) == ("error", 3, 5)
    assert issue.message.startswith(
        f"3 of 5 frames are whole ({3 * size + size // 2} of {5 * size}"
    )
    for frames in (0.5, 1.5):
        assert refused(tmp_path, raw[: begin + int(frames * size)]).name == "truncated_video"
    coded = [coded_by(frame, "JPEG") for frame in colour]
    raw = dicom(colour, JPEG + "50", coded=coded)
    cut = raw[: raw.index(coded[4]) + 10]
    video = read(tmp_path, cut)
    assert len(video.pixels) == 4
    assert next(i for i in video.issues if i.name == "truncated_video").count == 4


def test_a_damaged_frame_ends_the_video_there(tmp_path, colour):
    coded = [coded_by(frame, "JPEG") for frame in colour]
    coded[2] = coded[2][:100]
    video = read(tmp_path, dicom(colour, JPEG + "50", coded=coded))
    assert len(video.pixels) == 2
    issue = next(i for i in video.issues if i.name == "truncated_video")
    assert "frame 3 is damaged" in issue.message


def test_frames_of_other_sizes(tmp_path, colour):
    coded = [coded_by(frame, "JPEG") for frame in colour]
    coded[3] = coded_by(colour[3, :48], "JPEG")
    issue = refused(tmp_path, dicom(colour, JPEG + "50", coded=coded))
    assert (issue.name, issue.place) == ("mixed_sizes", "frame 4")
    assert "80 x 48 pixels, the header says 80 x 64" in issue.message


def test_a_still_is_no_clip(tmp_path, colour):
    issue = refused(tmp_path, dicom(colour[:1]))
    assert (issue.name, issue.count, issue.severity) == ("single_frame", 1, "error")
    one = dicom(colour[:1])
    bare = pydicom.dcmread(io.BytesIO(one))
    del bare.NumberOfFrames
    file = io.BytesIO()
    bare.save_as(file)
    assert refused(tmp_path, file.getvalue()).name == "single_frame"


def test_claims_are_held_against_limits_before_anything_is_decoded(tmp_path, grey):
    issue = refused(tmp_path, dicom(grey, frames=2**30))
    assert issue.name == "size_limit"
    assert f"{2**30 * 64 * 80} pixels" in issue.message
    assert refused(tmp_path, dicom(grey, Rows=65535)).name == "size_limit"
    assert refused(tmp_path, dicom(grey), VideoReading(most_pixels=5 * 64 * 80 - 1)).name == (
        "size_limit"
    )
    bomb = dicom(np.zeros((200, 64, 80), np.uint8), "1.2.840.10008.1.2.1.99")
    assert len(bomb) < 10_000
    issue = refused(tmp_path, bomb, VideoReading(most_bytes=100_000))
    assert issue.name == "size_limit"
    assert "inflates" in issue.message


def test_a_jpeg_that_says_it_is_enormous(tmp_path, grey):
    for side in (5000, 60000):
        coded = [bytearray(coded_by(frame, "JPEG")) for frame in grey]
        at = coded[0].index(b"\xff\xc0")
        coded[0][at + 5 : at + 9] = struct.pack(">HH", side, side)
        issue = refused(tmp_path, dicom(grey, JPEG + "50", coded=[bytes(c) for c in coded]))
        assert (issue.name, issue.place) == ("mixed_sizes", "frame 1")


@pytest.mark.parametrize(("number", "how"), [("80", "jpegls"), ("70", "ljpeg"), ("110", "jpegxl")])
def test_other_codings_that_say_they_are_larger(tmp_path, grey, number, how):
    pytest.importorskip("imagecodecs", reason="the extra ecgfast[echo] is not installed")
    coded = [coded_by(frame, how) for frame in grey]
    coded[1] = coded_by(np.zeros((3000, 3000), np.uint8), how)
    issue = refused(tmp_path, dicom(grey, JPEG + number, coded=coded))
    assert (issue.name, issue.place) == ("mixed_sizes", "frame 2")
    draws = np.random.default_rng(5)
    raw = dicom(grey, JPEG + number, coded=[coded_by(frame, how) for frame in grey])
    told = set()
    for _ in range(60):
        damaged = bytearray(raw)
        for place in draws.integers(len(raw) // 2, len(raw), 3):
            damaged[place] = draws.integers(256)
        try:
            told.add(read(tmp_path, bytes(damaged)).form)
        except BadRecord as error:
            told.add(error.issue.name)
    assert told <= {"DICOM", *MEANING}


@pytest.mark.parametrize(
    ("words", "rate", "said"),
    [
        ({}, 25.0, []),
        ({"FrameTime": None, "CineRate": 30}, 30.0, []),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": 20}, 20.0, []),
        ({"FrameTime": None}, 0.0, ["fps_unknown"]),
        ({"FrameTime": 0}, 0.0, ["fps_unknown"]),
        ({"FrameTime": 40, "CineRate": 25}, 25.0, []),
        ({"FrameTime": 40, "CineRate": 60}, 25.0, ["mixed_rates"]),
        ({"FrameTime": None, "FrameTimeVector": [0, 20, 20, 20, 20]}, 50.0, []),
        ({"FrameTime": None, "FrameTimeVector": [0, 20, 20, 60, 20]}, 50.0, ["mixed_rates"]),
    ],
)
def test_rate(tmp_path, colour, words, rate, said):
    video = read(tmp_path, dicom(colour, **words))
    assert video.fps == pytest.approx(rate)
    assert names(video) == said
    if "FrameTimeVector" in words and said:
        np.testing.assert_allclose(video.seconds, [0, 0.02, 0.04, 0.1, 0.12])


def regions(box, delta=0.05, kind=1):
    part = Dataset()
    part.RegionSpatialFormat, part.RegionDataType = 1, kind
    part.RegionLocationMinX0, part.RegionLocationMinY0 = box[:2]
    part.RegionLocationMaxX1, part.RegionLocationMaxY1 = box[2:]
    part.PhysicalUnitsXDirection = part.PhysicalUnitsYDirection = 3
    part.PhysicalDeltaX, part.PhysicalDeltaY = delta, 2 * delta
    return part


def test_region_and_spacing(tmp_path, colour):
    small, large = regions((0, 0, 20, 20), 0.01), regions((10, 4, 69, 59))
    other = regions((0, 0, 79, 63), kind=3)  # a spectrum
    raw = dicom(colour, SequenceOfUltrasoundRegions=[small, large, other])
    video = read(tmp_path, raw)
    assert video.region == (4, 10, 60, 70)
    assert video.spacing_mm == pytest.approx((1.0, 0.5))
    assert not video.issues
    video = read(tmp_path, dicom(colour, PixelSpacing=[0.4, 0.3]))
    assert video.spacing_mm == pytest.approx((0.4, 0.3))
    raw = dicom(colour, SequenceOfUltrasoundRegions=[regions((84, 31, 595, 414))])
    video = read(tmp_path, raw)
    assert (video.region, video.spacing_mm, names(video)) == (None, None, ["region_mismatch"])


def test_who(tmp_path, colour):
    """No name and no id gets out unless it is asked for; equal ids stay equal under one salt."""
    raw = dicom(colour)
    video = read(tmp_path, raw)
    assert "204" not in video.patient_id
    assert len(video.patient_id) == 16
    assert "DOE" not in repr(video)
    again = read(tmp_path, dicom(colour, StudyInstanceUID="1.2.4"))
    assert again.patient_id == video.patient_id
    assert again.study_id != video.study_id
    salted = read(tmp_path, raw, VideoReading(salt="of this project"))
    assert salted.patient_id == pseudonym("204", "of this project") != video.patient_id
    plain = read(tmp_path, raw, VideoReading(pseudonyms=False))
    assert (plain.patient_id, plain.study_id) == ("204", "1.2.3")


@pytest.mark.parametrize("value", ["", "Anonymized", "ANON", "unknown", "0"])
def test_an_id_that_all_patients_share_is_none(tmp_path, colour, value):
    video = read(tmp_path, dicom(colour, PatientID=value))
    assert video.patient_id == ""
    assert names(video) == ["no_patient_id"]
    assert video.issues[0].severity == "warning"


def test_the_salt_is_stored_nowhere():
    plain = VideoReading(salt="secret of us").plain()
    assert "secret" not in repr(plain)
    assert plain["salt"] != VideoReading(salt="another").plain()["salt"]
    assert VideoReading().plain()["salt"] == ""


def test_view_and_modality(tmp_path, colour):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "G-A19C", "SRT", "Apical four"
    video = read(tmp_path, dicom(colour, ViewCodeSequence=[code], Modality="XA"))
    assert video.view == "Apical four"
    assert names(video) == ["not_ultrasound"]


def test_a_report_is_no_clip(tmp_path, colour):
    data = pydicom.dcmread(io.BytesIO(dicom(colour)))
    for name in ("PixelData", "Rows", "Columns", "NumberOfFrames"):
        delattr(data, name)
    file = io.BytesIO()
    data.save_as(file)
    issue = refused(tmp_path, file.getvalue())
    assert issue.name == "unreadable"
    assert "without Rows" in issue.message
    assert "Ultrasound Multi-frame" in issue.message


@pytest.mark.parametrize("kind", ["native", "deflated", "jpeg", "rle", "jpeg2000", "palette"])
def test_changed_and_cut_bytes_never_get_out(tmp_path, colour, grey, kind):
    small = np.ascontiguousarray(colour[:3, :32, :40])
    flat = np.ascontiguousarray(small[..., 0])
    if kind == "native":
        raw = dicom(small, SequenceOfUltrasoundRegions=[regions((1, 1, 30, 30))])
    elif kind == "deflated":
        raw = dicom(small, "1.2.840.10008.1.2.1.99")
    elif kind == "jpeg":
        raw = dicom(small, JPEG + "50", coded=[coded_by(frame, "JPEG") for frame in small])
    elif kind == "jpeg2000":
        raw = dicom(flat, JPEG + "90", coded=[coded_by(frame, "JPEG2000") for frame in flat])
    elif kind == "rle":
        raw = dicom(small, "1.2.840.10008.1.2.5", coded=[rle(frame) for frame in small])
    else:
        table = np.arange(256, dtype="<u2").tobytes()
        colours = ("Red", "Green", "Blue")
        words = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in colours}
        words |= {f"{c}PaletteColorLookupTableData": table for c in colours}
        raw = dicom(flat, colour="PALETTE COLOR", **words)
    draws = np.random.default_rng(1)
    reading = VideoReading(most_pixels=10**6, most_bytes=10**6)
    told = set()
    for turn in range(120):
        damaged = bytearray(raw)
        if turn % 3 == 0:
            damaged = damaged[: draws.integers(1, len(raw))]
        else:
            top = len(raw) if turn % 3 == 1 else 1200
            for place in draws.integers(128, min(top, len(raw)), 4):
                damaged[place] = draws.integers(256)
        try:
            read(tmp_path, bytes(damaged), reading)
            told.add("read")
        except BadRecord as error:
            told.add(error.issue.name)
    assert told <= {"read", *MEANING}
    assert len(told) > 2


def test_the_real_clips(tmp_path):
    folder = shared_data("echo-dicom")
    video = read_video(folder, "a4c_sonosite_30fr_examples_ybr_color.dcm", PLAIN)
    assert video.pixels.shape == (30, 240, 320, 3)
    assert video.fps == pytest.approx(30, abs=0.01)
    assert names(video) == ["region_mismatch"]  # it was halved: its mm would be wrong by two
    theirs = pydicom.dcmread(folder / "a4c_sonosite_30fr_examples_ybr_color.dcm").pixel_array
    assert np.abs(video.pixels.astype(int) - theirs).max() <= 2
    video = read_video(folder, "plax_colour_acme_10fr_US-PAL-8-10x-echo.dcm", PLAIN)
    data = pydicom.dcmread(folder / "plax_colour_acme_10fr_US-PAL-8-10x-echo.dcm")
    theirs = pydicom.pixels.apply_color_lut(data.pixel_array, data) >> 8
    np.testing.assert_array_equal(video.pixels, theirs)
    assert names(video) == ["no_patient_id"]
    for still in folder.glob("still_*.dcm"):
        with pytest.raises(BadRecord) as said:
            read_video(folder, still.name, PLAIN)
        assert said.value.issue.name == "single_frame"


def test_the_real_clip_in_jpeg_xl():
    pytest.importorskip("imagecodecs", reason="the extra ecgfast[echo] is not installed")
    folder = shared_data("echo-dicom")
    video = read_video(folder, "alax_colour_vivid_e95_27fr_will-jxl.dcm", PLAIN)
    assert video.pixels.shape == (27, 708, 1016, 3)
    assert video.spacing_mm == pytest.approx((0.27239, 0.27239))
    assert video.region == (70, 149, 659, 868)
