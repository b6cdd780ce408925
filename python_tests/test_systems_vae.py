"""The convolutional VAE: sizes, its loss against torch's own, runs from a store to fine-tuning."""

from __future__ import annotations

import csv
import doctest

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributions import Normal, kl_divergence

from ecgfast.cli import main
from ecgfast.config import Encoder, Fit, Optim
from ecgfast.config.vae import Config
from ecgfast.methods.vae import VAE
from ecgfast.models import conv_vae
from ecgfast.models.conv_vae import ConvVAE, Decoder, Latent
from ecgfast.systems.model import load


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_has_as_many_parameters_as_its_docstring_says():
    convolutions = 7 * (12 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * (64 + 64 + 128 + 128)
    assert parameters(ConvVAE()) == convolutions + (128 * 38 + 1) * 128 == 829_568
    assert "829,568" in ConvVAE.__doc__


@pytest.mark.parametrize("samples", [16, 17, 500, 608])
def test_lengths_come_back_as_they_were(samples):
    encoder = ConvVAE(3, 5, samples=samples, width=4)
    latent, decoder = Latent(encoder), Decoder(3, 5, samples=samples, width=4)
    ecg = torch.randn(2, 3, samples)
    assert encoder(ecg).shape == latent(encoder.features(ecg)).shape == (2, 5)
    assert decoder(encoder(ecg)).shape == ecg.shape
    assert sum(map(parameters, encoder.stages())) == parameters(encoder)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="16 or more, got 15"):
        ConvVAE(samples=15)
    with pytest.raises(ValueError, match="must be positive"):
        ConvVAE(0)
    with pytest.raises(ValueError, match=r"must be \(N, 2, 32\), got \(4, 2, 33\)"):
        ConvVAE(2, samples=32, width=4)(torch.zeros(4, 2, 33))
    with pytest.raises(ValueError, match="must be conv_vae, got resnet18"):
        Config(encoder=Encoder())
    with pytest.raises(ValueError, match="must not be negative"):
        Config(beta=-1.0)
    with pytest.raises(ValueError, match="micro_batch"):
        Config(fit=Fit(micro_batch=4))


def test_loss_has_torchs_own_parts_and_leaves_out_what_is_missing():
    torch.manual_seed(0)
    ecg, made = torch.randn(3, 2, 50).double(), torch.randn(3, 2, 50).double()
    mean, log_variance = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    seen = torch.ones(3, 2, 50, dtype=torch.bool)
    error, divergence = VAE.parts(ecg, made, seen, mean, log_variance)
    torch.testing.assert_close(error.double(), nn.functional.mse_loss(made, ecg), rtol=1e-6, atol=0)
    each = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(divergence.double(), each.mean(), rtol=1e-5, atol=0)
    seen[0] = False
    seen[1, 0, 10:] = False
    error, divergence = VAE.parts(ecg, made, seen, mean, log_variance)
    expected = (made - ecg)[seen].square().mean()
    torch.testing.assert_close(error.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(divergence.double(), each[1:].mean(), rtol=1e-5, atol=0)
    none = VAE.parts(ecg, made, torch.zeros_like(seen), mean, log_variance)
    assert [float(x) for x in none] == [0, 0]


def test_learns_signals_of_two_numbers_and_uses_few_variables():
    """Sines of a drawn phase lie on a plane: a VAE needs about two active variables of eight."""
    torch.manual_seed(0)
    t = torch.linspace(0, 6.28, 64)
    angle = 6.28 * torch.rand(256, 1, 1)
    ecg = torch.cat([torch.sin(t + angle), torch.cos(t + angle)], dim=1)
    encoder = ConvVAE(2, 8, samples=64, width=8)
    method = VAE(
        encoder, Latent(encoder), Decoder(2, 8, samples=64, width=8),
        beta=0.02, beta_steps=0, optim=Optim(),
    )  # fmt: skip
    logged = {}
    method.log_dict = logged.update
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(250):
        loss = method.training_step({"ecg": ecg}, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logged["reconstruction"] < 0.1 * ecg.square().mean()
    assert 2 <= logged["active"] <= 5
    assert method.embedded.shape == (256, 8)


def test_a_run_resumes_warms_up_and_is_fine_tuned(tmp_path, capsys):
    words = ["pretrain", "vae", "--config", "debug", "--optim.schedule", "constant"]
    words += ["--beta_steps", "4", "--beta", "0.5"]
    main([*words, "--fit.out", str(tmp_path / "whole")])
    main([*words, "--fit.out", str(tmp_path / "cut"), "--fit.steps", "2"])
    main([*words, "--fit.out", str(tmp_path / "cut")])
    name = "encoder.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["beta"]) for row in rows] == [0.125, 0.25, 0.375, 0.5]
    for column in ("loss", "reconstruction", "divergence", "active", "embedding_std"):
        assert np.isfinite([float(row[column]) for row in rows]).all(), column
    first = rows[0]
    total = float(first["reconstruction"]) + 0.125 * float(first["divergence"])
    assert float(first["loss"]) == pytest.approx(total, rel=1e-5)
    held = load_file(tmp_path / "whole" / name)
    assert not [key for key in held if "latent" in key or "decoder" in key]

    tune = ["finetune", "--init", str(tmp_path / "whole"), "--data.patients", "40"]
    tune += ["--fit.steps", "2", "--fit.batch_size", "8", "--fit.progress", "false"]
    main([*tune, "--layer_decay", "0.9", "--fit.out", str(tmp_path / "tuned")])
    said = capsys.readouterr().out
    assert f"{len(held)} of {len(held)} weights matched, 0 missing, 0 unexpected" in said
    model = load(tmp_path / "tuned")
    assert model.contract.model["class"] == "ConvVAE"
    assert model.contract.model["arguments"]["samples"] == 500
    assert model.embed(torch.randn(2, 12, 500)).shape == (2, 16)


def test_examples_run():
    assert doctest.testmod(conv_vae).failed == 0
