"""Survival as a task: losses of hazards, what they say, and how an epoch is judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecgfast.config import Optim
from ecgfast.eval import c_index
from ecgfast.methods.finetune import Finetune
from ecgfast.methods.task import Task, interval_losses, log_cumulative_hazard, survival
from ecgfast.models.heads import RiskHead
from ecgfast.ops.cox_loss import cox_loss_reference

EDGES = torch.tensor([1.0, 2.5, 4.0, 9.0])


def drawn(n=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    time = torch.randint(1, 12, (n,), generator=draw).double()
    return torch.where(torch.rand(n, generator=draw) < 0.4, time, -time)


def test_a_hazard_learns_by_the_partial_likelihood():
    label, task = drawn(), Task("survival")
    output = torch.randn(40, dtype=torch.float64, requires_grad=True)
    want = cox_loss_reference(output, label.abs(), label > 0)
    torch.testing.assert_close(task(output, label), want)
    some = label.clone()
    some[::5] = torch.nan
    known = ~some.isnan()
    loss = task(output, some)
    want = cox_loss_reference(output[known], label[known].abs(), label[known] > 0)
    torch.testing.assert_close(loss, want)
    assert not torch.autograd.grad(loss, output)[0][~known].any()
    breslow = Task("survival", ties="breslow")(output, label)
    want = cox_loss_reference(output, label.abs(), label > 0, ties="breslow")
    torch.testing.assert_close(breslow, want)
    assert task(output, torch.full((40,), torch.nan)) == 0
    assert task(output, -label.abs()) == 0
    assert torch.equal(task.score(output), output)
    with pytest.raises(TypeError, match="compared with its batch"):
        task.losses(output, label)


def likelihood(hazards, label, edges):
    """Of one record, by the definition: it lives through intervals, and has the event in one."""
    value, begin = 1.0, 0.0
    for hazard, end in zip(hazards, edges, strict=True):
        if label > 0 and begin < label <= end:
            return value * hazard
        if abs(label) < end:
            return value
        value, begin = value * (1 - hazard), end
    return value


@given(st.lists(st.floats(0.1, 20).flatmap(lambda t: st.sampled_from([t, -t])), min_size=1))
def test_hazards_of_intervals_have_the_likelihood_of_their_definition(labels):
    labels = torch.tensor([*labels, 1.0, -1.0, 2.5, -2.5, 9.0, -9.0], dtype=torch.float64)
    draw = torch.Generator().manual_seed(len(labels))
    logits = torch.randn(len(labels), 4, generator=draw, dtype=torch.float64)
    found = interval_losses(logits, labels, EDGES)
    for row, label, loss in zip(logits.sigmoid().tolist(), labels.tolist(), found, strict=True):
        want = -np.log(likelihood(row, label, EDGES.tolist()))
        assert loss.item() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_intervals_say_survival_and_one_number_to_order_by():
    logits = torch.randn(5, 4, dtype=torch.float64)
    hazards = logits.sigmoid()
    torch.testing.assert_close(survival(logits), (1 - hazards).cumprod(dim=1))
    risk = log_cumulative_hazard(logits)
    torch.testing.assert_close(risk, (-(1 - hazards).prod(dim=1).log()).log())
    assert log_cumulative_hazard(torch.full((1, 4), -1e4)).isfinite().all()


def test_intervals_learn_the_hazards_of_a_life_table():
    """One column and no features: the largest likelihood is that of the life table."""
    label = drawn(400)
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = Task("survival", edges=EDGES)(logits.expand(400, 4), label)
        loss.backward()
        return loss

    optimizer.step(closure)
    begin, time = 0.0, label.abs()
    for hazard, end in zip(logits.sigmoid()[0].tolist(), EDGES.tolist(), strict=True):
        events = (label > begin) & (label <= end)
        lived = (time >= end) & ~events
        assert hazard == pytest.approx(float(events.sum() / (events | lived).sum()), abs=1e-4)
        begin = end


@pytest.mark.parametrize("edges", [None, EDGES])
def test_an_epoch_is_judged_at_once(edges):
    label = drawn(60).float()
    columns = 1 if edges is None else 4
    values = torch.randn(60, columns, generator=torch.Generator().manual_seed(2))
    task = Task("survival", edges=edges)
    for some in torch.arange(60).split(7):
        task.keep(task.output(values[some]), label[some])
    task.keep(task.output(values[:2]), torch.full((2,), torch.nan))
    found = task.judge()
    score = task.score(task.output(values))
    assert found["val_c_index"].item() == pytest.approx(c_index(score, label.abs(), label > 0))
    if edges is None:
        want = cox_loss_reference(values[:, 0].double(), label.abs(), label > 0).float()
    else:
        want = interval_losses(values, label, edges).mean()
    torch.testing.assert_close(found["val_loss"], want, rtol=1e-5, atol=0)
    task.keep(task.output(values), -label.abs())
    with pytest.raises(ValueError, match="none of the 60 records of the validation part has an ev"):
        task.judge()


def test_a_blank_record_takes_no_part_in_training():
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    method = Finetune(encoder, RiskHead(3, 2, 0.0), task="survival", optim=Optim())
    ecg, label = torch.randn(8, 2, 6), drawn(8).float()
    label[3] = 1.0  # the first event of all, had it a signal
    method.log_dict = lambda *_: None
    blank = ecg.clone()
    blank[3] = torch.nan
    with torch.no_grad():
        output, _ = method(blank)
    others = torch.arange(8) != 3
    want = cox_loss_reference(output[others], label[others].abs(), label[others] > 0)
    loss = method.training_step({"ecg": blank, "label": label}, 0)
    torch.testing.assert_close(loss, want)


def test_drawing_the_signal_beside_the_hazard():
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    decoder = torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.Unflatten(1, (2, 6)))
    words = {"task": "survival", "optim": Optim(), "decoder": decoder, "reconstruction": 0.5}
    half = torch.nn.Dropout(0.5)  # what the encoder sees; what is drawn is the record
    method = Finetune(encoder, RiskHead(3, 2, 0.0), augment=half, **words)
    told = {}
    method.log_dict = told.update
    ecg, label = torch.randn(8, 2, 6), drawn(8).float()
    ecg[2, 1, 3:] = torch.nan
    torch.manual_seed(1)
    loss = method.training_step({"ecg": ecg, "label": label}, 0)
    torch.manual_seed(1)
    with torch.no_grad():
        output, embeddings = method(half(ecg))
    there = ecg.isfinite()
    error = (decoder(embeddings) - ecg)[there].square().mean()
    want = cox_loss_reference(output, label.abs(), label > 0)
    torch.testing.assert_close(loss, want + 0.5 * error)
    torch.testing.assert_close(told["reconstruction"], error.detach())
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())
    assert {id(p) for _, group in method.rates() for p in group} == set(
        map(id, method.parameters())
    )
    assert set(method.kept()) == {"encoder", "head"}


def test_words_that_do_not_go_together():
    with pytest.raises(ValueError, match="edges belong to task survival"):
        Task("regression", edges=EDGES)
    with pytest.raises(ValueError, match="class_weights belong to classes, got task survival"):
        Task("survival", class_weights=torch.ones(2))
    with pytest.raises(ValueError, match="one of regression, classification, multiclass, survival"):
        Task("hazard")
