"""SYNTHETIC videos for tests: small, quick, each frame another."""

from __future__ import annotations

import numpy as np

from ecgfast.config.clips import ClipFit
from ecgfast.data.clip_store import ClipStore, ClipWriter

FIT = ClipFit(size=16)


def video(number, frames=9, shape=FIT.shape):
    """Noise, of which frame f of video v begins with the numbers v and f."""
    made = np.random.default_rng([7, number]).integers(0, 256, (frames, *shape), dtype=np.uint8)
    made[:, :, 0, 0], made[:, :, 0, 1] = number, np.arange(frames)[:, None]
    return made


def clip_store(path, lengths, fit=FIT, *, first=0, **words):
    """A store of such videos: two a study, two studies a patient, a label by patient."""
    writer = ClipWriter(path, fit, **words)
    for n, frames in enumerate(lengths, first):
        writer.add(
            video(n, frames, fit.shape),
            record_id=f"v{n}",
            patient_id=f"p{n // 4}",
            study_id=f"s{n // 2}",
            labels={"lvh": n // 4 % 2},
            fps=50.0,
        )
    writer.close()
    return ClipStore.open(path)
