"""Scores of studies from those of their videos."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfast.eval.studies import by_study, whose

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "pq"]),
        st.sampled_from(["", "s", "qs", "t"]),
        st.floats(-10, 10, allow_nan=False),
    ),
    min_size=1,
    max_size=20,
)


def _columns(rows):
    score = np.array([row[2] for row in rows])
    return {
        "record_id": np.array([f"v{i}" for i in range(len(rows))]),
        "patient_id": np.array([row[0] for row in rows]),
        "study_id": np.array([row[1] for row in rows]),
        "score": score,
        "scores": np.stack([score, 2 * score]),
        "embedding": np.stack([score, -score, score**2], axis=1),
        "trained_on": score > 5,
    }


@given(ROWS)
def test_means_are_those_of_pandas(rows):
    columns = _columns(rows)
    found = by_study(columns)
    table = pd.DataFrame({k: v for k, v in columns.items() if v.ndim == 1})
    alone = table["study_id"] == ""
    table["key"] = np.where(
        alone, table["record_id"], table["patient_id"] + "|" + table["study_id"]
    )
    for i in range(3):
        table[f"e{i}"] = columns["embedding"][:, i]
    grouped = table.groupby("key", sort=False)
    np.testing.assert_allclose(found["score"], grouped["score"].mean(), atol=1e-12)
    np.testing.assert_allclose(found["scores"][1], 2 * grouped["score"].mean(), atol=1e-12)
    expected = grouped[["e0", "e1", "e2"]].mean().to_numpy()
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-11)
    assert found["trained_on"].tolist() == grouped["trained_on"].any().tolist()
    assert found["videos"].tolist() == grouped.size().tolist()
    assert found["patient_id"].tolist() == grouped["patient_id"].first().tolist()
    assert len(set(found["record_id"])) == len(found["record_id"])


def test_two_patients_studies_of_one_name_stay_two():
    found = by_study(_columns([("p", "s", 1.0), ("q", "s", 3.0), ("p", "s", 2.0)]))
    assert found["record_id"].tolist() == ["p/s", "q/s"]
    assert found["score"].tolist() == [1.5, 3.0]


def test_a_video_of_no_known_study_stands_alone():
    found = by_study(_columns([("p", "", 1.0), ("p", "", 2.0), ("p", "t", 4.0)]))
    assert found["record_id"].tolist() == ["v0", "v1", "t"]
    assert found["videos"].tolist() == [1, 1, 1]


def test_labels_that_differ_within_a_study_are_refused():
    columns = _columns([("p", "s", 1.0), ("p", "s", 2.0), ("q", "t", 3.0)])
    with pytest.raises(ValueError, match=r"1 of 2 studies .*first: study s, video v1"):
        by_study(columns | {"label": np.array([0.0, 1.0, 1.0])})
    nothing_known = by_study(columns | {"label": np.array([np.nan, np.nan, 1.0])})
    assert np.isnan(nothing_known["label"][0])


def test_whom_nobody_knows_is_told_by_the_study():
    columns = _columns([("p", "s", 0.0), ("", "s", 0.0), ("None", "s", 0.0), ("", "", 0.0)])
    assert whose(columns, videos=True).tolist() == ["p", "study s", "study s", "record v3"]
    alone = ["p", "record v1", "record v2", "record v3"]
    assert whose(columns, videos=False).tolist() == alone
    del columns["study_id"]
    assert whose(columns, videos=True).tolist() == alone
