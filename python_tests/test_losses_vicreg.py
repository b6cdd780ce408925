"""VICRegLoss: the formula, the usual library's numbers, ranks, memory."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses

from ecgfast.losses.vicreg import VICRegLoss
from python_tests.ranks import load, two_ranks


def draw(n=9, d=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(n, d, generator=generator, dtype=torch.float64) * 0.8
    two = one + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return one.to(dtype).requires_grad_(), two.to(dtype).requires_grad_()


def formula(one, two, invariance=25.0, variance=25.0, covariance=1.0, eps=1e-4):
    """As the docstring has it, with numpy's words for variance and covariance."""
    loss = invariance * (one - two).square().mean()
    for view in (one, two):
        spread = torch.relu(1 - torch.sqrt(view.var(dim=0) + eps)).mean()
        table = torch.cov(view.T).reshape(view.shape[1], -1)
        shared = (table - torch.diag(table.diagonal())).square().sum() / view.shape[1]
        loss = loss + variance * spread + covariance * shared
    return loss


def assert_same(loss, expected, *leaves):
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    moved, wanted = (torch.autograd.grad(value, leaves) for value in (loss, expected))
    torch.testing.assert_close(moved, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (9, 5), (5, 40), (200, 17)], ids=str)
@pytest.mark.parametrize("words", [{}, dict(invariance=1.0, variance=2.0, covariance=3.0, eps=0.1)])
def test_is_its_formula(shape, words):
    views = draw(*shape)
    assert_same(VICRegLoss(**words)(*views), formula(*views, **words), *views)


@pytest.mark.parametrize("shape", [(9, 5), (5, 40)], ids=str)
def test_is_what_pytorch_metric_learning_says(shape):
    # which halves the variance: see the docstring
    one, two = draw(*shape)
    peer = losses.VICRegLoss(invariance_lambda=10, variance_mu=30, covariance_v=2)
    ours = VICRegLoss(invariance=10, variance=15, covariance=2)
    assert_same(ours(one, two), peer(one, ref_emb=two), one, two)


def test_gradcheck():
    assert torch.autograd.gradcheck(VICRegLoss(), draw())


def test_a_collapse_costs_the_variance_and_has_a_finite_gradient():
    one = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    loss = VICRegLoss()(one, one)
    assert loss.item() == pytest.approx(2 * 25 * (1 - 1e-4**0.5))
    (moved,) = torch.autograd.grad(loss, one)
    assert not moved.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_and_autocast_are_computed_in_float32(dtype):
    one, two = draw(64, 32, torch.float32)
    halves = [view.detach().to(dtype).requires_grad_() for view in (one, two)]
    with torch.autocast("cpu", dtype=dtype):
        loss = VICRegLoss()(*halves)
        moved = torch.autograd.grad(loss, halves)
        inside = VICRegLoss()(one, two)
    assert loss.dtype == torch.float32
    wide = [view.detach().float().requires_grad_() for view in halves]
    expected = VICRegLoss()(*wide)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(inside, VICRegLoss()(one, two), rtol=0, atol=0)
    for mine, wanted in zip(moved, torch.autograd.grad(expected, wide), strict=True):
        torch.testing.assert_close(mine, wanted.to(dtype), rtol=0, atol=0)


def test_a_nan_shows():
    one, two = (view.detach().clone() for view in draw())
    one[3, 2] = torch.nan
    assert VICRegLoss()(one, two).isnan()
    assert VICRegLoss()(two, one).isnan()


def test_columns_far_from_0_do_not_cancel():
    one, two = draw(64, 16)
    far = [(view.detach() + 1000).float() for view in (one, two)]
    truth = VICRegLoss()(*(view.double() for view in far))
    torch.testing.assert_close(VICRegLoss()(*far).double(), truth, rtol=1e-5, atol=0)


def test_holds_the_square_of_the_columns_a_few_times():
    n, d = 16, 512
    one, two = draw(n, d, torch.float32)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        torch.autograd.grad(VICRegLoss()(one, two), (one, two))
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    # both tables of covariances, kept for backward; and some arrays of the size of the views
    assert peak <= 2 * 4 * d * d + 30 * 4 * n * d


def test_compiles_without_a_graph_break():
    one, two = draw()
    compiled = torch.compile(VICRegLoss(), fullgraph=True, backend="aot_eager")
    assert_same(compiled(one, two), VICRegLoss()(one, two), one, two)


def test_two_ranks_have_the_gradient_of_one(tmp_path):
    script = load("two_ranks_vicreg")
    network = script.model()
    loss = VICRegLoss()(*(network(view) for view in script.batch()))
    loss.backward()
    largest = max(parameter.grad.abs().max() for parameter in network.parameters())
    for found in two_ranks("two_ranks_vicreg", tmp_path):
        torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-10, atol=0)
        for name, parameter in network.named_parameters():  # a shift of all rows changes nothing
            assert (found["gradients"][name] - parameter.grad).abs().max() <= 1e-10 * largest


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((torch.ones(4), torch.ones(4)), r"embeddings must be \(N, D\) with D > 0, got \(4,\)"),
        ((torch.ones(4, 0), torch.ones(4, 0)), r"with D > 0, got \(4, 0\)"),
        ((torch.ones(4, 2), torch.ones(3, 2)), r"others must be \(4, 2\) as .*, got \(3, 2\)"),
        ((torch.ones(1, 2), torch.ones(1, 2)), "embeddings have 1 row: a variance needs 2"),
        ((torch.ones(0, 2), torch.ones(0, 2)), "embeddings have 0 row"),
    ],
)
def test_refuses(views, message):
    with pytest.raises(ValueError, match=message):
        VICRegLoss()(*views)


def test_shows_its_numbers():
    said = "VICRegLoss(invariance=25.0, variance=25.0, covariance=1.0, eps=0.0001, gather=False)"
    assert repr(VICRegLoss()) == said
    assert not VICRegLoss().state_dict()
