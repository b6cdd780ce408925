"""Find every record's nearest and farthest records, once, for training to draw from."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.config.neighbours import Config


def options(parser: Parser) -> None:
    """Which stores, where to, and one option for each field of the Config."""
    parser.add_argument(
        "stores", nargs="*", help="folders that ecgfast convert made; none: the SYNTHETIC cohort"
    )
    parser.add_argument("--out", required=True, help="folder for the graph")
    parser.add_config("neighbours", Config)


def run(words: Namespace) -> None:
    """Makes the graph and says how alike neighbours are."""
    from ecgfast.data.purity import lines
    from ecgfast.systems.neighbours import make
    from ecgfast.train.errors import RunError

    config: Config = words.built
    try:
        about = make(config, tuple(words.stores), Path(words.out))
    except RunError as error:
        raise Fail(error.code, str(error)) from None
    counts = about["counts"]
    kind = " SYNTHETIC" if about["synthetic"] else ""
    print(
        f"{words.out}: the {config.k} nearest and {config.k_far} farthest of {counts['records']}"
        f"{kind} records of {counts['patients']} patients"
    )
    if counts["incomplete"]:
        print(f"  {counts['incomplete']} records with missing samples have no neighbours")
    if counts["copies"]:
        print(f"  {counts['copies']} records are copies of another; copies are no neighbours")
    for line in lines(about["purity"], config.label):
        print(f"  {line}")
