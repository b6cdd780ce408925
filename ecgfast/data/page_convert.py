"""From pictures to a store of pages: many files, none of which may stop or slip out of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ecgfast.data.checks import Policy, apply_policy
from ecgfast.data.convert import Labelling, Outcome, workers_for
from ecgfast.data.images import ImageReading, find_images, read_image
from ecgfast.data.labels import read_table
from ecgfast.data.page_fit import PageFit, fit_page
from ecgfast.data.page_store import PageWriter
from ecgfast.data.prepared import Ready, prepared
from ecgfast.data.records import BadRecord, DataError, bad
from ecgfast.data.sources import Item


@dataclass(frozen=True, kw_only=True)
class PagePlan:
    """What shall become of pictures.

    Attributes:
        fit: Size and colours that all pages are brought to, and how.
        reading: How the files are read.
        policy: Issue names that are to be kept or rejected against their habit.
    """

    fit: PageFit
    reading: ImageReading = field(default_factory=ImageReading)
    policy: Mapping[str, Policy] = field(default_factory=dict)

    def ready(self, items: list[Item]) -> list[Ready]:
        """Reads and fits pages: a result for each."""
        return [self._one(item) for item in items]

    def plain(self) -> dict[str, Any]:
        """Plain values, for store.json."""
        policy = dict(self.policy)
        return {"fit": self.fit.plain(), "reading": asdict(self.reading), "policy": policy}

    def _one(self, item: Item) -> Ready:
        try:
            page = read_image(Path(item.root), item.path, self.reading)
            pixels, noticed = fit_page(page, self.fit)
        except BadRecord as error:
            return Ready(item, None, issues=(error.issue,))
        except Exception as error:  # whatever a strange file brings about must not end the run
            text = f"{type(error).__name__}: {str(error)[:160]}"
            return Ready(item, None, issues=(bad("unreadable", text).issue,))
        rejecting, kept = apply_policy([*page.issues, *noticed], self.policy)
        if rejecting:
            return Ready(item, None, issues=tuple(rejecting))
        row = {
            "height_source": page.pixels.shape[0],
            "width_source": page.pixels.shape[1],
            "form_source": page.form,
            "source": item.source,
            "source_sha256": page.source_sha256,
        }
        return Ready(item, pixels, issues=tuple(kept), row=row)


def convert_pages(
    sources: Iterable[str | Path],
    store: str | Path,
    plan: PagePlan,
    *,
    labels: str | Path | None = None,
    id_column: str = "record_id",
    id_pattern: str = "",
    patient_column: str = "",
    sex_male: str = "1",
    workers: int = -1,
    overwrite: bool = False,
    shard_records: int = 512,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]] | None = None,
) -> Outcome:
    """Reads, fits, and stores all pictures of some folders.

    A picture that cannot be read, or is pixel for pixel an earlier one, is written to rejected.csv
    with the reason; one that only shows the same as an earlier one is kept and marked. Run again
    with the same arguments, it goes on after the last whole shard.

    Args:
        sources: Folders or files.
        store: Folder to be made.
        plan: What shall become of the pictures.
        labels: A table to join.
        id_column: Its column of record ids: a file's name without suffix, or its path.
        id_pattern: A regular expression whose first group, found in the file's name, is the id.
        patient_column: Its column of patient ids, if that is not patient_id.
        sex_male: What it calls male in numbers.
        workers: Processes; 0 reads here, -1 takes as many as it pays.
        overwrite: Replace a store that is there.
        shard_records: Pages a shard.
        progress: Wraps the results: called with them, the number done before, and the total.

    Raises:
        DataError: There is nothing to convert, or the store is of something else.
    """
    if plan.policy.get("similar_image") == "reject":
        raise DataError(
            "error[policy] similar_image cannot reject: which pages are copies of others is known "
            "at the end; they are marked (copy_of) and stay in one part of a split"
        )
    roots = [Path(source) for source in sources]
    items = find_images(roots, skip=[Path(labels)] if labels else [])
    tables = []
    if labels:
        table = read_table(Path(labels), id_column, male=sex_male, patient_column=patient_column)
        tables.append(table)
    labelling = Labelling(items, tables, id_pattern)
    made_by = {
        "command": "convert",
        "sources": [root.name for root in roots],
        "records": len(items),
        "plan": plan.plain(),
        "labels": [table.name for table in tables],
    }
    paths = [(item.path, item.member) for item in items]
    word = json.dumps([made_by, paths, id_column, id_pattern]).encode()
    writer = PageWriter(
        store,
        plan.fit,
        made_by=made_by,
        plan=hashlib.sha256(word).hexdigest(),
        overwrite=overwrite,
        shard_records=shard_records,
    )
    if writer.finished:
        manifest = pd.read_parquet(Path(store) / "manifest.parquet")
        return Outcome(manifest, [], True, len(items), len(items))
    begun = writer.done
    left = items[begun:]
    results: Iterable[Ready] = prepared(left, plan, workers_for(workers, len(left), pays=64))
    for ready in progress(results, begun, len(items)) if progress else results:
        if ready.steps is None:
            writer.reject(ready.item.record_id, ready.item.source, ready.issues)
            continue
        writer.add(
            ready.steps,
            record_id=ready.item.record_id,
            issues=ready.issues,
            keep_duplicates=plan.policy.get("duplicate_image") == "keep",
            **ready.row,
        )
    manifest = writer.close(labelling)
    return Outcome(manifest, labelling.joined, False, begun, len(items))
