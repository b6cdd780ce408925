"""Tables of biomarkers by the verb, and Cox's model on them against lifelines."""

from __future__ import annotations

import csv
import doctest

import numpy as np
import pytest

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.records import DataError
from ecgfast.data.store import ECGStore, StoreWriter
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.synthetic_patients import WAVES, draw_records
from ecgfast.eval import c_index
from ecgfast.systems import cox_biomarkers
from ecgfast.systems.biomarkers import read_biomarkers
from ecgfast.systems.cox_biomarkers import PENALTIES, fit_cox
from ecgfast.transforms.biomarkers import BIOMARKERS
from python_tests.conftest import shared_data

pandas = pytest.importorskip("pandas")
lifelines = pytest.importorskip("lifelines")
SIGNAL = Signal(fs=250.0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the tables of a module are made once, before it is on."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A SYNTHETIC store with spoilt records, and what the verb wrote of it."""
    folder = tmp_path_factory.mktemp("measured")
    write_cohort(folder / "store", 150, signal=SIGNAL, seed=0, planted_bad=True)
    main(["biomarkers", str(folder / "store"), "--out", str(folder / "table.csv")])
    return folder, ECGStore.open(folder / "store").manifest


def made(rows=400, seed=0):
    """SYNTHETIC: two columns that matter, one that does not."""
    draw = np.random.default_rng(seed)
    x = {
        name: draw.normal(size=rows) * s + m
        for name, s, m in (("a", 1, 0), ("b", 9, 40), ("c", 1, 5))
    }
    hazard = 0.8 * x["a"] - 0.6 * (x["b"] - 40) / 9
    time, censored = draw.exponential(np.exp(-hazard)), draw.exponential(2.0, rows)
    return x, np.minimum(time, censored) + 1e-3, (time <= censored).astype(float), hazard


def test_the_verb_writes_a_row_a_record_and_says_what_is_not_measured(measured, capsys, tmp_path):
    folder, manifest = measured
    main(
        [
            "biomarkers",
            str(folder / "store"),
            "--out",
            str(tmp_path / "again.csv"),
            "--batch-size",
            "7",
        ]
    )
    said = capsys.readouterr().out
    assert (tmp_path / "again.csv").read_bytes() == (folder / "table.csv").read_bytes()
    table = read_biomarkers(folder / "table.csv")
    assert table["record_id"].tolist() == manifest["record_id"].tolist()
    assert table["patient_id"].tolist() == manifest["patient_id"].tolist()
    whole = np.array(table["reason"]) == ""
    assert (~whole).sum() > 0
    assert f"measured {whole.sum()} of {len(whole)} records" in said
    assert "have no biomarkers: missing_samples" in said
    assert "SYNTHETIC" in said
    values = np.stack([table[name] for name in BIOMARKERS])
    assert np.isnan(values[:, ~whole]).all()
    assert np.isfinite(table["heart_rate"][whole]).all()
    missing = int(np.isnan(table["pr_interval"][whole]).sum())
    assert f"pr_interval is missing in {missing} of the measured" in said


def test_a_table_of_another_kind_is_refused(measured, tmp_path):
    folder, _ = measured
    with pytest.raises(DataError, match="there is no"):
        read_biomarkers(tmp_path / "none.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no table of `ecgfast biomarkers`"):
        read_biomarkers(other)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[3][5] = "fast"
    with other.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError, match="fast"):
        read_biomarkers(other)


def test_the_verb_refuses_what_it_cannot_measure(tmp_path, capsys):
    def fails(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in ("biomarkers", *words)])
        return end.value.code, capsys.readouterr().err

    assert fails("--out", tmp_path)[0] == 2
    assert fails("--out", tmp_path / "x.csv", "--batch-size", "0")[0] == 2
    code, said = fails(tmp_path / "nowhere", "--out", tmp_path / "x.csv")
    assert code == 3
    signal = Signal(fs=60.0, seconds=10.0)
    writer = StoreWriter(tmp_path / "slow", signal, made_by={"t": 1}, synthetic=False, plan="p")
    noise = np.random.default_rng(0).normal(size=(12, 600)).astype(np.float32)
    writer.add(noise, record_id="r", patient_id="p", labels={}, source="")
    writer.close()
    code, said = fails(tmp_path / "slow", "--out", tmp_path / "x.csv")
    assert code == 3
    assert "100 Hz or more" in said
    assert not (tmp_path / "x.csv").exists()


def lifelines_hazard(x, time, event, penalty, test):
    """The same model by lifelines itself, on columns standardised by training numbers."""
    train = pandas.DataFrame(x)
    mean, sd = train.mean(), train.std(ddof=0)
    table = (train - mean) / sd
    fitter = lifelines.CoxPHFitter(penalizer=penalty)
    fitter.fit(table.assign(time=time, event=event), "time", "event")
    other = (pandas.DataFrame(test) - mean) / sd
    return fitter.predict_log_partial_hazard(other).to_numpy(), fitter.params_.to_numpy()


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_matches_lifelines_on_made_columns(penalty):
    x, time, event, _ = made()
    test = made(50, seed=1)[0]
    model = fit_cox(x, time, event, penalties=[penalty])
    expected, beta = lifelines_hazard(x, time, event, penalty, test)
    np.testing.assert_allclose(model.beta, beta, rtol=1e-8)
    np.testing.assert_allclose(model.log_hazard(test), expected, atol=1e-7)
    assert model.tried == {}


@pytest.mark.parametrize("name", ["rossi", "gbsg2"])
def test_matches_lifelines_on_public_tables(name):
    table = pandas.read_csv(shared_data("survival", "lifelines", f"{name}.csv"))
    time, event = {"rossi": ("week", "arrest"), "gbsg2": ("time", "cens")}[name]
    numbers = table.select_dtypes("number").drop(columns=[time, event])
    x = {column: numbers[column].to_numpy(float) for column in numbers}
    times, events = table[time].to_numpy(float), table[event].to_numpy(float)
    model = fit_cox(x, times, events, penalties=[0.01])
    expected, beta = lifelines_hazard(x, times, events, 0.01, x)
    np.testing.assert_allclose(model.beta, beta, rtol=1e-6)
    np.testing.assert_allclose(model.log_hazard(x), expected, atol=1e-6)
    assert c_index(model.log_hazard(x), times, events) > 0.6
    chosen = fit_cox(x, times, events)
    assert chosen.penalty == max(chosen.tried, key=chosen.tried.get)


def test_finds_what_matters_and_holds_on_new_records():
    x, time, event, _ = made(800)
    model = fit_cox(x, time, event)
    np.testing.assert_allclose(model.beta, [0.8, -0.6, 0.0], atol=0.15)
    test, later, seen, hazard = made(400, seed=2)
    reached = c_index(model.log_hazard(test), later, seen)
    assert reached > c_index(hazard, later, seen) - 0.02


def test_noise_alone_takes_a_large_penalty_and_signal_a_small_one():
    draw = np.random.default_rng(5)
    rows = 80
    noise = {f"n{i}": draw.normal(size=rows) for i in range(20)}
    time, event = draw.exponential(size=rows) + 1e-3, np.ones(rows)
    weak = fit_cox(noise, time, event)
    x, times, events, _ = made(800)
    strong = fit_cox(x, times, events)
    assert weak.penalty >= 0.3 > 0.03 >= strong.penalty
    assert set(weak.tried) == set(PENALTIES)


def test_missing_values_are_the_training_median_and_scales_are_of_training():
    x, time, event, _ = made()
    holed = {**x, "b": x["b"].copy()}
    holed["b"][::5] = np.nan
    model = fit_cox(holed, time, event, penalties=[0.01])
    assert model.missing.tolist() == [0, 80, 0]
    filled = {**x, "b": np.where(np.isnan(holed["b"]), np.nanmedian(holed["b"]), holed["b"])}
    same = fit_cox(filled, time, event, penalties=[0.01])
    np.testing.assert_allclose(model.beta, same.beta)
    one = {"a": [0.0], "b": [np.nan], "c": [5.0]}
    median = {**one, "b": [np.nanmedian(holed["b"])]}
    assert model.log_hazard(one) == model.log_hazard(median)
    far = {"a": [1e3], "b": [40.0], "c": [5.0]}  # alone it is not standardised to 0
    assert abs(model.log_hazard(far)[0]) > 100


def test_folds_keep_patients_whole_and_spread_events():
    draw = np.random.default_rng(0)
    whose = np.repeat(np.arange(60), 3)
    event = np.repeat((draw.random(60) < 0.2).astype(float), 3)
    fold = cox_biomarkers._folds(whose, event, 5, 0)
    assert all(len(set(fold[whose == k])) == 1 for k in range(60))
    counts = np.bincount(fold, event)
    assert counts.max() - counts.min() <= 3
    assert not np.array_equal(fold, cox_biomarkers._folds(whose, event, 5, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, e: (x, t, 0 * e), "none of 400 records has an event"),
        (lambda x, t, e: ({**x, "c": np.ones(400)}, t, e), "column c is constant in training"),
        (lambda x, t, e: ({**x, "c": np.full(400, np.nan)}, t, e), "column c has no value"),
        (lambda x, t, e: ({**x, "c": np.full(400, np.inf)}, t, e), "infinite values"),
        (lambda x, t, e: ({**x, "c": np.ones(3)}, t, e), "all alike"),
        (lambda x, t, e: (x, -t, e), "finite and positive, 400 of 400"),
        (lambda x, t, e: (x, t, e + 1), "0 or 1"),
        (lambda x, t, e: (x, t[:3], e), r"must be \(400,\), got \(3,\)"),
        (lambda x, t, e: ({}, t, e), "no column at all"),
        (lambda x, t, e: (x, t, (np.arange(400) == 7) * 1.0), "of 2 patients or more, 1 of 400"),
    ],
)
def test_refuses(change, message):
    x, time, event, _ = made()
    with pytest.raises(ValueError, match=message):
        fit_cox(*change(x, time, event))


def test_refuses_new_records_without_a_column_and_columns_that_say_the_same():
    x, time, event, _ = made()
    model = fit_cox(x, time, event, penalties=[0.1])
    with pytest.raises(ValueError, match="no column b"):
        model.log_hazard({"a": [1.0], "c": [1.0]})
    with pytest.raises(ValueError, match="penalty 0"):
        fit_cox({**x, "a again": x["a"]}, time, event, penalties=[0.0])


def test_biomarkers_find_synthetic_hearts_that_conduct_slowly(measured):
    """Times are drawn here, from how QRS was made: the cohort's own events are too few."""
    folder, manifest = measured
    table = read_biomarkers(folder / "table.csv")
    known = table["reason"] == ""
    ids = [name[1:].split("-v") for name in manifest["record_id"]]
    records = draw_records(0, *np.array(ids, dtype=np.int64).T)
    hazard = 20 * np.log(records.width[:, WAVES.index("Q")] / 0.008)
    draw = np.random.default_rng(0)
    time, event = draw.exponential(np.exp(-hazard)), draw.random(len(hazard)) < 0.7
    x = {name: table[name] for name in BIOMARKERS}

    def taken(rows):
        return {name: column[rows] for name, column in x.items()}, time[rows], event[rows]

    train = known & (table["split"] != "test")
    held = known & (table["split"] == "test")
    test, later, seen = taken(held)
    model = fit_cox(*taken(train), groups=table["patient_id"][train])
    reached, best = (c_index(h, later, seen) for h in (model.log_hazard(test), hazard[held]))
    assert best > 0.75
    assert reached > best - 0.06
    order = draw.permutation(int(train.sum()))
    some, times, events = taken(train)
    blind = fit_cox(some, times[order], events[order], groups=table["patient_id"][train])
    assert c_index(blind.log_hazard(test), later, seen) < best - 0.1


def test_examples_run():
    assert doctest.testmod(cox_biomarkers).failed == 0
