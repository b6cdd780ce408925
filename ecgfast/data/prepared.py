"""Records made ready for a store or a model, here or in other processes, whatever is wrong."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from ecgfast.data.records import Issue, bad
from ecgfast.data.sources import Item

CHUNK = 16  # items that a worker gets at a time
ARCHIVE_CHUNK = 2048  # of an archive, which is read from its beginning each time


class Preparing(Protocol):
    """What shall become of records; it can be pickled."""

    def ready(self, items: list[Item]) -> list[Ready]:
        """Reads and prepares them: a result for each, whatever is wrong with it."""


@dataclass(frozen=True)
class Ready:
    """What a worker hands back: a record as it is stored, or the reasons why there is none.

    Attributes:
        item: What was read.
        steps: A quantised signal, int16 ``(L, T)``; a page, uint8 ``(C, H, W)``; or the frames of a
            video, uint8 ``(F, C, S, S)``.
        gain: mV a step, of a signal.
        issues: The reasons, or what was noticed.
        row: For the manifest.
        labels: That the file itself names.
    """

    item: Item
    steps: NDArray[Any] | None
    gain: float = 0.0
    issues: tuple[Issue, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def _chunks(items: list[Item], usual: int) -> Iterator[list[Item]]:
    at = 0
    while at < len(items):
        size, first = usual, items[at]
        if first.member:
            same = (first.root, first.path)
            size = 1
            while size < ARCHIVE_CHUNK and at + size < len(items):
                after = items[at + size]
                if (after.root, after.path) != same:
                    break
                size += 1
        yield items[at : at + size]
        at += size


def prepared(
    items: list[Item], plan: Preparing, workers: int = 0, chunk_size: int = CHUNK
) -> Iterator[Ready]:
    """Reads and prepares records: one result an item, in their order, whatever is wrong with them.

    Args:
        items: What to read.
        plan: What shall become of them.
        workers: Processes; 0 reads here. A record that takes its process down is named.
        chunk_size: Records that a worker gets at a time: few, where one takes long or much room.
    """
    if workers < 1 or len(items) <= chunk_size:
        for chunk in _chunks(items, chunk_size):
            yield from _whole(chunk, plan.ready(chunk))
        return
    # spawn: the caller may hold threads, which a fork would leave in an unknown state
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts)
    waiting: deque[tuple[list[Item], Future[list[Ready]]]] = deque()
    left = _chunks(items, chunk_size)
    try:
        while True:
            while len(waiting) < 4 * workers and (more := next(left, [])):
                waiting.append((more, pool.submit(plan.ready, more)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                yield from _whole(chunk, future.result())
            except (
                BrokenProcessPool
            ):  # a record took its process down: find it, go on with the rest
                pool.shutdown(wait=False, cancel_futures=True)
                for item in chunk:
                    yield _alone(item, plan, context)
                pool = ProcessPoolExecutor(
                    workers, mp_context=context, initializer=_leave_interrupts
                )
                waiting = deque((c, pool.submit(plan.ready, c)) for c, _ in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches the whole group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _alone(item: Item, plan: Preparing, context: Any) -> Ready:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(plan.ready, [item]).result()[0]
        except BrokenProcessPool:
            text = "the process that read it was killed, by a fault of a decoder or for its memory"
            return Ready(item, None, issues=(bad("reader_crashed", text).issue,))


def _whole(items: list[Item], results: list[Ready]) -> Iterator[Ready]:
    """One result an item, in their order, also if a reader passed one over."""
    by_id = {ready.item.record_id: ready for ready in results}
    for item in items:
        lost = Ready(item, None, issues=(bad("missing_file", "it was not found again").issue,))
        yield by_id.get(item.record_id, lost)
