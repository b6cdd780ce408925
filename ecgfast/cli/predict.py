"""Say what a run makes of ECG files and pictures: a value or a probability, with an interval."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.convert import (
    page_options,
    page_plan,
    planned,
    reading_options,
    shaping_options,
)
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser

SCHEMA = "ecgfast.predict/1"
USE = "for research only: not a medical device, not for diagnosis or treatment"
MOST_ROWS, MOST_ERRORS, WIDEST = 50, 10, 44
COLUMNS = (
    *("file", "record_id", "estimate", "lower", "upper", "probability", "likeliest", "members"),
    *("error", "issues", "log_hazard", "risks"),
)


def options(parser: Parser) -> None:
    """The run, the files, how to read them, where to write."""
    parser.add_argument("run", type=str, help="folder of a fine-tuned run")
    parser.add_argument(
        "path",
        type=str,
        nargs="+",
        help="ECG files (.hea, .mat, .txt, .csv, archives of text), folders of them, or stores; of "
        "a run that sees pages also pictures (.png, .jpg, .tif, .pdf); of a run that sees clips "
        "videos (DICOM, .avi, .mp4, .gif, .npy)",
    )
    parser.add_argument(
        "--ensemble", type=str, nargs="*", default=[], help="further runs: scores are averaged"
    )
    parser.add_argument("--json", type=str, default="", help="write everything to this file")
    parser.add_argument("--csv", type=str, default="", help="write a row a record to this file")
    using_options(parser)
    reading_options(parser)
    shaping_options(parser)
    page_options(parser)


def using_options(parser: Parser) -> None:
    """How a model runs, for all commands that use one on records."""
    parser.add_argument("--batch-size", type=int, default=64, help="records at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, ...; auto")


def run(words: Namespace) -> None:
    """Prints a table, writes files if asked to; leaves with 3 if no record could be read."""
    check_using(words)
    for path in filter(None, (words.json, words.csv)):
        if not Path(path).absolute().parent.is_dir():
            raise Fail(2, f"error: {path} cannot be written, there is no such folder")
    from ecgfast.systems.intervals import interval_of
    from ecgfast.systems.model import load_ensemble

    started = time.perf_counter()
    models = load_ensemble([words.run, *words.ensemble], device=words.device)
    interval, why = interval_of(models)
    facts = _facts(words, models, interval, why)
    _print_head(facts, models)
    rows = list(_predictions(words, models, interval))
    facts["counts"] = _counts(rows)
    if words.json:
        content = facts | {"records": [row.plain() for row in rows]}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        Path(words.json).write_text(text, encoding="utf-8")
    if words.csv:
        _write_csv(Path(words.csv), rows)
    _print_table(facts, rows)
    counts = facts["counts"]
    took = time.perf_counter() - started
    print(f"\npredicted {counts['predicted']} of {counts['records']} records in {took:.1f} s")
    for path in filter(None, (words.json, words.csv)):
        print(f"wrote    {path}")
    print(f"use      {USE}")
    if not counts["predicted"]:
        raise Fail(3, "error[no_prediction] no record could be read; the reasons stand above")


def check_using(words: Namespace) -> None:
    """Refuses what no command can do."""
    if words.batch_size < 1 or words.workers < 0:
        raise Fail(2, "error: --batch-size must be 1 or more and --workers not negative")
    check_device(words.device)


def check_device(device: str) -> None:
    """Refuses what torch does not know, or what is not here."""
    import torch

    try:
        if device != "auto":
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        first = str(error).splitlines()[0][:160]
        raise Fail(4, f"error: --device {device} is not to be had here: {first}") from None


def progress(
    rows: Iterable[Any], what: str, total: int | None = None, unit: str = " records"
) -> Iterable[Any]:
    """The same, with a bar where there is a screen to show it on."""
    import sys

    from tqdm import tqdm

    show = sys.stderr.isatty()
    return tqdm(rows, desc=what, total=total, unit=unit, leave=False, disable=not show)


def _predictions(words: Namespace, models: list[Any], interval: Any) -> Iterator[Any]:
    from ecgfast.systems.clips import clip_of
    from ecgfast.systems.files import find_clips, find_pictures
    from ecgfast.systems.pages import fit_of
    from ecgfast.systems.predict_files import predict_files, predict_store

    plan = planned(words, models[0].signal)
    how = {"interval": interval, "batch_size": words.batch_size, "workers": words.workers}
    stores = [path for path in words.path if (Path(path) / "store.json").is_file()]
    for store in stores:
        yield from progress(predict_store(models, store, **how), "predict")
    contract = models[0].contract
    files = [path for path in words.path if path not in stores]
    if files and clip_of(contract.model):
        videos = find_clips(files)
        rows = predict_files(models, videos, video_plan(words, contract), **how)
        yield from progress(rows, "predict", len(videos))
    elif files:
        found, pictures = find_pictures(files, plan.reading, contract)
        if len(found):
            yield from progress(predict_files(models, found, plan, **how), "predict", len(found))
        if len(pictures):
            plan = page_plan(words, vars(fit_of(contract)))
            rows = predict_files(models, pictures, plan, **how)
            yield from progress(rows, "predict", len(pictures))


def video_plan(words: Namespace, contract: Any) -> Any:
    """What shall become of videos, from the words."""
    from ecgfast.data.checks import parse_policy
    from ecgfast.systems.windows import plan_for_videos

    return plan_for_videos(contract, parse_policy(filter(None, words.policy.split(","))))


def _facts(words: Namespace, models: list[Any], interval: Any, why: str) -> dict[str, Any]:
    from dataclasses import asdict

    import ecgfast
    from ecgfast.config import QUANTITIES

    task = models[0].task
    label = str(task.get("label") or "")
    name, unit = QUANTITIES.get(label.lower(), (label, ""))
    kind = task.get("kind")
    return {
        "schema": SCHEMA,
        "ecgfast": ecgfast.__version__,
        "use": USE,
        "synthetic": any(model.contract.synthetic for model in models),
        "runs": [{"run": str(model.folder), "weights": model.weights} for model in models],
        "task": {
            "kind": kind,
            "label": label,
            "name": name,
            "unit": unit if kind == "regression" else "",
            "above": task.get("threshold"),
            "classes": task.get("classes"),
            "event": task.get("event"),
        },
        "interval": asdict(interval) if interval else None,
        "no_interval": why or None,
    }


def _counts(rows: list[Any]) -> dict[str, Any]:
    errors = Counter(row.error for row in rows if row.error)
    noticed = Counter(
        name for row in rows if not row.error for name in {issue.name for issue in row.issues}
    )
    return {
        "records": len(rows),
        "predicted": len(rows) - errors.total(),
        "failed": dict(sorted(errors.items())),
        "noticed": dict(sorted(noticed.items())),
    }


def _write_csv(path: Path, rows: list[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            plain = row.plain() | {
                "members": ";".join(f"{value:.9g}" for value in row.members),
                "issues": ";".join(dict.fromkeys(issue.name for issue in row.issues)),
                "risks": ";".join(f"{at}={risk:.9g}" for at, risk in (row.risks or {}).items()),
            }
            writer.writerow(["" if plain[name] is None else plain[name] for name in COLUMNS])


def _what(task: dict[str, Any]) -> str:
    unit = f" ({task['unit']})" if task["unit"] else ""
    if task["kind"] == "classification":
        above = "" if task["above"] is None else f" > {task['above']:g}"
        known = _unit_of(task) if above else ""
        return f"probability of {task['name']}{above}{known}"
    if task["kind"] == "multiclass":
        return f"{task['name']}: {', '.join(task['classes'])}"
    if task["kind"] == "survival":
        return f"log hazard of {task['event']}: higher means earlier (it orders records, no more)"
    return f"{task['name']}{unit}"


def _unit_of(task: dict[str, Any]) -> str:
    from ecgfast.config import QUANTITIES

    unit = QUANTITIES.get(task["label"].lower(), ("", ""))[1]
    return f" {unit}" if unit else ""


def _print_head(facts: dict[str, Any], models: list[Any]) -> None:
    from ecgfast.systems.parts import describe

    task, interval = facts["task"], facts["interval"]
    runs = ", ".join(one["run"] for one in facts["runs"])
    print(f"run      {runs}" + (f" (mean of {len(models)})" if len(models) > 1 else ""))
    print(f"gives    {_what(task)}")
    contract = models[0].contract
    leads = "" if contract.pages or contract.clips else f": {' '.join(models[0].signal.leads)}"
    print(f"expects  {describe(models[0].contract)}{leads}")
    if interval:
        unit = f" {task['unit']}" if task["unit"] else ""
        where = ", ".join(interval["stores"]) or "the SYNTHETIC cohort"
        print(
            f"interval {100 * interval['level']:g} %: +- {interval['half_width']:.3g}{unit} "
            f"(split conformal, {interval['patients']} patients of part {interval['split']} of "
            f"{where}; holds for patients like those)"
        )
        for line in doubts(interval):
            print(f"note     {line}")
    elif facts["no_interval"]:
        print(f"note     {facts['no_interval']}")
    if facts["synthetic"]:
        print("note     learned from SYNTHETIC data: these numbers say nothing about medicine")


def doubts(interval: dict[str, Any]) -> list[str]:
    """What makes an interval narrower than it should be."""
    lines = []
    if interval["chose_weights"]:
        lines.append("the interval's part chose the weights, too: it may be somewhat too narrow")
    if interval["pretrained"]:
        lines.append(
            f"the encoder saw {interval['pretrained']} of the {interval['records']} records of the "
            "interval's part in pretraining: it may be somewhat too narrow"
        )
    return lines


def _print_table(facts: dict[str, Any], rows: list[Any]) -> None:
    from ecgfast.data.records import printable

    kind = facts["task"]["kind"]
    single = len(facts["runs"]) == 1
    head = ["file"]
    head += ["estimate"] if kind == "regression" else []
    head += ["interval"] if facts["interval"] else []
    head += ["class"] if kind == "multiclass" else []
    risks = list(next((row.risks for row in rows if row.risks), {}))
    head += ["log hazard", *(f"risk until {at}" for at in risks)] if kind == "survival" else []
    head += ["probability"] if kind in ("classification", "multiclass") else []
    head += [] if single else ["members"]
    lines = [[*head, "issues"]]
    several = Counter(row.file for row in rows)
    for row in rows[:MOST_ROWS]:
        name = row.file if several[row.file] == 1 else f"{row.file}:{row.record_id}"
        cells = {
            "file": _short(printable(name)),
            "estimate": _number(row.estimate),
            "interval": "-" if row.lower is None else f"{row.lower:.2f} to {row.upper:.2f}",
            "class": row.likeliest or "-",
            "probability": _number(row.probability, 3),
            "log hazard": _number(row.log_hazard, 3),
            **{f"risk until {at}": _number((row.risks or {}).get(at), 3) for at in risks},
            "members": _range(row.members, 2 if kind == "regression" else 3),
        }
        noticed = list(dict.fromkeys(issue.name for issue in row.issues))
        issues = f"not read: {row.error}" if row.error else ", ".join(noticed)
        lines.append([*(cells[name] for name in head), issues])
    print()
    print_columns(lines, left={"file", "class", "issues"})
    if len(rows) > MOST_ROWS:
        print(f"... {len(rows) - MOST_ROWS} more; --csv FILE or --json FILE has them all")
    failed = [row for row in rows if row.error]
    if failed:
        print(f"\nnot read {len(failed)}")
    for row in failed[:MOST_ERRORS]:
        print(f"  {_short(printable(row.file))}: {row.issues[0].line()}")
    if len(failed) > MOST_ERRORS:
        print(f"  ... {len(failed) - MOST_ERRORS} more: {facts['counts']['failed']}")


def print_columns(lines: list[list[str]], left: set[str]) -> None:
    """Prints a table whose first line names its columns; those of `left` begin at the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [
            cell.ljust(width) if lines[0][i] in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _short(name: str) -> str:
    return name if len(name) <= WIDEST else f"...{name[3 - WIDEST :]}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(members: list[float], digits: int) -> str:
    return f"{min(members):.{digits}f} to {max(members):.{digits}f}" if members else "-"
