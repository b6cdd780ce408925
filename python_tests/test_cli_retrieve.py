"""`ecgfast embed` and `ecgfast retrieve`: rows in order, neighbours as by brute force."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from ecgfast.cli import main
from ecgfast.config import LEADS, Signal
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import make_cohort, write_cohort
from ecgfast.report.neighbours import Strip, draw_neighbours
from ecgfast.systems.embed import open_embeddings
from ecgfast.systems.model import load
from ecgfast.systems.retrieve import Query, nearest
from ecgfast.train.contract import ContractError
from python_tests.small_run import SIGNAL, make_run


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, 40, signal=Signal(seconds=2.0), seed=3, planted_bad=True)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", None)


@pytest.fixture(scope="module")
def embedded(store, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded") / "out"
    main(["embed", str(run), "--store", str(store), "--out", str(out), "--batch-size", "7"])
    return out


def of(folder):
    return load_file(folder / "embeddings.safetensors")["embeddings"]


def fails(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, capsys.readouterr().err


def test_rows_are_those_of_the_store(store, run, embedded):
    rows, table = of(embedded), pd.read_parquet(embedded / "records.parquet")
    opened = ECGStore.open(store)
    assert rows.dtype == np.float32
    assert rows.shape == (len(opened), 16)
    assert table["record_id"].tolist() == opened.manifest["record_id"].tolist()
    assert table["split"].tolist() == opened.manifest["split"].tolist()
    np.testing.assert_array_equal(table["mpcwp"], opened.manifest["mpcwp"])
    assert not {"shard", "row", "gain"} & set(table)
    model = load(run)
    for row in (0, 7, len(opened) - 1):
        one = model.embed(opened.steps(row)[None], np.array([opened.gain(row)]))
        np.testing.assert_allclose(rows[row], one[0], rtol=1e-4, atol=1e-5)
    about = json.loads((embedded / "embed.json").read_text())
    gaps = opened.manifest["n_nan"] > 0
    assert about["with_gaps"] == gaps.sum() > 0
    assert (table["missing"] > 0).tolist() == gaps.tolist()
    assert about["weights"] == model.weights
    assert about["records"] == len(opened)
    assert about["synthetic"] is True


def test_a_split_is_a_part_of_the_whole(store, run, embedded, tmp_path):
    main(["embed", str(run), "--store", str(store), "--split", "test", "--out", str(tmp_path)])
    table = pd.read_parquet(embedded / "records.parquet")
    part = (table["split"] == "test").to_numpy()
    np.testing.assert_allclose(of(tmp_path), of(embedded)[part], rtol=1e-4, atol=1e-5)
    names = pd.read_parquet(tmp_path / "records.parquet")["record_id"]
    assert names.tolist() == table["record_id"][part].tolist()


def test_files_are_embedded_and_bad_ones_counted(run, tmp_path, capsys):
    ecg, _ = make_cohort(3, signal=SIGNAL, seed=1)
    folder = tmp_path / "records"
    folder.mkdir()
    header = ",".join(LEADS)
    for name, record in zip(["b, c", "a'é", "z"], ecg, strict=False):
        np.savetxt(folder / f"{name}.csv", record.T, delimiter=",", header=header, comments="")
    flat = np.tile(np.where(np.arange(12) == 0, 1.0, 0.0), (500, 1))
    np.savetxt(folder / "flat.csv", flat, delimiter=",", header=header, comments="")
    (folder / "bad.txt").write_text("no ECG")
    how = ["--format", "text", "--fs-source", "250", "--units", "mV"]
    words = ["embed", str(run), str(folder), str(tmp_path / "none.hea"), *how]
    main([*words, "--policy", "flat_line=keep", "--out", str(tmp_path / "out")])
    about = json.loads((tmp_path / "out/embed.json").read_text())
    assert about["not_read"] == {"no_source": 1, "unreadable": 1}
    assert about["flat"] == 1
    table = pd.read_parquet(tmp_path / "out/records.parquet")
    assert table["record_id"].tolist() == ["a'é", "b, c", "flat", "z"]
    assert table["flat"].tolist() == [False, False, True, False]
    assert of(tmp_path / "out").shape == (4, 16)
    assert "not read 2" in capsys.readouterr().out
    (tmp_path / "only").mkdir()
    shutil.copy(folder / "bad.txt", tmp_path / "only")
    code, said = fails(capsys, "embed", run, tmp_path / "only", *how, "--out", tmp_path / "x")
    assert code == 3
    assert "error[no_embedding]" in said
    assert of(tmp_path / "x").shape == (0, 16)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_brute_force(metric):
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(1000, 24)).astype(np.float32)
    rows[600] = rows[100]  # a tie: the earlier row comes first
    rows[5] = 0
    rows[9, 3] = np.nan
    query = rows[42].astype(np.float64) + 1e-3 * draw.normal(size=24)
    patient = np.array([f"p{i // 4}" for i in range(1000)], dtype=object)
    names = np.array([f"r{i}" for i in range(1000)], dtype=object)
    table = {"record_id": names, "patient_id": patient}
    asked = Query("q", query, np.zeros((1, 1), np.float32), "r42", "p10")
    exact = rows.astype(np.float64)
    if metric == "euclidean":
        apart = np.sqrt(((exact - query) ** 2).sum(1))
    else:
        with np.errstate(invalid="ignore"):
            apart = 1 - exact @ query / np.linalg.norm(exact, axis=1) / np.linalg.norm(query)
        apart[5] = 1
    for same, gone in [(False, patient == "p10"), (True, names == "r42")]:
        want = np.where(gone | np.isnan(apart), np.inf, apart)
        order = np.argsort(want, kind="stable")[:50]
        for size in (1000, 37, 1):
            blocks = (rows[at : at + size] for at in range(0, 1000, size))
            found = nearest(asked, blocks, table, k=50, metric=metric, same_patient=same)
            np.testing.assert_array_equal(found.rows, order)
            np.testing.assert_allclose(found.distances, want[order], rtol=1e-12, atol=1e-15)
        assert found.searched == 1000 - gone.sum() - 1
        assert (found.own, found.same_patient, found.not_finite) == (1, gone.sum() - 1, 1)
    few = nearest(asked, [rows[:3]], {k: v[:3] for k, v in table.items()}, k=9, metric=metric)
    assert len(few.rows) == 3


def test_a_record_finds_others_and_never_its_patient(store, run, embedded, tmp_path, capsys):
    rows, table = of(embedded).astype(np.float64), pd.read_parquet(embedded / "records.parquet")
    record = table["record_id"][11]
    told = {}
    for name, words in {
        "folder": ["--embeddings", str(embedded)],
        "store": ["--store", str(store)],
    }.items():
        out = tmp_path / f"{name}.json"
        main(["retrieve", str(run), "--record", record, *words, "-k", "5", "--json", str(out)])
        told[name] = json.loads(out.read_text())["neighbours"]
    apart = np.sqrt(((rows - rows[11]) ** 2).sum(1))
    apart[table["patient_id"] == table["patient_id"][11]] = np.inf
    order = np.argsort(apart)[:5]
    assert [one["record_id"] for one in told["folder"]] == table["record_id"][order].tolist()
    assert [one["record_id"] for one in told["store"]] == table["record_id"][order].tolist()
    assert [one["distance"] for one in told["folder"]] == pytest.approx(apart[order])
    assert "of its patient left out" in capsys.readouterr().out
    own = tmp_path / "own.json"
    words = ["--embeddings", str(embedded), "--same-patient", "-k", "200", "--json", str(own)]
    main(["retrieve", str(run), "--record", record, *words])
    names = [one["record_id"] for one in json.loads(own.read_text())["neighbours"]]
    assert len(names) == len(table) - 1
    assert record not in names


def test_a_file_is_not_its_own_neighbour(run, tmp_path, capsys):
    ecg, _ = make_cohort(6, signal=SIGNAL, seed=1)
    for place, record in enumerate(ecg[:6]):
        header = ",".join(LEADS)
        path = tmp_path / f"records/{place}.csv"
        path.parent.mkdir(exist_ok=True)
        np.savetxt(path, record.T, delimiter=",", header=header, comments="")
    how = ["--format", "text", "--fs-source", "250", "--units", "mV"]
    main(["convert", str(tmp_path / "records"), str(tmp_path / "s"), "--seconds", "2", *how])
    query = tmp_path / "elsewhere.csv"
    shutil.copy(tmp_path / "records/2.csv", query)
    out, png = tmp_path / "out.json", tmp_path / "out.png"
    words = [str(run), str(query), "--store", str(tmp_path / "s"), *how]
    main(["retrieve", *words, "--json", str(out), "--plot", str(png)])
    content = json.loads(out.read_text())
    assert content["left_out"]["own"] == 1
    assert len(content["neighbours"]) == content["searched"] == 5
    assert "2" not in [one["record_id"] for one in content["neighbours"]]
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_figure_has_a_page_an_ecg(tmp_path):
    ecg = np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32)
    strips = [Strip(ecg, f"{i}: $x$", "about") for i in range(4)]
    path = tmp_path / "f.png"
    figure = draw_neighbours(strips, leads=LEADS, fs=250.0, path=path, synthetic=True)
    assert len(figure.axes) == 4
    heads = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert all("SYNTHETIC" in texts for texts in heads)
    assert [any(f"{i}: $x$" in text for text in texts) for i, texts in enumerate(heads)] == [
        True
    ] * 4
    for axis in figure.axes:  # one scale both ways: paper is not stretched
        box = axis.get_position()
        wide = box.width * figure.get_figwidth() * 25.4 / np.ptp(axis.get_xlim())
        high = box.height * figure.get_figheight() * 25.4 / np.ptp(axis.get_ylim())
        assert wide == pytest.approx(1)
        assert high == pytest.approx(1)


def test_what_is_wrong_is_said_in_a_sentence(store, run, embedded, tmp_path, capsys):
    code, said = fails(capsys, "retrieve", run, "--embeddings", embedded)
    assert code == 2
    assert "name one ECG" in said
    code, said = fails(capsys, "retrieve", run, "--record", "p9", "--embeddings", embedded)
    assert code == 3
    assert "error[no_record]" in said
    code, said = fails(capsys, "retrieve", run, "--record", "x", "--embeddings", tmp_path)
    assert code == 3
    assert "no embed.json" in said
    other = make_run(tmp_path / "other", None, seed=1)
    code, said = fails(capsys, "retrieve", other, "--record", "x", "--embeddings", embedded)
    assert code == 3
    assert "of other weights" in said
    record = ECGStore.open(store).manifest["record_id"][0]
    words = ["retrieve", run, "--record", record, "--embeddings", embedded]
    code, said = fails(capsys, *words, "--show", "mpcw")
    assert (code, "did you mean mpcwp?" in said) == (2, True)
    code, said = fails(capsys, *words, "--plot", tmp_path / "x.gif")
    assert code == 2
    code, said = fails(capsys, "embed", run, tmp_path, "--store", store, "--out", tmp_path / "o")
    assert code == 2
    assert "not both" in said


@pytest.mark.parametrize("fault", ["cut", "rows", "shape", "header", "json"])
def test_a_damaged_folder_is_refused(run, embedded, tmp_path, fault):
    own = tmp_path / "own"
    shutil.copytree(embedded, own)
    path = own / "embeddings.safetensors"
    raw = path.read_bytes()
    if fault == "cut":
        path.write_bytes(raw[:-4])
    elif fault == "rows":
        pd.read_parquet(own / "records.parquet").iloc[1:].to_parquet(own / "records.parquet")
    elif fault == "shape":
        about = json.loads((own / "embed.json").read_text())
        (own / "embed.json").write_text(json.dumps(about | {"records": 10**12}))
    elif fault == "header":
        path.write_bytes((2**62).to_bytes(8, "little") + raw[8:])
    else:
        (own / "embed.json").write_text("[" * 100_000)
    with pytest.raises(ContractError, match=r"error\[embeddings\]"):
        open_embeddings(own, load(run))


def test_a_stopped_command_leaves_nothing_that_claims_to_be_whole(
    store, run, tmp_path, monkeypatch
):
    words = ["embed", str(run), "--store", str(store), "--out", str(tmp_path / "out")]
    main(words)

    def stop(self, index):
        raise KeyboardInterrupt

    monkeypatch.setattr("ecgfast.data.dataset.Records.batch", stop)
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 130
    with pytest.raises(ContractError, match=r"no embed\.json"):
        open_embeddings(tmp_path / "out", load(run))
    assert not list((tmp_path / "out").glob(".*"))
