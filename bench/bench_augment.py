"""augment, fused against a plain torch chain: ``pytest bench/bench_augment.py``."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ecgfast.ops.augment import AugmentSpec, augment
from ecgfast.testing import make_ecg

SHAPES = [(1, 12, 5000), (64, 12, 5000), (256, 12, 5000)]  # (N, L, T)
SPECS = {
    "noise": AugmentSpec(noise_mv=(0.0, 0.1)),
    "warp": AugmentSpec(warp_strength=0.2),
    "chain": AugmentSpec(
        fs=500,
        warp_strength=0.2,
        gain=(0.5, 2.0),
        wander_mv=(0.0, 0.5),
        mains_mv=(0.0, 0.1),
        noise_mv=(0.0, 0.1),
        mask_count=(1, 1),
        lead_dropout_p=0.1,
    ),
}


def uniform(x: Tensor, ends: tuple[float, float], *more: int) -> Tensor:
    """One draw a record, in the range."""
    return ends[0] + (ends[1] - ends[0]) * torch.rand(len(x), 1, 1, *more, device=x.device)


def chain(x: Tensor, spec: AugmentSpec) -> Tensor:
    """The steps that the specs above switch on, one torch operation after the other."""
    n, leads, samples = x.shape
    t = torch.arange(samples, device=x.device)
    turns = 2 * math.pi * t / (spec.fs or 1.0)
    if spec.warp_strength:
        speeds = 1 + spec.warp_strength * (2 * torch.rand(n, spec.warp_knots + 1) - 1).to(x.device)
        speeds = speeds.repeat_interleave(-(-samples // (spec.warp_knots + 1)), dim=1)[:, :samples]
        at = speeds.cumsum(1) - speeds[:, :1]
        at = at * ((samples - 1) / at[:, -1:])
        here = at.long().clamp(max=samples - 2)
        share = (at - here)[:, None]
        index = here[:, None].expand(-1, leads, -1)
        x = torch.lerp(x.gather(2, index), x.gather(2, index + 1), share)
    if spec.gain != (1.0, 1.0):
        x = x * torch.exp(uniform(x, (math.log(spec.gain[0]), math.log(spec.gain[1]))))
    if spec.wander_mv[1]:
        sines = torch.sin(turns * uniform(x, spec.wander_hz, 3).mT + 7 * torch.rand(3, 1))
        x = x + uniform(x, spec.wander_mv) * sines.mean(dim=-2)
    if spec.mains_mv[1]:
        mains = torch.sin(turns * spec.mains_hz + 2 * math.pi * uniform(x, (0, 1)))
        x = x + uniform(x, spec.mains_mv) * mains
    if spec.noise_mv[1]:
        x = x + uniform(x, spec.noise_mv) * torch.randn_like(x)
    if spec.mask_count[1]:
        begin = uniform(x, (0, samples - 250))
        x = x.masked_fill((t >= begin) & (t < begin + 250), 0.0)
    if spec.lead_dropout_p:
        x = x * (torch.rand(n, leads, 1, device=x.device) >= spec.lead_dropout_p)
    return x


PROVIDERS = {"ecgfast": augment, "torch": chain}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_augment(measure, device, shape, name, provider):
    ecg = make_ecg(*shape, device=device)
    function = PROVIDERS[provider]
    measure(lambda x: function(x, SPECS[name]), ecg, least_bytes=2 * ecg.nbytes)  # x, y
