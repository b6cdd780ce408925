"""What a step of the 3-D ResNet takes on this machine's CPU: ``python bench/clip_encoder.py``."""

from __future__ import annotations

import time

import torch

from ecgfast.models.clip_encoder import ClipEncoder

CASES = [(4, 64, 112), (32, 16, 56)]  # clips of four frames, width, pixels a side
TIMES = 5


def seconds(count: int, width: int, size: int, *, half: bool, last: bool) -> float:
    """Of the best of some steps, forward and backward."""
    encoder = ClipEncoder(width=width, size=size)
    clips = torch.rand(count, 1, 4, size, size)
    if last:
        encoder = encoder.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    taken = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            embeddings = encoder(clips)
        embeddings.float().square().mean().backward()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, clips/s")
    print("| network | float32 | bfloat16 | float32, channels last | bfloat16, channels last |")
    print("|---|---|---|---|---|")
    for count, width, size in CASES:
        speeds = [
            count / seconds(count, width, size, half=half, last=last)
            for last in (False, True)
            for half in (False, True)
        ]
        print(
            f"| width {width}, {size} pixels | {' | '.join(f'{speed:.1f}' for speed in speeds)} |"
        )
