"""The house guards itself: floors, whole rooms, what device code and help may load."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ecgfast
from ecgfast.cli import VERBS

ROOT = Path(__file__).parent.parent

# package or module: what it may import from ecgfast, itself aside; later ones stand higher
MAY_IMPORT = {
    "config": set(),
    "testing": set(),
    "ops": {"config"},
    "data": {"config", "ops"},
    "losses": {"ops"},
    "miners": {"ops"},
    "pml": {"losses", "miners", "ops"},
    "models": {"ops"},
    "transforms": {"ops"},
    "eval": {"ops"},
    "train": {"config"},
    "methods": {"config", "eval", "losses", "miners", "train"},
    "systems": {
        "config",
        "data",
        "eval",
        "losses",
        "methods",
        "miners",
        "models",
        "ops",
        "train",
        "transforms",
    },
    "report": {"config", "eval"},
    "cli": {"config", "data", "eval", "ops", "report", "systems", "testing", "train", "transforms"},
}
# what may be imported outside these places
ONLY_IN = {
    "_C": {"ops"},
    "jsonargparse": {"cli"},
    "lightning": {"train", "methods"},
    "torchmetrics": {"eval", "methods"},
    "sklearn": {"eval", "models"},
    "wfdb": {"data"},
    "lifelines": {"eval", "systems"},
    "pandas": {"data", "eval"},  # lifelines takes tables
    "pyarrow": {"data"},
    "monai": {"models"},
    "transformers": {"models"},
    "matplotlib": {"report"},
    "PIL": {"data", "report"},  # moving pictures
    "pypdfium2": {"data"},
    "pydicom": {"data"},
    "av": {"data"},
    "imagecodecs": {"data"},
}
PARTS = [
    "csrc/{}/contract.h",
    "csrc/{}/cpu.cpp",
    "csrc/{}/cuda.cu",
    "csrc/{}/bind.cpp",
    "ecgfast/ops/{}.py",
    "python_tests/test_{}.py",
    "bench/bench_{}.py",
]
ROOMS = sorted(
    {path.parent.name for path in (ROOT / "csrc").glob("*/*")} - {"core"}
    | {path.stem for path in (ROOT / "ecgfast/ops").glob("[a-z]*.py")}
)


def modules() -> list[Path]:
    return [path for path in (ROOT / "ecgfast").rglob("*.py") if path.parent != ROOT / "ecgfast"]


def imports(path: Path) -> set[str]:
    """Whole names of all that a module imports, in whatever corner of it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "ecgfast").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    package = package_of(path)
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("ecgfast.")}
    above = inside - MAY_IMPORT[package] - {package, "_C"}
    assert not above, f"{package} reaches up to {sorted(above)}"


@pytest.mark.parametrize("what", ONLY_IN)
def test_imported_in_its_place_only(what):
    for path in modules():
        if package_of(path) in ONLY_IN[what]:
            continue
        names = {part for name in imports(path) for part in name.split(".")}
        assert what not in names, f"{path.relative_to(ROOT)} imports {what}"


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("part", PARTS)
def test_every_room_is_whole(room, part):
    assert (ROOT / part.format(room)).exists(), f"{room} lacks {part.format(room)}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_see_each_other(room):
    for path in (ROOT / "csrc" / room).iterdir():
        for folder in re.findall(r'#include "(\w+)/', path.read_text()):
            assert folder in {"core", room}, f"{path.name} includes {folder}"
    for name in imports(ROOT / f"ecgfast/ops/{room}.py"):
        borrowed = name.startswith("ecgfast.ops.") and not name.startswith("ecgfast.ops._")
        assert not borrowed or name.endswith("_reference"), f"{room} imports {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_contract_says_all(room):
    text = (ROOT / f"csrc/{room}/contract.h").read_text()
    keys = ["Math", "Shapes", "Units", "Cost", "Traffic", "Numbers", "Edges", "Mirrors"]
    assert re.findall(r"^// ([A-Z]\w+)  +\S", text, re.MULTILINE) == keys


def test_native_code_knows_no_torch_and_kernels_no_python():
    for path in (ROOT / "csrc").rglob("*.*"):
        includes = re.findall(r'#include [<"]([^>"]+)', path.read_text())
        assert not [i for i in includes if i.startswith(("torch", "ATen", "c10"))], path
        if path.name.startswith(("cpu", "cuda", "contract")):
            wrong = [i for i in includes if "pybind11" in i or i in {"vector", "string", "thread"}]
            assert not wrong, f"{path.relative_to(ROOT)} includes {wrong}"


HELP = [
    [],
    ["pretrain"],
    ["pretrain", "ssl-dml"],
    *([verb] for verb in VERBS if verb != "pretrain"),
]


@pytest.mark.parametrize("words", HELP, ids=str)
def test_help_loads_no_torch(words):
    code = f"""if True:
        import sys
        from ecgfast.cli import main
        try:
            main({[*words, "--help"]})
        except SystemExit:
            assert not {{"torch", "numpy", "lightning"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_every_verb_is_listed():
    assert {path.stem.replace("_", "-") for path in (ROOT / "ecgfast/cli").glob("[a-z]*.py")} - {
        "errors",
        "parser",
    } == set(VERBS)


@pytest.mark.parametrize("room", ROOMS)
def test_examples_run(room):
    module = importlib.import_module(f"ecgfast.ops.{room}")
    outcome = doctest.testmod(module)
    assert outcome.failed == 0
    assert outcome.attempted >= 1  # one for each public function


@pytest.mark.slow
def test_inductor_keeps_its_word():
    def double(ecg):
        return ecgfast.ops.lead_norm(ecg) * 2

    ecg = torch.randn(2, 3, 64)
    torch.testing.assert_close(torch.compile(double, fullgraph=True)(ecg), double(ecg))


def test_pool_survives_fork():
    code = (ROOT / "python_tests/fork.py").read_text()
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)
