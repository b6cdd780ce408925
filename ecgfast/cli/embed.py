"""Write the embeddings of many records to a folder."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from jsonargparse import Namespace

from ecgfast.cli.convert import planned, reading_options, shaping_options
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.cli.predict import (
    MOST_ERRORS,
    check_using,
    progress,
    using_options,
    video_plan,
)


def options(parser: Parser) -> None:
    """The run, the records, where to write."""
    parser.add_argument("run", type=str, help="folder of a run, with a head or without")
    parser.add_argument("path", type=str, nargs="*", help="files or folders of them, instead")
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="folders of records; none and no files takes what the run was trained from",
    )
    parser.add_argument(
        "--split",
        type=str,
        nargs="*",
        default=[],
        help="parts of the stores; none is every record, all is every one that is in no test part",
    )
    parser.add_argument("--out", type=str, required=True, help="folder to be made")
    using_options(parser)
    reading_options(parser)
    shaping_options(parser)


def run(words: Namespace) -> None:
    """Writes embeddings.safetensors, records.parquet and embed.json, and says what is in them."""
    check_using(words)
    if words.path and (words.store or words.split):
        raise Fail(2, "error: name files, or stores (--store, --split), not both")
    if Path(words.out).exists() and not Path(words.out).is_dir():
        raise Fail(2, f"error: --out {words.out} is a file")
    from ecgfast.systems import embed
    from ecgfast.systems.clips import clip_of
    from ecgfast.systems.files import find_clips, find_files
    from ecgfast.systems.model import configured, load

    started = time.perf_counter()
    model = load(words.run, device=words.device)
    how = {
        "batch_size": words.batch_size,
        "workers": words.workers,
        "command": shlex.join(["ecgfast", *sys.argv[1:]]),
        "progress": lambda batches, total: progress(batches, "embed", total, " batches"),
    }
    if words.path:
        if clip_of(model.contract.model):
            plan, found = video_plan(words, model.contract), find_clips(words.path)
        else:
            plan = planned(words, model.signal)
            found = find_files(words.path, plan.reading)
        about = embed.embed_files(model, found, words.out, plan, **how)
    else:
        data = configured(words.run).get("data") or {}
        stores = list(words.store) or list(data.get("paths") or ())
        patients = int(data.get("patients") or 400)
        splits = tuple(words.split) or embed.EVERY
        about = embed.embed_stores(
            model, stores, words.out, splits=splits, patients=patients, **how
        )
    took = time.perf_counter() - started
    print(f"embedded {about['records']} records, {about['embedding_dim']} numbers each")
    for name, what in (
        ("with_gaps", "have samples that are missing; the encoder saw 0 there"),
        ("flat", "do not move in any lead"),
        ("not_finite", "have no embedding: their rows are NaN"),
    ):
        if about[name]:
            print(f"note     {about[name]} {what}")
    if about["not_read"]:
        total = sum(about["not_read"].values())
        print(f"not read {total}")
        for one in about["failures"][:MOST_ERRORS]:
            print(f"  {one['file']}: {one['message']}")
        if total > MOST_ERRORS:
            print(f"  ... {total - MOST_ERRORS} more: {about['not_read']}")
    if about["synthetic"]:
        print("note     SYNTHETIC records are in them, or in what the run has learned from")
    print(
        f"wrote    {words.out}/{{{embed.EMBEDDINGS},{embed.RECORDS},{embed.ABOUT}}} in {took:.1f} s"
    )
    query = "--record ID" if clip_of(model.contract.model) else "FILE"
    print(f"next     ecgfast retrieve {words.run} {query} --embeddings {words.out}")
    if not about["records"]:
        raise Fail(3, "error[no_embedding] no record could be read; the reasons stand above")
