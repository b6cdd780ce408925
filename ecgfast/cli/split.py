"""Part the patients of a store into train, val and test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """Which store, by what."""
    parser.add_argument("store", help="folder that ecgfast convert made")
    parser.add_argument(
        "--by", type=Literal["patient"], default="patient", help="what is never in two splits"
    )
    parser.add_argument(
        "--scheme",
        default="random",
        help="random, ptbxl (folds 1-8, 9, 10), or a csv with a column split",
    )
    parser.add_argument(
        "--fractions", default="0.8,0.1,0.1", help="of patients in train, val, test, if random"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw, if random")
    parser.add_argument("--fold-column", default="strat_fold", help="if ptbxl")
    parser.add_argument("--val-folds", default="9", help="with commas, if ptbxl")
    parser.add_argument("--test-folds", default="10", help="with commas, if ptbxl")


def run(words: Namespace) -> None:
    """Writes the splits into the manifest, unless a patient would be in two of them."""
    from ecgfast.data import split
    from ecgfast.data.clip_store import ClipStore
    from ecgfast.data.page_store import PageStore
    from ecgfast.data.store_format import write_manifest
    from ecgfast.data.stores import open_store

    store = open_store(words.store)
    manifest = store.manifest.copy()
    if words.scheme == "random":
        fractions = _numbers(words.fractions, "--fractions", float)
        if len(fractions) != 3:
            raise Fail(2, f"error: --fractions needs three numbers, got {words.fractions}")
        train, val, test = fractions
        chosen = split.by_random(manifest, fractions=(train, val, test), seed=words.seed)
    elif words.scheme == "ptbxl":
        chosen = split.by_fold(
            manifest,
            column=words.fold_column,
            val=tuple(int(n) for n in _numbers(words.val_folds, "--val-folds", int)),
            test=tuple(int(n) for n in _numbers(words.test_folds, "--test-folds", int)),
        )
    elif words.scheme.endswith((".csv", ".parquet")):
        chosen = split.by_table(manifest, Path(words.scheme))
    else:
        raise Fail(2, f"error: --scheme {words.scheme} is none of random, ptbxl, FILE.csv")
    manifest["split"] = chosen
    split.check_leaks(manifest)
    write_manifest(store.path, manifest)
    whose = split.patients(manifest)
    print(f"split    {words.store} by patient, scheme {words.scheme}")
    for name in (*split.SPLITS, ""):
        part = manifest["split"] == name
        if name or part.any():
            title = name or "none"
            print(f"  {title:<6} {int(part.sum()):>8} records {whose[part].nunique():>8} patients")
    alone = int((manifest["patient_id"] == "").sum())
    if alone:
        print(f"note     {alone} records have no patient id; each was taken as its own patient")
    way = "pretrain ssl-dml --data.splits train"
    if isinstance(store, PageStore):
        way = "finetune --init RUN --task classification --label NAME"
    if isinstance(store, ClipStore):
        way = "pretrain echoclr --data.splits train"
    print(f"next     ecgfast {way} --data.paths {words.store}")


def _numbers(text: str, option: str, kind: type[int] | type[float]) -> list[float]:
    try:
        return [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise Fail(2, f"error: {option} {text!r} is not numbers with commas") from None
