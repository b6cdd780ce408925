"""Run the whole chain on SYNTHETIC ECGs: no data, no network, no GPU."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """Where to and how much."""
    parser.add_argument("--out", type=str, default="runs/demo", help="folder of the demo")
    parser.add_argument("--patients", type=int, default=500, help="SYNTHETIC patients, 60 or more")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn")


def run(words: Namespace) -> None:
    """Makes a cohort, then calls the verbs that a user would call, and prints each of them."""
    if words.patients < 60:
        raise Fail(2, f"error: --patients must be 60 or more to be split, got {words.patients}")
    started = time.perf_counter()
    out = Path(words.out)
    store, pretrained = out / "store", out / "pretrain"
    runs = {
        "regression": (out / "mpcwp", []),
        "classification": (out / "mpcwp-over-18", ["--threshold", "18"]),
    }
    if out.exists() and any(out.iterdir()):
        raise Fail(2, f"error: {out} is not empty. Remove it, or choose another folder with --out.")

    steps = 4
    _title(1, steps, f"make {words.patients} SYNTHETIC patients, some records of them bad")
    _make(store, words.patients, words.seed)
    _ecgfast("validate", store)

    _title(2, steps, "pretrain an encoder without labels (SSL-DML)")
    seed = ["--fit.seed", words.seed]
    train = ["--config", "demo", "--data.paths", store]
    _ecgfast("pretrain", "ssl-dml", *train, *seed, "--fit.out", pretrained)

    _title(3, steps, "fit the wedge pressure (mPCWP): its value, and whether it is over 18 mmHg")
    for task, (folder, threshold) in runs.items():
        label = ["--label", "mpcwp", "--task", task, *threshold]
        _ecgfast("finetune", *train, "--init", pretrained, *label, *seed, "--fit.out", folder)

    _title(4, steps, "score patients that no training saw, and write the reports")
    for folder, _ in runs.values():
        _ecgfast("evaluate", folder, "--store", store)
        _ecgfast("report", folder)
    print(f"\nSYNTHETIC data throughout. {time.perf_counter() - started:.0f} s in all. Now open")
    for folder, _ in runs.values():
        print(f"  {folder / 'report.html'}")
    print("next: ecgfast convert --help, then the commands above on your own records")


def _make(store: Path, patients: int, seed: int) -> None:
    from ecgfast.config import Signal
    from ecgfast.data.synthetic import write_cohort

    write_cohort(store, patients, signal=Signal(fs=125.0), seed=seed, planted_bad=True)


def _title(step: int, steps: int, what: str) -> None:
    print(f"\n[{step}/{steps}] {what}", flush=True)


def _ecgfast(*words: object) -> None:
    from ecgfast.cli import main

    argv = [str(word) for word in words]
    print(f"$ ecgfast {shlex.join(argv)}", flush=True)
    main(argv)
