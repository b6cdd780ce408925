"""Score ECGs by prompts, and find reports by ECGs, with a run that was aligned with texts."""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.cli.predict import check_using, print_columns


def options(parser: Parser) -> None:
    """The run, the records, the prompts, what turns these into vectors."""
    parser.add_argument("run", type=str, help="folder that ecgfast pretrain ecg-report wrote")
    parser.add_argument(
        "store", type=str, nargs="*", help="folders of records; none: what the run was trained from"
    )
    parser.add_argument("--split", type=str, default="test", help="part of the records (test)")
    parser.add_argument(
        "--prompts",
        type=str,
        default="",
        help="csv with columns class and prompt, a line a text; a class is a column of 0 and 1, an "
        "SCP code, or a superclass; none: all SCP statements of the records",
    )
    parser.add_argument("--column", type=str, default="scp_codes", help="of codes (scp_codes)")
    parser.add_argument("--statements", type=str, default="", help="csv that puts codes into words")
    parser.add_argument("--text", type=str, default="", help="text model; none: the run's own")
    parser.add_argument(
        "--least",
        type=int,
        default=10,
        help="leave classes out that fewer patients have, or have not (10)",
    )
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of patients (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--batch-size", type=int, default=64, help="records at a time (64)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load records")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda (default: cpu)")
    parser.add_argument("--out", type=str, default="", help="folder; RUN/zero-shot-SPLIT if empty")


def run(words: Namespace) -> None:
    """Scores, writes metrics.json and zero_shot.csv, and prints tables."""
    for name in ("bootstrap", "least"):
        if words[name] < 1:
            raise Fail(2, f"error: --{name} must be 1 or more, got {words[name]}")
    check_using(words)
    from ecgfast.systems.zero_shot import Asked, zero_shot

    started = time.perf_counter()
    same = {n: words[n] for n in vars(Asked(run="")) if n not in ("stores", "draws")}
    asked = Asked(stores=tuple(words.store), draws=words.bootstrap, **same)
    facts, columns = zero_shot(asked)
    facts["command"] = shlex.join(["ecgfast", *sys.argv[1:]])
    out = Path(words.out) if words.out else Path(words.run) / f"zero-shot-{words.split}"
    _write(out, facts, columns)
    _print(facts)
    print(f"wrote {out} in {time.perf_counter() - started:.1f} s")


def _write(out: Path, facts: dict[str, Any], columns: dict[str, Any]) -> None:
    """metrics.json comes last: where it is, the rest is."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    with (out / "zero_shot.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([v if isinstance(v, str) else f"{v:.6g}" for v in row])
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    (out / "metrics.json").write_text(text, encoding="utf-8")


def _print(facts: dict[str, Any]) -> None:
    for group in facts["classes"]:
        lines = [[group["group"], "AUROC", "95 % interval", "positives", "patients"]]
        for row in group["metrics"]:
            positives = "" if row["positives"] is None else str(row["positives"])
            name = row["name"].removeprefix("auroc_of_").replace("auroc_macro", "mean")
            lines.append(
                [name, _text(row["estimate"]), _bounds(row), positives, str(row["patients"])]
            )
        if group["metrics"]:
            print_columns(lines, left={group["group"], "95 % interval"})
        if group["left_out"]:
            few = "; ".join(f"{name} ({why})" for name, why in group["left_out"].items())
            print(f"left out, fewer than {facts['least_patients']} patients: {few}")
        print()
    found = facts["retrieval"]
    if found["missing"]:
        print(f"no retrieval: {found['missing']}")
    else:
        what = f"ECG to {found['column']}, {found['candidates']} texts"
        lines = [[what, "value", "95 % interval", "by lot"]]
        for row in found["metrics"]:
            form = ".1f" if row["name"] == "median_rank" else ".3f"
            cells = [_text(row["estimate"], form), _bounds(row, form), _text(row["chance"], form)]
            lines.append([row["name"], *cells])
        print_columns(lines, left={what, "95 % interval"})
    print(f"{facts['records']} records of {facts['patients']} patients, part {facts['split']}")
    if facts["blank"]:
        print(f"{facts['blank']} more records have no sample left once prepared")
    if facts["seen"]:
        print(f"{facts['seen']} of them were trained on")
    if facts["synthetic"]:
        print("SYNTHETIC data: these numbers say nothing about medicine")


def _text(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _bounds(row: dict[str, Any], form: str = ".3f") -> str:
    if row["lo"] is None:
        return f"not computed: {row['reason']}"
    return f"[{row['lo']:{form}}, {row['hi']:{form}}]"
