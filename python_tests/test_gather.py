"""Two ranks have the gradient of one process on the whole batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch

from ecgfast.ops import gather, places

SCRIPT = Path(__file__).parent / "two_ranks.py"


def test_two_ranks_have_the_gradient_of_one(tmp_path):
    words = [sys.executable, "-P", str(SCRIPT), str(tmp_path / "store"), str(tmp_path / "out.pt")]
    processes = [
        subprocess.Popen(words, env={**os.environ, "RANK": rank, "OMP_NUM_THREADS": "1"})
        for rank in "01"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = torch.load(tmp_path / "out.pt", weights_only=True)

    spec = importlib.util.spec_from_file_location("two_ranks", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    network = script.model().double()
    rows = network(script.batch())
    loss = script.loss(rows, rows, torch.arange(16))
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found["gradients"][name], parameter.grad)


def test_without_ranks_it_is_the_identity():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert places(3).tolist() == [0, 1, 2]
