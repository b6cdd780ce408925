"""The SYNTHETIC echo cohort: replay, labels that follow from numbers, images from both."""

from __future__ import annotations

import doctest
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from ecgfast import testing
from ecgfast.config.clips import ClipFit
from ecgfast.data import synthetic_echo
from ecgfast.data.clip_store import ClipStore, ClipWriter
from ecgfast.data.records import BadRecord, DataError
from ecgfast.data.sector import find_sector
from ecgfast.data.synthetic_echo import make_echo_cohort, write_echo_cohort
from ecgfast.data.synthetic_echo_patients import BLOCK, SEVERE_CM2, echo_table
from ecgfast.data.synthetic_heart import RISE, Heart, cycle, echoes, root_height
from ecgfast.testing import make_clip


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own operations down."""


@pytest.fixture(scope="module")
def table():
    """Some 5,000 studies, without their videos."""
    return echo_table(4000, fps=30.0, seed=0)[0]


def same(a, b):
    return np.array_equal(a[0], b[0]) and all(np.array_equal(a[1][k], b[1][k]) for k in a[1])


# replay


def test_a_seed_replays_and_another_differs():
    first = make_echo_cohort(2, size=32, frames=5, seed=5)
    assert same(first, make_echo_cohort(2, size=32, frames=5, seed=5))
    other = make_echo_cohort(2, size=32, frames=5, seed=6)
    assert not np.array_equal(first[0][:4], other[0][:4])


def test_fewer_patients_are_the_beginning_of_more():
    more, fewer = (make_echo_cohort(n, size=32, frames=3) for n in (7, 3))
    n = len(fewer[0])
    assert same(fewer, (more[0][:n], {k: v[:n] for k, v in more[1].items()}))
    assert len(set(fewer[1]["patient_id"])) == 3


@pytest.mark.parametrize("patients", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_numbers_of_fewer_patients_are_the_beginning_of_more(patients):
    more, jobs = echo_table(2 * BLOCK, fps=30.0, seed=4)
    fewer, some = echo_table(patients, fps=30.0, seed=4)
    assert len(set(fewer["patient_id"])) == patients
    assert all((column == more[name][: len(column)]).all() for name, column in fewer.items())
    assert some == jobs[: len(some)]
    assert len(some) == len(fewer["record_id"])


def test_thread_count_does_not_show():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(make_echo_cohort(4, size=48, frames=6))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*results)


# patients


def test_labels_follow_from_the_numbers(table):
    septum, posterior, lvid = (table[n] / 10 for n in ("septum_mm", "posterior_mm", "lvid_mm"))
    mass = 0.8 * 1.04 * ((septum + posterior + lvid) ** 3 - lvid**3) + 0.6  # Devereux, g
    index = mass / table["bsa_m2"]
    assert np.abs(index - table["lv_mass_index"]).max() < 0.06
    assert ((table["lv_mass_index"] > np.where(table["sex"], 115, 95)) == table["lvh"]).all()
    assert ((table["valve_area_cm2"] < SEVERE_CM2) == table["as_severe"]).all()


def test_labels_are_as_frequent_as_stated(table):
    _, first = np.unique(table["study_id"], return_index=True)
    assert 0.25 < table["lvh"][first].mean() < 0.35
    assert 0.13 < table["as_severe"][first].mean() < 0.21
    assert 0.52 < table["sex"][first].mean() < 0.58
    assert 50 < table["lvef"][first].mean() < 62
    assert np.corrcoef(table["lvh"][first], table["as_severe"][first])[0, 1] > 0.05


def test_studies_hold_two_to_six_videos_of_one_heart(table):
    studies, first, of, count = np.unique(
        table["study_id"], return_index=True, return_inverse=True, return_counts=True
    )
    assert (count.min(), count.max()) == (2, 6)
    assert len(set(table["record_id"])) == len(table["record_id"])
    for name in ("lvh", "as_severe", "lvef", "wall_mm", "valve_area_cm2", "age", "split"):
        assert (table[name] == table[name][first][of]).all(), name
    assert (table["heart_rate"] != table["heart_rate"][first][of]).any()
    patients, per = np.unique(table["patient_id"][first], return_counts=True)
    assert set(per.tolist()) == {1, 2}
    assert [s.rsplit("-", 1)[0] for s in studies] == np.repeat(patients, per).tolist()


def test_a_patient_is_of_one_part(table):
    _, first, of = np.unique(table["patient_id"], return_index=True, return_inverse=True)
    assert (table["split"] == table["split"][first][of]).all()
    counts = dict(zip(*np.unique(table["split"][first], return_counts=True), strict=True))
    assert counts == {"train": 2400, "val": 800, "test": 800}


# the heart, without noise

HEARTS = [
    Heart(
        lvid=46.0,
        length=48.0,
        septum=9.0,
        posterior=9.0,
        lvef=0.62,
        valve_area=3.0,
        calcium=0.0,
        root=31.0,
        atrium=34.0,
        rr=0.9,
    ),
    Heart(
        lvid=58.0,
        length=56.0,
        septum=16.0,
        posterior=13.0,
        lvef=0.28,
        valve_area=0.7,
        calcium=0.9,
        root=34.0,
        atrium=46.0,
        rr=0.7,
    ),
]
STEP = 0.25  # mm


def at(heart, times):
    return cycle(heart, np.asarray(times), np.full(len(times), heart.rr))


def look(heart, times, x, y):
    """Level and blood on places (P, Q) at some times; beams run straight down."""
    shape = (len(times), *np.broadcast_shapes(np.shape(x), np.shape(y)))
    x, y = (np.broadcast_to(np.float32(values), shape) for values in (x, y))
    level, _, _, blood = echoes(heart, at(heart, times), x, y, (np.float32(0), np.float32(1)))
    return level, blood


def run_at_zero(y, mask):
    """First and last of the values around 0 at which the mask holds."""
    low, high = y[~mask & (y < 0)].max(), y[~mask & (y > 0)].min()
    return low, high


@pytest.mark.parametrize("heart", HEARTS)
def test_walls_and_cavity_are_as_thick_as_their_numbers(heart):
    y = np.arange(-70, 70, STEP)
    level, blood = look(heart, [0.0], 0.0, y[None, :])
    top, bottom = run_at_zero(y, blood[0, 0] > 0.5)
    assert abs((bottom - top) - heart.lvid) < 3 * STEP
    right_ventricle = y[(y < top - 1) & (blood[0, 0] > 0.5)].max()
    assert abs((top - right_ventricle) - heart.septum) < 0.8
    sac = y[y > bottom][level[0, 0][y > bottom].argmax()]  # the brightest lies behind the wall
    assert abs((sac - 1.8 - bottom) - heart.posterior) < 0.8


@pytest.mark.parametrize("heart", HEARTS)
def test_ejection_fraction_of_the_picture_is_the_label(heart):
    times = np.linspace(0, heart.rr, 61)[:-1]
    now = at(heart, times)
    share = np.linspace(-0.999, 0.2, 200)  # of the half length: well before the valves
    y = np.arange(-heart.lvid / 2 - 1, heart.lvid / 2 + 1, STEP)
    x = now.shift + now.a * share[None, :, None]
    volumes = []
    for i in range(len(times)):
        blood = look(heart, times[i : i + 1], x[i], y[None, :])[1][0]
        wide = (blood > 0.5).sum(axis=1) * STEP
        volumes.append((wide**2).sum() * float(now.a[i, 0, 0]))  # discs
    found = 1 - min(volumes) / max(volumes)
    assert abs(found - heart.lvef) < 0.02


@pytest.mark.parametrize("heart", HEARTS)
def test_open_cusps_are_apart_as_the_area_says(heart):
    times = np.linspace(0, heart.rr, 121)[:-1]
    widest = times[at(heart, times).aortic[:, 0, 0].argmax()]
    now = at(heart, [widest])
    away = np.arange(-heart.root / 2 + 2, heart.root / 2 - 2, STEP)
    along = 14.0
    x = float(now.base[0, 0, 0]) + np.cos(RISE) * along + np.sin(RISE) * away
    y = float(root_height(heart, now)[0, 0, 0]) - np.sin(RISE) * along + np.cos(RISE) * away
    level = look(heart, [widest], x[None, :], y[None, :])[0][0, 0]
    upper = away[away < 0][level[away < 0].argmax()]
    lower = away[away > 0][level[away > 0].argmax()]
    assert abs((lower - upper) - heart.separation) < 1.0
    shut = look(heart, [0.9 * heart.rr], x[None, :], y[None, :])[0][0, 0]
    assert np.abs(shut - level).max() > 10  # they move


def test_separation_and_calcium_follow_the_valve():
    one, other = HEARTS
    areas = [replace(one, valve_area=a).separation for a in (0.5, 1.0, 2.0, 3.0)]
    assert areas == sorted(areas)
    assert areas[1] == 8.0
    times = [0.1]
    y, x = np.mgrid[-40:20:STEP, 0:60:STEP]
    bright = [look(replace(other, calcium=c), times, x, y)[0].max() for c in (0.0, 1.0)]
    assert bright[1] > bright[0] + 8


@pytest.mark.parametrize("heart", HEARTS)
def test_muscle_keeps_its_volume_and_valves_take_turns(heart):
    now = at(heart, np.linspace(0, heart.rr, 200))
    h = (now.septum + now.posterior).astype(np.float64) / 2
    a, b = now.a.astype(np.float64), now.b.astype(np.float64)
    shell = (a + h) * (b + h) ** 2 - a * b**2
    assert np.ptp(shell) / shell.mean() < 1e-5
    assert h.argmax() == b.argmin()
    assert not ((now.aortic > 0.01) & (now.mitral > 0.01)).any()
    assert now.aortic.max() > 0.99
    assert now.mitral.max() > 0.99
    assert np.abs(now.b[[0, -1]] - heart.lvid / 2).max() < 0.05
    apex = now.shift - now.a
    assert np.ptp(apex) < 1e-3  # only the base comes down


@pytest.mark.parametrize("heart", HEARTS)
def test_grain_moves_with_tissue(heart):
    """The wall's inner edge lies where it lay in diastole, whatever the time."""
    angle = np.linspace(0.1, 6.1, 40)
    for time in np.linspace(0, heart.rr, 7):
        now = at(heart, [time])
        a, b, shift = (float(values[0, 0, 0]) for values in (now.a, now.b, now.shift))
        x, y = shift + a * np.cos(angle), b * np.sin(angle)
        x, y = (np.float32(values)[None, None, :] for values in (x, y))
        _, u, v, _ = echoes(heart, now, x, y, (np.float32(0), np.float32(1)))
        assert np.abs(u[0, 0] - heart.length * np.cos(angle)).max() < 0.1
        assert np.abs(v[0, 0] - heart.lvid / 2 * np.sin(angle)).max() < 0.1


# videos


@pytest.fixture(scope="module")
def videos():
    """Some 500 small ones."""
    return make_echo_cohort(100, size=40, frames=12)


def test_videos_of_a_study_differ_and_move(videos):
    pixels, _ = videos
    assert pixels.dtype == np.uint8
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == len(pixels)
    still = (pixels[:, 0] == pixels[:, 6]).all(axis=(1, 2))
    assert not still.any()
    lit = pixels.max(axis=1) > 0
    assert not lit[:, :, 0][:, :8].any()  # beside the probe there is no fan
    assert not lit[:, -1, 0].any()
    assert (pixels.reshape(len(pixels), -1).max(axis=1) > 150).mean() > 0.95
    assert (pixels.reshape(len(pixels), -1).mean(axis=1) > 4).mean() > 0.95


def test_brightness_alone_does_not_tell_a_label(videos):
    pixels, table = videos
    mean = pixels.reshape(len(pixels), -1).mean(axis=1)
    for name in ("lvh", "as_severe"):
        assert 0.3 < roc_auc_score(table[name], mean) < 0.7


@pytest.mark.parametrize(("size", "frames", "fps"), [(16, 1, 1.0), (33, 9, 50.0), (113, 2, 25.0)])
def test_any_size_and_number_of_frames(size, frames, fps):
    pixels, table = make_echo_cohort(1, size=size, frames=frames, fps=fps)
    assert pixels.shape == (len(table["record_id"]), frames, size, size)
    assert (table["fps"] == fps).all()
    assert pixels.max() > 100


def test_sizes_show_the_same_heart():
    small, large = (make_echo_cohort(1, size=s, frames=3)[0][0].astype(float) for s in (48, 96))
    halved = large.reshape(3, 48, 2, 48, 2).mean(axis=(2, 4))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"patients": 0}, "patients must be at least 1, got 0"),
        ({"patients": 1, "size": 8}, "size must be 16 to 1024 pixels, got 8"),
        ({"patients": 1, "frames": 0}, "frames must be 1 to 4096, got 0"),
        ({"patients": 1, "fps": float("nan")}, "fps must be 1 to 1000, got nan"),
        ({"patients": 1, "frames": 500, "fps": 4.0}, "120 s at most, got 500 frames at 4 a second"),
        (
            {"patients": 3, "size": 1024, "frames": 4096, "fps": 50.0},
            "take fewer patients or frames",
        ),
    ],
)
def test_bad_requests_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        make_echo_cohort(**bad)


def test_what_is_burnt_in_lies_around_the_fan_and_the_sector_takes_it_away():
    plain, table = make_echo_cohort(3, size=96, frames=24, fps=20.0)
    written, same_table = make_echo_cohort(3, size=96, frames=24, fps=20.0, burnt_in=True)
    assert all((column == same_table[name]).all() for name, column in table.items())
    found = 0
    for without, video in zip(plain, written, strict=True):
        fan = without.max(axis=0) > 0
        burnt = (video != without).any(axis=0) & ~fan
        assert burnt.sum() > 150
        assert burnt[-10:].sum() > 10  # the ECG
        try:
            mask = find_sector(video[..., None]).mask
        except BadRecord:  # where most of the fan is black, none is found: refused, not guessed
            continue
        rim = ndimage.binary_dilation(fan)  # the fan that is found may be a pixel wider
        assert not (mask & burnt & ~rim).any()
        found += (mask & fan).sum() > 0.9 * fan.sum()
    assert found >= 0.8 * len(plain)


# the store


def test_a_store_holds_the_cohort(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_echo, "TOGETHER", 4)  # many times fewer than fill a shard
    manifest = write_echo_cohort(tmp_path / "store", 6, size=32, frames=5, seed=2)
    videos, table = make_echo_cohort(6, size=32, frames=5, seed=2)
    store = ClipStore.open(tmp_path / "store")
    assert store.synthetic
    assert store.fit == ClipFit(size=32)
    assert store.manifest["record_id"].tolist() == table["record_id"].tolist()
    assert all((manifest[name].to_numpy() == column).all() for name, column in table.items())
    for i in range(len(videos)):
        assert np.array_equal(store.frames(i)[:, 0], videos[i])
    assert manifest["spacing_mm"].between(1, 20).all()


def test_a_store_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    whole = write_echo_cohort(tmp_path / "whole", 6, size=32, frames=3)
    monkeypatch.setattr(synthetic_echo, "TOGETHER", 5)
    monkeypatch.setattr(ClipWriter, "__init__", partialmethod(ClipWriter.__init__, shard_records=4))
    with monkeypatch.context() as broken:
        add, calls = ClipWriter.add, iter(range(11))
        broken.setattr(ClipWriter, "add", lambda *a, **k: (next(calls), add(*a, **k))[1])
        with pytest.raises(StopIteration):
            write_echo_cohort(tmp_path / "cut", 6, size=32, frames=3)
    for _ in range(2):  # goes on, then finds it finished
        again = write_echo_cohort(tmp_path / "cut", 6, size=32, frames=3)
        for name in ("record_id", "sha256", "lvh", "wall_mm"):
            assert again[name].tolist() == whole[name].tolist()
    with pytest.raises(DataError):
        write_echo_cohort(tmp_path / "cut", 7, size=32, frames=3)


# a clip for tests


def test_made_clips_are_clips():
    clips = make_clip(3, frames=5, size=24, channels=3)
    assert clips.shape == (3, 3, 5, 24, 24)
    assert clips.dtype == torch.uint8
    assert torch.equal(clips, make_clip(3, frames=5, size=24, channels=3))
    assert torch.equal(clips[:, 0], clips[:, 2])
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[:, :, 0], clips[:, :, 1])
    assert not clips[..., 0, 0].any()  # outside of the fan


@pytest.mark.parametrize("module", [synthetic_echo, testing])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0
