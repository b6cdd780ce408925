"""Pages that are the same picture, though not pixel for pixel: saved again, scaled, paler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.page_fit import area_means
from ecgfast.data.records import Issue

SIDE = 64  # pixels on which pages are compared
ALIKE = 0.95  # correlation above which two pages are one picture
MOST = 50_000  # pages that are all compared with each other
BLOCK = 1024


def mark_copies(manifest: pd.DataFrame, folder: Path) -> list[tuple[str, str, Issue]]:
    """Fills ``copy_of`` with the first page of a store that shows the same, and flags such pages.

    All pages are compared with each other: their grey, averaged to 64 x 64 pixels, each pixel less
    the mean of that pixel over all pages where there are ten or more (what all pages of a device
    have in common says nothing). A correlation of more than 0.95 is a copy. A copy that was
    turned, or cut in another way, is not found; stores of more than 50,000 pages are left to exact
    copies.

    Args:
        manifest: Of the store; is changed.
        folder: With its shards.

    Returns:
        Record id, source and issue of each copy that was not known to be one.
    """
    first: dict[str, str] = {}
    copy_of = []
    for sha, name in zip(manifest["sha256"], manifest["record_id"], strict=True):
        copy_of.append("" if first.setdefault(sha, name) == name else first[sha])
    found: list[tuple[str, str, Issue]] = []
    if 1 < len(manifest) <= MOST:
        names = manifest["record_id"].tolist()
        for row, (other, alike) in enumerate(_nearest_before(_looks(manifest, folder))):
            if alike > ALIKE and not copy_of[row]:
                copy_of[row] = copy_of[other] or names[other]
                text = f"the same picture as {copy_of[row]} (correlation {alike:.3f})"
                issue = Issue("similar_image", "warning", message=text)
                found.append((names[row], str(manifest["source"].iloc[row]), issue))
    manifest["copy_of"] = copy_of
    new = {name for name, _, _ in found}
    manifest["flags"] = [
        ",".join(sorted({*filter(None, flags.split(",")), "similar_image"})) if n in new else flags
        for n, flags in zip(manifest["record_id"], manifest["flags"], strict=True)
    ]
    return found


def _looks(manifest: pd.DataFrame, folder: Path) -> NDArray[np.float32]:
    """What pages are compared by, ``(N, 64 * 64)``, of length 1."""
    looks = np.empty((len(manifest), SIDE * SIDE), dtype=np.float32)
    place = np.arange(len(manifest))
    for number, rows in pd.Series(place).groupby(manifest["shard"].to_numpy()):
        shard = np.load(folder / f"pages-{number:05d}.npy", mmap_mode="r", allow_pickle=False)
        for row in rows:
            grey = shard[manifest["row"].iloc[row]].mean(axis=0, dtype=np.float32)
            side = (min(SIDE, grey.shape[0]), min(SIDE, grey.shape[1]))
            small = np.zeros((SIDE, SIDE), dtype=np.float32)
            small[: side[0], : side[1]] = area_means(area_means(grey, side[0], 0), side[1], 1)
            looks[row] = small.reshape(-1)
    if len(looks) >= 10:
        looks -= looks.mean(axis=0)
    looks -= looks.mean(axis=1, keepdims=True)
    looks /= np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-6)
    return looks


def _nearest_before(looks: NDArray[np.float32]) -> Iterator[tuple[int, float]]:
    """Of each page the most alike of those before it, the first of several, and how alike."""
    for begin in range(0, len(looks), BLOCK):
        block = looks[begin : begin + BLOCK]
        alike = block @ looks[: begin + len(block)].T
        for at, row in enumerate(alike):
            row[begin + at :] = -1.0
            best = int(row.argmax())
            yield best, float(row[best])
