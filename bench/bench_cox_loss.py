"""Cox's partial likelihood and the C-index: ``pytest bench/bench_cox_loss.py``.

All inputs are SYNTHETIC. Peers are torchsurv and lifelines, where they are installed.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ecgfast.eval import survival_rows
from ecgfast.ops import cox_loss

SHAPES = [512, 4096, 16384, 65536]
MASK = 16384  # beyond it the mask form goes by blocks: it would need 17 GB and more
BLOCK = 1024  # events held at a time
RULES = ["efron", "breslow"]
PROVIDERS = ["ecgfast", "mask", "logcumsumexp", "torchsurv"]


def draw(device, n):
    """Log hazards, times in whole days, so with ties, and events in a third of the rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator)
    time = (torch.rand(n, generator=generator) * n / 2).ceil()
    event = torch.rand(n, generator=generator) < 1 / 3
    return x.to(device).requires_grad_(), time.to(device), event.to(device)


def ours(ties):
    return lambda x, time, event: torch.autograd.grad(cox_loss(x, time, event, ties=ties), x)


def mask_form(x, time, event):
    """As one writes it (Breslow): a matrix of who is at risk, in blocks if it is large."""
    moments, own = time[event], x[event]
    size = BLOCK if len(x) > MASK else len(moments)
    gradient = torch.zeros_like(x)
    for start in range(0, len(moments), size):
        later = time[None] >= moments[start : start + size, None]
        at_risk = torch.where(later, x[None], -torch.inf)
        loss = (at_risk.logsumexp(dim=1) - own[start : start + size]).sum() / len(moments)
        gradient += torch.autograd.grad(loss, x, retain_graph=True)[0]
    return gradient


def scan_form(x, time, event):
    """The best plain one (Breslow): sorted, with a running log-sum-exp; ties share their last."""
    falling, order = time.sort(descending=True, stable=True)
    hazard = x[order]
    last = torch.searchsorted(-falling, -falling, right=True) - 1
    log_risk = torch.logcumsumexp(hazard, dim=0)[last]
    happened = event[order]
    loss = torch.where(happened, log_risk - hazard, 0).sum() / happened.sum()
    return torch.autograd.grad(loss, x)


def torchsurv(ties):
    cox = pytest.importorskip("torchsurv.loss.cox")

    def step(x, time, event):
        loss = cox.neg_partial_log_likelihood(x, event, time, ties_method=ties, reduction="sum")
        return torch.autograd.grad(loss / event.sum(), x)

    return step


@pytest.mark.parametrize("ties", RULES)
@pytest.mark.parametrize("n", SHAPES)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_forward_and_backward(measure, device, provider, n, ties, benchmark, request):
    if provider in ("mask", "logcumsumexp") and ties == "efron":
        pytest.skip("written for Breslow's rule")
    if provider == "mask" and n > MASK and request.config.getoption("benchmark_disable"):
        pytest.skip("too long, where all that is asked is whether it still runs")
    if provider == "mask":
        benchmark._min_rounds, benchmark._max_time, benchmark._warmup = 2, 1.0, False
    x, time, event = draw(device, n)
    forms = {"ecgfast": ours, "torchsurv": torchsurv}
    plain = {"mask": mask_form, "logcumsumexp": scan_form}
    step = plain[provider] if provider in plain else forms[provider](ties)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsurv says at each call that there are ties
        # read x, time, event, write dx
        measure(step, x, time, event, least_bytes=2 * x.nbytes + time.nbytes + event.nbytes)


def lifelines_draws(hazard, time, event, patient, *, draws):
    """As one writes it: a C-index of the records of each draw."""
    concordance_index = pytest.importorskip("lifelines.utils").concordance_index
    generator = np.random.default_rng(0)
    for _ in range(draws):
        rows = generator.integers(len(time), size=len(time))
        concordance_index(time[rows], -hazard[rows], event[rows])


@pytest.mark.parametrize("draws", [10, 1000])
@pytest.mark.parametrize("provider", ["ecgfast", "lifelines"])
def bench_c_index_bootstrap(benchmark, provider, draws):
    """10,000 records of as many patients; lifelines at 10 draws, since each is as long."""
    if provider == "lifelines" and draws > 10:
        pytest.skip("minutes: a hundred times its time for 10 draws")
    hazard, time, event = (v.detach().numpy() for v in draw("cpu", 10000))
    step = survival_rows if provider == "ecgfast" else lifelines_draws
    benchmark.pedantic(
        step, (hazard, time, event, np.arange(len(time))), dict(draws=draws), rounds=1
    )
