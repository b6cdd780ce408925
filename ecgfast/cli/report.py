"""Write one self-contained HTML page about a run."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail, nearest
from ecgfast.cli.parser import Parser

if TYPE_CHECKING:
    from ecgfast.report.card import Finding
    from ecgfast.report.contents import (
        Attention,
        ClipExample,
        Contents,
        DataCard,
        Evaluation,
        Example,
        Training,
    )

MOST_CHECKED = 5000  # records of a made store that are checked for the page: some seconds


def options(parser: Parser) -> None:
    """What to show and where to write it."""
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument("--out", type=str, default="", help="file; RUN/report.html if empty")
    parser.add_argument("--split", type=str, default="test", help="evaluated part to show")
    parser.add_argument(
        "--map", type=str, default="pca", help="of the embeddings: pca, or tsne (slow)"
    )
    parser.add_argument(
        "--colours",
        type=str,
        nargs="*",
        default=[],
        help="columns to colour maps by, beside label and sex; evaluate --keep keeps them",
    )
    parser.add_argument(
        "--examples", type=int, default=5, help="best and worst ECGs to draw, so many of each"
    )


def run(words: Namespace) -> None:
    """Collects what the run's folder and its records hold, and writes the page."""
    if words.map not in ("pca", "tsne"):
        raise Fail(2, f"error: --map must be pca or tsne, got {words.map}")
    if words.examples < 0:
        raise Fail(2, f"error: --examples must be 0 or more, got {words.examples}")
    folder = Path(words.run)
    if not (folder / "contract.json").is_file():
        raise Fail(3, f"error: {folder} is no finished run: there is no contract.json in it")
    from ecgfast.report import render

    started = time.perf_counter()
    try:
        page = render(_contents(words, folder))
    except ValueError as error:  # a file of the run that is not what it must be
        raise Fail(3, f"error: {error}") from error
    out = Path(words.out) if words.out else folder / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    size, took = len(page) / 1e6, time.perf_counter() - started
    print(f"wrote {out} ({size:.1f} MB) in {took:.1f} s; open it in a browser")


def _contents(words: Namespace, folder: Path) -> Contents:
    from ecgfast.report.contents import Contents, read_json, read_yaml

    contract, config = read_json(folder / "contract.json"), read_yaml(folder / "config.yaml")
    evaluation = _evaluation(folder, words.split)
    facts = evaluation.facts if evaluation else {}
    task = contract.get("task") or {}
    label = task.get("event") or facts.get("label") or task.get("label")
    data = config.get("data") or {}
    stores = [str(path) for path in (facts.get("stores") if facts else data.get("paths")) or ()]
    records = _Records(stores, contract, int(data.get("patients") or 400))
    part = str(facts.get("split") or words.split)
    clips, why = _watched(folder, records, evaluation, part, words.examples)
    examples: list[Example] = []
    if records.clips is None:
        examples, why = _examples(records, evaluation, part, words.examples)
    examples = _seen(folder, contract, examples)
    kept = list(evaluation.predictions) if evaluation else []
    for name in words.colours:
        if name not in kept:
            told = f"{nearest(name, kept)}; evaluate with --keep {name} first"
            raise Fail(2, f"error: the predictions have no column {name}{told}")
    command = folder / "command.txt"
    return Contents(
        run=str(folder),
        synthetic=bool(contract.get("synthetic")) or bool(facts.get("synthetic")),
        contract=contract,
        config=config,
        environment=read_json(folder / "env.json"),
        command=command.read_text(encoding="utf-8").strip() if command.is_file() else "",
        trainings=_trainings(folder, config),
        data=_card(records, label),
        evaluation=evaluation,
        examples=examples,
        clips=clips,
        no_examples=why,
        map_method=words.map,
        colours=tuple(words.colours),
        neighbours=_neighbours(records, evaluation, part) if examples else [],
        attention=_attention(folder, contract, records, evaluation, part, examples),
    )


class _Records:
    """The records behind a run, if they can still be opened."""

    def __init__(self, stores: list[str], contract: dict[str, Any], patients: int) -> None:
        self.stores, self.patients = stores, patients
        signal = contract.get("signal") or {}
        self.leads = tuple(str(name) for name in signal.get("leads", ()))
        self.fs, self.seconds = float(signal.get("fs", 0)), float(signal.get("seconds", 0))
        self.clips = contract.get("clips")

    def open(self, splits: tuple[str, ...]) -> Any:
        from ecgfast.config import Signal
        from ecgfast.config.clips import ClipFit
        from ecgfast.data.source import open_source

        signal = Signal(leads=self.leads, fs=self.fs, seconds=self.seconds)
        clips = None if self.clips is None else ClipFit.from_plain(self.clips)
        return open_source(self.stores, splits, signal=signal, patients=self.patients, clips=clips)


def _card(records: _Records, label: str | None) -> DataCard:
    """Origin, parts and issues; without the parts, and why, where records are gone."""
    from ecgfast.data.records import DataError
    from ecgfast.report.card import issue_rows, split_rows
    from ecgfast.report.contents import DataCard

    origin = f"The SYNTHETIC cohort of {records.patients} made patients."
    if records.stores:
        origin = f"Store: {', '.join(records.stores)}."
    try:
        source = records.open(("all", "test"))
    except DataError as error:
        return DataCard(origin=origin, missing=str(error))
    columns = {name: source.column(name) for name in source.table.columns}
    issues = issue_rows(found for store in records.stores for found in _found(Path(store)))
    return DataCard(origin=origin, splits=split_rows(columns, label), issues=issues)


def _found(store: Path) -> list[Finding]:
    """As the conversion wrote them down."""
    from ecgfast.data.store import ECGStore
    from ecgfast.data.stores import open_store
    from ecgfast.data.validate import validate
    from ecgfast.report.card import Finding

    found = []
    for kind, name in (("rejected", "rejected.csv"), ("kept", "issues.csv")):
        path = store / name
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    record = row["record_id"] or row["source"]
                    found.append(Finding(str(store), kind, record, row["issue"], row["message"]))
    if found:
        return found
    opened = open_store(store)
    if not isinstance(opened, ECGStore) or not opened.synthetic or len(opened) > MOST_CHECKED:
        return []
    # nobody converted a made store, so nobody has checked its records yet
    return [
        Finding(str(store), "kept", record, issue.name, issue.message)
        for record, issue in validate(opened).issues
    ]


def _evaluation(folder: Path, split: str) -> Evaluation | None:
    import numpy as np

    from ecgfast.data.tables import read_table
    from ecgfast.report.contents import Evaluation, read_json

    place = folder / f"evaluation-{split}"
    facts = read_json(place / "metrics.json")
    if not facts:
        return None
    rows = [*facts.get("metrics", []), *facts.pop("not_computed", [])]
    groups = {group["group"]: i for i, group in enumerate(facts.get("groups", []))}
    facts["metrics"] = sorted(rows, key=lambda row: groups.get(row["subgroup"], -1))
    with np.load(place / "embeddings.npz", allow_pickle=False) as kept:
        ids, embeddings = kept["record_id"], kept["embedding"]
    predictions = read_table(place / "predictions.parquet")
    return Evaluation(facts=facts, predictions=predictions, record_ids=ids, embeddings=embeddings)


def _trainings(folder: Path, config: dict[str, Any]) -> list[Training]:
    """Of the encoder that training began from, if it can be found, and of the run itself."""
    from ecgfast.report.contents import Training, read_training

    if "label" not in config:  # `init` alone may say how weights are drawn
        return [read_training("Pre-training", folder)]
    own = read_training("Fine-tuning", folder)
    if not config["init"]:
        return [own]
    # the path was relative to where the command ran; runs often lie beside each other
    named = Path(str(config["init"]))
    places = [named, folder.parent / named.name]
    found = next((place for place in places if (place / "metrics.csv").is_file()), None)
    if found is None:
        why = f"no metrics.csv in {named}, where this run began from"
        return [Training(title="Pre-training", run=str(named), missing=why), own]
    return [read_training("Pre-training", found), own]


def _examples(
    records: _Records, evaluation: Evaluation | None, split: str, count: int
) -> tuple[list[Example], str]:
    """ECGs to draw; or none, and why."""
    from ecgfast.data.records import DataError
    from ecgfast.report.contents import Example
    from ecgfast.report.examples import choose

    if not count:
        return [], "--examples 0 was asked for"
    if evaluation is None:
        return [], "this run was not evaluated"
    try:
        source = records.open((split,))
    except DataError as error:
        return [], str(error)
    if source.pages:
        return [], "these records are pictures of pages, of which no samples are known"
    place = {str(name): i for i, name in enumerate(source.column("record_id"))}
    examples = []
    for kind, record, words in choose(evaluation, count):
        if record in place:
            ecg = source.millivolts(place[record])
            examples.append(
                Example(
                    kind=kind,
                    record_id=record,
                    words=words,
                    ecg=ecg,
                    leads=records.leads,
                    fs=records.fs,
                )
            )
    return examples, "" if examples else "none of the scored records is in the store any more"


def _watched(
    folder: Path, records: _Records, evaluation: Evaluation | None, split: str, count: int
) -> tuple[list[ClipExample], str]:
    """Clips to show, of a run that sees videos; or none, and why."""
    if records.clips is None:
        return [], ""
    from ecgfast.data.records import DataError
    from ecgfast.report.contents import ClipExample
    from ecgfast.report.examples import choose
    from ecgfast.systems.seen import watched

    if not count:
        return [], "--examples 0 was asked for"
    if evaluation is None:
        return [], "this run was not evaluated"
    try:
        source = records.open((split,))
    except DataError as error:
        return [], str(error)
    chosen = choose(evaluation, count)
    by = str(evaluation.facts.get("by") or "record")
    found = watched(folder, source, [name for _, name, _ in chosen], by=by)
    clips = [
        ClipExample(kind=kind, record_id=name, words=words, **found[name]._asdict())
        for kind, name, words in chosen
        if name in found
    ]
    return clips, "" if clips else "none of the scored videos is in the store any more"


def _seen(folder: Path, contract: dict[str, Any], examples: list[Example]) -> list[Example]:
    """The same ECGs, with what a network for pages looks at."""
    if (contract.get("model") or {}).get("class") != "PageEncoder" or not examples:
        return examples
    from ecgfast.systems.seen import looked_at

    found = looked_at(folder, [example.ecg for example in examples])
    if found is None:
        return examples
    return [
        replace(example, page=page, heat=heat)
        for example, page, heat in zip(examples, found.pages, found.maps, strict=True)
    ]


def _attention(
    folder: Path,
    contract: dict[str, Any],
    records: _Records,
    evaluation: Evaluation | None,
    split: str,
    examples: list[Example],
) -> Attention | None:
    """Of a dual-attention network: by risk, and of records of the highest and the lowest score."""
    if (contract.get("model") or {}).get("class") != "DualAttention" or evaluation is None:
        return None
    from ecgfast.data.records import DataError
    from ecgfast.report.contents import Attention, AttentionExample
    from ecgfast.report.examples import told
    from ecgfast.systems.attention import attention_of, extremes

    shown = extremes(evaluation.predictions)
    for kind in ("best", "worst", "typical"):
        some = [one.record_id for one in examples if one.kind == kind]
        shown |= {name: kind for name in some[:1] if name not in shown}
    try:
        source = records.open((split,))
        found = attention_of(folder, source, evaluation.predictions, list(shown))
    except DataError:  # the page says elsewhere that records are gone
        return None
    if found is None:
        return None
    place = {str(name): i for i, name in enumerate(evaluation.predictions["record_id"])}
    one_by_one = [
        AttentionExample(
            kind=shown[name], record_id=name, words=told(evaluation, place[name]), **vars(one)
        )
        for name, one in found.shown.items()
    ]
    return Attention(**vars(found) | {"leads": records.leads, "shown": one_by_one})


def _neighbours(
    records: _Records, evaluation: Evaluation | None, split: str
) -> list[list[Example]]:
    """Three records, each with the nearest three of other patients in the embedding space."""
    import numpy as np

    from ecgfast.report.contents import Example
    from ecgfast.report.examples import told

    if evaluation is None or len(evaluation.record_ids) < 8:
        return []
    found, x = evaluation.predictions, np.asarray(evaluation.embeddings, np.float64)
    if not np.isfinite(x).all():
        return []
    ids, patient = found["record_id"].astype(str), found["patient_id"].astype(str)
    value = found.get("value", found.get("label"))
    order = np.arange(len(ids)) if value is None else np.argsort(value, kind="stable")
    source = records.open((split,))
    if source.clips:  # no strips of signals: the map of embeddings tells what lies together
        return []
    place = {str(name): i for i, name in enumerate(source.column("record_id"))}

    def example(i: int) -> Example:
        ecg = source.millivolts(place[ids[i]])
        return Example(
            kind="neighbour",
            record_id=ids[i],
            words=told(evaluation, i),
            ecg=ecg,
            leads=records.leads,
            fs=records.fs,
        )

    several = []
    for share in (0.1, 0.5, 0.9):
        query = int(order[round(share * (len(order) - 1))])
        distance = np.square(x - x[query]).sum(axis=1)
        distance[patient == patient[query]] = np.inf
        near = [int(i) for i in np.argsort(distance, kind="stable")[:3]]
        some = [query, *(i for i in near if np.isfinite(distance[i]))]
        if len(some) > 1 and all(ids[i] in place for i in some):
            several.append([example(i) for i in some])
    return several
