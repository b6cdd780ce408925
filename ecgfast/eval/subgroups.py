"""Groups of patients for whom the numbers are given apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]

AGE_BANDS = ((18.0, 35.0), (35.0, 50.0), (50.0, 75.0), (75.0, np.inf))  # years, [from, to)
AGE_EDGES = (18.0, 35.0, 50.0, 75.0)
FEW_VALUES = 10  # a number with more different values is cut into quarters
MOST_GROUPS = 60  # of one column: more are no groups but ids
SEX = {0.0: "female", 1.0: "male"}
NOTHING = ("", "None", "nan", "<NA>", "NaT")


@dataclass(frozen=True)
class Cut:
    """A column, and how its values become groups.

    Attributes:
        column: Of the manifest.
        edges: Bounds of bands; empty chooses by the values.
        each: Whether every number is a group of its own, however many there are.
    """

    column: str
    edges: tuple[float, ...] = ()
    each: bool = False


@dataclass(frozen=True)
class Grouping:
    """Groups that share no record.

    Attributes:
        name: Of the column, or of several joined by `` * ``.
        groups: Masks ``(N,)`` by names such as ``sex=male``, ``age=[35,50)``, ``age>=75``.
        unknown: Mask of those of whom a column says nothing.
    """

    name: str
    groups: dict[str, Mask]
    unknown: Mask


def parse(word: str) -> tuple[Cut, ...]:
    """What ``sex``, ``age:18,35,50,75``, ``site:each`` or ``sex*age`` means.

    Raises:
        ValueError: It means nothing.

    Example:
        >>> parse("sex*age:50")
        (Cut(column='sex', edges=(), each=False), Cut(column='age', edges=(50.0,), each=False))
    """
    cuts = []
    for part in word.split("*"):
        column, colon, how = part.strip().partition(":")
        if not column or (colon and not how):
            raise ValueError(f"subgroup {word!r} is none of COLUMN, COLUMN:18,35,50, COLUMN:each")
        if how in ("", "each"):
            cuts.append(Cut(column, each=how == "each"))
            continue
        try:
            edges = tuple(float(edge) for edge in how.split(","))
        except ValueError:
            raise ValueError(f"subgroup {word!r}: {how!r} are no bounds such as 18,35,50") from None
        if not np.isfinite(edges).all() or any(b <= a for a, b in pairwise(edges)):
            raise ValueError(f"subgroup {word!r}: bounds must be finite and rise")
        cuts.append(Cut(column, edges))
    return tuple(cuts)


def grouping(cuts: Sequence[Cut], columns: Mapping[str, ArrayLike]) -> Grouping:
    """Groups by one column, or by every combination of several.

    Texts, and numbers of few different values, make a group of each value. Other numbers make
    bands: by the bounds that were given, those of `AGE_EDGES` for ``age``, or else the quartiles
    of these records. A band takes its lower bound in and leaves its upper bound out. What is
    missing (NaN, empty text) makes no group and is told apart.

    Args:
        cuts: Columns and how to cut them.
        columns: ``(N,)`` each.

    Raises:
        ValueError: A column of text was given bounds, or there are more than `MOST_GROUPS` groups.
    """
    parts = [_one(cut, np.asarray(columns[cut.column])) for cut in cuts]
    joined = parts[0]
    for part in parts[1:]:
        both = {
            f"{a} & {b}": first & second
            for a, first in joined.groups.items()
            for b, second in part.groups.items()
        }
        joined = Grouping(f"{joined.name} * {part.name}", both, joined.unknown | part.unknown)
    if len(joined.groups) > MOST_GROUPS:
        raise ValueError(
            f"{joined.name} makes {len(joined.groups)} groups, {MOST_GROUPS} are allowed: give "
            "bounds, or another column"
        )
    return joined


def _one(cut: Cut, values: NDArray[Any]) -> Grouping:
    if values.dtype.kind not in "biuf":
        if cut.edges:
            raise ValueError(f"column {cut.column} holds text: it has no bounds")
        return _of_texts(cut.column, np.asarray(values, dtype=object))
    numbers = values.astype(np.float64)
    unknown = ~np.isfinite(numbers)
    known = np.unique(numbers[~unknown])
    edges = cut.edges
    if not edges and not cut.each and cut.column == "age":
        edges = AGE_EDGES
    if not edges and (cut.each or len(known) <= FEW_VALUES):
        names = SEX if cut.column == "sex" and set(known) <= set(SEX) else {}
        groups = {f"{cut.column}={names.get(v, f'{v:g}')}": numbers == v for v in known.tolist()}
        if names:  # a sex that nobody here has is told, too
            groups = {f"sex={name}": numbers == v for v, name in SEX.items()}
        return Grouping(cut.column, groups, unknown)
    if not edges:
        # to four digits: bounds are read by people
        quarters = np.quantile(numbers[~unknown], [0.25, 0.5, 0.75])
        edges = tuple(sorted({float(f"{q:.4g}") for q in quarters}))
    return Grouping(cut.column, _bands(cut.column, numbers, edges), unknown)


def _of_texts(column: str, values: NDArray[Any]) -> Grouping:
    texts = np.array(["" if v is None or v != v else str(v).strip() for v in values], dtype=object)
    unknown = np.isin(texts.astype(str), NOTHING)
    names = sorted(set(texts[~unknown]))
    if len(names) > MOST_GROUPS:
        raise ValueError(
            f"column {column} has {len(names)} different texts, {MOST_GROUPS} are allowed as groups"
        )
    return Grouping(column, {f"{column}={name}": texts == name for name in names}, unknown)


def _bands(column: str, numbers: NDArray[np.float64], edges: Sequence[float]) -> dict[str, Mask]:
    bounds = [-np.inf, *edges, np.inf]
    groups = {}
    for low, high in pairwise(bounds):
        inside = (numbers >= low) & (numbers < high)
        if np.isinf(low):
            if inside.any():  # nobody below the first bound is no news
                groups[f"{column}<{high:g}"] = inside
        elif np.isinf(high):
            groups[f"{column}>={low:g}"] = inside
        else:
            groups[f"{column}=[{low:g},{high:g})"] = inside
    return groups


def counts(
    grouping: Grouping,
    patient: ArrayLike,
    *,
    positive: ArrayLike | None = None,
    least_share: float = 0.05,
    least_patients: int = 30,
) -> list[dict[str, Any]]:
    """How many there are in each group, and whether they are few.

    Args:
        grouping: Groups.
        patient: ``(N,)`` ids.
        positive: ``(N,)`` whether a record is of the positive class, if there is one.
        least_share: A group with a smaller share of all patients is under-represented, and
        least_patients: so is one with fewer patients.

    Returns:
        For each group, and last for those of unknown value if there are any: by (the column),
        group, known, n, patients, positives, share (of all patients), under_represented.
    """
    patient = np.asarray(patient)
    everyone = len(np.unique(patient))
    lines = [(name, mask, True) for name, mask in grouping.groups.items()]
    if grouping.unknown.any():
        lines.append((f"{grouping.name}=unknown", grouping.unknown, False))
    found = []
    for name, mask, known in lines:
        patients = len(np.unique(patient[mask]))
        few = patients < least_patients or patients < least_share * everyone
        found.append(
            {
                "by": grouping.name,
                "group": name,
                "known": known,
                "n": int(mask.sum()),
                "patients": patients,
                "positives": None if positive is None else int(np.asarray(positive)[mask].sum()),
                "share": patients / everyone if everyone else 0.0,
                "under_represented": bool(few),
            }
        )
    return found


def subgroups(
    *,
    sex: ArrayLike | None = None,
    age: ArrayLike | None = None,
    bands: Sequence[tuple[float, float]] = AGE_BANDS,
) -> dict[str, Mask]:
    """Masks by sex and age band.

    A record whose sex or age is NaN, or whose age is in no band, is in no group of that kind.

    Args:
        sex: ``(N,)`` 1 male, 0 female, NaN unknown.
        age: ``(N,)`` years, NaN unknown.
        bands: Each from a lower bound (within) to an upper one (without).

    Returns:
        Masks ``(N,)`` by names such as ``sex=male``, ``age=[35,50)``, ``age>=75``.

    Example:
        >>> {k: v.tolist() for k, v in subgroups(age=[20, 80], bands=[(18, 50)]).items()}
        {'age=[18,50)': [True, False]}
    """
    groups: dict[str, Mask] = {}
    if sex is not None:
        values = np.asarray(sex, np.float64)
        groups |= {"sex=female": values == 0, "sex=male": values == 1}
    if age is not None:
        years = np.asarray(age, np.float64)
        for low, high in bands:
            name = f"age>={low:g}" if np.isinf(high) else f"age=[{low:g},{high:g})"
            groups[name] = (years >= low) & (years < high)
    return groups
