"""From `finetune --task survival` to `evaluate`, `report` and `predict`; all data SYNTHETIC."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.tables import read_table
from ecgfast.eval import between, breslow, c_index, difference
from ecgfast.systems.predict import predict
from ecgfast.systems.time_to_event import unit_of

pytest.importorskip("lifelines")
SIGNAL = Signal(fs=100.0, seconds=2.0, band=(1.0, 30.0))
SMALL = ["--encoder.width", "4", "--encoder.embedding_dim", "8", "--hidden", "3"]
SMALL += ["--fit.batch_size", "32", "--fit.progress", "false", "--fit.steps", "8"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def followed(path, change=None, end=3000):
    """A store whose patients have events often enough to score 1, 3 and 5 years."""
    write_cohort(path, 250, signal=SIGNAL, seed=0)
    table = pd.read_parquet(path / "manifest.parquet")
    draw = np.random.default_rng(0)
    pressure = (table["mpcwp"] - table["mpcwp"].mean()) / table["mpcwp"].std()
    time = draw.exponential(2000 * np.exp(-pressure))
    last = draw.uniform(300, end, len(table))
    table["hf_days"] = np.ceil(np.minimum(time, last))
    table["hf_event"] = (time <= last) * 1.0
    if change is not None:
        change(table)
    table.to_parquet(path / "manifest.parquet")
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return followed(tmp_path_factory.mktemp("stores") / "store")


def train(store, out, *words):
    signal = ["--signal.fs", "100", "--signal.seconds", "2", "--signal.band", "[1, 30]"]
    task = ["--task", "survival", "--label", "hf_days", "--event", "hf_event"]
    data = ["--data.paths", f"[{store}]"]
    main(["finetune", *task, *signal, *data, *SMALL, "--fit.out", str(out), *words])
    return out


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "cox": train(store, folder / "cox"),
        "other": train(store, folder / "other", "--fit.seed", "1"),
        "discrete": train(store, folder / "discrete", "--hazard", "discrete"),
    }


def evaluate(run, *words, part="test"):
    main(["evaluate", str(run), *map(str, words), "--bootstrap", "60"])
    place = run / f"evaluation-{part}"
    return json.loads((place / "metrics.json").read_text()), read_table(
        place / "predictions.parquet"
    )


@pytest.fixture(scope="module")
def cox(runs):
    return evaluate(runs["cox"], "--against", runs["other"], "--subgroups", "sex", "age")


def rows_of(facts):
    return {
        row["name"]: row
        for row in facts["metrics"] + facts["not_computed"]
        if row["subgroup"] is None
    }


def test_the_numbers_are_those_of_the_written_predictions(cox):
    facts, table = cox
    rows = rows_of(facts)
    assert facts["task"] == "survival"
    assert facts["synthetic"]
    np.testing.assert_array_equal(table["time"], np.abs(table["label"]))
    np.testing.assert_array_equal(table["event"], table["label"] > 0)
    expected = c_index(table["score"], table["time"], table["event"])
    assert rows["c_index"]["estimate"] == pytest.approx(expected, abs=1e-12)
    assert rows["c_index"]["positives"] == facts["survival"]["events"] == table["event"].sum()
    assert {"uno_c", "ibs", "ibs_km", "calibration_slope"} <= set(rows)
    for at in (365.25, 1095.75, 1826.25):
        assert {f"{k}_at_{at:g}" for k in ("auc", "brier", "observed_expected")} <= set(rows)
        assert ((table[f"risk_at_{at:g}"] >= 0) & (table[f"risk_at_{at:g}"] <= 1)).all()
    groups = {row["subgroup"] for row in facts["metrics"] if row["name"] == "c_index"}
    assert {"sex=male", "sex=female"} <= groups
    assert any(gap["name"] == "c_index" for gap in facts["gaps"])
    counted = {g["group"]: g["positives"] for g in facts["groups"] if g["by"] == "sex"}
    assert sum(counted.values()) == table["event"].sum()


def test_risks_are_of_the_baseline_of_the_training_part(cox, runs, store):
    facts, table = cox
    known = predict(runs["cox"], store, splits=("train",))
    assert known["trained_on"].all()
    baseline = breslow(known["score"], np.abs(known["label"]), known["label"] > 0)
    risk = 1 - baseline.survival(table["score"], [365.25])[:, 0]
    np.testing.assert_allclose(table["risk_at_365.25"], risk, rtol=1e-9)
    told = facts["survival"]
    assert f"{len(known['score'])} records of the train part" in told["chances_from"]
    cuts = np.quantile(known["score"].astype(float), [1 / 3, 2 / 3])
    np.testing.assert_allclose(told["groups"]["cuts"], cuts)
    assert told["groups"]["cuts_from"] == "thirds of the train part"
    assert told["unit"] == "days"
    assert sum(c["n"] for c in told["groups"]["curves"]) == facts["records"]


def test_a_comparison_shares_the_draws(cox, runs, store):
    facts, table = cox
    other = predict(runs["other"], store, splits=("test",))
    (against,) = facts["comparisons"]
    lines = {line["name"]: line for line in against["metrics"]}
    assert list(lines) == ["c_index", "uno_c", *(f"auc_at_{h}" for h in (365.25, 1095.75, 1826.25))]
    expected = difference(
        "c_index", table["label"], table["score"], other["score"], table["patient_id"], draws=60
    )
    assert lines["c_index"]["lo"] == pytest.approx(expected["lo"])
    assert lines["c_index"]["p"] == pytest.approx(expected["p"])


def test_hazards_of_intervals_bring_their_own_chances(runs, store):
    facts, table = evaluate(runs["discrete"], "--horizons", "800", "200", "9000", "200")
    rows = rows_of(facts)
    found = predict(runs["discrete"], store)
    edges = json.loads((runs["discrete"] / "contract.json").read_text())["task"]["edges"]
    risk = 1 - between(found["survival"], edges, [800.0])[:, 0]
    np.testing.assert_allclose(table["risk_at_800"], risk, rtol=1e-9)
    assert "risk_at_9000" not in table
    assert "follow-up does not reach" in rows["auc_at_9000"]["reason"]
    assert "survival" not in table
    assert facts["survival"]["chances_from"].startswith("the run's own hazards")
    assert facts["survival"]["groups"]["cuts_from"] == "thirds of the val part"
    assert facts["survival"]["tau"] <= edges[-1]
    assert "--horizons 800 200 9000 200" in facts["command"]
    assert facts["survival"]["asked"] == [200, 800, 9000]
    names = [row["name"] for row in facts["metrics"] + facts["not_computed"]]
    assert names.count("auc_at_200") == 1


def test_an_ensemble_has_its_members_beside_it(runs):
    facts, table = evaluate(runs["cox"], runs["other"], part="test-ensemble-of-2")
    lines = {line["name"]: line for line in facts["ensemble"]["metrics"]}
    one = c_index(table["score_run_1"], table["time"], table["event"])
    assert lines["c_index"]["each"][1] == pytest.approx(one, abs=1e-12)


def test_a_training_part_that_is_gone_leaves_out_what_needs_it(runs, store, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(runs["cox"], moved)
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace(str(store), str(tmp_path / "gone")))
    facts, table = evaluate(moved, "--store", store)
    assert not facts["survival"]["chances"]
    assert facts["survival"]["chances_from"].startswith("no baseline hazard: ")
    assert "scored records themselves" in facts["survival"]["groups"]["cuts_from"]
    rows = rows_of(facts)
    assert "auc_at_365.25" in rows
    assert "ibs" not in rows
    assert not [name for name in table if name.startswith("risk_at")]
    main(["report", str(moved), "--examples", "0"])
    assert "Brier scores not computed: no baseline hazard" in (moved / "report.html").read_text()


def test_nobody_with_an_event_is_said_and_not_scored(runs, store, tmp_path, capsys):
    quiet = followed(tmp_path / "quiet", lambda t: t.__setitem__("hf_event", 0.0))
    facts, _ = evaluate(runs["cox"], "--store", quiet, "--out", tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = rows_of(facts)
    assert "0 of " in capsys.readouterr().out
    assert "no pair can be compared" in rows["c_index"]["reason"]
    assert rows["auc_at_365.25"]["reason"].startswith("0 patients have an event until 365.25")
    assert facts["survival"]["groups"]["log_rank"]["p"] is None


def test_horizons_that_are_no_times(runs, capsys):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(runs["cox"]), "--horizons", "-3"])
    assert left.value.code == 2
    assert "--horizons must be finite times above 0" in capsys.readouterr().err


def test_the_page_shows_curves_and_calibration(cox, runs):
    main(["report", str(runs["cox"]), "--examples", "1"])
    page = (runs["cox"] / "report.html").read_text()
    for text in (
        "Time to heart failure from the 12-lead ECG",
        "Without heart failure, by predicted risk (SYNTHETIC data)",
        "Calibration at 3 years (SYNTHETIC data)",
        "Predicted risk at 5 years (SYNTHETIC data)",
        "AUC at 1 year",
        "C-index (Uno)",
        "Highest predicted risk",
        "Breslow&#39;s baseline of",
        ">events<",
        "heart failure: ",
    ):
        assert text in page, text
    assert ">positives<" not in page


def test_predict_gives_log_hazards_and_risks(runs, store, tmp_path, capsys):
    for name in ("cox", "discrete"):
        out = tmp_path / f"{name}.json"
        main(["predict", str(runs[name]), str(store), "--json", str(out)])
        told = json.loads(out.read_text())
        assert told["task"]["event"] == "hf_event"
        said = {one["record_id"]: one for one in told["records"]}
        found = predict(runs[name], store, splits=("all", "test"))
        mine = [said[record] for record in found["record_id"]]
        np.testing.assert_allclose([m["log_hazard"] for m in mine], found["score"], atol=1e-5)
        assert all(m["probability"] is None and m["estimate"] is None for m in mine)
        assert "log hazard of hf_event" in capsys.readouterr().out
        if name == "cox":
            assert mine[0]["risks"] is None
            continue
        edges = json.loads((runs[name] / "contract.json").read_text())["task"]["edges"]
        expected = 1 - between(found["survival"], edges, [365.25])[:, 0]
        np.testing.assert_allclose([m["risks"]["365.25"] for m in mine], expected, atol=1e-5)


def test_a_name_tells_the_unit():
    assert [unit_of(name) for name in ("hf_days", "Months", "years_to_af", "weeks", "time")] == [
        *("days", "months", "years", "weeks", "")
    ]


def test_patients_that_were_trained_on_are_no_test(runs, store, capsys):
    """Another record of theirs was learned from, with the same end."""
    manifest = store / "manifest.parquet"
    kept = manifest.read_bytes()
    table = pd.read_parquet(manifest)
    several = table.groupby("patient_id")["record_id"].transform("size") > 1
    last = ~table.duplicated("patient_id", keep="last")
    table.loc[(table["split"] == "train") & several & last, "split"] = "test"
    try:
        # those records were trained on themselves: as if they had not been, by other names
        moved = table["split"].eq("test") & several & last
        table.loc[moved, "record_id"] += "-new"
        table.to_parquet(manifest)
        for words in ((), ("--store", f"{store}/../{store.name}/")):  # by another name, too
            with pytest.raises(SystemExit) as left:
                evaluate(runs["cox"], *words)
            said = capsys.readouterr().err
            assert left.value.code == 3
            assert "patients of the test part have other records that were trained on" in said
    finally:
        manifest.write_bytes(kept)
