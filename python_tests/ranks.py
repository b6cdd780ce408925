"""Two processes that share gradients: how tests start them, and what each of them is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch


def load(name):
    """The module of a script ``two_ranks_*.py``, whose ``run`` is what a rank does."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def two_ranks(name, folder, *words):
    """What ``run(rank, *words)`` of a script gives on each of two ranks."""
    command = [sys.executable, "-P", __file__, name, str(folder)]
    processes = [
        subprocess.Popen([*command, rank, *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rank in "01"
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in "01"]


def main(name, folder, rank, *words):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=2
    )
    torch.save(load(name).run(int(rank), *words), f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()  # who leaves first must not take the other with it
    os._exit(0)  # DDP keeps gloo's threads, which can abort a Python that is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
