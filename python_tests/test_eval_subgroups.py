"""Groups of any column, what is known of them, and how far they lie apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ecgfast.eval import classification, gap_rows, regression
from ecgfast.eval.subgroups import Cut, counts, grouping, parse


def members(word, **columns):
    found = grouping(parse(word), columns)
    return {k: np.flatnonzero(v).tolist() for k, v in found.groups.items()}, np.flatnonzero(
        found.unknown
    ).tolist()


def test_each_value_of_a_text_is_a_group_and_missing_ones_are_told_apart():
    site = np.array(["b", "a", None, "b", "", "nan"], dtype=object)
    assert members("site", site=site) == ({"site=a": [1], "site=b": [0, 3]}, [2, 4, 5])


def test_sex_has_names_and_few_numbers_are_values():
    sex = np.array([1.0, 0, np.nan, 1])
    assert members("sex", sex=sex) == ({"sex=female": [1], "sex=male": [0, 3]}, [2])
    assert members("sex", sex=np.ones(2))[0] == {"sex=female": [], "sex=male": [0, 1]}
    assert members("af", af=sex)[0] == {"af=0": [1], "af=1": [0, 3]}


def test_bounds_make_bands_that_hold_everyone_known():
    age = np.array([17.0, 18, 34.9, 35, 80, np.nan])
    found, unknown = members("age", age=age)
    assert found == {
        "age<18": [0],
        "age=[18,35)": [1, 2],
        "age=[35,50)": [3],
        "age=[50,75)": [],
        "age>=75": [4],
    }
    assert unknown == [5]
    assert members("age:35", age=age)[0] == {"age<35": [0, 1, 2], "age>=35": [3, 4]}
    assert "age<18" not in members("age", age=age[1:])[0]


def test_many_numbers_are_cut_at_their_quartiles():
    lvef = np.append(np.arange(100.0), np.nan)
    found, unknown = members("lvef", lvef=lvef)
    assert list(found) == ["lvef<24.75", "lvef=[24.75,49.5)", "lvef=[49.5,74.25)", "lvef>=74.25"]
    assert [len(rows) for rows in found.values()] == [25] * 4
    assert unknown == [100]
    assert len(members("site:each", site=np.arange(40.0))[0]) == 40


def test_columns_cross():
    found, unknown = members(
        "sex*age:50", sex=np.array([1.0, 0, 1, np.nan]), age=np.array([60.0, 60, 40, np.nan])
    )
    assert found == {
        "sex=female & age<50": [],
        "sex=female & age>=50": [1],
        "sex=male & age<50": [2],
        "sex=male & age>=50": [0],
    }
    assert unknown == [3]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("age:", "is none of COLUMN"),
        ("sex**age", "is none of COLUMN"),
        ("age:old", "no bounds such as"),
        ("age:50,18", "must be finite and rise"),
        ("age:nan", "must be finite and rise"),
    ],
)
def test_words_that_mean_nothing_are_refused(word, said):
    with pytest.raises(ValueError, match=said):
        parse(word)


def test_what_makes_no_groups_is_refused():
    ids = np.array([f"r{i}" for i in range(61)])
    with pytest.raises(ValueError, match="61 different texts, 60 are allowed"):
        grouping(parse("record_id"), {"record_id": ids})
    with pytest.raises(ValueError, match="holds text: it has no bounds"):
        grouping([Cut("site", (1.0,))], {"site": ids})
    with pytest.raises(ValueError, match="makes 61 groups"):
        grouping(parse("code:each"), {"code": np.arange(61.0)})


def test_groups_that_are_few_are_flagged():
    patient = np.repeat(np.arange(100), 2)
    site = np.array(["large"] * 120 + ["small"] * 70 + ["tiny"] * 8 + [""] * 2)
    lines = counts(grouping(parse("site"), {"site": site}), patient, positive=site == "small")
    table = pd.DataFrame(lines).set_index("group")
    assert table["patients"].tolist() == [60, 35, 4, 1]
    assert table["share"].tolist() == [0.6, 0.35, 0.04, 0.01]
    assert table["under_represented"].tolist() == [False, False, True, True]
    assert table["positives"].tolist() == [0, 70, 0, 0]
    assert table["known"].tolist() == [True, True, True, False]
    more = counts(grouping(parse("site"), {"site": site}), patient, least_patients=36)
    assert [line["under_represented"] for line in more] == [False, True, True, True]


def cohort(seed, patients=90, extra=0.0):
    """Values whose error is larger in the last of three groups."""
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    label = draw.normal(16, 6, len(patient))
    third = patient % 3
    error = draw.normal(size=patients)[patient] + draw.normal(size=len(patient))
    groups = {f"g={k}": third == k for k in range(3)}
    return label, label + (1 + extra * (third == 2)) * error, patient, groups


def of_values(label, score):
    return lambda mask: regression.statistic(label[mask], score[mask])


def test_the_gap_is_that_of_numpy():
    label, score, patient, groups = cohort(0, extra=1.0)
    (found,) = gap_rows(of_values(label, score), ["mae"], groups, patient, draws=400)
    mae = {k: np.abs(label - score)[m].mean() for k, m in groups.items()}
    ordered = sorted(mae, key=mae.get)
    assert found["estimate"] == pytest.approx(mae[ordered[2]] - mae[ordered[0]])
    assert (found["highest"], found["lowest"]) == (ordered[2], ordered[0])
    assert found["better"] == "low"
    values = list(mae.values())
    pairs = [abs(values[i] - values[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["mean_gap"] == pytest.approx(np.mean(pairs))
    assert 0 < found["lo"] < found["estimate"] < found["hi"]
    assert found["mean_lo"] < found["mean_gap"] < found["mean_hi"]
    assert 0 < found["chance"] < found["estimate"]
    assert found["p"] < 0.05
    assert found["draws"] == 400


def test_intervals_of_the_gap_hold_the_truth_and_do_not_cry_wolf():
    # errors have sd sqrt(2), so the mean absolute error is sqrt(2) sqrt(2/pi) times 1 or 1.5
    unit = np.sqrt(2) * np.sqrt(2 / np.pi)
    cohorts, held, mean_held, alarms = 150, 0, 0, 0
    for seed in range(cohorts):
        label, score, patient, groups = cohort(100 + seed, extra=0.5)
        (row,) = gap_rows(of_values(label, score), ["mae"], groups, patient, draws=150)
        held += row["lo"] <= 0.5 * unit <= row["hi"]
        mean_held += row["mean_lo"] <= 0.5 * unit * 2 / 3 <= row["mean_hi"]
        label, score, patient, groups = cohort(100 + seed)
        (row,) = gap_rows(of_values(label, score), ["mae"], groups, patient, draws=150)
        alarms += row["lo"] > 0
        if row["lo"] > 0:
            assert row["p"] < 0.05 + 2 / 150  # the interval and the test are of one kind
    # at 95 % a count of 150 lies within five standard errors of 142.5; more is allowed: a bound
    assert min(held, mean_held) > 142.5 - 5 * np.sqrt(150 * 0.05 * 0.95)
    assert alarms < 7.5 + 5 * np.sqrt(150 * 0.05 * 0.95)


def test_a_gap_without_two_groups_or_with_an_undefined_one_says_why():
    label, score, patient, groups = cohort(0)
    one = {"g=0": groups["g=0"]}
    (found,) = gap_rows(of_values(label, score), ["mae"], one, patient, draws=20)
    assert found["estimate"] is found["p"] is None
    assert found["reason"] == "a gap needs two groups whose metric has an interval"
    classes = (label > 16).astype(float)
    classes[groups["g=1"]] = 1

    def statistic_of(mask):
        return classification.statistic(classes[mask], score[mask], threshold=16.0)

    (found,) = gap_rows(statistic_of, ["auroc"], groups, patient, draws=20)
    assert found["reason"] == "undefined in one of the groups"
