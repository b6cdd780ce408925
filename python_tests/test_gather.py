"""Two ranks have the gradient of one process on the whole batch."""

from __future__ import annotations

import torch

from ecgfast.ops import gather, places
from python_tests.ranks import load, two_ranks


def test_two_ranks_have_the_gradient_of_one(tmp_path):
    script = load("two_ranks")
    network = script.model().double()
    rows = network(script.batch())
    loss = script.loss(rows, rows, torch.arange(16))
    loss.backward()
    for found in two_ranks("two_ranks", tmp_path):
        torch.testing.assert_close(found["loss"], loss.detach())
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(found["gradients"][name], parameter.grad)


def test_without_ranks_it_is_the_identity():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert places(3).tolist() == [0, 1, 2]
