"""Check a store again and list what is wrong with its records."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """Which store, how much to print."""
    parser.add_argument("store", help="folder that ecgfast convert made")
    parser.add_argument("--json", default="", help="file to write everything to; - for the screen")
    parser.add_argument("--show", type=int, default=3, help="records to print for each issue")
    parser.add_argument(
        "--strict", action="store_true", help="leave with code 3 if a record has an error"
    )


def run(words: Namespace) -> None:
    """Prints counts and examples; code 3 if the store is damaged or leaks between splits."""
    from ecgfast.data.clip_store import ClipStore
    from ecgfast.data.store import ECGStore
    from ecgfast.data.stores import open_store
    from ecgfast.data.validate import validate, validate_clips

    store = open_store(words.store)
    if isinstance(store, ClipStore):
        found = validate_clips(store, progress=_bar)
    else:  # pages are refused
        found = validate(ECGStore.open(words.store), progress=_bar)
    summary = found.summary()
    if words.json == "-":
        print(json.dumps(summary, indent=1))
    else:
        if words.json:
            Path(words.json).write_text(json.dumps(summary, indent=1))
        _print(summary, words.show)
    errors = {record for record, issue in found.issues if issue.severity == "error"}
    if found.faults:
        raise Fail(3, "\n".join(found.faults))
    if words.strict and errors:
        raise Fail(3, f"error[strict] {len(errors)} records have errors (first: {min(errors)})")


def _print(summary: dict[str, Any], show: int) -> None:
    kind = " SYNTHETIC" if summary["synthetic"] else ""
    what = "videos" if "frames" in summary else "records"
    print(f"store    {summary['store']}: {summary['records']}{kind} {what}, {_shape(summary)}")
    unknown = summary["patients_unknown"]
    note = f", {unknown} of them {what} without a patient id" if unknown else ""
    print(f"patients {summary['patients']}{note}")
    print(f"splits   {', '.join(f'{name} {count}' for name, count in summary['splits'].items())}")
    if "frames" in summary:
        alone = summary["studies_unknown"]
        note = f", and {alone} videos without a study id" if alone else ""
        print(f"studies  {summary['studies']}{note}")
        print(f"frames   {summary['frames']}")
        rates = [f"{r} frames/s ({n})" for r, n in summary["fps"].items()]
    else:
        rates = [f"{fs} Hz ({count})" for fs, count in summary["fs_source"].items()]
    print(f"rates    {', '.join(rates)}")
    if summary["rejected"]:
        listed = ", ".join(f"{count} {name}" for name, count in summary["rejected"].items())
        print(f"rejected {sum(summary['rejected'].values())} when it was made ({listed})")
    print(f"checked  {summary['records_without_issue']} {what} without an issue")
    lines = summary["records_with_issues"]
    severity = {line["issue"]: line["severity"] for line in reversed(lines)}
    for name, count in Counter(summary["issues"]).most_common():
        print(f"  {count:>7}  {severity[name]}[{name}]")
        for line in [line for line in lines if line["issue"] == name][:show]:
            place = f" {line['place']}" if line["place"] else ""
            print(f"             {line['record_id']}{place}: {line['message']}")
        if sum(line["issue"] == name for line in lines) > show:
            print("             ... (--show N for more, --json FILE for all)")


def _shape(summary: dict[str, Any]) -> str:
    from ecgfast.config.clips import ClipFit

    contract = summary["contract"]
    if "frames" in summary:
        return ClipFit.from_plain(contract).line()
    shape = f"{len(contract['leads'])} leads x {contract['seconds']:g} s at {contract['fs']:g} Hz"
    recipe = contract.get("recipe")
    return shape + (f" after recipe {recipe['name']}" if recipe else "")


def _bar(places: Iterable[int]) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(places, "validate", mininterval=0.5, leave=False, disable=not sys.stderr.isatty())
