"""From an encoder of clips to scores of studies; all data SYNTHETIC."""

from __future__ import annotations

import json
import shutil

import numpy as np
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
from ecgfast.systems.model import load
from ecgfast.systems.predict import predict
from ecgfast.systems.scored import Asked, predict_part
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


def test_the_report_shows_moving_clips(run):
    main(["evaluate", str(run), "--bootstrap", "20"])
    main(["report", str(run), "--examples", "1"])
    page = (run / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 2  # best and worst
    assert "Example clips" in page
    assert "from echo videos" in page
    assert f"Clips of {FRAMES} frames, 2 apart." in page
    assert "SYNTHETIC" in page


def test_embed_keeps_studies(store, run, tmp_path):
    main(["embed", str(run), "--store", str(store), "--out", str(tmp_path / "e")])
    found = open_embeddings(tmp_path / "e", load(run))
    assert {"study_id", "view", "lvh"} <= set(found.table)
    source = open_source([str(store)], ("all", "test"), signal=Signal(), patients=1)
    assert found.rows.shape == (len(source), 16)
    assert np.isfinite(found.rows).all()
    with_scores = predict(run, store, splits=("all", "test"))
    np.testing.assert_allclose(found.rows, with_scores["embedding"], rtol=1e-4, atol=1e-6)


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


def test_longer_clips_begin_from_the_encoder_of_shorter_ones(store, run, tmp_path):
    out = tmp_path / "longer"
    longer = ["--clip.frames", "6", "--clip.step", "1"]
    anew = ["--draw", "anew", "--clip_views.pad", "2"]
    data = ["--data.paths", f"[{store}]", "--fit.out", str(out)]
    main(["finetune", "--init", str(run), *longer, *anew, *TASK[:6], *FEW, *data])
    arguments = load(out).contract.model["arguments"]
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
    import pandas as pd

    other = tmp_path / "store"
    shutil.copytree(store, other)
    table = pd.read_parquet(other / "manifest.parquet")
    first = table.index[table["study_id"].duplicated(keep=False) & (table["split"] == "test")][0]
    table.loc[first, "lvh"] = 1 - table.loc[first, "lvh"]
    table.to_parquet(other / "manifest.parquet")
    videos = predict(run, other, extra=("study_id",))
    with pytest.raises(ValueError, match=r"1 of .* studies have videos with different labels"):
        by_study(videos)
    with pytest.raises(DataError, match="study_label"):
        predict_part(Asked(runs=(str(run),)), [str(run)], [str(other)], "test")


def test_a_network_that_begins_anew_says_what_videos_it_wants():
    assert fit_of_net(ClipNet(net="none")) is None
    assert fit_of_net(ClipNet(size=56, grey=False)) == ClipFit(size=56, grey=False)
