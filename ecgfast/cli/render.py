"""Draw an ECG as on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from ecgfast.cli.convert import reading, reading_options
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser

INCH_MM = 25.4
PAPERS = {"letter": (215.9, 279.4), "a4": (210.0, 297.0), "a3": (297.0, 420.0)}  # height, width
SUFFIXES = (".png", ".pdf", ".jpg", ".jpeg", ".tif")
MOST_SECONDS = 3600.0


def options(parser: Parser) -> None:
    """The record, the page, what it looks like."""
    parser.add_argument("path", type=str, help="a record (.hea, .mat, .txt, .csv)")
    parser.add_argument("--out", type=str, required=True, help="page.png, .pdf, .jpg or .tif")
    parser.add_argument(
        "--layout", type=str, default="3x4+1", help="12x1, 6x2, 3x4, 3x4+1 or 3x4+3 (rhythm strips)"
    )
    parser.add_argument("--start", type=float, default=0.0, help="second to begin at")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long; all of a shorter record"
    )
    parser.add_argument(
        "--paper", type=Literal["letter", "a4", "a3"], default="letter", help="across"
    )
    parser.add_argument("--dpi", type=float, default=200.0, help="pixels of an inch")
    parser.add_argument(
        "--size", type=int, nargs=2, default=None, help="height and width in pixels, for paper, dpi"
    )
    parser.add_argument("--mm-per-s", type=float, default=25.0, help="speed: 25 or 50")
    parser.add_argument("--mm-per-mv", type=float, default=10.0, help="gain: 5, 10 or 20")
    parser.add_argument("--grid", type=Literal["mm", "5mm", "none"], default="mm", help="lines")
    parser.add_argument("--grey", action="store_true", help="without colours")
    parser.add_argument(
        "--band",
        type=float,
        nargs=2,
        default=None,
        help="pass band, Hz; zero phase",
    )
    parser.add_argument("--title", type=str, default=None, help="top line; none is its name")
    parser.add_argument(
        "--overflow",
        type=Literal["overlap", "clip"],
        default="overlap",
        help="what becomes of a trace beyond its row",
    )
    parser.add_argument(
        "--missing",
        type=Literal["blank", "raise"],
        default="blank",
        help="leads that the record has not: their places stay blank, or an error",
    )
    reading_options(parser)


def run(words: Namespace) -> None:
    """Reads the record, draws it, says at what scale."""
    out = Path(words.out)
    if out.suffix.lower() not in SUFFIXES:
        raise Fail(2, f"error: --out {out} must end in one of {', '.join(SUFFIXES)}")
    if not out.absolute().parent.is_dir():
        raise Fail(2, f"error: {out} cannot be written, there is no such folder")
    if not 1 <= words.dpi <= 2400:
        raise Fail(2, f"error: --dpi must be from 1 to 2400, got {words.dpi:g}")
    if not 0 < words.seconds <= MOST_SECONDS or not words.start >= 0:
        raise Fail(
            2,
            f"error: --seconds must be in (0, {MOST_SECONDS:g}] and --start 0 or more, got "
            f"{words.seconds:g} and {words.start:g}",
        )
    import torch

    from ecgfast.data.pages import write_page
    from ecgfast.data.records import DataError, printable
    from ecgfast.ops import PageStyle, rasterize_ecg

    ecg = _read(words)
    signal = torch.from_numpy(_part(ecg, words))[None]
    if words.band is not None:
        from ecgfast.transforms.signal import Prepare

        low, high = words.band
        try:
            signal = Prepare(fs=ecg.fs, band=(low, high))(signal.float())
        except ValueError as error:
            raise Fail(2, f"error: --band {low:g} {high:g}: {error}") from error
    size = tuple(words.size or (round(mm / INCH_MM * words.dpi) for mm in PAPERS[words.paper]))
    style = {
        "mm_per_s": words.mm_per_s,
        "mm_per_mv": words.mm_per_mv,
        "grid": words.grid,
        "header": printable(ecg.record_id if words.title is None else words.title)[:80],
        "overflow": words.overflow,
    }
    drawing = {"fs": ecg.fs, "layout": words.layout, "size": size, "leads": ecg.leads}
    drawing |= {"channels": 1 if words.grey else 3, "missing": words.missing}
    try:
        page = rasterize_ecg(signal, style=PageStyle(**style), **drawing)
        true = words.dpi / INCH_MM
        exact = words.size is None and page.px_per_mm[0] >= true
        if exact:
            page = rasterize_ecg(signal, style=PageStyle(**style, px_per_mm=true), **drawing)
    except ValueError as error:
        raise DataError(f"error[render] {words.path}: {error}") from error
    write_page(out, page.images[0].numpy(), dpi=words.dpi)
    _say(words, page, ecg, signal, exact)


def _read(words: Namespace) -> Any:
    from ecgfast.data.records import DataError
    from ecgfast.data.sources import find, read

    path = Path(words.path)
    if path.suffix == "" and not path.exists() and path.with_suffix(".hea").exists():
        path = path.with_suffix(".hea")  # a record is often named without its suffix
    if not path.exists():
        raise Fail(3, f"error[no_source] there is no {path}")
    how = reading(words)
    items = find([path], how)
    if len(items) != 1:
        names = ", ".join(item.record_id for item in items[:3])
        raise Fail(3, f"error[records] {path} holds {len(items)} records ({names}, ...): name one")
    _, ecg = next(iter(read(items, how)))
    if isinstance(ecg, Exception):
        raise DataError(str(ecg))
    return ecg


def _part(ecg: Any, words: Namespace) -> Any:
    begin = round(words.start * ecg.fs)
    part = ecg.signal[:, begin : begin + max(1, round(words.seconds * ecg.fs))]
    if not part.shape[1]:
        raise Fail(
            3, f"error[start] {words.path} has {ecg.seconds:g} s, --start is {words.start:g} s"
        )
    return part.copy()


def _say(words: Namespace, page: Any, ecg: Any, signal: Any, exact: bool) -> None:
    height, width = page.images.shape[2:]
    shown = f"{signal.shape[2] / ecg.fs:g} s of {len(ecg.leads)} leads"
    scale = f"{words.mm_per_s:g} mm/s, {words.mm_per_mv:g} mm/mV"
    print(f"wrote {words.out}: {shown}, {width} x {height} pixels, {scale}")
    if exact:
        print(f"true to scale on {words.paper} at {words.dpi:g} dpi")
    elif words.size is None:
        shrunk = page.px_per_mm[0] * INCH_MM / words.dpi
        print(f"a mm is drawn as {shrunk:.2f} mm, to fit {words.paper}; --paper a3 has more room")
    gone = dict.fromkeys(box.lead for box in page.boxes[0] if box.lead not in ecg.leads)
    if gone:
        print(f"blank: {', '.join(gone)} (not in the record)")
    beyond = _beyond(page, signal, ecg)
    if beyond:
        done = "clipped" if words.overflow == "clip" else "overlaps its neighbours"
        print(f"beyond its row, {done}: {', '.join(beyond)}; --mm-per-mv 5 or --band 0.5 40 help")


def _beyond(page: Any, signal: Any, ecg: Any) -> list[str]:
    found = []
    for box in page.boxes[0]:
        if box.lead not in ecg.leads:
            continue
        part = signal[0, ecg.leads.index(box.lead), box.first : box.first + box.samples]
        y = box.baseline - box.px_per_mv * part[part.isfinite()]
        if len(y) and (float(y.min()) < box.top or float(y.max()) > box.bottom):
            found.append(box.lead)
    return list(dict.fromkeys(found))
