"""The numbers of csrc/core/philox.h in numpy and float64: slow, obvious, the truth for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Array = NDArray[np.float64]


def philox_reference(counter: Words, key: Words) -> Words:
    """Philox4x32-10 (Salmon et al., SC11): ``(..., 4)`` and ``(2,)`` words to ``(..., 4)``."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & low
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def uniform_reference(words: Words) -> Array:
    """Uniform in (0, 1) of the upper 24 bits."""
    return ((words >> np.uint64(8)).astype(np.float64) + 0.5) * 2.0**-24


def normals_reference(words: Words) -> Array:
    """Four standard normals of four words, by Box and Muller, ``(..., 4)``."""
    radius = np.sqrt(-2.0 * np.log(uniform_reference(words[..., 0::2])))
    angle = words[..., 1::2].astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(words.shape)
