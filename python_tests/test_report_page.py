"""The page: whole, self-contained, escaped, and honest about made data and missing numbers."""

from __future__ import annotations

import base64
import dataclasses
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ecgfast.cli.report import _trainings
from ecgfast.config import LEADS
from ecgfast.data.tables import read_table
from ecgfast.report import Contents, DataCard, Evaluation, Example, Training, render
from ecgfast.report import words as said_as
from ecgfast.report.contents import read_json, read_training, read_yaml
from ecgfast.transforms.recipes import recipe_named

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("report_fixture.py"))))
SECTIONS = [
    *("data", "contract", "training", "results", "subgroups"),
    *("embeddings", "examples", "method", "environment"),
]
HOSTILE = '<script>alert("x")</script> & $\\frac{ --> \u5fc3'


def contents_of(run, **changes) -> Contents:
    folder = run / "evaluation-test"
    with np.load(folder / "embeddings.npz") as kept:
        evaluation = Evaluation(
            facts=read_json(folder / "metrics.json"),
            predictions=read_table(folder / "predictions.parquet"),
            record_ids=kept["record_id"],
            embeddings=kept["embedding"],
        )
    split = {"split": "test", "records": 312, "patients": 80, "age": "57 ± 18", "male": "49 %"}
    issue = {"issue": "nan_values", "kept": 3, "rejected": 4, "example": "lead V3: 412 of 5000"}
    example = Example(
        kind="best",
        record_id="p0001v0",
        words="measured 31.2 mmHg, predicted 30.9 mmHg",
        ecg=made.made_ecg(1),
        leads=LEADS,
        fs=250.0,
    )
    whole = Contents(
        run=run.name,
        synthetic=evaluation.facts["synthetic"],
        contract=read_json(run / "contract.json"),
        config=read_yaml(run / "config.yaml"),
        environment=read_json(run / "env.json"),
        command=(run / "command.txt").read_text(),
        trainings=[
            read_training("Pre-training", run.parent / "pretrain"),
            read_training("Fine-tuning", run),
        ],
        data=DataCard(origin="A made store.", splits=[split | {"label": "?"}], issues=[issue]),
        evaluation=evaluation,
        examples=[example],
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {task: made.make_run(root, task, draws=60) for task in ("regression", "classification")}


@pytest.fixture(scope="module")
def pages(runs):
    return {task: render(contents_of(run)) for task, run in runs.items()}


class Reader(HTMLParser):
    """Collects tags, and refuses a page whose tags do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags_of(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader.tags


def pictures_of(page) -> list[str]:
    found = [a["src"] for tag, a in tags_of(page) if tag == "img"]
    return [base64.b64decode(src.partition(",")[2]).decode() for src in found]


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_every_section_is_there_and_filled(pages, task):
    tags = tags_of(pages[task])
    assert [a["id"] for tag, a in tags if tag == "section"] == SECTIONS
    assert "not computed: there is no" not in pages[task]
    assert "Research use only" in pages[task]
    assert "arXiv:2308.04650" in pages[task]
    titles = [re.search(r"<dc:title>(.*?)</dc:title>", p)[1] for p in pictures_of(pages[task])]
    expected = {
        "regression": ["Predicted and measured", "Bland-Altman", "MAE by", "Pearson r by"],
        "classification": ["ROC curve", "Precision and", "Calibration", "Confusion", "AUROC by"],
    }[task]
    for name in ["Pre-training", "Fine-tuning", *expected, "Embeddings by sex", "Record p0001v0"]:
        assert any(title.startswith(name) for title in titles), name


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_page_needs_nothing_beside_it(pages, task):
    for tag, attributes in tags_of(pages[task]):
        assert tag not in ("script", "link", "iframe", "object"), tag
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith("data:image/svg+xml;base64,")
    assert "url(" not in pages[task]
    assert "@import" not in pages[task]
    for svg in pictures_of(pages[task]):
        links = re.findall(r'(?:xlink:)?href="([^"]+)"', svg)
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_made_data_are_called_so_on_the_page_and_in_every_figure(runs, pages):
    page = pages["classification"]
    assert "<strong>SYNTHETIC data.</strong>" in page
    for svg in pictures_of(page):
        assert "(SYNTHETIC data)</dc:title>" in svg
        assert "<!-- SYNTHETIC -->" in svg  # the text behind the curves, drawn as outlines
    whole = contents_of(runs["classification"])
    real = dataclasses.replace(
        whole,
        synthetic=False,
        evaluation=dataclasses.replace(
            whole.evaluation, facts={**whole.evaluation.facts, "synthetic": False}
        ),
    )
    page = render(real)
    assert "SYNTHETIC" not in page
    assert not any("SYNTHETIC" in svg for svg in pictures_of(page))


def test_what_came_from_files_is_escaped(runs):
    whole = contents_of(runs["regression"])
    example = dataclasses.replace(whole.examples[0], record_id=HOSTILE, words=HOSTILE)
    issue = {"issue": HOSTILE, "kept": 0, "rejected": 1, "example": HOSTILE}
    facts = {**whole.evaluation.facts, "label": HOSTILE, "command": HOSTILE}
    page = render(
        dataclasses.replace(
            whole,
            run=HOSTILE,
            command=HOSTILE,
            config={HOSTILE: HOSTILE},
            environment={HOSTILE: [HOSTILE]},
            trainings=[
                Training(title=HOSTILE, run=HOSTILE, missing=HOSTILE),
                Training(title="x", run="y", columns={"step": [1.0, 2], HOSTILE: [1.0, 2]}),
            ],
            data=DataCard(origin=HOSTILE, issues=[issue]),
            examples=[example],
            evaluation=dataclasses.replace(whole.evaluation, facts=facts),
        )
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for svg in pictures_of(page):
        assert "<script" not in re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    tags_of(page)


def test_the_same_contents_give_the_same_page(runs, pages):
    assert render(contents_of(runs["regression"])) == pages["regression"]


def test_a_run_that_was_not_evaluated_says_so(runs):
    page = render(contents_of(runs["regression"], evaluation=None, examples=[]))
    assert "not computed: this run was not evaluated" in page
    assert "not computed: no evaluation yet" in page
    assert [a["id"] for tag, a in tags_of(page) if tag == "section"] == SECTIONS


def test_a_run_without_a_head_shows_its_embeddings(runs):
    whole = contents_of(runs["regression"])
    facts = {**whole.evaluation.facts, "task": "embedding", "label": None}
    facts["metrics"] = [r for r in facts["metrics"] if r["name"].startswith("recall")]
    kept = {k: v for k, v in whole.evaluation.predictions.items() if k not in ("label", "score")}
    evaluation = dataclasses.replace(whole.evaluation, facts=facts, predictions=kept)
    page = render(dataclasses.replace(whole, evaluation=evaluation, contract={}))
    assert "this run has no head" in page
    assert "recall@1, same patient" in page
    assert "not computed: there is no contract.json" in page
    assert "Embeddings by sex" in page


def test_nothing_in_the_folder_is_no_crash():
    empty = Contents(
        run="r",
        synthetic=False,
        contract={},
        config={},
        environment={},
        command="",
        trainings=[Training(title="Pre-training", run="r", missing="there is no r/metrics.csv")],
        data=DataCard(origin="Store: gone.", missing="error[no_store] gone is no store"),
    )
    page = render(empty)
    assert page.count("not computed: ") >= 7
    assert "not computed: there is no r/metrics.csv" in page


@pytest.mark.parametrize("kind", ["one class", "few patients", "one point"])
def test_numbers_that_cannot_be_computed_come_with_their_reason(tmp_path, kind):
    columns = made.cohort("classification", patients=60)
    if kind == "one class":
        columns["label"][:] = 0
    elif kind == "few patients":
        few = np.concatenate([np.flatnonzero(columns["label"] == c)[:4] for c in (0, 1)])
        columns = {k: v[few] for k, v in columns.items()}
    else:
        columns["embedding"][:] = 1
    run = made.make_run(tmp_path, "classification", draws=20, columns=columns)
    page = render(contents_of(run, trainings=[], examples=[]))
    expected = {
        "one class": ["not computed: no record has label 1", "curves not computed: all labels"],
        "few patients": ["an interval needs 10 patients", "band of the ROC curve not computed"],
        "one point": ["map not computed: all embeddings are the same point"],
    }
    for words in expected[kind]:
        assert words in page, words


def test_broken_files_of_a_run_are_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.yaml").write_text("- 1")
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.yaml must hold a mapping, got a list"):
        read_yaml(tmp_path / "b.yaml")
    assert "holds no steps" in read_training("x", tmp_path).missing
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,\n3,oops\n")
    assert np.isnan(read_training("x", tmp_path).columns["loss"]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("config", "titles"),
    [
        ({"init": "he"}, ["Pre-training"]),
        ({"init": "", "label": "sex"}, ["Fine-tuning"]),
        ({"init": "elsewhere", "label": "sex"}, ["Pre-training", "Fine-tuning"]),
    ],
)
def test_a_run_is_called_what_it_is(tmp_path, config, titles):
    (tmp_path / "metrics.csv").write_text("step,epoch,loss\n1,0.1,0.5\n")
    assert [part.title for part in _trainings(tmp_path, config)] == titles


def test_a_recipe_is_told_by_its_steps_and_a_stored_one_by_its_name():
    signal = {"leads": ["I"], "fs": 500.0, "seconds": 10.0, "samples": 5000, "normalise": "none"}
    facts = {"signal": signal, "recipe": recipe_named("dual_attention").to_dict()}
    told = " ".join(said_as.contract(facts))
    for step in ("Resample (fs 500", "Butterworth (order 5", "MedianBeat (samples 600", "Pad ("):
        assert step in told
    assert "No band-pass" not in told
    stored = " ".join(said_as.contract({"signal": {**signal, "stored_recipe": "pclr"}}))
    assert "as recipe pclr left them when they were stored" in stored
    assert "in mV" not in stored
    assert "in mV" in " ".join(said_as.contract({"signal": signal}))
