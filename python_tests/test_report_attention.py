"""Attention in a run's report: the maps are those of the network, and the page shows them."""

from __future__ import annotations

import base64
import dataclasses
import re

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import LEADS
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.tables import read_table
from ecgfast.models.attention_maps import painted, token_attention_of
from ecgfast.report.attention import PAINT, attention_section
from ecgfast.report.contents import Attention, AttentionExample
from ecgfast.systems import attention
from ecgfast.systems.attention import attention_of, extremes
from ecgfast.systems.finetune import load_run

PATIENTS = 60


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def trained(folder, *words):
    """A run of two steps, and its evaluation."""
    every = ["--encoder.net", "dual_attention", "--label", "age", "--task", "regression"]
    every += ["--data.patients", str(PATIENTS), "--fit.steps", "2", "--fit.batch_size", "8"]
    main(["finetune", *every, *words, "--fit.progress", "false", "--fit.out", str(folder)])
    main(["evaluate", str(folder), "--bootstrap", "20"])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    words = ["--signal.recipe", "dual_attention", "--signal.band", "null"]
    return trained(tmp_path_factory.mktemp("runs") / "beats", *words)


def what(run):
    contract = load_run(run).contract
    source = open_source([], ("test",), signal=contract.signal, patients=PATIENTS)
    return source, read_table(run / "evaluation-test" / "predictions.parquet")


def test_maps_are_those_of_the_network_whatever_the_batch(run, monkeypatch):
    source, predictions = what(run)
    ids = predictions["record_id"].astype(str)
    found = attention_of(run, source, predictions, ids[[3, 0]], draws=50)
    loaded = load_run(run)
    row = list(source.column("record_id").astype(str)).index(ids[3])
    ready = loaded.prepare(torch.from_numpy(source.millivolts(row))[None])
    with torch.no_grad():
        _, maps = loaded.encoder(ready, maps=True)
    mine = found.shown[ids[3]]
    assert list(found.shown) == [ids[3], ids[0]]
    assert mine.ecg.shape == mine.painted.shape == (12, 600)  # 608 less the padding
    np.testing.assert_allclose(mine.ecg, ready[0, :, 4:-4], atol=1e-5)
    np.testing.assert_allclose(mine.leads, maps.leads[0].mean(dim=0), atol=1e-5)
    paint = painted(token_attention_of(maps), 608)[0, :, 4:-4]
    np.testing.assert_allclose(mine.painted, paint, atol=1e-4)
    np.testing.assert_allclose(found.heads.mean(axis=0), found.groups.mean, atol=1e-5)
    np.testing.assert_allclose(found.groups.mean.sum(axis=1), 1, atol=1e-5)
    assert (found.units, found.fs, found.mixed) == ("none", 500, False)
    assert found.groups.records[0] == found.scored == len(ids)

    monkeypatch.setattr(attention, "MOST_BATCH", 7)
    again = attention_of(run, source, predictions, draws=50)
    np.testing.assert_allclose(again.groups.difference, found.groups.difference, atol=1e-6)
    monkeypatch.setattr(attention, "MOST_RECORDS", 10)
    few = attention_of(run, source, predictions, draws=50)
    assert few.groups.records == (10, 3, 3)
    assert few.scored == len(ids)


def test_records_without_beats_are_counted_and_left_out(run):
    source, predictions = what(run)
    source.dataset.parts[0].ecg[source.dataset.keep[2]] = 0
    flat = str(source.column("record_id")[2])
    found = attention_of(run, source, predictions, [flat])
    assert found.empty == 1
    assert found.groups.records[0] == found.scored - 1
    assert not found.shown
    source.dataset.parts[0].ecg[:] = 0
    with pytest.raises(DataError, match="the network sees nothing of any of"):
        attention_of(run, source, predictions)
    with pytest.raises(DataError, match="none of the scored records"):
        attention_of(run, source, {"record_id": np.array(["x"]), "patient_id": np.array(["y"])})


def test_extremes_are_the_highest_and_the_lowest():
    predictions = {"record_id": np.array(list("abcde")), "score": np.array([3, 1, 5, 2, 4.0])}
    high, low = "highest score", "lowest score"
    assert extremes(predictions) == {"c": high, "e": high, "b": low, "d": low}
    assert extremes({"record_id": np.array(["a"]), "score": np.array([1.0])}) == {}
    assert extremes({"record_id": np.array(["a"])}) == {}


def svgs(page):
    return [
        base64.b64decode(code).decode() for code in re.findall(r"svg\+xml;base64,([^\"]+)", page)
    ]


def test_a_record_without_a_score_is_no_extreme():
    found = {"record_id": np.array(list("abcd")), "score": np.array([np.nan, 2.0, 1.0, np.inf])}
    assert extremes(found) == {"b": "highest score", "c": "lowest score"}


def test_the_report_shows_leads_and_time(run):
    main(["report", str(run), "--examples", "1"])
    page = (run / "report.html").read_text()
    assert "Attention is not attribution." in page
    assert "Between leads" in page
    assert "mode=faithful" not in page
    drawn = svgs(page)
    assert sum("Attention between leads by score (SYNTHETIC data)" in one for one in drawn) >= 1
    assert sum("Attention between leads of each head (SYNTHETIC" in one for one in drawn) >= 1
    assert sum("highest score: record " in one for one in drawn) == 2
    section = page[page.index('id="attention"') : page.index('id="method"')]
    assert len(section) < 3e6


def test_a_raw_record_of_a_network_over_time_is_painted_alone(tmp_path):
    words = ["--encoder.attention", "time", "--signal.fs", "250"]
    run = trained(tmp_path / "raw", *words)
    source, predictions = what(run)
    found = attention_of(run, source, predictions, predictions["record_id"].astype(str)[:1])
    (shown,) = found.shown.values()
    assert found.groups is found.heads is shown.leads is None
    assert shown.painted.shape == (12, 2500)
    assert found.units == "mV"
    name = str(predictions["record_id"][0])
    example = AttentionExample(kind="best", record_id=name, words="", **vars(shown))
    told = Attention(**vars(found) | {"leads": LEADS, "shown": [example]})
    drawn = attention_section(told, synthetic=True)
    assert (drawn["groups"], drawn["figures"], drawn["time"]) == (None, [], True)
    ((picture, _),) = drawn["records"]
    assert picture.alt == f"best: record {name} (SYNTHETIC data)"
    assert len(picture.uri) < 600_000


def test_the_published_network_is_said_to_mix_and_other_networks_have_no_section(tmp_path):
    words = ["--encoder.attention", "leads", "--encoder.mode", "faithful"]
    words += ["--signal.recipe", "dual_attention", "--signal.band", "null"]
    run = trained(tmp_path / "faithful", *words)
    main(["report", str(run), "--examples", "0"])
    page = (run / "report.html").read_text()
    assert "which mixes the leads before it attends to them" in page
    assert "Between mixtures of leads" in page
    assert "Behind each lead" not in page
    run = trained(tmp_path / "none", "--encoder.attention", "none", *words[4:])
    assert attention_of(run, *what(run)) is None


def test_paint_is_white_up_to_an_even_share_and_one_scale_serves_all():
    assert PAINT(0.0)[:3] == (1.0, 1.0, 1.0)
    draw = np.random.default_rng(0)
    ecg = draw.normal(size=(12, 600))
    some = AttentionExample(
        kind="best",
        record_id='<script> & "x"',
        words="",
        ecg=ecg,
        painted=np.ones((12, 600)),
        leads=None,
    )
    other = dataclasses.replace(some, painted=np.full((12, 600), 3.0))
    found = Attention(
        mixed=False,
        groups=None,
        heads=None,
        shown=[some, other],
        leads=LEADS,
        fs=500.0,
        units="none",
        scored=2,
        empty=0,
    )
    drawn = attention_section(found, synthetic=False)
    first, second = (base64.b64decode(p.uri.split(",")[1]).decode() for p, _ in drawn["records"])
    for one in (first, second):
        assert "<!-- 3.00 -->" in one  # the top of the bar beside either
    assert "<script>" not in first
    assert attention_section(None, synthetic=False) is None
