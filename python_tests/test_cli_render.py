"""ecgfast render: a page for people, true to scale, and words for what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ecgfast.cli import main
from ecgfast.cli.render import PAPERS
from python_tests.conftest import shared_data

FS, SECONDS = 500, 10


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: a page is a big tensor."""


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Twelve leads as text, mV; V6 has a gap, II reaches beyond its row."""
    folder = tmp_path_factory.mktemp("records")
    t = np.arange(FS * SECONDS) / FS
    lead = 0.8 * np.exp(-(((t % 0.8 - 0.4) / 0.012) ** 2))
    signal = np.stack([lead * (0.5 + k / 12) for k in range(12)])
    signal[1] += 6
    signal[11, 1000:1500] = np.nan
    path = folder / "heart-1.csv"
    np.savetxt(path, signal.T, delimiter=",", fmt="%.4f")
    return str(path)


READ = ["--fs-source", str(FS), "--units", "mV", "--leads-source"]
READ += ["I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"]


def render(record, out, *words):
    main(["render", record, "--out", str(out), *READ, *words])


def test_a_letter_is_true_to_scale(record, tmp_path, capsys):
    out = tmp_path / "page.png"
    render(record, out, "--dpi", "100")
    said = capsys.readouterr().out
    assert "10 s of 12 leads, 1100 x 850 pixels, 25 mm/s, 10 mm/mV" in said
    assert "true to scale on letter at 100 dpi" in said
    assert "beyond its row, overlaps its neighbours: II;" in said
    with Image.open(out) as image:
        assert image.size == (1100, 850)
        assert image.mode == "RGB"
        assert image.info["dpi"] == pytest.approx((100, 100), abs=0.1)
        page = np.asarray(image).astype(int)
    # the lines each 5 mm are the reddest: their pitch along a row that has no trace
    row = (page[40, :, 0] - page[40, :, 1]).astype(float)
    spectrum = np.abs(np.fft.rfft(row[:1024] - row[:1024].mean()))
    assert np.argmax(spectrum[20:80]) + 20 == pytest.approx(1024 / (100 / 25.4 * 5), abs=0.6)


@pytest.mark.parametrize("suffix", ["pdf", "jpg", "tif", "png"])
def test_every_form_is_written_whole(record, tmp_path, suffix):
    out = tmp_path / f"page.{suffix}"
    render(record, out, "--size", "300", "400", "--grey", "--layout", "6x2", "--title", "")
    begin = out.read_bytes()[:4]
    assert begin == {"pdf": b"%PDF", "png": b"\x89PNG"}.get(suffix, begin)
    if suffix != "pdf":
        with Image.open(out) as image:
            assert image.size == (400, 300)
            assert image.mode == "L"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_does_not_fit_is_drawn_smaller_and_said(record, tmp_path, capsys):
    render(record, tmp_path / "fast.png", "--mm-per-s", "50", "--dpi", "60")
    said = capsys.readouterr().out
    shrunk = PAPERS["letter"][1] / (50 * 10 + 20)
    assert f"a mm is drawn as {shrunk:.2f} mm, to fit letter" in said


def test_a_part_and_a_band(record, tmp_path, capsys):
    words = ["--start", "2", "--seconds", "3", "--size", "300", "400"]
    for band, named in (([], True), (["--band", "0.5", "40"], False)):
        render(record, tmp_path / "part.png", *words, *band)
        said = capsys.readouterr().out
        assert "3 s of 12 leads" in said
        beyond = said.partition("beyond its row")[2]
        assert (" II," in beyond) == named  # the band takes its offset out


def test_leads_that_are_not_there_are_blank_or_an_error(tmp_path, capsys):
    path = tmp_path / "two.csv"
    np.savetxt(path, np.zeros((1000, 2)), delimiter=",", fmt="%.3f")
    words = ["render", str(path), "--out", str(tmp_path / "two.png"), "--fs-source", "100"]
    words += ["--units", "mV", "--leads-source", "I,II", "--size", "200", "300"]
    main(words)
    assert "blank: aVR, V1, V4, aVL" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*words, "--missing", "raise"])
    assert left.value.code == 3
    assert "lacks aVR, V1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--out", "page.bmp"], 2, "must end in one of .png, .pdf"),
        (["--out", "nowhere/page.png"], 2, "there is no such folder"),
        (["--layout", "4x4"], 3, "layout must be one of 12x1, 6x2"),
        (["--size", "0", "10"], 3, "1 to 32768 pixels"),
        (["--dpi", "0"], 2, "--dpi must be from 1 to 2400"),
        (["--mm-per-s", "-1"], 3, "mm_per_s must be positive"),
        (["--start", "60"], 3, "has 10 s, --start is 60 s"),
        (["--seconds", "0"], 2, "--seconds must be in"),
        (["--band", "40", "0.5"], 2, "--band 40 0.5"),
        (["--gird", "mm"], 2, "did you mean"),
    ],
)
def test_says_what_it_cannot_do(record, tmp_path, capsys, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["render", record, "--out", "page.png", *READ, *words])
    assert left.value.code == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_file_and_a_folder_of_many(tmp_path, record, capsys):
    with pytest.raises(SystemExit) as left:
        main(["render", str(tmp_path / "gone.hea"), "--out", str(tmp_path / "page.png")])
    assert left.value.code == 3
    assert "there is no" in capsys.readouterr().err


def test_a_real_record_is_drawn(tmp_path, capsys):
    folder = shared_data("ptb-xl-500", "records500")
    header = sorted(folder.rglob("*.hea"))[0]
    main(["render", str(header.with_suffix("")), "--out", str(tmp_path / "page.png")])
    assert "true to scale on letter at 200 dpi" in capsys.readouterr().out
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (2200, 1700)
