"""EchoCLR as whole runs: who is paired and when, what is drawn, what is kept, what is refused."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from ecgfast.config import Fit, Optim, Projector, Store
from ecgfast.config.clips import ClipFit, ClipNet, ClipViews
from ecgfast.config.echoclr import Config
from ecgfast.data.records import DataError
from ecgfast.data.synthetic import write_cohort
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.systems import echoclr
from ecgfast.systems.parts import ENCODERS, from_description
from ecgfast.train.checkpoint import load_contract, load_encoder
from ecgfast.train.contract import ContractError
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from ecgfast.transforms.frame_order import order_code
from python_tests.video_files import clip_store

NET = ClipNet(width=2, size=16, frames=3, step=2)
HOW = Fit(steps=4, batch_size=8, log_every=1, accelerator="cpu", devices=1, progress=False)
DATA = Store(splits=("all",), patients=8)
LENGTHS = [9, 12, 4, 20, 3, 9, 11, 9, 9]  # of v0 to v8; v8 is alone in its study; clips span 5


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return clip_store(tmp_path_factory.mktemp("echo") / "store", LENGTHS)


def config(out="runs/none", **words):
    how = {
        name: words.pop(name) for name in ("steps", "batch_size", "micro_batch") if name in words
    }
    base = {
        "data": DATA,
        "encoder": NET,
        "projector": Projector(dim=8, hidden=16),
        "optim": Optim(lr=1e-3, warmup_steps=0, schedule="constant"),
    }
    return Config(**{**base, "fit": dataclasses.replace(HOW, out=str(out), **how), **words})


def of(store, **words):
    return config(data=Store(paths=(str(store.path),), splits=("all",)), **words)


def pairs_of(run, steps, **how):
    """Videos and first frames ``(steps, 2, pairs)`` that a run deals."""
    sampler = run.data.sampler(**{"rank": 0, "world_size": 1, "start_step": 0, **how})
    drawn = np.array([sampler.batch(step) for step in range(steps)])
    return np.divmod(drawn.reshape(steps, 2, -1), 2**20)


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v or 0) for k, v in row.items()} for row in csv.DictReader(file)]


def test_synthetic_videos_are_pretrained_and_the_folder_is_a_checkpoint(tmp_path, capsys):
    fit(echoclr.build, config(tmp_path / "run", micro_batch=4))
    said = capsys.readouterr().out
    assert "clips: 3 frames, 2 apart, 133 ms at 30 frames/s\n" in said
    assert "one pair a study a batch" in said
    rows = rows_of(tmp_path / "run")
    names = ["loss", "contrastive", "order_loss", "order_accuracy", "order_known", "embedding_std"]
    for name in [*names, "similarity", "similarity_others"]:
        assert np.isfinite([row[name] for row in rows]).all(), name
    for row in rows:
        assert row["loss"] == pytest.approx(row["contrastive"] + row["order_loss"], abs=1e-5)
        assert row["order_known"] == 1
    contract = load_contract(tmp_path / "run")
    assert contract.synthetic
    assert contract.clips == ClipFit(size=16)
    assert contract.model["class"] == "ClipEncoder"
    assert contract.model["arguments"] == {
        **{"net": "r3d_18", "width": 2, "size": 16, "grey": True, "frames": 3, "step": 2},
        **{"scale": "min_max", "motion": False, "dropout": 0.0, "embedding_dim": 16},
    }
    encoder = from_description(contract.model, ENCODERS)
    assert isinstance(encoder, ClipEncoder)
    card = (tmp_path / "run" / "card.md").read_text()
    assert f"- videos of echocardiograms, brought to {contract.clips.line()}\n" in card
    assert "- clips of 3 frames, one of every 2\n" in card
    assert " leads" not in card  # no line of an ECG; the command may name a file with the word
    assert {path.name for path in (tmp_path / "run").glob("*.safetensors")} == {
        "encoder.safetensors"
    }
    assert load_encoder(tmp_path / "run", encoder).matched
    assert encoder.eval()(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 16)


def test_without_an_order_there_is_no_head_and_frames_stay(tmp_path):
    run = echoclr.build(config(order=0.0))
    assert run.method.orders is None
    assert run.method.order_head is None
    fit(echoclr.build, config(tmp_path / "run", order=0.0, steps=1))
    assert not any(name.startswith("order") for name in rows_of(tmp_path / "run")[0])
    echoclr.build(config(order=0.0, encoder=dataclasses.replace(NET, frames=8, step=1)))


@pytest.mark.parametrize("pair", ["study", "video", "both"])
@pytest.mark.parametrize("deal", ["studies", "pairs"])
def test_pairs_are_who_they_should_be(store, pair, deal):
    run = echoclr.build(of(store, pair=pair, deal=deal, batch_size=4, mask="none"))
    video, first = pairs_of(run, 200)
    study = np.array([n // 2 for n in range(len(LENGTHS))])
    assert (study[video[:, 0]] == study[video[:, 1]]).all()
    itself = video[:, 0] == video[:, 1]
    if pair == "study":
        assert (itself == (video[:, 0] == 8)).all()  # alone in its study
    elif pair == "video":
        assert itself.all()
    else:
        assert 0.2 < itself[video[:, 0] != 8].mean() < 0.8
    assert (first + 4 < np.array(LENGTHS)[video]).all(where=np.array(LENGTHS)[video] >= 5)
    assert (first == 0).all(where=np.array(LENGTHS)[video] < 5)
    long = itself & (np.array(LENGTHS)[video[:, 0]] == 20)
    if long.sum() > 10:
        assert (first[:, 0][long] != first[:, 1][long]).mean() > 0.7
    if deal == "studies":
        assert (study[video[:, 0, 0]] != study[video[:, 0, 1]]).all()  # one pair a study a batch
        often = np.bincount(study[video[:, 0]].ravel(), minlength=5)
        assert often.min() > 0.75 * often.max()
    else:
        count = {"study": 5, "video": 9, "both": 13}[pair]
        whole = pairs_of(run, count // 2)[0].transpose(0, 2, 1).reshape(-1, 2)
        assert len({tuple(sorted(p)) for p in whole.tolist()}) == count // 2 * 2  # none twice


def test_a_video_may_meet_itself_at_one_moment(store):
    run = echoclr.build(of(store, pair="video", moment="same", batch_size=4))
    video, first = pairs_of(run, 50)
    assert (video[:, 0] == video[:, 1]).all()
    assert (first[:, 0] == first[:, 1]).all()
    assert len(np.unique(first)) > 10


def test_what_is_dealt_and_drawn_is_of_the_step_and_of_all_ranks_together(store):
    run = echoclr.build(of(store, batch_size=4))
    whole = pairs_of(run, 6)
    again = run.data.sampler(rank=0, world_size=1, start_step=3)
    assert next(iter(again)) == again.batch(3)
    assert (np.divmod(np.array(again.batch(3)).reshape(2, -1), 2**20)[0] == whole[0][3]).all()
    run = echoclr.build(of(store, batch_size=8))
    parts = echoclr.build(of(store, batch_size=4))
    one = pairs_of(run, 5)
    two = [pairs_of(parts, 5, rank=rank, world_size=2) for rank in (0, 1)]
    for place in (0, 1):  # videos, then first frames
        assert (np.concatenate([part[place] for part in two], axis=2) == one[place]).all()


def test_batches_hold_clips_of_their_videos_and_of_whom(store):
    run = echoclr.build(of(store, batch_size=8))
    sampler = run.data.sampler(rank=0, world_size=1, start_step=0)
    batch = run.data.prepare(run.data.dataset.batch(sampler.batch(0)))
    (video, first), clips = (part[0].ravel() for part in pairs_of(run, 1)), batch["ecg"]
    assert clips.shape == (8, 1, 3, 16, 16)
    assert clips.dtype == torch.uint8
    for clip, number, begin in zip(clips.numpy(), video, first, strict=True):
        assert (clip[0, :, 0, 0] == number).sum() >= 2
        shown = clip[0, clip[0, :, 0, 0] == number, 0, 1]
        assert shown.tolist() == list(range(begin, min(begin + 5, LENGTHS[number]), 2))
    assert batch["index"].tolist() == video.tolist()
    assert len(batch["study"].unique()) == 4
    assert (batch["study"][:4] == batch["study"][4:]).all()
    assert (batch["patient"][:4] == batch["patient"][4:]).all()


def test_short_videos_are_told_and_not_asked_for_their_order(store, tmp_path, capsys):
    data = Store(paths=(str(store.path),), splits=("all",))
    fit(echoclr.build, config(tmp_path / "run", data=data, batch_size=8, steps=8))
    assert (
        "clips: 3 frames, 2 apart, 80 ms at 50 frames/s; 2 of 9 videos have under 5 frames: black "
        "ones fill their clips, whose order is not asked for"
    ) in capsys.readouterr().out
    known = {row["order_known"] for row in rows_of(tmp_path / "run")}
    assert known <= {0.5, 0.625, 0.75, 0.875, 1.0}
    assert min(known) < 1
    assert not load_contract(tmp_path / "run").synthetic
    long = dataclasses.replace(NET, step=20)
    words = r"error\[frames\] the longest of 9 videos has 20 frames, a clip spans 41: no order"
    with pytest.raises(DataError, match=words):
        echoclr.build(config(data=data, encoder=long))
    echoclr.build(config(data=data, encoder=long, order=0.0))


def test_frames_whose_order_may_be_read_off_a_clock_are_noted(tmp_path, capsys):
    bare = clip_store(tmp_path / "bare", LENGTHS, ClipFit(size=16, mask="none"))
    echoclr.build(of(bare))
    assert "note: frames are not masked, and a clock or an ECG's trace" in capsys.readouterr().out
    echoclr.build(of(bare, order=0.0))
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("mask", ["none", "patient"])
def test_the_loss_is_that_of_the_views_drawn(store, mask):
    torch.manual_seed(0)
    run = echoclr.build(of(store, deal="pairs", mask=mask, order=0.5, batch_size=8))
    method = run.method.eval()  # one clip in, one embedding out
    method.log_dict = lambda values: None
    sampler = run.data.sampler(rank=0, world_size=1, start_step=0)
    batch = run.data.prepare(run.data.dataset.batch(sampler.batch(2)))
    torch.manual_seed(7)
    loss = method.training_step(batch, 0)
    torch.manual_seed(7)
    shown, code = method.orders(8)
    views = method.views(batch["ecg"], shown)
    assert views.min() == 0
    assert views.max() == 1
    embeddings = method.encoder(views)
    z = functional.normalize(method.projector(embeddings))
    logits = z @ z.T / 0.05
    places = torch.arange(8)
    partner = places.roll(4)
    patient = batch["patient"]
    out = places[:, None] == places
    if mask == "patient":
        out |= (patient[:, None] == patient) & (partner[:, None] != places)
        assert out.sum() > 8
    expected = functional.cross_entropy(logits.masked_fill(out, -torch.inf), partner)
    black = (batch["ecg"].flatten(3) == 0).all(dim=3).any(dim=2)[:, 0]
    told = functional.cross_entropy(method.order_head(embeddings)[~black], code[~black])
    assert torch.equal(order_code(shown), code)
    torch.testing.assert_close(loss, expected + 0.5 * told)


def test_a_finished_part_goes_on_as_the_whole(tmp_path):
    words = {"deal": "pairs", "pair": "both", "views": ClipViews(flip=0.5, whole_degrees=True)}
    fit(echoclr.build, config(tmp_path / "whole", **words))
    fit(echoclr.build, config(tmp_path / "parts", steps=2, **words))
    fit(echoclr.build, config(tmp_path / "parts", steps=4, **words))
    whole, parts = (rows_of(tmp_path / name) for name in ("whole", "parts"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]
    weights = [(tmp_path / n / "encoder.safetensors").read_bytes() for n in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_it_learns_on_synthetic_hearts(tmp_path):
    out = tmp_path / "run"
    words = {"encoder": dataclasses.replace(NET, width=8, size=24, step=5)}
    words |= {"data": dataclasses.replace(DATA, patients=12), "views": ClipViews(pad=0, rotate=0)}
    words |= {"optim": Optim(lr=3e-3, warmup_steps=0, schedule="constant"), "order": 0.0}
    fit(echoclr.build, config(out, steps=80, batch_size=24, temperature=0.2, **words))
    rows = rows_of(out)
    losses = [row["contrastive"] for row in rows]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    gap = [row["similarity"] - row["similarity_others"] for row in rows]
    assert np.mean(gap[-10:]) > np.mean(gap[:10]) + 0.05


def test_weights_of_a_file_begin_the_run_and_are_counted(tmp_path, capsys):
    weights = echoclr.build(config()).method.encoder.net.state_dict()
    published = {f"module.{name}": value for name, value in weights.items()}
    torch.save({**published, "module.fc.weight": torch.zeros(400, 16)}, tmp_path / "w.pth")
    capsys.readouterr()
    torch.manual_seed(99)
    run = echoclr.build(config(encoder=dataclasses.replace(NET, weights=str(tmp_path / "w.pth"))))
    assert "100 of 100 weights matched (100.0% of the parameters)" in capsys.readouterr().out
    again = run.method.encoder.net.state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert "weights" not in run.contract.model["arguments"]
    with pytest.raises(RunError, match=r"error\[encoder\] there is no file of weights") as caught:
        echoclr.build(config(encoder=dataclasses.replace(NET, weights="nowhere.pth")))
    assert caught.value.code == 2


def test_stores_of_other_frames_and_of_signals_are_refused(store, tmp_path):
    with pytest.raises(ContractError, match=r"size: encoder expects 32, .* has 16"):
        echoclr.build(of(store, encoder=dataclasses.replace(NET, size=32)))
    with pytest.raises(ContractError, match=r"grey: encoder expects False, .* has True"):
        echoclr.build(of(store, encoder=dataclasses.replace(NET, grey=False)))
    write_cohort(tmp_path / "ecg", 2, seed=0)
    with pytest.raises(ContractError, match="holds no videos"):
        echoclr.build(config(data=Store(paths=(str(tmp_path / "ecg"),), splits=("all",))))


@pytest.mark.parametrize("words", [{"grey": False}, {"scale": "kinetics"}])
def test_motion_is_of_grey_clips_and_of_no_weights_that_know_colours(words):
    with pytest.raises(ValueError, match="grey must be true and scale not kinetics"):
        ClipNet(motion=True, **words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 7}, "must be even and 4 or more, got 7"),
        ({"batch_size": 2}, "must be even and 4 or more, got 2"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"order": -1.0}, "order must be 0 or more"),
        ({"encoder": ClipNet(frames=7)}, "7 frames cannot be put in order, 2 to 6 can"),
        ({"encoder": ClipNet(frames=1)}, "1 frames cannot be put in order"),
        ({"encoder": ClipNet(net="none")}, "a network for clips, got none"),
        (
            {"pair": "video", "moment": "same", "order": 0.0, "views": ClipViews(pad=0, rotate=0)},
            "views draw nothing .* add --moment apart",
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_teach_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(**words)


def test_more_pairs_than_studies_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(RunError, match=r"error\[batch\] a step takes 100 pairs .* lower the batch"):
        fit(echoclr.build, config(tmp_path / "run", batch_size=200))
