"""``ecgfast zero-shot``: prompts and reports, on SYNTHETIC and on real records."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.convert import Plan, convert
from ecgfast.data.dataset import Records
from ecgfast.data.reports import read_prompts
from ecgfast.data.store import ECGStore, StoreWriter
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.synthetic_reports import STATEMENTS
from ecgfast.models.text import HashedText
from ecgfast.systems.model import load
from ecgfast.systems.zero_shot import load_aligned
from python_tests.conftest import shared_data

SMALL = ["--encoder.net", "resnet18", "--encoder.width", "4", "--encoder.embedding_dim", "16"]
SMALL += ["--signal.recipe", "", "--reconstruction", "0", "--lead_subset_p", "0"]
HOW = ["--fit.batch_size", "16", "--fit.accelerator", "cpu", "--fit.devices", "1"]
HOW += ["--fit.progress", "false"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(out, 60, signal=Signal(seconds=2.0), seed=0)
    return out


def pretrain(out, store, *words, steps=2):
    data = ["--data.paths", str(store), "--data.splits", "train", "--signal.seconds", "2"]
    fit = ["--fit.steps", str(steps), "--fit.out", str(out)]
    main(["pretrain", "ecg-report", *SMALL, *HOW, *data, *fit, *map(str, words)])
    return out


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    return pretrain(tmp_path_factory.mktemp("runs") / "run", store)


def shot(run, *words):
    main(["zero-shot", str(run), *map(str, words), "--bootstrap", "50"])
    return json.loads((run / "zero-shot-test" / "metrics.json").read_text())


def refused(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def by_name(facts, group):
    (found,) = (one for one in facts["classes"] if one["group"] == group)
    return found, {row["name"]: row for row in found["metrics"]}


def test_statements_superclasses_and_retrieval_are_scored(store, run, capsys):
    facts = shot(run, "--least", 3)
    said = capsys.readouterr().out
    assert "SYNTHETIC data" in said
    assert "superclasses" in said
    assert "recall_at_10" in said
    table = ECGStore.open(store).manifest
    table = table[table["split"] == "test"]
    assert facts["records"] == len(table)
    assert facts["seen"] == facts["blank"] == 0
    with (run / "zero-shot-test" / "zero_shot.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert [row["record_id"] for row in scores] == table["record_id"].tolist()
    # the table of scores gives the printed numbers again
    found, rows = by_name(facts, "statements")
    checked = 0
    for name in found["prompts"]:
        assert found["prompts"][name] == [STATEMENTS[name]]
        if f"auroc_of_{name}" in rows:
            has = [f"'{name}'" in codes for codes in table["scp_codes"]]
            score = [float(row[f"score_{name}"]) for row in scores]
            wanted = roc_auc_score(has, score)
            assert rows[f"auroc_of_{name}"]["estimate"] == pytest.approx(wanted, abs=1e-3)
            checked += 1
    assert checked > 3
    ranks = np.array([float(row["rank"]) for row in scores])
    retrieval = {row["name"]: row for row in facts["retrieval"]["metrics"]}
    assert retrieval["median_rank"]["estimate"] == pytest.approx(np.median(ranks), abs=1e-3)
    assert retrieval["recall_at_5"]["estimate"] == pytest.approx((ranks <= 5).mean())
    assert facts["retrieval"]["candidates"] == len({" ".join(t.split()) for t in table["report"]})
    hypertrophy, _ = by_name(facts, "superclasses")
    assert len(hypertrophy["prompts"]["HYP"]) == 2


def test_a_score_is_the_mean_cosine_of_both_projections(store, run, tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("class,prompt\naf,atrial  fibrillation\naf,afib\nHYP,high voltage qrs\n")
    facts = shot(run, store, "--prompts", prompts, "--least", 1)
    found, rows = by_name(facts, "prompts")
    assert found["prompts"] == {
        "af": ["atrial fibrillation", "afib"],
        "HYP": ["high voltage qrs"],
    }
    with (run / "zero-shot-test" / "zero_shot.csv").open() as file:
        row = next(csv.DictReader(file))
    manifest = ECGStore.open(store).manifest
    place = manifest["record_id"].tolist().index(row["record_id"])
    batch = Records(ECGStore.open(store), np.array([place])).batch([0])
    aligned = load_aligned(str(run))
    with torch.no_grad():
        ours = aligned.ecg(load(run).embed(batch["ecg"], batch["gain"]))[0].double()
        theirs = aligned.text(HashedText()(["atrial fibrillation", "afib"])).double()
    wanted = torch.nn.functional.cosine_similarity(ours[None], theirs).mean()
    assert float(row["score_af"]) == pytest.approx(wanted.item(), abs=1e-5)
    af = manifest[manifest["split"] == "test"]["af"]
    assert rows["auroc_of_af"]["positives"] == (af == 1).sum()


def test_training_raises_what_prompts_and_reports_find(tmp_path):
    """A planted signal: the report says which of three waves a record is made of."""
    signal = Signal(seconds=2.0)
    draw = np.random.default_rng(0)
    words = ["left bundle branch block", "atrial fibrillation", "normal ecg"]
    writer = StoreWriter(tmp_path / "store", signal, made_by={"t": 1}, synthetic=True, plan="p")
    time = np.arange(signal.samples) / signal.fs
    for i in range(160):
        kind = i % 3
        wave = np.sin(2 * np.pi * (2 + 4 * kind) * time + draw.uniform(0, 6))
        ecg = (wave + 0.5 * draw.normal(size=(12, signal.samples))).astype(np.float32)
        labels = {"report": words[kind], "split": "train" if i < 100 else "test"}
        labels |= {f"kind{k}": float(k == kind) for k in range(3)}
        writer.add(ecg, record_id=f"r{i}", patient_id=f"p{i}", labels=labels, source="")
    writer.close()
    prompts = tmp_path / "prompts.csv"
    lines = [f"kind{k},{word}" for k, word in enumerate(words)]
    prompts.write_text("\n".join(["class,prompt", *lines]))
    means, recalls = [], []
    for steps in (1, 40):
        run = pretrain(
            tmp_path / f"run{steps}",
            tmp_path / "store",
            *("--optim.lr", 1e-6 if steps == 1 else 3e-3, "--optim.warmup_steps", 0),
            steps=steps,
        )
        facts = shot(run, "--prompts", prompts)
        means.append(by_name(facts, "prompts")[1]["auroc_macro"]["estimate"])
        recalls.append(facts["retrieval"]["metrics"][0]["estimate"])
    assert means[1] > 0.9 > means[0] + 0.1
    assert recalls[1] > 0.8 > recalls[0] + 0.1


def test_what_the_run_was_trained_on_is_no_test(store, tmp_path, capsys):
    run = tmp_path / "all"
    words = ["--data.splits", "train,val,test"]
    pretrain(run, store, *words)
    assert refused("zero-shot", run) == 3
    assert "of the test part were trained on" in capsys.readouterr().err
    main(
        ["zero-shot", str(run), "--split", "val", "--bootstrap", "20", "--out", str(tmp_path / "o")]
    )
    said = capsys.readouterr().out
    facts = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert facts["seen"] == facts["records"] > 0
    assert f"{facts['seen']} of them were trained on" in said


def test_another_text_model_is_refused_and_a_file_of_it_taken(store, run, tmp_path, capsys):
    file = tmp_path / "texts.safetensors"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(STATEMENTS.values()))
    main(["embed-text", str(store), "--out", str(file), "--texts", str(prompts)])
    before = shot(run)
    assert shot(run, "--text", file)["classes"] == before["classes"]
    from safetensors.torch import load_file, save_file

    texts = json.dumps([str(i) for i in range(len(load_file(file)["embeddings"]))])
    other = tmp_path / "other.safetensors"
    about = {"format": "pt", "name": "another model", "texts": texts}
    save_file({"embeddings": load_file(file)["embeddings"]}, other, metadata=about)
    assert refused("zero-shot", run, "--text", other) == 3
    said = capsys.readouterr().err
    assert "aligned with texts by hashed letters, 768 (768 numbers), and this is another" in said
    (tmp_path / "folder").mkdir()
    assert refused("zero-shot", run, "--text", tmp_path / "folder") == 3
    assert "it has no config.json" in capsys.readouterr().err


def test_runs_that_cannot_are_refused(store, run, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    contract = json.loads((bare / "contract.json").read_text())
    (bare / "contract.json").write_text(json.dumps(contract | {"alignment": None}))
    assert refused("zero-shot", bare) == 3
    assert "was not aligned with texts: ecgfast pretrain ecg-report" in capsys.readouterr().err
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    path = changed / "text_projector.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert refused("zero-shot", changed) == 3
    assert "text_projector.safetensors has SHA-256" in capsys.readouterr().err
    path.unlink()
    assert refused("zero-shot", changed) == 3
    assert "there is no" in capsys.readouterr().err
    main(["export", str(run), "--out", str(tmp_path / "exported")])
    assert (tmp_path / "exported" / "text_projector.safetensors").exists()
    main(["zero-shot", str(tmp_path / "exported"), str(store), "--bootstrap", "20"])


def test_a_run_without_a_projector_is_refused(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/text_projector.safetensors").unlink()
    assert refused("zero-shot", tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert re.search("no .*text_projector.safetensors, which .* copy the whole folder again", said)


def test_a_configuration_that_is_none_is_refused(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for content in ("data: null\n", "text: 5\n", "[1, 2", "- 1\n"):
        (folder / "config.yaml").write_text(content)
        for verb in ("zero-shot", "evaluate"):
            assert refused(verb, folder) == 3
            assert f"error[contract] {folder / 'config.yaml'}" in capsys.readouterr().err


def test_words_that_cannot_be_are_refused(store, run, tmp_path, capsys):
    assert refused("zero-shot", run, "--bootstrap", 0) == 2
    assert refused("zero-shot", run, "--batch-size", 0) == 2
    assert refused("zero-shot", run, "--device", "nosuch") == 4
    assert "--device nosuch is not to be had here" in capsys.readouterr().err
    assert refused("embed-text", store, "--out", tmp_path / "a.safetensors", "--device", "no") == 4
    (tmp_path / "file").write_text("mine")
    assert refused("zero-shot", run, "--out", tmp_path / "file") == 3
    assert "file: File exists" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    assert refused("zero-shot", run, "--column", "codes") == 3
    assert "no column codes of SCP codes" in capsys.readouterr().err
    assert refused("zero-shot", run, "--statements", tmp_path / "none.csv") == 3
    assert "none.csv cannot be read" in capsys.readouterr().err
    prompts = tmp_path / "prompts.csv"
    for text, message in (
        ("class,text\na,b\n", "it has no column prompt"),
        ("class,prompt\naf,\n", "line 2 lacks a cell"),
        ("class,prompt\n", "it has no line"),
        ("class,prompt\nXYZ,something\n", "class XYZ is no column of the records"),
        ("class,prompt\nage,old\n", "column age holds other values than 0 and 1"),
    ):
        prompts.write_text(text)
        assert refused("zero-shot", run, "--prompts", prompts) == 3
        assert message in capsys.readouterr().err
    prompts.write_text("class,prompt\nb, two  words\na,x\nb,y\n")
    assert read_prompts(prompts) == {"b": ["two words", "y"], "a": ["x"]}


def test_real_records_from_a_folder_to_retrieval(tmp_path, capsys):
    folder = shared_data("ptb-xl-500")
    store = tmp_path / "store"
    names = (folder / "RECORDS100").read_text().split()[:200]
    (tmp_path / "some").write_text("\n".join(names))
    convert([folder], store, Plan(signal=Signal(fs=100.0)), records=tmp_path / "some", workers=0)
    main(["split", str(store), "--by", "patient"])
    statements = ["--statements", str(folder / "scp_statements.csv")]
    run = tmp_path / "run"
    data = ["--data.paths", str(store), "--data.splits", "train", "--signal.fs", "100"]
    text = ["--text.column", "scp_codes", "--text.statements", statements[1]]
    fit = ["--fit.steps", "2", "--fit.out", str(run)]
    main(["pretrain", "ecg-report", *SMALL, *HOW, *data, *text, *fit])
    assert refused("zero-shot", run) == 2
    assert "scp_statements.csv, with --statements" in capsys.readouterr().err
    facts = shot(run, *statements, "--least", 2)
    found, rows = by_name(facts, "superclasses")
    assert {"NORM", "MI", "STTC"} <= set(found["prompts"])
    table = ECGStore.open(store).manifest
    table = table[table["split"] == "test"]
    assert rows["auroc_of_NORM"]["positives"] == pd.to_numeric(table["norm"]).sum()
    assert not facts["synthetic"]
    assert facts["retrieval"]["metrics"][0]["chance"] > 0
