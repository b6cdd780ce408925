"""Measure rates, intervals, axes and voltages of records, and write them as a table."""

from __future__ import annotations

import time
from pathlib import Path

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.cli.predict import progress


def options(parser: Parser) -> None:
    """Which stores, which parts, where to write."""
    parser.add_argument(
        "store",
        type=str,
        nargs="*",
        help="folders that ecgfast convert made; none: the SYNTHETIC cohort",
    )
    parser.add_argument("--out", type=str, required=True, help="CSV to be written")
    parser.add_argument(
        "--split",
        type=str,
        nargs="*",
        default=[],
        help="parts of the stores; none is every record, all is every one that is in no test part",
    )
    parser.add_argument(
        "--patients", type=int, default=400, help="of the SYNTHETIC cohort, if there is no store"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="records at a time")


def run(words: Namespace) -> None:
    """Writes the table and says what could not be measured."""
    if words.batch_size < 1:
        raise Fail(2, "error: --batch-size must be 1 or more")
    if Path(words.out).is_dir():
        raise Fail(2, f"error: --out {words.out} is a folder; name a file, as biomarkers.csv")
    from ecgfast.systems.biomarkers import EVERY, measure_stores

    started = time.perf_counter()
    about = measure_stores(
        words.store,
        words.out,
        splits=tuple(words.split) or EVERY,
        patients=words.patients,
        batch_size=words.batch_size,
        progress=lambda batches, total: progress(batches, "measure", total, " batches"),
    )
    total, unmeasured = about["records"], sum(about["reasons"].values())
    print(f"measured {total - unmeasured} of {total} records")
    for reason, count in sorted(about["reasons"].items()):
        print(f"note     {count} have no biomarkers: {reason}")
    for name, count in about["measured"].items():
        if count < total - unmeasured:
            print(f"note     {name} is missing in {total - unmeasured - count} of the measured")
    if about["synthetic"]:
        print("note     SYNTHETIC ECGs are in them")
    print(f"wrote    {words.out} in {time.perf_counter() - started:.1f} s")
