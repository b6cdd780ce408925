"""CPU seconds of views of clips on one thread, whatever else the machine does.

    OMP_NUM_THREADS=1 python bench/clip_seconds.py

The providers of bench_clip_transform.py on (64, 1, 16, 112, 112), float32: the best of 12 calls.
"""

from __future__ import annotations

import time

import conftest
import torch
from bench_clip_transform import PROVIDERS, SHAPES, SPECS

assert conftest.ROWS == []  # what is loaded keeps freed memory, as the benches do

CALLS = 12


def best(provider: str, clips: torch.Tensor, name: str) -> float:
    """Seconds of this thread's CPU; the first call warms up."""
    taken = []
    for _call in range(1 + CALLS):
        begun = time.thread_time()
        PROVIDERS[provider](clips, name, torch.float32)
        taken.append(time.thread_time() - begun)
    return min(taken[1:])


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    clips = torch.randint(0, 256, SHAPES[0], dtype=torch.uint8)
    print("| ms of CPU | " + " | ".join(PROVIDERS) + " |\n|---|" + "---|" * len(PROVIDERS))
    for name in SPECS:
        taken = [best(provider, clips, name) for provider in PROVIDERS]
        cells = [f"{1e3 * taken[0]:.1f}"]
        cells += [f"{1e3 * each:.0f} ({each / taken[0]:.1f} x)" for each in taken[1:]]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
