"""What a token sees, and attention brought back to samples."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ecgfast.models import attention_maps
from ecgfast.models.attention_maps import (
    lead_attention_of,
    painted,
    token_attention_of,
    token_fields,
)
from ecgfast.models.dual_attention import DualAttention, Maps, tokens_of
from ecgfast.testing import make_ecg

LENGTHS = [608, 600, 5000, 33, 31, 1]  # padded and real median beats, raw 10 s; borders alone


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def without_norms(samples):
    """A network in which nothing but convolutions joins samples, with no two weights alike."""
    torch.manual_seed(0)
    model = DualAttention(samples, attention="time").eval().double()
    for place in (1, 4):
        model.stem[place] = nn.Identity()
    return model


def test_examples():
    assert doctest.testmod(attention_maps).failed == 0


@pytest.mark.parametrize("samples", LENGTHS)
def test_a_token_sees_whatever_changes_it(samples):
    """Changing a window of the signal changes the tokens whose fields it touches, no others."""
    model, fields = without_norms(samples), token_fields(samples)
    ecg = make_ecg(1, samples=samples).double()
    width = max(1, samples // 25)
    with torch.no_grad():
        before = model.features(ecg)
        for start in range(0, samples, max(1, samples // 7)):
            other = ecg.clone()
            other[..., start : start + width] += 3 + torch.rand(12, 1, dtype=torch.float64)
            moved = (model.features(other) != before).any(dim=-1)[0]
            sees = fields[:, start : start + width].sum(dim=1) > 0
            # a change may be hidden behind the larger of two samples, but never be seen from afar
            assert not moved[:, ~sees].any()
            near = fields[:, start : start + width].sum(dim=1) > 0.1
            assert moved[:, near].all(dim=0).all()


def test_fields_are_where_the_gradients_of_a_network_are():
    model, fields = without_norms(608), token_fields(608).double()
    ecg = torch.randn(8, 12, 608, dtype=torch.float64, requires_grad=True)
    time = torch.arange(608, dtype=torch.float64)
    for token in (0, 1, 9, 18):
        (slope,) = torch.autograd.grad(model.features(ecg)[:, :, token].sum(), ecg)
        weight = slope.abs().mean(dim=(0, 1))
        assert ((weight > 0) <= (fields[token] > 0)).all()
        assert torch.corrcoef(torch.stack([weight, fields[token]]))[0, 1] > 0.9
        assert abs((weight / weight.sum() - fields[token]) @ time) < 16  # half a token


@pytest.mark.parametrize("samples", LENGTHS)
def test_fields_are_shares(samples):
    fields = token_fields(samples)
    assert fields.shape == (tokens_of(samples), samples)
    torch.testing.assert_close(fields.sum(dim=1), torch.ones(len(fields)))
    assert (fields >= 0).all()
    assert (fields.sum(dim=0) > 0).all()  # every sample is seen


def test_fields_are_as_wide_as_the_kernels_say():
    fields = token_fields(5000)
    reach = 2 + 2 + sum(2**i * 2 + 2 ** (i + 1) * 2 for i in range(5))
    assert reach == 190
    for token in (10, 60, 100):
        first, last = fields[token].nonzero()[[0, -1]].flatten().tolist()
        assert (first, last) == (32 * token - reach, 32 * token + reach)
    torch.testing.assert_close(fields[60][32:], fields[59][:-32])


def test_widths_are_those_that_the_docs_say():
    """Read by docs/attention-maps.md."""
    share = token_fields(5000)[60].cumsum(dim=0)
    first, last = ((share > quarter).nonzero()[0].item() for quarter in (0.25, 0.75))
    assert last - first + 1 == 48
    one = torch.zeros(1, 1, 157)
    one[..., 60] = 1
    paint = painted(one, 5000)[0, 0]
    assert (paint > paint.max() / 2).sum() == 77


@pytest.mark.parametrize("samples", LENGTHS)
def test_even_attention_paints_evenly(samples):
    tokens = tokens_of(samples)
    paint = painted(torch.full((2, 12, tokens), 1 / tokens), samples)
    assert paint.shape == (2, 12, samples)
    torch.testing.assert_close(paint, torch.ones_like(paint))


@pytest.mark.parametrize("samples", [600, 608, 5000])
def test_a_peak_lands_on_the_samples_that_its_token_sees(samples):
    fields, tokens = token_fields(samples), tokens_of(samples)
    paint = painted(torch.eye(tokens)[:, None].expand(-1, 12, -1), samples)
    for token in range(tokens):
        top = int(paint[token, 3].argmax())
        border = token in (0, tokens - 1)  # samples there have few other tokens to see them
        assert fields[token, top] > (0 if border else 0.2) * fields[token].max()
        assert abs(top - 32 * token) <= 32
        # nearly all of it lies where the token sees; smoothing alone reaches beyond
        assert paint[token, 3, fields[token] > 0].sum() > 0.99 * paint[token, 3].sum()
    torch.testing.assert_close(paint.sum(dim=0), torch.full((12, samples), float(tokens)))


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 700), seed=st.integers(0, 2**31))
def test_paint_stays_between_what_tokens_have(samples, seed):
    draw = torch.Generator().manual_seed(seed)
    attention = torch.rand(1, 12, tokens_of(samples), generator=draw).softmax(dim=-1)
    paint = painted(attention, samples) / tokens_of(samples)
    assert (paint <= attention.amax(dim=-1, keepdim=True) + 1e-6).all()
    assert (paint >= attention.amin(dim=-1, keepdim=True) - 1e-6).all()


def test_maps_of_a_network_come_down_to_shares():
    torch.manual_seed(0)
    encoder = DualAttention().eval()
    with torch.no_grad():
        _, maps = encoder(make_ecg(2, samples=608), maps=True)
    leads, tokens = lead_attention_of(maps), token_attention_of(maps)
    assert leads.shape == (2, 12, 12)
    assert tokens.shape == (2, 12, 19)
    torch.testing.assert_close(leads.sum(dim=-1), torch.ones(2, 12))
    torch.testing.assert_close(tokens.sum(dim=-1), torch.ones(2, 12))
    torch.testing.assert_close(leads[1], sum(maps.leads[1]) / 8)
    # a column is what a token gets, not what it gives: rows would all have the same sum
    planted = torch.zeros(1, 12, 8, 19, 19)
    planted[..., 4] = 1
    assert token_attention_of(Maps(None, planted))[0, 0].tolist() == [0.0] * 4 + [1] + [0] * 14


def test_there_are_no_maps_without_attention():
    assert lead_attention_of(Maps(None, None)) is None
    assert token_attention_of(Maps(None, None)) is None


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"must be \(N, 12, 19\) for 608 samples, got \(1, 12, 18"):
        painted(torch.ones(1, 12, 18), 608)
    with pytest.raises(ValueError, match="samples must be positive, got 0"):
        token_fields(0)
