"""From files of videos to a store: nothing is lost, nothing is believed, ids meet their tables."""

from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from ecgfast.config.clips import ClipFit
from ecgfast.data import split
from ecgfast.data.checks import parse_policy
from ecgfast.data.clip_convert import ClipPlan, convert_clips, read_salt
from ecgfast.data.clip_store import ClipStore
from ecgfast.data.dicom_video import pseudonym
from ecgfast.data.film import VideoReading
from ecgfast.data.records import DataError
from ecgfast.data.sector import fit_video
from ecgfast.data.videos import read_video
from python_tests.conftest import shared_data
from python_tests.video_files import loop, write_avi, write_dicom

FIT = ClipFit(size=24)
PLAN = ClipPlan(fit=FIT)
UID = "1.2.840.99.7"
OPEN = VideoReading(pseudonyms=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight videos that can be read, DICOM, AVI and array; a copy; and seven files that cannot."""
    folder = tmp_path_factory.mktemp("echo") / "videos"
    (folder / "more").mkdir(parents=True)
    for n in range(4):
        write_avi(folder / f"0X{n}.avi", loop(n, 10 + n))
    np.save(folder / "array.npy", loop(4))
    for n in range(3):  # named as scanners do: two of one study, one of another, one patient
        write_dicom(folder / f"{UID}.{n}", loop(5 + n), patient="0042", study=f"{UID}.1{n // 2}")
    shutil.copy(folder / "0X1.avi", folder / "more" / "again.avi")
    np.save(folder / "still.npy", loop(0)[:1])
    np.save(folder / "short.npy", loop(9)[:4])
    np.save(folder / "frozen.npy", np.repeat(loop(8)[:1], 9, axis=0))
    np.save(folder / "floats.npy", loop(8) / 255.0)
    (folder / "cut.avi").write_bytes((folder / "0X2.avi").read_bytes()[:3000])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.dcm").write_text("hello")
    (folder / "notes.txt").write_text("no video, and not looked at")
    return folder


REJECTED = {"cut", "empty", "floats", "frozen", "still", "text", "again"}


def table_of(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def manifest_of(store):
    return ClipStore.open(store).manifest.set_index("record_id", drop=False)


def test_every_video_is_stored_or_rejected_with_its_reason(folder, tmp_path):
    outcome = convert_clips([folder], tmp_path / "s", PLAN, workers=0)
    store = ClipStore.open(tmp_path / "s")
    rejected = pd.read_csv(tmp_path / "s" / "rejected.csv").set_index("record_id")
    assert outcome.total == 16
    assert set(rejected.index) == REJECTED
    named = {"empty": "empty_file", "still": "single_frame", "again": "duplicate_video"}
    named |= {"text": "unreadable", "frozen": "frozen_video"}
    assert {name: rejected["issue"][name] for name in named} == named
    assert "the same as 0X1" in rejected["message"]["again"]
    assert sorted(store.manifest["record_id"]) == sorted(
        [*(f"0X{n}" for n in range(4)), "array", "short", *(f"{UID}.{n}" for n in range(3))]
    )
    for index, row in store.manifest.iterrows():
        read = read_video(folder.parent, row["source"], VideoReading())
        frames, facts, _ = fit_video(read, FIT)
        np.testing.assert_array_equal(store.frames(index), frames)
        assert len(frames) == row["frames"] == row["frames_source"]
        assert (row["height_source"], row["width_source"]) == (96, 128)
        for name in ("fps", "form_source", "patient_id", "study_id", "source_sha256"):
            assert row[name] == facts[name], name
    assert not (tmp_path / "s" / ".unfinished").exists()
    assert {"0X2": 50.0, f"{UID}.0": 40.0, "array": 0.0}.items() <= dict(
        zip(store.manifest["record_id"], store.manifest["fps"], strict=True)
    ).items()


def test_no_name_of_the_header_comes_into_the_store(folder, tmp_path):
    convert_clips(
        [folder], tmp_path / "s", ClipPlan(fit=FIT, reading=VideoReading(salt="x1")), workers=0
    )
    raw = b"".join(path.read_bytes() for path in sorted((tmp_path / "s").iterdir()))
    assert b"DOE" not in raw
    assert b"x1" not in (tmp_path / "s" / "store.json").read_bytes()
    table = manifest_of(tmp_path / "s")
    assert table["patient_id"][f"{UID}.0"] == pseudonym("0042", "x1")
    assert table["study_id"][f"{UID}.2"] == pseudonym(f"{UID}.11", "x1")


@pytest.fixture(scope="module")
def plain(folder):
    """A manifest with the ids as they are."""
    store = folder.parent / "plain"
    convert_clips([folder], store, ClipPlan(fit=FIT, reading=OPEN), workers=0)
    return manifest_of(store)


def test_patients_and_studies_are_kept_apart_in_a_split(plain):
    table = plain
    mine = table[table["patient_id"] == "0042"]
    assert mine["study_id"].tolist() == [f"{UID}.10", f"{UID}.10", f"{UID}.11"]
    for seed in range(20):
        parts = split.by_random(table, fractions=(0.4, 0.3, 0.3), seed=seed)
        split.check_leaks(table.assign(split=parts))
        assert parts[mine.index].nunique() == 1
    by_study = table.assign(split="train")  # E6: a patient's studies in two parts
    by_study.loc[f"{UID}.2", "split"] = "test"
    with pytest.raises(DataError, match="1 patients are in both test and train"):
        split.check_leaks(by_study)


def test_a_study_of_nobody_known_is_one_patient(plain):
    table = plain.assign(split="train")
    table.loc[f"{UID}.0", "patient_id"] = ""  # and the other video of the study has a patient
    assert split.patients(table)[f"{UID}.0"] == f"study:{UID}.10"
    table.loc[f"{UID}.0", "split"] = "test"
    with pytest.raises(DataError, match=f"1 studies are in both test and train.*{UID}.10"):
        split.check_leaks(table)
    for seed in range(20):
        parts = split.by_random(table, fractions=(0.4, 0.3, 0.3), seed=seed)
        split.check_leaks(table.assign(split=parts))


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(folder, tmp_path):
    def stopping(results, done, total):
        for n, ready in enumerate(results):
            if n == 9:
                raise KeyboardInterrupt
            yield ready

    words = {"shard_frames": 20, "workers": 0}
    convert_clips([folder], tmp_path / "whole", PLAN, **words)
    with pytest.raises(KeyboardInterrupt):
        convert_clips([folder], tmp_path / "s", PLAN, progress=stopping, **words)
    outcome = convert_clips([folder], tmp_path / "s", PLAN, **words)
    assert 0 < outcome.resumed_at < 16
    again = convert_clips([folder], tmp_path / "s", PLAN, **words)
    assert again.was_finished
    assert_same_bytes(tmp_path / "whole", tmp_path / "s")
    with pytest.raises(DataError, match="store_exists"):
        convert_clips([folder], tmp_path / "s", ClipPlan(fit=ClipFit(size=32)), **words)


def assert_same_bytes(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_store_is_the_same_for_any_number_of_workers(folder, tmp_path):
    for workers in (0, 2):
        convert_clips([folder], tmp_path / str(workers), PLAN, workers=workers)
    assert_same_bytes(tmp_path / "0", tmp_path / "2")


def test_labels_meet_videos_by_name_with_a_suffix_or_without(folder, tmp_path):
    """As EchoNet's FileList.csv, and its sisters."""
    header = ["FileName", "EF", "FPS", "NumberOfFrames", "Split", "frames"]
    rows = [
        *([f"0X{n}", 50 + n, 50, 9, "TRAIN", 1] for n in range(3)),
        *(["0X3.avi", 53, 50, 9, "TEST", 1], ["gone", 1, 1, 1, "VAL", 1]),
        [f"more/{UID}.9", 1, 1, 1, "VAL", 1],
    ]
    labels = table_of(tmp_path / "FileList.csv", header, rows)
    outcome = convert_clips(
        [folder], tmp_path / "s", PLAN, labels=labels, id_column="FileName", workers=0
    )
    table = manifest_of(tmp_path / "s")
    assert table["EF"][[f"0X{n}" for n in range(4)]].tolist() == [50, 51, 52, 53]
    assert table["EF"].notna().sum() == 4
    assert table["label_frames"]["0X1"] == 1  # the store's own column stays its own
    assert table["frames"]["0X1"] == 11
    assert table["Split"]["0X3"] == "TEST"
    (joined,) = outcome.joined
    assert (joined.matched, joined.unused) == (4, ("gone", f"more/{UID}.9"))


def test_labels_meet_studies(folder, tmp_path):
    """By the ids as the hospital has them, though the store knows pseudonyms."""
    labels = table_of(
        tmp_path / "t.csv",
        ["Accession", "MRN", "lvh"],
        [[f"{UID}.10", "0042", 1], [f"{UID}.11", "0042", 0], ["9.9.9", "1", 1]],
    )
    words = {"id_column": "Accession", "study_column": "Accession", "patient_column": "MRN"}
    for number, reading in enumerate((VideoReading(salt="s"), OPEN)):
        store = tmp_path / str(number)
        plan = ClipPlan(fit=FIT, reading=reading)
        outcome = convert_clips([folder], store, plan, labels=labels, workers=0, **words)
        table = manifest_of(store)
        assert table["lvh"][[f"{UID}.{n}" for n in range(3)]].tolist() == [1, 1, 0]
        assert table["lvh"].notna().sum() == 3
        assert table["patient_id"][f"{UID}.0"] == (
            pseudonym("0042", "s") if reading.pseudonyms else "0042"
        )
        assert {"Accession", "MRN"}.isdisjoint(table)  # ids are where they belong, and nowhere else
        assert outcome.joined[0].matched == 3
        assert outcome.joined[0].unused == ("9.9.9",)
    raw = (tmp_path / "0" / "manifest.parquet").read_bytes()
    assert UID.encode() + b".10" not in raw


def test_patients_of_a_table_are_those_of_the_files(folder, tmp_path):
    """One video of a patient is in the table, the others know the patient themselves."""
    labels = table_of(
        tmp_path / "t.csv",
        ["record_id", "patient_id", "study_id", "view"],
        [[f"{UID}.0", "0042", f"{UID}.10", "A4C"], ["0X1", "7.0", "3.0", "PLAX"]],
    )
    convert_clips([folder], tmp_path / "s", PLAN, labels=labels, workers=0)
    table = manifest_of(tmp_path / "s")
    assert table["patient_id"][f"{UID}.0"] == table["patient_id"][f"{UID}.1"]
    assert table["study_id"][f"{UID}.0"] == table["study_id"][f"{UID}.1"]
    assert table["patient_id"]["0X1"] == pseudonym("7", "")
    assert table["view"][["0X1", f"{UID}.0", "0X2"]].tolist() == ["PLAX", "A4C", ""]
    films = convert_clips(
        [folder / "0X1.avi"], tmp_path / "f", PLAN, labels=labels, workers=0
    ).manifest
    assert films[["patient_id", "study_id"]].iloc[0].tolist() == ["7", "3"]  # nothing to hide


def test_ids_of_the_hospital_do_not_stand_beside_their_pseudonyms(folder, tmp_path):
    header = ["file", "MRN", "UID", "lvh"]
    labels = table_of(tmp_path / "t.csv", header, [[f"{UID}.0", "MRN0042", f"{UID}.10", 1]])
    words = {"id_column": "file", "patient_column": "MRN", "study_column": "UID"}
    convert_clips([folder], tmp_path / "s", PLAN, labels=labels, workers=0, **words)
    table = manifest_of(tmp_path / "s")
    row = table.loc[f"{UID}.0"]
    assert row["patient_id"] == pseudonym("MRN0042", "")
    assert row["study_id"] == pseudonym(f"{UID}.10", "")
    assert {"MRN", "UID"}.isdisjoint(table)
    assert not table.astype(str).isin(["MRN0042", f"{UID}.10"]).any(axis=None)


def test_too_few_frames_at_another_rate_are_a_short_video(tmp_path):
    """Ten frames at 40/s are three at 10/s, and one at 1/s."""
    folder = tmp_path / "v"
    folder.mkdir()
    write_dicom(folder / "a.dcm", loop(0, 10), patient="1", study="2", fps=40.0)
    for fps, least, frames in ((10, 2, 3), (10, 4, 0), (1, 2, 0)):
        store = tmp_path / f"{fps}-{least}"
        plan = ClipPlan(fit=ClipFit(size=16, fps=fps), reading=VideoReading(least_frames=least))
        table = convert_clips([folder], store, plan, workers=0).manifest
        assert table["frames"].tolist() == [frames] * (frames > 0)
        rejected = pd.read_csv(store / "rejected.csv")
        assert rejected["issue"].tolist() == ["short_video"] * (not frames)


def test_a_package_that_is_not_there_ends_the_run_and_blames_no_file(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match="av"):
        convert_clips([folder], tmp_path / "s", PLAN, workers=0)
    monkeypatch.undo()
    outcome = convert_clips([folder], tmp_path / "s", PLAN, workers=0)  # goes on once it is there
    assert not outcome.was_finished
    assert len(outcome.manifest) == 9


def test_a_store_in_a_folder_of_videos_is_none_of_them(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    np.save(folder / "a.npy", loop(0, 10))
    for finished in (False, True):
        outcome = convert_clips([folder], folder / "out" / "store", PLAN, workers=0)
        assert outcome.was_finished == finished
        assert outcome.manifest["source"].tolist() == ["v/a.npy"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"id_column": "name"}, "no column 'name'.*--id-column"),
        ({"study_column": "Accession"}, "no column 'Accession': --study-column"),
        ({"patient_column": "MRN"}, "no column 'MRN'"),
    ],
)
def test_columns_that_are_not_there_are_named(folder, tmp_path, words, match):
    labels = table_of(tmp_path / "t.csv", ["record_id", "lvh"], [["0X1", 1]])
    with pytest.raises(DataError, match=match):
        convert_clips([folder], tmp_path / "s", PLAN, labels=labels, **words)
    assert not (tmp_path / "s").exists()


def test_policies_reject_and_keep(folder, tmp_path):
    plan = ClipPlan(
        fit=FIT,
        reading=VideoReading(least_frames=5),
        policy=parse_policy(["fps_unknown=reject", "duplicate_video=keep"]),
    )
    convert_clips([folder], tmp_path / "s", plan, workers=0)
    rejected = pd.read_csv(tmp_path / "s" / "rejected.csv").set_index("record_id")["issue"]
    assert set(rejected["short"]) == {"short_video", "fps_unknown"}
    assert rejected["array"] == "fps_unknown"
    table = manifest_of(tmp_path / "s")
    assert table["flags"]["again"] == "duplicate_video"
    for seed in range(10):  # and copies stay together
        parts = split.by_random(table, fractions=(0.4, 0.3, 0.3), seed=seed)
        assert parts["again"] == parts["0X1"]


def test_a_salt_is_read_from_a_file(tmp_path):
    (tmp_path / "salt").write_text("  of the project\n")
    assert read_salt(tmp_path / "salt") == "of the project"
    (tmp_path / "none").write_text(" \n")
    for name in ("none", "nowhere"):
        with pytest.raises(DataError, match=r"error\[salt\]"):
            read_salt(tmp_path / name)


def test_sources_without_videos_are_refused(tmp_path):
    with pytest.raises(DataError, match="no_source"):
        convert_clips([tmp_path / "nowhere"], tmp_path / "s", PLAN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no_videos"):
        convert_clips([tmp_path / "empty"], tmp_path / "s", PLAN)


def test_real_clips_become_a_store_and_stills_do_not(tmp_path):
    source = shared_data("echo-dicom")
    plan = ClipPlan(policy=parse_policy(["colour_doppler=keep"]))
    convert_clips([source], tmp_path / "s", plan, workers=0)
    store = ClipStore.open(tmp_path / "s")
    assert store.lengths.tolist() == [30, 27, 10]
    assert store.shape == (1, 112, 112)
    rejected = pd.read_csv(tmp_path / "s" / "rejected.csv")
    assert rejected["issue"].tolist() == ["single_frame"] * 2
    assert store.manifest["study_id"].nunique() == 3
    for index in range(3):
        frames = store.frames(index)
        assert not frames[:, :, 0, 0].any()  # beside the sector it is black
        assert frames.std(axis=0).max() > 10  # and within it the heart beats
    convert_clips([source], tmp_path / "t", plan, workers=2)
    assert_same_bytes(tmp_path / "s", tmp_path / "t")
    about = json.loads((tmp_path / "s" / "store.json").read_text())
    assert about["synthetic"] is False
