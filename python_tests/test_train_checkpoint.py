"""A run's folder: what is written comes back, what does not fit is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal as signals
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from ecgfast.config import Signal
from ecgfast.train.checkpoint import (
    ContractError,
    load_contract,
    load_encoder,
    save_encoder,
    write_at_once,
)
from ecgfast.train.contract import Contract, Records, check_signal

SIGNAL = Signal(leads=("I", "II"), fs=100.0, seconds=2.0, band=(0.5, 40.0), normalise="lead")


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 5), nn.BatchNorm1d(3), nn.Flatten())


def contract(**more):
    words = {
        "signal": SIGNAL,
        "model": {"class": "Toy", "arguments": {"embedding_dim": 3, "dropout": 0.5}},
        "synthetic": True,
        "step": 7,
        "weights_step": 5,
        "trained_on": Records.of(["a", "b", "c"]),
    }
    return Contract(**{**words, **more})


@pytest.fixture
def run(tmp_path):
    head = {"class": "Head", "arguments": {"embedding_dim": 3}}
    task = {
        "kind": "classification",
        "label": "mpcwp",
        "threshold": 18.0,
        "mean": 15.7,
        "sd": 8.0,
        "dropout_at_test": False,
    }
    whole = contract(head=head, task=task, pretrained_on=Records.of(["d"]))
    save_encoder(tmp_path, encoder().state_dict(), whole, {"w": torch.ones(2)})
    return tmp_path


def test_what_is_written_comes_back(run):
    found = load_contract(run)
    assert found.signal == SIGNAL
    assert (found.step, found.weights_step, found.synthetic) == (7, 5, True)
    assert found.task["threshold"] == 18.0
    assert found.embedding_dim == 3
    assert set(found.sha256) == {"encoder.safetensors", "head.safetensors"}
    assert found.trained_on.hold(["b", "d", "c"]).tolist() == [True, False, True]
    assert found.pretrained_on.hold(["b", "d"]).tolist() == [False, True]

    other = encoder()
    nn.init.zeros_(other[0].weight)
    said = []
    match = load_encoder(run, other, say=said.append)
    assert torch.equal(other[0].weight, encoder()[0].weight)
    assert not match.missing
    assert not match.unexpected
    assert "7 of 7 weights matched, 0 missing, 0 unexpected (SHA-256 " in said[0]


def test_contract_is_plain_json_with_units(run):
    content = json.loads((run / "contract.json").read_text())
    assert content["signal"]["units"] == "mV"
    assert content["signal"]["samples"] == 200
    assert "b" not in json.dumps(content["trained_on"]["hashes"]).split()


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder.", "_orig_mod.module."])
def test_prefixes_of_wrappers_do_not_matter(tmp_path, prefix):
    file = tmp_path / "wrapped.safetensors"
    save_file({f"{prefix}{name}": w for name, w in encoder().state_dict().items()}, file)
    other = encoder()
    nn.init.zeros_(other[0].weight)
    assert len(load_encoder(file, other).matched) == 7
    assert torch.equal(other[0].weight, encoder()[0].weight)


def test_strict_by_default_and_lenient_when_asked(tmp_path):
    weights = encoder().state_dict()
    weights["extra"] = weights.pop("0.bias")
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ContractError, match=r"1 missing \(0.bias\), 1 unexpected \(extra\)"):
        load_encoder(tmp_path / "w.safetensors", encoder())
    match = load_encoder(tmp_path / "w.safetensors", encoder(), strict=False)
    assert (match.missing, match.unexpected) == (["0.bias"], ["extra"])


def test_other_shapes_are_refused_even_when_lenient(tmp_path):
    weights = encoder().state_dict()
    weights["0.weight"] = torch.zeros(3, 2, 7)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(
        ContractError, match=r"first 0.weight: \(3, 2, 7\) in the file, \(3, 2, 5\)"
    ):
        load_encoder(tmp_path / "w.safetensors", encoder(), strict=False)


def test_a_changed_file_is_refused(run):
    weights = load_file(run / "encoder.safetensors")
    weights["0.weight"][0, 0, 0] += 1
    save_file(weights, run / "encoder.safetensors")
    with pytest.raises(ContractError, match=r"SHA-256 .* contract.json says .* changed or damaged"):
        load_encoder(run, encoder())


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    weights = encoder().state_dict()
    weights["0.weight"][0] = torch.nan
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ContractError, match=r"not finite \(0.weight\)"):
        load_encoder(tmp_path / "w.safetensors", encoder())


@pytest.mark.parametrize("content", [b"", b"\x80\x04junk", b"\xff" * 64, b"{}"])
def test_what_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ContractError, match="is no safetensors file"):
        load_encoder(tmp_path / "w.safetensors", encoder())


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"w": Bomb()}, tmp_path / "encoder.safetensors")
    with pytest.raises(ContractError):
        load_encoder(tmp_path / "encoder.safetensors", encoder())
    assert not (tmp_path / "exploded").exists()


def test_an_unfinished_run_says_so(tmp_path):
    with pytest.raises(ContractError, match="no finished run"):
        load_contract(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 99, "version 99"),
        (("signal", "fs"), "fast", "signal.fs is of type str"),
        (("signal", "fs"), True, "signal.fs is of type bool"),
        (("signal", "fs"), -1, "must be positive"),
        (("signal", "fs"), float("inf"), "infinity"),
        (("signal", "leads"), ["I", 2], "signal.leads is of type int"),
        (("signal", "units"), "uV", "units must be mV"),
        (("signal", "samples"), 201, "signal.samples is 201"),
        (("signal", "band"), [1], "unpack"),
        (("signal", "normalise"), "minmax", "normalise must be"),
        (("model", "arguments"), {"embedding_dim": 10**12}, "is 1000000000000, 0 to"),
        (("model", "arguments"), {"embedding_dim": 3, "path": ["x"]}, "of type list"),
        (("model", "arguments"), {"embedding_dim": 3, "num_leads": 12}, "another number of leads"),
        (("trained_on", "hashes"), "no base 64", "base64"),
        (("trained_on", "count"), 4, "holds 3 hashes and says 4"),
        (("trained_on",), None, "must not be null"),
        (("task", "kind"), "rank", "task.kind"),
        (("task", "threshold"), "18", "task.threshold is of type str"),
        (("synthetic",), 1, "synthetic is of type int"),
    ],
)
def test_nothing_in_a_contract_is_believed(run, place, value, message):
    content = json.loads((run / "contract.json").read_text())
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    (run / "contract.json").write_text(json.dumps(content))
    with pytest.raises(ContractError, match=r"contract\.json") as caught:
        load_contract(run)
    assert message.lower() in str(caught.value).lower()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_no_damage_to_a_contract_gets_past_the_error(run, data):
    path = run / "contract.json"
    before = path.read_bytes()
    content = json.loads(before)
    key = data.draw(st.sampled_from(sorted(content)))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=4,
    )
    if data.draw(st.booleans()):
        del content[key]
    else:
        content[key] = data.draw(junk)
    path.write_text(json.dumps(content))
    try:
        with contextlib.suppress(ContractError):  # anything else would be a fault
            load_contract(run)
    finally:
        path.write_bytes(before)


def test_each_differing_field_is_named_with_a_way_out():
    given = Signal(leads=("II", "I"), fs=500.0, seconds=2.0, notch=50.0, normalise="record")
    with pytest.raises(ContractError) as caught:
        check_signal(SIGNAL, given, what="store S")
    message = str(caught.value)
    assert message.startswith("error[contract] encoder and store S differ in leads, fs:")
    assert "leads: encoder expects I II, store S has II I (the same leads in another" in message
    assert "fs: encoder expects 100.0, store S has 500.0" in message
    assert "do: convert the records again" in message
    assert "convert SRC STORE --fs 100 --seconds 2 --leads I,II" in message
    every = [field.name for field in dataclasses.fields(Signal)]
    with pytest.raises(ContractError, match="differ in leads, fs, band, notch, normalise:"):
        check_signal(SIGNAL, given, what="--signal", fields=every)
    check_signal(SIGNAL, dataclasses.replace(SIGNAL, band=None), what="store S")


def test_known_ids_are_told_and_salts_differ():
    ids = [f"record {i}" for i in range(1000)]
    first, second = Records.of(ids), Records.of(ids)
    assert first.hold(ids).all()
    assert not first.hold([f"other {i}" for i in range(1000)]).any()
    assert first.salt != second.salt
    assert not np.isin(first.hashes, second.hashes).any()
    assert len(Records.of([]).hashes) == 0


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_at_once(path, b"old")

    def fails(file):
        file.write(b"half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_at_once(path, fails)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_at_once(path, b"old")
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from ecgfast.train.checkpoint import write_at_once
        def write(file):
            file.write(b"x" * 2**20)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write_at_once(Path({str(path)!r}), write)
    """
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False)
    assert done.returncode == -signals.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(Path(tmp_path).glob(".file.*.partial"))) == 1  # the next start sweeps it up
