"""preprocess against scipy's chain and neurokit2: ``pytest bench/bench_preprocess.py``."""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
import torch
from scipy import signal

from ecgfast.ops.preprocess import Filter, Normalise, Resample, preprocess
from ecgfast.testing import make_ecg

SHAPES = [(1, 12, 5000), (256, 12, 5000)]  # (N, L, T), 500 Hz
BAND = signal.butter(4, [0.5, 40], "band", fs=250, output="sos")
NOTCH = signal.tf2sos(*signal.iirnotch(50, 30, fs=250))
FILTERED = (Resample(1, 2), Filter(BAND), Filter(NOTCH))
CHAINS = {
    "lead": (*FILTERED, Normalise("zscore")),
    "record": (*FILTERED, Normalise("zscore", "record")),
    "fixed": (*FILTERED, Normalise("fixed", mean=0.0, std=0.2)),
}
GAIN = 0.001  # mV a code


def least_flops(x):
    """Of 41 taps for each of T / 2 outputs, and five sections both ways over these.

    A section takes 3 multiply-adds in float64 on the CPU, each in the place of two in float32, in
    which speed is told; 8 in float32 on CUDA, where chunks are joined.
    """
    section = 3 * 2 * 2 if x.device.type == "cpu" else 8 * 2
    return (2 * 41 + 2 * 5 * section) * x.numel() // 2


def scipy_chain(x, *, over, dtype):
    x = x.numpy().astype(dtype)  # codes as well, as their gain would make of them
    y = signal.resample_poly(x, 1, 2, axis=-1)
    y = signal.sosfiltfilt(NOTCH, signal.sosfiltfilt(BAND, y))
    if over is None:
        return y / 0.2
    return (y - y.mean(over, keepdims=True)) / y.std(over, keepdims=True)


def neurokit(x):
    """Its filters alone, a lead at a time, as it has them."""
    import neurokit2

    rows = x.numpy().reshape(-1, x.shape[-1]).astype(np.float64)
    return np.stack([neurokit2.ecg_clean(row, sampling_rate=500) for row in rows])


OVER = {"lead": (2,), "record": (1, 2), "fixed": None}


def provider_of(name, chain, dtype):
    if name == "ecgfast":
        gain = GAIN if dtype == torch.int16 else None
        return functools.partial(preprocess, steps=CHAINS[chain], gain=gain)
    if name == "neurokit2":
        if importlib.util.find_spec("neurokit2") is None:
            pytest.skip("neurokit2 is not installed")
        return neurokit
    return functools.partial(scipy_chain, over=OVER[chain], dtype=name.removeprefix("scipy "))


def signals(shape, device, dtype):
    x = make_ecg(*shape, device=device)
    return (x / GAIN).round().to(torch.int16) if dtype == torch.int16 else x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16], ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "scipy float32", "scipy float64", "neurokit2"])
def bench_chain(measure, device, shape, chain, dtype, provider):
    if provider != "ecgfast" and device.type != "cpu":
        pytest.skip(f"{provider} runs on the CPU")
    if provider == "neurokit2" and (chain != "lead" or dtype != torch.float32):
        pytest.skip("one row for a peer of filters alone")
    x = signals(shape, device, dtype)
    least = x.nbytes + 4 * x.numel() // 2
    form = provider_of(provider, chain, dtype)
    measure(form, x, least_bytes=least, least_flops=least_flops(x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast"])
def bench_codes_to_bfloat16(measure, device, shape, provider):
    x = signals(shape, device, torch.int16)
    form = functools.partial(
        preprocess, steps=CHAINS["fixed"], gain=GAIN, missing=-32768, dtype=torch.bfloat16
    )
    measure(form, x, least_bytes=3 * x.nbytes // 2, least_flops=least_flops(x))
