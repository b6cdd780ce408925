"""`ecgfast evaluate` and `ecgfast report` on runs whose weights are random and data SYNTHETIC."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.tables import read_table
from ecgfast.eval import delong, difference
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.systems.predict import predict, predict_ensemble
from ecgfast.train.checkpoint import save_encoder
from ecgfast.train.contract import Contract, ContractError, Records

SIGNAL = Signal(seconds=2.0)
ENCODER = {"num_leads": 12, "embedding_dim": 16, "dropout": 0.0, "width": 8}
HEAD = {"embedding_dim": 16, "hidden": 8, "dropout": 0.0}
KEYS = "name,subgroup,n,patients,positives,estimate,lo,hi,level,draws,reason"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, 120, signal=SIGNAL, seed=3, planted_bad=True)
    return path


def make_run(
    path,
    task=None,
    *,
    threshold=None,
    classes=(),
    seen=("a",),
    before=None,
    seed=0,
    signal=SIGNAL,
):
    """A finished run; without a task it has no head."""
    torch.manual_seed(seed)
    head_of = {**HEAD, "outputs": len(classes)} if classes else HEAD
    encoder, head = ResNet1d(**ENCODER), Head(**head_of)
    head.set_scale(*((16.0, 8.0) if task == "regression" else (0.0, 1.0)))
    contract = Contract(
        signal=signal,
        model={"class": "ResNet1d", "arguments": ENCODER},
        head=None if task is None else {"class": "Head", "arguments": head_of},
        task=None
        if task is None
        else {
            "kind": task,
            "label": "rhythm" if classes else "mpcwp",
            "threshold": threshold,
            "mean": None if classes else 16.0,
            "sd": None if classes else 8.0,
            "dropout_at_test": False,
            **({"classes": list(classes)} if classes else {}),
        },
        synthetic=True,
        trained_on=Records.of(seen),
        pretrained_on=None if before is None else Records.of(before),
    )
    path.mkdir(parents=True)
    save_encoder(path, encoder.state_dict(), contract, None if task is None else head.state_dict())
    return path


def evaluate(run, store, *words):
    main(["evaluate", str(run), "--store", str(store), "--bootstrap", "60", *words])
    part = words[words.index("--split") + 1] if "--split" in words else "test"
    return json.loads(
        (run / f"evaluation-{part}/metrics.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} in metrics.json"),
    )


def fails(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, capsys.readouterr().err


def test_horizons_of_another_task_are_refused(store, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    code, said = fails(capsys, "evaluate", run, "--store", store, "--horizons", 365)
    assert code == 2
    assert "horizons are of a time to an event, and" in said
    assert "does regression: leave --horizons out" in said


def test_a_regression_gets_numbers_with_intervals(store, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    copy = tmp_path / "copy.json"
    facts = evaluate(run, store, "--above", "15", "18", "--json", str(copy))
    assert json.loads(copy.read_text()) == facts
    rows = {r["name"]: r for r in facts["metrics"] if r["subgroup"] is None}
    assert {"rmse", "mae", "pearson_r", "bias", "auroc_above_15", "auroc_above_18"} <= set(rows)
    for row in facts["metrics"] + facts["not_computed"]:
        assert ",".join(row).startswith(KEYS)
    for row in facts["metrics"]:
        assert row["n"] > 0
        assert row["lo"] <= row["hi"]
        assert row["estimate"] is not None
    for row in facts["not_computed"]:
        assert row["estimate"] is row["lo"] is row["hi"] is None
        assert row["reason"]
    assert rows["rmse"]["lo"] < rows["rmse"]["estimate"] < rows["rmse"]["hi"]
    assert facts["synthetic"] is True
    assert (facts["task"], facts["label"], facts["threshold"]) == ("regression", "mpcwp", None)

    manifest = ECGStore.open(store).manifest
    test = manifest[manifest["split"] == "test"]
    scored = test[test["mpcwp"].notna()]
    assert rows["rmse"]["n"] == len(scored)
    assert rows["rmse"]["patients"] == scored["patient_id"].nunique()
    assert facts["unlabelled"] == len(test) - len(scored) > 0
    told = read_table(run / "evaluation-test/predictions.parquet")
    assert list(told) == ["record_id", "patient_id", "label", "score", "sex", "age", "visit"]
    assert sorted(told["record_id"]) == sorted(scored["record_id"])
    assert rows["rmse"]["estimate"] == pytest.approx(
        np.sqrt(np.mean((told["score"].astype(float) - told["label"]) ** 2))
    )
    with np.load(run / "evaluation-test/embeddings.npz", allow_pickle=False) as kept:
        assert kept["embedding"].shape == (len(scored), 16)
        assert kept["record_id"].tolist() == told["record_id"].tolist()

    out = capsys.readouterr().out
    assert "SYNTHETIC data" in out
    first = out.strip().split("\n\n")[0]
    table = [line for line in first.splitlines() if "[" in line and "age" not in line]
    assert len({line.index("[") for line in table}) == 1  # aligned


def test_a_class_gets_its_threshold_from_the_validation_part(store, tmp_path):
    run = make_run(tmp_path / "run", "classification", threshold=15.0)
    facts = evaluate(run, store)
    assert facts["threshold_from"] == "90 % sensitivity on the val part"
    assert facts["label_above"] == 15
    told = read_table(run / "evaluation-test/predictions.parquet")
    assert set(told["label"]) == {0, 1}
    np.testing.assert_array_equal(told["label"], told["value"] > 15)
    called = told["score"] >= facts["threshold"]
    every = facts["metrics"] + facts["not_computed"]
    rows = {r["name"]: r for r in every if r["subgroup"] is None}
    assert rows["ppv"]["estimate"] == pytest.approx(told["label"][called].mean())
    assert {"sensitivity", "ece", "calibration_slope", "recall_at_1_label"} <= set(rows)
    assert sum(p["n"] for p in facts["calibration"]["points"]) == rows["auroc"]["n"]
    subgroups = {r["subgroup"] for r in every}
    assert {"sex=male", "sex=female", "age=[50,75)", "age>=75"} <= subgroups

    given = evaluate(run, store, "--threshold", "0.3")
    assert (given["threshold"], given["threshold_from"]) == (0.3, "given")
    own = evaluate(run, store, "--split", "val")
    assert own["threshold"] == 0.5
    assert "val is what is scored" in own["threshold_from"]


def test_the_same_words_give_the_same_numbers(store, tmp_path):
    run = make_run(tmp_path / "run", "regression")
    first = evaluate(run, store)
    assert evaluate(run, store) == first
    other = evaluate(run, store, "--seed", "1")
    estimates = [[r["estimate"] for r in facts["metrics"]] for facts in (first, other)]
    assert estimates[0] == estimates[1]
    assert [r["lo"] for r in first["metrics"]] != [r["lo"] for r in other["metrics"]]
    assert other["command"].endswith("--bootstrap 60 --seed 1")


def test_a_run_without_a_head_is_judged_by_its_neighbours(store, tmp_path):
    run = make_run(tmp_path / "run")
    facts = evaluate(run, store)
    assert facts["task"] == "embedding"
    assert [r["name"] for r in facts["metrics"]] == ["recall_at_1_patient", "recall_at_5_patient"]
    assert list(read_table(run / "evaluation-test/predictions.parquet"))[:2] == [
        "record_id",
        "patient_id",
    ]
    main(["report", str(run)])
    assert "this run has no head" in (run / "report.html").read_text()


@pytest.mark.parametrize("who", ["this run", "the encoder it began from"])
def test_what_was_trained_on_is_not_scored_as_test(store, tmp_path, capsys, who):
    manifest = ECGStore.open(store).manifest
    labelled = manifest[(manifest["split"] == "test") & manifest["mpcwp"].notna()]
    ids = labelled["record_id"].tolist()[:3]
    seen = {"seen": ids} if who == "this run" else {"before": ids}
    run = make_run(tmp_path / "run", "regression", **seen)
    code, said = fails(capsys, "evaluate", run, "--store", store)
    assert code == 3
    assert f"error[contamination] 3 of {len(labelled)} records of the test part" in said
    assert f"first: {ids[0]}" in said
    assert f"3 by {who}" in said
    assert not (run / "evaluation-test").exists()


def test_records_of_nobody_known_are_patients_of_their_own(store, tmp_path):
    other = tmp_path / "store"
    shutil.copytree(store, other)
    manifest = pd.read_parquet(other / "manifest.parquet")
    manifest["patient_id"] = ""
    manifest.to_parquet(other / "manifest.parquet")
    facts = evaluate(make_run(tmp_path / "run", "regression"), other)
    row = facts["metrics"][0]
    assert row["patients"] == row["n"]
    recall = next(r for r in facts["not_computed"] if r["name"] == "recall_at_1_patient")
    assert recall["reason"] == "no record has another of the same patient to find"


def test_what_is_wrong_is_said_in_a_sentence(store, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    assert fails(capsys, "evaluate", run, "--store", store, "--bootstrap", 0)[0] == 2
    code, said = fails(capsys, "evaluate", run, "--store", store, "--threshold", "high")
    assert (code, said) == (2, "error: --threshold must be auto or a number, got high\n")
    code, said = fails(capsys, "evaluate", tmp_path, "--store", store)
    assert code == 3
    assert "no finished run" in said
    code, said = fails(capsys, "evaluate", run, "--store", tmp_path / "none")
    assert code == 3
    assert "error[no_store]" in said
    code, said = fails(capsys, "report", tmp_path)
    assert code == 3
    assert "no contract.json" in said
    code, said = fails(capsys, "report", run, "--map", "umap")
    assert (code, said) == (2, "error: --map must be pca or tsne, got umap\n")
    (run / "env.json").write_text("{")
    code, said = fails(capsys, "report", run)
    assert code == 3
    assert "env.json is not JSON" in said


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_report_finds_store_cases_and_planted_faults(store, tmp_path, capsys, task):
    threshold = 15.0 if task == "classification" else None
    run = make_run(tmp_path / "run", task, threshold=threshold)
    evaluate(run, store)
    out = tmp_path / "pages" / "page.html"
    main(["report", str(run), "--examples", "2", "--out", str(out)])
    assert f"wrote {out}" in capsys.readouterr().out
    page = out.read_text()
    assert page.count('<figure class="page">') == 4
    assert "Where the model was furthest off" in page
    assert "SYNTHETIC data" in page
    assert "<td>train</td>" in page
    planted = ECGStore.open(store).manifest["planted"]
    assert planted.ne("").any()
    assert "<code>nan_values</code>" in page
    assert "there is no" in page  # the run has no metrics.csv, command.txt and env.json


def test_the_report_says_when_the_store_is_gone(store, tmp_path):
    other = tmp_path / "store"
    shutil.copytree(store, other)
    run = make_run(tmp_path / "run", "regression")
    evaluate(run, other)
    shutil.rmtree(other)
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    assert "not computed: error[no_store]" in page
    assert page.count("error[no_store]") == 3  # counts, issues, examples; the numbers stay
    assert "Pearson r" in page


def test_an_ensemble_says_the_mean_of_its_runs(store, tmp_path):
    runs = [make_run(tmp_path / f"run{i}", "regression", seed=i, seen=(f"a{i}",)) for i in range(3)]
    seen = predict(runs[0], store)["record_id"][4]
    runs[2] = make_run(tmp_path / "other", "regression", seed=2, seen=(seen,))
    alone = [predict(run, store, extra=("visit",)) for run in runs]
    both = predict_ensemble(runs, store, extra=("visit",))
    scores = np.stack([found["score"] for found in alone])
    assert not np.allclose(scores[0], scores[1])
    np.testing.assert_array_equal(both["scores"], scores)
    np.testing.assert_allclose(both["score"], scores.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(both["record_id"], alone[0]["record_id"])
    assert both["embedding"].shape == (len(scores[0]), 48)
    assert both["trained_on"].tolist() == [name == seen for name in both["record_id"]]
    assert "visit" in both
    assert "sex" not in both
    single = predict_ensemble(runs[:1], store)
    np.testing.assert_array_equal(single["score"], alone[0]["score"])


def test_runs_that_answer_other_questions_are_no_ensemble(store, tmp_path):
    first = make_run(tmp_path / "a", "classification", threshold=15.0)
    other = make_run(tmp_path / "b", "classification", threshold=18.0)
    filtered = make_run(
        tmp_path / "c", "classification", threshold=15.0, signal=Signal(seconds=2.0, notch=50.0)
    )
    headless = make_run(tmp_path / "d")
    for run, said in (
        (other, r"task\.threshold: 18\.0 and 15\.0"),
        (filtered, "in its signal: .*notch 50 Hz"),
        (headless, "has no head"),
        (first, "named more than once"),
    ):
        with pytest.raises(ContractError, match=said):
            predict_ensemble([first, run], store)


@pytest.fixture(scope="module")
def sites(store, tmp_path_factory):
    """The store with a column of text, of which some are missing."""
    other = tmp_path_factory.mktemp("sites") / "store"
    shutil.copytree(store, other)
    manifest = pd.read_parquet(other / "manifest.parquet")
    site = manifest["patient_id"].str[-1].astype(int)
    manifest["site"] = np.where(site == 9, None, np.where(site < 6, "north", "south"))
    manifest.to_parquet(other / "manifest.parquet")
    return other


def test_subgroups_of_any_column_are_counted_and_their_gap_is_bounded(sites, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    words = ("--subgroups", "site", "age:60", "sex*site", "--least_patients", "11")
    facts = evaluate(run, sites, *words, "--keep", "lvef")
    assert facts["schema"] == 2
    told = read_table(run / "evaluation-test/predictions.parquet")
    assert {"site", "lvef", "age", "visit"} <= set(told)
    known = {g["group"]: g for g in facts["groups"]}
    assert list(known)[:3] == ["site=north", "site=south", "site=unknown"]
    assert "sex=male & site=south" in known
    for name in ("north", "south"):
        inside = told["site"] == name
        line = known[f"site={name}"]
        assert line["n"] == inside.sum()
        assert line["patients"] == len(set(told["patient_id"][inside]))
        assert line["share"] == pytest.approx(line["patients"] / facts["patients"])
        assert line["under_represented"] == (line["patients"] < 11)
    assert known["site=unknown"]["n"] == sum(v is None for v in told["site"])
    every = facts["metrics"] + facts["not_computed"]
    assert {r["subgroup"] for r in every} >= {"site=north", "age<60", "age>=60"}
    ages = told["age"].astype(float)
    error = np.abs(told["score"].astype(float) - told["label"])
    gap = next(g for g in facts["gaps"] if (g["by"], g["name"]) == ("age", "mae"))
    if gap["estimate"] is not None:
        both = [error[ages < 60].mean(), error[ages >= 60].mean()]
        assert gap["estimate"] == pytest.approx(abs(both[0] - both[1]))
    assert {(g["by"], g["name"]) for g in facts["gaps"]} >= {
        ("site", "bias"),
        ("sex * site", "mae"),
    }
    out = capsys.readouterr().out
    assert "site is unknown of" in out
    assert "under-represented (fewer than 11 patients or 5 %)" in out
    assert "'sex*site' --least_patients 11 --keep lvef" in facts["command"]


def test_runs_are_compared_on_the_same_records(store, tmp_path, capsys):
    runs = [
        make_run(tmp_path / name, "classification", threshold=15.0, seed=seed)
        for seed, name in enumerate("abc")
    ]
    facts = evaluate(runs[0], store, "--against", str(runs[1]), str(runs[2]))
    assert [c["against"] for c in facts["comparisons"]] == [str(run) for run in runs[1:]]
    found = [predict(run, store) for run in runs]
    label = (found[0]["label"] > 15).astype(float)
    for other, comparison in zip(found[1:], facts["comparisons"], strict=True):
        rows = {r["name"]: r for r in comparison["metrics"]}
        assert "prevalence" not in rows
        line = rows["auroc"]
        tested = delong(label, found[0]["score"], other["score"], found[0]["patient_id"])
        assert line["test"] == "DeLong"
        assert line["p"] == tested["p"]
        assert line["estimate"] == pytest.approx(tested["estimate"])
        drawn = difference(
            *("auroc", label, found[0]["score"], other["score"], found[0]["patient_id"]), draws=60
        )
        assert (line["lo"], line["hi"]) == (drawn["lo"], drawn["hi"])
        brier = [np.mean((f["score"] - label) ** 2) for f in (found[0], other)]
        assert rows["brier"]["estimate"] == pytest.approx(brier[0] - brier[1])
        assert rows["brier"]["test"] == "bootstrap"
    p = [{r["name"]: r for r in c["metrics"]}["auroc"] for c in facts["comparisons"]]
    assert max(x["p_holm"] for x in p) >= max(x["p"] for x in p)
    assert min(x["p_holm"] for x in p) == pytest.approx(min(1, 2 * min(x["p"] for x in p)))
    assert "p (Holm)" in capsys.readouterr().out


def test_a_regression_is_compared_at_its_cuts(store, tmp_path):
    runs = [make_run(tmp_path / name, "regression", seed=seed) for seed, name in enumerate("ab")]
    facts = evaluate(runs[0], store, "--above", "15", "--against", str(runs[1]))
    every = facts["metrics"] + facts["not_computed"]
    names = {r["name"] for r in every if r["subgroup"] is None}
    assert {
        "auroc_above_15",
        "auprc_above_15",
        "sensitivity_above_15",
        "calibration_slope",
    } <= names
    (comparison,) = facts["comparisons"]
    line = next(r for r in comparison["metrics"] if r["name"] == "auroc_above_15")
    assert line["p"] == line["p_holm"] == line["delong"]["p"]
    assert facts["serial"]["order"] == "visit"
    assert facts["serial"]["patients"] > 0
    told = read_table(runs[0] / "evaluation-test/predictions.parquet")
    first = facts["serial"]["shown"][0]
    mine = told["patient_id"] == first["patient"]
    order = np.argsort(told["visit"][mine])
    assert first["measured"] == pytest.approx(told["label"][mine][order])
    assert first["predicted"] == pytest.approx(told["score"][mine][order].astype(float))


def test_an_ensemble_is_scored_beside_its_runs(store, tmp_path, capsys):
    runs = [
        make_run(tmp_path / name, "classification", threshold=15.0, seed=seed)
        for seed, name in enumerate("ab")
    ]
    single = [evaluate(run, store) for run in runs]
    main(["evaluate", *map(str, runs), "--store", str(store), "--bootstrap", "60"])
    folder = runs[0] / "evaluation-test-ensemble-of-2"
    facts = json.loads((folder / "metrics.json").read_text())
    lines = {line["name"]: line for line in facts["ensemble"]["metrics"]}
    for name in ("auroc", "brier", "sensitivity"):
        every = [f["metrics"] + f["not_computed"] for f in single]
        alone = [next(r for r in rows if r["name"] == name) for rows in every]
        if all(r["estimate"] is not None for r in alone):
            assert lines[name]["each"] == pytest.approx([r["estimate"] for r in alone])
        assert lines[name]["mean"] == pytest.approx(np.mean(lines[name]["each"]))
        assert lines[name]["sd"] == pytest.approx(np.std(lines[name]["each"], ddof=1))
    told = read_table(folder / "predictions.parquet")
    np.testing.assert_allclose(
        told["score"], (told["score_run_0"].astype(float) + told["score_run_1"]) / 2, rtol=1e-6
    )
    out = capsys.readouterr().out
    assert "mean of runs" in out
    assert "--split test-ensemble-of-2" in out
    main(["report", str(runs[0]), "--split", "test-ensemble-of-2", "--examples", "1"])


def test_another_store_is_set_beside_the_one_trained_on(store, sites, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    (run / "config.yaml").write_text(f"data: {{paths: [{store}], splits: [train]}}\n")
    facts = evaluate(run, sites)
    assert facts["trained_from"] == [str(store)]
    rows = {r["name"]: r for r in facts["shift"]["rows"]}
    manifest = ECGStore.open(store).manifest
    train = manifest[(manifest["split"] == "train") & manifest["mpcwp"].notna()]
    test = manifest[(manifest["split"] == "test") & manifest["mpcwp"].notna()]
    for name in ("mpcwp", "age", "sex"):
        assert rows[name]["trained"]["mean"] == pytest.approx(train[name].mean())
        assert rows[name]["scored"]["sd"] == pytest.approx(test[name].std())
    pooled = np.sqrt((train["mpcwp"].var() + test["mpcwp"].var()) / 2)
    apart = (test["mpcwp"].mean() - train["mpcwp"].mean()) / pooled
    assert rows["mpcwp"]["standardised"] == pytest.approx(apart)
    assert f"trained on {store}; scored on {sites}" in capsys.readouterr().out


def test_several_classes_are_scored_each_against_the_rest(store, tmp_path, capsys):
    other = tmp_path / "store"
    shutil.copytree(store, other)
    manifest = pd.read_parquet(other / "manifest.parquet")
    manifest["rhythm"] = np.where(manifest["lvef"] < 45, "low", "mid")
    manifest.loc[manifest["lvef"] > 55, "rhythm"] = "high"
    manifest.to_parquet(other / "manifest.parquet")
    names = ("low", "mid", "high")
    runs = [make_run(tmp_path / f"{i}", "multiclass", classes=names, seed=i) for i in range(2)]
    (runs[0] / "config.yaml").write_text(f"data: {{paths: [{other}], splits: [train]}}\n")
    facts = evaluate(runs[0], other, "--against", str(runs[1]))
    found = predict(runs[0], other)
    assert facts["classes"] == list(names)
    called = found["score"].argmax(axis=1)
    both = [[(found["label"] == t) & (called == c) for c in range(3)] for t in range(3)]
    assert facts["confusion"] == np.sum(both, axis=2).tolist()
    every = {r["name"]: r for r in facts["metrics"] + facts["not_computed"] if not r["subgroup"]}
    assert {"auroc_macro", "accuracy", *(f"auroc_of_{name}" for name in names)} <= set(every)
    assert every["auroc_of_mid"]["positives"] == (found["label"] == 1).sum()
    told = read_table(runs[0] / "evaluation-test/predictions.parquet")
    np.testing.assert_array_equal(told["score_high"], found["score"][:, 2])
    (comparison,) = facts["comparisons"]
    assert any(r["name"] == "auroc_of_low" for r in comparison["metrics"])
    main(["report", str(runs[0]), "--examples", "1", "--colours", "age"])
    page = (runs[0] / "report.html").read_text()
    assert "macro AUROC" in page
    assert page.count("neighbours of") == 3
    code, said = fails(capsys, "report", runs[0], "--colours", "ag")
    assert code == 2
    assert "did you mean age?; evaluate with --keep ag first" in said


def test_wrong_columns_and_runs_are_named(store, tmp_path, capsys):
    run = make_run(tmp_path / "run", "regression")
    other = make_run(tmp_path / "other", "classification", threshold=15.0)
    headless = make_run(tmp_path / "headless")
    start = ("evaluate", run, "--store", store, "--bootstrap", 20)
    for words, code, expected in (
        (("--subgroups", "sexx"), 2, "have no column sexx; did you mean sex?"),
        (("--keep", "lvf"), 2, "did you mean lvef?"),
        (("--order", "visits"), 2, "did you mean visit?"),
        (("--subgroups", "age:50,18"), 2, "bounds must be finite and rise"),
        (("--subgroups", "record_id", "--split", "train"), 2, "different texts, 60 are allowed"),
        (("--against", other), 3, "differs from"),
        (("--against", headless), 3, "has no head"),
        (("--against", tmp_path), 3, "no finished run"),
    ):
        got, said = fails(capsys, *start, *words)
        assert got == code, words
        assert expected in said
    got, said = fails(capsys, "evaluate", run, other, "--store", store)
    assert got == 3
    assert "error[ensemble]" in said
