"""Videos on the command line: convert, inspect, validate, split; and what is refused how."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ecgfast.cli import main
from ecgfast.config.clips import ClipFit
from ecgfast.data.clip_store import ClipStore
from python_tests.video_files import clip_store, loop, write_avi, write_dicom


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: no tensor is made."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two films, two DICOM files of a patient, and two files that are no videos."""
    folder = tmp_path_factory.mktemp("cli") / "videos"
    folder.mkdir()
    for n in range(2):
        write_avi(folder / f"a{n}.avi", loop(n))
        write_dicom(folder / f"d{n}.dcm", loop(2 + n), patient="77", study=f"1.2.3.{n}")
    (folder / "cut.avi").write_bytes((folder / "a0.avi").read_bytes()[:900])
    np.save(folder / "still.npy", loop(0)[:1])
    (folder.parent / "labels.csv").write_text("FileName,lvh\na0,1\na1.avi,0\nd0,1\nd1,1\n")
    return folder


@pytest.fixture
def store(folder, tmp_path):
    main(["convert", "--modality", "echo", str(folder), str(tmp_path / "s"), "--size", "24"])
    return tmp_path / "s"


def said(capsys, *words, code=0):
    """What a command prints, and how it ends."""
    capsys.readouterr()
    try:
        main([*map(str, words)])
        left = 0
    except SystemExit as end:
        left = end.code
    out, err = capsys.readouterr()
    assert left == code, out + err
    return out + err


def test_convert_says_what_became_of_each_file(folder, tmp_path, capsys):
    words = ["convert", "--modality", "echo", folder, tmp_path / "s", "--size", "24"]
    words += ["--labels", folder.parent / "labels.csv", "--id-column", "FileName"]
    told = said(capsys, *words)
    assert "stored   4 of 6 videos, frames of 24 x 24 pixels in grey, mask sector" in told
    assert "rejected 2 records" in told
    assert "1  single_frame" in told
    assert "labels.csv: 4 records of 4 rows" in told
    assert "pseudonyms without a salt" in told
    assert "next     ecgfast split" in told
    assert "finished already" in said(capsys, *words)
    assert ClipStore.open(tmp_path / "s").manifest["lvh"].tolist() == [1, 0, 1, 1]


def test_words_become_the_contract(folder, tmp_path, capsys):
    (tmp_path / "salt").write_text("sesame")
    words = ["--modality", "echo", "--size", "16", "16", "--colour", "--mask", "none"]
    words += ["--fps", "25", "--salt-file", tmp_path / "salt"]
    told = said(capsys, "convert", folder, tmp_path / "s", *words)
    assert "without a salt" not in told
    store = ClipStore.open(tmp_path / "s")
    assert store.fit == ClipFit(size=16, grey=False, mask="none", fps=25.0)
    assert store.manifest["fps"].eq(25).all()
    assert store.lengths.tolist() == [6, 6, 7, 7]  # 12 frames at 50 a second, and at 40
    said(capsys, "convert", folder, tmp_path / "t", "--modality", "echo", "--keep-ids")
    assert set(ClipStore.open(tmp_path / "t").manifest["patient_id"]) == {"", "77"}


def test_inspect_shows_videos_studies_patients_and_rates(store, capsys):
    told = said(capsys, "inspect", store)
    assert "stored   4 of 6 videos" in told
    assert "patients 3 (2 videos without a patient id)" in told
    assert "studies  2 (and 2 videos without a study id)" in told
    assert "frames   48; a video has 12 to 12" in told
    assert "50 frames/s (2), 40 frames/s (2)" in told
    assert "forms    AVI (2), DICOM (2)" in told


def test_inspect_says_what_a_video_is(folder, capsys):
    told = said(capsys, "inspect", folder / "d0.dcm")
    assert "DICOM, 12 frames of 128 x 96 pixels in grey, 40 frames/s" in told
    assert "77" not in told.replace(str(folder), "")  # nobody is named
    assert "error[single_frame]" in said(capsys, "inspect", folder / "still.npy", code=3)


def test_inspect_counts_the_videos_of_a_folder(folder, tmp_path, capsys):
    told = said(capsys, "inspect", folder)
    assert "6 videos" in told
    assert "read     4 of 6" in told
    for line in ("form           2  DICOM", "rate           2  40 frames/s", "1  single_frame"):
        assert line in told
    assert f"next     ecgfast convert --modality echo {folder} STORE" in told
    assert "77" not in told.replace(str(folder), "")
    (tmp_path / "none").mkdir()
    assert "holds no" in said(capsys, "inspect", tmp_path / "none", code=3)


def test_validate_reads_every_frame(store, tmp_path, capsys):
    told = said(capsys, "validate", store)
    assert "4 videos, frames of 24 x 24 pixels in grey" in told
    assert "studies  2" in told
    assert "checked  4 videos without an issue" in told
    said(capsys, "validate", store, "--json", tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())
    assert (found["records"], found["frames"], found["patients"]) == (4, 48, 3)
    shard = store / "clips-00000.npy"
    raw = bytearray(shard.read_bytes())
    raw[-5] ^= 1
    shard.write_bytes(bytes(raw))
    told = said(capsys, "validate", store, code=3)
    assert "1 of 4 videos are not as they were written (first: d1 (other frames" in told


def test_validate_finds_leaks_of_studies_and_frames_that_say_nothing(tmp_path, capsys):
    clip_store(tmp_path / "s", [4, 5, 6, 7, 8])
    path = tmp_path / "s" / "manifest.parquet"
    table = pd.read_parquet(path)
    table["split"] = ["train", "train", "val", "val", "test"]
    table["patient_id"] = ["a", "a", "b", "b", "c"]
    table["study_id"] = ["1", "1", "2", "2", "2"]
    table.to_parquet(path)
    told = said(capsys, "validate", tmp_path / "s", code=3)
    assert "split_leak" in told
    assert "1 studies are in both test and val (first: 2)" in told
    from ecgfast.data.clip_store import ClipWriter

    writer = ClipWriter(tmp_path / "b", ClipFit(size=16))
    for n, level in enumerate((0, 9)):
        writer.add(np.full((5, 1, 16, 16), level, np.uint8), record_id=f"v{n}")
    writer.close()
    told = said(capsys, "validate", tmp_path / "b", "--strict", code=3)
    assert "blank_video" in told


def test_split_keeps_patients_together_and_says_what_comes_next(store, capsys):
    told = said(capsys, "split", store, "--by", "patient", "--fractions", "0.4,0.3,0.3")
    assert "pretrain echoclr" in told
    table = ClipStore.open(store).manifest
    assert table[table["patient_id"] != ""]["split"].nunique() == 1
    assert (table["split"] != "").all()
    listed = table.assign(split=["train", "val", "train", "test"])
    listed[["record_id", "split"]].to_csv(store.parent / "mine.csv", index=False)
    told = said(capsys, "split", store, "--scheme", store.parent / "mine.csv", code=3)
    assert "patients are in both" in told


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["--modality", "echo", "--units", "mV"], 2, "--units: not of --modality echo"),
        (["--modality", "echo", "--fs", "500"], 2, "--fs: not of --modality echo"),
        (["--modality", "echo", "--grey"], 2, "--grey: not of --modality echo"),
        (["--modality", "echo", "--format", "image"], 2, "--format image is not of"),
        (["--modality", "echo", "--size", "100", "90"], 2, "frames are square"),
        (["--modality", "echo", "--size", "4"], 2, "size must be 8 to"),
        (["--modality", "echo", "--fps", "-1"], 2, "fps must be 0 to"),
        (["--modality", "echo", "--least-frames", "1"], 2, "least_frames must be 2"),
        (["--modality", "echo", "--policy", "still=keep"], 2, "still"),
        (["--modality", "echo", "--policy", "single_frame=keep"], 2, "single_frame"),
        (["--modality", "echo", "--salt-file", "nowhere"], 3, r"error[salt] nowhere"),
        (["--modality", "echo", "--labels", "nowhere.csv"], 3, "there is no nowhere.csv"),
        (["--modality", "films"], 2, "films"),
        (["--mask", "none"], 2, "--mask: not of --modality signal"),
        (["--size", "112"], 2, "--size: not of --modality signal"),
        (["--format", "image", "--fps", "20", "--size", "8", "8"], 2, "--fps: not of"),
        (["--modality", "page", "--size", "100"], 2, "--size HEIGHT WIDTH"),
        ([], 3, "videos of hearts --modality echo"),
    ],
)
def test_wrong_words_are_refused_and_leave_no_store(folder, tmp_path, capsys, words, code, match):
    told = said(capsys, "convert", folder, tmp_path / "s", *words, code=code)
    assert match in told
    assert "Traceback" not in told
    assert not (tmp_path / "s").exists()


def test_labels_of_nobody_are_no_success(folder, tmp_path, capsys):
    (tmp_path / "others.csv").write_text("FileName,lvh\nx,1\ny,0\n")
    words = ["--labels", tmp_path / "others.csv", "--id-column", "FileName", "--size", "24"]
    told = said(capsys, "convert", "--modality", "echo", folder, tmp_path / "s", *words, code=3)
    assert "error[labels] none of 2 rows of others.csv met a record" in told
    assert "--id-column" in told


def test_a_store_of_nothing_is_said_to_be_one(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "still.npy", loop(0)[:1])
    words = ["convert", "--modality", "echo", tmp_path / "in", tmp_path / "s"]
    assert "every record was rejected" in said(capsys, *words, code=3)


@pytest.mark.parametrize(
    "words", [["pretrain", "simclr", "--config", "debug", "--data.paths"], ["retrieve", "RUN"]]
)
def test_commands_for_signals_say_what_they_need(store, tmp_path, capsys, words):
    pytest.importorskip("lightning")
    if words[0] == "retrieve":
        from python_tests.small_run import make_run

        run = make_run(tmp_path / "run")
        words = ["retrieve", run, "--record", "a0", "--store"]
    else:
        words = [*words[:-1], "--fit.out", tmp_path / "out", words[-1]]
    told = said(capsys, *words, store, code=3)
    assert "holds videos" in told
