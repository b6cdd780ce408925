"""SimCLR, CMSC, PCLR, VICReg: each is its formula, its pairs are who they should be, it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.losses.vicreg import VICRegLoss
from ecgfast.methods.cmsc import CMSC
from ecgfast.methods.pclr import PCLR
from ecgfast.methods.simclr import SimCLR
from ecgfast.methods.vicreg import VICReg
from ecgfast.methods.views import similarity, spread, view_labels
from ecgfast.models.heads import Projector
from ecgfast.ops.augment import AugmentSpec
from ecgfast.testing import make_ecg
from ecgfast.transforms.augment import Augment
from python_tests.ranks import load, two_ranks

METHODS = ["simclr", "cmsc", "pclr", "vicreg"]
PATIENTS = torch.tensor([70, 80, 90, 70, 60, 50])  # 0 and 3 are of one patient
PAIRED = torch.tensor([70, 80, 90, 70, 80, 90])


class Encoder(nn.Module):
    """Of any length: means over time of a convolution, so that halves pass too."""

    def __init__(self, leads=3, dim=8):
        super().__init__()
        self.map = nn.Conv1d(leads, dim, 5, bias=False)

    def forward(self, ecg):
        return self.map(ecg).tanh().mean(dim=-1)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def make(name, augment=None, gather=False, **words):
    torch.manual_seed(0)
    augment = augment or Augment(AugmentSpec(noise_mv=(0.5, 0.5)))
    parts = (Encoder(), Projector(8, 6, hidden=7, batch_norm=name == "vicreg"), augment)
    common = {"optim": Optim()}
    if name == "vicreg":
        method = VICReg(*parts, VICRegLoss(gather=gather), **common)
    elif name == "simclr":
        words = {"mask_patients": False, **words}
        method = SimCLR(*parts, temperature=0.2, gather=gather, **words, **common)
    elif name == "cmsc":
        words = {"by_patient": True, "mask_patients": False, **words}
        method = CMSC(*parts, temperature=0.2, gather=gather, **words, **common)
    else:
        method = PCLR(*parts, temperature=0.2, gather=gather, **words, **common)
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def batch(patients=PATIENTS):
    n = len(patients)
    ecg = (
        make_ecg(n, 3, 41) + torch.arange(n)[:, None, None] / n
    )  # odd: no sample is in both halves
    return {"ecg": ecg, "index": torch.arange(n) * 3 + 100, "patient": patients}


def still():
    """An augmentation that draws nothing."""
    return Augment(AugmentSpec())


def cosines(ones, others):
    return nn.functional.normalize(ones) @ nn.functional.normalize(others).T


def nt_xent(projections, positives, negatives, temperature=0.2):
    """The mean over positive pairs, by loops; positives and negatives say who of whom."""
    logits = cosines(projections, projections) / temperature
    losses = []
    for a in range(len(projections)):
        others = [n for n in range(len(projections)) if n != a and negatives(a, n)]
        for p in range(len(projections)):
            if p != a and positives(a, p):
                rows = logits[a, [p, *others]]
                losses.append(torch.logsumexp(rows, 0) - logits[a, p])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("mask", [False, True])
def test_simclr_is_its_formula(mask):
    method, one = make("simclr", mask_patients=mask), batch()
    torch.manual_seed(3)
    loss = method.training_step(one, 0)
    torch.manual_seed(3)
    views = torch.cat([method.augment(one["ecg"]), method.augment(one["ecg"])])
    assert not torch.equal(views[:6], views[6:])
    of = [i % 6 for i in range(12)]
    who = [int(PATIENTS[i]) for i in of]
    expected = nt_xent(
        method.projector(method.encoder(views)),
        lambda a, b: of[a] == of[b],
        lambda a, b: of[a] != of[b] and not (mask and who[a] == who[b]),
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("by_patient", "mask"), [(True, False), (False, False), (False, True)], ids=str
)
def test_cmsc_is_its_formula(by_patient, mask):
    method = make("cmsc", still(), by_patient=by_patient, mask_patients=mask)
    one = batch()
    loss = method.training_step(one, 0)
    first, second = one["ecg"][..., :20], one["ecg"][..., 21:]
    a, b = (method.projector(method.encoder(half)) for half in (first, second))
    own = PATIENTS if by_patient else one["index"]
    terms = []
    for logits in (cosines(a, b) / 0.2, cosines(b, a) / 0.2):
        for i in range(6):
            near = own == own[i]
            seen = near | (PATIENTS[i] != PATIENTS) if mask else torch.ones(6, dtype=torch.bool)
            terms.append((torch.logsumexp(logits[i, seen], 0) - logits[i, near]).mean())
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    torch.testing.assert_close(method.logged["similarity"], cosines(a, b).diag().mean())


def test_pclr_is_its_formula():
    method, one = make("pclr", still()), batch(PAIRED)
    loss = method.training_step(one, 0)
    expected = nt_xent(
        method.projector(method.encoder(one["ecg"])),
        lambda a, b: abs(a - b) == 3,
        lambda a, b: abs(a - b) != 3,
    )
    torch.testing.assert_close(loss, expected)


def test_vicreg_is_its_formula():
    method, one = make("vicreg"), batch()
    torch.manual_seed(3)
    loss = method.training_step(one, 0)
    torch.manual_seed(3)
    views = torch.cat([method.augment(one["ecg"]), method.augment(one["ecg"])])
    one, other = method.projector(method.encoder(views)).chunk(2)
    expected = 25 * (one - other).square().mean()
    for view in (one, other):
        table = torch.cov(view.T)
        expected = expected + 25 * torch.relu(1 - (table.diag() + 1e-4).sqrt()).mean()
        expected = expected + (table - table.diag().diag()).square().sum() / view.shape[1]
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", METHODS)
def test_learns_by_every_part_and_does_not_collapse(name):
    method, one = make(name), batch(PAIRED if name == "pclr" else PATIENTS)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = method.training_step(one, step)
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in method.encoder.parameters())
        assert any(p.grad.any() for p in method.projector.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert method.logged["similarity"] > method.logged["similarity_others"] + 0.1
    assert method.logged["embedding_std"] > 0.01


@pytest.mark.parametrize("name", METHODS)
def test_a_step_repeats_under_the_same_seed_alone(name):
    method, one = make(name), batch(PAIRED)

    def step(seed):
        torch.manual_seed(seed)
        return method.training_step(one, 0)

    assert torch.equal(step(11), step(11))
    assert not torch.equal(step(11), step(12))


@pytest.mark.parametrize("name", METHODS)
def test_a_record_without_samples_poisons_nothing(name):
    method, one = make(name, still() if name != "vicreg" else None), batch(PAIRED)
    one["ecg"][1] = torch.nan
    one["ecg"][2, 0, 5:9] = torch.nan
    loss = method.training_step(one, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("name", ["simclr", "cmsc", "pclr"])
def test_a_record_without_samples_has_no_positive(name):
    method, one = make(name, still()), batch(PAIRED)
    one["ecg"][:] = torch.nan
    loss = method.training_step(one, 0)
    loss.backward()
    assert loss == 0  # no pair is left
    assert all(not p.grad.any() for p in method.parameters())


def test_a_lone_record_without_samples_is_no_pair_with_itself():
    one = batch(torch.tensor([7, 8, 7, 8]))
    one["index"] = torch.tensor([1, 2, 1, 2])
    one["ecg"][[1, 3]] = torch.nan
    first, second = view_labels(one["patient"], one["index"], one["ecg"])
    labels = torch.cat([first[:2], second[2:]])
    assert labels.tolist() == [7, -5, 7, -6]


def test_similarity_is_the_mean_of_cosines():
    generator = torch.Generator().manual_seed(0)
    ones, others = torch.randn(2, 5, 4, generator=generator)
    table = cosines(ones, others)
    found = similarity(ones, others)
    torch.testing.assert_close(found["similarity"], table.diag().mean())
    apart = table[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(found["similarity_others"], apart.mean())
    assert similarity(ones[:1], others[:1])["similarity_others"].abs() < 1e-6
    assert spread(torch.ones(5, 4))["embedding_std"] == 0


def test_two_ranks_are_one_process(tmp_path):
    every = two_ranks("two_ranks_views", tmp_path)[0]
    script = load("two_ranks_views")
    for name in METHODS:
        found = every[name]
        method, whole = script.whole(name)
        loss = method.training_step(whole, 0)
        loss.backward()
        torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-9, atol=1e-12)
        for key, weight in method.named_parameters():
            torch.testing.assert_close(found["gradients"][key], weight.grad, rtol=1e-7, atol=1e-9)
