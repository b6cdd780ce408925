"""Pictures on the command line: convert, finetune, evaluate, predict; and what is refused how."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import LEADS
from ecgfast.config.pages import PageFit
from ecgfast.data.images import ImageReading, read_image
from ecgfast.data.page_fit import fit_page
from ecgfast.data.page_store import PageStore
from ecgfast.data.synthetic import make_cohort
from ecgfast.systems.model import load
from ecgfast.systems.pages import fit_of, page_of
from ecgfast.systems.predict import predict
from ecgfast.train.contract import ContractError, from_json, to_json
from python_tests.conftest import shared_data
from python_tests.page_files import drawn, encoded, make_page_run, pdf_pages
from python_tests.small_run import SIGNAL, make_run


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_page_run(tmp_path_factory.mktemp("runs") / "page")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that learned from scans, which were stretched."""
    fit = PageFit(height=64, width=64, aspect="stretch")
    return make_page_run(tmp_path_factory.mktemp("runs") / "scans", pages=fit)


@pytest.fixture(scope="module")
def signal_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "signals")


@pytest.fixture
def scans(tmp_path):
    """Three pictures that can be read, and five that cannot."""
    folder = tmp_path / "scans"
    folder.mkdir()
    pages = drawn(2)
    good = {"a.png": encoded(pages[0]), "b.jpg": encoded(pages[1], "JPEG"), "c.pdf": pdf_pages(2)}
    bad = {
        "cut.png": encoded(pages[0])[:2000],
        "empty.jpg": b"",
        "text.png": b"hello",
        "white.tif": encoded(np.full((90, 90, 3), 255, np.uint8), "TIFF"),
    }
    for name, raw in (good | bad).items():
        (folder / name).write_bytes(raw)
    (folder / "out.png").symlink_to("/etc/hostname")
    return folder


def told(tmp_path, *words, code=0):
    out = tmp_path / "out.json"
    try:
        main(["predict", *map(str, words), "--json", str(out)])
    except SystemExit as left:
        assert left.code == code  # noqa: PT017
    else:
        assert code == 0
    return json.loads(out.read_text())


def fails(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, capsys.readouterr().err


def write_signal(path):
    ecg, _ = make_cohort(1, signal=SIGNAL, seed=1)
    np.savetxt(path, ecg[0].T, delimiter=",", header=",".join(LEADS), comments="")
    return path


AS_TEXT = ["--format", "text", "--fs-source", "250", "--units", "mV"]


def scored(run, path, **how):
    """By hand: read, fit, score."""
    model = load(run)
    page = read_image(path.parent, path.name, ImageReading())
    pixels, _ = fit_page(page, fit_of(model.contract, **how))
    return float(model(torch.from_numpy(pixels)[None])["score"])


def test_a_good_picture_has_a_score_and_a_bad_one_its_reason(run, scans, tmp_path, capsys):
    content = told(tmp_path, run, scans)
    rows = {row["record_id"]: row for row in content["records"]}
    assert content["counts"]["predicted"] == 3
    assert content["counts"]["failed"] == {
        **{"blank_page": 1, "empty_file": 1, "unreadable": 2, "unsafe_path": 1}
    }
    for name in ("a.png", "b.jpg", "c.pdf"):
        row = rows[name[0]]
        assert row["file"] == str(scans / name)
        assert row["error"] is None
        assert row["probability"] == pytest.approx(scored(run, scans / name), abs=1e-6)
    assert rows["a"]["probability"] != rows["b"]["probability"]
    assert [issue["name"] for issue in rows["c"]["issues"]] == ["several_pages"]
    for name in ("cut", "empty", "text", "white", "out"):
        assert rows[name]["probability"] is None
        assert rows[name]["issues"][0]["message"]
    said = capsys.readouterr().out
    assert "predicted 3 of 8 records" in said
    assert "not read: empty_file" in said


def test_one_file_alone_and_none_that_can_be_read(run, scans, tmp_path):
    content = told(tmp_path, run, scans / "a.png")
    assert [row["record_id"] for row in content["records"]] == ["a"]
    told(tmp_path, run, scans / "empty.jpg", scans / "absent.png", code=3)
    content = told(tmp_path, run, scans / "absent.png", scans / "a.png")
    assert [row["error"] for row in content["records"]] == ["no_source", None]


def test_batch_size_does_not_show(run, scans, tmp_path):
    def probabilities(*words):
        records = told(tmp_path, run, scans, *words)["records"]
        return [row["probability"] or np.nan for row in records]

    alone = probabilities("--batch-size", "1")
    np.testing.assert_allclose(probabilities(), alone, atol=1e-6)


def test_pages_of_a_pdf_trim_and_aspect(run, scans, tmp_path):
    first = told(tmp_path, run, scans / "c.pdf")["records"][0]
    second = told(tmp_path, run, scans / "c.pdf", "--page", "2", "--dpi", "100")["records"][0]
    assert "page 2 of 2" in second["issues"][0]["message"]
    assert first["probability"] != second["probability"]
    third = told(tmp_path, run, scans / "c.pdf", "--page", "3", code=3)["records"][0]
    assert third["error"] == "missing_page"
    row = told(tmp_path, run, scans / "a.png", "--aspect", "stretch")["records"][0]
    assert row["probability"] == pytest.approx(scored(run, scans / "a.png", aspect="stretch"))
    row = told(tmp_path, run, scans / "a.png", "--trim", "0,0.1,1,0.9")["records"][0]
    crop = (0.0, 0.1, 1.0, 0.9)
    assert row["probability"] == pytest.approx(scored(run, scans / "a.png", crop=crop))


def test_words_that_cannot_be(run, scans, capsys):
    for words, part in (
        (("--trim", "1,2"), "LEFT,TOP,RIGHT,BOTTOM"),
        (("--page", "0"), "page must be 1 to"),
        (("--dpi", "1"), "dpi must be 20 to 1200"),
    ):
        code, said = fails(capsys, "predict", run, scans, *words)
        assert code in (2, 3)
        assert part in said


def test_a_run_that_learned_from_scans_fits_them_alike(learned, scans, tmp_path, capsys):
    row = told(tmp_path, learned, scans / "a.png")["records"][0]
    assert row["probability"] == pytest.approx(scored(learned, scans / "a.png"))
    assert fit_of(load(learned).contract).aspect == "stretch"
    assert "expects  pages of 64 x 64 pixels in colour, aspect stretch\n" in capsys.readouterr().out


def test_signals_refuse_pictures_and_the_other_way_round(signal_run, learned, scans, tmp_path):
    record = write_signal(tmp_path / "record.csv")
    content = told(tmp_path, signal_run, scans / "a.png", scans, record, *AS_TEXT)
    rows = content["records"]
    assert [row["error"] for row in rows] == ["no_pages", "no_pages", None]
    assert "takes signals, no pictures" in rows[0]["issues"][0]["message"]
    content = told(tmp_path, learned, record, scans / "a.png", *AS_TEXT)
    rows = content["records"]
    assert [row["error"] for row in rows] == ["no_signals", None]
    assert "ecgfast render" in rows[0]["issues"][0]["message"]


def test_a_run_that_draws_takes_both(run, scans, tmp_path):
    record = write_signal(tmp_path / "record.csv")
    rows = told(tmp_path, run, scans / "a.png", record, *AS_TEXT)["records"]
    assert [row["error"] for row in rows] == [None, None]
    write_signal(scans / "beside.csv")
    content = told(tmp_path, run, scans, *AS_TEXT)
    assert content["counts"]["predicted"] == 4


def test_a_model_says_what_pages_it_takes(run, learned, signal_run):
    page = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert load(run)(page)["score"].shape == (1,)
    for wrong in (page[:, :1], page[..., :32], torch.zeros(1, 4, 64, 64)):
        with pytest.raises(ValueError, match=r"pages must be \(N, 3, 64, 64\)"):
            load(run)(wrong)
    with pytest.raises(ValueError, match="takes signals, no pictures"):
        load(signal_run)(page)
    with pytest.raises(ValueError, match="fine-tuned on pictures"):
        load(learned)(torch.zeros(1, 12, SIGNAL.samples))


def test_a_contract_keeps_its_pages(learned, run):
    contract = load(learned).contract
    assert from_json(json.loads(json.dumps(to_json(contract)))).pages == contract.pages
    old = json.loads(json.dumps(to_json(load(run).contract)))
    del old["pages"]  # as it was written before there were any
    assert from_json(old).pages is None
    broken = json.loads(json.dumps(to_json(contract)))
    broken["pages"]["height"] = "64"
    with pytest.raises(ValueError, match=r"pages.height is of type str"):
        from_json(broken)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """32 pages of 16 patients; what is to be learned is a bar at the top or at the bottom."""
    folder = tmp_path_factory.mktemp("easy")
    (folder / "scans").mkdir()
    pages = drawn(32, size=(96, 96))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["record_id", "patient_id", "mi"])
        for number, page in enumerate(pages):
            label = number % 2
            page[(64 if label else 8) : (88 if label else 32), 8:88] = 30
            (folder / "scans" / f"s{number}.png").write_bytes(encoded(page))
            writer.writerow([f"s{number}", f"p{number // 2}", label])
    return folder


def test_fine_tuning_on_pictures(easy, tmp_path, capsys):
    """The whole way: convert as a run expects it, split, finetune, evaluate, predict."""
    start = make_page_run(tmp_path / "start", task=None)
    store, out = tmp_path / "store", tmp_path / "tuned"
    words = ["--format", "image", "--like", str(start), "--labels", str(easy / "labels.csv")]
    main(["convert", str(easy / "scans"), str(store), *words])
    said = capsys.readouterr().out
    assert "stored   32 of 32 pictures, pages of 64 x 64 pixels in colour, aspect pad" in said
    assert "labels   labels.csv: 32 records of 32 rows" in said
    main(["split", str(store), "--by", "patient", "--fractions", "0.5,0.25,0.25"])
    words = ["--init", str(start), "--data.paths", str(store), "--label", "mi"]
    words += ["--task", "classification", "--fit.steps", "20", "--fit.batch_size", "16"]
    words += ["--optim.lr", "3e-3", "--optim.warmup_steps", "2", "--fit.progress", "false"]
    words += ["--validate_every", "20", "--keep", "last", "--fit.out", str(out)]
    main(["finetune", *words, "--draw", "anew", "--views.rotation_degrees", "-3", "3"])
    with (out / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert losses[-1] < 0.5 * losses[0]
    tuned = load(out)
    assert tuned.contract.pages == PageFit(height=64, width=64)
    assert page_of(tuned.contract.model) == (64, False)

    assert "brought to pages of 64 x 64 pixels" in (out / "card.md").read_text()
    with pytest.raises(ContractError, match="pages, drawn already"):
        predict(start, store, splits=("test",), layout="12x1")
    found = predict(out, store, splits=("test",))
    assert ((found["score"] > 0.5) == found["label"]).mean() > 0.8
    main(["evaluate", str(out), "--store", str(store), "--bootstrap", "50"])
    with pytest.raises(SystemExit):
        main(["evaluate", str(out), "--store", str(store), "--layouts", "12x1"])
    assert "there is nothing to draw" in capsys.readouterr().err
    facts = json.loads(next(out.glob("**/metrics.json")).read_text())
    assert facts["records"] == len(found["score"])
    by_store = told(tmp_path, out, store)["records"]
    by_file = {row["record_id"]: row for row in told(tmp_path, out, easy / "scans")["records"]}
    assert len(by_store) == 32
    for row in by_store:
        assert row["probability"] == pytest.approx(
            by_file[row["record_id"]]["probability"], abs=1e-5
        )


def test_pages_of_another_size_or_colour_are_refused(easy, tmp_path, capsys):
    start = make_page_run(tmp_path / "start", task=None)
    grey = make_page_run(tmp_path / "grey", task=None, grey=True)
    signals = make_run(tmp_path / "signals", task=None)
    labels = ["--labels", str(easy / "labels.csv")]
    for name, words in (("big", ["--size", "80", "64"]), ("g", ["--size", "64", "64", "--grey"])):
        words = ["--format", "image", *words, *labels]
        main(["convert", str(easy / "scans"), str(tmp_path / name), *words])
        main(["split", str(tmp_path / name)])
    tune = ["finetune", "--task", "classification", "--label", "mi", "--fit.steps", "1"]
    tune += ["--fit.out", str(tmp_path / "out"), "--init"]
    code, said = fails(capsys, *tune, start, "--data.paths", tmp_path / "big")
    assert code == 3
    assert "height: encoder expects 64" in said
    assert "has 80" in said
    assert "--size 64 64 --aspect pad --trim none" in said
    code, said = fails(capsys, *tune, start, "--data.paths", tmp_path / "g")
    assert (code, "grey: encoder expects False" in said) == (3, True)
    code, said = fails(capsys, *tune, signals, "--data.paths", tmp_path / "big")
    assert (code, "holds pages: the run's encoder takes signals" in said) == (3, True)
    code, said = fails(capsys, "finetune", *tune[1:-1], "--data.paths", tmp_path / "g")
    assert (code, "holds pages: they are for finetune" in said) == (3, True)
    words = ["--data.paths", tmp_path / "g", "--fit.out", tmp_path / "out"]
    code, said = fails(capsys, "pretrain", "simclr", *words)
    assert (code, "here signals are needed" in said) == (3, True)
    words = ["--data.paths", tmp_path / "g", "--augment.noise_mv", "0.1", "0.2"]
    code, said = fails(capsys, *tune, grey, *words)
    assert (code, "take --draw anew" in said) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_network_that_begins_anew_on_pages(easy, tmp_path, capsys):
    store, out = str(tmp_path / "store"), str(tmp_path / "out")
    words = ["--format", "image", "--size", "64", "64", "--grey"]
    main(["convert", str(easy / "scans"), store, *words, "--labels", str(easy / "labels.csv")])
    main(["split", store])
    words = ["finetune", "--task", "classification", "--label", "mi", "--fit.steps", "2"]
    words += ["--page.net", "efficientnet-b0", "--page.size", "64", "--page.grey", "true"]
    words += ["--fit.batch_size", "4", "--fit.progress", "false", "--fit.out", out]
    main([*words, "--data.paths", store])
    assert load(out).contract.pages == PageFit(height=64, width=64, grey=True)
    main(["embed", out, "--store", store, "--out", str(tmp_path / "embedded")])
    about = json.loads((tmp_path / "embedded" / "embed.json").read_text())
    assert (about["records"], about["not_finite"], about["flat"]) == (32, 0, 0)
    assert about["expects"] == "pages of 64 x 64 pixels in grey, aspect pad"
    row = told(tmp_path, out, easy / "scans" / "s1.png")["records"][0]
    assert 0 < row["probability"] < 1


def test_convert_asks_for_a_size_and_for_pictures_alone(scans, signal_run, tmp_path, capsys):
    words = ["convert", scans, tmp_path / "store"]
    for more, part, wanted in (
        (["--format", "image"], "--size HEIGHT WIDTH, or --like RUN", 2),
        (["--size", "64", "64"], "name another --modality (signal, page, echo)", 2),
        (["--format", "image", "--size", "64", "64", "--fs-source", "250"], "--fs-source", 2),
        (["--format", "image", "--size", "4", "64"], "height must be 8 to 4096", 2),
        (["--format", "image", "--like", signal_run], "takes signals, no pictures", 3),
    ):
        code, said = fails(capsys, *words, *more)
        assert (code, part in said) == (wanted, True), said
    assert not (tmp_path / "store").exists()
    main([*map(str, words), "--format", "image", "--size", "64", "64", "--trim", "auto"])
    said = capsys.readouterr().out
    assert "stored   3 of 8 pictures" in said
    assert "rejected 5 records" in said
    assert PageStore.open(tmp_path / "store").fit.crop == "auto"


def test_real_scans_have_scores(run, tmp_path):
    folder = shared_data("ecg-images")
    content = told(tmp_path, run, folder, "--trim", "auto")
    assert content["counts"] == {"records": 16, "predicted": 16, "failed": {}, "noticed": {}}
    assert len({row["probability"] for row in content["records"]}) == 16
