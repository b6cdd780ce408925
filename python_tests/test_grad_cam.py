"""Grad-CAM: the map of a linear head is known, and the report draws it."""

from __future__ import annotations

import base64
import re

import pytest
import torch
from torch import nn

from ecgfast.cli import main
from ecgfast.models.grad_cam import grad_cam
from ecgfast.models.heads import Head
from ecgfast.models.page_encoder import PageEncoder

SIZE = 96


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return PageEncoder(net="efficientnet-b0", size=SIZE, fs=100).eval()


def pages(n=3):
    return torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8)


def test_map_of_a_linear_head_is_its_weighted_features(encoder):
    head, shown = Head(encoder.embedding_dim, hidden=0).eval(), pages()
    found = grad_cam(encoder, head, shown)
    with torch.no_grad():
        maps = encoder.features(shown)
        truth = torch.einsum("k,nkij->nij", head.out.weight[0], maps).relu()
    truth = truth / truth.amax(dim=(1, 2), keepdim=True)
    assert found.shape == (3, SIZE // 32, SIZE // 32)
    torch.testing.assert_close(found, truth)
    assert all(weight.grad is None for weight in encoder.parameters())


def test_what_raises_nothing_is_nowhere(encoder):
    head = nn.Linear(encoder.embedding_dim, 1)
    nn.init.zeros_(head.weight)
    assert (grad_cam(encoder, head, pages()) == 0).all()


def test_frozen_weights_have_maps_and_of_classes_the_largest_counts(encoder):
    head, shown = nn.Linear(encoder.embedding_dim, 3), pages()
    free = grad_cam(encoder, head, shown)
    most = head(encoder(shown)).argmax(dim=1)
    for weight in encoder.parameters():
        weight.requires_grad_(False)
    try:
        torch.testing.assert_close(grad_cam(encoder, head, shown), free)
    finally:
        for weight in encoder.parameters():
            weight.requires_grad_(True)
    for place, one in enumerate(most.tolist()):
        alone = nn.Linear(encoder.embedding_dim, 1)
        alone.load_state_dict({"weight": head.weight[one][None], "bias": head.bias[one][None]})
        torch.testing.assert_close(grad_cam(encoder, alone, shown)[place], free[place])


def test_the_report_shows_where_a_network_for_pages_looked(tmp_path, capsys):
    words = ["--data.patients", "24", "--signal.fs", "100", "--signal.seconds", "5"]
    words += ["--encoder.net", "efficientnet-b0", "--encoder.size", "64", "--fit.batch_size", "4"]
    words += ["--fit.steps", "1", "--fit.progress", "false", "--fit.micro_batch", "0"]
    main(["pretrain", "bcl", *words, "--fit.out", str(tmp_path / "bcl")])
    words = ["--init", str(tmp_path / "bcl"), "--data.patients", "24", "--label", "af"]
    words += ["--task", "classification", "--threshold", "0.5", "--hidden", "0"]
    words += ["--fit.steps", "1", "--fit.batch_size", "8", "--fit.progress", "false"]
    main(["finetune", *words, "--fit.out", str(tmp_path / "af")])
    main(["evaluate", str(tmp_path / "af")])
    main(["report", str(tmp_path / "af"), "--examples", "1"])
    page = (tmp_path / "af" / "report.html").read_text()
    shown = [base64.b64decode(code) for code in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert sum(b"what raised the score (SYNTHETIC data)" in one for one in shown) >= 1
