"""A named preprocessing from the command line to the checkpoint and back, and in a conversion."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import Encoder, Fit, Optim, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.config import ssl_dml as pretraining
from ecgfast.data.source import open_source
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import write_cohort
from ecgfast.miners.distance import Distance
from ecgfast.systems import finetune, ssl_dml
from ecgfast.systems.parts import settled_recipe
from ecgfast.systems.predict import predict
from ecgfast.testing import make_ecg
from ecgfast.train.contract import ContractError
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from ecgfast.transforms import recipes
from ecgfast.transforms.signal import OneRecord, Prepare
from python_tests.test_data_convert import make, write

SIGNAL = Signal(fs=500, seconds=2, recipe="default")
HOW = Fit(steps=2, batch_size=8, accelerator="cpu", devices=1, progress=False)
DATA = Store(patients=16, splits=("all",))


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    small = {"encoder": Encoder(embedding_dim=8, width=4), "optim": Optim(warmup_steps=0)}
    how = dataclasses.replace(HOW, out=str(out))
    fit(ssl_dml.build, pretraining.Config(signal=SIGNAL, data=DATA, fit=how, **small))
    return out


def test_a_run_keeps_the_words_and_the_scale_of_its_training_records(run):
    kept = json.loads((run / "contract.json").read_text())
    assert kept["signal"]["recipe"] == kept["recipe"]["name"] == "default"
    source = open_source((), ("all",), signal=SIGNAL, patients=16)
    ecg = np.stack([source.millivolts(row) for row in range(len(source))])
    plain = recipes.RECIPES["default"].unscaled().reference(ecg, SIGNAL.fs)
    last = kept["recipe"]["steps"][-1]
    assert last["std"] == pytest.approx(plain.std(), rel=1e-5)
    assert last["mean"] == pytest.approx(plain.mean(), abs=1e-6)
    loaded = finetune.load_run(run)
    got = loaded.prepare(torch.from_numpy(ecg[:4]))
    assert got.shape == (4, 12, 500)  # 2 s at 250 Hz
    expected = (plain[:4] - plain.mean()) / plain.std()
    assert np.abs(got.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


def test_what_was_trained_is_replayed_whatever_the_name_comes_to_mean(run, monkeypatch):
    before = predict(run, splits=("all",), patients=6)["embedding"]
    other = dataclasses.replace(recipes.RECIPES["neurokit"], name="default")
    monkeypatch.setitem(recipes.RECIPES, "default", other)
    assert np.array_equal(predict(run, splits=("all",), patients=6)["embedding"], before)


def test_fine_tuning_takes_the_encoders_recipe_and_its_scale(run, tmp_path):
    config = tuning.Config(
        init=str(run),
        data=Store(patients=16),
        hidden=4,
        fit=dataclasses.replace(HOW, out=str(tmp_path / "tuned")),
    )
    fit(finetune.build, config)
    first, second = (
        json.loads((folder / "contract.json").read_text()) for folder in (run, tmp_path / "tuned")
    )
    assert first["recipe"] == second["recipe"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: kept["recipe"].update(name="other"), "is not signal.recipe"),
        (lambda kept: kept.update(recipe=None), "missing or extra"),
        (lambda kept: kept["recipe"]["steps"][0].update(step="Explode"), "unknown step 'Explode'"),
        (lambda kept: kept["recipe"]["steps"][1].update(high=900.0), "900"),
        (lambda kept: kept["recipe"]["steps"][-1].update(std=0.0), "std"),
        (lambda kept: kept["recipe"].update(steps=7), "."),
        (lambda kept: kept["recipe"]["steps"][0].update(fs="fast"), "."),
    ],
)
def test_words_that_somebody_changed_are_refused(run, tmp_path, change, message):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    kept = json.loads((run / "contract.json").read_text())
    change(kept)
    (folder / "contract.json").write_text(json.dumps(kept))
    with pytest.raises(ContractError, match=message):
        finetune.load_run(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "defualt"}, "unknown recipe 'defualt'; known are default"),
        ({"recipe": "st_mem"}, "cannot keep 9 s"),
    ],
)
def test_a_recipe_that_cannot_be_done_ends_the_run_before_it_begins(tmp_path, change, message):
    signal = dataclasses.replace(SIGNAL, **change)
    source = open_source((), ("all",), signal=signal, patients=4)
    with pytest.raises(RunError, match=message) as failed:
        settled_recipe(signal, source)
    assert failed.value.code == 2


def test_a_cut_off_beyond_half_the_rate_is_refused():
    default = recipes.RECIPES["default"]
    as_it_comes = dataclasses.replace(default, words=default.words[1:])  # without its resampling
    with pytest.raises(ValueError, match=r"recipe 'default'.*40"):
        as_it_comes.result(60.0, 120)


def test_flat_training_records_give_no_scale():
    source = open_source((), ("all",), signal=SIGNAL, patients=4)
    for part in source.dataset.parts:
        part.ecg.zero_()
    with pytest.raises(RunError, match="training records are flat"):
        settled_recipe(SIGNAL, source)


def test_a_signal_is_filtered_once():
    with pytest.raises(ValueError, match="takes the place of band"):
        Signal(recipe="default", notch=50.0)
    with pytest.raises(ValueError, match="have been through recipe neurokit; filter them once"):
        Signal(stored_recipe="neurokit", recipe="default")
    Signal(stored_recipe="neurokit", normalise="lead")


def test_a_conversion_records_the_recipe_that_its_records_went_through(tmp_path, capsys):
    ecg = make(3)
    ecg[4, 50:60] = np.nan
    for n, signal in enumerate([make(1), make(2), ecg]):
        write(tmp_path / "src", f"r{n}", signal)
    store = tmp_path / "store"
    words = ["convert", str(tmp_path / "src"), str(store), "--fs", "200", "--seconds", "2"]
    main([*words, "--recipe", "default", "--policy", "nan_values=keep"])
    assert "its scale of a training set is left to training" in capsys.readouterr().out
    opened = ECGStore.open(store)
    kept = opened.about["contract"]
    assert (kept["fs"], kept["units"], kept["recipe"]["name"]) == (250, "mV", "default")
    assert opened.signal == Signal(fs=250, seconds=2, stored_recipe="default")
    plain = recipes.RECIPES["default"].unscaled()
    got, expected = opened.read(0), plain.reference(make(1)[None], 200)[0]
    assert np.abs(got - expected).max() <= 2e-3  # steps of 1 uV in the source
    holes = np.isnan(opened.read(2))
    assert holes.sum() in (12, 13)  # 10 samples at 200 Hz
    assert holes[4].sum() == holes.sum()

    with pytest.raises(SystemExit) as usage:
        main([*words[:2], str(tmp_path / "other"), "--recipe", "defualt"])
    assert usage.value.code == 2
    assert "unknown recipe 'defualt'; known are default" in capsys.readouterr().err


def test_training_on_such_a_store_must_say_so(tmp_path):
    for n in range(10):
        write(tmp_path / "src", f"r{n}", make(n))
    store = tmp_path / "store"
    words = ["convert", str(tmp_path / "src"), str(store), "--fs", "200", "--seconds", "2"]
    main([*words, "--recipe", "neurokit"])
    how = dataclasses.replace(HOW, out=str(tmp_path / "run"))
    data = Store(paths=(str(store),), splits=("all",))
    signal = Signal(fs=200, seconds=2)
    small = {"data": data, "encoder": Encoder(embedding_dim=8, width=4), "fit": how}
    with pytest.raises(ContractError, match=r"stored_recipe: --signal expects none, .* neurokit"):
        ssl_dml.build(pretraining.Config(signal=signal, **small))
    signal = dataclasses.replace(signal, stored_recipe="neurokit", normalise="lead")
    ssl_dml.build(pretraining.Config(signal=signal, **small))
    write_cohort(tmp_path / "raw", 4, signal=Signal(fs=200, seconds=2), seed=0)
    data = dataclasses.replace(data, paths=(str(tmp_path / "raw"),))
    with pytest.raises(ContractError, match="stored_recipe"):
        ssl_dml.build(pretraining.Config(signal=signal, **{**small, "data": data}))


def test_mining_is_at_the_rate_and_in_the_band_of_the_prepared_signal():
    small = {"data": DATA, "fit": HOW, "encoder": Encoder(embedding_dim=8, width=4)}
    config = pretraining.Config(signal=SIGNAL, mine_fs=100.0, dtw_radius=0.3, **small)
    distance = ssl_dml.build(config).method.pool.distance
    assert (distance.resample, distance.radius) == ((2, 5), 30)  # the recipe has made it 250 Hz
    with pytest.raises(RunError, match=r"\(0, fs = 250\], got 400 \(--mine_fs\)"):
        ssl_dml.build(pretraining.Config(signal=SIGNAL, mine_fs=400.0, **small))


def test_a_run_logs_the_share_of_mining(run):
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 < float(row["mining"]) < 1 for row in rows)


def test_every_distance_can_be_asked_for(tmp_path):
    known = get_args(get_type_hints(pretraining.Config)["distance"])
    assert set(known) == {*get_args(Distance), "embedding"}
    how = dataclasses.replace(HOW, out=str(tmp_path), steps=1)
    small = {"data": DATA, "encoder": Encoder(embedding_dim=8, width=4), "mine_fs": 50.0}
    signal = Signal(fs=100, seconds=2)
    fit(ssl_dml.build, pretraining.Config(signal=signal, distance="soft_dtw", fit=how, **small))
    assert (tmp_path / "encoder.safetensors").exists()


def test_a_record_without_beats_is_nothing_and_ends_no_batch():
    recipe = recipes.recipe_named("dual_attention")
    ecg = make_ecg(3, leads=1, samples=5000).repeat(1, 12, 1)
    ecg[1] = 0.5
    prepare = Prepare(fs=500, recipe=recipe)
    alone = prepare(ecg[::2])
    assert alone.isfinite().all()
    made = prepare(ecg)
    assert torch.equal(made[::2], alone)
    assert made[1].isnan().all()
    with pytest.raises(ValueError, match="1 of 3 records have fewer than 3 whole beats"):
        Prepare(fs=500, recipe=recipe, poor="raise")(ecg)
    with pytest.raises(ValueError, match="fewer than 3 whole beats"):
        OneRecord(recipe)(ecg[1].double().numpy(), 500)
