"""Files without headers, archives, what records are called, and help that loads nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
import scipy.io

from ecgfast.config import LEADS, Signal
from ecgfast.data.convert import Plan, convert
from ecgfast.data.records import DataError
from ecgfast.data.sources import Reading, find
from ecgfast.data.store import ECGStore

SHORT = Signal(fs=100, seconds=2)
FS, T = 200, 400


def make(seed: int) -> np.ndarray:
    """SYNTHETIC walks (12, T) in mV that obey Einthoven."""
    draw = np.random.default_rng(seed)
    one, two, *chest = draw.normal(size=(8, T)).cumsum(axis=1) * 0.03
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.stack([*limb, *chest])


def test_files_without_a_header(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    ecg = make(0)
    scipy.io.savemat(src / "a.mat", {"feats": ecg.astype(np.float32), "idx": 3})
    table = np.column_stack([np.arange(T), np.rint(ecg.T * 200)])
    np.savetxt(src / "b.txt", table, fmt="%d", delimiter=",")
    named = "\n".join([",".join(reversed(LEADS)), *(",".join(map(str, r)) for r in ecg.T[:, ::-1])])
    (src / "c.csv").write_text(named.replace(f"{ecg[11, 7]}", "", 1))
    plain = Signal(fs=FS, seconds=2)
    for kind, how in {
        "mat": {"units": "mV"},
        "text": {"gain": 200.0},
    }.items():
        plan = Plan(signal=plain, reading=Reading(format=kind, fs=FS, **how))
        convert([src], tmp_path / kind, plan)
    mat = ECGStore.open(tmp_path / "mat")
    np.testing.assert_allclose(mat.read(0), ecg, atol=mat.manifest["gain"][0])
    text = ECGStore.open(tmp_path / "text")
    assert text.manifest["record_id"].tolist() == ["b"]
    np.testing.assert_allclose(text.read(0), ecg, atol=1 / 400 + 1e-4)
    rejected = pd.read_csv(tmp_path / "text" / "rejected.csv")
    # an empty cell; and mV, taken for 200 units in a mV, look like volts
    assert rejected["record_id"].tolist() == ["c", "c"]
    assert rejected["issue"].tolist() == ["nan_values", "unit_suspect"]
    with pytest.raises(DataError, match="no_records"):
        find([tmp_path / "text"], Reading())


def test_an_archive_is_read_as_a_stream_and_its_bad_members_are_named(tmp_path):
    archive = tmp_path / "set.tar.xz"
    rows = io.StringIO()
    np.savetxt(rows, make(0).T, fmt="%.4f", delimiter=",")
    with tarfile.open(archive, "w:xz") as tar:
        for name, text in {
            "set/good.txt": rows.getvalue(),
            "../../evil.txt": rows.getvalue(),
            "/abs.txt": rows.getvalue(),
            "set/words.txt": "no numbers here\nat all\n",
            "set/empty.txt": "",
            "set/readme.md": "not asked for",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("set/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    plan = Plan(signal=SHORT, reading=Reading(format="text", fs=FS, units="mV"))
    outcome = convert([archive], tmp_path / "store", plan)
    assert outcome.manifest["record_id"].tolist() == ["good"]
    rejected = pd.read_csv(tmp_path / "store" / "rejected.csv")
    reasons = dict(zip(rejected["record_id"], rejected["issue"], strict=True))
    assert reasons == {
        "evil": "unsafe_path",
        "abs": "unsafe_path",
        "words": "unreadable",
        "empty": "empty_file",
    }


def test_an_archive_that_unfolds_without_end_is_refused(tmp_path):
    archive = tmp_path / "bomb.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        member = tarfile.TarInfo("set/zeros.txt")
        member.size = 100 << 20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(DataError, match=r"size_limit.*unfolds"):
        find([archive], Reading(format="text"))


def test_records_of_one_name_get_ids_that_differ(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.hea").write_text("same 1 250 10\n")
        (tmp_path / folder / f"own_{folder}.hea").write_text("own 1 250 10\n")
    ids = [item.record_id for item in find([tmp_path], Reading())]
    assert ids == ["own_a", "a/same", "own_b", "b/same"]
    ids = [item.record_id for item in find([tmp_path / "a", tmp_path / "b"], Reading())]
    assert ids == ["own_a", "a/same", "own_b", "b/same"]


@pytest.mark.parametrize("verb", ["convert", "validate", "split", "inspect"])
def test_help_loads_neither_numpy_nor_pandas(verb):
    code = f"""if True:
        import sys
        from ecgfast.cli import main
        try:
            main(["{verb}", "--help"])
        except SystemExit as end:
            assert not {{"torch", "numpy", "pandas", "wfdb"}} & set(sys.modules)
            sys.exit(end.code)
    """
    done = subprocess.run([sys.executable, "-P", "-c", code], stdout=subprocess.DEVNULL)
    assert done.returncode == 0
