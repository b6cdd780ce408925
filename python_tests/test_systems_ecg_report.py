"""ECG and report as whole runs: what is kept, who is aligned, what goes on exactly."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from ecgfast.config import Encoder, Fit, Optim, Projector, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.config.ecg_report import Config, Text
from ecgfast.data.records import DataError
from ecgfast.data.reports import Written
from ecgfast.data.store import StoreWriter
from ecgfast.data.synthetic import make_cohort, write_cohort
from ecgfast.models.text import HashedText
from ecgfast.systems import finetune
from ecgfast.systems.ecg_report import build
from ecgfast.systems.embed import embed_stores
from ecgfast.systems.model import load
from ecgfast.systems.texts import embed_texts, of_records, text_encoder
from ecgfast.train.checkpoint import ContractError, load_contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit

SIGNAL = Signal(seconds=4.0, recipe="dual_attention")
HOW = Fit(steps=4, batch_size=8, log_every=1, accelerator="cpu", devices=1, progress=False)
PARTS = ("encoder", "ecg_projector", "text_projector")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(out, 20, signal=SIGNAL, seed=0)
    return out


def config(store, out="runs/none", **words):
    how = {"steps": words.pop("steps", 4), "batch_size": words.pop("batch_size", 8)}
    base = {
        "signal": SIGNAL,
        "encoder": Encoder(net="dual_attention", embedding_dim=16),
        "data": Store(paths=(str(store),), splits=("all",)),
        "projector": Projector(dim=8, hidden=16),
        "optim": Optim(warmup_steps=0, schedule="constant"),
    }
    return Config(**{**base, "fit": dataclasses.replace(HOW, out=str(out), **how), **words})


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(build, config(store, out, vicreg=0.1))
    return out


def test_a_run_that_was_cut_goes_on_to_the_same_bits_and_keeps_both_projectors(
    store, run, tmp_path
):
    cut = tmp_path / "cut"
    fit(build, config(store, cut, vicreg=0.1, steps=2))
    fit(build, config(store, cut, vicreg=0.1))
    contract = load_contract(run)
    for name in PARTS:
        file = f"{name}.safetensors"
        assert (run / file).read_bytes() == (cut / file).read_bytes()
        assert file in contract.sha256
    text = contract.alignment["text"]
    assert text["name"] == "hashed letters, 768"
    assert text["dim"] == contract.alignment["text_projector"]["arguments"]["embedding_dim"] == 768
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == list("1234")
    told = ("loss", "reconstruction", "alignment", "guard", "embedding_std", "projection_spread")
    told += ("similarity", "similarity_others", "recall_at_1", "temperature")
    for name in told:
        assert np.isfinite([float(row[name]) for row in rows]).all(), name
    first = rows[0]
    parts = [float(first[name]) for name in ("reconstruction", "alignment", "guard")]
    assert float(first["loss"]) == pytest.approx(parts[0] + parts[1] + 0.1 * parts[2], rel=1e-5)


def test_it_can_be_fine_tuned_and_embeds(store, run, tmp_path, capsys):
    tuned = tuning.Config(
        init=str(run),
        data=Store(paths=(str(store),)),
        freeze=True,
        hidden=0,
        fit=dataclasses.replace(HOW, out=str(tmp_path / "tuned")),
    )
    fit(finetune.build, tuned)
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    contract = load_contract(tmp_path / "tuned")
    assert contract.pretrained_on.salt == load_contract(run).trained_on.salt
    assert contract.alignment is None
    about = embed_stores(load(run), [str(store)], tmp_path / "embedded")
    assert about["embedding_dim"] == 16
    assert about["records"] > 20


@pytest.mark.parametrize(
    "words",
    [
        {"align": "cosine", "text": Text(column="scp_codes", unlikely=0.0)},
        {"align": "none"},
        {"same_text": "negative", "mask_patients": False, "learn_temperature": False},
        {
            "signal": Signal(seconds=2.0),
            "encoder": Encoder(width=4, embedding_dim=8),
            "reconstruction": 0.0,
            "lead_subset_p": 0.0,
        },
    ],
    ids=["published", "reconstruction alone", "plain", "resnet18"],
)
def test_other_ways_train(words, tmp_path):
    words = {"data": Store(splits=("all",), patients=8), "steps": 2, **words}
    fit(build, config(None, tmp_path / "run", **words))
    contract = load_contract(tmp_path / "run")
    aligned = words.get("align") != "none"
    assert (contract.alignment is not None) == aligned
    assert (tmp_path / "run" / "text_projector.safetensors").exists() == aligned


def test_what_is_drawn_is_the_whole_record_and_what_is_seen_a_part(store, monkeypatch):
    torch.manual_seed(0)
    run = build(config(store, lead_subset_p=1.0))
    method = run.method
    monkeypatch.setattr(method, "log_dict", lambda _: None)
    seen, drawn_of = [], []
    method.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    monkeypatch.setattr(
        "ecgfast.methods.ecg_report.reconstruction_loss",
        lambda drawn, ecg: drawn_of.append(ecg) or drawn.square().mean(),
    )
    batch = run.data.prepare(run.data.dataset.batch(list(range(16))))
    method.training_step(batch, 0)
    assert torch.equal(drawn_of[0].nan_to_num(9), batch["ecg"].nan_to_num(9))
    hidden = (seen[0] == 0).all(dim=2) & (batch["ecg"].nan_to_num(0) != 0).any(dim=2)
    assert hidden.any()
    assert torch.equal(seen[0][~hidden], batch["ecg"][~hidden].nan_to_num(0))


def reports_store(path, reports, *, blank=(), column="report"):
    """A store of SYNTHETIC waves with these texts."""
    ecg, _ = make_cohort(len(reports), signal=SIGNAL, seed=0)
    writer = StoreWriter(path, SIGNAL, made_by={"test": 1}, synthetic=False, plan="p")
    for i, report in enumerate(reports):
        labels = {column: report, "split": "train"}
        record = np.full_like(ecg[i], np.nan) if i in blank else ecg[i]
        writer.add(record, record_id=f"r{i}", patient_id=f"p{i}", labels=labels, source="")
    writer.close()
    return path


def test_records_without_a_text_or_a_sample_are_not_aligned(tmp_path, capsys, monkeypatch):
    reports = ["sinus rhythm", "", "afib", "sinus rhythm", "  ", "wide qrs", "axis left", "st up"]
    store = reports_store(tmp_path / "store", reports)
    run = build(config(store))
    said = capsys.readouterr().out
    assert "6 records with 5 different texts" in said
    assert "nothing is written of 2, which are drawn and not aligned" in said
    batch = run.data.dataset.batch(list(range(8)))
    ids = batch["text_id"].tolist()
    assert [i for i, one in enumerate(ids) if one < 0] == [1, 4]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 6
    assert not batch["text"][1].any()
    batch["ecg"] = torch.randn(8, 12, 608)
    batch["ecg"][5] = torch.nan  # as a recipe leaves a record without beats
    valid = []
    monkeypatch.setattr(run.method, "log_dict", lambda _: None)
    run.method.loss.register_forward_pre_hook(
        lambda module, given, words: valid.append(words["valid"]), with_kwargs=True
    )
    loss = run.method.training_step(batch, 0)
    assert loss.isfinite()
    assert valid[0].tolist() == [True, False, True, True, False, False, True, True]
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in run.method.parameters())


def test_a_record_has_the_mean_of_its_phrases_by_their_weights():
    encoder = HashedText(32)
    a, b = "rhythm : sinus rhythm", "axis : left axis deviation"
    phrases = [((a, 0.8), (b, 0.2)), ((b, 0.2), (a, 0.8)), (), ((a, 0.5), (b, 0.5)), ((a, 1.0),)]
    found = of_records(encoder, Written(phrases, {}))
    assert found.row.tolist() == [0, 0, -1, 1, 2]  # the order of phrases is nothing
    assert found.ids.tolist() == [0, 0, 1]  # the same phrases, though not as likely
    u, v = encoder([a, b]).double()
    torch.testing.assert_close(found.vectors[0].double(), 0.8 * u + 0.2 * v, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.vectors[2], encoder([a])[0])


def test_a_file_of_embeddings_serves_as_what_made_it(store, tmp_path):
    path = tmp_path / "texts.safetensors"
    embed_texts([str(store)], path, text_encoder(""), column="report")
    here, there = (build(config(store, text=Text(model=m))) for m in ("", str(path)))
    torch.testing.assert_close(here.data.dataset.vectors, there.data.dataset.vectors)
    assert here.contract.alignment == there.contract.alignment
    with pytest.raises(RunError, match=r"texts are not in .* ecgfast embed-text"):
        build(config(store, text=Text(model=str(path), column="scp_codes")))


def test_texts_that_are_not_there_are_errors_with_a_way_out(store, tmp_path):
    with pytest.raises(DataError, match=r"no column notes; they have .*report.*--text\.column"):
        build(config(store, text=Text(column="notes")))
    silent = reports_store(tmp_path / "silent", ["", "  ", ""])
    with pytest.raises(DataError, match="nothing is written of any of 3 records in column report"):
        build(config(silent))
    real = reports_store(tmp_path / "real", ["{'NORM': 100.0}"] * 3, column="scp_codes")
    with pytest.raises(RunError, match=r"scp_statements.csv, with --text\.statements"):
        build(config(real, text=Text(column="scp_codes")))
    table = tmp_path / "statements.csv"
    with pytest.raises(DataError, match=r"error\[statements\] .* cannot be read"):
        build(config(real, text=Text(column="scp_codes", statements=str(table))))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="has no tokenizer"):
        build(config(store, text=Text(model=str(tmp_path / "model"))))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"encoder": Encoder(width=4)}, "set reconstruction to 0"),
        ({"align": "none", "reconstruction": 0.0}, "nothing to learn"),
        ({"align": "none", "vicreg": 1.0}, "align none has none"),
        ({"reconstruction": -1.0}, "reconstruction must be 0 or more"),
        ({"vicreg": float("nan")}, "vicreg must be 0 or more"),
        ({"temperature": 0.0}, "temperature must be 0.01 or more"),
        ({"lead_subset_p": 2.0}, r"lead_subset_p must lie in \[0, 1\]"),
        ({"signal": Signal(leads=("I", "II"))}, "set lead_subset_p to 0"),
        ({"batch_size": 1}, "a batch of 2 or more"),
    ],
    ids=str,
)
def test_settings_that_cannot_teach_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(None, **words)
    with pytest.raises(ValueError, match=r"text\.unlikely"):
        Text(unlikely=101)


def test_the_decoder_wants_signals_of_unit_variance(store):
    with pytest.raises(RunError, match=r"prepared signals are in mV: --signal.normalise lead"):
        build(config(store, signal=Signal(seconds=4.0)))
    build(config(store, signal=Signal(seconds=4.0, normalise="lead")))


def test_a_contract_that_lies_of_its_alignment_is_refused(run, tmp_path):
    path = tmp_path / "contract.json"
    whole = json.loads((run / "contract.json").read_text())
    older = {key: value for key, value in whole.items() if key != "alignment"}
    path.write_text(json.dumps(older))
    assert load_contract(tmp_path).alignment is None
    for change, message in (
        ({"text": {}}, "'name' is missing"),
        ({"ecg_projector": None}, "ecg_projector is of type NoneType"),
        ({"text": whole["alignment"]["text"] | {"dim": 5}}, "projectors do not fit"),
        ({"text": whole["alignment"]["text"] | {"name": ["x"]}}, "name is of type list"),
        ({"text": whole["alignment"]["text"] | {"unlikely": float("nan")}}, "unlikely nan of 0"),
        ({"text": whole["alignment"]["text"] | {"max_tokens": 2**40}}, "max_tokens 1099511627776"),
    ):
        path.write_text(json.dumps(whole | {"alignment": whole["alignment"] | change}))
        with pytest.raises(ContractError, match=message):
            load_contract(tmp_path)
    deep = json.loads(json.dumps(whole))
    deep["alignment"]["ecg_projector"]["arguments"]["layers"] = 65536
    path.write_text(json.dumps(deep))
    with pytest.raises(ContractError, match="over 64 layers"):
        load_contract(tmp_path)
