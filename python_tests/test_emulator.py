"""The emulator of CUDA blocks: finds each planted fault, and passes the same kernel without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ecgfast import _C
from ecgfast.ops._native import view
from python_tests.conftest import _emulated, needs_emulator

ROOT = Path(__file__).parent.parent

# planted fault in csrc/core/emulator_faults.cu: what the emulator says of it
FAULTS = {
    "missing_barrier": "nobody has written",
    "missing_second_barrier": r"thread 32 has written, with no barrier between",
    "missing_barrier_in_global_memory": "depend on the order in which threads run",
    "missing_warp_barrier": "nobody has written",
    "barrier_in_divergent_code": r"deadlock.* 48 wait in sync_block .* 16 have ended",
    "two_barriers_for_one": r"comes to sync_block .* while other threads wait in sync_block",
    "shuffle_in_divergent_code": r"deadlock.* 32 wait in shuffle_xor",
    "two_shuffles_for_one": r"thread 7: comes to shuffle .* other lanes .* wait in shuffle_xor",
    "read_out_of_bounds": r"thread 63: reads element 64 of global memory, out of bounds",
    "read_past_its_record": r"thread 5: reads element 1 of global memory, out of bounds",
    "write_out_of_bounds": r"thread 0: touches element -1 of global memory, out of bounds",
    "shared_out_of_bounds": r"thread 63: touches element 64 of shared memory, out of bounds",
    "misaligned_vector": "16 bytes at a time must be aligned",
    "wrong_dtype": "another dtype",
    "unwritten": r"its output \(64\) 1 elements were left unwritten, first \(17\)",
    "unwritten_integer": r"its output \(64\) 1 elements were left unwritten, first \(17\)",
    "output_read_before_written": "output .* nobody has written",
    "shared_read_before_written": r"thread 40: reads shared memory that nobody has written",
    "copy_not_waited_for": "a copy is still under way to",
    "copy_not_committed": "a copy is still under way to",
    "copy_seen_without_a_barrier": "nobody has written",
    "sum_without_atomics": "with no barrier between",
    "last_one_wins": "depend on the order in which threads run",
    "blocks_write_the_same": "another block of the launch has written something else",
    "part_of_a_warp": "whole warps",
}
# what device code says outside csrc/core/ only by the names in csrc/core/cuda.cuh
RAW = (
    r"__shfl|__sync|__shared__|<<<|\b(thread|block)Idx|\b(block|grid)Dim|\batomic[A-Z]|cp\.async"
    r"|\basm\b|__ballot|__(any|all)_sync|__ldg|__threadfence|cudaFunc|cudaLaunch"
)


def run(fault, planted):
    x = torch.arange(64, dtype=torch.float32) + 1
    y, counts = torch.full((64,), 7.0), torch.full((64,), 5, dtype=torch.int32)
    try:
        _emulated.run_fault(fault, planted, view(x), view(y), view(counts))
    except RuntimeError:
        assert y.eq(7).all(), "memory was not put back"
        assert counts.eq(5).all(), "memory was not put back"
        raise
    return x, y


@needs_emulator
def test_every_fault_is_listed():
    assert sorted(_emulated.faults()) == sorted(FAULTS)


@needs_emulator
@pytest.mark.parametrize("fault", FAULTS)
def test_sound_kernel_passes(fault):
    x, y = run(fault, planted=False)
    assert y.equal(x)


@needs_emulator
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault):
    with pytest.raises(RuntimeError, match=rf"^emulator_faults::{fault}\b.*{FAULTS[fault]}"):
        run(fault, planted=True)


@needs_emulator
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", FAULTS)
def test_more_schedules_say_the_same(fault, seed):
    _emulated.use_schedules(8, seed)
    try:
        x, y = run(fault, planted=False)
        assert y.equal(x)
        with pytest.raises(RuntimeError):
            run(fault, planted=True)
    finally:
        _emulated.use_schedules(3)


@needs_emulator
def test_every_native_function_has_its_emulated_form():
    ours = {name for name in dir(_C) if not name.startswith("__")} - {"build_info", "use_isa"}
    assert ours <= set(dir(_emulated))


def test_device_fixture_puts_the_emulator_in_place(device, request):
    emulated = request.node.callspec.params["device"] == "emulated"
    assert (_C.lead_norm_forward is getattr(_emulated, "lead_norm_forward", None)) == emulated


@pytest.mark.parametrize(
    "path",
    [p for p in (ROOT / "csrc").rglob("*.cu*") if p.parent.name != "core"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_device_code_reaches_the_hardware_by_our_names_alone(path):
    code = re.sub(r"//.*", "", path.read_text())
    assert not re.search(RAW, code), f"use the names that csrc/core/cuda.cuh lists: {path.name}"
