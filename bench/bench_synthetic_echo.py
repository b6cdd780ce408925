"""Making SYNTHETIC echo videos: ``pytest bench/bench_synthetic_echo.py``.

The floor is a clone of the pixels that are made: there is no other library to compare with. A call
makes 12 patients, 67 videos; as many threads work as torch is set to.
"""

from __future__ import annotations

import pytest
import torch

from ecgfast.data.synthetic_echo import make_echo_cohort

PATIENTS = 12
SHAPES = {"16x112x112": (16, 112), "16x56x56": (16, 56), "32x112x112": (32, 112)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_make_echo_cohort(measure, device, provider, shape):
    if device.type != "cpu":
        pytest.skip("the cohort is made on the CPU")
    frames, size = SHAPES[shape]
    videos = torch.from_numpy(make_echo_cohort(PATIENTS, size=size, frames=frames)[0])

    def make(_videos):
        return make_echo_cohort(PATIENTS, size=size, frames=frames)

    measure(make, videos, least_bytes=videos.nbytes)
