"""Clips of videos on their way to a batch: which frames, of which video, at which step."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit
from ecgfast.data.clips import MadeVideos, Windows, synthetic_videos
from ecgfast.data.moments import Moments, MomentSampler
from ecgfast.data.records import DataError
from ecgfast.data.sampler import Lists, PairSampler, Partners, StepSampler
from ecgfast.data.source import SYNTHETIC, open_source
from ecgfast.systems.clips import ONLY_CLIPS, check_clips, fit_of_clips
from ecgfast.systems.parts import check_source, describe
from ecgfast.train.batches import whole_batches
from ecgfast.train.contract import Contract, ContractError, Records, from_json, to_json
from python_tests.video_files import FIT, clip_store, video

LENGTHS = [9, 4, 1, 12, 7, 3, 20, 5]
BIG = 2**20
MODEL = {
    "class": "ClipEncoder",
    "arguments": {"size": 16, "grey": True, "frames": 4, "embedding_dim": 8},
}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores of eight videos each."""
    folder = tmp_path_factory.mktemp("clips")
    clip_store(folder / "a", LENGTHS, shard_frames=16)
    clip_store(folder / "b", LENGTHS, first=8)
    return [str(folder / "a"), str(folder / "b")]


def opened(paths, splits=("all",), **words):
    return open_source(paths, splits, **{"signal": Signal(), "patients": 1, **words})


def clip(number, first, frames, step=1, length=None):
    """What a clip must be, ``(C, F, S, S)``."""
    length = LENGTHS[number % 8] if length is None else length
    whole = np.zeros((length + frames * step, *FIT.shape), np.uint8)
    whole[:length] = video(number, length)
    return np.moveaxis(whole[first : first + frames * step : step], 1, 0)


def test_moments_of_several_stores_come_in_the_order_asked(stores):
    source = opened(stores).take(np.array([15, 3, 0, 9, 6]))
    moments = Moments(source.dataset, frames=4, step=2)
    asked = [(4, 11), (0, 2), (1, 0), (4, 0), (3, 3), (2, 8)]
    batch = moments.batch([video * BIG + first for video, first in asked])
    names = [15, 3, 0, 9, 6]
    for got, (place, first) in zip(batch["ecg"], asked, strict=True):
        np.testing.assert_array_equal(got.numpy(), clip(names[place], first, 4, 2))
    assert batch["ecg"].dtype == torch.uint8
    assert batch["index"].tolist() == [place for place, _ in asked]
    assert batch["patient"].tolist() == source.patients()[[4, 0, 1, 4, 3, 2]].tolist()
    assert batch["study"].tolist() == source.studies()[[4, 0, 1, 4, 3, 2]].tolist()
    assert "gain" not in batch
    one = moments[3 * BIG + 3]
    assert torch.equal(one["ecg"], batch["ecg"][4])


def test_windows_are_evenly_spaced_and_short_videos_are_padded(stores):
    source = opened(stores[:1]).windows(frames=4, step=2, count=3)
    batch = source.dataset.batch(list(range(8)))
    assert batch["ecg"].shape == (8, 1, 12, 16, 16)
    for n, length in enumerate(LENGTHS):
        firsts = np.rint(np.linspace(0, max(length - 7, 0), 3)).astype(int)
        expected = np.concatenate([clip(n, first, 4, 2) for first in firsts], axis=1)
        np.testing.assert_array_equal(batch["ecg"][n].numpy(), expected)
    assert torch.equal(source.dataset[6]["ecg"], batch["ecg"][6])
    taken = source.take(np.array([6, 2]))
    assert torch.equal(taken.dataset.batch([0])["ecg"][0], batch["ecg"][6])


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    frames=st.integers(1, 40),
    step=st.integers(1, 9),
    count=st.integers(1, 12),
)
def test_windows_begin_at_the_first_frame_and_end_at_the_last(lengths, frames, step, count):
    windows = Windows(frames, step, count)
    firsts = windows.firsts(np.array(lengths))
    assert firsts.shape == (len(lengths), count)
    for row, length in zip(firsts.tolist(), lengths, strict=True):
        assert row[0] == 0
        assert row == sorted(row)
        last = max(length - ((frames - 1) * step + 1), 0)
        assert row[-1] == (last if count > 1 else 0)
        assert all(abs(f - i * last / max(count - 1, 1)) <= 0.5 for i, f in enumerate(row))


def test_colours_and_frames_do_not_change_places(tmp_path):
    fit = ClipFit(size=16, grey=False)
    clip_store(tmp_path / "s", [9], fit)
    batch = Moments(opened([str(tmp_path / "s")]).dataset, frames=4).batch([2])
    made = video(0, 9, fit.shape)
    assert batch["ecg"].shape == (1, 3, 4, 16, 16)
    for channel, frame in itertools.product(range(3), range(4)):
        np.testing.assert_array_equal(batch["ecg"][0, channel, frame], made[2 + frame, channel])
    assert batch["ecg"].is_contiguous()


def test_labels_limits_halves_and_fractions_hold_for_videos(stores):
    source = opened(stores, label="lvh", limit=10).windows(frames=2)
    assert len(source) == 10
    assert source.dataset.batch([0, 5, 9])["label"].tolist() == [0, 1, 0]
    first, second = source.half("first"), source.half("second")
    assert len(first) + len(second) == 10
    assert not set(first.patients()) & set(second.patients())
    part = source.fraction(0.5, seed=0, label="lvh")
    assert set(part.table["lvh"]) == {0, 1}
    assert len(part) < 10
    named = opened(stores, label="study_id", classes=["s1", "s0"])
    assert named.windows(frames=2).dataset.batch([0, 3])["label"].tolist() == [1, 0]
    assert len(named) == 4
    assert named.unknown["s2"] == 2


def test_what_nobody_asked_for_is_not_guessed(stores):
    source = opened(stores)
    with pytest.raises(ValueError, match=r"Source\.windows or Moments"):
        source.dataset.batch([0])
    with pytest.raises(ValueError, match="frames, step and count must be 1 or more"):
        source.windows(frames=0)
    with pytest.raises(ValueError, match="must be 1 or more"):
        Moments(source.dataset, frames=4, step=0)
    signals = opened([], signal=Signal(seconds=1.0), patients=4)
    for asked in (signals.studies, signals.lengths, lambda: signals.windows(frames=4)):
        with pytest.raises(ValueError, match="no videos"):
            asked()
    with pytest.raises(ValueError, match="holds none"):
        Moments(signals.dataset, frames=4)


# the sampler


def split_up(indices):
    return np.divmod(np.array(indices), BIG)


def test_the_sampler_deals_the_same_videos_and_moments_that_fit():
    lengths = np.array([30, 2, 4, 100, 7, 5, 61, 9])
    inner = StepSampler(8, 4, seed=3)
    sampler = MomentSampler(inner, lengths, frames=4, step=2, seed=5)
    assert sampler.steps_per_epoch == 2
    seen = [[] for _ in lengths]
    for step, batch in zip(range(1500), sampler, strict=False):
        video, first = split_up(batch)
        assert video.tolist() == inner.batch(step)
        for v, f in zip(video, first, strict=True):
            seen[v].append(f)
    for length, firsts in zip(lengths, seen, strict=True):
        places = max(length - 7 + 1, 1)
        assert min(firsts) == 0
        assert max(firsts) == places - 1  # both ends come
        counts = np.bincount(firsts, minlength=places)
        expected = 750 / places  # each is as likely: chi-squared, far from its 1e-6 quantile
        assert ((counts - expected) ** 2 / expected).sum() < places + 6 * np.sqrt(2 * places) + 20


def test_a_step_is_a_function_of_seed_and_step_alone():
    lengths = np.full(12, 500)

    def dealt(seed, start=0, steps=4, **words):
        inner = StepSampler(12, 4, seed=0, start_step=start)
        return [*itertools.islice(MomentSampler(inner, lengths, 4, 1, seed), steps)]

    whole = dealt(1, steps=9)
    assert dealt(1, start=5) == whole[5:9]
    assert dealt(2, steps=9) != whole
    firsts = split_up(whole)[1].ravel()
    assert len(set(firsts.tolist())) > 30  # of 36 draws of 497


def test_ranks_take_what_one_process_would():
    lengths = np.arange(40, 52)
    one = MomentSampler(StepSampler(12, 6, seed=0), lengths, 4, 1, 7)
    for step in range(6):
        parts = [
            MomentSampler(StepSampler(12, 3, seed=0, rank=r, world_size=2), lengths, 4, 1, 7)
            for r in range(2)
        ]
        assert [i for part in parts for i in part.batch(step)] == one.batch(step)


def test_a_video_that_is_paired_with_itself_gives_two_moments():
    lengths = np.full(6, 400)
    study = np.array([0, 1, 2, 3, 4, 5])  # each a study of one video
    pairs = PairSampler(Lists.of_groups(study), Partners.of_groups(study), 8, seed=0)
    sampler = MomentSampler(pairs, lengths, 4, 1, seed=0)
    same = 0
    for step in range(50):
        video, first = split_up(sampler.batch(step))
        assert (video[:4] == video[4:]).all()
        same += int((first[:4] == first[4:]).sum())
    assert same < 6  # one in 397 by chance


def test_batches_are_equal_for_every_number_of_workers(stores):
    source = opened(stores)
    sampler = MomentSampler(StepSampler(16, 4, seed=0), source.lengths(), 4, 2, seed=1)
    order = list(itertools.islice(sampler, 5))
    moments = Moments(source.dataset, frames=4, step=2)
    loaders = [whole_batches(moments, order, workers=w, seed=0) for w in (0, 2)]
    for here, there in zip(*loaders, strict=True):
        assert here.keys() == there.keys()
        for name in here:
            assert torch.equal(here[name], there[name]), name
    plain = DataLoader(source.windows(frames=2).dataset, batch_size=4)
    assert next(iter(plain))["ecg"].shape == (4, 1, 2, 16, 16)


# SYNTHETIC videos


def test_synthetic_videos_come_without_a_store():
    words = {"patients": 3, "clips": ClipFit(size=32, fps=25.0)}
    source = opened([], ("all", "test"), label="lvh", **words)
    assert source.synthetic
    assert source.clips == {SYNTHETIC: words["clips"]}
    assert source.table["fps"].eq(25).all()
    assert len(set(source.studies().tolist())) == source.table["study_id"].nunique() > 1
    batch = source.windows(frames=4, step=2, count=2).dataset.batch([0, 1])
    videos = synthetic_videos(3, words["clips"]).videos  # of the same process: not made again
    assert batch["ecg"].shape == (2, 1, 8, 32, 32)
    np.testing.assert_array_equal(batch["ecg"][1, 0, :4], videos[1, 0:8:2])
    assert batch["label"].tolist() == source.table["lvh"][:2].tolist()
    fewer = opened([], ("all", "test"), patients=2, clips=words["clips"])
    begin = source.table.iloc[: len(fewer)]
    assert fewer.table["record_id"].tolist() == begin["record_id"].tolist()


def test_synthetic_colours_are_alike():
    fit = ClipFit(size=16, grey=False)
    made = MadeVideos(video(0, 9)[None, :, 0], {"record_id": ["a"]}, fit)
    out = np.full((4, 3, 16, 16), 9, np.uint8)
    made.frames(0, 7, 4, 1, out)
    np.testing.assert_array_equal(out[:2], np.repeat(video(0, 9)[7:9], 3, axis=1))
    assert not out[2:].any()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"patients": 0}, "0 patients"),
        ({"label": "gold"}, "no column 'gold'.*lvh"),
        ({"label": "view"}, "holds text"),
        ({"splits": ("nowhere",)}, "empty_split"),
        ({"patients": 900, "clips": ClipFit(size=512)}, "synthetic.*fewer patients"),
    ],
)
def test_synthetic_videos_that_cannot_be_are_refused(words, match):
    words = {"splits": ("all",), "patients": 1, "clips": ClipFit(size=32), **words}
    with pytest.raises(DataError, match=match):
        opened([], words.pop("splits"), **words)


# what belongs to which encoder


def test_an_encoder_of_clips_takes_its_stores_and_no_others(stores):
    source = opened(stores)
    check_source(source, Signal(), model=MODEL)
    check_source(source, Signal(), model=MODEL, clips=FIT)
    with pytest.raises(ContractError, match=r"mask: encoder expects none, .* has sector"):
        check_source(source, Signal(), model=MODEL, clips=ClipFit(size=16, mask="none"))
    other = {**MODEL, "arguments": {**MODEL["arguments"], "size": 112, "grey": False}}
    with pytest.raises(ContractError, match=r"size, grey:(.|\n)*--size 112 --mask sector --colour"):
        check_source(source, Signal(), model=other)
    signals = opened([], signal=Signal(seconds=1.0), patients=4)
    with pytest.raises(ContractError, match="holds no videos: the run's encoder sees clips"):
        check_source(signals, Signal(seconds=1.0), model=MODEL)
    assert "--modality echo" in ONLY_CLIPS


def test_other_encoders_take_no_videos(stores):
    source = opened(stores)
    for model in (
        {"class": "ResNet1d", "arguments": {}},
        {"class": "PageEncoder", "arguments": {}},
    ):
        with pytest.raises(ContractError, match="holds videos: the run's encoder takes no videos"):
            check_source(source, Signal(), model=model)
    with pytest.raises(ContractError, match="holds videos: they are for an encoder that sees"):
        check_source(source, Signal(), chosen=True)
    with pytest.raises(ContractError, match="--size 16 --mask sector --fps 25"):
        check_clips({"s": FIT}, MODEL, ClipFit(size=16, fps=25.0))


def test_retrieve_searches_videos_by_their_embeddings(stores):
    from types import SimpleNamespace

    from ecgfast.systems.retrieve import open_searched

    def model(described):
        contract = SimpleNamespace(model=described)
        return SimpleNamespace(contract=contract, signal=Signal())

    with pytest.raises(ContractError, match=r"embed the videos.*--embeddings FOLDER"):
        open_searched(model(MODEL), stores)
    with pytest.raises(ContractError, match="holds videos: the run's encoder takes no videos"):
        open_searched(model({"class": "ResNet1d", "arguments": {}}), stores)


def test_contracts_say_which_videos_were_learned_from():
    contract = Contract(
        signal=Signal(),
        model=MODEL,
        synthetic=True,
        trained_on=Records.of(["a"]),
        clips=ClipFit(size=16, fps=25.0),
    )
    plain = json.loads(json.dumps(to_json(contract)))
    assert from_json(plain).clips == contract.clips
    assert describe(contract) == contract.clips.line()
    assert fit_of_clips(contract, mask="none") == ClipFit(size=16, fps=25.0, mask="none")
    without = {k: v for k, v in plain.items() if k != "clips"}
    assert from_json(without).clips is None  # as older files
    assert fit_of_clips(from_json(without)) == FIT
    for hostile in (
        *([], "x", {}, {**plain["clips"], "size": 0}, {**plain["clips"], "size": 2.0}),
        *({**plain["clips"], "fps": float("inf")}, {**plain["clips"], "more": 1}),
    ):
        with pytest.raises(ValueError, match=r"clips|size|fps"):
            from_json({**plain, "clips": hostile})
    with pytest.raises(ValueError, match="both"):
        from_json({**plain, "pages": {"height": 16}})
