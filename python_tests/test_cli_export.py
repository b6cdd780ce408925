"""`ecgfast export`: a folder that loads elsewhere, an ONNX file that says what torch says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import ecgfast
from ecgfast.cli import main
from ecgfast.systems.export import export_onnx, parity, runtime
from ecgfast.systems.model import load
from ecgfast.train.card import write_card
from python_tests.small_run import make_run


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def fails(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, capsys.readouterr().err


def test_a_folder_loads_elsewhere(tmp_path):
    run = make_run(tmp_path / "run")
    main(["export", str(run), "--out", str(tmp_path / "out")])
    ecg = torch.randn(3, 12, 500)
    want = load(run)(ecg)
    shutil.rmtree(run)
    model = ecgfast.load(tmp_path / "out")
    for name, values in model(ecg).items():
        assert torch.equal(values, want[name])
    card = (tmp_path / "out/card.md").read_text()
    assert "Research use only" in card
    assert "SYNTHETIC" in card
    assert "training records: 1 " in card
    assert "training patients: not written down" in card
    assert "250 Hz, 2 s (500 samples), mV" in card
    assert "Not evaluated" in card


def test_the_card_tells_what_was_evaluated(tmp_path):
    run = make_run(tmp_path / "run")
    row = {"name": "mae", "subgroup": None, "estimate": 4.25, "lo": 3.5, "hi": 5.0}
    other = {**row, "subgroup": "sex=male", "estimate": 9.75}
    facts = {"split": "test", "store": "s", "synthetic": True}
    facts["metrics"] = [one | {"n": 30, "patients": 20} for one in (row, other)]
    (run / "evaluation-test").mkdir()
    (run / "evaluation-test/metrics.json").write_text(json.dumps(facts))
    card = write_card(run)
    assert "| mae | 4.250 | 3.500 to 5.000 | 30 | 20 |" in card
    assert "9.75" not in card
    (run / "evaluation-test/metrics.json").write_text("{")
    (run / "config.yaml").write_text("- a list")
    assert "Not evaluated" in write_card(run)


def test_the_exported_file_is_held_to_torch(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = make_run(tmp_path / "run", "classification", threshold=15.0)
    main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "out")])
    assert "parity   score" in capsys.readouterr().out
    found = json.loads((tmp_path / "out/parity.json").read_text())
    assert found["ok"] is True
    assert [row["output"] for row in found["outputs"]] == ["embedding", "score"]
    import onnx

    proto = onnx.load(tmp_path / "out/model.onnx")
    about = {one.key: one.value for one in proto.metadata_props}
    contract = json.loads(about["contract"])
    assert contract["signal"]["units"] == "mV"
    assert contract["task"]["threshold"] == 15.0
    assert "trained_on" not in contract

    model, session = load(run), runtime(tmp_path / "out/model.onnx")
    for records in (1, 5, 33):  # numbers that it was not made with
        ecg = torch.randn(records, 12, 500)
        for said, want in zip(session(ecg.numpy()), model.network(ecg), strict=True):
            np.testing.assert_allclose(said, want.detach(), rtol=1e-3, atol=1e-5)

    # a weight that is off by a thousandth is told
    ecg = model.prepare(torch.randn(4, 12, 500))
    assert parity(model, session, ecg)["ok"]
    weights = proto.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights).copy()
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values * 1.001, weights.name))
    onnx.save(proto, tmp_path / "other.onnx")
    told = parity(model, runtime(tmp_path / "other.onnx"), ecg)
    assert told["ok"] is False
    assert not parity(model, lambda x: [one * np.nan for one in session(x)], ecg)["ok"]


def test_the_dual_attention_network_is_trained_and_exported(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = tmp_path / "run"
    words = ["finetune", "--encoder.net", "dual_attention", "--encoder.embedding_dim", "16"]
    words += ["--signal.recipe", "dual_attention", "--signal.band", "null"]  # 2,500 samples to 608
    words += ["--data.patients", "40", "--fit.steps", "2", "--fit.batch_size", "8"]
    words += ["--layer_decay", "0.9", "--fit.progress", "false"]
    main([*words, "--fit.out", str(run)])
    model = load(run)
    assert model.contract.model["class"] == "DualAttention"
    assert model.contract.model["arguments"]["samples"] == 608
    assert model.embed(torch.randn(2, 12, 2500)).shape == (2, 16)
    main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "out")])
    assert "parity   score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder.net", "dual_attention", "--encoder.width", "8"], "encoder.width belongs to"),
        (["--encoder.mode", "faithful"], "encoder.mode belongs to encoder.net=dual_attention"),
        (["--encoder.net", "dual_attention", "--encoder.embedding_dim", "7"], "must be even"),
        (["--encoder.net", "dual_attention", "--signal.leads", "[I, II]"], "over 12 leads"),
    ],
)
def test_a_network_takes_its_own_words_alone(tmp_path, capsys, words, message):
    words = ["finetune", *words, "--data.patients", "40", "--fit.out", str(tmp_path / "run")]
    code, said = fails(capsys, *words)
    assert code == 2
    assert message in said


def test_a_file_without_parity_leaves_with_one(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run, other = make_run(tmp_path / "run", None), make_run(tmp_path / "other", None, seed=1)
    monkeypatch.setattr(
        "ecgfast.systems.export.export_onnx", lambda model, out: export_onnx(load(other), out)
    )
    code, said = fails(capsys, "export", run, "--to", "onnx", "--out", tmp_path / "out")
    assert code == 1
    assert "error[parity]" in said
    assert json.loads((tmp_path / "out/parity.json").read_text())["ok"] is False


def test_what_is_wrong_is_said_in_a_sentence(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run")
    code, said = fails(capsys, "export", run, "--out", run)
    assert (code, "is the run itself" in said) == (2, True)
    code, said = fails(capsys, "export", tmp_path, "--out", tmp_path / "x")
    assert (code, "no finished run" in said) == (3, True)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    code, said = fails(capsys, "export", run, "--to", "onnx", "--out", tmp_path / "x")
    assert code == 4
    assert "onnxruntime" in said
