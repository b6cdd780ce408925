"""Opening a store, whatever it holds."""

from __future__ import annotations

from pathlib import Path

from ecgfast.data.clip_store import ClipStore
from ecgfast.data.page_store import PageStore
from ecgfast.data.shards import read_about
from ecgfast.data.store import ECGStore

Store = ECGStore | PageStore | ClipStore
KINDS: tuple[type[Store], ...] = (ECGStore, PageStore, ClipStore)


def open_store(path: str | Path) -> Store:
    """Opens a store of signals, of pages or of clips.

    Raises:
        DataError: It is none, is not finished, or holds what this ecgfast does not know.
    """
    holds = read_about(Path(path))[1]
    kind = next((kind for kind in KINDS if kind.name == holds), ECGStore)
    return kind.open(path)
