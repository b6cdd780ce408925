"""SSLDML: it learns, logs what tells a collapse, leaves broken records out."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.losses.log_ratio import LogRatioLoss
from ecgfast.losses.mined import MinedNTXentLoss
from ecgfast.losses.triplet import TripletLoss
from ecgfast.methods.ssl_dml import SSLDML
from ecgfast.miners.distance import InputDistance
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.miners.pools import InBatch, Ring
from ecgfast.miners.rows import Negatives
from ecgfast.testing import make_ecg
from python_tests import mining_ranks as ranks


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def listening(method):
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def make(encoder=None, margin=0.2, negative="random", topk=2):
    torch.manual_seed(0)
    encoder = encoder or nn.Sequential(nn.Flatten(), nn.Linear(12 * 64, 8))
    pool, negatives = InBatch(InputDistance("mean_l1")), Negatives(negative, topk=topk)
    return listening(SSLDML(encoder, pool, negatives, TripletLoss(margin), optim=Optim()))


def batch(n=16):
    return {"ecg": make_ecg(n, 12, 64), "index": torch.arange(n) + 500}


def test_loss_is_the_published_formula():
    method, one = make(negative="farthest", topk=2), batch()
    torch.manual_seed(3)
    loss = method.training_step(one, 0)
    torch.manual_seed(3)
    a, p, n, _ = NearestFarthest(negative="farthest", topk=2)(one["ecg"])
    z = method.encoder(one["ecg"])
    hinge = ((z[a] - z[p]) ** 2).sum(1) - ((z[a] - z[n]) ** 2).sum(1) + 0.2
    torch.testing.assert_close(loss, hinge.clamp(min=0).mean())
    torch.testing.assert_close(method.logged["active"], (hinge > 0).float().mean())
    assert method.logged["valid"] == 1


def test_the_clock_knows_what_mining_takes():
    method, one = make(), batch()
    mine = method.pool.forward
    method.pool.forward = lambda *words: time.sleep(0.05) or mine(*words)
    method.training_step(one, 0)
    method.training_step(one, 1)
    assert 0.1 <= method.clock.take()["mining"] < 5
    assert method.clock.take() == {}


def test_learns_and_the_embeddings_do_not_fold():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv1d(12, 16, 9, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8))
    method, one = make(encoder, negative="farthest"), batch(32)
    encoder(one["ecg"])
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = method.training_step(one, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert method.logged["embedding_std"] > 0.1


def test_a_collapsed_encoder_shows():
    method = make()
    nn.init.zeros_(method.encoder[1].weight)
    loss = method.training_step(batch(), 0)
    assert loss.item() == pytest.approx(0.2)  # the margin: nothing is learnt from it
    assert method.logged["embedding_std"] == 0
    assert method.logged["active"] == 1


def test_a_broken_record_neither_counts_nor_poisons():
    method, one = make(), batch()
    one["ecg"][3, 2, 10:20] = torch.nan
    loss = method.training_step(one, 0)
    loss.backward()
    assert method.logged["valid"] == 15 / 16
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_too_few_records_give_zero_and_no_gradient():
    method, one = make(), batch(4)
    one["ecg"][:2] = torch.nan
    loss = method.training_step(one, 0)
    loss.backward()
    assert loss == 0
    assert method.logged["valid"] == 0
    assert all((p.grad == 0).all() for p in method.parameters())


def test_a_step_repeats_under_the_same_seed():
    method, one = make(), batch()
    torch.manual_seed(11)
    first = method.training_step(one, 0)
    torch.manual_seed(11)
    assert torch.equal(first, method.training_step(one, 0))


def test_50_steps_without_a_triplet_bring_a_warning():
    method, one = make(), batch(2)  # two records are no triplet
    for step in range(49):
        assert method.training_step(one, step) == 0
    with pytest.warns(UserWarning, match="0 of 2 anchors have had a triplet for 50 steps in a row"):
        method.training_step(one, 49)


def test_the_same_patients_share_is_of_those_that_are_known():
    patient = torch.tensor([0, 0, 1, 1, -1, -1, 2, 3])
    ids = torch.stack([torch.arange(8), torch.arange(8), patient])
    ecg = make_ecg(8, 12, 64)
    ecg[1], ecg[3], ecg[5] = (ecg[i] + 1e-3 for i in (0, 2, 4))  # pairs that are nearest
    method = make()
    method.ids = ids
    method.training_step({"ecg": ecg, "index": torch.arange(8)}, 0)
    assert method.logged["same_patient"] == pytest.approx(4 / 6)
    assert "same_patient" not in make_logged_without_ids()


def make_logged_without_ids():
    method = make()
    method.training_step(batch(), 0)
    return method.logged


def test_the_miner_sees_the_record_and_the_encoder_its_view():
    method, one = make(), batch(6)
    seen = []
    method.encoder.register_forward_pre_hook(lambda _, words: seen.append(words[0]))
    method.augment = lambda ecg: torch.zeros_like(ecg)
    expected = method.pool(one["ecg"], method._ids(one), torch.zeros(6)).positives
    mined = []
    method.negatives.register_forward_pre_hook(lambda _, words: mined.append(words[0].positives))
    method.training_step(one, 0)
    assert (seen[0] == 0).all()
    assert torch.equal(mined[0], expected)


def test_a_ring_encodes_the_positive_of_now():
    method = make()
    method.pool = Ring(InputDistance("mean_l1"), size=32)
    method.loss = MinedNTXentLoss()
    method.projector = nn.Linear(8, 4)
    for step in range(3):
        one = batch(8)
        one["index"] = torch.arange(8) + 8 * step
        one["ecg"] = make_ecg(8, 12, 64, seed=step)
        method.training_step(one, step)
    assert method.embedded.shape == (16, 8)
    assert method.pool.filled == 24
    assert method.logged["valid"] == 1


def test_two_ranks_that_mine_together_are_one_process(tmp_path):
    words = [sys.executable, "-P", ranks.__file__, str(tmp_path / "store"), str(tmp_path / "out")]
    started = [
        subprocess.Popen(
            [*words, ",".join(ranks.CASES)],
            env={**os.environ, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    found = torch.load(tmp_path / "out", weights_only=True)
    for kind in ranks.CASES:
        alone, two = ranks.run(kind), found[kind]
        assert (alone["losses"] > 0).all(), kind
        torch.testing.assert_close(two["losses"], alone["losses"], rtol=1e-10, atol=0)
        for name, expected in alone["gradients"].items():
            scale = expected.abs().max()
            assert scale > 0, kind
            assert (two["gradients"][name] - expected).abs().max() <= 1e-10 * scale, (kind, name)


def test_all_distances_teach_and_broken_records_and_copies_do_not():
    method, one = make(), batch(8)
    method.pool, method.loss = InBatch(InputDistance("mean_l1")), LogRatioLoss()
    one["ecg"][3, 0, 5] = torch.nan
    method.ids = torch.arange(600).repeat(3, 1)
    method.ids[0, 506] = 505  # a copy
    loss = method.training_step(one, 0)
    kept = torch.tensor([i for i in range(8) if i != 3])
    z, ecg = method.encoder(one["ecg"].nan_to_num())[kept], one["ecg"][kept]
    among = torch.ones(7, 7, dtype=torch.bool)
    among[4, 5] = among[5, 4] = False
    expected = LogRatioLoss()(z, InputDistance("mean_l1")(ecg), among)
    torch.testing.assert_close(loss, expected)
    loss.backward()
