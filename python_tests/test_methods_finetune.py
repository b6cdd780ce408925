"""Finetune: it learns both tasks, masks what has no label, freezes, and judges whole epochs."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ecgfast.config import Optim
from ecgfast.methods.finetune import Finetune
from ecgfast.models.heads import Head


class Encoder(nn.Module):
    """Spread of each lead, batch-normed: enough to see amplitudes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 8)

    def forward(self, ecg):
        return self.out(self.norm(ecg.std(dim=-1)))


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def make(task="regression", *, monkeypatch=None, dropout=0.3, **words):
    torch.manual_seed(0)
    head = Head(8, 16, dropout)
    if task == "regression":
        head.set_scale(16.0, 8.0)
    method = Finetune(Encoder(), head, task=task, optim=Optim(), **words)
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def batch(n=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ecg = torch.randn(n, 3, 50, generator=draw)
    size = torch.rand(n, generator=draw) + 0.5
    label = 16 + 16 * (size - 1)
    return {"ecg": ecg * size[:, None, None], "index": torch.arange(n) + 100, "label": label}


def learn(method, steps=200):
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    method.train()
    for step in range(steps):
        optimizer.zero_grad()
        method.training_step(batch(seed=step % 4), step).backward()
        optimizer.step()
    method.eval()


def judge(method, *batches):
    with torch.no_grad():
        for i, one in enumerate(batches):
            method.validation_step(one, i)
        method.on_validation_epoch_end()
    return {name: float(value) for name, value in method.logged.items()}


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_learns_a_value_in_its_unit(loss):
    method = make(loss=loss, dropout=0.0)
    learn(method)
    seen = judge(method, batch(seed=9))
    assert seen["val_rmse"] < 2.0  # the labels' standard deviation is 4.6
    assert seen["val_loss"] == seen["val_rmse"]


def test_learns_a_class_by_threshold():
    method = make("classification", threshold=16.0, dropout=0.0)
    learn(method)
    seen = judge(method, batch(seed=9))
    assert seen["val_auroc"] > 0.95
    assert seen["val_loss"] < 0.5


def test_threshold_is_strict_and_nan_stays_nan():
    method = make("classification", threshold=18.0)
    got = method.task.target(torch.tensor([17.9, 18.0, 18.1, torch.nan]))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, 1.0, torch.nan]), equal_nan=True)


def test_refuses_labels_that_are_no_class():
    with pytest.raises(ValueError, match=r"must be 0 or 1, got \[17.0\] in 1 of 3 records"):
        make("classification").task.target(torch.tensor([0.0, 17.0, torch.nan]))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_records_without_label_do_not_count(task):
    words = {"threshold": 16.0} if task == "classification" else {}
    method = make(task, dropout=0.0, **words).eval()  # batch norm would let records meet
    whole = batch(6)
    half = {**whole, "label": whole["label"].clone()}
    half["label"][3:] = torch.nan
    few = {name: column[:3] for name, column in whole.items()}
    torch.testing.assert_close(method.training_step(half, 0), method.training_step(few, 0))
    assert method.losses(half).isnan().tolist() == [False] * 3 + [True] * 3

    method.training_step(half, 0).backward()
    assert method.logged["labelled"] == 0.5
    assert all(p.grad.isfinite().all() for p in method.parameters())

    method.zero_grad()
    half["label"][:] = torch.nan
    loss = method.training_step(half, 0)
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in method.parameters())


def test_loss_is_in_units_of_the_scale():
    method = make(dropout=0.0).eval()
    one = batch(5)
    output, _ = method(one["ecg"])
    expected = ((output - one["label"]) / 8.0).square()
    torch.testing.assert_close(method.losses(one), expected)


def test_validation_judges_the_epoch_and_not_its_batches():
    method = make(dropout=0.0).eval()
    whole = batch(60)
    parts = [{k: v[i:j] for k, v in whole.items()} for i, j in ((0, 7), (7, 50), (50, 60))]
    parts[1]["label"] = parts[1]["label"].clone()
    parts[1]["label"][4] = torch.nan
    seen = judge(method, *parts)
    keep = torch.arange(60) != 11
    output, _ = method(whole["ecg"])
    expected = (output - whole["label"])[keep].square().mean().sqrt().item()
    assert abs(seen["val_rmse"] - expected) < 1e-4
    assert judge(method, *parts) == seen  # the next epoch starts empty


def test_validation_with_one_class_has_no_auroc_and_without_labels_stops():
    method = make("classification", threshold=-1.0).eval()
    assert judge(method, batch(8))["val_auroc"] != judge(method, batch(8))["val_auroc"]
    empty = batch(8)
    empty["label"][:] = torch.nan
    with pytest.raises(ValueError, match="has a label"):
        judge(method, empty)


def test_a_frozen_encoder_stays_as_it_is():
    method = make(freeze=True)
    before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
    learn(method, steps=5)
    after = method.encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    method.train()
    assert not method.encoder.training
    assert method.head.training


@pytest.mark.parametrize("on", [False, True])
def test_published_dropout_at_test(on):
    method = make(dropout_at_test=on, dropout=0.5)
    method.eval()
    one = batch(16)
    torch.manual_seed(1)
    first = method.predict_step(one, 0)["score"]
    assert torch.equal(first, method.predict_step(one, 0)["score"]) == (not on)


def test_predictions_carry_what_is_known():
    method = make("classification", threshold=16.0).eval()
    got = method.predict_step(batch(5), 0)
    assert set(got) == {"index", "label", "score", "embedding"}
    assert got["embedding"].shape == (5, 8)
    assert ((got["score"] > 0) & (got["score"] < 1)).all()


def test_missing_samples_reach_the_encoder_as_zero():
    method = make().eval()
    holes, zeros = batch(4), batch(4)
    holes["ecg"][1, 2] = torch.nan
    zeros["ecg"][1, 2] = 0.0
    assert torch.equal(
        method.predict_step(holes, 0)["score"], method.predict_step(zeros, 0)["score"]
    )


def test_training_sees_views_and_judgement_the_record():
    class Half(nn.Module):
        def forward(self, ecg):
            return ecg[..., :25]

    seen = []
    method = make(augment=Half())
    method.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    one = batch()
    method.training_step(one, 0)
    method.validation_step(one, 0)
    method.predict_step(one, 0)
    assert torch.equal(seen[0], one["ecg"][..., :25])
    assert torch.equal(seen[1], one["ecg"])
    assert torch.equal(seen[2], one["ecg"])


def test_scale_travels_with_the_head():
    head = Head(8)
    head.set_scale(16.0, 8.0)
    other = Head(8)
    other.load_state_dict(head.state_dict())
    assert (other.mean, other.scale) == (16.0, 8.0)
    with pytest.raises(ValueError, match="labels must differ"):
        head.set_scale(3.0, 0.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"task": "rank"}, "one of regression, classification, multiclass, survival"),
        ({"loss": "l1"}, "mse, huber or rmse"),
    ],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        make(**words)


def several(n=64, seed=0):
    one = batch(n, seed)
    size = one["ecg"].std(dim=(1, 2))
    return {**one, "label": torch.bucketize(size, torch.tensor([0.8, 1.2])).float()}


def make_several(**words):
    torch.manual_seed(0)
    method = Finetune(
        Encoder(), Head(8, 16, 0.0, outputs=3), task="multiclass", optim=Optim(), **words
    )
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def test_learns_several_classes():
    method = make_several()
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for step in range(200):
        optimizer.zero_grad()
        method.training_step(several(seed=step % 4), step).backward()
        optimizer.step()
    method.eval()
    one = several(seed=9)
    one["label"][3] = torch.nan
    seen = judge(method, one)
    known = ~one["label"].isnan()
    logits, _ = method(one["ecg"][known])
    truth = one["label"][known].long()
    assert seen["val_accuracy"] == (logits.argmax(1) == truth).float().mean().item() > 0.85
    assert seen["val_loss"] == pytest.approx(cross_entropy(logits, truth).item(), rel=1e-5)
    areas = [roc_auc_score(truth == c, logits.softmax(1)[:, c].detach().numpy()) for c in range(3)]
    assert seen["val_auroc"] == pytest.approx(sum(areas) / 3, abs=1e-5)
    score = method.predict_step(one, 0)["score"]
    torch.testing.assert_close(score[known], logits.softmax(1))


def test_a_class_that_validation_lacks_leaves_the_others_their_area():
    method = make_several().eval()
    one = several()
    one["label"] = one["label"].clamp(max=1)
    seen = judge(method, one)
    logits, _ = method(one["ecg"])
    areas = [
        roc_auc_score(one["label"] == c, logits.softmax(1)[:, c].detach().numpy()) for c in (0, 1)
    ]
    assert seen["val_auroc"] == pytest.approx(sum(areas) / 2, abs=1e-5)


def test_class_weights_are_torchs():
    one, weights = several(), torch.tensor([0.5, 3.0, 1.25])
    method = make_several(class_weights=weights).eval()
    logits, _ = method(one["ecg"])
    each = cross_entropy(logits, one["label"].long(), weight=weights, reduction="none")
    torch.testing.assert_close(method.training_step(one, 0), each.mean())
    assert judge(method, one)["val_loss"] == pytest.approx(each.mean().item(), rel=1e-5)

    method = make("classification", threshold=16.0, class_weights=torch.tensor([1.0, 4.0])).eval()
    one = batch()
    logit, _ = method(one["ecg"])
    expected = binary_cross_entropy_with_logits(
        logit, (one["label"] > 16).float(), pos_weight=torch.tensor(4.0)
    )
    torch.testing.assert_close(method.training_step(one, 0), expected)
    assert judge(method, one)["val_loss"] == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match="belong to classes"):
        make(class_weights=weights)


def test_the_root_of_the_mean_square_is_of_a_batch():
    method, one = make(loss="rmse", dropout=0.0).eval(), batch(6)
    one["label"][2] = torch.nan
    output, _ = method(one["ecg"])
    known = ~one["label"].isnan()
    errors = ((output - one["label"])[known] / 8).double()
    expected = (errors.square().mean() + 1e-6).sqrt()
    torch.testing.assert_close(method.training_step(one, 0).double(), expected, rtol=1e-5, atol=0)
    one["label"][:] = torch.nan
    loss = method.training_step(one, 0)
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in method.parameters())


def test_rates_of_an_encoder_without_stages():
    method = make(head_lr=1e-2)
    (rate, head), (below, encoder) = method.rates()
    assert (rate, below) == (pytest.approx(10.0), 1.0)
    assert [id(p) for p in head] == [id(p) for p in method.head.parameters()]
    assert [id(p) for p in encoder] == [id(p) for p in method.encoder.parameters()]
    frozen = make(head_lr=1e-2, freeze=True)
    assert [len(part) for _, part in frozen.rates()] == [len(head)]
