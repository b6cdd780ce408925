"""Find the records that are most like an ECG."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal, cast

from jsonargparse import Namespace

from ecgfast.cli.convert import planned, reading_options, shaping_options
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.cli.predict import check_using, print_columns, using_options

SCHEMA = "ecgfast.retrieve/1"
SHOWN = ("age", "sex")


def options(parser: Parser) -> None:
    """The run, the query, where to search, what to show."""
    parser.add_argument("run", type=str, help="folder of a run, with a head or without")
    parser.add_argument("path", type=str, nargs="?", default="", help="an ECG file")
    parser.add_argument("--record", type=str, default="", help="or a record of the stores, by name")
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="folders of records to search; none takes what the run was trained from",
    )
    parser.add_argument(
        "--embeddings", type=str, default="", help="folder that `ecgfast embed` made of them"
    )
    parser.add_argument("-k", type=int, default=10, help="how many")
    parser.add_argument(
        "--metric",
        type=Literal["cosine", "euclidean"],
        default="euclidean",
        help="distance of embeddings",
    )
    parser.add_argument(
        "--same-patient", action="store_true", help="also other records of the query's patient"
    )
    parser.add_argument(
        "--show", type=str, default="", help="columns to print, with commas; none takes a few"
    )
    parser.add_argument("--json", type=str, default="", help="write the neighbours to this file")
    parser.add_argument("--plot", type=str, default="", help="draw them on ECG paper: a .png")
    using_options(parser)
    reading_options(parser)
    shaping_options(parser)


def run(words: Namespace) -> None:
    """Prints the nearest records, and draws them if asked to."""
    check_using(words)
    if bool(words.path) == bool(words.record):
        raise Fail(2, "error: name one ECG: a file, or --record ID of the stores")
    if words.k < 1:
        raise Fail(2, f"error: -k must be 1 or more, got {words.k}")
    for path in filter(None, (words.json, words.plot)):
        if not Path(path).absolute().parent.is_dir():
            raise Fail(2, f"error: {path} cannot be written, there is no such folder")
    if words.plot and Path(words.plot).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise Fail(2, f"error: --plot {words.plot} must end in .png, .pdf or .svg")
    from ecgfast.systems import retrieve
    from ecgfast.systems.embed import EVERY, open_embeddings
    from ecgfast.systems.model import configured, load

    started = time.perf_counter()
    model = load(words.run, device=words.device)
    embedded = open_embeddings(words.embeddings, model) if words.embeddings else None
    source = None
    if embedded is None:
        data = configured(words.run).get("data") or {}
        stores = list(words.store) or list(data.get("paths") or ())
        patients = int(data.get("patients") or 400)
        source = retrieve.open_searched(model, stores, splits=EVERY, patients=patients)
    elif words.plot:
        source = retrieve.open_searched(model, **_as_embedded(words, embedded.about))
    if embedded is not None:
        table, blocks = embedded.table, retrieve.blocks_of(embedded)
        _check_order(words, source, table)
    else:
        assert source is not None
        table = retrieve.table_of(source)
        blocks = retrieve.blocks_of_source(
            model, source, batch_size=words.batch_size, workers=words.workers
        )
    if words.record:

        def embed(row: int) -> Any:
            if embedded is not None:
                return embedded.rows[row]
            return retrieve.embed_row(model, cast(Any, source), row)

        def ecg(row: int) -> Any:
            return source.millivolts(row) if source else None

        query = retrieve.query_of_record(words.record, table, embed, ecg)
    else:
        query = retrieve.query_of_file(model, words.path, planned(words, model.signal))
    found = retrieve.nearest(
        query, blocks, table, k=words.k, metric=words.metric, same_patient=words.same_patient
    )
    shown = _columns(words, table, model.task.get("label"))
    synthetic = bool(
        model.contract.synthetic
        or (source is not None and source.synthetic)
        or (embedded is not None and embedded.about["synthetic"])
    )
    _print(words, query, found, table, shown)
    if words.json:
        _write_json(words, query, found, table, synthetic)
        print(f"wrote    {words.json}")
    if words.plot:
        assert source is not None
        _plot(words, model, query, found, table, source, shown)
        print(f"wrote    {words.plot}")
    if synthetic:
        print("note     SYNTHETIC data: these neighbours say nothing about medicine")
    took = time.perf_counter() - started
    print(f"searched {found.searched} records ({words.metric}) in {took:.1f} s")
    if not len(found.rows):
        raise Fail(3, "error[no_neighbour] nothing is left to search once these are left out")


def _as_embedded(words: Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Where the records are that embeddings were made of, so that rows are the same."""
    if not about["splits"]:
        raise Fail(
            2,
            f"error: {words.embeddings} was made of files, whose ECGs are not at hand for --plot; "
            "convert them to a store and embed that",
        )
    if words.store and sorted(words.store) != sorted(about["stores"]):
        made_of = ", ".join(about["stores"])
        raise Fail(2, f"error: {words.embeddings} was made of {made_of}: leave --store out")
    return {
        "stores": about["stores"],
        "splits": tuple(about["splits"]),
        "patients": int(about["patients"] or 1),
    }


def _check_order(words: Namespace, source: Any, table: dict[str, Any]) -> None:
    if source is None:
        return
    names = source.column("record_id").astype(str)
    if len(names) != len(table["record_id"]) or (names != table["record_id"].astype(str)).any():
        raise Fail(
            3,
            f"error[embeddings] the stores are not what {words.embeddings} was made of any more: "
            f"ecgfast embed {words.run} --out {words.embeddings} again",
        )


def _columns(words: Namespace, table: dict[str, Any], label: str | None) -> list[str]:
    if words.show:
        from ecgfast.cli.errors import nearest

        names = [name.strip() for name in words.show.split(",")]
        for name in names:
            if name not in table:
                raise Fail(2, f"error: --show: no column is called {name}{nearest(name, table)}")
        return names
    return [name for name in dict.fromkeys((label, *SHOWN)) if name in table]


def _print(
    words: Namespace, query: Any, found: Any, table: dict[str, Any], shown: list[str]
) -> None:
    from ecgfast.data.records import printable

    print(f"query    {printable(query.name)}")
    for count, what in (
        (found.own, "is the query itself, left out"),
        (found.same_patient, "of its patient left out; --same-patient takes them"),
        (found.not_finite, "without an embedding left out"),
    ):
        if count:
            print(f"note     {count} record{'s' * (count > 1)} {what}")
    lines = [["", "record", "patient", "distance", *shown]]
    for place, (row, distance) in enumerate(zip(found.rows, found.distances, strict=True), 1):
        cells = [_cell(table[name][row]) for name in ("record_id", "patient_id")]
        values = [_cell(table[name][row]) for name in shown]
        lines.append([str(place), *cells, f"{distance:.4g}", *values])
    print()
    print_columns(lines, left={"record", "patient"})
    print()


def _cell(value: Any) -> str:
    from ecgfast.data.records import printable

    if value is None or value != value or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def _write_json(
    words: Namespace, query: Any, found: Any, table: dict[str, Any], synthetic: bool
) -> None:
    hidden = ("shard", "row", "gain", "n_valid", "n_nan", "sha256", "source_sha256", "source")
    names = [name for name in table if name not in hidden]
    records = [
        {"distance": float(distance), **{name: _plain(table[name][row]) for name in names}}
        for row, distance in zip(found.rows, found.distances, strict=True)
    ]
    content = {
        "schema": SCHEMA,
        "run": words.run,
        "query": query.name,
        "metric": words.metric,
        "synthetic": synthetic,
        "searched": found.searched,
        "left_out": {
            "own": found.own,
            "same_patient": found.same_patient,
            "not_finite": found.not_finite,
        },
        "neighbours": records,
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    Path(words.json).write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def _plot(
    words: Namespace,
    model: Any,
    query: Any,
    found: Any,
    table: dict[str, Any],
    source: Any,
    shown: list[str],
) -> None:
    from ecgfast.report.neighbours import Strip, draw_neighbours

    panels = [
        Strip(query.ecg, f"query: {Path(query.name).name}", _told_of_query(query, table, shown))
    ]
    for place, (row, distance) in enumerate(zip(found.rows, found.distances, strict=True), 1):
        values = [f"{name} {_cell(table[name][row])}" for name in shown]
        patient = _cell(table["patient_id"][row])
        about = ", ".join([f"distance {distance:.3g}", f"patient {patient}", *values])
        name = _cell(table["record_id"][row])
        panels.append(Strip(source.millivolts(int(row)), f"{place}: {name}", about))
    draw_neighbours(
        panels,
        leads=model.signal.leads,
        fs=model.signal.fs,
        path=words.plot,
        synthetic=source.synthetic,
    )


def _told_of_query(query: Any, table: dict[str, Any], shown: list[str]) -> str:
    rows = (table["record_id"].astype(str) == query.record_id).nonzero()[0]
    if not query.record_id or not len(rows):
        return ""
    values = [f"{name} {_cell(table[name][rows[0]])}" for name in shown]
    return ", ".join([f"patient {query.patient_id or '-'}", *values])
