"""Subsets of labelled patients: nested, with both classes, and held to what was drawn first."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ecgfast.data.records import DataError
from ecgfast.data.subsets import cohort_hash, draw_subsets, keep_subsets, read_subsets

SHARES = (1.0, 0.001, 0.01, 0.1, 0.5)  # in no order
ABOUT = {"label": "mpcwp", "task": "classification", "threshold": 18.0, "cohort": "c"}


@pytest.fixture
def table():
    draw = np.random.default_rng(0)
    who = np.repeat(np.arange(300), draw.integers(1, 4, 300))
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(len(who))],
            "patient_id": ["" if p == 7 else f"p{p:03d}" for p in who],
            "split": "train",
            "mpcwp": draw.normal(16, 6, len(who)),
        }
    )


def draw(table, seeds=3, *, classes=True, shares=SHARES):
    value = table["mpcwp"].to_numpy()
    target = (value > 18).astype(float) if classes else value
    return draw_subsets(table, target, classes=classes, fractions=shares, seeds=seeds), target


@pytest.mark.parametrize("classes", [True, False])
def test_shares_are_nested_whole_patients_with_every_stratum(table, classes):
    drawn, target = draw(table, classes=classes)
    whose = np.where(table["patient_id"] == "", table["record_id"], table["patient_id"])
    everyone = len(set(whose))
    for seed in range(3):
        before = set()
        for share in sorted(SHARES):
            subset = drawn[share, seed]
            patients = set(whose[subset.rows])
            assert before <= patients
            assert set(subset.rows) == set(np.flatnonzero(np.isin(whose, list(patients))))
            assert subset.patients == len(patients)
            strata = 2 if classes else 5
            assert share * everyone <= len(patients) <= share * everyone + strata
            if classes:
                assert len(set(target[subset.rows])) == 2
                assert subset.positives == int(target[subset.rows].sum())
                positive = whose[subset.rows][target[subset.rows] == 1]
                assert subset.positive_patients == len(set(positive))
            else:
                assert subset.positives is None
            before = patients
        assert len(before) == everyone
    assert drawn[0.001, 0].patients == (2 if classes else 5)  # more than 0.1 %, and told so
    firsts = {tuple(drawn[0.1, seed].rows) for seed in range(3)}
    assert len(firsts) == 3


def test_the_draw_does_not_depend_on_the_order_of_the_records(table):
    drawn, _ = draw(table)
    turned = table[::-1].reset_index(drop=True)
    again, _ = draw(turned)
    for key, subset in drawn.items():
        assert set(table["record_id"][subset.rows]) == set(turned["record_id"][again[key].rows])


def test_a_class_that_a_share_cannot_have_is_refused():
    # class 1 is seen in one patient alone, who has class 2 as well and counts as such
    table = pd.DataFrame({"record_id": [f"r{i}" for i in range(41)]})
    table["patient_id"] = [f"p{max(i - 1, 0)}" for i in range(41)]
    target = np.array([1.0, 2.0, *[2.0, 0.0] * 19, 2.0])
    whole = draw_subsets(table, target, classes=True, fractions=(1.0,), seeds=1)
    assert whole[1.0, 0].positives is None  # of three classes
    with pytest.raises(DataError, match=r"0.1 of the patients \(seed 0\) has no record of class 1"):
        draw_subsets(table, target, classes=True, fractions=(0.1,), seeds=1)


def test_the_file_holds_later_draws_to_the_first(table, tmp_path):
    path = tmp_path / "subsets.json"
    drawn, _ = draw(table, shares=(0.1, 1.0))
    sha = keep_subsets(path, table, drawn, ABOUT)
    assert keep_subsets(path, table, drawn, ABOUT) == sha
    content = read_subsets(path)
    assert content["about"] == ABOUT
    assert content["subsets"]["0"]["0.1"] == sorted(content["subsets"]["0"]["0.1"])
    assert len(content["subsets"]["2"]["0.1"]) == drawn[0.1, 2].patients
    with pytest.raises(DataError, match=r"something else \(threshold: 18.0 there, 15.0 now\)"):
        keep_subsets(path, table, drawn, {**ABOUT, "threshold": 15.0})

    more, _ = draw(table, seeds=4)  # more seeds and shares: what was there stays
    assert keep_subsets(path, table, more, ABOUT) != sha
    wider = read_subsets(path)["subsets"]
    assert wider["1"]["0.1"] == content["subsets"]["1"]["0.1"]
    assert set(wider) == {"0", "1", "2", "3"}
    keep_subsets(path, table, drawn, ABOUT)
    assert read_subsets(path)["subsets"] == wider  # fewer seeds take nothing away

    moved = {key: more[0.1, (key[1] + 1) % 4] if key[0] == 0.1 else of for key, of in more.items()}
    with pytest.raises(DataError, match=r"seed 0, fraction 0.1 has \d+ patients there"):
        keep_subsets(path, table, moved, ABOUT)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: c["subsets"]["0"]["0.1"].pop(), "was changed"),
        (lambda c: c.update(version=9), "version 9"),
        (lambda c: c.update(subsets=[]), "must be mappings"),
        (lambda c: c.pop("sha256"), "no file of subsets"),
    ],
)
def test_a_file_that_was_changed_is_refused(table, tmp_path, spoil, words):
    path = tmp_path / "subsets.json"
    drawn, _ = draw(table, shares=(0.1,))
    keep_subsets(path, table, drawn, ABOUT)
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        keep_subsets(path, table, drawn, ABOUT)
    path.write_text("no json")
    with pytest.raises(DataError, match="no file of subsets"):
        read_subsets(path)


def test_the_hash_of_a_cohort_is_of_patients_parts_and_labels(table):
    sha = cohort_hash(table, "mpcwp")
    assert cohort_hash(table.copy(), "mpcwp") == sha
    for column, value in (("mpcwp", 99.0), ("split", "val"), ("patient_id", "p999")):
        other = table.copy()
        other.loc[3, column] = value
        assert cohort_hash(other, "mpcwp") != sha
