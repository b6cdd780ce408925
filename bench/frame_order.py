"""How far the order of four frames can be told without a network: ``python bench/frame_order.py``.

Of the 24 orders of four frames the one whose path is shortest, by squared distances of successive
frames, is the true one or its reverse in so many clips; two of 24 are 8 %.

python bench/frame_order.py [--store STORE] [--steps 1 2 3 4 6]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.clip_store import ClipStore
from ecgfast.data.synthetic_echo import make_echo_cohort
from ecgfast.transforms.frame_order import frame_orders

FRAMES, CLIPS = 4, 3  # of a clip, of a video
ORDERS = frame_orders(FRAMES).numpy()
EITHER = (0, len(ORDERS) - 1)  # as they are, or backwards


def told(clip: NDArray[np.float64]) -> bool:
    """Whether the shortest path through frames ``(F, P)`` is theirs, either way."""
    far = ((clip[:, None] - clip) ** 2).sum(axis=-1)
    return int(far[ORDERS[:, :-1], ORDERS[:, 1:]].sum(axis=1).argmin()) in EITHER


def main() -> None:
    """Prints a row a step."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--store", default="")
    words.add_argument("--patients", type=int, default=25)
    words.add_argument("--steps", type=int, nargs="*", default=[1, 2, 3, 4, 6])
    given = words.parse_args()
    if given.store:
        store = ClipStore.open(given.store)
        videos = [store.frames(n) for n in range(len(store.manifest))]
    else:
        videos = list(make_echo_cohort(given.patients, size=56, seed=0)[0])
        print(f"SYNTHETIC, {len(videos)} videos at 30 frames/s")
    draws = np.random.default_rng(0)
    for step in given.steps:
        span = (FRAMES - 1) * step + 1
        right = [
            told(video[first : first + span : step].reshape(FRAMES, -1).astype(np.float64))
            for video in videos
            if len(video) > span
            for first in draws.integers(0, len(video) - span + 1, CLIPS)
        ]
        print(
            f"step {step}: {np.mean(right):.0%} of {len(right)} clips" if right else f"step {step}"
        )


if __name__ == "__main__":
    main()
