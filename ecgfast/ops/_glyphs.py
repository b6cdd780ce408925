"""Letters as strokes, so that names on a page are drawn as its lines are, at any size.

A plotter's alphabet of this package's own: capitals are 12 units high and 8 wide, lines are joined
points. Each point is a digit for x and one for y, from the lower left corner; A, B, C are 10 to 12.
"""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

CAP = 12.0  # units
GAP = 3.0  # between letters
SPACE = 5.0
_UNKNOWN = "000C8C8000"
_LETTERS = {
    "A": "004C80 2464",
    "B": "000C5C7A785606 5684826000",
    "C": "8A6C2C0A02206082",
    "D": "000C5C89835000",
    "E": "8C0C0080 0666",
    "F": "8C0C00 0666",
    "G": "8A6C2C0A022060828656",
    "H": "000C 808C 0686",
    "I": "202C 0040 0C4C",
    "J": "6C62402002",
    "K": "000C 8C05 2780",
    "L": "0C0080",
    "M": "000C458C80",
    "N": "000C808C",
    "O": "2060828A6C2C0A0220",
    "P": "000C6C8A886606",
    "Q": "2060828A6C2C0A0220 5380",
    "R": "000C6C8A886606 4680",
    "S": "8A6C2C0A08266684826020 2002",
    "T": "0C8C 4C40",
    "U": "0C022060828C",
    "V": "0C408C",
    "W": "0C2048608C",
    "X": "008C 0C80",
    "Y": "0C468C 4640",
    "Z": "0C8C0080",
    "a": "176886 8680 85250302105082",
    "m": "0008 06284640 46688680",
    "s": "7828062464826000",
    "0": "2060828A6C2C0A0220",
    "1": "2A4C40 2060",
    "2": "0A2C6C8A880080",
    "3": "0A2C6C8A886636 668482602002",
    "4": "606C0484",
    "5": "8C0C06568482602002",
    "6": "8A6C2C0A02206082846626 2604",
    "7": "0C8C30",
    "8": "2666888A6C2C0A082604022060828466",
    "9": "022060828A6C2C0A08266688",
    "/": "006C",
    ".": "0001",
    ",": "1100",
    "-": "0666",
    "+": "0686 424A",
    ":": "0203 0809",
    "_": "0080",
    "=": "0484 0888",
    "(": "3C1A1230",
    ")": "0C2A2200",
    "<": "8A0682",
    ">": "0A8602",
}


def _points(line: str) -> list[tuple[int, int]]:
    digits = [int(c, 13) for c in line]
    return list(zip(digits[::2], digits[1::2], strict=True))


@functools.cache
def _letter(letter: str) -> tuple[NDArray[np.float64], float]:
    """Strokes ``(S, 4)`` of a letter, and how wide it is."""
    drawn = _LETTERS.get(letter) or _LETTERS.get(letter.upper()) or _UNKNOWN
    strokes, width = [], 0
    for line in drawn.split():
        points = _points(line)
        width = max(width, *(x for x, _ in points))
        strokes += [(*a, *b) for a, b in pairwise(points)]
    return np.array(strokes, np.float64), float(width)


@functools.lru_cache(maxsize=1024)
def strokes_of(text: str) -> tuple[NDArray[np.float64], float]:
    """Strokes ``(S, 4)`` of a text, x1, y1, x2, y2 in units, y upwards; and how wide it is.

    Letters without a capital or small form of their own take the other; what is no letter at all is
    a box.
    """
    at, parts = 0.0, [np.zeros((0, 4))]
    for letter in text:
        if letter == " ":
            at += SPACE
            continue
        strokes, width = _letter(letter)
        parts.append(strokes + np.array([at, 0.0, at, 0.0]))
        at += width + GAP
    return np.concatenate(parts), max(0.0, at - GAP)
