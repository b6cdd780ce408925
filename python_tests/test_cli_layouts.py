"""`ecgfast evaluate --layouts` and `ecgfast export` of runs that see pages; data SYNTHETIC."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.synthetic import write_cohort
from ecgfast.eval import classification_rows, recall_at_k
from ecgfast.models.heads import Head
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.systems.predict import predict
from ecgfast.testing import make_ecg
from ecgfast.train.checkpoint import save_encoder
from ecgfast.train.contract import Contract, Records

SIGNAL = Signal(seconds=2.0)
PAGES = {
    "num_leads": 12,
    "net": "efficientnet-b0",
    "size": 48,
    "embedding_dim": 8,
    "momentum": 1.0,
}
SIGNALS = {"num_leads": 12, "embedding_dim": 8, "width": 4}
HEAD = {"embedding_dim": 8, "hidden": 0, "dropout": 0.0}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, 100, signal=SIGNAL, seed=3)
    return path


def make_run(path, kind="PageEncoder", *, head=True, config=None):
    torch.manual_seed(0)
    arguments = PAGES if kind == "PageEncoder" else SIGNALS
    encoder = (PageEncoder if kind == "PageEncoder" else ResNet1d)(**arguments)
    encoder(make_ecg(32, 12, 500))  # batch norms see pages, so that scores differ
    if kind == "PageEncoder":
        arguments = {**arguments, "layout": "3x4+1"}
    task = {"kind": "classification", "label": "sex", "threshold": None, "mean": 0.0, "sd": 1.0}
    contract = Contract(
        signal=SIGNAL,
        model={"class": kind, "arguments": arguments},
        head={"class": "Head", "arguments": HEAD} if head else None,
        task={**task, "dropout_at_test": False} if head else None,
        synthetic=True,
        trained_on=Records.of(["nobody"]),
    )
    weights = Head(**HEAD).state_dict() if head else None
    save_encoder(path, encoder.state_dict(), contract, weights)
    (path / "config.yaml").write_text(yaml.safe_dump(config or {"label": "sex"}))
    return path


def evaluate(run, store, *words):
    main(["evaluate", str(run), "--store", str(store), "--bootstrap", "30", *words])
    return json.loads((run / "evaluation-test" / "metrics.json").read_text())


def test_records_are_scored_in_each_layout_with_the_difference_from_the_own(
    tmp_path, store, capsys
):
    before = make_run(tmp_path / "before", head=False, config={"views": {"layouts": ["12x1"]}})
    run = make_run(tmp_path / "run", config={"label": "sex", "init": str(before)})
    facts = evaluate(run, store, "--layouts", "3x4+1", "12x1", "3x4-shuffled:7")
    found = facts["layouts"]
    assert found["own"] == "3x4+1"
    rows = {(row["layout"], row["name"]): row for row in found["rows"]}
    assert len(rows) == 15
    said = {layout: rows[layout, "auroc"]["trained"] for layout, _ in rows}
    assert said == {"3x4+1": "fine-tuning", "12x1": "pretraining", "3x4-shuffled:7": "neither"}
    whole = {row["name"]: row for row in facts["metrics"] if row["subgroup"] is None}
    for name in ("auroc", "sensitivity", "recall_at_1_patient"):
        assert rows["3x4+1", name]["estimate"] == whole[name]["estimate"]
        assert rows["3x4+1", name]["difference"] is None
    for layout in ("12x1", "3x4-shuffled:7"):
        drawn = predict(run, store, layout=layout)
        truth = classification_rows(
            drawn["label"], drawn["score"], drawn["patient_id"], threshold=0.5, draws=1
        )
        auroc = next(row["estimate"] for row in truth if row["name"] == "auroc")
        row = rows[layout, "auroc"]
        assert row["estimate"] == pytest.approx(auroc)
        change = row["difference"]
        assert change["estimate"] == pytest.approx(auroc - whole["auroc"]["estimate"])
        assert change["lo"] <= change["estimate"] <= change["hi"]
        hits = recall_at_k(drawn["embedding"], drawn["patient_id"], ks=(1,))[0][1]
        assert auroc != whole["auroc"]["estimate"]
        assert rows[layout, "recall_at_1_patient"]["estimate"] == pytest.approx(np.nanmean(hits))
    out = capsys.readouterr().out
    assert "minus 3x4+1" in out
    assert "3x4-shuffled:7  neither" in out
    assert facts["command"].endswith("--layouts 3x4+1 12x1 3x4-shuffled:7")


def test_a_pretraining_is_scored_by_who_is_found_again(tmp_path, store):
    run = make_run(tmp_path / "run", head=False, config={"views": {"layouts": ["12x1"]}})
    rows = evaluate(run, store, "--layouts", "12x1", "3x4")["layouts"]["rows"]
    assert [(row["layout"], row["name"], row["trained"]) for row in rows] == [
        ("12x1", "recall_at_1_patient", "pretraining"),
        ("3x4", "recall_at_1_patient", "neither"),
    ]
    assert all(0 <= row["lo"] <= row["estimate"] <= row["hi"] <= 1 for row in rows)


def test_what_sees_signals_has_no_layout(tmp_path, store, capsys):
    run = make_run(tmp_path / "run", "ResNet1d")
    with pytest.raises(SystemExit) as caught:
        evaluate(run, store, "--layouts", "12x1")
    assert caught.value.code == 3
    assert "error[layout]" in capsys.readouterr().err
    pages = make_run(tmp_path / "pages")
    with pytest.raises(SystemExit) as caught:
        evaluate(pages, store, "--layouts", "5x5")
    assert caught.value.code == 2
    assert "layout must be one of 12x1" in capsys.readouterr().err


def test_pages_are_exported_as_a_folder_and_not_as_onnx(tmp_path, store, capsys):
    run = make_run(tmp_path / "run")
    main(["export", str(run), "--out", str(tmp_path / "folder")])
    one, two = (predict(folder, store)["score"] for folder in (run, tmp_path / "folder"))
    assert len(one) > 10
    np.testing.assert_array_equal(one, two)
    with pytest.raises(SystemExit) as caught:
        main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "onnx")])
    assert caught.value.code == 2
    assert "error[export]" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()
