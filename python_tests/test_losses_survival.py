"""The Cox loss as a module: rows that nobody knows, and the rows of all ranks."""

from __future__ import annotations

import torch

from ecgfast.losses import CoxLoss
from ecgfast.ops import cox_loss
from python_tests.ranks import load, two_ranks


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
    script = load("two_ranks_cox")
    network, (x, time, event) = script.model(), script.batch()
    known = ~time.isnan()
    loss = cox_loss(network(x[known])[:, 0], time[known], event[known])
    loss.backward()
    largest = max(parameter.grad.abs().max() for parameter in network.parameters())
    for found in two_ranks("two_ranks_cox", tmp_path):
        torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-10, atol=0)
        for name, parameter in network.named_parameters():
            assert (found["gradients"][name] - parameter.grad).abs().max() <= 1e-10 * largest
