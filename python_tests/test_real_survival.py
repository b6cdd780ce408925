"""Report, survival and page on real ECGs, as a user runs them one after the other."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from ecgfast.cli import main
from ecgfast.systems.predict import predict
from python_tests.conftest import shared_data


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def test_from_reports_of_ptb_xl_to_a_page_with_curves_and_maps(tmp_path):
    """PTB-XL has no follow-up: age stands for a time and sex for an event, to see that all fits."""
    pytest.importorskip("lifelines")
    data = shared_data("ptb-xl-500")
    names = (data / "RECORDS100").read_text().split()[::4]
    (tmp_path / "some").write_text("\n".join(names) + "\n")
    store = tmp_path / "store"
    words = ["convert", "--fs", "100", "--seconds", "10", "--recipe", "dual_attention"]
    main([*words, "--records", str(tmp_path / "some"), str(data), str(store)])
    main(["split", str(store), "--by", "patient", "--seed", "0"])
    signal = ["--signal.fs", "500", "--signal.seconds", "1.216", "--signal.recipe", ""]
    signal += ["--signal.stored_recipe", "dual_attention"]
    short = ["--fit.steps", "3", "--fit.batch_size", "16", "--fit.progress", "false"]
    short += ["--data.paths", f"[{store}]"]
    text = ["--text.column", "scp_codes", "--text.statements", str(data / "scp_statements.csv")]
    pre, run = tmp_path / "pre", tmp_path / "run"
    words = ["pretrain", "ecg-report", *signal, *text, *short, "--data.splits", "[train]"]
    main([*words, "--fit.out", str(pre)])
    words = ["finetune", "--config", "survival", "--init", str(pre), *short]
    main([*words, "--label", "age", "--event", "sex", "--fit.out", str(run)])
    main(["evaluate", str(run), "--bootstrap", "40", "--horizons", "50", "70"])
    facts = json.loads((run / "evaluation-test/metrics.json").read_text())
    assert not facts["synthetic"]
    rows = {row["name"] for row in facts["metrics"] if row["subgroup"] is None}
    assert {"c_index", "uno_c"} <= rows
    assert facts["survival"]["events"] > 0
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    words = ("Attention</h2>", "high risk", "Without sex, by predicted risk", "left them when they")
    for some in words:
        assert some in page
    assert "SYNTHETIC" not in page
    main(["zero-shot", str(pre), "--statements", str(data / "scp_statements.csv"), "--least", "3"])
    facts = json.loads((pre / "zero-shot-test/metrics.json").read_text())
    assert {group["group"] for group in facts["classes"]} == {"statements", "superclasses"}
    assert facts["records"] == 12


def test_deaths_of_code_15_are_a_follow_up(tmp_path):
    data = shared_data("code15-10-followup")
    store, run = tmp_path / "store", tmp_path / "run"
    words = ["convert", "--fs", "250", "--seconds", "5", "--fs-source", "400", "--units", "mV"]
    words += ["--labels", str(data / "meta.csv"), "--id-column", "exam_id"]
    main([*words, "--id-pattern", r"code_15_(\d+)", str(data), str(store)])
    words = ["finetune", "--task", "survival", "--label", "timey", "--event", "death"]
    words += ["--data.paths", f"[{store}]", "--data.splits", "[all]", "--validation", ""]
    words += ["--keep", "last", "--signal.fs", "250", "--signal.seconds", "5", "--fit.steps", "2"]
    words += ["--fit.batch_size", "4", "--encoder.width", "4", "--fit.progress", "false"]
    main([*words, "--fit.out", str(run)])
    found = predict(run, store, splits=("all",))
    table = pd.read_csv(data / "meta.csv").dropna(subset=["timey"])
    want = table["timey"].where(table["death"].astype(str) == "True", -table["timey"])
    by_name = dict(zip(found["record_id"], found["label"], strict=True))
    assert len(by_name) == len(want) == 7  # of three nobody knows
    for exam, time in zip(table["exam_id"], want, strict=True):
        assert by_name[f"code_15_{exam}"] == pytest.approx(time, rel=1e-5)
