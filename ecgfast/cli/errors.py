"""How a command fails: with a code, and words that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Fail(Exception):
    """Ends the command.

    Args:
        code: 1 run failed, 2 usage, 3 data, 4 environment.
        message: What, where, how many, what next.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or the empty string if nothing is like it."""
    names = sorted(known)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not found:  # `lrr` for `optim.lr`: compare last parts
        tails = {name.rpartition(".")[2]: name for name in names}
        close = difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1, cutoff=0.6)
        found = [tails[close[0]]] if close else []
    return f"; did you mean {found[0]}?" if found else ""
