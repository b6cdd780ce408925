"""Alignment of ECGs and texts against plain loops in float64, and what is left out of it."""

from __future__ import annotations

import math

import pytest
import torch

from ecgfast.losses import AlignmentLoss, VICRegLoss, reconstruction_loss
from python_tests.ranks import load, two_ranks

N, P = 12, 5


def rows(seed=0, n=N):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(n, P, generator=draw, dtype=torch.float64) for _ in range(2)]


def plain_info_nce(ecg, texts, valid, labels, groups, temperature):
    """Both directions, pair by pair."""
    kept = [i for i in range(len(ecg)) if valid[i]]

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm())) / temperature

    def one_way(ones, others):
        losses = []
        for i in kept:
            positives = [j for j in kept if labels[i] == labels[j]]
            negatives = [j for j in kept if labels[i] != labels[j] and groups[i] != groups[j]]
            whole = sum(math.exp(cosine(ones[i], others[j])) for j in positives + negatives)
            told = [math.log(whole) - cosine(ones[i], others[j]) for j in positives]
            losses.append(sum(told) / len(told))
        return sum(losses) / len(losses)

    return (one_way(ecg, texts) + one_way(texts, ecg)) / 2


def test_info_nce_sets_texts_of_others_apart_but_not_the_same_text_or_patient():
    ecg, texts = rows()
    labels = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, -1, -1])
    groups = torch.tensor([0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8])
    valid = labels >= 0
    valid[3] = False
    loss = AlignmentLoss(temperature=0.5)
    found = loss(ecg, texts, valid=valid, labels=labels, groups=groups)
    wanted = plain_info_nce(ecg, texts, valid, labels, groups, 0.5)
    assert found.alignment.item() == pytest.approx(wanted, rel=1e-6)
    assert float(found.guard) == 0
    # each of the masks is felt
    for other in (
        {"labels": torch.arange(N), "groups": groups},
        {"labels": labels, "groups": torch.arange(N)},
    ):
        assert loss(ecg, texts, valid=valid, **other).alignment.item() != pytest.approx(wanted)


def test_cosine_is_the_mean_over_rows_that_count():
    ecg, texts = rows()
    valid = torch.arange(N) % 3 > 0
    found = AlignmentLoss("cosine")(ecg, texts, valid=valid).alignment
    cosine = (ecg * texts).sum(1) / (ecg.norm(dim=1) * texts.norm(dim=1))
    assert float(found) == pytest.approx(float(1 - cosine[valid].mean()), rel=1e-6)


@pytest.mark.parametrize("kind", ["infonce", "cosine"])
def test_rows_that_do_not_count_get_no_gradient_and_give_none(kind):
    ecg, texts = rows()
    valid = torch.arange(N) < 8
    loss = AlignmentLoss(kind, guard=True)
    found = []
    for scale in (1.0, 100.0):
        ours, theirs = ecg.clone(), texts.clone()
        ours[~valid] *= scale
        theirs[~valid] *= -scale
        ours.requires_grad_(), theirs.requires_grad_()
        parts = loss(ours, theirs, valid=valid)
        (parts.alignment + parts.guard).backward()
        assert (ours.grad[~valid] == 0).all()
        assert (theirs.grad[~valid] == 0).all()
        assert (ours.grad[valid] != 0).any()
        found.append(torch.stack(parts).detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["infonce", "cosine"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_with_hardly_a_text_has_a_finite_loss_and_a_gradient(kind, count):
    ecg, texts = (one.requires_grad_() for one in rows())
    parts = AlignmentLoss(kind, guard=True)(ecg, texts, valid=torch.arange(N) < count)
    (parts.alignment + parts.guard).backward()
    assert torch.stack(parts).isfinite().all()
    assert ecg.grad.isfinite().all()
    assert texts.grad.isfinite().all()
    assert count or not torch.stack(parts).any()


def test_a_rank_without_a_text_gives_the_temperature_a_gradient_too():
    """Without, DistributedDataParallel waits for it for ever."""
    ecg, texts = (one.requires_grad_() for one in rows())
    loss = AlignmentLoss()
    loss(ecg, texts, valid=torch.zeros(N, dtype=torch.bool)).alignment.backward()
    assert [p.grad for p in loss.parameters()] == [0]


def test_the_guard_is_vicreg_without_invariance_and_sees_a_collapse():
    ecg, texts = rows()
    valid = torch.arange(N) > 2
    guard = AlignmentLoss(guard=True)(ecg, texts, valid=valid).guard
    wanted = VICRegLoss(0.0, 25.0, 1.0)(ecg[valid], texts[valid]) / 25
    assert float(guard) == pytest.approx(float(wanted), rel=1e-6)
    point = torch.ones(N, P)
    assert float(AlignmentLoss("cosine", guard=True)(point, point, valid=valid).alignment) < 1e-6
    assert float(AlignmentLoss("cosine", guard=True)(point, point, valid=valid).guard) > 1.9


def test_the_temperature_is_trained_if_asked():
    for learnable in (True, False):
        ecg, texts = rows()
        loss = AlignmentLoss(learnable=learnable)
        loss(
            ecg.requires_grad_(), texts, valid=torch.ones(N, dtype=torch.bool)
        ).alignment.backward()
        assert sum(p.grad is not None for p in loss.parameters()) == learnable


def test_what_cannot_be_aligned_is_refused():
    ecg, texts = rows()
    everything = torch.ones(N, dtype=torch.bool)
    with pytest.raises(ValueError, match="kind must be"):
        AlignmentLoss("softmax")
    with pytest.raises(ValueError, match=r"ecg and texts must be \(N, P\)"):
        AlignmentLoss()(ecg, texts[:, :3], valid=everything)
    with pytest.raises(ValueError, match=r"valid \(N,\)"):
        AlignmentLoss()(ecg, texts, valid=everything[:3])


def test_reconstruction_counts_what_was_recorded_alone():
    draw = torch.Generator().manual_seed(1)
    drawn, ecg = torch.randn(2, 3, 12, 20, generator=draw, dtype=torch.float64)
    ecg[0] = torch.nan
    ecg[1, 3, 5:9] = torch.nan
    there = ~ecg.isnan()
    wanted = ((drawn - ecg)[there] ** 2).mean()
    drawn.requires_grad_()
    found = reconstruction_loss(drawn, ecg)
    assert found.item() == pytest.approx(float(wanted), rel=1e-6)
    found.backward()
    assert drawn.grad.isfinite().all()
    assert (drawn.grad[~there] == 0).all()
    assert reconstruction_loss(drawn, torch.full_like(ecg, torch.nan)).item() == 0


@pytest.mark.parametrize("kind", ["infonce", "cosine"])
def test_two_ranks_have_the_gradient_of_one(tmp_path, kind):
    script = load("two_ranks_alignment")
    network = script.Model(kind, False)
    loss = network(*script.batch())
    loss.backward()
    for found in two_ranks("two_ranks_alignment", tmp_path, kind):
        torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-6, atol=0)
        for name, parameter in network.named_parameters():
            wanted = parameter.grad
            torch.testing.assert_close(found["gradients"][name], wanted, rtol=1e-5, atol=1e-7)
