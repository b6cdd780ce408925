"""Measure how far a regression misses, so that `predict` can give intervals."""

from __future__ import annotations

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """The run, and on whom to measure."""
    parser.add_argument("run", type=str, help="folder of a regression")
    parser.add_argument(
        "--ensemble", type=str, nargs="*", default=[], help="further runs: scores are averaged"
    )
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="folders of records; none takes what the run was trained from",
    )
    parser.add_argument(
        "--split", type=str, default="val", help="part to measure on; no training may have seen it"
    )
    parser.add_argument("--level", type=float, default=0.95, help="share that intervals shall hold")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of a record a patient")
    parser.add_argument("--workers", type=int, default=0, help="processes that load records")


def run(words: Namespace) -> None:
    """Writes RUN/intervals.json and prints what is in it."""
    if not 0 < words.level < 1:
        raise Fail(2, f"error: --level must lie between 0 and 1, got {words.level:g}")
    from dataclasses import asdict

    from ecgfast.cli.predict import doubts
    from ecgfast.config import QUANTITIES
    from ecgfast.systems.intervals import INTERVALS, calibrate
    from ecgfast.systems.model import load_ensemble

    models = load_ensemble([words.run, *words.ensemble])
    interval = calibrate(
        models,
        words.store,
        split=words.split,
        level=words.level,
        seed=words.seed,
        workers=words.workers,
    )
    name, unit = QUANTITIES.get(interval.label.lower(), (interval.label, ""))
    print(
        f"interval {name}: estimate +- {interval.half_width:.3g}{' ' + unit if unit else ''} holds "
        f"{100 * interval.level:g} % of new patients like those measured, or more"
    )
    print(
        f"measured {interval.patients} patients, one record of each (of {interval.records}), part "
        f"{interval.split} of {', '.join(interval.stores) or 'the SYNTHETIC cohort'}"
    )
    for line in doubts(asdict(interval)):
        print(f"note     {line}")
    if interval.synthetic:
        print("note     SYNTHETIC data: this says nothing about medicine")
    print(f"wrote    {models[0].folder / INTERVALS}; next: ecgfast predict {words.run} FILE...")
