"""ECG files on their way into a model, as a conversion would bring them into a store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecgfast.config import Signal
from ecgfast.data.checks import ASK_FOR_FEWER
from ecgfast.data.convert import Plan
from ecgfast.data.images import find_images, is_image
from ecgfast.data.prepared import Preparing, Ready, prepared
from ecgfast.data.records import DataError, Issue
from ecgfast.data.sources import Item, Reading, find, with_ids
from ecgfast.data.videos import find_videos
from ecgfast.systems.pages import DRAW, NO_PAGES, page_of
from ecgfast.train.contract import Contract, ContractError


@dataclass(frozen=True)
class Found:
    """What some paths hold.

    Attributes:
        items: Records to read.
        failures: Paths that hold none, each with the reason.
    """

    items: list[Item]
    failures: list[tuple[str, Issue]]

    def __len__(self) -> int:
        return len(self.items) + len(self.failures)


def find_files(paths: Sequence[str | Path], reading: Reading) -> Found:
    """All records of some files and folders, each once; a path that holds none stops nothing."""
    items: list[Item] = []
    failures = []
    for path in map(Path, paths):
        try:
            items += find([_header_of(path)], reading)
        except (DataError, OSError) as error:
            failures.append((str(path), issue_of(error)))
    once = {(os.path.realpath(item.root), item.path, item.member): item for item in items}
    return Found(with_ids(list(once.values())), failures)


def plan_for(signal: Signal, plan: Plan) -> Plan:
    """The same plan, for the signal that a model expects.

    Raises:
        ContractError: The model was trained on records that a recipe had changed before.
    """
    if signal.stored_recipe:
        raise ContractError(
            f"error[contract] the encoder expects records after recipe {signal.stored_recipe}; "
            "files are not. Do: ecgfast convert FILES STORE --recipe "
            f"{signal.stored_recipe}, with the --fs, --seconds and --leads of the training store, "
            "and name STORE instead of the files"
        )
    return replace(plan, signal=signal)


def find_pictures(
    paths: Sequence[str | Path], reading: Reading, contract: Contract
) -> tuple[Found, Found]:
    """What some paths hold: signals, and pictures if the run takes them.

    Pictures are files named by their suffix, and those in folders; a folder may have both. What a
    run does not take is a failure with the reason, where it was named, and passed over where it
    lies in a folder beside what the run does take.

    Args:
        paths: Files and folders.
        reading: How signals are read.
        contract: Of the run.

    Returns:
        Records of signals with all failures, and pictures.
    """
    pictures: list[Item] = []
    signals: list[Item] = []
    failures: list[tuple[str, Issue]] = []
    sees, draws = page_of(contract.model) is not None, contract.pages is None
    for path in map(Path, paths):
        drawn = _pictures_of(path)
        other = Found([], drawn.failures) if is_image(path) else find_files([path], reading)
        pictures += drawn.items if sees else []
        signals += other.items if draws else []
        if (drawn.items and sees) or (other.items and draws):
            continue
        if drawn.items:
            failures.append((str(path), Issue("no_pages", "error", message=NO_PAGES)))
        elif other.items:
            failures.append((str(path), Issue("no_signals", "error", message=DRAW)))
        else:
            failures += other.failures if draws else drawn.failures
    return Found(_once(signals), failures), Found(_once(pictures), [])


def find_clips(paths: Sequence[str | Path]) -> Found:
    """All videos of some files and folders; a path that holds none stops nothing."""
    items: list[Item] = []
    failures = []
    for path in map(Path, paths):
        try:
            items += find_videos([path])
        except (DataError, OSError) as error:
            failures.append((str(path), issue_of(error)))
    return Found(_once(items), failures)


def _pictures_of(path: Path) -> Found:
    try:
        return Found(find_images([path]), [])
    except (DataError, OSError) as error:
        return Found([], [(str(path), issue_of(error))])


def _once(items: Sequence[Item]) -> list[Item]:
    """Each record once, however often it was named, with an id of its own."""
    once = {(os.path.realpath(item.root), item.path, item.member): item for item in items}
    return with_ids(list(once.values()))


def batches(
    items: Sequence[Item], plan: Preparing, *, size: int = 64, workers: int = 0
) -> Iterator[list[Ready]]:
    """Records as a store would hold them, or the reasons why not; in order, so many at a time."""
    results = prepared(list(items), plan, workers)
    while batch := list(islice(results, size)):
        yield [replace(ready, issues=tuple(map(_reworded, ready.issues))) for ready in batch]


def tensors(batch: Sequence[Ready]) -> tuple[list[int], Tensor, Tensor | None]:
    """Places of the records that could be read, their int16 ``(N, L, T)``, and mV a step.

    Of pages their uint8 ``(N, C, H, W)``, of videos their clips, and no gain.
    """
    good = [place for place, ready in enumerate(batch) if ready.steps is not None]
    steps = [ready.steps for ready in batch if ready.steps is not None]
    ecg = torch.from_numpy(np.stack(steps)) if steps else torch.zeros(0, dtype=torch.int16)
    if ecg.dtype == torch.uint8:
        return good, ecg, None
    gain = torch.tensor([np.float32(batch[place].gain) for place in good])
    return good, ecg, gain


def file_of(item: Item) -> str:
    """Where a record was read from."""
    return str(Path(item.root) / item.path) + (f":{item.member}" if item.member else "")


def issue_of(error: Exception) -> Issue:
    """The issue that an error speaks of."""
    if isinstance(getattr(error, "issue", None), Issue):
        return error.issue  # type: ignore[attr-defined]
    said = re.match(r"error\[(\w+)\] (.*)", str(error), re.DOTALL)
    name, message = said.groups() if said else ("unreadable", f"{type(error).__name__}: {error}")
    return Issue(name, "error", message=message)


def _header_of(path: Path) -> Path:
    """A WFDB record is often named without its suffix, or by its samples."""
    header = path.with_suffix(".hea")
    bare = path.suffix == "" and not path.exists()
    return header if (bare or path.suffix == ".dat") and header.exists() else path


def _reworded(issue: Issue) -> Issue:
    """A model's leads are not for the user of a file to choose."""
    if ASK_FOR_FEWER not in issue.message:
        return issue
    way = (
        "the run expects them: fine-tune one with fewer leads (--signal.leads), or --policy "
        "missing_leads=keep gives it zeros there"
    )
    return replace(issue, message=issue.message.replace(ASK_FOR_FEWER, way))
