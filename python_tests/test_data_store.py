"""The store: read in place, by rank and process; splits; labels."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, default_collate

from ecgfast.config import Signal
from ecgfast.data import split
from ecgfast.data.labels import LabelTable, join, parse_scp, read_ptbxl, read_table, settle
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.store import ECGStore, StoreWriter
from ecgfast.transforms.signal import Prepare
from python_tests.conftest import shared_data

SIGNAL = Signal(leads=("I", "II"), fs=50, seconds=2)


@pytest.fixture
def store(tmp_path):
    """Nine SYNTHETIC records of four patients and an unknown one, in three shards."""
    draw = np.random.default_rng(0)
    ecg = draw.normal(size=(9, 2, 100)).astype(np.float32)
    ecg[4, 1, 10:20] = np.nan
    writer = StoreWriter(tmp_path / "store", SIGNAL, synthetic=True, shard_records=4)
    for n in range(9):
        writer.add(
            ecg[n],
            record_id=f"r{n}",
            patient_id="" if n == 8 else f"p{n // 2}",
            split=["train", "train", "val", "test", ""][n // 2],
            labels={"age": 40 + n, "af": "" if n == 3 else str(n % 2 == 0), "words": f"w{n}"},
        )
    writer.close()
    return ECGStore.open(tmp_path / "store"), ecg


def test_a_store_gives_back_what_was_added(store):
    store, ecg = store
    assert (len(store), store.signal, store.synthetic) == (9, SIGNAL, True)
    for n in range(9):
        out = store.read(n)
        assert (out.shape, out.dtype) == ((2, 100), np.float32)
        gain = store.manifest["gain"][n]
        np.testing.assert_allclose(out, ecg[n], atol=gain * 0.5001)
        alone = np.load(store.path / f"signals-{n // 4:05d}.npy")[n % 4].astype(np.float32)
        alone[alone == -32768] = np.nan
        np.testing.assert_allclose(alone * gain, out, rtol=1e-6)
    assert store.manifest["n_nan"].tolist() == [0, 0, 0, 0, 10, 0, 0, 0, 0]


def test_labels_have_types(store):
    manifest = store[0].manifest
    assert manifest["age"].tolist() == [*range(40, 49)]
    assert manifest["af"].dropna().tolist() == [1, 0, 1, 1, 0, 1, 0, 1]
    assert manifest["words"][2] == "w2"


def test_splits_and_labels_choose_records(store):
    store, _ = store
    assert store.select(("train",)).tolist() == [0, 1, 2, 3]
    assert store.select(("all",)).tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert store.select(("val", "test")).tolist() == [4, 5, 6, 7]
    assert store.select(("train",), label="af").tolist() == [0, 1, 2]
    assert store.select(limit=2).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no column 'lvef'.*age, af, words"):
        store.select(label="lvef")
    with pytest.raises(DataError, match="holds text"):
        store.select(label="words")
    with pytest.raises(DataError, match="no split dev"):
        store.select(("dev",))


def test_torch_gets_records_also_in_other_processes(store):
    store, _ = store
    data = store.dataset(("train", "val"), label="af")
    item = data[0]
    assert set(item) == {"ecg", "gain", "index", "patient", "label"}
    assert (item["ecg"].dtype, item["gain"].dtype) == (torch.int16, torch.float32)
    assert item["index"].dtype == torch.int64
    millivolts = Prepare(fs=250.0)(item["ecg"][None], item["gain"][None])[0]
    torch.testing.assert_close(millivolts, torch.from_numpy(store.read(0)), equal_nan=True)
    assert (item["patient"].dtype, item["label"].dtype) == (torch.int64, torch.float32)
    codes = [int(data[n]["patient"]) for n in range(len(data))]
    assert [codes.index(c) for c in codes] == [0, 0, 2, 3, 3]
    store.read(0)
    assert len(pickle.dumps(data)) < 100_000  # no shard travels along
    here = [batch["ecg"] for batch in DataLoader(data, 2)]
    there = [batch["ecg"] for batch in DataLoader(data, 2, num_workers=1)]
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b)


def test_a_patient_has_one_code_everywhere_and_nobody_shares_none(tmp_path):
    from ecgfast.data.dataset import patient_codes

    assert patient_codes(["a", "b", "a"], ["1", "2", "3"])[[0, 1]].tolist() == [
        *patient_codes(["a", "b"], ["9", "8"])
    ]
    assert len(set(patient_codes(["", "", "x", "y"], ["x", "y", "z", "w"]).tolist())) == 4


def test_the_same_samples_come_in_once(tmp_path):
    ecg = np.random.default_rng(0).normal(size=(2, 100))
    writer = StoreWriter(tmp_path / "s", SIGNAL)
    assert writer.add(ecg, record_id="a")
    assert not writer.add(ecg, record_id="b")
    assert writer.add(ecg * 2, record_id="c")  # the gain tells them apart
    assert writer.close()["record_id"].tolist() == ["a", "c"]
    assert "same as a" in (tmp_path / "s" / "rejected.csv").read_text()
    with pytest.raises(ValueError, match=r"\(2, 100\), got \(2, 99\)"):
        writer.add(ecg[:, :99], record_id="d")


def test_what_is_no_store_is_said_so(tmp_path):
    with pytest.raises(DataError, match=r"no_store.*ecgfast convert"):
        ECGStore.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(DataError, match="corrupt_store"):
        ECGStore.open(tmp_path)
    (tmp_path / "store.json").write_text('{"version": 99, "complete": true}')
    with pytest.raises(DataError, match="store_version"):
        ECGStore.open(tmp_path)


def people(visits):
    """A manifest with so many records a patient; every fifth patient is unknown."""
    ids = [f"p{i}" if i % 5 else "" for i, n in enumerate(visits) for _ in range(n)]
    n = len(ids)
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(n)],
            "patient_id": ids,
            "split": "",
            "sha256": [f"s{i}" for i in range(n)],
            "label": np.arange(n) % 3 == 0,
            "value": np.arange(n) * 0.37 % 1,
            "strat_fold": np.arange(n) % 10 + 1,
        }
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.integers(0, 99))
@settings(max_examples=40)
def test_no_patient_is_in_two_splits_and_the_order_does_not_matter(visits, seed):
    manifest = people(visits)
    manifest["split"] = split.by_random(manifest, fractions=(0.6, 0.2, 0.2), seed=seed)
    split.check_leaks(manifest)
    mixed = manifest.sample(frac=1, random_state=seed)
    again = split.by_random(mixed, fractions=(0.6, 0.2, 0.2), seed=seed)
    assert again.sort_index().tolist() == manifest["split"].tolist()
    whose = split.patients(manifest)
    share = whose[manifest["split"] == "train"].nunique() - 0.6 * whose.nunique()
    assert abs(share) <= 1


def test_a_leak_is_refused_with_its_number_and_the_first():
    manifest = people([2] * 40)
    manifest["split"] = ["train", "test"] * 40
    with pytest.raises(DataError, match=r"32 patients are in both test and train \(first: p1\)"):
        split.check_leaks(manifest)
    manifest = people([1] * 4)
    manifest["split"] = ["train", "val", "test", ""]
    split.check_leaks(manifest)
    manifest["sha256"] = "same"
    with pytest.raises(DataError, match="1 signals are in both"):
        split.check_leaks(manifest)


def test_folds_and_tables(tmp_path):
    manifest = people([1] * 20)
    parts = split.by_fold(manifest)
    assert parts.value_counts().to_dict() == {"train": 16, "val": 2, "test": 2}
    parts = split.by_fold(manifest, val=(8,), test=(9, 10))
    assert parts.value_counts().to_dict() == {"train": 14, "test": 4, "val": 2}
    with pytest.raises(DataError, match="no record is in fold 11"):
        split.by_fold(manifest, test=(11,))
    with pytest.raises(DataError, match="no column strat_fold"):
        split.by_fold(manifest.drop(columns="strat_fold"))
    table = tmp_path / "split.csv"
    table.write_text("record_id,split\nr0,train\nr1,test\n")
    assert split.by_table(manifest, table).tolist() == ["train", "test"] + [""] * 18
    table.write_text("record_id,split\nr0,dev\n")
    with pytest.raises(DataError, match="'dev'"):
        split.by_table(manifest, table)


@pytest.mark.parametrize("label", [None, "label", "value"])
@given(visits=st.lists(st.integers(1, 4), min_size=2, max_size=60), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_a_smaller_part_of_the_labels_lies_in_every_larger_one(label, visits, seed):
    manifest = people(visits)
    parts = [
        set(split.nested_fraction(manifest, f, seed, label).tolist())
        for f in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    ]
    for small, large in itertools.pairwise(parts):
        assert small <= large
    assert parts[-1] == set(range(len(manifest)))
    whose = split.patients(manifest)
    for part in parts:  # whole patients
        inside = whose.iloc[sorted(part)]
        assert whose.isin(inside).sum() == len(part)


def test_a_small_part_has_both_classes_and_about_its_size():
    manifest = people([2] * 400)
    part = split.nested_fraction(manifest, 0.1, 0, "label")
    assert set(manifest["label"].iloc[part]) == {True, False}
    # 480 patients, two records each but for the unknown ones
    share = split.patients(manifest).iloc[part].nunique() / split.patients(manifest).nunique()
    assert abs(share - 0.1) < 0.01
    with pytest.raises(DataError, match="fraction"):
        split.nested_fraction(manifest, 0, 0)


def test_ptbxl_labels_are_turned_round_and_counted():
    table = read_ptbxl(shared_data("ptb-xl-500"))
    frame = settle(table.frame)
    raw = pd.read_csv(shared_data("ptb-xl-500", "ptbxl_database.csv"))
    assert ((frame["sex"] == 1) == (raw["sex"] == 0)).all()
    counts = {name: int(frame[name].sum()) for name in ("norm", "sttc", "cd", "mi", "hyp")}
    assert counts == {"norm": 297, "sttc": 96, "cd": 78, "mi": 73, "hyp": 40}
    assert frame["patient_id"].nunique() == 466
    pd.testing.assert_series_equal(frame["age"], raw["age"])  # no 300 among these
    assert table.row(["records100/00000/00001_lr"]) == table.row(["records500/00000/00001_hr"]) == 0
    assert read_ptbxl(shared_data("ptb-xl-500"), anywhere=True).row(["00002_hr"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "{'a': open('/etc/passwd')}",
        "{" * 5000,
        "[1]",
        "{'a': {}}",
        "{'a': 1}" + " " * 20_000,
        "9**9**9",
    ],
)
def test_scp_codes_are_a_literal_and_nothing_else(text):
    with pytest.raises(DataError, match="scp_codes"):
        parse_scp(text)
    assert parse_scp("{'NORM': 100.0, 'SR': 0}") == {"NORM": 100, "SR": 0}


def test_a_table_is_joined_and_both_remainders_are_counted(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("ecg_id,sex,pcwp,split,who\n007,1,12.5,x,a\n8,0,,y,b\n9,1,3,z,c\n10,0,4,z,d\n")
    table = read_table(path, "ecg_id", male="0", patient_column="who")
    records = pd.DataFrame({"record_id": ["7", "8.0", "20"], "pcwp": ["", "1", "2"]})
    keys = [["7"], ["8.0"], ["20"]]
    joined, report = join(records, [("9", ["9"])], table, keys)
    typed = settle(joined)
    assert typed["sex"].tolist()[:2] == [0, 1]  # the table calls male 0
    assert typed["pcwp"].tolist() == [12.5, 1, 2]  # an empty cell leaves what the header said
    assert typed["label_split"].tolist()[:2] == ["x", "y"]  # the name is taken
    assert typed["patient_id"].tolist() == ["a", "b", ""]
    assert (report.matched, report.rejected) == (2, 1)
    assert (report.unused, report.unlabelled) == (("10",), ("20",))
    assert "1 rows without a record (first: 10)" in report.line()
    with pytest.raises(DataError, match=r"no column 'exam'.*ecg_id"):
        read_table(path, "exam")
    with pytest.raises(DataError, match="id 1 stands in rows 2 and 3"):
        LabelTable("t.csv", pd.DataFrame({"a": ["x", "y"]}), [["1"], ["01"]])


def test_a_batch_is_its_records_stacked(store, tmp_path):
    store, ecg = store
    other = StoreWriter(tmp_path / "other", SIGNAL, synthetic=True)
    for n in range(3):
        other.add(ecg[n] * 2, record_id=f"o{n}", split="train", labels={"age": n})
    other.close()
    paths = (str(store.path), str(tmp_path / "other"))
    source = open_source(paths, ("all",), signal=SIGNAL, patients=0, label="age")
    made = open_source((), ("all",), signal=SIGNAL, patients=6, label="age")
    for data, rows in ((source.dataset, [9, 0, 4, 8, 1]), (made.dataset, [3, 0, 2])):
        batch, stacked = data.batch(rows), default_collate([data[row] for row in rows])
        assert batch.keys() == stacked.keys()
        for name, column in stacked.items():
            assert torch.equal(batch[name], column), name
            assert batch[name].dtype == column.dtype
        assert batch["index"].tolist() == rows
    first = source.dataset[9]  # the third of the other store: its names, not those of the first
    assert first["label"] == source.table["age"][9] == 2


def test_few_files_are_open_at_a_time_and_threads_may_share_them(store, monkeypatch):
    store, _ = store
    expected = [store.read(n) for n in range(9)]
    monkeypatch.setattr("ecgfast.data.shards.OPEN", 1)
    again = ECGStore.open(store.path)

    def read(seed):
        order = np.random.default_rng(seed).integers(0, 9, 300)
        return all(np.array_equal(again.read(n), expected[n], equal_nan=True) for n in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert len(again._open) <= 4  # one, and one for each thread that came between


@pytest.mark.parametrize("how", ["cut", "fewer", "gone", "other"])
def test_a_damaged_shard_is_named(store, how):
    store, _ = store
    name = store.path / "signals-00001.npy"
    store.read(0)
    if how == "cut":
        store.read(4)  # its header is known already
        with name.open("r+b") as file:
            file.truncate(name.stat().st_size - 300)
    elif how == "fewer":
        np.save(name, np.load(name)[:2])
    elif how == "gone":
        name.unlink()
    else:
        np.save(name, np.load(name).astype(np.int32))
    with pytest.raises(DataError, match=r"corrupt_store.*signals-00001\.npy"):
        store.read(7)


def test_a_patients_code_is_a_hash_of_the_id():
    from ecgfast.data.dataset import patient_codes

    found = patient_codes(["a", "", "a", float("nan")], ["1", "2", "3", "4"])
    digests = [hashlib.sha256(n).digest() for n in (b"patient a", b"record 2", b"record 4")]
    first, second, fourth = (int.from_bytes(d[:8], "little", signed=True) for d in digests)
    assert found.tolist() == [first, second, first, fourth]


def test_text_of_a_manifest_is_no_object_a_row(store):
    store, _ = store
    text = store.manifest[["record_id", "patient_id", "split", "words"]]
    assert {str(dtype) for dtype in text.dtypes} == {"str"}
    assert text["words"].tolist() == [f"w{n}" for n in range(9)]
