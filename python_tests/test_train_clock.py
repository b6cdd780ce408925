"""Clock: parts add up, on the CPU by the wall, on a GPU by its events."""

from __future__ import annotations

import doctest
import time

import pytest
import torch

from ecgfast.train import clock as module
from ecgfast.train.clock import Clock


def test_parts_add_up_and_start_anew():
    clock, cpu = Clock(), torch.device("cpu")
    for _ in range(2):
        with clock.part("a", cpu):
            time.sleep(0.02)
        with clock.part("b", cpu):
            pass
    taken = clock.take()
    assert list(taken) == ["a", "b"]
    assert 0.04 <= taken["a"] < 2
    assert taken["b"] < 0.02
    assert clock.take() == {}


@pytest.mark.cuda
def test_a_gpu_is_timed_where_it_works():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    clock, device = Clock(), torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    begun = time.perf_counter()
    with clock.part("matmul", device):
        for _ in range(10):
            a @ a
    queued = time.perf_counter() - begun
    seconds = clock.take()["matmul"]
    assert seconds > 0
    assert seconds < time.perf_counter() - begun
    assert queued < seconds + 1


def test_example_runs():
    assert doctest.testmod(module).failed == 0
