"""Where the time of a run goes, on the device that does the work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch


class Clock:
    """Adds up the time of named parts, one of which runs at every moment of a run.

    A part ends where the next begins, so that the times of all parts add up to the whole; a part
    inside another is not counted twice. On the CPU a change of parts is a look at the wall's clock.
    On a GPU it is an event in the stream of launches, read only when the times are asked for: no
    step waits for the device, and the times are the device's. There a part that only the host is
    busy with counts as far as the device had nothing to do meanwhile.

    Before ``start`` only what is inside a ``part`` is counted.

    Example:
        >>> clock = Clock()
        >>> with clock.part("mining", torch.device("cpu")):
        ...     nearest = torch.rand(64, 64).argmin(dim=1)
        >>> list(clock.take())
        ['mining']
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.seconds: dict[str, float] = {}
        self.spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.running: str | None = None
        self.since: Any = None
        self.deaf = False

    def start(self, part: str, device: torch.device) -> None:
        """Forgets what was, and counts from here on all time to one part or another."""
        self.device, self.seconds, self.spans = device, {}, []
        self.running, self.since = part, self._mark()

    def turn_to(self, part: str | None) -> None:
        """Ends the part that runs and begins another."""
        if self.deaf:
            return
        mark = self._mark()
        if self.running is not None and self.device.type == "cuda":
            self.spans.append((self.running, self.since, mark))
        elif self.running is not None:
            self._add(self.running, mark - self.since)
        self.running, self.since = part, mark

    @contextlib.contextmanager
    def part(self, name: str, device: torch.device, *, whole: bool = False) -> Iterator[None]:
        """Counts what is done inside to ``name``.

        Args:
            name: Of the part.
            device: That does it.
            whole: Parts inside it count to it too.
        """
        if self.running is None:
            self.device = device
        before, deaf = self.running, self.deaf
        self.turn_to(name)
        self.deaf = deaf or whole
        yield
        self.deaf = deaf
        self.turn_to(before)

    def take(self) -> dict[str, float]:
        """Seconds of each part since the last call; on a GPU it waits for what was marked."""
        self.turn_to(self.running)
        if self.spans:
            self.spans[-1][2].synchronize()
        for name, begin, end in self.spans:
            self._add(name, begin.elapsed_time(end) / 1e3)
        taken, self.seconds, self.spans = self.seconds, {}, []
        return taken

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
