"""`ecgfast predict` and `ecgfast calibrate`: files as the store has them, and bad ones named."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import LEADS, Signal
from ecgfast.data.records import DataError
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import make_cohort, write_cohort
from ecgfast.systems.intervals import half_width
from ecgfast.systems.model import load
from ecgfast.systems.predict import predict
from python_tests.conftest import shared_data
from python_tests.small_run import SIGNAL, make_run


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, 130, signal=Signal(seconds=2.0), seed=3, planted_bad=False)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def files(tmp_path):
    """Four SYNTHETIC records in text columns, with awkward names."""
    folder = tmp_path / "records"
    folder.mkdir()
    ecg, _ = make_cohort(4, signal=SIGNAL, seed=1)
    names = ["plain.csv", "with space, and comma.csv", "ünïcode.csv", "new\nline.csv"]
    for name, record in zip(names, ecg, strict=False):
        np.savetxt(folder / name, record.T, delimiter=",", header=",".join(LEADS), comments="")
    return folder


AS_TEXT = ["--format", "text", "--fs-source", "250", "--units", "mV"]


def told(tmp_path, *words, code=0):
    """The JSON and the CSV of a command."""
    out = [str(tmp_path / "out.json"), str(tmp_path / "out.csv")]
    try:
        main(["predict", *map(str, words), "--json", out[0], "--csv", out[1]])
    except SystemExit as left:
        assert left.code == code  # noqa: PT017
    else:
        assert code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads(
        (tmp_path / "out.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} in JSON"),
    )
    return content, rows


def fails(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, capsys.readouterr().err


def test_a_file_gets_what_its_record_in_a_store_gets(run, files, tmp_path):
    main(["convert", str(files), str(tmp_path / "store"), "--seconds", "2", *AS_TEXT])
    facts, rows = told(tmp_path, run, files, *AS_TEXT)
    assert facts["schema"] == "ecgfast.predict/1"
    assert facts["counts"] == {"records": 4, "predicted": 4, "failed": {}, "noticed": {}}
    of_store, _ = told(tmp_path, run, tmp_path / "store")
    mine = {row["record_id"]: row["estimate"] for row in facts["records"]}
    assert mine == {row["record_id"]: row["estimate"] for row in of_store["records"]}
    assert set(mine) == {"plain", "with space, and comma", "ünïcode", "new\\x0aline"}
    assert len(set(mine.values())) == 4
    assert [float(row["estimate"]) for row in rows] == list(mine.values())
    # the same by hand: millivolts of the file into the loaded model
    ecg, _ = make_cohort(4, signal=SIGNAL, seed=1)
    by_hand = load(run)(ecg[:4])["score"].numpy()
    assert np.sort(by_hand) == pytest.approx(np.sort(list(mine.values())), abs=2e-3)


def test_a_batch_does_not_show(run, files, tmp_path):
    one, _ = told(tmp_path, run, files, *AS_TEXT, "--batch-size", "1")
    all_, _ = told(tmp_path, run, files, *AS_TEXT)
    alone, together = ([row["estimate"] for row in facts["records"]] for facts in (one, all_))
    assert alone == pytest.approx(together, rel=1e-5)


def test_the_model_says_what_evaluate_scores(store, tmp_path):
    for task, more in [("regression", {}), ("classification", {"threshold": 15.0})]:
        run = make_run(tmp_path / task, task, **more)
        scored = predict(run, store)
        model, opened = load(run), ECGStore.open(store)
        rows = opened.select(("test",), "mpcwp")
        ecg = np.stack([opened.steps(row) for row in rows])
        said = model(ecg, np.array([opened.gain(row) for row in rows]))
        np.testing.assert_allclose(said["score"], scored["score"], rtol=1e-5)
        np.testing.assert_allclose(said["embedding"], scored["embedding"], rtol=1e-4, atol=1e-5)


def test_one_bad_file_ends_nothing(run, files, tmp_path, capsys):
    good = (files / "plain.csv").read_text().splitlines()
    (files / "empty.csv").write_text("")
    (files / "prose.txt").write_text("this is no ECG\nat all")
    (files / "noise.txt").write_bytes(np.random.default_rng(0).bytes(4000))
    (files / "cut.csv").write_text("\n".join([*good[:200], good[200][:20]]))
    (files / "gaps.csv").write_text("\n".join([*good[:200], "," * 11, *good[200:]]))
    (files / "leads.csv").write_text("\n".join(",".join(row.split(",")[:6]) for row in good))
    (files / "flat.csv").write_text("\n".join([good[0], *["0" + ",0" * 11] * 500]))
    paths = [files, files / "plain.csv", tmp_path / "nothing.hea"]
    facts, rows = told(tmp_path, run, *paths, *AS_TEXT)
    by_name = {row["record_id"]: row for row in facts["records"]}
    said = {name: row["error"] for name, row in by_name.items()}
    assert said == {
        "": "no_source",
        "cut": "unreadable",
        "empty": "empty_file",
        "flat": "flat_line",
        "gaps": "nan_values",
        "leads": "missing_leads",
        "new\\x0aline": None,
        "noise": "unreadable",
        "plain": None,
        "prose": "unreadable",
        "ünïcode": None,
        "with space, and comma": None,
    }
    assert len(rows) == len(by_name) == 12  # a file that is named twice is predicted once
    assert facts["counts"]["predicted"] == 4
    assert sum(facts["counts"]["failed"].values()) == 8
    gaps = by_name["gaps"]["issues"][0]
    assert (gaps["count"], gaps["total"]) == (1, 500)
    assert "--leads NAMES" not in by_name["leads"]["issues"][0]["message"]
    assert "--policy missing_leads=keep" in by_name["leads"]["issues"][0]["message"]
    printed = capsys.readouterr().out
    assert "predicted 4 of 12 records" in printed
    assert "nan_values" in printed
    assert "for research only" in printed
    assert "SYNTHETIC" in printed

    kept, _ = told(tmp_path, run, files, *AS_TEXT, "--policy", "nan_values=keep,missing_leads=keep")
    by_name = {row["record_id"]: row for row in kept["records"]}
    assert by_name["gaps"]["estimate"] is not None
    assert [issue["name"] for issue in by_name["leads"]["issues"]] == ["missing_leads"]
    assert kept["counts"]["noticed"]["missing_leads"] == 1


def test_leads_can_be_derived(run, files, tmp_path):
    whole = (files / "plain.csv").read_text().splitlines()
    cut = [",".join(c for i, c in enumerate(row.split(",")) if i not in (2, 4)) for row in whole]
    (files / "plain.csv").write_text("\n".join(cut))
    facts, _ = told(tmp_path, run, files / "plain.csv", *AS_TEXT, code=3)
    assert "--derive-leads" in facts["records"][0]["issues"][0]["message"]
    facts, _ = told(tmp_path, run, files / "plain.csv", *AS_TEXT, "--derive-leads")
    assert facts["records"][0]["issues"][0]["name"] == "derived_leads"


def test_nothing_read_leaves_with_three(run, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("no")
    facts, _ = told(tmp_path, run, tmp_path / "x.txt", code=3)
    assert facts["counts"] == {
        "records": 1,
        "predicted": 0,
        "failed": {"unreadable": 1},
        "noticed": {},
    }
    assert "error[no_prediction]" in capsys.readouterr().err


def test_an_ensemble_is_the_mean_of_its_members(run, files, tmp_path, capsys):
    other = make_run(tmp_path / "other", seed=1)
    alone = [told(tmp_path, one, files, *AS_TEXT)[0]["records"] for one in (run, other)]
    facts, _ = told(tmp_path, run, files, *AS_TEXT, "--ensemble", other)
    for a, b, both in zip(*alone, facts["records"], strict=True):
        assert both["members"] == [a["estimate"], b["estimate"]]
        assert both["estimate"] == pytest.approx((a["estimate"] + b["estimate"]) / 2)
    assert [one["run"] for one in facts["runs"]] == [str(run), str(other)]
    of_class = make_run(tmp_path / "class", "classification", threshold=15.0)
    code, said = fails(capsys, "predict", run, files, "--ensemble", of_class)
    assert code == 3
    assert "task.kind" in said


def test_a_class_has_a_probability(files, tmp_path, capsys):
    run = make_run(tmp_path / "class", "classification", threshold=15.0)
    facts, rows = told(tmp_path, run, files, *AS_TEXT)
    assert all(0 < row["probability"] < 1 for row in facts["records"])
    assert {row["estimate"] for row in rows} == {""}
    assert "probability of mPCWP > 15 mmHg" in capsys.readouterr().out
    code, said = fails(capsys, "calibrate", run)
    assert code == 3
    assert "intervals are of a regression's values" in said


def test_the_interval_is_measured_on_held_out_patients(store, run, files, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(run, own)
    facts, _ = told(tmp_path, own, files, *AS_TEXT)
    assert facts["interval"] is None
    assert "ecgfast calibrate" in facts["no_interval"]
    main(["calibrate", str(own), "--store", str(store), "--level", "0.9"])
    assert "holds 90 % of new patients" in capsys.readouterr().out
    scored = predict(own, store, splits=("val",))
    facts, _ = told(tmp_path, own, files, *AS_TEXT)
    width = facts["interval"]["half_width"]
    errors = np.abs(scored["score"] - scored["label"])
    assert np.isclose(errors, width, rtol=1e-4).any()  # the error of one of its patients
    assert facts["interval"]["patients"] == len(set(scored["patient_id"]))
    assert facts["interval"]["synthetic"] is True
    for row in facts["records"]:
        assert row["upper"] - row["estimate"] == pytest.approx(width)
        assert row["estimate"] - row["lower"] == pytest.approx(width)

    other = make_run(tmp_path / "other", seed=1)  # other weights have another interval
    shutil.copy(own / "intervals.json", other / "intervals.json")
    facts, _ = told(tmp_path, other, files, *AS_TEXT)
    assert facts["interval"] is None
    assert "other weights" in facts["no_interval"]
    main(["calibrate", str(own), "--ensemble", str(other), "--store", str(store)])
    kept = json.loads((own / "intervals.json").read_text())["intervals"]
    assert [one["level"] for one in kept] == [0.9, 0.95]
    assert told(tmp_path, own, files, *AS_TEXT)[0]["interval"]["level"] == 0.9
    both, _ = told(tmp_path, own, files, *AS_TEXT, "--ensemble", other)
    assert both["interval"]["level"] == 0.95


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"version": 2, "intervals": []}', '{"version": 1, "intervals": [{}]}', "NaN"],
)
def test_a_foreign_interval_is_not_believed(run, files, tmp_path, capsys, content):
    own = tmp_path / "own"
    shutil.copytree(run, own)
    (own / "intervals.json").write_text(content)
    code, said = fails(capsys, "predict", own, files)
    assert code == 3
    assert "error[intervals]" in said


def test_the_interval_refuses_what_was_trained_on(store, tmp_path, capsys):
    ids = ECGStore.open(store).manifest.query("split == 'val' and mpcwp == mpcwp")["record_id"]
    run = make_run(tmp_path / "run", seen=ids.tolist()[:2])
    code, said = fails(capsys, "calibrate", run, "--store", store)
    assert code == 3
    assert "error[contamination] 2 of" in said
    assert not (run / "intervals.json").exists()


def test_the_quantile_takes_one_record_a_patient():
    errors = np.arange(1.0, 40.0)
    names = [f"r{i}" for i in range(39)]
    assert half_width(errors, names, names, level=0.95) == (38.0, 39)  # the 38th of 39
    assert half_width(errors[:19], names[:19], names[:19], level=0.95) == (19.0, 19)
    with pytest.raises(DataError, match=r"18 patients; an interval of 95 % needs 19 or more"):
        half_width(errors[:18], names[:18], names[:18], level=0.95)
    with pytest.raises(DataError, match="1 of 39 errors"):
        half_width(np.where(errors == 5, np.nan, errors), names, names, level=0.95)
    # a patient with a hundred bad records counts once
    many = np.concatenate([errors, np.full(100, 1e3)])
    patient = [*names, *["x"] * 100]
    ids = [f"r{i}" for i in range(139)]
    assert half_width(many, patient, ids, level=0.9) == (37.0, 40)


def test_the_interval_holds_what_it_promises():
    draw = np.random.default_rng(0)
    held, level, patients = [], 0.8, 30
    for trial in range(400):
        visits = draw.integers(1, 12, patients + 1)
        whose = np.repeat(np.arange(patients + 1), visits)
        # errors belong to the patient, and patients with many visits are the harder ones
        errors = (draw.standard_t(3, patients + 1) * visits)[whose] + 0.1 * draw.normal(
            size=len(whose)
        )
        new = np.flatnonzero(whose == patients)
        old = whose < patients
        ids = [f"{trial}-{i}" for i in range(old.sum())]
        width, _ = half_width(errors[old], whose[old].tolist(), ids, level=level)
        held.append(abs(errors[draw.choice(new)]) <= width)
    exact = np.ceil((patients + 1) * level) / (patients + 1)
    allowed = 3.5 * np.sqrt(exact * (1 - exact) / len(held))
    assert abs(np.mean(held) - exact) < allowed


def test_what_is_wrong_is_said_in_a_sentence(run, files, tmp_path, capsys):
    headless = make_run(tmp_path / "headless", None)
    code, said = fails(capsys, "predict", headless, files)
    assert code == 3
    assert "has no head" in said
    code, said = fails(capsys, "predict", run, files, "--json", tmp_path / "no" / "x.json")
    assert code == 2
    assert "no such folder" in said
    code, said = fails(capsys, "predict", run, files, "--device", "quantum")
    assert code == 4
    code, said = fails(capsys, "predict", tmp_path, files)
    assert code == 3
    assert "no finished run" in said
    stored = make_run(
        tmp_path / "stored", signal=Signal(seconds=2.0, stored_recipe="ptbxl_benchmark")
    )
    code, said = fails(capsys, "predict", stored, files, *AS_TEXT)
    assert code == 3
    assert "--recipe ptbxl_benchmark" in said
    code, said = fails(capsys, "calibrate", run, "--level", 1)
    assert code == 2


def test_the_loaded_model_refuses_other_shapes(run):
    model = load(run)
    with pytest.raises(ValueError, match=r"ecg must be \(N, 12, 500\), got \(12, 500\)"):
        model(torch.zeros(12, 500))
    assert model(torch.zeros(0, 12, 500))["score"].shape == (0,)
    assert not model.train().training
    broken = torch.zeros(1, 12, 500)
    broken[0, 3, 10:20] = torch.nan
    assert model(broken)["score"].isfinite().all()


def test_dropout_at_test_is_drawn_alike(tmp_path):
    model = load(make_run(tmp_path / "run", dropout_at_test=True))
    ecg = torch.randn(4, 12, 500)
    before = torch.get_rng_state()
    first = model(ecg)["score"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model(ecg)["score"], first)
    still = load(make_run(tmp_path / "still"))
    assert not torch.equal(still(ecg)["score"], first)


@pytest.mark.parametrize(
    ("folder", "more", "count"),
    [
        ("ptb-xl-500/records500/00000", [], 10),
        ("challenge-2021/georgia", [], 10),
    ],
)
def test_real_records_are_predicted(run, tmp_path, folder, more, count):
    path = shared_data(*folder.split("/"))
    if path.is_dir():  # the first few: headers and their samples
        for name in sorted(path.rglob("*.hea"))[:10]:
            for beside in name.parent.glob(f"{name.stem}.*"):
                shutil.copy(beside, tmp_path / beside.name)
        path = tmp_path
    facts, _ = told(tmp_path, run, path, *more)
    counts = facts["counts"]
    assert counts["records"] == count
    assert counts["predicted"] + sum(counts["failed"].values()) == count
    assert counts["predicted"] >= 0.5 * count
