"""Trains on a SYNTHETIC store of a million rows and says what the host does meanwhile.

    python bench/scale.py --rows 1000000 --steps 1563

The rows are tiles: a few shards of SYNTHETIC noise stand under many names (hard links), so that a
million records of 12 leads take megabytes of disk; ids, patients and hashes are all different, as
in a store that was converted. What the disk can deliver is therefore not measured. What is: how
long a run takes to start, what memory its processes have then and while they pass through all rows,
and records/s. The network is as small as can be: this is about the host.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgfast.config import Signal
from ecgfast.data.store_format import VERSION, write_manifest

SHARD = 2048
DIFFERENT = 4  # shards that hold something else


def make_store(path: Path, rows: int, signal: Signal, *, shard: int = SHARD) -> Path:
    """Writes a store of so many rows, 2.5 of them a patient."""
    path.mkdir(parents=True)
    draw = np.random.default_rng(0)
    shape = (min(shard, rows), len(signal.leads), signal.samples)
    shards = -(-rows // shard)
    for number in range(shards):
        name = path / f"signals-{number:05d}.npy"
        if number < DIFFERENT:
            np.save(name, draw.normal(0, 8000, shape).clip(-32767, 32767).astype(np.int16))
        else:
            name.hardlink_to(path / f"signals-{number % DIFFERENT:05d}.npy")
    number = np.arange(rows)
    patient = (number / 2.5).astype(np.int64)
    record_id = [f"site-a/p{p:07d}/ecg-{n:08d}" for n, p in zip(number, patient, strict=True)]
    sha = [hashlib.sha256(name.encode()).hexdigest() for name in record_id]
    table = pd.DataFrame(
        {
            "record_id": record_id,
            "patient_id": [f"p{p:07d}" for p in patient],
            "split": np.where(patient % 5 == 4, "test", "train"),
            "shard": number // shard,
            "row": number % shard,
            "gain": 1e-4,
            "n_valid": signal.samples,
            "n_nan": 0,
            "fs_source": 2 * signal.fs,
            "flags": np.where(number % 20 == 0, "saturation", ""),
            "source": [f"/archive/ecg/{name}.hea" for name in record_id],
            "sha256": sha,
            "source_sha256": sha[::-1],
            "age": draw.integers(18, 95, rows).astype(np.float64),
            "sex": draw.integers(0, 2, rows).astype(np.float64),
        }
    )
    write_manifest(path, table)
    contract = {"leads": list(signal.leads), "fs": signal.fs, "seconds": signal.seconds}
    about = {"version": VERSION, "complete": True, "plan": "", "synthetic": True}
    about |= {"contract": {**contract, "units": "mV", "recipe": None}, "records": rows}
    about |= {"made_by": {"SYNTHETIC": "tiles of noise"}}
    (path / "store.json").write_text(json.dumps(about))
    return path


def memory() -> dict[str, float]:
    """MB of this process and those that load for it, pages that they share counted once."""
    processes = ["self", *[str(child.pid) for child in multiprocessing.active_children()]]
    total = {"all": 0.0, "anon": 0.0, "file": 0.0}
    for process in processes:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
        for name, key in (("all", "Pss"), ("anon", "Pss_Anon"), ("file", "Pss_File")):
            total[name] += int(fields[key].split()[0]) / 1e3
    return total


def train(store: Path, signal: Signal, words: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One run over the store; what it took to begin, and the memory while it went on."""
    from ecgfast.config import Encoder, Fit, Store
    from ecgfast.config.ssl_dml import Config
    from ecgfast.systems import ssl_dml
    from ecgfast.train.fit import fit

    config = Config(
        signal=signal,
        data=Store(paths=(str(store),), splits=("train",), workers=words.workers),
        encoder=Encoder(embedding_dim=8, width=words.width),
        distance="mean_l1",
        mine_fs=signal.fs / 5,
        fit=Fit(
            steps=words.steps,
            batch_size=words.batch_size,
            log_every=max(1, words.steps // 20),
            checkpoint_every=words.steps,
            accelerator="cpu",
            devices=1,
            progress=False,
            profile=True,
            out=str(out),
        ),
    )
    begun, before = time.perf_counter(), memory()
    seen: dict[str, Any] = {"before": before, "steps": []}

    def build(config: Any) -> Any:
        run = ssl_dml.build(config)
        seen["records"] = len(run.data.dataset)
        seen["built_s"], seen["built"] = time.perf_counter() - begun, memory()
        looks = {1, *[round(words.steps * part / 10) for part in range(1, 11)]}

        def look(*_: Any) -> None:
            step = run.method.global_step
            if step == 1:
                seen["first_step_s"] = time.perf_counter() - begun
            if step in looks:
                at = time.perf_counter() - begun
                seen["steps"].append({"step": step, "seconds": at, **memory()})

        run.method.on_train_batch_end = look
        return run

    fit(build, config)
    return seen


def report(seen: dict[str, Any], rows: int, batch_size: int) -> str:
    """The table of docs/results/scale.md."""
    lines = [f"{rows:,} rows, {seen['records']:,} of them trained on, {batch_size} a step:"]
    lines += [f"{seen['built_s']:.1f} s to open them and build the run,"]
    lines += [f"{seen['first_step_s']:.1f} s until the first step was done.", ""]
    lines += ["| | passes | MB in all | of them files | records/s |", "|---|---|---|---|---|"]

    def row(name: str, passes: float, at: dict[str, float], speed: str) -> str:
        return f"| {name} | {passes:.2f} | {at['all']:.0f} | {at['file']:.0f} | {speed} |"

    lines += [row("before", 0, seen["before"], ""), row("built", 0, seen["built"], "")]
    last = {"step": 0, "seconds": seen["built_s"]}
    for at in seen["steps"]:
        speed = (at["step"] - last["step"]) * batch_size / (at["seconds"] - last["seconds"])
        passes = at["step"] * batch_size / seen["records"]
        lines.append(row(f"step {at['step']}", passes, at, f"{speed:.0f}"))
        last = at
    return "\n".join(lines)


def main() -> None:
    """Makes the store, trains, prints, and takes everything away again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=1563)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--fs", type=float, default=100.0)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--shard", type=int, default=SHARD, help="records a shard")
    parser.add_argument("--json", action="store_true", help="numbers instead of a table")
    words = parser.parse_args()
    signal = Signal(fs=words.fs, seconds=words.seconds)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        # in a process of its own: what it leaves in memory is not the run's
        maker = multiprocessing.get_context("spawn").Process(
            target=make_store, args=(store, words.rows, signal), kwargs={"shard": words.shard}
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(maker.exitcode)
        seen = train(store, signal, words, Path(folder) / "run")
    print(json.dumps(seen) if words.json else report(seen, words.rows, words.batch_size))


if __name__ == "__main__":
    main()
