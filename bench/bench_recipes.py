"""Whole recipes against the same by scipy, and neurokit2's: ``pytest bench/bench_recipes.py``.

scipy and neurokit2 work on one thread, as their users run them.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
import torch

from ecgfast.testing import make_ecg
from ecgfast.transforms.recipes import RECIPES, Recipe, preprocess

SHAPE = (256, 12, 5000)  # (N, L, T)
FS = 500.0
GAIN = 0.001  # mV a code


def recipe_of(name: str) -> Recipe:
    recipe = RECIPES[name]
    return recipe if recipe.unscaled() == recipe else recipe.scaled(0.0, 0.2)


def by_scipy(x, *, recipe):
    return recipe.reference(x.numpy() * (GAIN if x.dtype == torch.int16 else 1.0), FS)


def by_neurokit(x):
    """Its filters alone, a lead at a time, as it has them; nothing is resampled or scaled."""
    import neurokit2

    rows = x.numpy().reshape(-1, x.shape[-1]).astype(np.float64)
    return np.stack([neurokit2.ecg_clean(row, sampling_rate=500) for row in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16], ids=str)
@pytest.mark.parametrize("name", ["default", "neurokit", "pclr", "ptbxl_benchmark", "ssldml"])
@pytest.mark.parametrize("provider", ["ecgfast", "scipy", "neurokit2"])
def bench_recipe(measure, device, provider, name, dtype):
    if provider != "ecgfast" and device.type != "cpu":
        pytest.skip(f"{provider} runs on the CPU")
    x = make_ecg(*SHAPE, device=device)
    if dtype == torch.int16:
        x = (x / GAIN).round().to(torch.int16)
    recipe = recipe_of(name)
    if provider == "ecgfast":
        gain = GAIN if dtype == torch.int16 else None
        form = functools.partial(preprocess, gain=gain, recipe=recipe, fs=FS)
    elif provider == "scipy":
        form = functools.partial(by_scipy, recipe=recipe)
    elif name not in ("default", "neurokit") or dtype != torch.float32:
        pytest.skip("neurokit2 has one chain, of floats")
    elif importlib.util.find_spec("neurokit2") is None:
        pytest.skip("neurokit2 is not installed")
    else:
        form = by_neurokit
    _, samples = recipe.result(FS, SHAPE[-1])
    least = x.nbytes + 4 * x.shape[0] * x.shape[1] * samples
    measure(form, x, least_bytes=least)
