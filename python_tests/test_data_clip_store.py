"""Stores of videos: what is written is what is read, frame by frame, whatever happens between."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit
from ecgfast.data.clip_store import ClipStore, ClipWriter
from ecgfast.data.dataset import patient_codes, study_codes
from ecgfast.data.page_fit import PageFit
from ecgfast.data.page_store import PageStore, PageWriter
from ecgfast.data.records import DataError, Issue
from ecgfast.data.source import open_source
from ecgfast.data.store import ECGStore, StoreWriter
from ecgfast.data.store_format import CLIP_COLUMNS
from ecgfast.data.stores import open_store
from python_tests.video_files import FIT, clip_store, video

LENGTHS = [9, 4, 1, 12, 7, 3, 20, 5]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return clip_store(tmp_path_factory.mktemp("clips") / "store", LENGTHS, shard_frames=16)


def test_all_frames_come_back(store):
    assert store.lengths.tolist() == LENGTHS
    assert store.manifest.columns.tolist() == [*CLIP_COLUMNS, "lvh"]
    for n, frames in enumerate(LENGTHS):
        np.testing.assert_array_equal(store.frames(n), video(n, frames))
    assert store.manifest["study_id"].tolist() == [f"s{n // 2}" for n in range(8)]
    assert store.manifest["fps"].eq(50).all()
    assert store.manifest["spacing_mm"].isna().all()  # nobody said


def test_memory_that_is_filled_again_changes_nothing_that_was_added(tmp_path):
    writer, memory = ClipWriter(tmp_path / "store", FIT), np.empty_like(video(0, 5))
    for n in range(3):
        memory[:] = video(n, 5)
        writer.add(memory, record_id=f"v{n}")
    writer.close()
    store = ClipStore.open(tmp_path / "store")
    for n in range(3):
        np.testing.assert_array_equal(store.frames(n), video(n, 5))


def test_a_video_lies_whole_in_one_shard(store):
    """A shard ends with the video that fills it: 9 + 4 + 1 + 12, then 7 + 3 + 20, then 5."""
    assert store.manifest["shard"].tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert store.manifest["row"].tolist() == [0, 9, 13, 14, 0, 7, 10, 0]
    rows = [len(np.load(store.path / f"clips-{n:05d}.npy", mmap_mode="r")) for n in range(3)]
    assert rows == [26, 30, 5]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_are_slices_and_black_after_the_end(store, data):
    index = data.draw(st.integers(0, len(LENGTHS) - 1))
    first = data.draw(st.integers(0, LENGTHS[index] - 1))
    count, step = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
    whole = np.zeros((LENGTHS[index] + 8 * 5, *FIT.shape), np.uint8)
    whole[: LENGTHS[index]] = video(index, LENGTHS[index])
    expected = whole[first : first + count * step : step]
    out = np.full((count, *FIT.shape), 99, np.uint8)
    assert store.frames(index, first, count, step, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("step", [1, 3])
def test_only_what_is_asked_for_is_read(store, monkeypatch, step):
    import os

    read, real = [], os.preadv
    store.frames(6, 0, 1)  # the shard is open
    monkeypatch.setattr(
        os, "preadv", lambda f, b, at: read.append(len(bytes(b[0]))) or real(f, b, at)
    )
    store.frames(6, 2, 4, step)
    assert sum(read) == 4 * 16 * 16
    assert len(read) == (1 if step == 1 else 4)


@pytest.mark.parametrize("words", [(-1, 1), (9, 1), (0, -1), (0, 1, 0)])
def test_frames_that_are_not_there_are_refused(store, words):
    with pytest.raises((IndexError, ValueError), match=r"video 0 has 9 frames|must be"):
        store.frames(0, *words)


def test_colours_stay_colours(tmp_path):
    fit = ClipFit(size=16, grey=False, fps=25.0, mask="none")
    store = clip_store(tmp_path / "s", [3], fit)
    assert (store.fit, store.frames(0).shape) == (fit, (3, 3, 16, 16))
    np.testing.assert_array_equal(store.frames(0), video(0, 3, fit.shape))


def test_the_same_video_comes_in_once(tmp_path):
    for keep in (False, True):
        writer = ClipWriter(tmp_path / str(keep), FIT)
        assert writer.add(video(0), record_id="a", source="a.avi")
        assert writer.add(video(0, 8), record_id="shorter")  # not the same: a frame is missing
        assert writer.add(video(0), record_id="b", source="b.avi", keep_duplicates=keep) is keep
        writer.close()
        name = "issues.csv" if keep else "rejected.csv"
        row = pd.read_csv(tmp_path / str(keep) / name).iloc[0]
        assert (row["record_id"], row["issue"]) == ("b", "duplicate_video")
        assert "pixel for pixel the same as a" in row["message"]
    assert ClipStore.open(tmp_path / "True").manifest["flags"].tolist()[2] == "duplicate_video"


@pytest.mark.parametrize(
    "frames",
    [
        *(np.zeros((0, 1, 16, 16), np.uint8), np.zeros((2, 1, 16, 15), np.uint8)),
        *(np.zeros((2, 1, 16, 16), np.float32), np.zeros((16, 16), np.uint8)),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_what_is_no_video_of_the_store_is_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="a video"):
        ClipWriter(tmp_path / "s", FIT).add(frames, record_id="a")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    """Stopped after each number of videos, and taken up again: shards and rows are the same."""

    def write(path, stop=None):
        writer = ClipWriter(path, FIT, plan="p", shard_frames=16)
        for n in range(writer.done, 8):
            if n == stop:
                return  # and what was in memory is lost
            if n == 5:
                writer.reject("v5", "v5.avi", [Issue("unreadable", "error")])
            else:
                writer.add(video(n, LENGTHS[n]), record_id=f"v{n}", issues=[Issue("x", "note")])
        writer.close()

    write(tmp_path / "whole")
    for stop in range(1, 8):
        path = tmp_path / str(stop)
        write(path, stop)
        with pytest.raises(DataError, match="unfinished_store"):
            ClipStore.open(path)
        write(path)
        for file in sorted((tmp_path / "whole").iterdir()):
            assert (path / file.name).read_bytes() == file.read_bytes(), (stop, file.name)


def test_another_plan_is_refused_and_overwriting_removes_all_of_the_old_one(tmp_path):
    clip_store(tmp_path / "s", [3, 4], plan="a")
    with pytest.raises(DataError, match="store_exists"):
        ClipWriter(tmp_path / "s", FIT, plan="b")
    ClipWriter(tmp_path / "s", FIT, plan="b", overwrite=True)
    assert {p.name for p in (tmp_path / "s").iterdir()} == {"store.json", ".unfinished"}


def test_a_store_is_read_in_place_and_travels_without_its_frames(store):
    store.frames(0)
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 50_000
    np.testing.assert_array_equal(again.frames(3, 2, 4), video(3, 12)[2:6])


@pytest.mark.parametrize(
    "change",
    [
        *({"size": "16"}, {"size": 10**9}, {"grey": 1}, {"mask": "x"}, {"fps": "1"}),
        *({"fps": True}, {"more": 1}),
    ],
    ids=str,
)
def test_a_store_json_is_not_believed(tmp_path, change):
    clip_store(tmp_path / "s", [3])
    about = json.loads((tmp_path / "s" / "store.json").read_text())
    about["contract"] |= change
    (tmp_path / "s" / "store.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="corrupt_store"):
        ClipStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("row", 4), ("row", -1), ("frames", 99), ("shard", 7)),
        *(("frames", 0), ("frames", -2), ("frames", 2**50), ("frames", "x")),
    ],
)
def test_a_manifest_is_not_believed(tmp_path, column, value):
    store = clip_store(tmp_path / "s", [3, 4])
    store.manifest[column] = [value, value]
    store.manifest.to_parquet(tmp_path / "s" / "manifest.parquet")
    with pytest.raises((DataError, IndexError), match="corrupt_store"):
        ClipStore.open(tmp_path / "s").frames(1)


def test_damaged_shards_are_named(tmp_path):
    store = clip_store(tmp_path / "s", [3, 4])
    shard = tmp_path / "s" / "clips-00000.npy"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 100)
    with pytest.raises(DataError, match=r"corrupt_store.*clips-00000.npy"):
        store.frames(1)
    np.save(shard, np.zeros((7, 1, 16, 15), np.uint8))
    with pytest.raises(DataError, match=r"not \(N, 1, 16, 16\) uint8"):
        ClipStore.open(tmp_path / "s").frames(0)


def test_each_kind_opens_its_own(tmp_path):
    clip_store(tmp_path / "clips", [3])
    pages = PageWriter(tmp_path / "pages", PageFit(height=16, width=16, grey=True))
    pages.add(np.zeros((1, 16, 16), np.uint8), record_id="a")
    pages.close()
    signals = StoreWriter(tmp_path / "signals", Signal(seconds=1.0))
    signals.add(np.random.default_rng(0).normal(size=(12, 250)), record_id="a")
    signals.close()
    kinds = {"clips": ClipStore, "pages": PageStore, "signals": ECGStore}
    for name, kind in kinds.items():
        assert type(open_store(tmp_path / name)) is kind
        for other in kinds.values():
            if other is not kind:
                with pytest.raises(DataError, match=f"holds {name}, not {other.name}.*convert"):
                    other.open(tmp_path / name)
        for other in set(kinds) - {name}:
            with pytest.raises(DataError, match=f"mixed_stores.*holds {name}.*{other}"):
                open_source(
                    [str(tmp_path / name), str(tmp_path / other)],
                    ("all",),
                    signal=Signal(),
                    patients=1,
                )
    about = json.loads((tmp_path / "clips" / "store.json").read_text())
    (tmp_path / "clips" / "store.json").write_text(json.dumps(about | {"holds": "gold"}))
    with pytest.raises(DataError, match="holds gold, not signals"):
        open_store(tmp_path / "clips")


@pytest.mark.parametrize(
    ("word", "other"), [("size", 24), ("grey", False), ("mask", "none"), ("fps", 25.0)]
)
def test_stores_of_clips_that_differ_are_not_joined(tmp_path, word, other):
    clip_store(tmp_path / "a", [3])
    clip_store(tmp_path / "b", [3], ClipFit(**{"size": 16, word: other}), first=10)
    with pytest.raises(DataError, match=f"clips of .* differ in {word}: .*videos again"):
        open_source(
            [str(tmp_path / "a"), str(tmp_path / "b")], ("all",), signal=Signal(), patients=1
        )


def test_codes_of_studies_and_of_patients_whom_nobody_knows():
    patients = ["a", "a", "b", "", "", "", ""]
    studies = ["1", "2", "1", "9", "9", "", ""]
    records = ["r1", "r2", "r3", "r4", "r5", "r6", "r7"]
    study = study_codes(studies, records)
    assert len(set(study.tolist())) == 5
    assert study[3] == study[4]
    patient = patient_codes(patients, records, studies)
    assert patient[0] == patient[1] != patient[2]
    assert patient[3] == patient[4] != patient[5] != patient[6]
    assert patient[0] == patient_codes(["a"], ["z"])[0]  # the same in a store without studies
