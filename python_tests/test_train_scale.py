"""Runs at scale: profiled, compiled, in half precision, in parts, on machines of a cluster."""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ecgfast.cli import main
from ecgfast.config import Encoder, Fit, Optim, Signal, Store
from ecgfast.config.ssl_dml import Config
from ecgfast.miners.distance import InputDistance
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.systems import ssl_dml
from ecgfast.train.clock import Clock
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from ecgfast.train.profile import PARTS, Breakdown, ordered

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("toy_run", HERE / "toy_run.py")
toy = importlib.util.module_from_spec(_spec)
sys.modules["toy_run"] = toy
_spec.loader.exec_module(toy)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def config(out, **how):
    words = {"steps": 3, "batch_size": 8, "log_every": 1, "checkpoint_every": 2}
    words |= {"progress": False, "accelerator": "cpu", "devices": 1, "out": str(out)}
    return Config(
        signal=Signal(seconds=2.0),
        data=Store(patients=12, splits=("all",)),
        encoder=Encoder(embedding_dim=8, width=4),
        optim=Optim(lr=1e-3, warmup_steps=0),
        distance="mean_l1",
        fit=Fit(**(words | how)),
    )


def rows(out):
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(out):
    return load_file(out / "encoder.safetensors")


def shares(row):
    return {k: float(v) for k, v in row.items() if k.startswith("share_") and v}


def test_a_profile_tells_every_part_of_a_step(tmp_path, capsys):
    """With a validation, so that its encoding is not taken for that of the training."""
    how = toy.config(tmp_path, steps=6, profile=True)
    fit(functools.partial(toy.build, validate=True), how)
    for row in rows(tmp_path):
        assert sum(shares(row).values()) == pytest.approx(1, abs=5e-4 * len(PARTS))
    assert "share_validation" in shares(rows(tmp_path)[2])  # every three steps
    assert "share_validation" not in shares(rows(tmp_path)[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("profile of 5 steps")
    table = [line.split() for line in lines[1:-1]]
    assert [line[0] for line in table] == [
        name
        for name in PARTS
        if name not in ("mining", "augment", "encoder")  # a toy has no such parts
    ]
    assert sum(float(line[5].rstrip("%")) for line in table) == pytest.approx(100, abs=0.6)


def test_a_method_is_profiled_and_only_when_asked(tmp_path, capsys):
    fit(ssl_dml.build, config(tmp_path / "with", profile=True))
    assert {"share_mining", "share_encoder", "share_backward"} <= set(rows(tmp_path / "with")[0])
    assert "profile of 2 steps" in capsys.readouterr().out
    fit(ssl_dml.build, config(tmp_path / "without"))
    plain = rows(tmp_path / "without")
    assert {"waiting", "mining", "encoder"} <= set(plain[0])
    assert not shares(plain[0])
    assert "profile of" not in capsys.readouterr().out
    assert [r["loss"] for r in plain] == [r["loss"] for r in rows(tmp_path / "with")]


def test_a_profile_has_a_short_word(capsys):
    for words in (["--profile"], ["--fit.profile", "true"], []):
        with pytest.raises(SystemExit):
            main(["pretrain", "ssl-dml", "--config", "debug", *words, "--print_config"])
        assert yaml.safe_load(capsys.readouterr().out)["fit"]["profile"] == bool(words)


def test_parts_of_a_clock_add_up_to_the_whole(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))  # every look a second
    clock = Clock()
    clock.start("waiting", CPU)  # at 0
    clock.turn_to("loss")  # 1
    with clock.part("encoder", CPU), clock.part("mining", CPU):  # 2 and 3; ends at 4 and 5
        pass
    with clock.part("validation", CPU, whole=True), clock.part("encoder", CPU):  # 6 to 7
        pass
    taken = clock.take()  # 8
    assert taken == {"waiting": 1, "loss": 3, "encoder": 2, "mining": 1, "validation": 1}
    assert clock.take() == {"loss": 1}


def test_a_breakdown_leaves_out_what_happens_once():
    table = Breakdown()
    table.add({"rest": 100.0}, steps=1, records=8)
    assert "not enough" in table.table()
    for _ in range(2):
        table.add({"loss": 1.0, "waiting": 3.0, "ring": 0.0}, steps=4, records=32)
    first, *lines = table.table().splitlines()
    assert first.startswith("profile of 8 steps (8.0 s, 8.0 records/s)")
    assert [line.split()[0] for line in lines] == ["waiting", "ring", "loss"]
    assert "750.000 ms a step    75.0%" in lines[0]
    assert ordered({"rest", "ring", "augment", "encoder"}) == ["augment", "encoder", "ring", "rest"]


def test_in_parts_a_run_goes_on_bit_for_bit(tmp_path):
    fit(ssl_dml.build, config(tmp_path / "whole", micro_batch=3, steps=4))
    how = config(tmp_path / "cut", micro_batch=3, steps=2)
    how = dataclasses.replace(how, optim=Optim(lr=1e-3, warmup_steps=0, schedule="constant"))
    longer = dataclasses.replace(how, fit=dataclasses.replace(how.fit, steps=4))
    fit(ssl_dml.build, how)
    fit(ssl_dml.build, longer)
    other = dataclasses.replace(longer.fit, out=str(tmp_path / "other"))
    fit(ssl_dml.build, dataclasses.replace(longer, fit=other))
    cut, whole = ((tmp_path / n / "encoder.safetensors").read_bytes() for n in ("cut", "other"))
    assert cut == whole
    plain = dataclasses.replace(longer.fit, micro_batch=0)
    with pytest.raises(RunError, match=r"fit.micro_batch: 3 there, 0 here"):
        fit(ssl_dml.build, dataclasses.replace(longer, fit=dataclasses.replace(plain, steps=5)))


@pytest.fixture
def quick_compiler(monkeypatch):
    """Traces and splits as always, but writes no C++: seconds instead of minutes."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", functools.partialmethod(compile_, backend="aot_eager")
    )
    yield
    torch.compiler.reset()


def test_compiled_it_learns_the_same_and_leaves_the_same_files(tmp_path, quick_compiler):
    fit(ssl_dml.build, config(tmp_path / "plain"))
    fit(ssl_dml.build, config(tmp_path / "compiled", compile=True, steps=2))
    first = (tmp_path / "compiled" / "encoder.safetensors").read_bytes()
    fit(ssl_dml.build, config(tmp_path / "compiled", compile=True))  # goes on
    plain, compiled = (
        load_file(tmp_path / n / "encoder.safetensors") for n in ("plain", "compiled")
    )
    assert first != (tmp_path / "compiled" / "encoder.safetensors").read_bytes()
    assert plain.keys() == compiled.keys()
    content = torch.load(tmp_path / "compiled" / "last.ckpt", weights_only=True)
    assert not [name for name in content["state_dict"] if "_orig_mod" in name]
    step = [float(rows(tmp_path / n)[0]["loss"]) for n in ("plain", "compiled")]
    assert step[1] == pytest.approx(step[0], rel=1e-4)


def test_compiled_and_in_parts(tmp_path, quick_compiler):
    fit(ssl_dml.build, config(tmp_path / "plain", micro_batch=4, steps=2))
    fit(ssl_dml.build, config(tmp_path / "compiled", micro_batch=4, steps=2, compile=True))
    plain, compiled = (
        load_file(tmp_path / n / "encoder.safetensors") for n in ("plain", "compiled")
    )
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-3, atol=1e-3)
    assert compiled["stem.1.num_batches_tracked"] == 4  # two parts, two steps


def test_a_compiler_that_is_not_there_is_said_so(tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler")

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", functools.partialmethod(compile_, backend=broken)
    )
    with pytest.raises(RunError, match=r"(?s)error\[compile\].*--fit.compile false") as caught:
        fit(ssl_dml.build, config(tmp_path, compile=True))
    assert caught.value.code == 4
    torch.compiler.reset()


def test_half_precision_trains_and_does_not_touch_mining(tmp_path):
    fit(ssl_dml.build, config(tmp_path / "full"))
    fit(ssl_dml.build, config(tmp_path / "half", precision="bf16-mixed"))
    full, half = (float(rows(tmp_path / n)[0]["loss"]) for n in ("full", "half"))
    assert half != full
    assert half == pytest.approx(full, rel=0.1)  # a few of 256 steps, in a difference of squares
    assert {w.dtype for w in weights(tmp_path / "half").values()} == {torch.float32, torch.int64}
    miner = NearestFarthest(InputDistance("mean_l1"), "nearest", "random", 2)
    ecg = torch.randn(32, 12, 500, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    expected = miner(ecg)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = miner(ecg)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_two_machines_of_a_cluster_train_one_run(tmp_path):
    """As srun starts them: one log, one checkpoint, the same weights, and it goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1"}
    job |= {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_NODELIST": "localhost"}
    job |= {"SLURM_LOCALID": "0", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    tasks = [
        subprocess.Popen(
            [sys.executable, "-P", str(HERE / "two_nodes.py"), str(tmp_path)],
            env={**os.environ, **job, "SLURM_PROCID": r, "SLURM_NODEID": r, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in ("0", "1")
    ]
    said = [task.communicate(timeout=200) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    first, second = (out.splitlines() for out, _ in said)
    assert first[:2] == [f"{tmp_path}: 3 steps done", f"{tmp_path}: 5 steps done"]
    assert len(second) == 1  # the other machine says nothing but what the test asks
    assert first[2].split()[:4] == ["rank", "0", "of", "2"]
    assert second[0].split()[:4] == ["rank", "1", "of", "2"]
    assert first[2].split()[4] == second[0].split()[4]
    assert [row["step"] for row in rows(tmp_path)] == list("12345")
    assert not list(tmp_path.glob("hpc_ckpt*"))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["world_size"] == 2


def test_the_memory_of_the_host_is_flat_over_a_pass(tmp_path):
    """40,000 rows, 154 MB of samples: a pass must leave none of them behind.

    What the allocator holds back swings by 20 MB from step to step: the lowest of four looks
    counts, before and after 24 steps that read 74 MB.
    """
    words = ["--rows", "40000", "--steps", "40", "--batch_size", "800", "--shard", "256", "--json"]
    done = subprocess.run(
        [sys.executable, "-P", str(HERE.parent / "bench/scale.py"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["records"] == 32_000
    steps = {at["step"]: at for at in seen["steps"]}
    early, late = (4, 8, 12, 16), (28, 32, 36, 40)
    for kind in ("all", "file"):  # "file": pages of the store that stay mapped
        assert min(steps[n][kind] for n in late) - min(steps[n][kind] for n in early) < 30
