"""TripletLoss: hands its hyper-parameters to the op, and takes what a miner gives."""

from __future__ import annotations

import pytest
import torch

from ecgfast.losses.triplet import TripletLoss
from ecgfast.ops import triplet_loss


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_op_with_its_numbers(reduction):
    embeddings = torch.randn(6, 4, requires_grad=True)
    rows = torch.randint(6, (3, 9))
    valid = torch.arange(9) % 2 == 0
    loss = TripletLoss(margin=0.7, reduction=reduction)(embeddings, *rows, valid)
    expected = triplet_loss(embeddings, *rows, valid=valid, margin=0.7, reduction=reduction)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    moved, wanted = (torch.autograd.grad(x.sum(), embeddings)[0] for x in (loss, expected))
    torch.testing.assert_close(moved, wanted, rtol=0, atol=0)


def test_the_published_numbers_are_the_default():
    embeddings = torch.tensor([[0.0], [1.0], [2.0]])
    rows = torch.tensor([[0, 0], [1, 2], [2, 1]])
    assert TripletLoss()(embeddings, *rows).item() == pytest.approx((0 + (4 - 1 + 0.2)) / 2)


def test_shows_its_numbers_and_has_no_parameters():
    loss = TripletLoss(margin=0.5)
    assert repr(loss) == "TripletLoss(margin=0.5, reduction='mean')"
    assert not list(loss.parameters())
    assert not loss.state_dict()
