"""Real echocardiograms all the way: converted, pretrained on, fine-tuned, swept, used.

Three clips of three patients teach nothing: what is tested is that everything runs on them, and
that what comes out is of the right videos. Their sources are in docs/echo.md.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.source import open_source
from ecgfast.systems.embed import open_embeddings
from ecgfast.systems.model import load
from python_tests.conftest import shared_data

pytest.importorskip("imagecodecs", reason="one clip is JPEG XL: pip install 'ecgfast[echo]'")
FLOW = {"a4c": 0, "alax": 1, "plax": 1}  # whether it shows flow in colours
SMALL = ["--fit.steps", "2", "--fit.batch_size", "4", "--fit.progress", "false"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def folder():
    return shared_data("echo-dicom")


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("real")
    names = sorted(file.stem for file in folder.glob("*.dcm"))
    clips = [name for name in names if not name.startswith("still")]
    table = pd.DataFrame({"record_id": clips})
    table["flow"] = [FLOW[name.split("_")[0]] for name in clips]
    table["frames_known"] = [float(name.split("fr_")[0].rsplit("_", 1)[1]) for name in clips]
    table.to_csv(path / "labels.csv", index=False)
    words = ["--modality", "echo", "--size", "32", "--doppler", "keep"]
    words += ["--labels", str(path / "labels.csv"), "--workers", "0"]
    main(["convert", str(folder), str(path / "store"), *words])
    table = pd.read_parquet(path / "store" / "manifest.parquet")
    # by hand: a draw of three patients may leave a part empty
    table["split"] = table["flow"].astype(int).map({0: "train", 1: "train"})
    table.loc[table["record_id"].str.startswith("plax"), "split"] = "test"
    table.to_parquet(path / "store" / "manifest.parquet")
    return path / "store"


@pytest.fixture(scope="module")
def pretrained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pre"
    words = ["--config", "debug", "--data.paths", f"[{store}]", "--data.splits", "[all]"]
    main(["pretrain", "echoclr", *words, *SMALL, "--encoder.step", "1", "--fit.out", str(out)])
    return out


@pytest.fixture(scope="module")
def tuned(store, pretrained, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tuned"
    words = ["--init", str(pretrained), "--data.paths", f"[{store}]", "--label", "flow"]
    words += ["--task", "classification", "--clip.frames", "8", "--hidden", "0"]
    words += ["--validation", "", "--keep", "last", "--fit.out", str(out), *SMALL]
    main(["finetune", *words])
    return out


def test_clips_are_stored_and_stills_are_not(store):
    table = pd.read_parquet(store / "manifest.parquet")
    assert table["record_id"].str.split("_").str[0].tolist() == ["a4c", "alax", "plax"]
    assert table["frames"].tolist() == table["frames_known"].tolist() == [30, 27, 10]
    rejected = pd.read_csv(store / "rejected.csv")
    assert rejected["record_id"].str.startswith("still").all()
    assert rejected["issue"].tolist() == ["single_frame", "single_frame"]


def test_pretraining_sees_the_training_part_alone(store, pretrained):
    contract = load(pretrained).contract
    assert not contract.synthetic
    names = pd.read_parquet(store / "manifest.parquet")["record_id"]
    assert contract.trained_on.hold(names).tolist() == [True, True, False]


def test_files_are_scored_as_those_of_the_store(folder, store, tuned, tmp_path):
    words = ["--policy", "colour_doppler=keep", "--json", str(tmp_path / "files.json")]
    main(["predict", str(tuned), str(folder), *words])
    main(["predict", str(tuned), str(store), "--json", str(tmp_path / "store.json")])
    files, stored = (
        {row["record_id"]: row for row in json.loads((tmp_path / name).read_text())["records"]}
        for name in ("files.json", "store.json")
    )
    assert len(stored) == 3
    for name, row in stored.items():
        assert files[name]["probability"] == pytest.approx(row["probability"], abs=1e-6)
    assert [row["error"] for name, row in files.items() if name not in stored] == 2 * [
        "single_frame"
    ]


def test_flow_in_colours_is_not_taken_for_grey_unless_told(folder, tuned, tmp_path):
    main(["predict", str(tuned), str(folder), "--json", str(tmp_path / "p.json")])
    rows = json.loads((tmp_path / "p.json").read_text())["records"]
    errors = {row["record_id"].split("_")[0]: row["error"] for row in rows}
    assert errors["alax"] == errors["plax"] == "colour_doppler"
    assert errors["a4c"] is None


def test_embeddings_of_files_are_those_of_the_store(folder, store, pretrained, tmp_path):
    main(["embed", str(pretrained), "--store", str(store), "--out", str(tmp_path / "s")])
    words = ["--policy", "colour_doppler=keep", "--out", str(tmp_path / "f")]
    main(["embed", str(pretrained), str(folder), *words])
    model = load(pretrained)
    stored, files = (open_embeddings(tmp_path / name, model) for name in "sf")
    assert stored.rows.shape == (3, 32)
    place = {name: row for name, row in zip(files.table["record_id"], files.rows, strict=True)}
    for name, row in zip(stored.table["record_id"], stored.rows, strict=True):
        np.testing.assert_allclose(place[name], row, rtol=1e-5, atol=1e-6)
    apart = np.linalg.norm(stored.rows[:, None] - stored.rows[None], axis=2)
    assert (apart[~np.eye(3, dtype=bool)] > 0).all()


def test_a_sweep_of_labels_runs(store, pretrained, tmp_path):
    words = ["--init", f"pre={pretrained}", "random@full", "--label", "frames_known"]
    words += ["--task", "regression", "--data.paths", str(store), "--fractions", "1"]
    words += ["--clip.frames", "4", "--seeds", "1", "--validation", "", "--fit.steps", "2"]
    main(["labeleff", *words, "--bootstrap", "20", "--out", str(tmp_path / "sweep")])
    for name in ("pre", "random-full"):
        cell = json.loads((tmp_path / "sweep" / "cells" / name / "1-seed0.json").read_text())
        assert np.isfinite(cell["metrics"]["mae"])
        assert cell["records"] == 2


def test_a_source_of_them_is_read_by_moments(store):
    source = open_source([str(store)], ("all", "test"), signal=Signal(), patients=1)
    clips = source.windows(frames=4, count=2).dataset.batch([0, 1, 2])["ecg"]
    assert clips.shape == (3, 1, 8, 32, 32)
    assert (clips.float().flatten(1).std(dim=1) > 5).all()
