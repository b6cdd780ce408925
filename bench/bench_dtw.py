"""dtw against dtaidistance, tslearn and aeon, if installed: ``pytest bench/bench_dtw.py``.

Peers take and give float64 and the CPU's threads; only the reference loop is always there.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from ecgfast.ops.dtw import dtw, dtw_reference
from ecgfast.testing import make_ecg

# (N, L, T): what everyone can run; a batch at 25, at 100 Hz; few long records
SHAPES = [(4, 12, 64), (64, 12, 250), (64, 12, 1000), (6, 12, 2500)]
ON_A_GPU = [(64, 12, 2500), (256, 12, 1000)]  # seconds on a CPU
RADII = [None, 0.1]
MOST_CELLS = 1e6  # of the reference


def dtaidistance_form(x, radius):
    dtw_ndim = pytest.importorskip("dtaidistance.dtw_ndim", reason="dtaidistance is not installed")
    series = np.ascontiguousarray(x.mT.double().numpy())
    window = None if radius is None else int(radius * x.shape[-1]) + 1
    return lambda: dtw_ndim.distance_matrix_fast(series, ndim=x.shape[1], window=window)


def tslearn_form(x, radius):
    metrics = pytest.importorskip("tslearn.metrics", reason="tslearn is not installed")
    series = np.ascontiguousarray(x.mT.double().numpy())
    band = {}
    if radius is not None:
        reach = int(radius * x.shape[-1])
        band = {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": reach}
    return lambda: metrics.cdist_dtw(series, n_jobs=torch.get_num_threads(), **band)


def aeon_form(x, radius):
    distances = pytest.importorskip("aeon.distances", reason="aeon is not installed")
    series = x.double().numpy()
    jobs = torch.get_num_threads()
    return lambda: distances.dtw_pairwise_distance(series, window=radius, n_jobs=jobs)


def reference_form(x, radius):
    if len(x) ** 2 * x.shape[-1] ** 2 > MOST_CELLS:
        pytest.skip("a loop in Python takes minutes")
    return functools.partial(dtw_reference, x, radius=radius)


PROVIDERS = {
    "ecgfast": lambda x, radius: functools.partial(dtw, x, radius=radius),
    "ecgfast fast": lambda x, radius: functools.partial(dtw, x, radius=radius, precision="fast"),
    "dtaidistance": dtaidistance_form,
    "tslearn": tslearn_form,
    "aeon": aeon_form,
    "reference": reference_form,
}


def cells(samples, radius):
    """Of one pair."""
    reach = samples if radius is None else int(radius * samples)
    rows = np.arange(samples)
    return int((np.minimum(rows + reach, samples - 1) - np.maximum(rows - reach, 0) + 1).sum())


@pytest.mark.parametrize("shape", SHAPES + ON_A_GPU, ids=str)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_all_pairs(measure, device, provider, radius, shape):
    if provider in ("dtaidistance", "tslearn", "aeon") and device.type != "cpu":
        pytest.skip(f"{provider} runs on the CPU")
    if shape in ON_A_GPU and device.type == "cpu":
        pytest.skip("takes seconds on a CPU")
    records, leads, samples = shape
    x = make_ecg(*shape, device=device)
    function = PROVIDERS[provider](x, radius)
    pairs = records * (records - 1) // 2
    measure(
        function,
        least_bytes=x.nbytes + 4 * records**2,
        # a multiply-add a lead: some processors subtract and compare beside it
        least_flops=2 * leads * pairs * cells(samples, radius),
    )
