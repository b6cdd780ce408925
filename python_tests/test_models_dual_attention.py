"""The dual-attention network: size, leads kept apart, attention, lengths, what it refuses."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from ecgfast.models import dual_attention
from ecgfast.models.dual_attention import (
    DualAttention,
    DualAttentionDecoder,
    GroupedAttention,
    tokens_of,
)
from ecgfast.testing import make_ecg

MODES = ["fixed", "faithful"]
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def made(samples=608, seed=0, **words):
    torch.manual_seed(seed)
    return DualAttention(samples, **words)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_has_the_published_number_of_parameters():
    model = made(mode="faithful")
    assert parameters(model.over_leads) == 1_112_944
    assert parameters(model.over_time) == 12 * 3_280
    assert round(parameters(model) / 1e6, 2) == 1.27
    # the dense convolution between leads is all that keeping them apart takes away
    assert parameters(model) - parameters(made()) == 48 * 48 * 5 - 48 * 4 * 5
    assert parameters(made(share_time=True).over_time) == 3_280
    assert round(parameters(DualAttentionDecoder()) / 1e6, 2) == 0.11


def lead_changes(model, lead):
    """Which leads' features are others when one lead of the signal is another."""
    ecg = make_ecg(2, samples=608)
    changed = ecg.clone()
    changed[:, lead] = make_ecg(2, samples=608, seed=1)[:, lead]
    with torch.no_grad():
        before, after = (model.features(x) for x in (ecg, changed))
        if model.over_time is not None:
            before, after = (model.over_time(x, False)[0] for x in (before, after))
    return {k for k in range(12) if not torch.equal(before[:, k], after[:, k])}


@pytest.mark.parametrize("share_time", [False, True])
def test_leads_stay_apart_before_the_attention_over_leads(share_time):
    model = made(share_time=share_time).eval()
    for lead in range(12):
        assert lead_changes(model, lead) == {lead}


def test_the_published_network_mixes_leads():
    model = made(mode="faithful", attention="leads").eval()
    for lead in range(12):
        assert len(lead_changes(model, lead)) > 1


def test_the_published_reshape_alone_mixes_leads():
    """Were its second convolution grouped, slot I would still read I, aVR, V1 and V4."""
    model = made(attention="leads").eval()
    model.mode = "faithful"
    readers = [lead_changes(model, lead) for lead in range(12)]
    assert {lead for lead in range(12) if 0 in readers[lead]} == {0, 3, 6, 9}


class PlainBlock(nn.Module):
    """One lead's temporal block in torch's own modules, with a block's weights of that lead."""

    def __init__(self, block, group):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 8, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.linear = nn.ModuleList([nn.Linear(16, 64), nn.Linear(64, 16)])
        with torch.no_grad():
            for norm, source in zip(self.norms, (block.norm_attention, block.mlp[0]), strict=True):
                norm.weight.copy_(source.weight[group].flatten())
                norm.bias.copy_(source.bias[group].flatten())
            for linear, source in zip(self.linear, (block.mlp[1], block.mlp[4]), strict=True):
                linear.weight.copy_(source.weight[group].T)
                linear.bias.copy_(source.bias[group].flatten())
            attention, source = self.attention, block.attention
            attention.in_proj_weight.copy_(source.project_in.weight[group].T)
            attention.in_proj_bias.copy_(source.project_in.bias[group].flatten())
            attention.out_proj.weight.copy_(source.project_out.weight[group].T)
            attention.out_proj.bias.copy_(source.project_out.bias[group].flatten())

    def forward(self, x):
        position = torch.arange(x.shape[1])[:, None].double()
        for c in range(0, 16, 2):
            angle = position[:, 0] / 10_000 ** (c / 16)
            wave = torch.zeros(x.shape[1], 16)
            wave[:, c], wave[:, c + 1] = angle.sin(), angle.cos()
            x = x + wave
        y = self.norms[0](x)
        y, maps = self.attention(y, y, y, average_attn_weights=False)
        x = x + y
        hidden = nn.functional.gelu(self.linear[0](self.norms[1](x)))
        return x + self.linear[1](hidden), maps


@pytest.mark.parametrize("share_time", [False, True])
def test_temporal_blocks_equal_a_loop_over_plain_ones(share_time):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        block = made(share_time=share_time, attention="time").eval().over_time
        for p in block.parameters():  # biases and scales that are not 0 and 1
            p.data += 0.1 * torch.randn_like(p)
        plain = [PlainBlock(block, 0 if share_time else lead) for lead in range(12)]
        x = torch.randn(3, 12, 19, 16, requires_grad=True)
        y, maps = block(x, True)
        looped = [one(x[:, lead]) for lead, one in enumerate(plain)]
        expected = torch.stack([y for y, _ in looped], dim=1)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(maps, torch.stack([m for _, m in looped], dim=1))
        g = torch.randn_like(y)
        (dx,) = torch.autograd.grad(y, x, g, retain_graph=True)
        (dx_expected,) = torch.autograd.grad(expected, x, g, retain_graph=True)
        torch.testing.assert_close(dx, dx_expected)
        y.backward(g)
        expected.backward(g)
        found = block.attention.project_in.weight.grad
        wanted = torch.stack([one.attention.in_proj_weight.grad.T for one in plain])
        torch.testing.assert_close(found, wanted.sum(0, keepdim=True) if share_time else wanted)
        found = block.mlp[4].bias.grad[:, 0]
        wanted = torch.stack([one.linear[1].bias.grad for one in plain])
        torch.testing.assert_close(found, wanted.sum(0, keepdim=True) if share_time else wanted)
    finally:
        torch.set_default_dtype(before)


@every_mode
def test_maps_sum_to_one_and_leave_the_embedding_alone(mode):
    model = made(mode=mode).eval()
    ecg = make_ecg(3, samples=608)
    with torch.no_grad():
        z, maps = model(ecg, maps=True)
        torch.testing.assert_close(z, model(ecg))
    assert maps.leads.shape == (3, 8, 12, 12)
    assert maps.times.shape == (3, 12, 8, 19, 19)
    for weights in maps:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_temporal_maps_are_those_of_their_lead():
    model = made().eval()
    ecg = make_ecg(2, samples=608)
    changed = ecg.clone()
    changed[1, 7] = -changed[1, 7]
    with torch.no_grad():
        (_, before), (_, after) = (model(x, maps=True) for x in (ecg, changed))
    others = (before.times != after.times).flatten(2).any(dim=-1).nonzero().tolist()
    assert others == [[1, 7]]


@pytest.mark.parametrize("samples", [1, 31, 32, 33, 500, 577, 608, 1000, 5000])
def test_takes_any_length(samples):
    with torch.no_grad():
        model = made(samples).eval()
        z, maps = model(make_ecg(1, samples=samples), maps=True)
    assert z.shape == (1, 512)
    assert z.isfinite().all()
    assert maps.times.shape[-1] == tokens_of(samples) == model.tokens
    assert model.features(make_ecg(1, samples=samples)).shape == (1, 12, model.tokens, 16)


def test_without_attention_over_leads_one_network_takes_all_lengths():
    model = made(attention="time").eval()
    for samples in (100, 608, 1000):
        assert model(make_ecg(2, samples=samples)).shape == (2, 512)


@every_mode
@pytest.mark.parametrize("samples", [64, 1000])
@pytest.mark.parametrize("attention", ["parallel", "sequential", "leads", "time", "none"])
def test_every_parameter_gets_a_gradient(mode, attention, samples):
    model = made(samples, embedding_dim=6, mode=mode, attention=attention)
    z, maps = model(make_ecg(4, samples=samples), maps=True)
    assert z.shape == (4, 6)
    z.square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    both = attention in ("parallel", "sequential")
    assert (maps.leads is not None) == (both or attention == "leads")
    assert (maps.times is not None) == (both or attention == "time")
    staged = [id(p) for stage in model.stages() for p in stage.parameters()]
    assert sorted(staged) == sorted(map(id, model.parameters()))


def test_branches_are_what_they_say():
    ecg = make_ecg(2, samples=64)
    words = dict(seed=3, dropout=0.0)
    parallel, sequential = (
        made(64, attention=name, **words).eval() for name in ("parallel", "sequential")
    )
    with torch.no_grad():
        x = parallel.features(ecg)
        by_time, _ = parallel.over_time(x, False)
        by_leads, _ = parallel.over_leads(x.flatten(2)[:, None], False)
        then, _ = parallel.over_leads(by_time.flatten(2)[:, None], False)
        for model, attended in [
            (parallel, by_time + by_leads.view(x.shape)),
            (sequential, then.reshape(x.shape)),
        ]:
            flat = attended.permute(0, 1, 3, 2).reshape(2, 192, 2)
            mean, most = model.mean_pool(flat).mean(-1), model.max_pool(flat).amax(-1)
            torch.testing.assert_close(model(ecg), torch.cat([mean, most], dim=1))


def test_only_the_mended_network_drops_positions():
    assert made().over_time.positions.p == made().over_leads.positions.p == 0.2
    model = made(mode="faithful")
    assert model.over_time.positions.p == model.over_leads.positions.p == 0
    assert model.over_time.drop_attention.p == 0.2


@every_mode
def test_batch_of_one_is_a_record_of_a_batch(mode):
    model, ecg = made(mode=mode).eval().double(), make_ecg(3, samples=608, dtype=torch.float64)
    with torch.no_grad():
        singly = torch.cat([model(ecg[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(ecg), singly)
    assert model.train()(ecg[:1]).isfinite().all()


def test_a_flat_record_gives_no_nan():
    model = made()
    z = model(torch.zeros(2, 12, 608))
    z.sum().backward()
    assert z.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_mode
def test_an_empty_batch_has_empty_maps(mode):
    z, maps = made(mode=mode).eval()(torch.zeros(0, 12, 608), maps=True)
    assert z.shape == (0, 512)
    assert maps.leads.shape == (0, 8, 12, 12)
    assert maps.times.shape == (0, 12, 8, 19, 19)


@every_mode
def test_state_dict_round_trip(mode):
    model, other = made(mode=mode).eval(), made(mode=mode, seed=1).eval()
    ecg = make_ecg(2, samples=608)
    with torch.no_grad():
        assert not torch.equal(model(ecg), other(ecg))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(ecg), other(ecg))


def test_attention_starts_as_torchs_does():
    torch.manual_seed(0)
    attention = GroupedAttention(16, 8, 12)
    for module, bound in [
        (attention.project_in, (6 / (16 + 48)) ** 0.5),
        (attention.project_out, 16**-0.5),
    ]:
        largest = module.weight.detach().abs().flatten(1).amax(dim=1)
        assert (largest <= bound).all()
        assert (largest > 0.95 * bound).all()  # of 256 draws or more, in every group
        assert not module.bias.any()


@pytest.mark.parametrize("samples", [600, 608, 1000])
def test_decoder_gives_normalised_signals(samples):
    torch.manual_seed(0)
    decoder = DualAttentionDecoder(samples)
    ecg = decoder(torch.randn(4, 512))
    assert ecg.shape == (4, 12, samples)
    torch.testing.assert_close(ecg.mean(dim=-1), torch.zeros(4, 12), rtol=0, atol=1e-5)
    ecg.square().mean().backward()
    assert all(p.grad is not None for p in decoder.parameters())
    assert decoder.eval()(torch.randn(1, 512)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 12, 576), "577 samples or more.*samples=576"),
        ((2, 8, 608), r"must be \(N, 12, T\), got \(2, 8, 608\)"),
        ((12, 608), r"must be \(N, 12, T\)"),
        ((2, 12, 0), r"must be \(N, 12, T\)"),
    ],
)
def test_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        DualAttention()(torch.zeros(shape))


@pytest.mark.parametrize("samples", [32, 65])
def test_a_network_for_less_than_a_beat_takes_its_length_alone(samples):
    with pytest.raises(ValueError, match=r"ecg must have 33 to 64 samples, got.*crop or pad"):
        DualAttention(64)(torch.zeros(2, 12, samples))


def test_attention_over_leads_takes_longer_signals_by_their_means():
    """Of a signal as long as 4 beats, each run of 4 tokens is one to the attention over leads."""
    model = made(4 * 608, attention="leads").eval()
    assert parameters(model) == parameters(made(attention="leads"))
    x = torch.randn(2, 12, 76, 16)
    with torch.no_grad():
        y, _ = model._across(x, maps=False)
        means = x.unflatten(2, (19, 4)).mean(dim=3)
        alone, _ = model._across(means, maps=False)
    torch.testing.assert_close(y - x, (alone - means).repeat_interleave(4, dim=2))
    assert model(make_ecg(1, samples=5000)).isfinite().all()


def test_refuses_words():
    with pytest.raises(ValueError, match="fixed or faithful"):
        DualAttention(mode="mended")
    with pytest.raises(ValueError, match="parallel, sequential"):
        DualAttention(attention="both")
    with pytest.raises(ValueError, match="must be positive"):
        DualAttention(0)
    with pytest.raises(ValueError, match="must be positive"):
        DualAttention(lead_tokens=0)
    with pytest.raises(ValueError, match="must be even"):
        DualAttention(embedding_dim=7)
    with pytest.raises(ValueError, match="must be positive"):
        DualAttentionDecoder(608, 0)


def test_examples_run():
    outcome = doctest.testmod(dual_attention)
    assert outcome.failed == 0
    assert outcome.attempted >= 2
