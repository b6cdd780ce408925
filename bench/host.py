"""What the host gives and what the encoder takes, records/s: the table of docs/results/scale.md.

    python bench/host.py                # the published network, 12 leads x 10 s at 250 Hz
    python bench/host.py --threads 2 --batch_size 64 --steps 5

Host: records from a store (SYNTHETIC noise) through ``Batches`` as a run loads them, in the main
process, then through the band-pass of the default configuration. Encoder: forward and backward of
such a batch. The last table is where the time of a whole step of SSL-DML goes (`--fit.profile`),
with distance ``mean_l1`` and, under ``--dtw``, with ``dtw``. Medians of the repetitions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from scale import make_store

from ecgfast.config import Encoder, Fit, Signal, Store
from ecgfast.config.ssl_dml import Config
from ecgfast.data.sampler import StepSampler
from ecgfast.data.source import open_source
from ecgfast.systems import ssl_dml
from ecgfast.systems.parts import make_encoder, preparation
from ecgfast.train.batches import whole_batches
from ecgfast.train.fit import fit

RECORDS = 4096


def seconds(function: Callable[[], object], times: int) -> float:
    """Median of so many calls, after one that warms up."""
    function()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--steps", type=int, default=5, help="repetitions, and steps of the profile"
    )
    parser.add_argument("--dtw", action="store_true", help="profile distance dtw too")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    signal, size = Signal(band=(0.5, 40.0)), words.batch_size
    with tempfile.TemporaryDirectory() as folder:
        stored = Signal()
        store = make_store(Path(folder) / "store", RECORDS, stored)
        source = open_source((str(store),), ("train",), signal=stored, patients=0)
        order = StepSampler(len(source), size, seed=0)
        batches = iter(whole_batches(source.dataset, order, workers=0, seed=0))
        prepare = preparation(signal)
        batch = next(batches)
        ecg = prepare(batch["ecg"], batch["gain"])
        encoder, _ = make_encoder(Encoder(width=words.width), Signal(), None)

        def learn() -> None:
            encoder(ecg).square().mean().backward()

        def host() -> None:
            loaded = next(batches)
            prepare(loaded["ecg"], loaded["gain"])

        taken = {
            "load from the store": seconds(lambda: next(batches), 10 * words.steps),
            "prepare (band 0.5-40 Hz)": seconds(
                partial(prepare, batch["ecg"], batch["gain"]), 10 * words.steps
            ),
            "load and prepare": seconds(host, 10 * words.steps),
            f"encoder, width {words.width}, forward and backward": seconds(learn, words.steps),
        }
        print(f"{words.threads} threads, {size} records a batch, 12 leads x 10 s at 250 Hz\n")
        print("| | ms a batch | records/s |\n|---|---|---|")
        for name, each in taken.items():
            print(f"| {name} | {1e3 * each:.1f} | {size / each:.0f} |")
        *_, loaded, learned = taken.values()
        print(
            f"\nThe host gives {learned / loaded:.1f} times what the encoder takes.\n", flush=True
        )
        for distance in ("mean_l1", *(["dtw"] if words.dtw else [])):
            print(f"SSL-DML, distance {distance}:", flush=True)
            how = Fit(
                steps=words.steps + 1,
                batch_size=size,
                log_every=1,
                checkpoint_every=words.steps + 1,
                accelerator="cpu",
                devices=1,
                progress=False,
                profile=True,
                out=f"{folder}/{distance}",
            )
            config = Config(
                data=Store(paths=(str(store),), splits=("train",)),
                encoder=Encoder(width=words.width),
                distance=distance,
                fit=how,
            )
            fit(ssl_dml.build, config)


if __name__ == "__main__":
    main()
