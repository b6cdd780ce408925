"""A store of pages: pictures of ECGs, brought to a model's size once, and what was left out.

store.json       holds "pages", their size and colours, how they were cut and scaled
pages-00000.npy  (N, C, H, W) uint8 in C order
manifest.parquet a row a page: where it lies, whose it is, its flags and labels
rejected.csv     a row for each reason why a picture is not here
issues.csv       a row for each issue of a page that is here
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.page_copies import mark_copies
from ecgfast.data.page_fit import PageFit
from ecgfast.data.records import DataError, Issue
from ecgfast.data.shard_writer import ShardWriter
from ecgfast.data.shards import ShardStore, read_store
from ecgfast.data.store_format import PAGE_COLUMNS

PAGES = "pages"


class PageWriter(ShardWriter):
    """Writes a store of pages; see :class:`ecgfast.data.shard_writer.ShardWriter`.

    Args:
        path: Folder, made if need be.
        fit: What was done to every page.
        made_by: Anything of plain values that says where they come from.
        synthetic: The pages are made up.
        plan: A word for what is being done; a folder of another plan is refused.
        overwrite: Remove a store that is there.
        shard_records: Pages a shard.
    """

    def __init__(
        self,
        path: str | Path,
        fit: PageFit,
        *,
        made_by: Mapping[str, Any] | None = None,
        synthetic: bool = False,
        plan: str = "",
        overwrite: bool = False,
        shard_records: int = 512,
    ) -> None:
        self.fit = fit
        about = {
            "holds": PAGES,
            "synthetic": synthetic,
            "contract": fit.plain(),
            "made_by": dict(made_by or {}),
        }
        super().__init__(
            path,
            about=about,
            columns=PAGE_COLUMNS,
            name=PAGES,
            plan=plan,
            overwrite=overwrite,
            shard_records=shard_records,
        )

    def add(
        self,
        pixels: NDArray[np.uint8],
        *,
        record_id: str,
        patient_id: str = "",
        split: str = "",
        labels: Mapping[str, Any] | None = None,
        issues: Iterable[Issue] = (),
        keep_duplicates: bool = False,
        **row: Any,
    ) -> bool:
        """Adds a page, or rejects it as the duplicate of an earlier one.

        Args:
            pixels: ``(C, H, W)`` uint8.
            record_id: Its name, unique in the store.
            patient_id: Whose it is; empty if nobody knows.
            split: train, val, test, or empty.
            labels: Columns of its own.
            issues: What becomes its flags.
            keep_duplicates: Flag a duplicate instead.
            row: height_source, width_source, form_source, source, source_sha256.

        Returns:
            Whether it is in.
        """
        if pixels.shape != self.fit.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"a page of this store is {self.fit.shape} uint8, got {pixels.shape} {pixels.dtype}"
            )
        return self._put(
            pixels,
            sha=hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest(),
            record_id=record_id,
            patient_id=patient_id,
            split=split,
            labels=labels,
            issues=issues,
            duplicate="duplicate_image",
            keep_duplicates=keep_duplicates,
            row={
                "height_source": int(row.get("height_source", pixels.shape[1])),
                "width_source": int(row.get("width_source", pixels.shape[2])),
                "form_source": str(row.get("form_source", "")),
                "copy_of": "",
                "source": str(row.get("source", "")),
                "source_sha256": str(row.get("source_sha256", "")),
            },
        )

    def close(self, finish: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> pd.DataFrame:
        """As every store; before that, pages that show the same are found and marked."""

        def marked(manifest: pd.DataFrame) -> pd.DataFrame:
            self.note(mark_copies(manifest, self.path))
            return finish(manifest) if finish else manifest

        return super().close(marked)


class PageStore(ShardStore):
    """A finished store of pages, read in place.

    Attributes:
        path: Its folder.
        manifest: A row a page; see `PAGE_COLUMNS` and the labels after them.
        fit: Size, colours, and how pages were cut and scaled.
        about: What store.json says.
    """

    columns, name, dtype = PAGE_COLUMNS, PAGES, np.uint8
    made_by = "ecgfast convert PICTURES STORE --format image"

    def __init__(self, path: Path, about: dict[str, Any], manifest: pd.DataFrame) -> None:
        try:
            self.fit = PageFit.from_plain(about["contract"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"error[corrupt_store] {path}/store.json: {error}") from None
        super().__init__(path, about, manifest, self.fit.shape)

    @classmethod
    def open(cls, path: str | Path) -> PageStore:
        """Opens the folder that `ecgfast convert --format image` made.

        Raises:
            DataError: It is none, or is not finished.
        """
        return cls(*read_store(path, cls))

    def pixels(self, index: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The (C, H, W) uint8 of a page, in memory of its own or in ``out``, C order."""
        return self.read_row(index, out)
