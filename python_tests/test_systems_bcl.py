"""BCL as whole runs: who is paired and when, what is drawn, what is kept, what is refused."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from ecgfast.config import Fit, Optim, Projector, Signal, Store
from ecgfast.config import finetune as tuning
from ecgfast.config.bcl import Config
from ecgfast.config.pages import PageNet, PageViews
from ecgfast.data.convert import Plan, convert
from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import write_cohort
from ecgfast.ops import rasterize_ecg
from ecgfast.systems import bcl, finetune
from ecgfast.systems.embed import embed_stores, open_embeddings
from ecgfast.systems.model import load
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from python_tests.conftest import shared_data

SIGNAL = Signal(seconds=2.0, band=(1.0, 30.0))
NET = PageNet(net="efficientnet-b0", size=48)
HOW = Fit(steps=4, batch_size=8, log_every=1, accelerator="cpu", devices=1, progress=False)
DATA = Store(splits=("all",), patients=20)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def config(out="runs/none", *, steps=4, batch_size=8, micro_batch=0, **words):
    how = {"steps": steps, "batch_size": batch_size, "micro_batch": micro_batch, "out": str(out)}
    base = {
        "signal": SIGNAL,
        "data": DATA,
        "encoder": NET,
        "views": PageViews(looks=4, shuffles=2),
        "projector": Projector(dim=8, hidden=16),
        "optim": Optim(lr=1e-3, warmup_steps=0, schedule="constant"),
    }
    return Config(**{**base, "fit": dataclasses.replace(HOW, **how), **words})


@pytest.fixture
def dated(monkeypatch):
    """Gives the SYNTHETIC cohort dates: visits of a patient lie 10 days apart; one has none."""
    opened = bcl.open_records

    def open_records(config):
        source: Source = opened(config)
        days = pd.Timestamp("2020-01-01") + pd.to_timedelta(10 * source.table["visit"], unit="D")
        text = days.dt.strftime("%Y-%m-%d %H:%M:%S").where(source.table.index != 0, "")
        return dataclasses.replace(source, table=source.table.assign(recording_date=text))

    monkeypatch.setattr(bcl, "open_records", open_records)


def test_pages_of_a_patient_are_pretrained_fine_tuned_and_embedded(tmp_path, capsys):
    store = tmp_path / "store"
    write_cohort(store, 20, signal=SIGNAL, seed=0)
    data = Store(paths=(str(store),), splits=("all",))
    fit(bcl.build, config(tmp_path / "run", data=data, micro_batch=4))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "embedding_std", "similarity", "similarity_others"):
        assert np.isfinite([float(row[name]) for row in rows]).all(), name
    contract = load_contract(tmp_path / "run")
    assert contract.model["class"] == "PageEncoder"
    assert contract.model["arguments"]["embedding_dim"] == 1280
    assert contract.model["arguments"]["leads"] == ",".join(SIGNAL.leads)
    assert contract.synthetic
    capsys.readouterr()
    tuned = tuning.Config(
        init=str(tmp_path / "run"),
        data=Store(paths=(str(store),)),
        freeze=True,
        hidden=0,
        fit=dataclasses.replace(HOW, steps=2, out=str(tmp_path / "tuned")),
    )
    fit(finetune.build, tuned)
    assert "358 of 358 weights matched, 0 missing, 0 unexpected" in capsys.readouterr().out
    loaded = finetune.load_run(tmp_path / "tuned")
    assert loaded.head is not None
    model = load(tmp_path / "run")
    embed_stores(model, [str(store)], tmp_path / "embedded")
    found = open_embeddings(tmp_path / "embedded", model)
    source = open_source([str(store)], ("train", "val", "test"), signal=SIGNAL, patients=0)
    assert found.rows.shape == (len(source), 1280)
    name = source.names([3])[0]
    ready = model.prepare(torch.from_numpy(source.millivolts(3))[None])
    page = rasterize_ecg(ready, fs=250, layout="3x4+1", size=(48, 48)).images
    row = found.rows[found.table["record_id"].tolist().index(name)]
    alone = model.network.encoder(page).detach().numpy()[0]
    np.testing.assert_allclose(row, alone, rtol=1e-3, atol=1e-4)


def test_pairs_lie_the_gap_apart_and_the_log_says_who_is_left_out(dated, capsys):
    run = bcl.build(config(min_gap=15.0))
    said = capsys.readouterr().out
    everyone = bcl.open_records(config())
    patients, visits = everyone.column("patient_id"), everyone.column("visit")
    when = np.where(np.arange(len(visits)) == 0, np.nan, 10.0 * visits)
    with np.errstate(invalid="ignore"):
        far = np.abs(when[:, None] - when) >= 15
    has = (far & (patients[:, None] == patients)).any(axis=1)
    known = len(np.unique(patients[1:]))
    assert 0 < has.sum() < len(has)
    assert (
        f"dates: column recording_date, of {len(has) - 1} of {len(has)} records, {known} of "
        f"{len(np.unique(patients))} patients; pairs are 15 days apart or more"
    ) in said
    kept = len(np.unique(patients[has]))
    assert f"pairs: {has.sum()} records of {kept} patients; " in said
    sampler = run.data.sampler()
    table = bcl.open_records(config()).table[has].reset_index(drop=True)
    seen = set()
    for step in range(30):
        firsts, seconds = np.array(sampler.batch(step)).reshape(2, 4)
        one, other = table.iloc[firsts], table.iloc[seconds]
        assert (one["patient_id"].to_numpy() == other["patient_id"].to_numpy()).all()
        assert one["patient_id"].nunique() == 4
        assert (abs(one["visit"].to_numpy() - other["visit"].to_numpy()) >= 2).all()
        seen |= {*firsts.tolist(), *seconds.tolist()}
    assert len(seen) == has.sum() == len(run.contract.trained_on.hashes)


def test_the_lone_are_paired_with_themselves_if_asked(dated, capsys):
    run = bcl.build(config(min_gap=15.0, lone="augment"))
    assert "left out" not in capsys.readouterr().out
    pairs = [np.array(run.data.sampler().batch(step)).reshape(2, 4) for step in range(20)]
    assert any((firsts == seconds).any() for firsts, seconds in pairs)
    assert len(run.data.dataset) == len(run.contract.trained_on.hashes)


def test_without_dates_any_two_visits_are_a_pair_and_the_log_says_so(capsys):
    run = bcl.build(config())
    assert "note: no column of dates, so that any two records of a patient" in (
        capsys.readouterr().out
    )
    bcl.build(config(min_gap=0.0))
    assert "note" not in capsys.readouterr().out
    firsts, seconds = np.array(run.data.sampler().batch(0)).reshape(2, 4)
    assert (firsts != seconds).all()


def test_real_visits_are_paired_by_their_dates(tmp_path, capsys):
    folder = shared_data("ptb-xl-500")
    table = pd.read_csv(folder / "ptbxl_database.csv")
    table = table[[(folder / f"{name}.hea").exists() for name in table["filename_lr"]]]
    visits = table["patient_id"].value_counts()
    table = table[table["patient_id"].map(visits) > 1]
    (tmp_path / "some").write_text("".join(f"{name}\n" for name in table["filename_lr"]))
    signal = Signal(fs=100.0, band=(0.5, 40.0))
    plain = dataclasses.replace(signal, band=None)
    convert([folder], tmp_path / "store", Plan(signal=plain), records=tmp_path / "some", workers=0)
    table = ECGStore.open(tmp_path / "store").manifest  # two are copies, which convert leaves out
    assert len(table) == 57
    when = pd.to_datetime(table["recording_date"])
    span = when.groupby(table["patient_id"]).agg(lambda dates: dates.max() - dates.min())
    apart = int((span >= pd.Timedelta(days=1)).sum())
    data = Store(paths=(str(tmp_path / "store"),), splits=("all",))
    fit(bcl.build, config(tmp_path / "run", data=data, signal=signal, steps=2))
    said = capsys.readouterr().out
    assert f"dates: column recording_date, of {len(table)} of {len(table)} records" in said
    assert f"of {apart} patients; {len(span) - apart} patients" in said
    assert 0 < apart < len(span)
    assert not load_contract(tmp_path / "run").synthetic


def test_no_pair_is_an_error_with_a_way_out(dated):
    words = r"error\[pairs\] no patient has two records that lie 900 days apart .*--pair record"
    with pytest.raises(DataError, match=words):
        bcl.build(config(min_gap=900.0))
    with pytest.raises(DataError, match=r"no patient has two records: 1 records .* Add records"):
        bcl.build(config(min_gap=0.0, data=dataclasses.replace(DATA, limit=1)))


def test_it_learns_to_tell_a_few_patients_apart(tmp_path):
    data = dataclasses.replace(DATA, patients=16)
    still = {name: (0.0, 0.0) for name in ("rotation_degrees", "blur_px", "light", "brightness")}
    still |= {name: (1.0, 1.0) for name in ("contrast", "gamma", "colour")}
    views = PageViews(layouts=("3x4",), looks=1, perspective=0.0, noise=(0.0, 0.0), **still)
    out = tmp_path / "run"
    words = {"views": views, "optim": Optim(lr=3e-3, warmup_steps=0, schedule="constant")}
    fit(bcl.build, config(out, data=data, steps=40, batch_size=12, min_gap=0.0, **words))
    with (out / "metrics.csv").open() as file:
        rows = [{k: float(v or 0) for k, v in row.items()} for row in csv.DictReader(file)]
    before, after = rows[:8], rows[-8:]
    assert np.mean([r["loss"] for r in after]) < 0.6 * np.mean([r["loss"] for r in before])
    gaps = [row["similarity"] - row["similarity_others"] for row in rows]
    assert np.mean(gaps[:8]) < 0.05  # by other orders of adding up it ends at 0.1 to 0.35
    assert np.mean(gaps[-8:]) > 0.08


@pytest.mark.parametrize("pair", ["patient", "record"])
def test_the_loss_is_that_of_the_pages_drawn(pair):
    torch.manual_seed(0)
    run = bcl.build(config(pair=pair, min_gap=0.0))
    method = run.method.eval()  # one page in, one embedding out
    method.log_dict = lambda values: None
    sampler = run.data.sampler() if pair == "patient" else None
    rows = sampler.batch(0) if sampler else list(range(4))
    items = [run.data.dataset[row] for row in rows]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    batch = run.data.prepare(batch)
    batch["index"] = torch.tensor(rows)
    torch.manual_seed(7)
    loss = method.training_step(batch, 0)
    torch.manual_seed(7)
    ecg = batch["ecg"] if pair == "patient" else torch.cat([batch["ecg"]] * 2)
    pages = method.views(ecg)
    z = torch.nn.functional.normalize(method.projector(method.encoder(pages)))
    logits = (z @ z.T / 0.1).fill_diagonal_(-torch.inf)
    half = len(z) // 2
    other = torch.arange(len(z)).roll(half)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, other))
    if pair == "record":  # two pages of a record differ
        assert all(not torch.equal(a, b) for a, b in zip(pages[:half], pages[half:], strict=True))


def test_weights_of_a_file_begin_the_run_and_are_counted(tmp_path, capsys):
    first = bcl.build(config(min_gap=0.0))
    weights = first.method.encoder.net.state_dict()
    torch.save({**weights, "_fc.weight": torch.zeros(10, 1280)}, tmp_path / "w.pth")
    capsys.readouterr()
    encoder = dataclasses.replace(NET, weights=str(tmp_path / "w.pth"))
    torch.manual_seed(99)
    run = bcl.build(config(min_gap=0.0, encoder=encoder))
    assert "309 of 309 weights matched (100.0% of the parameters)" in capsys.readouterr().out
    again = run.method.encoder.net.state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert "weights" not in run.contract.model["arguments"]
    with pytest.raises(RunError, match=r"error\[encoder\] there is no file of weights") as caught:
        bcl.build(config(encoder=dataclasses.replace(NET, weights="nowhere.pth")))
    assert caught.value.code == 2


def test_what_has_no_scale_on_paper_is_refused():
    with pytest.raises(ValueError, match="normalise lead leaves no scale"):
        config(signal=dataclasses.replace(SIGNAL, normalise="lead"))
    signal = Signal(seconds=10.0, fs=500.0, recipe="ecgfounder")
    with pytest.raises(RunError, match=r"error\[scale\] recipe ecgfounder leaves no amplitudes"):
        bcl.build(config(signal=signal, data=dataclasses.replace(DATA, patients=4)))


def test_a_recipe_in_millivolts_is_drawn_at_its_own_rate():
    signal = Signal(seconds=10.0, fs=500.0, recipe="ssldml")
    run = bcl.build(config(signal=signal, data=dataclasses.replace(DATA, patients=8), min_gap=0.0))
    assert run.contract.model["arguments"]["fs"] == 250.0
    assert run.method.views.fs == run.method.encoder.fs == 250.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 7}, "must be even and 4 or more, got 7"),
        ({"batch_size": 2}, "must be even and 4 or more, got 2"),
        ({"pair": "record", "batch_size": 1}, "a batch of 2 or more"),
        ({"pair": "record", "lone": "augment"}, "date and lone are for pairs of a patient"),
        ({"min_gap": -1.0}, "min_gap must not be negative"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"encoder": PageNet(net="none")}, "a network for pages, got none"),
    ],
    ids=str,
)
def test_settings_that_cannot_teach_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(**words)


def test_views_that_cannot_be_drawn_are_refused():
    for views, message in (
        (PageViews(layouts=("5x5",)), r"error\[views\] layout must be one of"),
        (PageViews(gamma=(0.0, 1.0)), r"error\[views\] gamma must be"),
    ):
        with pytest.raises(RunError, match=message):
            bcl.build(config(views=views, min_gap=0.0))
    with pytest.raises(RunError, match=r"error\[encoder\] layout must be one of"):
        bcl.build(config(encoder=dataclasses.replace(NET, layout="5x5"), min_gap=0.0))
