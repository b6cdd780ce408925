"""The baselines as whole runs on a store: who is paired, what is kept, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import importlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecgfast.config import Augment, Encoder, Fit, Optim, Projector, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.data.records import DataError
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import write_cohort
from ecgfast.systems import finetune
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit

SIGNAL = Signal(seconds=2.0, band=(1.0, 30.0))
VIEWS = Augment(crop_s=1.0, mask_count=(1, 1), mask_s=(0.2, 0.4))
HOW = Fit(steps=4, batch_size=8, log_every=1, accelerator="cpu", devices=1, progress=False)
SYSTEMS = ["simclr", "cmsc", "pclr", "vicreg"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "store"
    write_cohort(out, 30, signal=SIGNAL, seed=0)
    return out


def config(system, out="runs/none", **words):
    module = importlib.import_module(f"ecgfast.config.{system}")
    how = {"steps": words.pop("steps", 4), "batch_size": words.pop("batch_size", 8)}
    base = {"signal": SIGNAL, "encoder": Encoder(embedding_dim=8, width=4)}
    base["optim"] = Optim(lr=1e-3, warmup_steps=0, schedule="constant")
    if system in ("simclr", "vicreg"):
        base["augment"] = VIEWS
    if system == "vicreg":
        base["projector"] = Projector(dim=16, hidden=16, layers=3, batch_norm=True)
    return module.Config(
        **{**base, "fit": dataclasses.replace(HOW, out=str(out), **how), **words},
    )


def build(system, **words):
    built = importlib.import_module(f"ecgfast.systems.{system}").build
    return built(config(system, **words))


def train(system, out, **words):
    fit(importlib.import_module(f"ecgfast.systems.{system}").build, config(system, out, **words))
    return out


@pytest.mark.parametrize("system", SYSTEMS)
def test_from_a_store_to_a_fine_tuned_encoder(tmp_path, store, system, capsys):
    data = Store(paths=(str(store),), splits=("all",))
    whole = train(system, tmp_path / "whole", data=data)
    train(system, tmp_path / "cut", data=data, steps=2)
    cut = train(system, tmp_path / "cut", data=data)
    weights = whole / "encoder.safetensors"
    assert weights.read_bytes() == (cut / "encoder.safetensors").read_bytes()  # resumes, repeats
    with (whole / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == list("1234")
    for name in ("loss", "embedding_std", "similarity", "similarity_others"):
        assert np.isfinite([float(row[name]) for row in rows]).all(), name
    assert not [name for name in load_file(weights) if "projector" in name]

    capsys.readouterr()
    tuned = tuning.Config(
        init=str(whole),
        data=Store(paths=(str(store),)),
        freeze=True,
        hidden=0,
        fit=dataclasses.replace(HOW, out=str(tmp_path / "tuned")),
    )
    fit(finetune.build, tuned)
    assert "122 of 122 weights matched, 0 missing, 0 unexpected" in capsys.readouterr().out
    tuned = load_contract(tmp_path / "tuned")
    assert tuned.pretrained_on.salt == load_contract(whole).trained_on.salt


def test_pclr_pairs_records_of_a_patient_and_says_who_is_left_out(store, capsys):
    run = build("pclr", data=Store(paths=(str(store),), splits=("all",)))
    table = ECGStore.open(store).manifest
    table = table[table["split"] != "test"]
    visits = table["patient_id"].value_counts()
    kept = table[table["patient_id"].map(visits) > 1]
    assert 0 < len(kept) < len(table)
    assert capsys.readouterr().out.startswith(
        f"pairs: {len(kept)} records of {(visits > 1).sum()} patients; {(visits == 1).sum()} "
        "patients with one record are left out"
    )
    assert len(run.contract.trained_on.hashes) == len(kept)
    sampler = run.data.sampler()
    seen = set()
    for step in range(20):
        rows = sampler.batch(step)
        items = [run.data.dataset[row] for row in rows]
        patients = [int(item["patient"]) for item in items]
        assert patients[:4] == patients[4:]
        assert len(set(patients)) == 4
        assert all(a != b for a, b in zip(rows[:4], rows[4:], strict=True))
        seen |= set(rows)
    assert len(seen) == len(kept)


def test_pclr_pairs_the_lone_with_themselves_if_asked(store, capsys):
    data = Store(paths=(str(store),), splits=("all",))
    run = build("pclr", data=data, lone="augment", augment=VIEWS)
    assert "left out" not in capsys.readouterr().out
    rows = [run.data.sampler().batch(step) for step in range(20)]
    assert len(run.data.dataset) == len(run.contract.trained_on.hashes)
    lone = [a for batch in rows for a, b in zip(batch[:4], batch[4:], strict=True) if a == b]
    assert lone
    item = run.data.dataset[lone[0]]
    one = {key: torch.stack([value] * 2) for key, value in item.items()}
    views = run.method.augment(run.data.prepare(one)["ecg"])
    assert not torch.equal(views[0], views[1])


def test_no_patient_with_two_records_is_an_error_with_a_way_out():
    with pytest.raises(DataError, match=r"error\[pairs\] no patient has two records: 1 records"):
        build("pclr", data=Store(splits=("all",), patients=5, limit=1))


def test_views_that_do_not_fit_the_records_are_refused():
    data = Store(splits=("all",), patients=5)
    for views, words in (
        (Augment(crop_s=2.5), r"crop_s 2.5 s is longer than a record, 2 s .*--augment.crop_s"),
        (Augment(shift_s=3.0), "shift_s 3 s is longer than a record"),
        (Augment(crop_s=0.5, mask_count=(0, 1), mask_s=(0.1, 0.7)), "mask_s reaches 0.7 s"),
        (Augment(flip_p=1.5), r"flip_p must be in \[0, 1\]"),
    ):
        with pytest.raises(RunError, match=words) as caught:
            build("simclr", data=data, augment=views)
        assert caught.value.code == 2
    with pytest.raises(RunError, match=r"crop_s 1\.5 s is longer than one of 2 parts of a record"):
        build("cmsc", data=data, augment=Augment(crop_s=1.5))


def test_views_are_timed_by_the_rate_that_a_recipe_leaves():
    signal = Signal(seconds=10.0, fs=500.0, recipe="ssldml")
    data = Store(splits=("all",), patients=3)
    run = build("simclr", signal=signal, data=data, augment=Augment(crop_s=4.0), batch_size=2)
    batch = {"ecg": torch.stack([run.data.dataset[row]["ecg"] for row in (0, 1)])}
    prepared = run.data.prepare(batch)["ecg"]
    seconds = 4.0 * prepared.shape[-1] / run.method.augment(prepared).shape[-1]
    assert prepared.shape[-1] != 5000
    assert seconds == pytest.approx(prepared.shape[-1] / run.method.augment.spec.fs)


@pytest.mark.parametrize(
    ("system", "words", "message"),
    [
        ("simclr", {"augment": Augment()}, "both views of a record would be the same"),
        ("simclr", {"augment": Augment(mask_s=(0.2, 0.3))}, "both views of a record"),
        ("simclr", {"temperature": 0.0}, "temperature must be positive"),
        ("simclr", {"batch_size": 1}, "a batch of 2 or more, got 1"),
        ("vicreg", {"augment": Augment()}, "both views of a record would be the same"),
        ("vicreg", {"covariance": -1.0}, "covariance must be at least 0"),
        ("vicreg", {"batch_size": 1}, "a variance needs a batch of 2 or more"),
        ("cmsc", {"mask_patients": True}, "mask_patients goes with positives: record"),
        ("cmsc", {"batch_size": 1}, "a batch of 2 or more, got 1"),
        ("pclr", {"batch_size": 7}, "must be even and 4 or more, got 7"),
        ("pclr", {"batch_size": 2}, "must be even and 4 or more, got 2"),
        ("pclr", {"lone": "augment"}, "augment draws nothing"),
    ],
)
def test_settings_that_cannot_teach_are_refused(system, words, message):
    with pytest.raises(ValueError, match=message):
        config(system, **words)


@pytest.mark.parametrize(
    "words", [{"dim": 0}, {"layers": -1}, {"layers": 0, "dim": 8}, {"hidden": -2}], ids=str
)
def test_a_projector_of_impossible_sizes_is_refused(words):
    with pytest.raises(ValueError, match=r"projector\."):
        Projector(**words)


def test_every_default_that_draws_is_known_to_draw():
    assert not Augment().draws
    for words in ({"crop_s": 5.0}, {"noise_mv": (0.0, 0.1)}, {"lead_dropout_p": 0.1}):
        assert Augment(**words).draws
