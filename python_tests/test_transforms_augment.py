"""Augment: only while training, from torch's generator."""

from __future__ import annotations

import doctest

import torch

from ecgfast.ops.augment import AugmentSpec, augment
from ecgfast.testing import make_ecg
from ecgfast.transforms import augment as module
from ecgfast.transforms.augment import Augment

SPEC = AugmentSpec(fs=500, crop_s=1.0, noise_mv=(0.01, 0.1), lead_dropout_p=0.2)


def test_draws_from_torchs_generator_while_training():
    ecg, layer = make_ecg(4, 12, 1000), Augment(SPEC)
    torch.manual_seed(1)
    first, second = layer(ecg), layer(ecg)
    assert first.shape == (4, 12, 500)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(layer(ecg), first)
    torch.manual_seed(1)
    seed = torch.randint(2**63 - 1, (1,))
    assert torch.equal(augment(ecg, SPEC, seed), first)


def test_leaves_signals_alone_in_evaluation():
    ecg = make_ecg(4, 12, 1000)
    assert Augment(SPEC).eval()(ecg) is ecg


def test_an_id_decides_what_a_record_becomes():
    ecg = make_ecg(1, 12, 1000).expand(3, -1, -1)
    y = Augment(SPEC)(ecg, torch.tensor([5, 9, 5]))
    assert torch.equal(y[0], y[2])
    assert not torch.equal(y[0], y[1])


def test_says_what_is_on():
    assert repr(Augment(SPEC)).startswith("Augment(fs=500, crop_s=1.0, noise_mv=(0.01, 0.1)")
    assert list(Augment(SPEC).state_dict()) == []


def test_example_runs():
    assert doctest.testmod(module).failed == 0
