"""`finetune --task survival`: from a time and an event to hazards, and what it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import ecgfast
from ecgfast.cli import main
from ecgfast.cli.parser import RECIPES
from ecgfast.config import Signal
from ecgfast.data.source import open_source
from ecgfast.data.synthetic import make_cohort, write_cohort
from ecgfast.systems.predict import predict
from ecgfast.train.contract import ContractError

SIGNAL = Signal(fs=100.0, seconds=2.0, band=(1.0, 30.0))
SMALL = ["--encoder.width", "4", "--encoder.embedding_dim", "8", "--hidden", "3"]
SMALL += ["--fit.batch_size", "8", "--fit.progress", "false", "--fit.steps"]
# the cohort's age as a time and its sex as an event: both are known of everybody
TIMED = ["finetune", "--task", "survival", "--label", "age", "--event", "sex"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(path, 40, signal=SIGNAL, seed=0)
    return path


def told(store, out, *words, steps=4):
    signal = ["--signal.fs", "100", "--signal.seconds", "2", "--signal.band", "[1, 30]"]
    data = ["--data.paths", f"[{store}]"]
    main([*TIMED, *signal, *data, *SMALL, str(steps), "--fit.out", str(out), *map(str, words)])
    return out


def fails(capsys, store, out, *words):
    with pytest.raises(SystemExit) as left:
        told(store, out, *words)
    return left.value.code, capsys.readouterr().err


def changed(store, path, change):
    """The store with another manifest."""
    write_cohort(path, 40, signal=SIGNAL, seed=0)
    table = pd.read_parquet(path / "manifest.parquet")
    change(table)
    table.to_parquet(path / "manifest.parquet")
    return path


@pytest.mark.parametrize("hazard", ["cox", "discrete"])
def test_a_run_gives_hazards(store, tmp_path, hazard):
    run = told(store, tmp_path / "run", "--hazard", hazard, "--intervals", "5")
    contract = json.loads((run / "contract.json").read_text())
    task = contract["task"]
    assert (task["kind"], task["label"], task["event"]) == ("survival", "age", "sex")
    assert contract["head"]["class"] == "RiskHead"
    log = pd.read_csv(run / "metrics.csv")
    assert {"val_loss", "val_c_index"} <= set(log)
    assert log["val_c_index"].dropna().between(0, 1).all()

    found = predict(run, store)
    table = pd.read_parquet(store / "manifest.parquet").set_index("record_id")
    mine = table.loc[found["record_id"]]
    np.testing.assert_allclose(np.abs(found["label"]), mine["age"], rtol=1e-6)
    np.testing.assert_array_equal(found["label"] > 0, mine["sex"] == 1)
    assert found["score"].shape == (len(mine),)
    model = ecgfast.load(run)
    source = open_source([str(store)], ("test",), signal=SIGNAL, patients=0)
    ecg = torch.from_numpy(np.stack([source.millivolts(row) for row in range(len(source))]))
    said = model(ecg)
    torch.testing.assert_close(said["score"], torch.from_numpy(found["score"]))
    if hazard == "cox":
        assert task["edges"] is None
        assert "survival" not in found
        return
    assert 2 <= len(task["edges"]) <= 5
    assert task["edges"][-1] == found_events(store).max()
    torch.testing.assert_close(said["survival"], torch.from_numpy(found["survival"]))
    assert (np.diff(found["survival"], axis=1) <= 0).all()


def found_events(store):
    source = open_source(
        [str(store)], ("train",), signal=SIGNAL, patients=0, label="age", event="sex"
    )
    labels = source.labels()
    return labels[labels > 0].astype(np.float32)


def test_hazards_of_intervals_begin_at_the_life_table(store, tmp_path):
    """After a step at a rate of nothing, survival of all is that of the training part."""
    run = told(store, tmp_path / "run", "--hazard", "discrete", "--optim.lr", "1e-12", steps=1)
    contract = json.loads((run / "contract.json").read_text())
    edges = np.array(contract["task"]["edges"])
    table = pd.read_parquet(store / "manifest.parquet").query("split == 'train'")
    age, event = table["age"].to_numpy(np.float32), table["sex"].to_numpy() == 1
    begins = np.concatenate([[0], edges[:-1]])
    share = [
        (event & (age > begin) & (age <= end)).sum() / (age > begin).sum()
        for begin, end in zip(begins, edges, strict=True)
    ]
    found = ecgfast.load(run).network.head.out.bias.sigmoid().detach().numpy()
    np.testing.assert_allclose(found, np.clip(share, 1e-6, 0.999), rtol=1e-3)


def test_a_share_of_the_patients_keeps_the_share_of_events(store):
    source = open_source(
        [str(store)], ("train",), signal=SIGNAL, patients=0, label="age", event="sex"
    )
    half = source.fraction(0.5, seed=0, label="sex")
    assert abs((half.labels() > 0).mean() - (source.labels() > 0).mean()) < 0.1


def test_an_unknown_event_leaves_the_record_out_and_says_so(tmp_path, store, capsys):
    path = changed(
        store, tmp_path / "other", lambda t: t.__setitem__("sex", t["sex"].astype(float))
    )
    table = pd.read_parquet(path / "manifest.parquet")
    table.loc[table.index[:3], "sex"] = np.nan
    table.to_parquet(path / "manifest.parquet")
    words = {"signal": SIGNAL, "patients": 0, "label": "age"}
    with_event = open_source([str(path)], ("all", "test"), event="sex", **words)
    everyone = open_source([str(path)], ("all", "test"), **words)
    assert len(everyone) - len(with_event) == with_event.unseen == 3
    told(path, tmp_path / "run", steps=1)
    train = table["split"].iloc[:3].eq("train").sum()
    assert train
    said = f"note: {train} records of the training part have age and are left out: nothing is"
    assert said in capsys.readouterr().out
    batch = with_event.dataset.batch([0, 5])
    assert batch["label"].tolist() == pytest.approx(with_event.labels()[[0, 5]].tolist())


def test_an_event_written_as_text_is_the_number_that_it_says(tmp_path, store):
    path = changed(store, tmp_path / "other", lambda t: t.__setitem__("sex", t["sex"].astype(str)))
    words = {"signal": SIGNAL, "patients": 0, "label": "age", "event": "sex"}
    ours, numbers = (open_source([str(p)], ("train",), **words) for p in (path, store))
    assert (numbers.labels() > 0).any()
    assert ours.labels().tolist() == numbers.labels().tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.__setitem__("sex", 0), "none of .* training records has an event"),
        (lambda t: t.loc.__setitem__((t["split"] == "val", "sex"), 0), "of .* validation records"),
        (lambda t: t.loc.__setitem__((t.index[4], "age"), 0.0), "age must be a time over 0, got 0"),
        (lambda t: t.loc.__setitem__((t.index[4], "age"), -3.0), "got -3.0 in record .*1 of"),
        (lambda t: t.loc.__setitem__((t.index[4], "sex"), 2), r"sex must be 0 \(censored\) or 1"),
        (
            lambda t: t.__setitem__("patient_id", "one"),
            "patients have records in the training part",
        ),
        (lambda t: t.drop(columns="sex", inplace=True), "the records have no column 'sex'"),
    ],
)
def test_tables_that_say_nothing_are_refused(store, tmp_path, capsys, change, message):
    path = changed(store, tmp_path / "other", change)
    code, said = fails(capsys, path, tmp_path / "run")
    assert code == 3
    assert re.search(message, said), said
    assert not (tmp_path / "run/contract.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--event", ""], "name the column of 0 and 1 with --event"),
        (["--event", "age"], "event another column"),
        (["--intervals", "1"], "intervals must lie in"),
        (["--class_weight", "balanced"], "class_weight belongs to"),
        (["--task", "regression"], "event belongs to task=survival"),
        (["--dropout_at_test", "true"], "not of survival"),
        (["--reconstruction", "1"], "the decoder belongs to dual_attention"),
        (["--reconstruction", "1", "--freeze", "true"], "which freeze holds still"),
    ],
)
def test_words_that_do_not_go_together_are_refused(store, tmp_path, capsys, words, message):
    code, said = fails(capsys, store, tmp_path / "run", *words)
    assert code == 2
    assert message in said


def test_the_cohort_of_the_recipe_has_events_in_every_part():
    """`finetune --config survival` alone must train on SYNTHETIC records and have a test."""
    words = yaml.safe_load((RECIPES / "finetune/survival.yaml").read_text())
    _, columns = make_cohort(words["data"]["patients"], signal=Signal(fs=50, seconds=0.2), seed=0)
    events = pd.DataFrame(columns).groupby("split")[words["event"]].sum()
    assert (events[["train", "val", "test"]] >= 5).all()


def test_all_events_at_one_time_have_no_intervals(store, tmp_path, capsys):
    path = changed(store, tmp_path / "other", lambda t: t.__setitem__("age", 60.0))
    code, said = fails(capsys, path, tmp_path / "run", "--hazard", "discrete")
    assert code == 3
    assert "intervals of time need two times" in said
    told(path, tmp_path / "cox")  # ties everywhere are no trouble to Cox's loss


def test_the_published_fit_draws_the_signal_too(store, tmp_path):
    words = ["--data.paths", f"[{store}]", "--signal.fs", "100", "--signal.seconds", "2"]
    words += ["--signal.band", "[1, 30]", "--signal.normalise", "lead", "--fit.steps", "2"]
    words += ["--encoder.net", "dual_attention", "--encoder.mode", "faithful"]
    words += ["--fit.batch_size", "8", "--fit.progress", "false", "--fit.log_every", "1"]
    main([*TIMED, *words, "--reconstruction", "1", "--fit.out", str(tmp_path / "run")])
    log = pd.read_csv(tmp_path / "run/metrics.csv")
    both = log["label_loss"] + log["reconstruction"]
    np.testing.assert_allclose(log["loss"].dropna(), both.dropna(), rtol=1e-5)
    assert ecgfast.load(tmp_path / "run").contract.model["arguments"]["mode"] == "faithful"


def test_a_damaged_contract_is_refused(store, tmp_path):
    run = told(store, tmp_path / "run", "--hazard", "discrete", steps=1)
    contract = json.loads((run / "contract.json").read_text())
    for edges in ([], [3.0, 2.0], [-1.0, 2.0], ["a"], contract["task"]["edges"][:-1]):
        contract["task"]["edges"] = edges
        (run / "contract.json").write_text(json.dumps(contract))
        with pytest.raises(ContractError):
            ecgfast.load(run)
