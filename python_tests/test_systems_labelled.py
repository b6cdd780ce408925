"""Labels of every kind reach the head, on the patients that were asked for, and runs end early."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.utils.class_weight import compute_class_weight

from ecgfast.config import Encoder, Fit, Optim, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.config import sup_dml as metric
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.split import half, nested_fraction, patients, read_patients
from ecgfast.data.synthetic import write_cohort
from ecgfast.systems import finetune, sup_dml
from ecgfast.systems.labelled import learner
from ecgfast.systems.predict import predict
from ecgfast.train.checkpoint import ContractError, load_contract
from ecgfast.train.contract import to_json
from ecgfast.train.errors import RunError, Stopped
from ecgfast.train.fit import fit

SIGNAL = Signal(seconds=2.0, fs=100.0)
HOW = Fit(steps=3, batch_size=8, accelerator="cpu", devices=1, progress=False, log_every=1)
RHYTHMS = ("paced", "raised", "sinus", "svt")  # svt is in no training record


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    table = write_cohort(out, 50, signal=SIGNAL, seed=0)
    names = np.where(table["mpcwp"] > 18, "raised", "sinus").astype(object)
    train = np.flatnonzero(table["split"] == "train")
    names[train[:2]] = " paced"
    names[train[5]] = ""
    held = np.flatnonzero(table["split"] == "val")
    names[held[0]] = "svt"
    table["rhythm"] = names
    table["grade"] = np.where(table["mpcwp"] > 18, 3.0, np.where(table["mpcwp"] > 12, 2.0, 1.5))
    table.loc[train[0], "lvef"] = np.inf
    table.to_parquet(out / "manifest.parquet", index=False)
    return out


def config(out, store=None, system=tuning, **fields):
    data = Store(patients=30) if store is None else Store(paths=(str(store),))
    how = {name: fields.pop(name) for name in list(fields) if hasattr(HOW, name)}
    words = {
        "signal": SIGNAL,
        "data": data,
        "hidden": 4,
        "encoder": Encoder(embedding_dim=8, width=4),
        "optim": Optim(lr=1e-3, warmup_steps=0),
        "fit": dataclasses.replace(HOW, out=str(out), **how),
        **fields,
    }
    return system.Config(**words)


@pytest.mark.parametrize("system", [tuning, metric], ids=["finetune", "sup-dml"])
def test_names_in_a_column_are_learned(tmp_path, store, capsys, system):
    build = finetune.build if system is tuning else sup_dml.build
    made = config(tmp_path, store, system, label="rhythm", task="multiclass")
    fit(build, made)
    seen = capsys.readouterr().out
    assert "1 of 3 classes of rhythm have fewer than 5 training patients: paced (" in seen
    assert "1 records of the validation part are left out" in seen
    assert "svt (1)" in seen
    contract = load_contract(tmp_path)
    assert contract.task["classes"] == ["paced", "raised", "sinus"]
    assert (contract.task["kind"], contract.task["mean"]) == ("multiclass", None)
    assert contract.head["arguments"]["outputs"] == 3

    found = predict(tmp_path, store, splits=("val",))
    table = pd.read_parquet(store / "manifest.parquet").set_index("record_id")
    truth = [RHYTHMS.index(table["rhythm"][name]) for name in found["record_id"]]
    assert found["label"].tolist() == truth
    n = len(truth)
    assert n == (table["split"] == "val").sum() - 1
    assert found["score"].shape == (n, 3)
    np.testing.assert_allclose(found["score"].sum(axis=1), 1, atol=1e-6)
    last = float((tmp_path / "metrics.csv").read_text().splitlines()[-1].split(",")[-1])
    assert last == pytest.approx(np.mean(found["score"].argmax(axis=1) == truth), abs=1e-6)


def test_numbers_may_be_names(store):
    source = open_source(
        (str(store),), ("train",), signal=SIGNAL, patients=0, label="grade", classes=()
    )
    assert source.classes == ("1.5", "2", "3")
    numbers = source.column("grade")
    assert [source.classes[int(i)] for i in source.labels()] == [f"{v:g}" for v in numbers]
    assert [source.dataset[i]["label"].item() for i in (0, 4)] == source.labels()[[0, 4]].tolist()
    some = source.take(np.array([4, 2]))
    assert some.dataset[0]["label"] == source.dataset[4]["label"]
    other = open_source(
        (str(store),), ("train",), signal=SIGNAL, patients=0, label="grade", classes=("3", "9")
    )
    assert set(other.column("grade")) == {3.0}
    assert other.unknown == {"2": int((numbers == 2).sum()), "1.5": int((numbers == 1.5).sum())}
    with pytest.raises(DataError, match=r"none of .* records has a grade that was learned"):
        open_source(
            (str(store),), ("train",), signal=SIGNAL, patients=0, label="grade", classes=("9",)
        )


def test_a_share_of_text_labels_has_the_rare_ones(store):
    source = open_source(
        (str(store),), ("train",), signal=SIGNAL, patients=0, label="rhythm", classes=()
    )
    for fraction in (0.1, 0.4):
        some = source.fraction(fraction, seed=1, label="rhythm")
        assert set(some.labels()) == {0.0, 1.0, 2.0}
    few, more = (
        set(nested_fraction(source.table, fraction, 1, "rhythm")) for fraction in (0.1, 0.4)
    )
    assert few < more


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"label": "rhythm"}, r"holds text, not numbers; .* --task multiclass"),
        ({"label": "record_id", "task": "multiclass"}, r"\d+ different values .* 64 classes"),
        ({"label": "planted", "task": "multiclass"}, "no column 'planted'"),
        ({"label": "lvef"}, "1 of .* training labels lvef are not finite"),
        ({"label": "rhythm", "task": "classification"}, "holds text"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tmp_path, store, words, message):
    with pytest.raises(DataError, match=message):
        finetune.build(config(tmp_path, store, **words))


def test_one_name_alone_is_refused(tmp_path, store):
    names = tmp_path / "sinus.txt"
    table = pd.read_parquet(store / "manifest.parquet")
    only = table.groupby("patient_id")["rhythm"].agg(lambda v: set(v) == {"sinus"})
    names.write_text("\n".join(only[only].index))
    words = {"label": "rhythm", "task": "multiclass", "train_on": str(names)}
    with pytest.raises(DataError, match=r"all .* records that are left have rhythm 'sinus'"):
        finetune.build(config(tmp_path, store, **words))


def test_training_is_on_listed_patients(tmp_path, store, capsys):
    table = pd.read_parquet(store / "manifest.parquet")
    train = sorted(set(table["patient_id"][table["split"] == "train"]))
    listed = train[3:12]
    val = table["patient_id"][table["split"] == "val"].iloc[0]
    names = tmp_path / "names.csv"
    names.write_text(
        "patient_id\r\n" + "\r\n".join([*listed, val, listed[0], "nobody"]) + "\r\n\r\n"
    )
    made = config(tmp_path / "run", store, train_on=str(names))
    fit(finetune.build, made)
    assert "2 of 11 patients in" in (said := capsys.readouterr().out)
    assert f"(first: {val})" in said
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["train_on_sha256"] == hashlib.sha256(names.read_bytes()).hexdigest()
    mine = table[table["patient_id"].isin(listed) & (table["split"] == "train")]
    seen = load_contract(tmp_path / "run").trained_on
    assert seen.hold(mine["record_id"]).all()
    assert len(seen.hashes) == len(mine)
    run = finetune.build(dataclasses.replace(made, fraction=0.3))
    assert 0 < len(run.data.dataset) < len(mine)

    names.write_text("\n".join(listed[:4]))
    with pytest.raises(RunError, match="train_on_sha256"):
        fit(finetune.build, made)
    pinned = dataclasses.replace(made, train_on_sha256=resolved["train_on_sha256"])
    with pytest.raises(DataError, match="it was changed"):
        finetune.build(pinned)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no"),
        (b"", "names nobody"),
        (b"patient_id\n \n", "names nobody"),
        (b"\xff\xfe\x00", "is no text"),
        (b"x1\nx2\n", r"none of the 2 patients .*\(first: x1\)"),
    ],
)
def test_lists_of_nobody_are_refused(tmp_path, store, content, message):
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    with pytest.raises(DataError, match=message):
        finetune.build(config(tmp_path, store, train_on=str(names)))


def test_a_list_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ecgfast.data.split.MOST_LIST", 3)
    (tmp_path / "names.txt").write_text("p001")
    with pytest.raises(DataError, match="more than 3 bytes"):
        read_patients(tmp_path / "names.txt")


def test_halves_are_of_patients_and_the_same_everywhere(tmp_path, store):
    table = pd.read_parquet(store / "manifest.parquet")
    first, second = (set(half(table, which)) for which in ("first", "second"))
    assert first | second == set(range(len(table)))
    assert not first & second
    whose = patients(table)
    assert not set(whose.iloc[list(first)]) & set(whose.iloc[list(second)])
    assert 0.3 < len(set(whose.iloc[list(first)])) / len(set(whose)) < 0.7
    train = table[table["split"] == "train"].reset_index(drop=True)
    names = set(train["record_id"].iloc[half(train, "first")])
    assert names == set(table["record_id"].iloc[list(first)]) & set(train["record_id"])

    one = sup_dml.build(config(tmp_path, store, metric, half="first"))
    two = finetune.build(config(tmp_path, store, half="second"))
    whole = finetune.build(config(tmp_path, store))
    for part in ("dataset", "validation"):
        counts = [len(getattr(run.data, part)) for run in (one, two, whole)]
        assert counts[0] + counts[1] == counts[2]
        assert min(counts) > 0


def test_weights_of_classes_are_sklearns(tmp_path, store):
    for words in (
        {"label": "rhythm", "task": "multiclass"},
        {"task": "classification", "threshold": 18.0},
    ):
        who = learner(config(tmp_path, store, class_weight="balanced", **words))
        expected = compute_class_weight(
            "balanced", classes=np.unique(who.targets()), y=who.targets()
        )
        np.testing.assert_allclose(who.class_weights().numpy(), expected, rtol=1e-6)
    who = learner(config(tmp_path, store, class_weight=2.5, **words))
    assert who.class_weights().tolist() == [1.0, 2.5]
    assert learner(config(tmp_path, store, **words)).class_weights() is None


def test_a_head_without_z_scores_is_left_alone(tmp_path, store):
    plain, scored = (learner(config(tmp_path, store, zscore=z)) for z in (False, True))
    assert (plain.head.mean, plain.head.scale) == (0.0, 1.0)
    assert scored.head.scale.item() == pytest.approx(scored.labels.std(), rel=1e-5)


def test_layers_learn_at_their_rates(tmp_path, store):
    made = config(tmp_path, store, layer_decay=0.5, head_lr=4e-3)
    method = finetune.build(made).method
    method._trainer = type("Trainer", (), {"max_steps": 10})()
    groups = method.configure_optimizers()["optimizer"].param_groups
    encoder, b = method.encoder, method.encoder.blocks
    stages = [method.head, encoder.embed, b[6:], b[4:6], b[2:4], b[:2], encoder.stem]
    rates = [4e-3, *(1e-3 * 0.5**depth for depth in range(1, 7))]
    expected = []
    for stage, rate in zip(stages, rates, strict=True):
        kernels = [p for p in stage.parameters() if p.ndim > 1]
        spared = [p for p in stage.parameters() if p.ndim <= 1]
        expected += [(kernels, rate, 0.05), (spared, rate, 0.0)]
    assert len(groups) == len(expected)
    for group, (held, rate, decay) in zip(groups, expected, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in held]
        assert group["lr"] == pytest.approx(rate)
        assert group["weight_decay"] == decay
    every = [id(p) for group in groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in method.parameters())


def stopping(run, *, at):
    """The run, told to stop by Ctrl-C after so many steps."""
    train = run.method.training_step

    def step(batch, batch_idx):
        if run.method.global_step == at:
            os.kill(os.getpid(), signal.SIGINT)
        return train(batch, batch_idx)

    run.method.training_step = step
    return run


def rows(out):
    """Of metrics.csv: step and loss."""
    lines = (out / "metrics.csv").read_text().splitlines()
    return [line.split(",")[:3] for line in lines]


@pytest.mark.parametrize("words", [{}, {"task": "classification", "threshold": 16.0}], ids=str)
def test_sup_dml_goes_on_bit_for_bit(tmp_path, words):
    words = {"steps": 6, "learn_beta": True, "validate_every": 2, **words}
    fit(sup_dml.build, config(tmp_path / "whole", system=metric, **words))
    made = config(tmp_path / "cut", system=metric, **words)
    with pytest.raises(Stopped):
        fit(lambda c: stopping(sup_dml.build(c), at=2), made)
    fit(sup_dml.build, made)
    for name in ("encoder.safetensors", "head.safetensors"):
        whole, cut = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        assert whole == cut
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    assert "embedding_spread" in (tmp_path / "cut" / "metrics.csv").read_text()
    found = predict(tmp_path / "cut", patients=30)  # encoder and head: as a fine-tuned run
    assert found["score"].shape == found["label"].shape


def test_a_run_that_improves_no_more_ends_and_stays_ended(tmp_path, capsys):
    words = {"steps": 40, "validate_every": 1, "patience": 3, "checkpoint_every": 30}
    words["optim"] = Optim(lr=0.1, warmup_steps=0, schedule="constant")
    fit(finetune.build, config(tmp_path / "whole", **words))
    contract = load_contract(tmp_path / "whole")
    assert contract.step < 40
    assert contract.step == contract.weights_step + 3
    said = capsys.readouterr().out
    assert f"{contract.step} steps done of 40, then validation improved no more" in said
    column = rows(tmp_path / "whole")
    assert column[-1][0] == str(contract.step)

    cut = config(tmp_path / "cut", **words)
    at = contract.step - 2  # inside the looks that are waited for
    with pytest.raises(Stopped):
        fit(lambda c: stopping(finetune.build(c), at=at), cut)
    fit(finetune.build, cut)
    assert rows(tmp_path / "cut") == column
    assert load_contract(tmp_path / "cut").sha256 == contract.sha256

    before = (tmp_path / "cut" / "last.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    assert fit(finetune.build, cut) is None
    assert "is finished" in capsys.readouterr().out
    assert fit(finetune.build, config(tmp_path / "cut", **{**words, "steps": 80})) is None
    (tmp_path / "cut" / "contract.json").unlink()  # as if killed before it was written
    fit(finetune.build, cut)
    assert load_contract(tmp_path / "cut").sha256 == contract.sha256
    assert load_contract(tmp_path / "cut").step == contract.step
    assert rows(tmp_path / "cut") == column
    assert (tmp_path / "cut" / "last.ckpt").stat().st_mtime_ns == before


def test_embeddings_that_become_one_point_end_the_run(tmp_path):
    words = {"system": metric, "steps": 6, "collapse_below": 1e9, "collapse_patience": 2}
    with pytest.raises(RunError, match="the embeddings have collapsed"):
        fit(sup_dml.build, config(tmp_path, **words))
    assert len(rows(tmp_path)) <= 4


def test_batches_of_classes_are_balanced(tmp_path, store):
    words = {"task": "classification", "threshold": 25.0}
    made = config(tmp_path, store, metric, **words)
    for balance in (True, False):
        run = sup_dml.build(dataclasses.replace(made, balance=balance))
        deal = run.data.sampler(rank=0, world_size=1, start_step=0)
        labels = [run.data.dataset[i]["label"] > 25 for step in range(6) for i in deal.batch(step)]
        assert (np.mean(labels) == 0.5) == balance


def test_the_second_half_is_fine_tuned_from_the_first(tmp_path, store):
    fit(sup_dml.build, config(tmp_path / "one", store, metric, half="first", task_weight=0.0))
    assert load_contract(tmp_path / "one").task is None
    assert not (tmp_path / "one" / "head.safetensors").exists()
    made = config(tmp_path / "two", store, init=str(tmp_path / "one"), half="second")
    fit(finetune.build, made)
    contract = load_contract(tmp_path / "two")
    table = pd.read_parquet(store / "manifest.parquet")
    names = table["record_id"][(table["split"] == "train")]
    assert (contract.trained_on.hold(names) ^ contract.pretrained_on.hold(names)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["task"].update(classes=["af"]), "1 names, 2 to 64"),
        (lambda c: c["task"].update(classes=["af"] * 3), "must differ"),
        (lambda c: c["task"].update(classes=[1, 2, 3]), "task.classes is of type int"),
        (lambda c: c["task"].update(classes="abc"), "task.classes is of type str"),
        (lambda c: c["task"].update(classes=[str(i) for i in range(65)]), "65 names"),
        (lambda c: c["task"].update(classes=["a", "b"]), "the head has 3 outputs"),
        (lambda c: c["task"].pop("classes"), "classes"),
        (lambda c: c["task"].update(kind="regression", mean=0.0, sd=1.0), "head has 3 outputs"),
        (lambda c: c["task"].update(kind="rank"), "task.kind is 'rank'"),
    ],
)
def test_a_contract_of_classes_is_checked(tmp_path, store, change, message):
    run = finetune.build(config(tmp_path, store, label="rhythm", task="multiclass"))
    kept = to_json(run.contract)
    change(kept)
    (tmp_path / "contract.json").write_text(json.dumps(kept))
    with pytest.raises(ContractError, match=message):
        load_contract(tmp_path)


@pytest.mark.parametrize(
    ("system", "words", "message"),
    [
        (tuning, {"layer_decay": 0.0}, r"layer_decay must lie in \(0, 1\]"),
        (tuning, {"layer_decay": 0.5, "freeze": True}, "which freeze holds still"),
        (tuning, {"head_lr": 0.0}, "head_lr must be positive"),
        (tuning, {"patience": 2, "validation": "", "keep": "last"}, "patience needs"),
        (tuning, {"patience": -1}, "patience must not be negative"),
        (tuning, {"head_dropout": 1.0}, "head_dropout must lie"),
        (tuning, {"class_weight": "balanced"}, "class_weight belongs to"),
        (tuning, {"class_weight": 2.0, "task": "multiclass"}, "a number as class_weight"),
        (tuning, {"class_weight": -1.0, "task": "classification"}, "must be positive"),
        (tuning, {"threshold": 18.0, "task": "multiclass"}, "threshold belongs to"),
        (tuning, {"train_on_sha256": "ab"}, "train_on, which is not named"),
        (metric, {"alpha": -1.0}, "alpha must be at least 0"),
        (metric, {"alpha": 0.0, "task_weight": 0.0}, "nothing to learn"),
        (metric, {"mining": "npair"}, "a regression takes label"),
        (metric, {"mining": "label", "task": "classification"}, "classes take npair"),
        (metric, {"metric": "angular"}, "a regression takes margin or triplet"),
        (metric, {"learn_beta": True, "alpha": 0.0}, "learn_beta belongs to"),
        (metric, {"nu": 0.1}, "price of a learned beta"),
        (metric, {"batch_size": 2}, "batch of 3 or more"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, system, words, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, system=system, **words)


def test_one_class_in_supervised_dml_is_refused(tmp_path):
    with pytest.raises(DataError, match="a class needs both kinds"):
        sup_dml.build(config(tmp_path, system=metric, task="classification", threshold=900.0))
    with pytest.raises(DataError, match="not 0 or 1"):
        sup_dml.build(config(tmp_path, system=metric, task="classification"))
