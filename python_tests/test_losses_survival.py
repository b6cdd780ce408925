"""The Cox loss as a module: rows that nobody knows, and the rows of all ranks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch

from ecgfast.losses import CoxLoss
from ecgfast.ops import cox_loss

SCRIPT = Path(__file__).with_name("two_ranks_cox.py")


def test_a_row_without_a_time_takes_no_part():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20, generator=draw, dtype=torch.float64, requires_grad=True)
    time = torch.randint(1, 6, (20,), generator=draw).double()
    event = torch.rand(20, generator=draw) < 0.5
    known = torch.ones(20, dtype=torch.bool)
    known[[2, 5, 19]] = False
    loss = CoxLoss()(x, time.masked_fill(~known, torch.nan), event)
    torch.testing.assert_close(loss, cox_loss(x[known], time[known], event[known]))
    (gradient,) = torch.autograd.grad(loss, x)
    assert not gradient[~known].any()
    assert gradient[known].any()
    alone = CoxLoss()(x, torch.full((20,), torch.nan), event)
    assert alone == 0
    assert not torch.autograd.grad(alone, x)[0].any()


def test_two_ranks_have_the_gradient_of_one(tmp_path):
    words = [sys.executable, "-P", str(SCRIPT), str(tmp_path / "store"), str(tmp_path / "out.pt")]
    processes = [
        subprocess.Popen(words, env={**os.environ, "RANK": rank, "OMP_NUM_THREADS": "1"})
        for rank in "01"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = torch.load(tmp_path / "out.pt", weights_only=True)

    spec = importlib.util.spec_from_file_location("two_ranks_cox", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    network, (x, time, event) = script.model(), script.batch()
    known = ~time.isnan()
    loss = cox_loss(network(x[known])[:, 0], time[known], event[known])
    loss.backward()
    torch.testing.assert_close(found["losses"], loss.detach().expand(2), rtol=1e-10, atol=0)
    largest = max(parameter.grad.abs().max() for parameter in network.parameters())
    for name, parameter in network.named_parameters():
        assert (found["gradients"][name] - parameter.grad).abs().max() <= 1e-10 * largest
