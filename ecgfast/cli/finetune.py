"""Fit an encoder and a head to a label."""

from __future__ import annotations

from jsonargparse import Namespace

from ecgfast.cli.parser import Parser
from ecgfast.cli.pretrain import train
from ecgfast.config.finetune import Config


def options(parser: Parser) -> None:
    """One option for each field of the Config."""
    parser.add_config("finetune", Config)


def run(words: Namespace) -> None:
    """Builds the system and fits it."""
    from ecgfast.systems.finetune import build

    train(build, words.built)
