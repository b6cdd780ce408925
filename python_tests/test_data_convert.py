"""Conversion: bad records are named, none is lost, none ends the run, a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import pytest
import wfdb

from ecgfast.cli import main
from ecgfast.config import LEADS, Signal
from ecgfast.data import prepared as prepared_module
from ecgfast.data.convert import Plan, convert
from ecgfast.data.records import DataError
from ecgfast.data.sources import Reading, find
from ecgfast.data.store import ECGStore
from ecgfast.data.validate import validate
from python_tests.conftest import shared_data

SHORT = Signal(fs=100, seconds=2)
FS, T = 200, 400


def make(seed: int, seconds: float = T / FS) -> np.ndarray:
    """A SYNTHETIC record (12, T) in mV that obeys Einthoven."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * FS)) / FS
    beat = np.exp(-(((t % 0.8) - 0.3) ** 2) / (2 * 0.015**2))
    wave = np.exp(-(((t % 0.8) - 0.6) ** 2) / (2 * 0.05**2))
    parts = np.stack([beat, wave, np.sin(2 * np.pi * draw.uniform(0.1, 0.4) * t)])
    mix = draw.normal(size=(8, 3)) * [1.0, 0.3, 0.1] + [0.8, 0.2, 0]
    one, two, *chest = mix @ parts + draw.normal(size=(8, len(t))) * 0.01
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.stack([*limb, *chest])


def write(folder, name, ecg, *, leads=LEADS, fs=FS, units="mV", comments=()):
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=fs,
        units=[units] * len(ecg),
        sig_name=list(leads),
        p_signal=ecg.T,
        fmt=["16"] * len(ecg),
        adc_gain=[1000.0] * len(ecg),
        baseline=[0] * len(ecg),
        comments=list(comments),
        write_dir=str(folder),
    )


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def bad_folder(tmp_path):
    """Three good records and one of each fault, named after what must be said of it."""
    folder = tmp_path / "src"
    for n in range(3):
        write(folder, f"good{n}", make(n))
    gap = make(10)
    gap[6, 20:61] = np.nan
    write(folder, "nan_values", gap)
    lead = make(11)
    lead[8] = 0
    write(folder, "flat_line", lead)
    write(folder, "flat_line-all", np.zeros((12, T)))
    write(folder, "missing_leads", make(12)[:8], leads=LEADS[:8])
    write(folder, "lead_relation", make(13), leads=(*LEADS[:4], "aVF", "aVL", *LEADS[6:]))
    noise = make(14)
    noise[2] += np.random.default_rng(0).normal(size=T)
    write(folder, "lead_relation-noise", noise)
    write(folder, "unit_suspect", make(15))  # in steps of 1 uV, called 1 mV
    edit(folder / "unit_suspect.hea", lambda b: b.replace(b"1000.0(0)/mV", b"1.0(0)/mV"))
    write(folder, "unit_unknown", make(16), units="NU")
    write(folder, "truncated_signal", make(17))
    edit(folder / "truncated_signal.dat", lambda b: b[:-100])
    write(folder, "checksum_mismatch", make(18))
    edit(folder / "checksum_mismatch.dat", lambda b: b[:99] + bytes([b[99] ^ 4]) + b[100:])
    write(folder, "wrong_length", make(19))
    edit(folder / "wrong_length.dat", lambda b: b + b[:2400])
    (folder / "zz_duplicate_signal.hea").write_bytes(
        (folder / "good0.hea").read_bytes().replace(b"good0 ", b"zz_duplicate_signal ")
    )
    write(folder, "fs_mismatch", make(20), fs=300)
    write(folder, "corrupt_header", make(21))
    edit(folder / "corrupt_header.hea", lambda b: b"\x00\x01\x02" + b[40:])
    write(folder, "empty_file", make(22))
    edit(folder / "empty_file.dat", lambda b: b"")
    write(folder, "empty_file-header", make(23))
    edit(folder / "empty_file-header.hea", lambda b: b"")
    write(folder, "missing_file", make(24))
    (folder / "missing_file.dat").unlink()
    write(folder, "unsafe_path", make(25))
    edit(folder / "unsafe_path.hea", lambda b: b.replace(b"unsafe_path.dat", b"../../etc/passwd"))
    write(folder, "size_limit", make(26))
    edit(folder / "size_limit.hea", lambda b: b.replace(b" 400\n", b" 400000000000\n", 1))
    spike = make(27)
    spike[9, 100] = 25
    write(folder, "amplitude_outlier", spike)
    rest = make(28)
    rest[7, 100:200] = rest[7].max() + 0.5
    write(folder, "saturation", rest)
    write(folder, "short_after_crop", make(29, 0.9))
    return folder


KEPT = {
    "flat_line",
    "lead_relation-noise",
    "wrong_length",
    "amplitude_outlier",
    "saturation",
    "short_after_crop",
}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_bad_record_is_named_and_none_is_lost(bad_folder, tmp_path, workers):
    plan = Plan(signal=SHORT, reading=Reading(fs=FS))
    outcome = convert([bad_folder], tmp_path / "store", plan, workers=workers)
    kept = dict(zip(outcome.manifest["record_id"], outcome.manifest["flags"], strict=True))
    rejected = pd.read_csv(tmp_path / "store" / "rejected.csv")
    names = {path.stem for path in bad_folder.glob("*.hea")}
    assert len(names) == 25 == outcome.total
    assert set(kept) | set(rejected["record_id"]) == names
    assert not set(kept) & set(rejected["record_id"])
    assert {name for name in kept if not name.startswith("good")} == KEPT
    assert [kept[f"good{n}"] for n in range(3)] == ["", "", ""]
    said = {name: flags for name, flags in kept.items() if flags}
    said |= dict(rejected.groupby("record_id")["issue"].agg(",".join))
    for name in names - {f"good{n}" for n in range(3)}:
        assert name.removeprefix("zz_").split("-")[0] in said[name].split(","), (name, said[name])
    # every reason has its sentence
    assert rejected["message"].str.len().min() > 10
    text = "\n".join(rejected["message"])
    assert "41 of 400 samples are NaN (10.2 %)" in text
    assert "leads 5 (aVL) and 6 (aVF) are exchanged" in text
    assert "looks like microvolts" in text
    assert "9500 bytes; the header needs 9600" in text
    assert "the same as good0" in text
    assert "300 Hz, demanded were 200 Hz" in text


def test_a_policy_keeps_what_it_names(bad_folder, tmp_path):
    policy = {"nan_values": "keep", "unit_suspect": "keep", "flat_line": "reject"}
    plan = Plan(signal=SHORT, reading=Reading(fs=FS), policy=policy)
    outcome = convert([bad_folder], tmp_path / "store", plan, workers=0)
    kept = outcome.manifest.set_index("record_id")
    assert {"nan_values", "unit_suspect"} <= set(kept.index)
    assert "flat_line" not in kept.index
    store = ECGStore.open(tmp_path / "store")
    at = outcome.manifest["record_id"].tolist().index("nan_values")
    ecg = store.read(at)
    assert np.isnan(ecg).sum() == kept.loc["nan_values", "n_nan"]
    assert set(np.flatnonzero(np.isnan(ecg[6]))) == set(range(10, 31))  # 20 to 60 at half the rate
    assert not np.isnan(np.delete(ecg, 6, axis=0)).any()


def test_short_gaps_can_be_bridged_and_absent_leads_derived(tmp_path):
    ecg = make(1)
    gap = ecg.copy()
    gap[6, 20:23] = np.nan
    write(tmp_path / "src", "gap", gap)
    few = [0, 1, *range(6, 12)]
    write(tmp_path / "src", "eight", make(2)[few], leads=[LEADS[i] for i in few])
    same = Signal(fs=FS, seconds=2)
    outcome = convert(
        [tmp_path / "src"], tmp_path / "store", Plan(signal=same, derive=True, fill_gaps_ms=20)
    )
    flags = dict(zip(outcome.manifest["record_id"], outcome.manifest["flags"], strict=True))
    assert flags == {"eight": "derived_leads", "gap": "gaps_filled"}
    store = ECGStore.open(tmp_path / "store")
    eight, gap = store.read(0), store.read(1)
    np.testing.assert_allclose(eight, make(2), atol=2e-3)  # 1 uV of the file, twice
    np.testing.assert_allclose(gap[6, 19:24], np.linspace(ecg[6, 19], ecg[6, 23], 5), atol=1e-3)


def test_what_is_stored_is_the_record_to_half_a_step(tmp_path):
    ecg = np.round(make(5), 3)
    write(tmp_path / "src", "r", ecg, comments=["Age: 61", "Sex: Female", "Patient ID: p7"])
    convert([tmp_path / "src"], tmp_path / "store", Plan(signal=Signal(fs=FS, seconds=2)))
    store = ECGStore.open(tmp_path / "store")
    row = store.manifest.iloc[0]
    assert (row["age"], row["sex"], row["patient_id"], row["n_valid"]) == (61, 0, "p7", T)
    allowed = row["gain"] / 2 + 2 * np.spacing(np.float32(np.abs(ecg).max()))
    assert np.abs(store.read(0) - ecg).max() <= allowed
    alone = np.load(tmp_path / "store" / "signals-00000.npy", mmap_mode="r")  # numpy is enough
    assert (alone.dtype, alone.shape, alone.flags.c_contiguous) == (np.int16, (1, 12, T), True)
    np.testing.assert_allclose(alone[0] * row["gain"], store.read(0), rtol=1e-6)


def test_resampling_keeps_what_the_rate_can_hold_and_lets_nothing_alias(tmp_path):
    t = np.arange(2000) / FS
    ecg = np.tile(np.sin(2 * np.pi * 10 * t) + np.sin(2 * np.pi * 80 * t), (12, 1))
    write(tmp_path / "src", "r", ecg)
    plan = Plan(signal=Signal(fs=100, seconds=5), policy={"lead_relation": "keep"}, crop="centre")
    convert([tmp_path / "src"], tmp_path / "store", plan)
    out = ECGStore.open(tmp_path / "store").read(0)
    at = (np.arange(500) / 100) + 2.5  # the middle five of ten seconds
    # 1.4e-3: what the file's rounding to 1 uV and the filter's passband ripple leave
    np.testing.assert_allclose(out[0], np.sin(2 * np.pi * 10 * at), atol=1.4e-3)


CRASH = """
import os, signal, sys
from ecgfast.config import Signal
from ecgfast.data.convert import Plan, convert

def kill_after(results, done, total):
    for n, result in enumerate(results):
        if n == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

plan = Plan(signal=Signal(fs=100, seconds=2))
convert([sys.argv[1]], sys.argv[2], plan, workers=0, shard_records=4, progress=kill_after)
"""


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(tmp_path):
    for n in range(20):
        write(tmp_path / "src", f"r{n:02}", make(n))
    edit(tmp_path / "src" / "r02.dat", lambda b: b[:-1])
    write(tmp_path / "src", "r15", make(3))  # a duplicate of one that the first run has written
    args = [sys.executable, "-P", "-c", CRASH, str(tmp_path / "src"), str(tmp_path / "killed")]
    assert subprocess.run(args).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"error\[unfinished_store\].*same convert command"):
        ECGStore.open(tmp_path / "killed")
    seen = []

    def watch(results, done, total):
        seen.append((done, total))
        return results

    plan = Plan(signal=SHORT)
    how = {"workers": 0, "shard_records": 4, "progress": watch}
    again = convert([tmp_path / "src"], tmp_path / "killed", plan, **how)
    once = convert([tmp_path / "src"], tmp_path / "once", plan, **how)
    assert seen == [(9, 20), (0, 20)]  # two whole shards of four, and the rejected one
    assert (again.resumed_at, once.resumed_at) == (9, 0)
    pd.testing.assert_frame_equal(again.manifest, once.manifest)
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in files:
        if name != "manifest.parquet":
            same = [(tmp_path / run / name).read_bytes() for run in ("killed", "once")]
            assert same[0] == same[1], name
    assert len(once.manifest) == 18
    assert convert([tmp_path / "src"], tmp_path / "once", plan, **how).was_finished


def test_a_store_of_other_records_or_a_full_folder_is_not_touched(tmp_path):
    write(tmp_path / "src", "r", make(0))
    convert([tmp_path / "src"], tmp_path / "store", Plan(signal=SHORT))
    with pytest.raises(DataError, match=r"store_exists.*--overwrite"):
        convert([tmp_path / "src"], tmp_path / "store", Plan(signal=Signal(fs=50, seconds=2)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="store_exists"):
            convert([tmp_path / "src"], tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    plan = Plan(signal=Signal(fs=50, seconds=2))
    convert([tmp_path / "src"], tmp_path / "store", plan, overwrite=True)
    assert ECGStore.open(tmp_path / "store").signal.fs == 50


def test_a_record_that_kills_its_process_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    for n in range(40):
        write(tmp_path / "src", f"r{n:02}", make(n))

    class Pool:
        """Runs at once; dies of r20, as a decoder with a fault would."""

        def __init__(self, *_, **__):
            self.dead = False

        def submit(self, work, items):
            future = Future()
            self.dead |= any(item.record_id == "r20" for item in items)
            if self.dead:
                future.set_exception(BrokenProcessPool("killed"))
            else:
                future.set_result(work(items))
            return future

        def shutdown(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(prepared_module, "ProcessPoolExecutor", Pool)
    outcome = convert([tmp_path / "src"], tmp_path / "store", Plan(signal=SHORT), workers=2)
    assert len(outcome.manifest) == 39
    rejected = pd.read_csv(tmp_path / "store" / "rejected.csv")
    assert rejected[["record_id", "issue"]].to_numpy().tolist() == [["r20", "reader_crashed"]]


def test_a_list_of_records_is_followed_and_may_not_lead_out(tmp_path):
    write(tmp_path / "src", "one", make(1))
    write(tmp_path / "src", "two", make(2))
    listed = tmp_path / "RECORDS"
    listed.write_text("two\n\nthree\n")
    outcome = convert([tmp_path / "src"], tmp_path / "store", Plan(signal=SHORT), records=listed)
    assert outcome.manifest["record_id"].tolist() == ["two"]
    rejected = pd.read_csv(tmp_path / "store" / "rejected.csv")
    assert rejected[["record_id", "issue"]].to_numpy().tolist() == [["three", "missing_file"]]
    listed.write_text("../src/one\n")
    with pytest.raises(DataError, match="unsafe_path"):
        find([tmp_path / "src"], Reading(), records=listed)


@pytest.mark.parametrize(
    ("folder", "total", "rejected", "flags"),
    [
        ("challenge-2021", 230, {"duplicate_signal": 1}, {"flat_line": 6, "amplitude_outlier": 5}),
        (
            "code15-153",
            153,
            {"duplicate_signal": 1, "unit_suspect": 1},
            {"short_after_crop": 82, "amplitude_outlier": 14},
        ),
        ("wfdb-samples", 26, {"missing_leads": 25}, {"other_signals": 1}),
    ],
)
def test_counts_of_the_real_folders(tmp_path, folder, total, rejected, flags):
    outcome = convert([shared_data(folder)], tmp_path / "store", workers=0)
    assert outcome.total == total
    reasons = pd.read_csv(tmp_path / "store" / "rejected.csv", dtype=str)
    first = reasons.drop_duplicates("record_id")["issue"]
    assert Counter(first) == rejected
    found = Counter(f for row in outcome.manifest["flags"] if row for f in row.split(","))
    assert found == flags
    assert not validate(ECGStore.open(tmp_path / "store")).faults


def test_the_commands_as_a_user_types_them(tmp_path, capsys):
    src = tmp_path / "src"
    for n in range(12):
        write(src, f"r{n}", make(n), comments=[f"Patient ID: {n // 2}", "Sex: F"])
    edit(src / "r3.dat", lambda b: b[:-1])
    store = str(tmp_path / "store")
    main(["inspect", str(src / "r0")])
    assert "12 leads x 400 samples at 200 Hz = 2 s" in capsys.readouterr().out
    main(["inspect", str(src)])
    assert "truncated_signal" in capsys.readouterr().out
    main(["convert", str(src), store, "--fs", "100", "--seconds", "2", "--leads", "i,II,v1"])
    out = capsys.readouterr().out
    assert "stored   11 of 12 records, 3 leads x 2 s at 100 Hz" in out
    assert "1  truncated_signal" in out
    assert f"ecgfast split {store} --by patient" in out
    main(["split", store, "--by", "patient", "--fractions", "0.5,0.25,0.25", "--seed", "3"])
    assert "train" in capsys.readouterr().out
    main(["validate", store, "--json", str(tmp_path / "v.json")])
    assert "11 records without an issue" in capsys.readouterr().out
    summary = json.loads((tmp_path / "v.json").read_text())
    assert (summary["records"], summary["patients"], summary["faults"]) == (11, 6, [])
    for words, code in [
        (["convert", str(tmp_path / "none"), store], 3),
        (["convert", str(src), store, "--policy", "nonsense=keep"], 3),
        (["convert", str(src), store, "--leads", "I,MLII"], 2),
        (["split", store, "--fractions", "1,1,1"], 3),
        (["validate", str(src)], 3),
        (["inspect", str(src / "r3.hea")], 3),
    ]:
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == code, words
        assert "error" in capsys.readouterr().err


def test_validate_finds_a_flipped_bit_in_a_store(tmp_path):
    for n in range(3):
        write(tmp_path / "src", f"r{n}", make(n))
    convert([tmp_path / "src"], tmp_path / "store", Plan(signal=SHORT))
    shard = tmp_path / "store" / "signals-00000.npy"
    edit(shard, lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:])
    (fault,) = validate(ECGStore.open(tmp_path / "store")).faults
    assert "1 of 3 records" in fault
    assert "r2 (other samples than its sha256)" in fault
    os.truncate(shard, 1000)
    with pytest.raises(DataError, match="corrupt_store"):
        ECGStore.open(tmp_path / "store").read(0)
