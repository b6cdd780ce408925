"""One of two ranks: loss and gradient of EchoCLR."""

from __future__ import annotations

import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.methods.echoclr import EchoCLR
from ecgfast.ops import gather


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Conv3d(1, 6, 3)

    def forward(self, clips):
        return self.map(clips).tanh().mean(dim=(2, 3, 4))


class Views(nn.Module):
    """Draws nothing: frames in the order asked for, as doubles."""

    def forward(self, clips, order=None):
        if order is not None:
            clips = clips.gather(2, order[:, None, :, None, None].expand_as(clips))
        return clips.double() / 255


class Orders(nn.Module):
    """The same order for the same clip, on whatever rank: each has a code of its own."""

    codes = torch.tensor([3, 0, 5, 1])
    orders = torch.tensor([[1, 2, 0], [0, 1, 2], [2, 1, 0], [0, 2, 1]])

    def forward(self, clips):
        return self.orders.repeat(clips // 4, 1), self.codes.repeat(clips // 4)


def make():
    torch.manual_seed(0)
    method = EchoCLR(
        Encoder(),
        nn.Linear(6, 4),
        Views(),
        orders=Orders(),
        order_head=nn.Linear(6, 6),
        order=0.7,
        mask="patient",
        temperature=0.2,
        gather=True,
        optim=Optim(),
    )
    method.log_dict = lambda numbers, **_: None
    return method.double()


def shares():
    """The batches of both ranks: two pairs each; one patient is on both, some clips are short."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (8, 1, 3, 6, 6), generator=generator, dtype=torch.uint8)
    clips[[0, 1, 6], :, 2] = 0  # two on the first rank, one on the second
    whole = {
        "ecg": clips,
        "index": torch.tensor([0, 4, 1, 5, 8, 12, 9, 13]),
        "patient": torch.tensor([1, 2, 1, 2, 1, 3, 1, 3]),
    }
    return [
        {key: value[rank * 4 : rank * 4 + 4] for key, value in whole.items()} for rank in (0, 1)
    ]


def whole():
    """The method, and both batches in one, anchors of all pairs first; orders move along."""
    both = shares()
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    batch = {key: torch.cat([share[key] for share in both])[order] for key in both[0]}
    method = make()
    drawn = method.orders(8)
    method.orders.forward = lambda clips: tuple(part[order] for part in drawn)
    return method, batch


def run(rank):
    method = make()
    loss = method.training_step(shares()[rank], 0)
    loss.backward()
    losses = gather(loss.detach()[None])
    for parameter in method.parameters():  # as DistributedDataParallel does
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    gradients = {key: parameter.grad for key, parameter in method.named_parameters()}
    return {"gradients": gradients, "loss": losses.mean()}
