"""Who is trained on and who is tested: by patient, without leaks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.labels import read_table
from ecgfast.data.records import DataError
from ecgfast.data.store_format import of_videos

SPLITS = ("train", "val", "test")
MOST_LIST = 64 * 2**20  # bytes of a list of patients


def patients(manifest: pd.DataFrame) -> pd.Series[str]:
    """Whose each record is; a record of nobody known is a patient of its own.

    Videos of one study are of one patient, also of one whom nobody knows.
    """
    own = "record:" + manifest["record_id"].astype(str)
    if of_videos(manifest):
        studies = manifest["study_id"].astype(str)
        own = own.where(studies == "", "study:" + studies)
    return manifest["patient_id"].where(manifest["patient_id"] != "", own)


def by_random(
    manifest: pd.DataFrame,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> pd.Series[str]:
    """Draws patients for train, val and test; the same patients for the same seed.

    Args:
        manifest: Of a store.
        fractions: Of the patients, in this order; they sum to 1.
        seed: Of the draw, which does not depend on the order of the records.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"error[split] fractions must sum to 1, got {fractions}")
    whose = _together(manifest)
    drawn = sorted(set(whose), key=lambda name: _draw(seed, name))
    ends = np.rint(np.cumsum(fractions) * len(drawn)).astype(int)
    part = np.searchsorted(ends, np.arange(len(drawn)), side="right")
    return whose.map({name: SPLITS[p] for name, p in zip(drawn, part, strict=True)})


def _together(manifest: pd.DataFrame) -> pd.Series[str]:
    """As :func:`patients`, but who share a recording, page or study, whatever their ids, are one.

    Copies that a store keeps (``duplicate_signal``, ``duplicate_image``, ``similar_image``) are
    thereby in one part.
    """
    whose = patients(manifest)
    copied = manifest["sha256"].duplicated(keep=False) & (manifest["sha256"] != "")
    first = {name: name for name in whose}

    def of(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    alike = [whose[copied].groupby(manifest["sha256"])]
    if "copy_of" in manifest:
        known = manifest["copy_of"].astype(str)
        alike.append(whose.groupby(known.where(known != "", manifest["record_id"].astype(str))))
    if of_videos(manifest):
        alike.append(whose.groupby(_studies(manifest)))
    for groups in alike:
        for _, copies in groups:
            ends = sorted({of(name) for name in copies})
            for other in ends[1:]:
                first[other] = ends[0]
    return whose.map(of)


def _studies(manifest: pd.DataFrame) -> pd.Series[str]:
    """Which examination each video is of; one of none known is of its own."""
    studies = manifest["study_id"].astype(str)
    return studies.where(studies != "", "record:" + manifest["record_id"].astype(str))


def by_fold(
    manifest: pd.DataFrame,
    *,
    column: str = "strat_fold",
    val: tuple[int, ...] = (9,),
    test: tuple[int, ...] = (10,),
) -> pd.Series[str]:
    """Splits by a column of fold numbers, PTB-XL's by default; records without a fold get none."""
    if column not in manifest:
        raise DataError(
            f"error[split] there is no column {column}; --fold-column NAME, or --scheme random"
        )
    if both := set(val) & set(test):
        raise DataError(f"error[split] fold {min(both)} cannot be val and test")
    fold = pd.to_numeric(manifest[column], errors="coerce")
    if absent := (set(val) | set(test)) - set(fold.dropna()):
        have = ", ".join(f"{f:g}" for f in sorted(set(fold.dropna()))[:20])
        raise DataError(f"error[split] no record is in fold {min(absent)}; there are {have}")
    split = pd.Series("train", index=manifest.index).where(fold.notna(), "")
    return split.mask(fold.isin(val), "val").mask(fold.isin(test), "test")


def by_table(manifest: pd.DataFrame, path: Path) -> pd.Series[str]:
    """Splits as a csv says: a column split, beside record_id or patient_id."""
    columns = pd.read_csv(path, nrows=0).columns if path.is_file() else []
    key = next((name for name in ("record_id", "patient_id") if name in columns), "record_id")
    table = read_table(path, key)
    if "split" not in table.frame:
        raise DataError(f"error[split] {path.name} has no column split")
    names = table.frame["split"].tolist()
    if wrong := sorted(set(names) - {*SPLITS, ""}):
        raise DataError(f"error[split] {path.name} says {wrong[0]!r}; train, val, test are known")
    rows = [table.row([value]) for value in manifest[key]]
    if all(row < 0 for row in rows):
        raise DataError(f"error[split] no {key} of the store is in {path.name}")
    return pd.Series([names[row] if row >= 0 else "" for row in rows], index=manifest.index)


def check_leaks(manifest: pd.DataFrame) -> None:
    """Refuses a patient, a study, or the same samples, in two splits.

    Raises:
        DataError: split_leak, with how many and the first of them.
    """
    named = manifest[manifest["split"] != ""]
    keys = [("patients", patients(named)), ("signals", named["sha256"])]
    if "copy_of" in named:
        own = named["record_id"].astype(str)
        keys.append(("pictures", named["copy_of"].astype(str).where(named["copy_of"] != "", own)))
    if of_videos(named):
        keys.append(("studies", _studies(named)))
    for what, key in keys:
        spread = named.groupby(key)["split"].unique()
        leaks = spread[spread.map(len) > 1]
        if len(leaks):
            where = " and ".join(sorted(leaks.iloc[0]))
            first = leaks.index[0]
            if what == "signals":
                first = ", ".join(named["record_id"][named["sha256"] == first][:2])
            raise DataError(
                f"error[split_leak] {len(leaks)} {what} are in both {where} (first: {first}). "
                "Split by patient: ecgfast split STORE --by patient"
            )


def nested_fraction(
    manifest: pd.DataFrame, fraction: float, seed: int, label: str | None = None
) -> NDArray[np.int64]:
    """Positions of the records of a part of the patients, a smaller part inside every larger one.

    Patients are drawn within strata of the label (its values, or fifths where there are more than
    ten), so that a small part has what the whole has. Each stratum that is not empty gives at least
    one patient. A patient's stratum is that of the largest value of the records; where the label is
    a text, that of the rarest.

    Args:
        manifest: Of the records to choose from, of one split say.
        fraction: Of the patients, 0 to 1.
        seed: Of the draw.
        label: Column to stratify by; records without a value are left out.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"error[fraction] the fraction must lie in (0, 1], got {fraction}")
    whose = patients(manifest).to_numpy(object)
    usable = np.ones(len(manifest), dtype=bool)
    stratum = pd.Series("", index=sorted(set(whose)))
    if label is not None:
        text = not pd.api.types.is_numeric_dtype(manifest[label])
        values = _rarity(manifest[label]) if text else manifest[label].to_numpy(np.float64)
        usable = ~np.isnan(values)
        top = pd.Series(values[usable]).groupby(whose[usable]).max()
        if top.nunique() > 10 and not text:
            top = pd.qcut(top, 5, labels=False, duplicates="drop")
        stratum = top.astype(str)
    chosen: set[str] = set()
    for _, names in stratum.groupby(stratum).groups.items():
        drawn = sorted(names, key=lambda name: _draw(seed, name))
        chosen.update(drawn[: max(1, int(np.ceil(fraction * len(drawn) - 1e-9)))])
    inside = np.array([name in chosen for name in whose], dtype=bool)
    return np.flatnonzero(inside & usable)


def half(manifest: pd.DataFrame, which: Literal["first", "second"]) -> NDArray[np.int64]:
    """Positions of the records of about half of the patients.

    On which side a patient is, a hash of the id says: it is the same in every store and split.
    """
    sides = [_draw("half", name)[0] % 2 == 0 for name in patients(manifest)]
    return np.flatnonzero(np.array(sides, dtype=bool) == (which == "first"))


def read_patients(path: str | Path) -> tuple[list[str], str]:
    """Reads a list of patients, one id a line; a first line ``patient_id`` or an empty one is none.

    A record of nobody known is named ``record:`` and its id, as :func:`patients` does.

    Args:
        path: Of a text file of at most 64 MB.

    Returns:
        The ids, each once, and the SHA-256 of the file.

    Raises:
        DataError: There is no such file, it is no text, or it names nobody.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"error[patients] there is no {path}")
    if path.stat().st_size > MOST_LIST:
        raise DataError(f"error[patients] {path} has more than {MOST_LIST} bytes")
    content = path.read_bytes()
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"error[patients] {path} is no text: {error}") from None
    names = [line for line in lines if line]
    names = list(dict.fromkeys(names[names[:1] == ["patient_id"] :]))
    if not names:
        raise DataError(f"error[patients] {path} names nobody: one patient id a line is needed")
    return names, hashlib.sha256(content).hexdigest()


def listed(manifest: pd.DataFrame, names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Positions of the records of listed patients, and those of the list who have none."""
    whose = patients(manifest)
    here = set(whose)
    return np.flatnonzero(whose.isin(names).to_numpy()), [n for n in names if n not in here]


def _rarity(text: pd.Series[Any]) -> NDArray[np.float64]:
    """A number for each text, the larger the rarer; NaN where there is none."""
    names = text.where(text.notna(), "").astype(str).str.strip()
    counts = names[names != ""].value_counts()
    order = sorted(counts.index, key=lambda name: (-counts[name], name))
    return names.map({name: float(i) for i, name in enumerate(order)}).to_numpy(np.float64)


def _draw(seed: int | str, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
