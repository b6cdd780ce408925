"""From an encoder of clips to scores of studies; all data SYNTHETIC."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit, ClipNet
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.synthetic_echo import write_echo_cohort
from ecgfast.data.tables import read_table
from ecgfast.eval.studies import by_study
from ecgfast.systems.embed import open_embeddings
from ecgfast.systems.model import load, load_ensemble
from ecgfast.systems.predict import predict
from ecgfast.systems.scored import Asked, columns_of, predict_part
from ecgfast.systems.windows import fit_of_net, of_windows
from ecgfast.train.contract import ContractError

SIZE, FRAMES = 24, 4
NET = ["--clip.net", "r3d_18", "--clip.width", "2", "--clip.size", str(SIZE)]
NET += ["--clip.frames", str(FRAMES), "--clip.step", "2"]
TASK = ["--label", "lvh", "--task", "classification", "--hidden", "0", "--signal.band", "null"]
FEW = ["--fit.steps", "3", "--fit.batch_size", "8", "--fit.progress", "false"]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    write_echo_cohort(path, 60, size=SIZE, frames=12, fps=30.0, seed=0)
    return path


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "lvh"
    main(["finetune", *NET, *TASK, *FEW, "--data.paths", f"[{store}]", "--fit.out", str(out)])
    return out


def test_a_clip_says_the_same_alone_and_among_the_clips_of_a_video(run):
    model = load(run)
    draw = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (6, 1, FRAMES, SIZE, SIZE), dtype=torch.uint8, generator=draw)
    alone = model(clips)
    videos = clips.unflatten(0, (2, 3)).transpose(1, 2).reshape(2, 1, 3 * FRAMES, SIZE, SIZE)
    together = model(videos)
    for name in ("score", "embedding"):
        mean = alone[name].unflatten(0, (2, 3)).mean(dim=1)
        torch.testing.assert_close(together[name], mean)


def test_windows_are_averaged_in_order():
    videos = torch.arange(2 * 6, dtype=torch.float32).reshape(2, 1, 6, 1, 1)
    seen = []

    def call(clips):
        seen.append(clips.shape)
        return {"first": clips[:, 0, 0, 0, 0], "both": clips.flatten(1)}

    found = of_windows(call, videos, 2)
    assert seen == [(6, 1, 2, 1, 1)]
    assert found["first"].tolist() == [2.0, 8.0]
    assert found["both"].tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_evaluate_scores_studies(store, run):
    main(["evaluate", str(run), "--bootstrap", "20"])
    table = read_table(run / "evaluation-test" / "predictions.parquet")
    facts = json.loads((run / "evaluation-test" / "metrics.json").read_text())
    videos = predict(run, store, extra=("study_id",))
    by_hand = by_study(videos)
    assert facts["by"] == "study"
    assert facts["videos"] == len(videos["score"]) > facts["records"] == len(table["score"])
    assert facts["unlabelled"] == 0
    assert facts["synthetic"] is True
    np.testing.assert_allclose(table["score"], by_hand["score"], rtol=1e-6)
    assert table["record_id"].tolist() == by_hand["record_id"].tolist()

    out = run / "by-video"
    main(["evaluate", str(run), "--bootstrap", "20", "--by", "record", "--out", str(out)])
    assert len(read_table(out / "predictions.parquet")["score"]) == len(videos["score"])


def test_the_synthetic_cohort_of_videos_has_columns_of_its_own(tmp_path):
    out = str(tmp_path / "lvef")
    words = ["--label", "lvef", "--task", "regression", "--signal.band", "null", "--fit.out", out]
    main(["finetune", *NET, *FEW, *words, "--data.patients", "30"])
    main(["evaluate", out, "--bootstrap", "20", "--keep", "wall_mm", "--subgroups", "lvh"])
    table = read_table(tmp_path / "lvef" / "evaluation-test" / "predictions.parquet")
    facts = json.loads((tmp_path / "lvef" / "evaluation-test" / "metrics.json").read_text())
    assert {"wall_mm", "lvh"} <= set(table)
    assert facts["by"] == "study"
    columns = columns_of((), out)
    made = open_source((), ("all",), signal=Signal(), patients=1, clips=ClipFit(size=SIZE))
    assert set(made.table) == set(columns)
    assert "visit" not in columns


def test_the_report_shows_moving_clips(run):
    main(["evaluate", str(run), "--bootstrap", "20"])
    main(["report", str(run), "--examples", "1"])
    page = (run / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 2  # best and worst
    assert "Example clips" in page
    assert "from echo videos" in page
    assert f"Clips of {FRAMES} frames, 2 apart." in page
    assert "SYNTHETIC" in page


def test_embed_keeps_studies(store, run, tmp_path, capsys):
    main(["embed", str(run), "--store", str(store), "--out", str(tmp_path / "e")])
    assert f"ecgfast retrieve {run} --record ID --embeddings" in capsys.readouterr().out
    found = open_embeddings(tmp_path / "e", load(run))
    assert {"study_id", "view", "lvh"} <= set(found.table)
    source = open_source([str(store)], ("all", "test"), signal=Signal(), patients=1)
    assert found.rows.shape == (len(source), 16)
    assert np.isfinite(found.rows).all()
    with_scores = predict(run, store, splits=("all", "test"))
    np.testing.assert_allclose(found.rows, with_scores["embedding"], rtol=1e-4, atol=1e-6)
    search = ["retrieve", str(run), "--embeddings", str(tmp_path / "e")]
    main([*search, "--record", str(found.table["record_id"][0])])
    assert "SYNTHETIC data" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*search[:2], "x.avi", *search[2:]])
    assert left.value.code == 3
    assert "--embeddings FOLDER --record ID" in capsys.readouterr().err


def test_predict_scores_every_video_of_a_store(store, run, tmp_path, capsys):
    out = tmp_path / "p.json"
    main(["predict", str(run), str(store), "--json", str(out)])
    rows = json.loads(out.read_text())["records"]
    scores = predict(run, store, splits=("all", "test"))
    assert [row["record_id"] for row in rows] == scores["record_id"].tolist()
    told = [row["probability"] for row in rows]
    np.testing.assert_allclose(told, scores["score"], rtol=1e-5)
    assert "frames of 24 x 24 pixels in grey" in capsys.readouterr().out


def test_label_efficiency_scores_studies(store, run, tmp_path):
    words = ["--init", f"tuned={run}@full", "random@full", f"frozen={run}", "--label", "lvh"]
    words += ["--task", "classification", "--data.paths", str(store), "--fractions", "0.5", "1"]
    words += ["--seeds", "1", "--clip.frames", str(FRAMES), "--clip.step", "2", "--fit.steps", "2"]
    words += ["--bootstrap", "20", "--full.hidden", "0", "--out", str(tmp_path / "sweep")]
    main(["labeleff", *words])
    source = open_source([str(store)], ("test",), signal=Signal(), patients=1, label="lvh")
    studies = len(np.unique(source.studies()))
    for name in ("tuned", "random-full", "frozen"):
        cell = read_table(tmp_path / "sweep" / "cells" / name / "1-seed0.parquet")
        assert len(cell["score"]) == studies < len(source)
        assert np.isfinite(cell["score"]).all()


def test_a_run_repeats_to_the_last_bit(store, run, tmp_path):
    again = tmp_path / "again"
    main(["finetune", *NET, *TASK, *FEW, "--data.paths", f"[{store}]", "--fit.out", str(again)])
    for name in ("encoder.safetensors", "head.safetensors"):
        assert (run / name).read_bytes() == (again / name).read_bytes()


@pytest.fixture(scope="module")
def longer(store, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "longer"
    clips = ["--clip.frames", "6", "--clip.step", "1"]
    anew = ["--draw", "anew", "--clip_views.pad", "2"]
    data = ["--data.paths", f"[{store}]", "--fit.out", str(out)]
    main(["finetune", "--init", str(run), *clips, *anew, *TASK[:6], *FEW, *data])
    return out


def test_longer_clips_begin_from_the_encoder_of_shorter_ones(longer):
    arguments = load(longer).contract.model["arguments"]
    assert (arguments["frames"], arguments["step"], arguments["width"]) == (6, 1, 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--augment.flip_p", "0.5"], "--augment is for signals"),
        (["--init", "RUN", "--clip.net", "r3d_18"], "init brings its own"),
        (["--page.net", "efficientnet-b0"], "two kinds"),
        (["--signal.recipe", "dual_attention"], "add --signal.recipe ''"),
    ],
)
def test_words_that_do_not_fit_are_refused(store, run, tmp_path, capsys, words, told):
    words = [str(run) if word == "RUN" else word for word in words]
    data = ["--data.paths", f"[{store}]", "--fit.out", str(tmp_path / "no")]
    net = NET if "--init" not in words else []
    with pytest.raises(SystemExit) as left:
        main(["finetune", *net, *TASK, *FEW, *data, *words])
    assert left.value.code == 2
    assert told in capsys.readouterr().err


def test_clips_of_another_shape_are_refused(run):
    model = load(run)
    for shape in ((2, 1, 5, SIZE, SIZE), (2, 2, 4, SIZE, SIZE), (2, 1, 4, SIZE, 20), (2, 1, SIZE)):
        with pytest.raises(ValueError, match=r"clips must be \(N, 1 or 3, K 4, 24, 24\)"):
            model(torch.zeros(shape, dtype=torch.uint8))


def test_floats_would_be_taken_as_scaled_and_are_refused(run):
    with pytest.raises(ValueError, match=r"clips must be uint8, .* got torch.float32"):
        load(run)(torch.zeros(2, 1, FRAMES, SIZE, SIZE))


def test_runs_that_see_other_clips_are_no_ensemble(store, run, longer, capsys):
    with pytest.raises(ContractError, match=r"other clips.*: 6 frames, 1 apart.*; 4 frames, 2"):
        load_ensemble([run, longer])
    with pytest.raises(SystemExit) as left:
        main(["predict", str(run), str(store), "--ensemble", str(longer)])
    assert left.value.code == 3
    assert "see other clips" in capsys.readouterr().err


def test_videos_of_a_study_are_one_patients_whom_nobody_knows(store, run, tmp_path):
    other = tmp_path / "store"
    shutil.copytree(store, other)
    table = pd.read_parquet(other / "manifest.parquet")
    table["patient_id"] = ""
    table.to_parquet(other / "manifest.parquet")
    studies = np.unique(table["study_id"][table["split"] == "test"])
    for by in ("record", "study"):
        found = predict_part(Asked(runs=(str(run),), by=by), [str(run)], [str(other)], "test")
        assert len(np.unique(found["patient_id"])) == len(studies)
    assert len(found["score"]) == len(studies) < (table["split"] == "test").sum()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["export", "RUN", "--to", "onnx", "--out", "OUT"], 2, "take --to safetensors"),
        (["biomarkers", "STORE", "--out", "OUT"], 3, "holds videos: biomarkers are of"),
        (["retrieve", "RUN", "--record", "x"], 3, "embed RUN --store STORE --out FOLDER"),
        (
            ["labeleff", *NET, "--label", "lvh", "--data.paths", "[STORE]", "--out", "OUT"],
            2,
            "dtw-knn compares signals",  # of the usual starts
        ),
        (["calibrate", "RUN"], 3, "intervals are of a regression"),
        (["neighbours", "STORE", "--out", "OUT"], 3, "holds videos"),
        (["pretrain", "simclr", "--data.paths", "[STORE]", "--fit.out", "OUT"], 3, "holds videos"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_commands_that_are_not_for_videos_say_so(store, run, tmp_path, capsys, words, code, told):
    names = {"RUN": str(run), "STORE": str(store), "OUT": str(tmp_path / "out")}
    for name, path in names.items():
        words = [word.replace(name, path) if name in word else word for word in words]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == code
    assert told in capsys.readouterr().err


def test_signals_and_clips_do_not_meet(store, run, tmp_path, capsys):
    with pytest.raises(ContractError, match="holds no videos"):
        predict(run, _signals(tmp_path / "ecg"), label="lvef")
    with pytest.raises(SystemExit):
        main(["finetune", *TASK, *FEW, "--data.paths", f"[{store}]", "--fit.out", str(tmp_path)])
    assert "holds videos" in capsys.readouterr().err


def _signals(path):
    from ecgfast.data.synthetic import write_cohort

    write_cohort(path, 4, signal=Signal(fs=100.0, seconds=2.0), seed=0)
    return path


def test_studies_of_two_labels_are_refused(store, run, tmp_path):
    other = tmp_path / "store"
    shutil.copytree(store, other)
    table = pd.read_parquet(other / "manifest.parquet")
    first = table.index[table["study_id"].duplicated(keep=False) & (table["split"] == "test")][0]
    table.loc[first, "lvh"] = 1 - table.loc[first, "lvh"]
    table.to_parquet(other / "manifest.parquet")
    videos = predict(run, other, extra=("study_id",))
    with pytest.raises(ValueError, match=r"1 of .* studies have videos with different labels"):
        by_study(videos)
    with pytest.raises(DataError, match=r"study_label.* score videos \(--by record\)"):
        predict_part(Asked(runs=(str(run),)), [str(run)], [str(other)], "test")


def test_a_network_that_begins_anew_says_what_videos_it_wants():
    assert fit_of_net(ClipNet(net="none")) is None
    assert fit_of_net(ClipNet(size=56, grey=False)) == ClipFit(size=56, grey=False)
