"""`ecgfast labeleff`: whole sweeps, stopped ones, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.cli.labeleff import gathered
from ecgfast.config import Encoder, Signal
from ecgfast.config.labeleff import Config, start_of
from ecgfast.data.source import open_source
from ecgfast.data.split import by_random
from ecgfast.data.store import ECGStore
from ecgfast.data.store_format import write_manifest
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.tables import read_table
from ecgfast.report.label_efficiency import ratios
from ecgfast.systems import label_starts
from ecgfast.systems.parts import make_encoder
from ecgfast.train.checkpoint import load_contract, save_encoder
from ecgfast.train.contract import Contract, Records
from python_tests.conftest import shared_data

SIGNAL = Signal(seconds=2.0, fs=100.0)
TINY = ["--signal.fs", "100", "--signal.seconds", "2", "--encoder.width", "4"]
TINY += ["--encoder.embedding_dim", "8", "--bootstrap", "40", "--seeds", "2"]
TINY += ["--fit.steps", "3", "--fit.batch_size", "8", "--fit.accelerator", "cpu"]
TINY += ["--full.hidden", "4", "--neighbours.fs", "50"]
CLASS = ["--task", "classification", "--threshold", "18"]
SHARES = ["--fractions", "0.01", "0.3", "1"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, 80, signal=SIGNAL, seed=3)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Pretrainings of two seeds, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        make_run(folder / f"ssl-{seed}", seed)
    return folder


def make_run(folder, seed, *, signal=SIGNAL, seen=("elsewhere",), task=None):
    torch.manual_seed(seed)
    encoder, model = make_encoder(Encoder(width=4, embedding_dim=8), signal, None)
    contract = Contract(
        signal=signal, model=model, synthetic=True, trained_on=Records.of(seen), task=task
    )
    folder.mkdir(parents=True)
    save_encoder(folder, encoder.state_dict(), contract)
    return folder


def sweep(store, out, *words):
    main(["labeleff", "--data.paths", str(store), "--out", str(out), *TINY, *map(str, words)])
    return json.loads(
        (out / "labeleff.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} in labeleff.json"),
    )


def fails(capsys, store, out, *words) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        sweep(store, out, *words)
    return left.value.code, capsys.readouterr().err


def cells(out):
    found = [json.loads(path.read_text()) for path in sorted((out / "cells").rglob("*.json"))]
    return {(c["start"], c["fraction"], c["seed"]): c for c in found}


@pytest.fixture(scope="module")
def whole(store, runs, tmp_path_factory):
    """One sweep of every kind of start, never stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, sweep(store, out, *CLASS, *SHARES, *starts(runs))


def starts(runs):
    words = ["--init", f"ssl={runs}/ssl-{{seed}}", "supervised=random@full", "random"]
    return [*words, "--init", f"probe={runs}/ssl-0,{runs}/ssl-1@probe", "--init=dtw-knn"]


def test_random_weights_have_the_shape_of_the_first_run_and_the_dropout_asked_for(store, runs):
    config = Config(label="mpcwp", encoder=Encoder(dropout=0.3))
    train = open_source([str(store)], ("train",), signal=SIGNAL, patients=0)
    contracts = {"first": load_contract(runs / "ssl-0")}
    network = label_starts.network_of(config, contracts, train)
    assert network.encoder == Encoder(width=4, embedding_dim=8, dropout=0.3)


def test_sweeps_of_other_labels_share_embeddings_and_distances(store, runs, tmp_path):
    kept = ["--keep", tmp_path / "kept", "--fractions", "1", "--init", f"ssl={runs}/ssl-0"]
    kept += ["--init", "dtw-knn"]
    one = sweep(store, tmp_path / "one", *CLASS, *kept)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npz")}
    assert {path.relative_to(tmp_path).parts[1] for path in files} == {"embeddings", "distances"}
    other = sweep(store, tmp_path / "other", "--label", "lvef", *kept)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npz")}
    assert again == files
    assert (one["label"], other["label"]) == ("mpcwp", "lvef")
    assert not (tmp_path / "other" / "embeddings").exists()


def test_every_start_sees_the_same_nested_patients(whole, store):
    out, facts = whole
    subsets = json.loads((out / "subsets.json").read_text())["subsets"]
    assert set(subsets) == {"0", "1"}
    for shares in subsets.values():
        one, some, every = (set(shares[name]) for name in ("0.01", "0.3", "1"))
        assert one < some < every
        assert len(one) == 2
    found = cells(out)
    assert len(found) == 5 * 3 * 2
    for fraction in (0.01, 0.3, 1.0):
        for seed in range(2):
            mine = [c for k, c in found.items() if k[1:] == (fraction, seed)]
            assert len({c["settings"]["records"] for c in mine}) == 1
            assert {c["patients"] for c in mine} == {len(subsets[str(seed)][f"{fraction:g}"])}
    assert (
        found["ssl", 0.01, 0]["settings"]["records"]
        != (found["ssl", 0.01, 1]["settings"]["records"])
    )
    # a pretraining for each seed, and the same ones under another name
    weights = {k: c["settings"].get("weights") for k, c in found.items()}
    assert weights["ssl", 1.0, 0] == weights["probe", 1.0, 0] != weights["ssl", 1.0, 1]
    manifest = ECGStore.open(store).manifest
    test = manifest[(manifest["split"] == "test") & manifest["mpcwp"].notna()]
    assert facts["test"]["records"] == len(test)
    assert facts["test"]["positives"] == int((test["mpcwp"] > 18).sum())


def test_the_numbers_are_those_of_the_kept_scores(whole):
    from sklearn.metrics import roc_auc_score

    out, facts = whole
    for start in ("ssl", "supervised", "dtw-knn"):
        row = next(
            r
            for r in facts["rows"]
            if (r["start"], r["fraction"], r["metric"]) == (start, 0.3, "auroc")
        )
        by_seed = []
        for seed in range(2):
            kept = read_table(out / "cells" / start / f"0.3-seed{seed}.parquet")
            np.testing.assert_array_equal(kept["target"], kept["label"] > 18)
            by_seed.append(roc_auc_score(kept["target"], kept["score"]))
        assert row["values"] == pytest.approx(by_seed)
        assert row["estimate"] == pytest.approx(np.mean(by_seed))
        assert row["patients_lo"] < row["patients_hi"]
    assert {(r["start"], r["reference"]) for r in facts["differences"]} == {
        (name, "ssl") for name in ("supervised", "random", "probe", "dtw-knn")
    }
    same = [r for r in facts["rows"] if r["start"] == "dtw-knn" and r["fraction"] == 1]
    assert {(r["lo"], "gave the same" in r["reason"]) for r in same} == {(None, True)}


def test_files_for_people_say_that_the_data_are_made(whole):
    out, facts = whole
    assert facts["synthetic"] is True
    page = (out / "labeleff.html").read_text()
    assert "SYNTHETIC" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert page.count("data:image/svg+xml") == 2  # both metrics
    assert "SYNTHETIC" in (out / "labeleff.md").read_text()
    for kind, head in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert (out / f"labeleff-auroc.{kind}").read_bytes().startswith(head)
    with (out / "labeleff.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(facts["rows"]) == 5 * 3 * 2
    assert float(lines[0]["estimate"]) == pytest.approx(facts["rows"][0]["estimate"], rel=1e-5)
    assert not list((out / "runs").rglob("*.ckpt"))  # the networks are not kept


def stop(monkeypatch, name, at):
    """Ctrl-C at the so-manieth call of something."""
    inner, count = getattr(label_starts, name), [0]

    def counted(*words, **more):
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return inner(*words, **more)

    monkeypatch.setattr(label_starts, name, counted)
    return count


def test_a_stopped_sweep_goes_on_and_ends_alike(whole, store, runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = [*CLASS, *SHARES, *starts(runs)]
    # in a linear model; in training, which has ended but is not scored; between two distances
    for name, at in (("linear_probe", 4), ("load_run", 3), ("distances", 2)):
        stop(monkeypatch, name, at)
        with pytest.raises(SystemExit) as left:
            sweep(store, out, *words)
        assert left.value.code == 130
        assert "the same command goes on" in capsys.readouterr().err
        monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}
    assert 3 < len(before) < 30
    blocks = {path: path.stat().st_mtime_ns for path in (out / "distances").rglob("*.npz")}
    assert len(blocks) == 1
    capsys.readouterr()
    facts = sweep(store, out, *words)
    assert f"{len(before)} of 30 cells are done" in capsys.readouterr().out
    for path, time in {**before, **blocks}.items():
        assert path.stat().st_mtime_ns == time
    assert (out / "labeleff.csv").read_text() == (whole[0] / "labeleff.csv").read_text()
    for name in ("rows", "differences", "ratios", "subsets_sha256"):
        assert facts[name] == whole[1][name]

    count = [stop(monkeypatch, name, 0) for name in ("linear_probe", "fit", "embed", "distances")]
    assert sweep(store, out, *words)["rows"] == facts["rows"]  # nothing is done twice
    assert count == [[0]] * 4


def test_a_folder_of_something_else_is_refused(whole, store, runs, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    words = [*SHARES, *starts(runs)]
    code, said = fails(capsys, store, out, "--task", "classification", "--threshold", 15, *words)
    assert (code, "threshold: 18.0 there, 15.0 now" in said) == (3, True)
    code, said = fails(capsys, store, out, *CLASS, *words, "--fit.steps", "4")
    assert (code, "other settings (fit.steps: 3 there, 4 now)" in said) == (2, True)
    swapped = [word.replace("ssl-{seed}", "ssl-1") for word in words]
    code, said = fails(capsys, store, out, *CLASS, *swapped)
    assert (code, "cells/ssl/0.01-seed0.json" in said, "weights: " in said) == (2, True, True)
    (out / "cells/ssl/0.3-seed1.json").write_text("{")
    code, said = fails(capsys, store, out, *CLASS, *words)
    assert (code, "0.3-seed1.json cannot be read" in said) == (2, True)
    (out / "cells/ssl/0.3-seed1.json").unlink()
    (out / "subsets.json").write_text((out / "subsets.json").read_text().replace("p0000", "p9990"))
    code, said = fails(capsys, store, out, *CLASS, *words)
    assert (code, "was changed" in said) == (3, True)


def test_a_value_and_several_classes_are_learned_too(store, tmp_path):
    words = ["--init", "random", "head=random@probe", "l1-knn", "--fractions", "0.2", "1"]
    facts = sweep(store, tmp_path / "value", *words, "--metric", "pearson_r")
    assert {r["metric"] for r in facts["rows"]} == {"mae", "rmse", "pearson_r", "r2"}
    assert (facts["metric"], facts["falling"]) == ("pearson_r", False)
    assert facts["test"]["positives"] is None
    kept = read_table(tmp_path / "value/cells/l1-knn/1-seed0.parquet")
    assert 5 < kept["score"].mean() < 40  # mmHg

    named = tmp_path / "named"
    shutil.copytree(store, named)
    manifest = ECGStore.open(named).manifest.copy()
    names = np.array(["low", "middle", "high"])
    third = np.digitize(manifest["mpcwp"], manifest["mpcwp"].quantile([1 / 3, 2 / 3]))
    manifest["band"] = names[third]
    write_manifest(named, manifest)
    more = ["--label", "band", "--task", "multiclass"]
    facts = sweep(named, tmp_path / "several", *words, *more)
    assert {r["metric"] for r in facts["rows"]} == {"auroc_macro"}
    for start in ("random", "head", "l1-knn"):
        kept = read_table(tmp_path / "several/cells" / start / "1-seed0.parquet")
        scores = np.stack([kept[f"score_{name}"] for name in sorted(names)])
        np.testing.assert_allclose(scores.sum(axis=0), 1, rtol=1e-5)


def test_what_cannot_be_compared_is_refused(store, runs, tmp_path, capsys):
    out = tmp_path / "out"

    def said(*words):
        return fails(capsys, store, out, *words)

    code, text = said(*CLASS, "--init", f"a={tmp_path}/nothing")
    assert (code, "is no finished run" in text) == (3, True)
    make_run(tmp_path / "other", 0, signal=Signal(seconds=4.0, fs=100.0))
    code, text = said(*CLASS, "--init", f"a={tmp_path}/other")
    assert (code, "seconds: encoder expects 4.0" in text) == (3, True)
    manifest = ECGStore.open(store).manifest
    seen = manifest["record_id"][manifest["split"] == "test"].tolist()[:3]
    make_run(tmp_path / "seen", 0, seen=seen)
    code, text = said(*CLASS, "--init", f"a={tmp_path}/seen")
    assert (code, "[contamination] 3 of" in text) == (3, True)
    code, text = said("--task", "classification")
    assert (code, "name a --threshold" in text) == (3, True)
    code, text = said("--task", "classification", "--threshold", "900")
    assert (code, "mpcwp > 900: a class needs both kinds" in text) == (3, True)
    code, text = said("--label", "wedge")
    assert (code, "no column 'wedge'" in text) == (3, True)
    code, text = said("--data.splits", "train", "test")
    assert (code, "[split_leak]" in text) == (3, True)
    for words, expected in (
        (["--fractions", "0", "1"], "fractions must lie in (0, 1], got 0"),
        (["--fractions", "1.5"], "fractions must lie in (0, 1], got 1.5"),
        (["--fractions", "0.5", "0.5"], "fractions must differ"),
        (["--init", "runs/x"], "write NAME=RUN for a run"),
        (["--init", "a=x", "a=y"], "init names a more than once"),
        (["--init", "../a=x"], "becomes a folder"),
        (["--init", "dtw-knn@full"], "learns nothing"),
        (["--init", "a=x,y", "--seeds", "3"], "a has 2 runs for 3 seeds"),
        (["--reference", "b"], "reference b is none of"),
        (["--fit.devices", "2"], "fit.devices must be 1"),
        (["--metric", "auroc"], "metric must be one of mae"),
        (["--threshold", "18"], "threshold belongs to task=classification"),
    ):
        code, text = said(*words)
        assert (code, expected in text) == (2, True), text
    assert not out.exists()


def test_a_run_that_has_learned_from_labels_is_noted(store, tmp_path):
    task = {"kind": "regression", "label": "mpcwp", "threshold": None, "mean": 1.0, "sd": 1.0}
    make_run(tmp_path / "tuned", 0, task={**task, "dropout_at_test": False})
    facts = sweep(
        store, tmp_path / "out", *CLASS, "--init", f"a={tmp_path}/tuned", "--fractions", "1"
    )
    assert "has learned from labels already" in facts["notes"][0]
    assert facts["differences"] == facts["ratios"] == []


def test_words_of_a_start_and_a_list_of_them():
    start = start_of("ssl=runs/a,runs/b@full", "logistic")
    assert start == ("ssl", ("runs/a", "runs/b"), "full")
    assert [start.run(seed) for seed in (0, 1)] == ["runs/a", "runs/b"]
    assert start_of("x=runs/x-{seed}", "probe").run(3) == "runs/x-3"
    assert start_of("x=user@host", "probe").runs == ("user@host",)
    assert start_of("random@full", "probe").name == "random-full"
    assert start_of("euclidean-knn", "probe").distance == "euclidean"
    assert gathered(["--init", "a=x,y", "b=z", "--seeds", "2", "--init=random"]) == (
        ["--seeds", "2", "--init", '["a=x,y", "b=z", "random"]']
    )
    assert gathered(["--init", "[random]"]) == ["--init", "[random]"]
    assert gathered(["--seeds", "2"]) == ["--seeds", "2"]
    assert [s.name for s in Config(init=("random", "a=x")).starts()] == ["random", "a"]


def test_settings_come_from_a_file_too(store, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        f"data: {{paths: [{store}]}}\ninit: [random, a=random@logistic]\nfractions: [1.0]\n"
        "seeds: 1\nsignal: {fs: 100, seconds: 2}\nencoder: {width: 4, embedding_dim: 8}\n"
        f"task: classification\nthreshold: 18\nbootstrap: 20\nout: {tmp_path}/out\n"
    )
    main(["labeleff", "--config", str(tmp_path / "mine.yaml")])
    facts = json.loads((tmp_path / "out/labeleff.json").read_text())
    assert [start["name"] for start in facts["starts"]] == ["random", "a"]
    assert {row["estimate"] for row in facts["differences"]} == {0}
    said = capsys.readouterr().out
    assert "1 with" not in said  # one share makes no curve
    assert "AUROC, mean of 1 seeds" in said


def test_ratios_are_told_in_words():
    def row(share, state, at=None, lo=None, hi=None):
        row = {"a": "ssl", "b": "scratch", "metric": "auroc", "value": 0.7, "state": state}
        return {**row, "b_fraction": share, "a_fraction": at, "lo": lo, "hi": hi}

    assert ratios(
        [
            row(0.01, "at the smallest"),
            row(0.05, "at the smallest"),
            row(0.1, "reached", 0.0123, 0.004, "not reached"),
            row(0.5, "reached", 0.2),
            row(1.0, "not reached"),
        ]
    ) == [
        "ssl is better than scratch with 1 %, 5 % with its smallest share already",
        "ssl with 1.2 % [0.4 %, not reached] equals scratch with 10 % (AUROC 0.700)",
        "ssl with 20 % equals scratch with 50 % (AUROC 0.700)",
        "ssl reaches scratch with 100 % with none of its shares",
    ]


def test_real_records_go_through(tmp_path, capsys):
    data = shared_data("ptb-xl-500")
    paths = [line for line in (data / "RECORDS100").read_text().splitlines() if line][::8]
    (tmp_path / "records").write_text("\n".join(paths))
    store = tmp_path / "store"
    convert = ["convert", str(data), str(store), "--records", str(tmp_path / "records")]
    main([*convert, "--fs", "100", "--seconds", "10", "--workers", "0"])
    manifest = ECGStore.open(store).manifest.copy()
    manifest["split"] = by_random(manifest, fractions=(0.6, 0.1, 0.3), seed=0)
    write_manifest(store, manifest)
    facts = sweep(
        *(store, tmp_path / "out", "--signal.seconds", "10", "--label", "sex"),
        *("--task", "classification", "--init", "random", "dtw-knn", "--fractions", "0.2", "1"),
        *("--neighbours.fs", "25", "--neighbours.radius", "0.2"),
    )
    assert facts["synthetic"] is False
    assert "SYNTHETIC" not in capsys.readouterr().out
    assert "SYNTHETIC" not in (tmp_path / "out/labeleff.html").read_text()
    assert all(0 <= row["estimate"] <= 1 for row in facts["rows"])
