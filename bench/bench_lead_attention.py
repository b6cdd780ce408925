"""lead_attention, fused against plain torch: ``pytest bench/bench_lead_attention.py``.

``module`` rows include the projections in and out of every lead: the fused kernel between two
batched products, against a loop over twelve of torch's modules and against one einsum form.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from ecgfast.models.dual_attention import GroupedAttention
from ecgfast.ops.lead_attention import lead_attention, lead_attention_reference

SHAPES = [(1, 12, 19, 16), (128, 12, 19, 16)]  # (N, L, S, D): median beats of 608 samples
HEADS = 8


def fused(qkv):
    return lead_attention(qkv, heads=HEADS)


def flash(qkv):
    """Torch's own kernel for attention."""
    parts = qkv.unflatten(-1, (3, HEADS, -1)).transpose(2, 4).unbind(3)
    parts = (part.flatten(0, 1) for part in parts)
    y = nn.functional.scaled_dot_product_attention(*parts)
    return y.transpose(1, 2).flatten(2).unflatten(0, qkv.shape[:2])


reference = partial(lead_attention_reference, heads=HEADS)
CORES = {
    "ecgfast": lambda: fused,
    "torch": lambda: reference,
    "flash": lambda: flash,
    "compiled": lambda: torch.compile(reference, dynamic=False),
}


def ours(grouped, tokens):
    """As the network calls it: tokens stand lead by lead."""
    return grouped(tokens)[0]


def looped(grouped, tokens):
    """A loop over modules with the same weights."""
    modules = nn.ModuleList()
    for lead in range(len(tokens)):
        module = nn.MultiheadAttention(tokens.shape[-1], HEADS, batch_first=True).to(tokens)
        with torch.no_grad():
            module.in_proj_weight.copy_(grouped.project_in.weight[lead].T)
            module.in_proj_bias.copy_(grouped.project_in.bias[lead, 0])
            module.out_proj.weight.copy_(grouped.project_out.weight[lead].T)
            module.out_proj.bias.copy_(grouped.project_out.bias[lead, 0])
        modules.append(module)

    def forward(x):
        return torch.stack([m(y, y, y, need_weights=False)[0] for m, y in zip(modules, x)])  # noqa: B905

    return forward, modules


def batched(grouped, tokens):
    """All leads at once in plain torch."""
    weights = grouped.project_in, grouped.project_out

    def forward(x):
        qkv = torch.einsum("gnsc,gcd->gnsd", x, weights[0].weight) + weights[0].bias[:, None]
        y = reference(qkv)
        return torch.einsum("gnsc,gcd->gnsd", y, weights[1].weight) + weights[1].bias[:, None]

    return forward, grouped


def provided(provider, shape, device):
    records, leads, tokens, width = shape
    torch.manual_seed(0)
    x = torch.randn(leads, records, tokens, width, device=device)
    grouped = GroupedAttention(width, HEADS, leads).to(device)
    if provider == "ecgfast":
        return partial(ours, grouped), grouped, x
    forward, module = (looped if provider == "loop" else batched)(grouped, x)
    torch.testing.assert_close(forward(x), ours(grouped, x), rtol=1e-4, atol=1e-5)  # same maths
    return forward, module, x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", CORES)
def bench_forward(measure, device, shape, provider):
    *lead, width = shape
    qkv = torch.randn(*lead, 3 * width, device=device)
    measure(CORES[provider](), qkv, least_bytes=qkv.nbytes * 4 // 3)  # qkv, y


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", CORES)
def bench_forward_and_backward(measure, device, shape, provider):
    *lead, width = shape
    qkv = torch.randn(*lead, 3 * width, device=device, requires_grad=True)
    grad_y = torch.randn(*shape, device=device)
    function = CORES[provider]()

    def step(x):
        return torch.autograd.grad(function(x), x, grad_y)

    measure(step, qkv, least_bytes=qkv.nbytes * 11 // 3)  # qkv, y; then qkv, g, dqkv


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "loop", "einsum"])
def bench_module_forward(measure, device, shape, provider):
    forward, _, x = provided(provider, shape, device)
    measure(forward, x, least_bytes=2 * x.nbytes)  # tokens in, tokens out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["ecgfast", "loop", "einsum"])
def bench_module_forward_and_backward(measure, device, shape, provider):
    forward, module, x = provided(provider, shape, device)
    x.requires_grad_()
    grad_y, leaves = torch.randn_like(x), [x, *module.parameters()]

    def step(x):
        return torch.autograd.grad(forward(x), leaves, grad_y)

    measure(step, x, least_bytes=5 * x.nbytes)  # x, y; then x, g, dx
