"""Whole runs by the command: killed, on two ranks, and what comes of them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecgfast.cli import main
from ecgfast.systems.predict import predict
from ecgfast.train.checkpoint import load_contract

SMALL = ["--config", "debug", "--fit.checkpoint_every", "4", "--fit.accelerator", "cpu"]
PRETRAIN = ["pretrain", "ssl-dml", *SMALL, "--fit.steps", "14"]
FINETUNE = ["finetune", *SMALL, "--validate_every", "3", "--fit.steps", "14"]
ECGFAST = [sys.executable, "-P", "-m", "ecgfast"]
INSTALLED = {"PYTHONSAFEPATH": "1"}  # for ranks, which are started without the -P
CLOCKED = ("records_per_s", "waiting", "mining", "encoder")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def rows(out):
    with (out / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in CLOCKED}
            for row in csv.DictReader(file)
        ]


def kill_after(step, words, out):
    """Starts the command and kills it with SIGKILL once that step is in its log."""
    process = subprocess.Popen([*ECGFAST, *words, "--fit.out", str(out)], start_new_session=True)
    until = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        text = (out / "metrics.csv").read_text() if (out / "metrics.csv").exists() else ""
        if text.count("\n") > step:
            process.kill()
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL


# 33 records make 4 steps an epoch, 49 make 6: neither 4 + 1 nor a checkpoint is an epoch's end
@pytest.mark.parametrize(
    ("words", "files"),
    [
        (PRETRAIN, ["encoder.safetensors"]),
        ([*FINETUNE, "--data.workers", "2"], ["encoder.safetensors", "head.safetensors"]),
    ],
    ids=["pretrain", "finetune-two-workers"],
)
def test_killed_it_goes_on_bit_for_bit(tmp_path, words, files):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*words, "--fit.out", str(whole)])
    kill_after(5, words, cut)
    step = torch.load(cut / "last.ckpt", weights_only=True)["global_step"]
    assert 4 <= step < 14
    assert not (cut / "contract.json").exists()
    main([*words, "--fit.out", str(cut)])
    for name in files:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows(cut) == rows(whole)
    assert load_contract(cut).sha256 == load_contract(whole).sha256
    assert [start["step"] for start in json.loads((cut / "env.json").read_text())["starts"]] == [
        0,
        step,
    ]


def test_two_ranks_train_by_either_launcher_and_go_on(tmp_path):
    words = [*PRETRAIN, "--fit.strategy", "ddp", "--fit.devices", "2", "--fit.batch_size", "4"]
    words += ["--optim.schedule", "constant", "--fit.steps"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **INSTALLED}

    def run(start, name, steps):
        out = ["--fit.out", str(tmp_path / name)]
        subprocess.run([*start, *words, str(steps), *out], check=True, env=environment, timeout=300)

    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone"]
    run(ECGFAST, "own", 6)
    run([*torchrun, "--nproc-per-node=2", "-m", "ecgfast"], "torchrun", 4)
    run(ECGFAST, "torchrun", 6)
    whole, cut = (load_file(tmp_path / n / "encoder.safetensors") for n in ("own", "torchrun"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rows(tmp_path / "own") == rows(tmp_path / "torchrun")
    assert [row["step"] for row in rows(tmp_path / "own")] == list("123456")
    checkpoint = torch.load(tmp_path / "own" / "last.ckpt", weights_only=True)
    assert checkpoint["world_size"] == 2


def test_two_ranks_judge_the_whole_validation_part(tmp_path):
    words = [*FINETUNE, "--fit.strategy", "ddp", "--fit.devices", "2", "--fit.steps", "3"]
    subprocess.run(
        [*ECGFAST, *words, "--fit.out", str(tmp_path)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **INSTALLED},
        timeout=300,
    )
    last = rows(tmp_path)[-1]
    found = predict(tmp_path, patients=40, splits=("val",))
    rmse = np.sqrt(np.mean((found["score"] - found["label"]) ** 2))
    assert float(last["val_rmse"]) == pytest.approx(rmse, rel=1e-4)
