"""A run repeats itself, survives what kills it, and says what is wrong in words."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ecgfast.config import Optim
from ecgfast.train.batches import seed_draws
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.errors import RunError, Stopped
from ecgfast.train.fit import fit
from ecgfast.train.log import Table

SCRIPT = Path(__file__).parent / "toy_run.py"
_spec = importlib.util.spec_from_file_location("toy_run", SCRIPT)
toy = importlib.util.module_from_spec(_spec)
sys.modules["toy_run"] = toy  # loading processes find it again by this name
_spec.loader.exec_module(toy)
CLOCKED = ("records_per_s", "waiting", "mining")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def rows(out):
    """Of metrics.csv, without what a clock says."""
    with (out / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in CLOCKED}
            for row in csv.DictReader(file)
        ]


def weights(out):
    return (out / "encoder.safetensors").read_bytes()


def step_of(out):
    return torch.load(out / "last.ckpt", weights_only=True)["global_step"]


def killed(out, *, steps=10, at, where, workers=0):
    words = [sys.executable, "-P", str(SCRIPT), str(out), *map(str, (steps, at, where, workers))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


best = partial(toy.build, validate=True, keep_best=True)


def test_a_run_leaves_its_whole_folder(tmp_path, capsys):
    fit(toy.build, toy.config(tmp_path))
    names = {path.name for path in tmp_path.iterdir() if "tfevents" not in path.name}
    assert names == {
        "card.md",
        "command.txt",
        "config.yaml",
        "contract.json",
        "encoder.safetensors",
        "env.json",
        "last.ckpt",
        "metrics.csv",
    }
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    assert [row["step"] for row in rows(tmp_path)] == [str(k) for k in range(1, 11)]
    assert rows(tmp_path)[3]["epoch"] == str(round(4 * 8 / 29, 4))
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["signal"]["leads"] == ["I", "II"]
    assert json.loads((tmp_path / "env.json").read_text())["starts"][0]["step"] == 0
    contract = load_contract(tmp_path)
    assert (contract.step, contract.weights_step, contract.signal.fs) == (10, 10, 25.0)
    seen = capsys.readouterr()
    assert seen.out == f"{tmp_path}: 10 steps done\n"
    assert seen.err == ""  # --fit.progress false


def test_a_run_repeats_itself_with_any_number_of_workers(tmp_path):
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        fit(best, toy.config(tmp_path / name, workers=workers))
    assert weights(tmp_path / "a") == weights(tmp_path / "b") == weights(tmp_path / "c")
    assert rows(tmp_path / "a") == rows(tmp_path / "b") == rows(tmp_path / "c")
    fit(best, toy.config(tmp_path / "d", seed=1))
    assert weights(tmp_path / "a") != weights(tmp_path / "d")


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_an_epoch_it_goes_on_bit_for_bit(tmp_path, workers):
    fit(best, toy.config(tmp_path / "whole"))
    killed(tmp_path / "cut", at=7, where="step", workers=workers)  # 3 steps an epoch, saved at 6
    assert step_of(tmp_path / "cut") == 6
    assert rows(tmp_path / "cut")[-1]["step"] == "7"  # after the checkpoint: comes again
    fit(best, toy.config(tmp_path / "cut", workers=workers))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    starts = json.loads((tmp_path / "cut" / "env.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 6]


def test_killed_while_it_saves_it_has_the_checkpoint_before(tmp_path):
    fit(best, toy.config(tmp_path / "whole"))
    killed(tmp_path / "cut", at=6, where="write")
    assert step_of(tmp_path / "cut") == 4
    assert list((tmp_path / "cut").glob(".*.partial"))
    fit(best, toy.config(tmp_path / "cut"))
    assert not list((tmp_path / "cut").glob(".*.partial"))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_killed_before_the_first_checkpoint_it_begins_anew(tmp_path):
    fit(best, toy.config(tmp_path / "whole"))
    killed(tmp_path / "cut", at=1, where="step")
    fit(best, toy.config(tmp_path / "cut"))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_told_to_stop_it_saves_the_step_and_goes_on(tmp_path, number):
    def ask(method):
        if method.global_step == 4:
            os.kill(os.getpid(), number)

    fit(best, toy.config(tmp_path / "whole"))
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"stopped after step 5 of 10, .* the same command goes on"):
        fit(partial(best, at_step=ask), toy.config(tmp_path / "cut"))
    assert signal.getsignal(number) == handler
    assert step_of(tmp_path / "cut") == 5
    assert not (tmp_path / "cut" / "contract.json").exists()
    fit(best, toy.config(tmp_path / "cut"))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_finished_run_is_left_alone_until_it_is_given_more_steps(tmp_path, capsys):
    fit(toy.build, toy.config(tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert fit(toy.build, toy.config(tmp_path)) is None
    assert "is finished: 10 of 10 steps. Nothing to do" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    fit(toy.build, toy.config(tmp_path, steps=13))
    assert step_of(tmp_path) == load_contract(tmp_path).step == 13
    assert [row["step"] for row in rows(tmp_path)] == [str(k) for k in range(1, 14)]


def test_killed_before_its_folder_was_written_it_writes_it(tmp_path):
    fit(toy.build, toy.config(tmp_path))
    before = weights(tmp_path)
    (tmp_path / "contract.json").unlink()
    fit(toy.build, toy.config(tmp_path))
    assert load_contract(tmp_path).step == 10
    assert weights(tmp_path) == before


def test_another_configuration_is_refused_by_its_keys(tmp_path):
    fit(toy.build, toy.config(tmp_path, steps=3))
    with pytest.raises(RunError) as caught:
        fit(toy.build, toy.config(tmp_path, steps=10, seed=5, margin=0.4))
    message = str(caught.value)
    assert caught.value.code == 2
    assert "at step 3; 2 keys differ:" in message
    assert "fit.seed: 0 there, 5 here" in message
    assert "margin: 0.2 there, 0.4 here" in message
    assert f"--config {tmp_path / 'config.yaml'}" in message
    assert "--fit.out" in message
    assert step_of(tmp_path) == 3
    fit(toy.build, toy.config(tmp_path, steps=4, workers=1, log_every=2, checkpoint_every=9))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be read .* Delete it to start anew"):
        fit(toy.build, toy.config(tmp_path))


def test_a_checkpoint_holds_plain_values_and_runs_nothing(tmp_path):
    fit(best, toy.config(tmp_path))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["config"]["signal"]["fs"] == 25.0
    assert content["world_size"] == 1

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({**content, "global_step": Bomb()}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match="cannot be read"):
        fit(best, toy.config(tmp_path))
    assert not (tmp_path / "exploded").exists()


def test_a_loss_that_is_no_number_names_the_records(tmp_path):
    broken = toy.StepSampler(toy.RECORDS, 8, seed=0).batch(2)[5]
    with pytest.raises(RunError) as caught:
        fit(partial(toy.build, broken=broken), toy.config(tmp_path))
    message = str(caught.value)
    assert "the loss is nan at step 3" in message
    assert f"1 of its 8 records have samples that are not finite: toy-{broken}." in message
    assert step_of(tmp_path) == 2
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(w.isfinite().all() for w in weights.values())


def test_a_loss_that_diverges_names_what_to_turn(tmp_path):
    def diverge(method):
        if method.global_step == 3:
            with torch.no_grad():
                method.encoder[1].weight.fill_(torch.inf)

    with pytest.raises(RunError, match=r"at step 4 .* lower --optim.lr.*The records: toy-"):
        fit(partial(toy.build, at_step=diverge), toy.config(tmp_path))
    assert step_of(tmp_path) == 2


def test_too_few_records_say_so(tmp_path):
    with pytest.raises(RunError, match=r"takes 30 records .* only 29.*--fit.batch_size"):
        fit(toy.build, toy.config(tmp_path, batch_size=30))


def test_the_best_weights_are_copies_of_their_step(tmp_path, capsys):
    fit(best, toy.config(tmp_path / "best"))
    judged = {
        int(r["step"]): float(r["val_loss"]) for r in rows(tmp_path / "best") if r["val_loss"]
    }
    assert list(judged) == [3, 6, 9, 10]  # every three steps, and the last
    step = min(judged, key=judged.get)
    assert step != 10  # else the test could not tell a copy from a reference
    assert load_contract(tmp_path / "best").weights_step == step
    assert f"kept are the weights of step {step}, best on validation" in capsys.readouterr().out

    seen = {}

    def look(method):
        seen[method.global_step] = {k: v.clone() for k, v in method.encoder.state_dict().items()}

    fit(partial(toy.build, validate=True, at_step=look), toy.config(tmp_path / "last"))
    kept = load_file(tmp_path / "best" / "encoder.safetensors")
    assert all(torch.equal(kept[name], seen[step][name]) for name in kept)
    assert rows(tmp_path / "last") == rows(tmp_path / "best")
    assert load_contract(tmp_path / "last").weights_step == 10
    assert weights(tmp_path / "last") != weights(tmp_path / "best")


def test_half_precision_trains_on_the_cpu(tmp_path):
    fit(toy.build, toy.config(tmp_path, precision="bf16-mixed"))
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path))
    assert load_file(tmp_path / "encoder.safetensors")["1.weight"].dtype == torch.float32


def test_draws_of_a_step_are_its_own():
    seed_draws(3, 7, 1)
    first = torch.rand(4)
    torch.rand(100)
    seed_draws(3, 7, 1)
    assert torch.equal(first, torch.rand(4))
    for other in ((4, 7, 1), (3, 8, 1), (3, 7, 0)):
        seed_draws(*other)
        assert not torch.equal(first, torch.rand(4))


def test_states_of_torch_are_given_back(tmp_path):
    torch.use_deterministic_algorithms(False)
    fit(toy.build, toy.config(tmp_path, steps=1))
    assert not torch.are_deterministic_algorithms_enabled()


class Trainer:
    max_steps = 10


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rate_rises_and_falls_as_configured(schedule):
    method = toy.Toy(Optim(lr=0.5, warmup_steps=4, schedule=schedule))
    method._trainer = Trainer()
    made = method.configure_optimizers()
    rates = []
    for _ in range(11):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates[:4] == [0.125, 0.25, 0.375, 0.5]
    if schedule == "constant":
        assert set(rates[4:]) == {0.5}
    else:
        expected = [0.25 * (1 + math.cos(math.pi * k / 6)) for k in range(7)]
        assert rates[4:] == pytest.approx(expected)


def test_adamw_spares_norms_and_biases_and_adam_decays_all():
    method = toy.Toy(Optim(kind="adamw", weight_decay=0.1))
    method._trainer = Trainer()
    groups = method.configure_optimizers()["optimizer"].param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(2, 0.1), (4, 0.0)]
    method.optim = Optim(kind="adam", weight_decay=0.1)
    made = method.configure_optimizers()["optimizer"]
    assert type(made) is torch.optim.Adam
    assert [(len(g["params"]), g["weight_decay"]) for g in made.param_groups] == [(6, 0.1)]


def test_a_table_has_every_step_once(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Table(path, 0)
    for step in range(1, 6):
        table.add({"step": step, "epoch": 0.5, "loss": 1 / step})
    table.add({"step": 6, "epoch": 0.5, "loss": 0.1, "val_loss": 2.0})
    with path.open("a") as file:
        file.write("7,0.5,0.0")  # a kill in the middle of a row
    table = Table(path, 4)
    table.add({"step": 5, "epoch": 0.5, "loss": 0.2})
    with path.open() as file:
        found = list(csv.DictReader(file))
    assert [row["step"] for row in found] == ["1", "2", "3", "4", "5"]
    assert found[1]["loss"] == "0.5"
    assert found[4] == {"step": "5", "epoch": "0.5", "loss": "0.2", "val_loss": ""}
