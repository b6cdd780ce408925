"""One of two ranks: loss and gradient of a method that compares views."""

from __future__ import annotations

import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.methods.cmsc import CMSC
from ecgfast.methods.pclr import PCLR
from ecgfast.methods.simclr import SimCLR
from ecgfast.methods.vicreg import VICReg
from ecgfast.ops import gather


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Conv1d(2, 6, 5)

    def forward(self, ecg):
        return self.map(ecg).tanh().mean(dim=-1)


def make(name):
    """A method that draws nothing and has no batch norm, so that ranks and one process agree."""
    torch.manual_seed(0)
    parts = (Encoder(), nn.Linear(6, 4), nn.Identity())
    if name == "vicreg":
        method = VICReg(*parts, VICRegLoss(gather=True), optim=Optim())
    elif name == "simclr":
        words = {"temperature": 0.2, "mask_patients": True, "gather": True}
        method = SimCLR(*parts, **words, optim=Optim())
    elif name == "cmsc":
        words = {"temperature": 0.2, "by_patient": True, "mask_patients": False, "gather": True}
        method = CMSC(*parts, **words, optim=Optim())
    else:
        method = PCLR(*parts, temperature=0.2, gather=True, optim=Optim())
    method.log_dict = lambda numbers, **_: None
    return method.double()


def shares(name):
    """The batches of both ranks; patients of SimCLR and CMSC are on both, those of PCLR on one."""
    ecg = torch.randn(8, 2, 30, generator=torch.Generator().manual_seed(1)).double()
    ecg += torch.arange(8)[:, None, None] / 4
    patient = torch.tensor([1, 2, 1, 2, 3, 4, 3, 4] if name == "pclr" else [1, 1, 2, 3, 1, 4, 2, 5])
    whole = {"ecg": ecg, "index": torch.arange(8), "patient": patient}
    return [
        {key: value[rank * 4 : rank * 4 + 4] for key, value in whole.items()} for rank in (0, 1)
    ]


def whole(name):
    """The method, and both batches in one; anchors of all pairs first."""
    both = shares(name)
    order = [0, 1, 4, 5, 2, 3, 6, 7] if name == "pclr" else list(range(8))
    return make(name), {k: torch.cat([share[k] for share in both])[order] for k in both[0]}


def run(rank):
    found = {}
    for name in ("simclr", "cmsc", "pclr", "vicreg"):
        method = make(name)
        loss = method.training_step(shares(name)[rank], 0)
        loss.backward()
        losses = gather(loss.detach()[None])
        for parameter in method.parameters():  # as DistributedDataParallel does
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= 2
        gradients = {key: parameter.grad for key, parameter in method.named_parameters()}
        found[name] = {"gradients": gradients, "loss": losses.mean()}
    return found
