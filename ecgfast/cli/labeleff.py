"""Say what each start is worth with few labels."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.config.labeleff import Config

COLUMNS = ("start", "how", "metric", "fraction", "estimate", "lo", "hi", "sd", "seeds")
BESIDE = ("patients_lo", "patients_hi")


def options(parser: Parser) -> None:
    """One option for each field of the Config."""
    parser.words = gathered(parser.words)
    parser.add_config("labeleff", Config)


def gathered(words: list[str]) -> list[str]:
    """All that follows any `--init` as one list; the commas of `NAME=RUN0,RUN1` stay."""
    starts: list[str] = []
    rest: list[str] = []
    taking = False
    for word in words:
        option, equals, value = word.partition("=")
        if word.startswith("--"):
            taking = option in ("--init", "--init+")
            if not taking:
                rest.append(word)
            elif equals:
                starts.append(value)
        elif taking:
            starts.append(word)
        else:
            rest.append(word)
    if len(starts) == 1 and starts[0].startswith("["):  # YAML already
        return [*rest, "--init", starts[0]]
    return [*rest, "--init", json.dumps(starts)] if starts else rest


def run(words: Namespace) -> None:
    """Does the sweep, then writes the numbers, the curve and the page."""
    from ecgfast.report.label_efficiency import page, save_curve
    from ecgfast.systems.label_table import label_table
    from ecgfast.systems.labeleff import sweep
    from ecgfast.train.checkpoint import write_at_once
    from ecgfast.train.errors import RunError

    config: Config = words.built
    try:
        found = sweep(config, say=lambda line: print(line, flush=True))
    except RunError as error:
        raise Fail(error.code, str(error)) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; finished cells are kept in {config.out}, the same command goes on"
        ) from None
    facts = label_table(config, found) | {"command": _command()}
    out = Path(config.out)
    metrics = sorted({row["metric"] for row in facts["rows"]})
    curves = {name: save_curve(facts, name, out / f"labeleff-{name}") for name in metrics}
    for name, text in (
        ("labeleff.csv", _csv(facts)),
        ("labeleff.md", _markdown(facts)),
        ("labeleff.html", page(facts, curves)),
        ("labeleff.json", json.dumps(facts, indent=1, allow_nan=False) + "\n"),
    ):
        write_at_once(out / name, text.encode())
    print(_printed(facts))
    curve = f"labeleff-{facts['metric']}"
    print(f"wrote {out}/labeleff.json, .csv, .md, .html; the curve is {curve}.png, .pdf and .svg")


def _command() -> str:
    return shlex.join(["ecgfast", *sys.argv[1:]])


def _csv(facts: dict[str, Any]) -> str:
    """A line for each start, metric and fraction; values of the seeds with semicolons."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    counts = ("patients", "records", "positives")
    ends = [f"{name}_{end}" for name in counts for end in ("least", "most")]
    writer.writerow([*COLUMNS, *BESIDE, *ends, "values"])
    for row in facts["rows"]:
        told = [end for name in counts for end in (row[name] or (None, None))]
        values = ";".join("" if v is None else f"{v:.6g}" for v in row["values"])
        numbers = [_cell(row[name]) for name in (*COLUMNS, *BESIDE)]
        writer.writerow([*numbers, *told, values])
    return file.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _printed(facts: dict[str, Any]) -> str:
    """The metric that is drawn, by fraction; then how many labels are worth how many."""
    from ecgfast.report import label_efficiency as told_as
    from ecgfast.report import words

    metric, reference = facts["metric"], facts["reference"]
    width = max(len(start["name"]) for start in facts["starts"])
    rows = [row for row in facts["rows"] if row["metric"] == metric]
    gaps = {
        (row["start"], row["fraction"]): row
        for row in facts["differences"]
        if row["metric"] == metric
    }
    shown = f"{words.metric(metric)}, mean of {facts['seeds']} seeds [95 % interval over them]"
    lines = ["", shown]
    if gaps:
        lines[-1] += f"; then what it is more than {reference}, seed by seed"
    for fraction in facts["fractions"]:
        mine = [row for row in rows if row["fraction"] == fraction]
        lines.append(f"{told_as.share(fraction)} of the patients: {told_as.counts(mine[0])}")
        for row in mine:
            gap = gaps.get((row["start"], fraction))
            beside = "" if gap is None else f"   {told_as.bounded(gap, signed=True)}"
            lines.append(f"  {row['start']:<{width}}  {told_as.bounded(row):<22}{beside}".rstrip())
    told = told_as.ratios([row for row in facts["ratios"] if row["b"] == reference])
    lines += ["", *told] if told else []
    lines += [f"note: {note}" for note in facts["notes"]]
    if facts["synthetic"]:
        lines.append("SYNTHETIC data: these numbers say nothing about medicine")
    return "\n".join(lines)


def _markdown(facts: dict[str, Any]) -> str:
    """Tables for a document."""
    from ecgfast.report import label_efficiency as told_as
    from ecgfast.report import words

    test, fractions = facts["test"], facts["fractions"]
    name, unit = words.quantity(facts["label"])
    above = "" if facts["threshold"] is None else f" > {facts['threshold']:g} {unit}".rstrip()
    lines = [f"# Label efficiency: {name}{above}", ""]
    if facts["synthetic"]:
        lines += ["**SYNTHETIC data: these numbers say nothing about medicine.**", ""]
    positives = "" if test["positives"] is None else f", {test['positives']} positive"
    lines += [
        f"{facts['seeds']} seeds. Scored: {test['records']} records of {test['patients']} patients "
        f"of {test['part']}{positives}. Intervals of 95 %: over the seeds (other labelled "
        "patients). Those over test patients are in labeleff.json.",
        "",
    ]
    heads = "".join(f" {told_as.share(f)} |" for f in fractions)
    rule = "|---|" + "---|" * len(fractions)
    first = {row["fraction"]: row for row in facts["rows"]}
    lines += [f"| labelled |{heads}", rule]
    for what in ("patients", "records", "positives"):
        if first[fractions[0]][what] is not None:
            cells = "".join(f" {told_as.span(first[f][what])} |" for f in fractions)
            lines.append(f"| {what} |{cells}")
    for metric in dict.fromkeys(row["metric"] for row in facts["rows"]):
        for title, kind, signed in (
            (words.metric(metric), "rows", False),
            (f"{words.metric(metric)} minus that of {facts['reference']}", "differences", True),
        ):
            rows = [row for row in facts[kind] if row["metric"] == metric]
            if not rows:
                continue
            lines += ["", f"| {title} |{heads}", rule]
            for start in dict.fromkeys(row["start"] for row in rows):
                mine = [row for row in rows if row["start"] == start]
                cells = "".join(f" {told_as.bounded(row, signed=signed)} |" for row in mine)
                lines.append(f"| {start} |{cells}")
    told = told_as.ratios(facts["ratios"])
    lines += ["", f"Labels for the same {words.metric(facts['metric'])}:", ""] if told else []
    lines += [f"- {line}" for line in told]
    lines += ["", *(f"Note: {note}." for note in facts["notes"])] if facts["notes"] else []
    return "\n".join([*lines, "", "```", facts["command"], "```", ""])
