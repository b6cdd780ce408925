"""ecgfast neighbours: it goes on where it was killed, and says what it cannot do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.neighbours import read_neighbours
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import quantise
from ecgfast.data.store_writer import StoreWriter
from ecgfast.data.synthetic import write_cohort
from ecgfast.miners.distance import InputDistance
from ecgfast.systems import neighbours
from ecgfast.transforms.signal import Prepare

SMALL = ["--signal.fs", "100", "--signal.seconds", "2", "--k", "4", "--block", "8"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(out, 30, signal=Signal(fs=100, seconds=2), seed=0)
    return str(out)


def run(*words):
    main(["neighbours", *words, *SMALL])


def refused(capsys, *words):
    with pytest.raises(SystemExit) as left:
        run(*words)
    return left.value.code, capsys.readouterr().err


def test_a_store_gets_its_graph(store, tmp_path, capsys):
    run(store, "--out", str(tmp_path / "g"), "--label", "mpcwp")
    text = capsys.readouterr().out
    graph = read_neighbours(tmp_path / "g")
    opened = ECGStore.open(store)
    kept = opened.select(("all",))
    assert graph.record_id.tolist() == opened.manifest["record_id"].iloc[kept].tolist()
    ecg = torch.from_numpy(np.stack([opened.read(i) for i in kept]))
    made = InputDistance("dtw", cost="l1", radius=25, resample=(1, 2))
    distances = made(Prepare(fs=100, band=(0.5, 40.0))(ecg)).fill_diagonal_(torch.inf)
    reached = distances.gather(1, torch.from_numpy(graph.nearest))
    expected = distances.sort(dim=1).values[:, :4]
    # a store's steps become millivolts in one place here, in another there: float32
    torch.testing.assert_close(reached, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(graph.distances), expected, rtol=1e-4, atol=1e-4)
    about = json.loads((tmp_path / "g" / "neighbours.json").read_text())
    assert about["counts"]["records"] == len(kept)
    assert about["settings"]["stores"] == [store]
    assert about["synthetic"]
    for words in ("SYNTHETIC", "same patient", "of mpcwp", "same side of 18", "largest hub"):
        assert words in text
    assert not (tmp_path / "g" / ".unfinished").exists()

    before = (tmp_path / "g" / "neighbours.safetensors").stat().st_mtime_ns
    run(store, "--out", str(tmp_path / "g"))
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert (tmp_path / "g" / "neighbours.safetensors").stat().st_mtime_ns == before
    code, message = refused(capsys, store, "--out", str(tmp_path / "g"), "--distance", "l1")
    assert code == 2
    assert "holds another graph; 1 settings differ" in message
    assert "distance: dtw there, l1 here" in message


def test_killed_it_goes_on(store, tmp_path, capsys):
    words = [store, "--distance", "mean_l1", "--block", "1"]
    run(*words[:3], "--out", str(tmp_path / "whole"))
    cut = tmp_path / "cut"
    command = [sys.executable, "-P", "-m", "ecgfast", "neighbours", *words]
    command += [*SMALL[:-2], "--out", str(cut), "--save_every", "0"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    state, until = cut / ".unfinished" / "state.safetensors", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not state.exists():
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (cut / "neighbours.json").exists()
    done = safe_open(str(state), framework="pt").metadata()["done"]
    main(["neighbours", *words, *SMALL[:-2], "--out", str(cut)])
    assert f"goes on after {done} of" in capsys.readouterr().out
    one, other = (read_neighbours(tmp_path / name) for name in ("whole", "cut"))
    for name in ("nearest", "distances", "farthest", "far_distances", "record_id"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_another_graph_is_not_gone_on_with(store, tmp_path, capsys, monkeypatch):
    def stopped(*words, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(neighbours, "grow", stopped)
    out = ["--out", str(tmp_path / "g")]
    with pytest.raises(SystemExit) as left:
        run(store, *out)
    assert left.value.code == 130
    monkeypatch.undo()
    code, message = refused(capsys, store, *out, "--mine_fs", "25")
    assert code == 2
    assert "mine_fs: 50.0 there, 25.0 here" in message
    run(store, *out)
    assert (tmp_path / "g" / "neighbours.json").exists()


def test_gaps_and_copies_have_no_neighbours(tmp_path, capsys):
    ecg = np.random.default_rng(0).normal(size=(9, 12, 200)).astype(np.float32)
    ecg[4] = ecg[2]
    ecg[7, 3, 50:60] = np.nan
    path = tmp_path / "store"
    writer = StoreWriter(path, Signal(fs=100, seconds=2))
    for row, record in enumerate(ecg):
        writer.add_steps(*quantise(record), record_id=f"r{row}", keep_duplicates=True)
    writer.close()
    run(str(path), "--out", str(tmp_path / "g"))
    text = capsys.readouterr().out
    assert "1 records with missing samples have no neighbours" in text
    assert "1 records are copies of another" in text
    graph = read_neighbours(tmp_path / "g")
    assert (graph.nearest[7] == -1).all()
    assert not (graph.nearest == 7).any()
    assert 4 not in graph.nearest[2]
    assert 2 not in graph.nearest[4]


STAGE = ["--distance", "embedding", "--stage", "runs/x"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "--out", "g"], 3, "nowhere is no store"),
        (["STORE", "--out", "g", "--label", "nothing"], 2, "no column 'nothing'; there are"),
        (["STORE", "--out", "g", "--signal.fs", "250"], 3, "fs"),
        (["STORE", "--out", "g", "--mine_fs", "300"], 2, "mine_fs must be in"),
        (["STORE", "--out", "g", "--k", "0"], 2, "k must be 1 or more"),
        (["STORE", "--out", "g", "--splits", "nobody"], 3, "no split nobody"),
        (["STORE", "--out", "g", "--limit", "1"], 2, "has no neighbour"),
        (["STORE", "--out", "g", "--distance", "embedding"], 2, "stage RUN go together"),
        (["STORE", "--out", "g", "--mine_zscore", "true", *STAGE], 2, "leave mine_zscore out"),
        (["STORE"], 2, "out"),
        (["STORE", "--out", "g", "--distanse", "l1"], 2, "did you mean"),
    ],
)
def test_says_what_it_cannot_do(store, tmp_path, capsys, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    given = [store if word == "STORE" else word for word in words]
    with pytest.raises(SystemExit) as left:
        main(["neighbours", given[0], *SMALL, *given[1:]])
    assert left.value.code == code
    assert message in capsys.readouterr().err


def test_median_beats_find_the_patient(tmp_path):
    how = ("--patients", "60", "--signal.fs", "100", "--mine_fs", "null", "--dtw_radius", "0.03")
    for zscore in ("false", "true"):
        out = tmp_path / zscore
        words = ["--mine_of", "beat", "--mine_zscore", zscore]
        main(["neighbours", "--out", str(out), *words, *how])
        about = json.loads((out / "neighbours.json").read_bytes())
        assert about["settings"]["mine_of"] == "beat"
        assert about["purity"]["same_patient"]["share"] > 0.8
