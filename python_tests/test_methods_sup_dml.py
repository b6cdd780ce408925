"""SupDML: losses are the published formulas, and everything that should learn does."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ecgfast.config import Optim
from ecgfast.methods.sup_dml import LabelMetric, SupDML, neighbour_error
from ecgfast.methods.task import Task
from ecgfast.models.heads import Head

CLASSES = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0])
VALUES = torch.tensor([8.0, 21.0, 11.5, 30.0, 19.0, 9.0, 25.0, 14.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def rows(n=8, d=5, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw, dtype=torch.float64) * 0.6


def distance(z, i, j):
    return ((z[i] - z[j]).square().sum() + 1e-8).sqrt()


def margin_loss(z, triplets, beta=1.2, m=0.2):
    terms = []
    for a, p, n in triplets:
        terms += [(distance(z, a, p) - beta + m).clamp(min=0)]
        terms += [(beta - distance(z, a, n) + m).clamp(min=0)]
    return sum(terms) / sum(t > 0 for t in terms)


def triplet_loss(z, triplets, m=0.2):
    terms = [
        ((z[a] - z[p]).square().sum() - (z[a] - z[n]).square().sum() + m).clamp(min=0)
        for a, p, n in triplets
    ]
    return sum(terms) / len(terms)


def angular_loss(z, triplets, labels):
    """n-pair with its L2 weight, and twice the angular loss at 45 degrees (tangent 1)."""
    pairs = [(a, p) for a, p, _ in triplets]
    npair, angular = 0.0, 0.0
    for a, p in pairs:
        others = [q for b, q in pairs if labels[b] != labels[a]]
        npair += torch.log1p(sum(torch.exp(z[a] @ z[q] - z[a] @ z[p]) for q in others))
        far = [n for n in range(len(z)) if labels[n] != labels[a]]
        angular += torch.log1p(
            sum(torch.exp(4 * (z[a] + z[p]) @ z[n] - 4 * z[a] @ z[p]) for n in far)
        )
    squares = sum(z[a].square().sum() + z[p].square().sum() for a, p in pairs)
    k = len(pairs)
    return npair / k + 0.005 * squares / (2 * k) + 2 * angular / k


def multi_similarity_loss(z, labels, alpha=2.0, beta=50.0, base=0.5):
    s = nn.functional.normalize(z) @ nn.functional.normalize(z).T
    total = 0.0
    for i in range(len(z)):
        near = [j for j in range(len(z)) if j != i and labels[j] == labels[i]]
        far = [j for j in range(len(z)) if labels[j] != labels[i]]
        total += torch.log1p(sum(torch.exp(-alpha * (s[i, j] - base)) for j in near)) / alpha
        total += torch.log1p(sum(torch.exp(beta * (s[i, j] - base)) for j in far)) / beta
    return total / len(z)


def listed(triplets):
    return [(int(a), int(p), int(n)) for a, p, n, valid in zip(*triplets, strict=True) if valid]


@pytest.mark.parametrize(
    ("metric", "mining"),
    [
        *itertools.product(
            ["margin", "triplet", "angular", "multi_similarity"], ["npair", "semihard", "softhard"]
        ),
        ("margin", "label"),
        ("triplet", "label"),
    ],
)
def test_each_loss_on_each_mining_is_its_formula(metric, mining):
    torch.manual_seed(4)
    labels = VALUES if mining == "label" else CLASSES
    z = rows().requires_grad_()
    part = LabelMetric(metric, mining=mining, classes=None if mining == "label" else 2).double()
    triplets = part.mine(z, labels)
    found = listed(triplets)
    assert len(found) == 8
    loss = part(z, labels, triplets)
    expected = {
        "margin": lambda: margin_loss(z, found),
        "triplet": lambda: triplet_loss(z, found),
        "angular": lambda: angular_loss(z, found, labels),
        "multi_similarity": lambda: multi_similarity_loss(z, labels),
    }[metric]()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
    (grad,) = torch.autograd.grad(loss, z)
    (truth,) = torch.autograd.grad(expected, z)
    assert truth.abs().max() > 1e-3
    torch.testing.assert_close(grad, truth, rtol=1e-5, atol=1e-7)


def test_mining_by_class_and_by_label():
    z = rows()
    for seed, mining in itertools.product(range(5), ["npair", "semihard", "softhard"]):
        torch.manual_seed(seed)
        for a, p, n in listed(LabelMetric(mining=mining, classes=2).mine(z, CLASSES)):
            assert CLASSES[a] == CLASSES[p] != CLASSES[n]
            assert a != p
    found = listed(LabelMetric(mining="label", classes=None).mine(z, VALUES))
    for a, p, n in found:
        apart = (VALUES - VALUES[a]).abs()
        assert apart[n] == apart.max()
        assert apart[p] == apart[torch.arange(8) != a].min()


def test_anchors_without_a_partner_bring_a_warning():
    part = LabelMetric(mining="npair", classes=2)
    one_class = torch.zeros(8, dtype=torch.int64)
    for _ in range(49):
        assert not part.mine(rows(), one_class).valid.any()
    with pytest.warns(UserWarning, match="0 have no positive, 8 have no negative"):
        part.mine(rows(), one_class)


class Encoder(nn.Module):
    """Spread of each lead: enough to see amplitudes."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3, 6)

    def forward(self, ecg):
        return self.out(ecg.std(dim=-1))


def make(kind="classification", *, metric=True, head=True, learn_beta=True, loss="rmse", **words):
    torch.manual_seed(0)
    classes = {"classification": 2, "regression": None, "multiclass": 3}[kind]
    made = None
    if head:
        made = Head(6, 4, 0.0, outputs=3 if kind == "multiclass" else 1)
        if kind == "regression":
            made.set_scale(16.0, 8.0)
    part = LabelMetric(
        mining="npair" if classes else "label", classes=classes, learn_beta=learn_beta
    )
    threshold = 16.0 if kind == "classification" else None
    task = Task(kind, threshold=threshold, loss=loss)
    method = SupDML(
        Encoder(), made, metric=part if metric else None, task=task, optim=Optim(), **words
    )
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def batch(n=32, seed=0, kind="regression"):
    draw = torch.Generator().manual_seed(seed)
    ecg = torch.randn(n, 3, 50, generator=draw)
    size = torch.rand(n, generator=draw) + 0.5
    label = 16 + 16 * (size - 1)
    if kind == "multiclass":
        label = ((size - 0.5) * 3).floor()
    return {
        "ecg": ecg * size[:, None, None],
        "index": torch.arange(n),
        "patient": torch.arange(n) // 2 + 2**62,
        "label": label,
    }


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 1.0), (3.0, 0.5)])
def test_the_joint_loss_is_the_weighted_sum(alpha, weight):
    method, one = make(alpha=alpha, task_weight=weight).eval(), batch()
    torch.manual_seed(5)
    loss = method.training_step(one, 0)
    logged = method.logged
    torch.testing.assert_close(loss, alpha * logged["metric"] + weight * logged["task"])
    torch.manual_seed(5)
    z = method.encoder(one["ecg"])
    labels = (one["label"] > 16).long()
    found = listed(method.metric.mine(z, labels))
    expected = margin_loss(z.double(), found)
    torch.testing.assert_close(logged["metric"].double(), expected, rtol=1e-5, atol=1e-7)
    logit = method.head(z)[:, 0]
    torch.testing.assert_close(
        logged["task"], binary_cross_entropy_with_logits(logit, labels.float())
    )
    assert logged["valid"] == 1
    assert logged["beta"] == torch.tensor(1.2)


@pytest.mark.parametrize(("unit", "scale"), [("sd", 8.0), ("label", 1.0)])
def test_the_published_task_loss_of_a_value(unit, scale):
    method, one = make("regression", unit=unit).eval(), batch()
    method.training_step(one, 0)
    said = method.head(method.encoder(one["ecg"]))[:, 0]
    errors = (said - one["label"]).double() / scale
    expected = (errors.square().mean() + 1e-6).sqrt()
    torch.testing.assert_close(method.logged["task"].double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["classification", "regression", "multiclass"])
def test_encoder_head_and_beta_learn(kind):
    """B6: the published optimiser gets neither head nor beta."""
    method = make(kind)
    method._trainer = type("Trainer", (), {"max_steps": 100})()
    method.optim = Optim(lr=1e-2, warmup_steps=0)
    optimizer = method.configure_optimizers()["optimizer"]
    before = {name: value.clone() for name, value in method.named_parameters()}
    assert "metric.loss.beta" in before
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = method.training_step(batch(kind=kind), step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    still = [n for n, value in method.named_parameters() if torch.equal(before[n], value)]
    assert still == []
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_an_untrained_head_is_what_was_published():
    method = make(train_head=False)
    method.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in method.head.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.encoder.parameters())


def test_each_part_can_be_alone():
    metric = make(head=False)
    loss = metric.training_step(batch(), 0)
    assert "task" not in metric.logged
    torch.testing.assert_close(loss, metric.logged["metric"])
    task = make(metric=False)
    loss = task.training_step(batch(), 0)
    assert "metric" not in task.logged
    torch.testing.assert_close(loss, task.logged["task"])
    with pytest.raises(ValueError, match="a head or a metric"):
        make(head=False, metric=False)


def test_validation_without_a_head_asks_the_nearest_neighbour():
    line = torch.tensor([[0.0], [0.1], [1.0], [1.2], [5.0]])
    labels = torch.tensor([1.0, 2.0, 7.0, 9.0, 4.0])
    patients = torch.tensor([3.0, 3.0, 4.0, 5.0, 5.0])
    # neighbours of other patients: 2, 2, 3, 2, 2
    wrong = neighbour_error(line, labels, patients, classes=False)
    assert wrong.item() == pytest.approx((6 + 5 + 2 + 2 + 3) / 5)
    classes = torch.tensor([1.0, 0.0, 1.0, 1.0, torch.nan])
    found = neighbour_error(line, classes, patients, classes=True)
    assert found.item() == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match="neighbour of another patient"):
        neighbour_error(line, labels, torch.zeros(5), classes=False)

    method, one = make(head=False).eval(), batch()
    for rows_ in (slice(0, 10), slice(10, 32)):
        method.validation_step({name: column[rows_] for name, column in one.items()}, 0)
    method.on_validation_epoch_end()
    z = method.encoder(one["ecg"])
    apart = torch.cdist(z, z)
    apart[one["patient"][:, None] == one["patient"]] = math.inf
    target = one["label"] > 16
    expected = (target != target[apart.argmin(dim=1)]).float().mean()
    assert method.logged["val_loss"] == expected


def test_validation_with_a_head_judges_its_predictions():
    method, one = make("regression").eval(), batch()
    method.validation_step(one, 0)
    method.on_validation_epoch_end()
    said = method.head(method.encoder(one["ecg"]))[:, 0]
    rmse = (said - one["label"]).square().mean().sqrt()
    torch.testing.assert_close(method.logged["val_loss"], rmse)


@pytest.mark.parametrize(
    "words",
    [
        {"mining": "label", "classes": 2},
        {"mining": "npair", "classes": None},
        {"mining": "label", "classes": None, "metric": "angular"},
    ],
)
def test_refuses_what_does_not_go_together(words):
    with pytest.raises(ValueError, match=r"does not go with|is for classes"):
        LabelMetric(**words)


def test_who_watches_embeddings_sees_those_of_training_alone():
    method, one = make().eval(), batch()
    method.validation_step(one, 0)
    assert method.embedded is None
    method.train().training_step(one, 0)
    assert method.embedded.shape == (32, 6)
