"""WFDB: every format, what wfdb takes without a word, and files that mean harm."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb

from ecgfast.config import LEADS
from ecgfast.data import mat
from ecgfast.data.mat import load_matrix
from ecgfast.data.records import BadRecord
from ecgfast.data.wfdb import comment_labels, read_wfdb
from ecgfast.data.wfdb_header import read_header
from python_tests.conftest import shared_data

T = 50
SAMPLES = (np.arange(2 * T).reshape(2, T) * 7 % 211 - 100).astype("<i2")


def write(folder: Path, header: str, samples=SAMPLES, name="r") -> Path:
    """A header as it is, and two signals in format 16."""
    samples.T.tofile(folder / f"{name}.dat")
    path = folder / f"{name}.hea"
    path.write_text(header)
    return path


def lines(first="r 2 500 50", file="r.dat", tail=""):
    sums = [int(s.sum()) for s in SAMPLES.astype(int)]
    leads = [f"{file} 16 1000/mV 16 0 0 {s} 0 {n}" for s, n in zip(sums, ("I", "II"), strict=True)]
    return "\n".join([first, *leads, tail])


def reason(path, **how):
    with pytest.raises(BadRecord) as caught:
        read_wfdb(path, **how)
    return caught.value.issue


def test_a_plain_record(tmp_path):
    ecg = read_wfdb(write(tmp_path, lines(tail="# Age: 56\n#Sex: F\n")))
    np.testing.assert_allclose(ecg.signal, SAMPLES / 1000)
    assert (ecg.leads, ecg.fs, ecg.issues) == (("I", "II"), 500, [])
    assert ecg.labels == {"age": "56", "sex": "F"}


@pytest.mark.parametrize(
    "name",
    [
        "binformats",  # 8 16 61 80 160 212 310 311 24 32
        "flacformats",  # 508 516 524
        "flac_3_constant",
        "310derive",
        "310derive_2",
        "310derive_3",
        "311derive",
        "311derive_2",
        "311derive_3",
        "311derive_4",
        "100_3chan",
        "test01_00s",
        "test01_00s_skew",
        "a103l",
        "a103l-no-len",
        "100",
        "100-no-len",
        "100skew",
        "3000003_0003",
        "s0010_re",  # two signal files
    ],
)
def test_samples_are_those_of_wfdb_and_their_checksums_agree(name):
    path = shared_data("wfdb-samples", f"{name}.hea")
    ecg = read_wfdb(path)
    record = wfdb.rdrecord(str(path.with_suffix("")))
    assert not [issue for issue in ecg.issues if issue.severity == "error"]
    for lead, samples in zip(ecg.leads, ecg.signal, strict=True):
        column = [s.casefold() for s in record.sig_name].index(lead.casefold())
        np.testing.assert_allclose(samples, record.p_signal[:, column], atol=1e-12)
    assert ecg.fs == record.fs


@pytest.mark.parametrize(
    ("name", "shape", "fs"),
    [
        ("03700181", (2, 300_000), 500),  # four samples a frame beside one
        ("mixedsignals", (2, 57_600), 249.89),  # FLAC, four a frame
        ("test01_00s_frame", (3, 8000), 1000),
        ("test01_00s_skewframe", (3, 8000), 1000),
        ("multi-segment/041s/041s", (2, 8000), 500),
        ("multi-segment/fixed1/v102s", (1, 225_000), 250),
    ],
)
def test_frames_and_segments(name, shape, fs):
    ecg = read_wfdb(shared_data("wfdb-samples", f"{name}.hea"))
    assert ecg.signal.shape == shape
    assert ecg.fs == pytest.approx(fs)


def test_several_samples_a_frame_are_not_averaged():
    path = shared_data("wfdb-samples", "03700181.hea")
    ecg = read_wfdb(path)
    record = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False)
    np.testing.assert_allclose(ecg.signal[0], record.e_p_signal[0])


def test_segments_are_joined_in_their_order():
    whole = read_wfdb(shared_data("wfdb-samples", "multi-segment/041s/041s.hea"))
    parts = [
        read_wfdb(shared_data("wfdb-samples", f"multi-segment/041s/041s0{n}.hea")) for n in (1, 2)
    ]
    np.testing.assert_array_equal(whole.signal, np.concatenate([p.signal for p in parts], axis=1))


def test_georgia_headers_that_wfdb_refuses():
    path = shared_data("challenge-2021", "georgia", "E00015.hea")
    with pytest.raises(ValueError, match="record line"):
        wfdb.rdrecord(str(path.with_suffix("")))
    ecg = read_wfdb(path)
    raw = scipy.io.loadmat(path.with_suffix(".mat"))["val"]
    np.testing.assert_allclose(ecg.signal, raw / 4880)
    assert ecg.leads == LEADS
    assert ecg.labels["dx"] == "251146004,284470004,284470004"


@pytest.mark.parametrize(
    ("folder", "count"),
    [("ptb-xl-500/records100", 500), ("challenge-2021", 230), ("code15-153", 153)],
)
def test_every_real_record_opens_and_every_checksum_agrees(folder, count):
    paths = sorted(shared_data(folder).rglob("*.hea"))
    assert len(paths) == count
    for path in paths[:: 1 + count // 40]:
        ecg = read_wfdb(path)
        assert ecg.leads == LEADS
        assert not ecg.issues


def test_a_wrong_checksum_and_a_flipped_bit_are_named_with_their_lead(tmp_path):
    flipped = SAMPLES.copy()
    flipped[1, 9] ^= 1 << 6
    (issue,) = read_wfdb(write(tmp_path, lines(), flipped)).issues
    was, now = SAMPLES[1].astype(int).sum(), flipped[1].astype(int).sum()
    assert (issue.name, issue.place) == ("checksum_mismatch", "r.dat signal II")
    assert f"checksum {was} in the header, {now} in the data" in issue.message


def test_a_short_file_says_bytes_found_and_needed(tmp_path):
    issue = reason(write(tmp_path, lines(), SAMPLES[:, :40]))
    assert (issue.name, issue.count, issue.total) == ("truncated_signal", 160, 200)
    assert "10 of 50 samples are missing" in issue.message


def test_a_long_file_is_flagged(tmp_path):
    (issue,) = read_wfdb(write(tmp_path, lines(), np.tile(SAMPLES, 2))).issues
    assert (issue.name, issue.severity, issue.count) == ("wrong_length", "warning", 400)


def test_reserved_values_are_missing_ones(tmp_path):
    samples = SAMPLES.copy()
    samples[0, 3] = -32768
    ecg = read_wfdb(write(tmp_path, "r 2 500 50\nr.dat 16 1000 16\nr.dat 16 1000 16\n", samples))
    assert np.isnan(ecg.signal).sum() == 1
    assert np.isnan(ecg.signal[0, 3])


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("uV", 1e-3), ("µV", 1e-3), ("V", 1e3)])
def test_units_are_those_declared(tmp_path, unit, factor):
    header = lines().replace("1000/mV", f"1000/{unit}")
    for encoding in ("utf-8", "latin-1"):
        path = write(tmp_path, "")
        path.write_bytes(header.encode(encoding))
        np.testing.assert_allclose(read_wfdb(path).signal, SAMPLES / 1000 * factor)
    np.testing.assert_allclose(read_wfdb(path, units="mV").signal, SAMPLES / 1000)


def test_a_lead_without_a_voltage_is_an_issue(tmp_path):
    ecg = read_wfdb(write(tmp_path, lines().replace("1000/mV", "1000/NU", 1)))
    assert [(i.name, i.place, i.severity) for i in ecg.issues] == [
        ("unit_unknown", "lead I", "error")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "http://example.org/r.dat",
        "a/b.dat",
        "..",
        "~",
        "x::file.dat",
        "C:\\r.dat",
        "s3://bucket/r.dat",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    assert reason(write(tmp_path, lines(file=name))).name == "unsafe_path"


def test_no_link_leads_out_of_the_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = write(inside, lines(file="s.dat"))
    (inside / "r.dat").rename(tmp_path / "secret.dat")
    os.symlink(tmp_path / "secret.dat", inside / "s.dat")
    assert reason(path).name == "unsafe_path"
    assert read_wfdb(path, root=tmp_path).fs == 500  # the folder that was named holds both


def test_a_pipe_is_not_waited_for(tmp_path):
    path = write(tmp_path, lines(file="p.dat"))
    os.mkfifo(tmp_path / "p.dat")
    assert reason(path).name == "unsafe_path"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", "empty_file"),
        ("# nothing\n", "corrupt_header"),
        ("r 2 500 50 and\nno signal lines", "corrupt_header"),
        ("r two 500 50\n", "corrupt_header"),
        ("r 2 0 50\n" + lines().split("\n", 1)[1], "corrupt_header"),
        ("r 2 nan 50\n" + lines().split("\n", 1)[1], "corrupt_header"),
        (lines().replace(" 16 ", " 17 ", 1), "corrupt_header"),
        (lines().replace("1000/mV", "1e99/mV", 1), "corrupt_header"),
        (lines().replace("1000/mV", "much/mV", 1), "corrupt_header"),
        (lines("r 2 500 999999999999999"), "size_limit"),
        (lines("r 2 500 " + "9" * 400), "size_limit"),
        (lines("r 999999999 500 50"), "size_limit"),
        (lines("r/999999 2 500 50"), "size_limit"),
        (lines().replace("16 1000", "16x9999999 1000", 1), "size_limit"),
        (lines().replace("16 1000", "16+99999999999999 1000", 1), "size_limit"),
        (lines() + "x\x0b../y.dat 16", "corrupt_header"),
        (lines("r/1 2 500 50").split("\n")[0] + "\nr 50\n", "corrupt_header"),  # itself
        (lines("r/1 2 500 50").split("\n")[0] + "\n../r 50\n", "unsafe_path"),
        (lines(file="absent.dat"), "missing_file"),
        ("#" * (2 << 20), "size_limit"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused_before_anything_is_read(tmp_path, header, name):
    assert reason(write(tmp_path, header)).name == name


def test_a_path_that_looks_like_an_address_is_refused(tmp_path):
    folder = tmp_path / "a::b"
    folder.mkdir()
    assert reason(write(folder, lines())).name == "unsafe_path"
    assert reason(Path("http://physionet.org/r.hea")).name in ("unsafe_path", "missing_file")


def test_the_same_lead_twice_is_refused(tmp_path):
    assert reason(write(tmp_path, lines().replace(" II\n", " Lead I\n"))).name == "corrupt_header"


def challenge(folder, matrix, length=50):
    scipy.io.savemat(folder / "e.mat", {"val": matrix}, format="4")
    path = folder / "e.hea"
    rows = [
        f"e.mat 16+24 1000/mV 16 0 0 {int(r.sum())} 0 {n}"
        for r, n in zip(matrix, LEADS, strict=False)
    ]
    path.write_text("\n".join([f"e.mat {len(rows)} 500 {length} 05-May-2020 14:50:55", *rows]))
    return path


def test_a_matrix_of_another_length_is_named(tmp_path):
    assert read_wfdb(challenge(tmp_path, SAMPLES)).signal.shape == (2, T)
    shorter = challenge(tmp_path, SAMPLES[:, :49])
    assert reason(shorter).name == "truncated_signal"
    longer = challenge(tmp_path, np.tile(SAMPLES, 2))
    assert reason(longer).name == "wrong_length"


def test_no_matlab_object_is_built_and_nothing_unfolds_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(mat, "MAX_FILE", 1 << 22)
    bomb = tmp_path / "bomb.mat"
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    packed = zlib.compress(bytes(1 << 26), 9)
    bomb.write_bytes(head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    objects = tmp_path / "cells.mat"
    scipy.io.savemat(objects, {"val": np.array([["a"], [1]], dtype=object)})
    other = tmp_path / "other.mat"
    other.write_bytes(b"\x80\x04cos\nsystem\n" * 40)
    seven = tmp_path / "seven.mat"
    seven.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512))
    for path, name in [
        (bomb, "size_limit"),
        (objects, "unreadable"),
        (other, "unreadable"),
        (seven, "unreadable"),
    ]:
        with pytest.raises(BadRecord) as caught:
            load_matrix(path)
        assert caught.value.issue.name == name


def test_comments_become_labels_whatever_their_spelling():
    assert comment_labels(
        (
            "Age: 85",
            "Sex:  Male",
            "Patient ID: 48705",
            "Dx: 1,2",
            "Rx: Unknown",
            "Age: 3",
            "no colon",
        )
    ) == {"age": "85", "sex": "Male", "patient_id": "48705", "dx": "1,2"}
    assert comment_labels(("<age>: 25  <sex>: M  <diagnoses>: (none)",)) == {
        "age": "25",
        "sex": "M",
    }
    assert len(comment_labels(tuple(f"k{i}: v" for i in range(1000)))) == 64


def test_header_facts(tmp_path):
    header = read_header(
        write(
            tmp_path,
            "r 1 360/720(5) 50 10:00:00 1/2/2020\nr.dat 212x2:3+4 200(12)/uV 12 5 0 0 0 a b\n",
        )
    )
    signal = header.signals[0]
    assert (signal.fmt, signal.per_frame, signal.skew, signal.offset) == ("212", 2, 3, 4)
    assert (signal.gain, signal.baseline, signal.units, signal.name) == (200, 12, "uV", "a b")
    assert header.fs == 360
