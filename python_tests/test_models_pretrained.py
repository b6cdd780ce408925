"""Weights from files: every usual name, a count of what matched, and nothing that runs code."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file

from ecgfast.models.page_encoder import PageEncoder
from ecgfast.models.pretrained import load_pretrained


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(1)
    net = PageEncoder(net="efficientnet-b0", size=64).net
    with torch.no_grad():
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return net.state_dict()


def target():
    torch.manual_seed(2)
    return PageEncoder(net="efficientnet-b0", size=64).net


def upstream(weights):
    """As EfficientNet-PyTorch names them: blocks in one row, a classifier, no counters."""
    flat = {re.sub(r"_blocks\.\d+\.", "_blocks.", name): value for name, value in weights.items()}
    flat = {name: value for name, value in flat.items() if "num_batches" not in name}
    assert "_blocks.15._project_conv.weight" in flat
    return flat | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def same(net, weights):
    mine = net.state_dict()
    names = [name for name in mine if "num_batches" not in name]
    assert len(names) > 300
    return all(torch.equal(mine[name], weights[name]) for name in names)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped", "prefixed", "monai"])
def test_the_usual_files_load_whole(tmp_path, source, kind):
    weights = upstream(source)
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    elif kind == "prefixed":
        torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    else:
        torch.save(source if kind == "monai" else weights, path)
    net = target()
    found = load_pretrained(path, net)
    assert same(net, source)
    assert found.share == 1.0
    assert not found.absent
    assert not found.reshaped
    if kind != "monai":
        assert found.unused == ("_fc.bias", "_fc.weight")
    assert "100.0% of the parameters), 0 absent, 0 of another shape" in found.line()


def test_what_is_absent_or_of_another_shape_is_counted_and_stays(tmp_path, source):
    weights = upstream(source)
    del weights["_bn1.weight"]
    weights["_conv_stem.weight"] = torch.zeros(32, 1, 3, 3)  # of a net for grey pages
    torch.save(weights, tmp_path / "w.pth")
    net = target()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = load_pretrained(tmp_path / "w.pth", net)
    assert found.absent == ("_bn1.weight",)
    assert found.reshaped == ("_conv_stem.weight",)
    assert 0.99 < found.share < 1
    assert "1 absent (_bn1.weight), 1 of another shape (_conv_stem.weight)" in found.line()
    after = net.state_dict()
    for name in ("_bn1.weight", "_conv_stem.weight"):
        assert torch.equal(after[name], before[name])
    assert torch.equal(after["_conv_head.weight"], source["_conv_head.weight"])


def test_a_file_of_another_network_is_refused_and_nothing_moves(tmp_path, source):
    half = dict(list(upstream(source).items())[:100])
    torch.save(half, tmp_path / "half.pth")
    net = target()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"95\.0% of the parameters must match"):
        load_pretrained(tmp_path / "half.pth", net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert load_pretrained(tmp_path / "half.pth", net, least_share=0.01).share < 0.5
    torch.save({"layer1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"0 of \d+ weights matched \(0\.0%.*EfficientNetBN"):
        load_pretrained(tmp_path / "other.pth", net)


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_what_is_no_file_of_weights_is_refused(tmp_path, capsys):
    net = target()
    with pytest.raises(ValueError, match="there is no file of weights"):
        load_pretrained(tmp_path / "none.pth", net)
    torch.save({"_conv_stem.weight": Code()}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("code.pth", "text.pth", "empty.pth", "text.safetensors"):
        with pytest.raises(ValueError, match=f"{name} is no file of weights alone"):
            load_pretrained(tmp_path / name, net)
    assert "must not run" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        load_pretrained(tmp_path / "list.pth", net)
    torch.save({"epoch": 3}, tmp_path / "none-inside.pth")
    with pytest.raises(ValueError, match="no tensor"):
        load_pretrained(tmp_path / "none-inside.pth", net)


def test_values_that_are_not_finite_and_files_too_large_are_refused(tmp_path, source, monkeypatch):
    weights = upstream(source)
    weights["_bn0.weight"] = torch.full((32,), torch.nan)
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"not finite in 1 \(_bn0\.weight\)"):
        load_pretrained(tmp_path / "nan.pth", target())
    monkeypatch.setattr("ecgfast.models.pretrained.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="1000 are allowed"):
        load_pretrained(tmp_path / "nan.pth", target())
