"""Making the SYNTHETIC cohort, ECGs a second: ``pytest bench/bench_synthetic.py``.

The floor is a clone of the samples that are made: there is no other library to compare with.
"""

from __future__ import annotations

import pytest
import torch

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort

SIGNALS = {
    "12x2500": Signal(),
    "12x5000": Signal(fs=500.0),
    "12x1000": Signal(fs=100.0),
}


@pytest.mark.parametrize("shape", SIGNALS)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_make_cohort(measure, device, provider, shape):
    if device.type != "cpu":
        pytest.skip("the cohort is made on the CPU")
    signal = SIGNALS[shape]
    samples = torch.from_numpy(make_cohort(400, signal=signal)[0])  # 1,018 records

    def make(_samples):
        return make_cohort(400, signal=signal)

    measure(make, samples, least_bytes=samples.nbytes)
