"""How long parts of a step take, on the device that does them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class Clock:
    """Adds up the time of named parts of a method's steps.

    On the CPU a part is done when its code is. On a GPU it is marked by two events in the stream of
    its launches, which are read only when the times are asked for: no step waits for the device.

    Example:
        >>> clock = Clock()
        >>> with clock.part("mining", torch.device("cpu")):
        ...     nearest = torch.rand(64, 64).argmin(dim=1)
        >>> list(clock.take())
        ['mining']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def part(self, name: str, device: torch.device) -> Iterator[None]:
        """Counts what is done inside to ``name``."""
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            yield
            end.record(stream)
            self.marks.append((name, begin, end))
            return
        begun = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - begun)

    def take(self) -> dict[str, float]:
        """Seconds of each part since the last call; on a GPU it waits for what was marked."""
        for name, begin, end in self.marks:
            end.synchronize()
            self._add(name, begin.elapsed_time(end) / 1e3)
        taken, self.seconds, self.marks = self.seconds, {}, []
        return taken

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
