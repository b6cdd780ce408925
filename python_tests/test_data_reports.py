"""What is written about an ECG: statements in words, reports."""

from __future__ import annotations

import gzip

import pytest

from ecgfast.data.records import DataError
from ecgfast.data.reports import of_codes, of_reports, read_prompts, read_statements
from python_tests.conftest import shared_data

STATEMENTS = {"NORM": "normal : normal ECG", "IMI": "infarct : inferior", "SR": "rhythm : sinus"}


def test_statements_are_weighted_by_likelihood_and_zeros_dropped():
    cells = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 35.0, 'NORM': 15.0}", "{'SR': 0.0}", "", None]
    found = of_codes(cells, STATEMENTS)
    assert found.phrases[0] == (("normal : normal ECG", 1.0),)
    assert dict(found.phrases[1]) == pytest.approx(
        {"infarct : inferior": 0.7, "normal : normal ECG": 0.3}
    )
    assert found.phrases[2:] == [(), (), ()]
    assert found.texts == ["infarct : inferior", "normal : normal ECG"]


def test_a_likelihood_of_zero_can_count():
    (both,) = of_codes(["{'NORM': 100.0, 'SR': 0.0}"], STATEMENTS, unlikely=25).phrases
    assert dict(both) == pytest.approx({"normal : normal ECG": 0.8, "rhythm : sinus": 0.2})


def test_unknown_codes_are_counted_and_left_out():
    found = of_codes(["{'XYZ': 80.0, 'NORM': 20.0}", "{'XYZ': 80.0}"], STATEMENTS)
    assert found.unknown == {"XYZ": 2}
    assert found.phrases == [(("normal : normal ECG", 1.0),), ()]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("{'NORM': -1.0}", "likelihood -1"),
        ("{'NORM': 1e999}", "likelihood inf"),
        ("__import__('os')", "no dict"),
        ("[1]", "no dict"),
    ],
)
def test_cells_that_are_no_codes_are_refused(cell, words):
    with pytest.raises(DataError, match=words):
        of_codes([cell], STATEMENTS)


def test_reports_are_one_text_each():
    found = of_reports(["sinus  rhythm\nnormal", "", None, float("nan")])
    assert found.phrases == [(("sinus rhythm normal", 1.0),), (), (), ()]
    with pytest.raises(DataError, match="row 1 has a report of 30000 letters"):
        of_reports(["fine", "x" * 30000])


def test_a_packed_table_is_not_unpacked(tmp_path):
    path = tmp_path / "prompts.csv.gz"
    path.write_bytes(gzip.compress(b"class,prompt\na,b\n"))
    with pytest.raises(DataError, match=r"prompts\.csv\.gz: .*class and prompt is needed"):
        read_prompts(path)
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    for read in (read_prompts, read_statements):
        with pytest.raises(DataError, match="it has 67108865 bytes, 67108864 are allowed"):
            read(path)


def test_statements_need_their_columns(tmp_path):
    path = tmp_path / "scp_statements.csv"
    with pytest.raises(DataError, match="cannot be read"):
        read_statements(path)
    path.write_text("code,description\nNORM,normal\n")
    with pytest.raises(DataError, match="no column Statement Category"):
        read_statements(path)


def test_ptb_xl_statements_are_read():
    found = read_statements(shared_data("ptb-xl-500", "scp_statements.csv"))
    assert len(found) == 71
    assert found["NORM"].endswith(" : normal ECG")
    assert all(" : " in text for text in found.values())
