"""Loading batches of 64 clips of 4 x 112 x 112, as a training run does: the store against others.

``ecgfast`` reads `Moments` of a store of videos; ``npy`` slices a memory-mapped array a video, kept
open; ``av`` seeks and decodes a Motion JPEG film a video, as EchoNet's are. All go through the same
DataLoader, in the main process or in two others. Files are warm. The floor is one read of a batch's
bytes from one file. At least 300 clips a second are asked for. SYNTHETIC videos, 64 frames each.
"""

from __future__ import annotations

import functools
import itertools
import os
import time

import numpy as np
import pytest
import torch

from ecgfast.config import Signal
from ecgfast.config.clips import MOST_FRAMES, ClipFit

PATIENTS, LENGTH, FRAMES, BATCH = 12, 64, 4, 64
STEPS = {"ecgfast": 40, "npy": 40, "av": 3}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The same videos as a store, as arrays, and as films."""
    pytest.importorskip("pandas")
    av = pytest.importorskip("av")
    from ecgfast.data.clip_store import ClipWriter
    from ecgfast.data.source import open_source
    from ecgfast.data.synthetic_echo import make_echo_cohort

    folder = tmp_path_factory.mktemp("videos")
    made, table = make_echo_cohort(PATIENTS, frames=LENGTH)
    writer = ClipWriter(folder / "store", ClipFit(), synthetic=True)
    for n, video in enumerate(made):
        writer.add(video[:, None], record_id=str(table["record_id"][n]))
        np.save(folder / f"v{n}.npy", video[:, None])
        _write(av, folder / f"v{n}.avi", video)
    writer.close()
    source = open_source([str(folder / "store")], ("all",), signal=Signal(), patients=1)
    return folder, source


def _write(av, path, video):
    with av.open(str(path), "w", format="avi") as film:
        stream = film.add_stream("mjpeg", rate=30)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:], "yuvj420p"
        for frame in video:
            picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, 2), format="rgb24")
            film.mux(stream.encode(picture))
        film.mux(stream.encode())


class Arrays:
    """A memory-mapped array a video, opened once."""

    def __init__(self, folder):
        self.folder, self.open = folder, {}

    def clip(self, video, first):
        if video not in self.open:
            self.open[video] = np.load(self.folder / f"v{video}.npy", mmap_mode="r")
        return np.moveaxis(self.open[video][first : first + FRAMES], 1, 0)

    def batch(self, indices):
        clips = [self.clip(*divmod(index, MOST_FRAMES)) for index in indices]
        return {"ecg": torch.from_numpy(np.stack(clips))}


class Films(Arrays):
    """A film a video, decoded from the frame before which it can be."""

    def clip(self, video, first):
        import av

        with av.open(str(self.folder / f"v{video}.avi")) as film:
            stream = film.streams.video[0]
            stream.thread_type = "NONE"  # processes are what runs side by side
            film.seek(int(first / stream.average_rate / stream.time_base), stream=stream)
            frames = itertools.islice(film.decode(stream), FRAMES)
            return np.stack([frame.to_ndarray(format="gray") for frame in frames])[None]


@functools.cache
def _floor(path):
    """Seconds of reading as many bytes as a batch has in one piece: the best of many."""
    out = np.empty((BATCH, 1, FRAMES, 112, 112), dtype=np.uint8)
    file, times = os.open(path, os.O_RDONLY), []
    for turn in range(400):
        begin = time.perf_counter()
        os.preadv(file, [out.data], 128 + turn % 8 * out.nbytes)
        times.append(time.perf_counter() - begin)
    os.close(file)
    return min(times)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("provider", ["ecgfast", "npy", "av"])
def bench_load_batches_of_clips(benchmark, videos, provider, workers):
    from ecgfast.data.moments import Moments, MomentSampler
    from ecgfast.data.sampler import StepSampler
    from ecgfast.train.batches import whole_batches

    folder, source = videos
    steps = STEPS[provider]
    dataset = {
        "ecgfast": lambda: Moments(source.dataset, frames=FRAMES),
        "npy": lambda: Arrays(folder),
        "av": lambda: Films(folder),
    }[provider]()
    deal = StepSampler(len(source), BATCH, seed=0)
    order = list(itertools.islice(MomentSampler(deal, source.lengths(), FRAMES, seed=0), steps))
    loader = whole_batches(dataset, order, workers=workers, seed=0)

    def load():
        return sum(len(batch["ecg"]) for batch in loader)

    assert load() == BATCH * steps  # files are warm now, and processes there
    benchmark.pedantic(load, rounds=7)
    if benchmark.stats is not None:  # none under --benchmark-disable
        seconds = benchmark.stats["median"]
        floor = _floor(source.dataset.parts[0].store.path / "clips-00000.npy")
        benchmark.extra_info["clips/s"] = round(BATCH * steps / seconds)
        benchmark.extra_info["time over floor"] = round(seconds / (floor * steps), 1)
