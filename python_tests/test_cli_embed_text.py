"""``ecgfast embed-text``: reports and codes of a store, once each."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.data.store import StoreWriter
from ecgfast.data.synthetic import write_cohort
from ecgfast.data.synthetic_reports import STATEMENTS
from ecgfast.models.text import read_embeddings

TABLE = """code,Statement Category,SCP-ECG Statement Description
NORM,normal/abnormal,normal ECG
IMI,myocardial infarction,inferior myocardial infarction
"""
ROWS = [
    ("sinus rhythm", "{'NORM': 100.0, 'SR': 0.0}"),
    ("sinus  rhythm", "{'IMI': 50.0, 'NORM': 50.0}"),
    ("", "{'XYZ': 80.0}"),
]


@pytest.fixture
def store(tmp_path):
    signal = Signal(fs=100.0, seconds=1.0)
    with_noise = np.random.default_rng(0).normal(size=(3, 12, 100)).astype(np.float32)
    writer = StoreWriter(tmp_path / "store", signal, made_by={"test": 1}, synthetic=False, plan="p")
    for i, (report, codes) in enumerate(ROWS):
        labels = {"report": report, "scp_codes": codes}
        writer.add(with_noise[i], record_id=f"r{i}", patient_id=f"p{i}", labels=labels, source="")
    writer.close()
    return tmp_path / "store"


def call(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def test_reports_are_embedded_once_and_more_texts_join_them(store, tmp_path, capsys):
    out = tmp_path / "texts.safetensors"
    main(["embed-text", str(store), "--out", str(out)])
    said = capsys.readouterr().out
    assert "1 texts, 768 numbers each" in said
    assert "nothing is written of 1 of 3 records" in said
    assert "--model FOLDER" in said
    texts, first, name = read_embeddings(out)
    assert texts == ["sinus rhythm"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("normal ECG\n\nsinus rhythm\n")
    main(["embed-text", str(store), "--out", str(out), "--texts", str(prompts)])
    assert (
        "2 texts, 768 numbers each, by " + name + "; 1 of them are new" in capsys.readouterr().out
    )
    texts, both, _ = read_embeddings(out)
    assert texts == ["sinus rhythm", "normal ECG"]
    assert (both[0] == first[0]).all()


def test_codes_are_put_into_words(store, tmp_path, capsys):
    out, table = tmp_path / "codes.safetensors", tmp_path / "statements.csv"
    table.write_text(TABLE)
    words = ["embed-text", store, "--column", "scp_codes", "--out", out]
    assert call(*words) == 2
    assert "--statements" in capsys.readouterr().err
    main([str(word) for word in [*words, "--statements", table]])
    said = capsys.readouterr().out
    assert "2 codes are in no statement: SR (1), XYZ (1)" in said
    texts, _, _ = read_embeddings(out)
    assert texts == [
        "myocardial infarction : inferior myocardial infarction",
        "normal/abnormal : normal ECG",
    ]


def test_wrong_words_are_refused(store, tmp_path, capsys):
    out = tmp_path / "texts.safetensors"
    assert call("embed-text", store, "--out", tmp_path / "texts.npz") == 2
    assert call("embed-text", store, "--out", out, "--column", "diagnosis") == 3
    assert "has no column diagnosis" in capsys.readouterr().err
    assert call("embed-text", store, "--out", out, "--model", tmp_path / "absent") == 3
    assert "there is no folder" in capsys.readouterr().err
    assert call("embed-text", store, "--out", out, "--unlikely", "-1") == 2
    main(["embed-text", str(store), "--out", str(out)])
    other = tmp_path / "other.safetensors"
    other.write_bytes(out.read_bytes().replace(b"hashed letters, 768", b"hashed letters, 999"))
    assert call("embed-text", store, "--out", other) == 3
    assert "is of another encoder (hashed letters, 999)" in capsys.readouterr().err


def test_synthetic_codes_bring_their_words(tmp_path, capsys):
    write_cohort(tmp_path / "cohort", 4, signal=Signal(fs=100.0, seconds=1.0))
    out = tmp_path / "codes.safetensors"
    main(["embed-text", str(tmp_path / "cohort"), "--column", "scp_codes", "--out", str(out)])
    assert "are in no statement" not in capsys.readouterr().out
    texts, _, _ = read_embeddings(out)
    assert set(texts) <= set(STATEMENTS.values())


def test_prompts_that_are_no_text_are_refused(store, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"\xff\xfe\x00sinus")
    words = ["embed-text", store, "--out", tmp_path / "texts.safetensors", "--texts"]
    assert call(*words, prompts) == 3
    assert "is no text in UTF-8" in capsys.readouterr().err
    assert call(*words, tmp_path / "absent.txt") == 3
    assert "absent.txt" in capsys.readouterr().err
