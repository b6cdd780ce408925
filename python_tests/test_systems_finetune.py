"""Fine-tuning holds to the encoder's contract, and what it kept predicts what it said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecgfast.config import Augment, Encoder, Fit, Optim, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.config import ssl_dml as pretraining
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.synthetic import write_cohort
from ecgfast.systems import finetune, ssl_dml
from ecgfast.systems.predict import predict
from ecgfast.train.checkpoint import ContractError, load_contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit

SIGNAL = Signal(seconds=2.0, band=(1.0, 30.0), notch=50.0, normalise="record")
HOW = Fit(steps=3, batch_size=8, accelerator="cpu", devices=1, progress=False)
DATA = Store(patients=30)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    out = tmp_path_factory.mktemp("encoder")
    config = pretraining.Config(
        signal=SIGNAL,
        data=dataclasses.replace(DATA, splits=("all",)),
        encoder=Encoder(embedding_dim=8, width=4),
        fit=dataclasses.replace(HOW, out=str(out)),
    )
    fit(ssl_dml.build, config)
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(out, 30, signal=SIGNAL, seed=0)
    return out


def config(out, encoder=None, **fields):
    words = {"data": DATA, "hidden": 4, "optim": Optim(lr=1e-3, warmup_steps=0), **fields}
    how = dataclasses.replace(HOW, out=str(out))
    if encoder is None:
        words = {"signal": SIGNAL, "encoder": Encoder(embedding_dim=8, width=4), **words}
    return tuning.Config(init=str(encoder or ""), fit=how, **words)


def test_the_encoder_brings_its_contract_and_its_weights(tmp_path, encoder, capsys):
    fit(finetune.build, config(tmp_path / "run", encoder, freeze=True))
    assert "122 of 122 weights matched, 0 missing, 0 unexpected" in capsys.readouterr().out
    contract = load_contract(tmp_path / "run")
    assert contract.signal == SIGNAL
    assert contract.model["arguments"] == load_contract(encoder).model["arguments"]
    assert contract.pretrained_on.salt == load_contract(encoder).trained_on.salt
    before, after = (load_file(d / "encoder.safetensors") for d in (encoder, tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)  # a linear probe

    fit(finetune.build, config(tmp_path / "full", encoder))
    after = load_file(tmp_path / "full" / "encoder.safetensors")
    assert not torch.equal(before["embed.weight"], after["embed.weight"])
    resolved = (tmp_path / "full" / "config.yaml").read_text()
    assert "normalise: record" in resolved


def test_another_signal_than_the_encoders_is_refused(tmp_path, encoder):
    other = dataclasses.replace(SIGNAL, band=(0.5, 40.0), normalise="lead")
    with pytest.raises(ContractError) as caught:
        finetune.build(config(tmp_path, encoder, signal=other))
    assert "encoder and --signal differ in band, normalise:" in str(caught.value)
    assert "leave --signal out" in str(caught.value)
    finetune.build(config(tmp_path, encoder, signal=SIGNAL))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"fs": 125.0}, "fs"), ({"seconds": 4.0}, "seconds"), ({"leads": ("II", "I")}, "leads")],
)
def test_another_store_than_the_encoders_is_refused(tmp_path, encoder, change, named):
    other = dataclasses.replace(SIGNAL, band=None, notch=None, **change)
    write_cohort(tmp_path / "store", 12, signal=other, seed=0)
    data = Store(paths=(str(tmp_path / "store"),))
    with pytest.raises(ContractError, match=f"encoder and store .* differ in {named}:"):
        finetune.build(config(tmp_path, encoder, data=data))
    with pytest.raises(ContractError, match=f"--signal and store .* differ in {named}:"):
        finetune.build(config(tmp_path, data=data))


def test_a_store_and_the_cohort_in_memory_are_the_same_records(store):
    words = {"signal": SIGNAL, "patients": 30, "label": "mpcwp"}
    made = open_source((), ("train",), **words)
    read = open_source((str(store),), ("train",), **words)
    assert made.names(range(len(made))) == read.names(range(len(read)))
    assert read.synthetic
    np.testing.assert_allclose(made.millivolts(3), read.millivolts(3), atol=1e-3)
    assert made.dataset[3]["label"] == read.dataset[3]["label"]
    assert len(open_source((str(store),), ("train",), limit=4, **words)) == 4


def test_stores_are_read_one_after_the_other(store, tmp_path):
    write_cohort(tmp_path / "more", 12, signal=SIGNAL, seed=5)
    words = {"signal": SIGNAL, "patients": 0}
    one, two = (open_source((str(path),), ("all",), **words) for path in (store, tmp_path / "more"))
    both = open_source((str(store), str(tmp_path / "more")), ("all",), **words)
    assert len(both) == len(one) + len(two)
    assert both.names([len(one) + 1]) == two.names([1])
    item = both.dataset[len(one) + 1]
    assert torch.equal(item["ecg"], two.dataset[1]["ecg"])
    assert item["index"] == len(one) + 1
    assert len(both.signals) == 2
    with pytest.raises(DataError, match="named more than once"):
        open_source((str(store), str(store)), ("all",), **words)


def test_a_smaller_share_of_the_labels_is_inside_a_larger(tmp_path):
    runs = {f: finetune.build(config(tmp_path, fraction=f)) for f in (0.2, 0.6, 1.0)}
    names = {f: run.data.names(range(len(run.data.dataset))) for f, run in runs.items()}
    assert set(names[0.2]) < set(names[0.6]) < set(names[1.0])
    labels = [runs[0.6].data.dataset[i]["label"] for i in range(len(names[0.6]))]
    head = runs[0.6].method.head
    assert head.mean.item() == pytest.approx(np.mean(labels), rel=1e-5)
    assert head.scale.item() == pytest.approx(np.std(labels), rel=1e-4)
    assert len(runs[0.2].data.validation) == len(runs[1.0].data.validation)


def test_predictions_are_those_of_the_kept_weights(tmp_path, store):
    data = Store(paths=(str(store),))
    words = {"task": "classification", "threshold": 18.0, "data": data}
    fit(finetune.build, config(tmp_path / "run", **words))
    found = predict(tmp_path / "run", store, splits=("test",), batch_size=64)
    n = len(found["record_id"])
    assert {name: values.shape for name, values in found.items()} == {
        **dict.fromkeys(("record_id", "patient_id", "trained_on", "pretrained_on"), (n,)),
        **dict.fromkeys(("sex", "age", "label", "score"), (n,)),
        "embedding": (n, 8),
    }
    assert ((found["score"] > 0) & (found["score"] < 1)).all()
    assert not found["trained_on"].any()
    alone = predict(tmp_path / "run", store, splits=("test",), batch_size=1)
    np.testing.assert_allclose(alone["score"], found["score"], rtol=1e-4)
    assert predict(tmp_path / "run", store, splits=("train",))["trained_on"].all()
    assert not predict(tmp_path / "run", store, splits=("val",))["trained_on"].any()

    loaded = finetune.load_run(tmp_path / "run")
    assert not loaded.encoder.training
    assert not loaded.head.training
    source = open_source((str(store),), ("test",), signal=SIGNAL, patients=0)
    ecg = torch.from_numpy(source.millivolts(2))
    logit = loaded.head(loaded.encoder(loaded.prepare(ecg[None])))
    assert logit.sigmoid().item() == pytest.approx(found["score"][2], rel=1e-4)


def test_a_value_comes_in_its_unit_and_a_pretraining_has_embeddings_alone(tmp_path, encoder):
    fit(finetune.build, config(tmp_path, encoder))
    found = predict(tmp_path, patients=30, splits=("val",))
    assert 5 < found["score"].mean() < 40  # mmHg, not z-scores
    assert not found["trained_on"].any()
    assert found["pretrained_on"].all()  # `all` is what is not in test
    found = predict(encoder, patients=30)
    assert found["embedding"].shape[1] == 8
    assert "score" not in found
    assert "label" not in found


@pytest.mark.parametrize("wrong", ["encoder.safetensors", "head.safetensors", "contract.json"])
def test_a_damaged_run_is_refused(tmp_path, encoder, wrong):
    fit(finetune.build, config(tmp_path, encoder))
    content = bytearray((tmp_path / wrong).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / wrong).write_bytes(content)
    if wrong == "contract.json":
        (tmp_path / wrong).write_bytes(content[:-9])
    with pytest.raises(ContractError, match=wrong.replace(".", r"\.")):
        finetune.load_run(tmp_path)


def test_labels_that_teach_nothing_are_refused(tmp_path):
    words = {"task": "classification"}
    with pytest.raises(DataError, match=r"not 0 or 1 \(first: .*name a --threshold"):
        finetune.build(config(tmp_path, **words))
    with pytest.raises(DataError, match=r"0 of \d+ training records have mpcwp > 900"):
        finetune.build(config(tmp_path, threshold=900.0, **words))
    with pytest.raises(DataError, match="no column 'wedge'"):
        finetune.build(config(tmp_path, label="wedge"))
    with pytest.raises(ValueError, match="needs a validation part"):
        config(tmp_path, validation="")
    assert finetune.build(config(tmp_path, validation="", keep="last")).data.validation is None


def test_classes_may_be_their_own_label_and_the_threshold_is_strict(tmp_path):
    finetune.build(config(tmp_path, task="classification", label="sex"))
    run = finetune.build(config(tmp_path, task="classification", threshold=18.0))
    assert run.method.task.target(torch.tensor([18.0, 18.5])).tolist() == [0.0, 1.0]


def test_views_are_drawn_in_training_alone(tmp_path, encoder):
    """A crop of a second is what the network learns from; a second run learns the same."""
    words = {"augment": Augment(crop_s=1.0, gain=(0.5, 2.0)), "keep": "last"}
    runs = [tmp_path / name for name in ("first", "again", "whole")]
    for out in runs[:2]:
        fit(finetune.build, config(out, encoder, **words))
    fit(finetune.build, config(runs[2], encoder, keep="last"))
    first, again, whole = (load_file(out / "head.safetensors") for out in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], whole[name]) for name in first)
    with pytest.raises(RunError, match=r"crop_s 3 s is longer than a record, 2 s"):
        finetune.build(config(tmp_path, encoder, augment=Augment(crop_s=3.0)))
