"""soft_dtw against tslearn, if installed, and plain torch: ``pytest bench/bench_soft_dtw.py``.

tslearn takes float64; its ``SoftDTWLossPyTorch`` is the loss with a gradient. The reference is
plain torch in float64, along diagonals of all pairs at once.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from ecgfast.ops.soft_dtw import soft_dtw, soft_dtw_reference
from ecgfast.testing import make_ecg

# (N, L, T): what everyone can run; a batch at 25 Hz; records of 10 s at 100 and at 250 Hz
SHAPES = [(4, 12, 64), (16, 12, 250), (4, 12, 1000), (2, 12, 2500)]
GAMMA = 10.0
MOST_CELLS = 3e6  # of the reference, which holds a dozen numbers a cell
LOSS_CELLS = 5e6  # of tslearn's loss, a loop over samples


def tslearn_form(x):
    metrics = pytest.importorskip("tslearn.metrics", reason="tslearn is not installed")
    series = np.ascontiguousarray(x.mT.double().numpy())
    return functools.partial(metrics.cdist_soft_dtw, series, gamma=GAMMA)


def reference_form(x):
    if len(x) ** 2 * x.shape[-1] ** 2 > MOST_CELLS:
        pytest.skip("plain torch takes minutes and gigabytes")
    return functools.partial(soft_dtw_reference, x, gamma=GAMMA)


ALL_PAIRS = {
    "ecgfast": lambda x: functools.partial(soft_dtw, x, gamma=GAMMA),
    "tslearn": tslearn_form,
    "reference": reference_form,
}


def ecgfast_loss(x, y):
    return soft_dtw(x, y, GAMMA, pairs="aligned").sum()


def tslearn_loss(x, y):
    metrics = pytest.importorskip("tslearn.metrics", reason="tslearn is not installed")
    if len(x) * x.shape[-1] ** 2 > LOSS_CELLS:
        pytest.skip("SoftDTWLossPyTorch takes minutes")
    return metrics.SoftDTWLossPyTorch(gamma=GAMMA)(x.mT, y.mT).sum()


def reference_loss(x, y):
    if len(x) * x.shape[-1] ** 2 > MOST_CELLS:
        pytest.skip("plain torch takes minutes and gigabytes")
    return soft_dtw_reference(x, y, GAMMA, pairs="aligned").sum()


LOSSES = {"ecgfast": ecgfast_loss, "tslearn": tslearn_loss, "reference": reference_loss}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ALL_PAIRS)
def bench_all_pairs(measure, device, provider, shape):
    if provider == "tslearn" and device.type != "cpu":
        pytest.skip("cdist_soft_dtw runs on the CPU")
    records, leads, samples = shape
    x = make_ecg(*shape, device=device)
    measure(
        ALL_PAIRS[provider](x),
        least_bytes=x.nbytes + 4 * records**2,
        # a multiply-add a lead, and of two exp2 and a log2 the polynomials
        least_flops=2 * (leads + 20) * records * (records + 1) // 2 * samples**2,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", LOSSES)
def bench_loss_with_its_gradient(measure, device, provider, shape):
    records, leads, samples = shape
    x, y = (make_ecg(*shape, device=device, seed=seed) for seed in (1, 2))
    x.requires_grad_()

    def step():
        return torch.autograd.grad(LOSSES[provider](x, y), x)

    measure(
        step,
        least_bytes=4 * x.nbytes,
        # forward, its repetition with a third exp2, and three multiply-adds a lead
        least_flops=2 * (2 * leads + 46 + 3 * leads) * records * samples**2,
    )
