"""Graphs on the disk, who is a copy of whom, and what neighbours have in common."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ecgfast.data.identity import identity
from ecgfast.data.neighbours import Neighbours, read_neighbours, write_neighbours
from ecgfast.data.purity import lines, purity
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Mixture, Partners
from ecgfast.data.source import Joined, Made, Source

NEAREST = np.array([[1, 2], [0, 3], [3, -1], [2, 0], [-1, -1]])


def graph(nearest=NEAREST, ids="abcde", patients=("p", "p", "q", "q", "")):
    far = nearest[:, ::-1].copy()
    near = np.where(nearest < 0, np.inf, 1.0).astype(np.float32)
    return Neighbours(
        nearest=nearest.astype(np.int64),
        distances=near,
        farthest=far.astype(np.int64),
        far_distances=np.where(far < 0, -np.inf, 9.0).astype(np.float32),
        record_id=np.array(list(ids)),
        patient_id=np.array(patients),
        about={"settings": {"k": 2}},
    )


def source(patient_id, sha256=None):
    n = len(patient_id)
    table = pd.DataFrame({"record_id": [f"r{i}" for i in range(n)], "patient_id": patient_id})
    if sha256 is not None:
        table["sha256"] = sha256
    made = Made(np.zeros((n, 1, 2), np.float32), np.zeros(n, np.int64), None)
    return Source(Joined([made], np.arange(n)), table, {}, synthetic=True)


def test_what_is_written_is_read(tmp_path):
    about = write_neighbours(tmp_path, graph())
    found = read_neighbours(tmp_path)
    for name in ("nearest", "distances", "farthest", "far_distances", "record_id", "patient_id"):
        assert np.array_equal(getattr(found, name), getattr(graph(), name))
    assert found.about == about
    assert about["settings"] == {"k": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "neighbours.json").unlink(), "holds no neighbour graph"),
        (lambda f: (f / "neighbours.json").write_text("{"), "Expecting property name"),
        (lambda f: (f / "neighbours.json").write_text("[]"), "list indices"),
        (lambda f: (f / "neighbours.safetensors").write_bytes(b"x" * 99), "changed or damaged"),
        (lambda f: (f / "records.parquet").unlink(), "No such file"),
        (lambda f: edit(f, lambda about: about.update(version=9)), "version 9, this ecgfast reads"),
        (lambda f: edit(f, lambda about: about.update(sha256={})), "of both files"),
        (lambda f: write_neighbours(f, graph(NEAREST + 3)), r"must lie in \[-1, 5\)"),
        (
            lambda f: write_neighbours(f, graph(ids="abcd", patients=tuple("pppp"))),
            r"\(4, K\) int64",
        ),
    ],
)
def test_a_graph_that_somebody_changed_is_refused(tmp_path, change, message):
    write_neighbours(tmp_path, graph())
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_neighbours(tmp_path)


def edit(folder, change):
    path = folder / "neighbours.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_who_is_not_among_the_records_comes_in_by_no_neighbour():
    rows = graph().rows_among(np.array(["d", "a", "x", "b"]), 1)
    assert rows.tolist() == [[1], [3], [-1], [1]]  # c, the nearest of d, is not here: a is next
    assert graph().rows_among(np.array(["a", "b"]), 9).tolist() == [[1, -1], [0, -1]]


def test_a_graph_of_other_records_is_refused():
    with pytest.raises(DataError, match="none of the 2 records is among the 5"):
        graph().rows_among(np.array(["x", "y"]), 1)
    with pytest.raises(DataError, match=r"1 record ids stand for more than one.*the records"):
        graph().rows_among(np.array(["a", "a"]), 1)
    with pytest.raises(DataError, match="more than one record in the neighbour graph"):
        graph(ids="abcda").rows_among(np.array(["a", "b"]), 1)


def test_copies_join_their_patients():
    found = identity(source(["p", "p", "q", "", "r", ""], ["1", "2", "2", "3", "4", "4"]))
    assert found.record.tolist() == [0, 1, 1, 2, 3, 3]
    group = found.group
    assert group[0] == group[1] == group[2]  # p and q share a copy
    assert group[4] == group[5]
    assert len(set(group[[0, 3, 4]])) == 3
    assert (found.patient == -1).tolist() == [False, False, False, True, False, True]
    assert found.patient[0] == found.patient[1] != found.patient[2]
    plain = identity(source(["p", "", "p"]))
    assert plain.record.tolist() == [0, 1, 2]
    assert plain.group[0] == plain.group[2] != plain.group[1]


def test_purity_is_counted():
    patient = np.array([0, 0, 1, 1, -1])
    found = purity(graph(), patient, np.array([10.0, 12.0, 20.0, np.nan, 5.0]), threshold=18)
    assert found["same_patient"] == {"n": 4, "share": 1.0, "chance": 0.25}
    assert found["largest_hub"]["most"] == 2
    assert found["largest_hub"]["n"] == 4
    near = found["label"]["nearest"]
    assert (near["n"], near["difference"], near["same_side"]) == (2, 2.0, 1.0)
    known = [10.0, 12.0, 20.0, 5.0]
    pairs = [(a, b) for i, a in enumerate(known) for b in known[i + 1 :]]
    assert near["chance_difference"] == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
    assert near["chance_same_side"] == np.mean([(a > 18) == (b > 18) for a, b in pairs])
    another = found["label"]["nearest_of_another_patient"]
    assert (another["n"], another["difference"]) == (1, 10.0)  # 0 with 2; 3 has no label
    text = "\n".join(lines(found, "mpcwp"))
    assert "1.000 of 4 records" in text
    assert "|difference| of mpcwp 2 " in text


def test_purity_of_nobody_is_no_number_and_no_error():
    alone = graph(np.full((5, 2), -1))
    found = purity(alone, np.full(5, -1), np.full(5, np.nan))
    assert found["same_patient"]["n"] == found["largest_hub"]["most"] == 0
    assert found["label"]["nearest"]["difference"] is None
    assert "unknown of 0 records" in lines(found, "age")[0]
    json.dumps(found, allow_nan=False)


def test_a_mixture_takes_the_first_kind_as_often_as_it_says():
    first = Partners.of_groups(np.array([0, 0, 1, 2, 3]))
    second = Partners.of_rows(np.array([[2, 3], [2, -1], [4, -1], [-1, -1], [-1, -1]]))
    both, n = Mixture(first, second, 0.25), 40_000
    assert both.counts().tolist() == [3, 2, 1, 0, 0]
    drawn = [both.draw(np.full(n, row), (np.arange(n) + 0.5) / n) for row in range(5)]
    counts = [np.bincount(d, minlength=5) / n for d in drawn]
    assert counts[0] == pytest.approx([0, 0.25, 0.375, 0.375, 0], abs=1e-3)
    assert counts[1] == pytest.approx([0.25, 0, 0.75, 0, 0], abs=1e-3)
    assert counts[2] == pytest.approx([0, 0, 0, 0, 1])  # no other visit
    assert counts[3][3] == 1  # nobody at all
    only = Mixture(first, Partners.of_rows(np.full((5, 1), -1)), 0.25)
    assert (only.draw(np.zeros(9, dtype=np.int64), np.linspace(0, 0.99, 9)) == 1).all()
    for share, partner in ((0.0, [2, 3]), (1.0, [1])):
        drawn = Mixture(first, second, share).draw(np.zeros(99, int), np.linspace(0, 0.999, 99))
        assert sorted(set(drawn)) == partner
