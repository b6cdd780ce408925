"""Every example runs as it stands, says that its data are made, and learns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    assert "SYNTHETIC" in script.read_text().split('"""')[1]
    first, last = map(float, re.findall(r"(\d+\.\d+)$", done.stdout, re.MULTILINE)[-2:])
    assert last < 0.8 * first


def test_all_examples_are_there():
    assert [path.stem for path in EXAMPLES] == ["lightning_module", "plain_loop", "pml_trainer"]
