"""How far recipes and filters are from scipy in float64, on real records; writes a Markdown table.

    python bench/preprocess_parity.py ../shared/data docs/results/preprocess-parity.md

The error of a record is its largest difference over its largest value, both of the result of
scipy on the same float32 samples. Records of 10 s or more are cropped to 10 s.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy
import torch

from ecgfast import _C
from ecgfast.data.wfdb import read_wfdb
from ecgfast.transforms.beats import r_peaks
from ecgfast.transforms.recipes import (
    RECIPES,
    Butterworth,
    MedianBaseline,
    Normalise,
    Notch,
    Recipe,
    preprocess,
)

try:
    from ecgfast import _emulated
except ImportError:
    _emulated = None
FEW = 4  # records for what is slow: the other instruction sets, the emulated CUDA kernels
CHUNK = 32  # records at a time
CASES = {
    **RECIPES,
    "band-pass 0.05-150 Hz, order 2": (Butterworth(2, 0.05, 150.0),),
    "high-pass 0.05 Hz, order 2": (Butterworth(2, 0.05),),
    **{f"band-pass 0.5-40 Hz, order {n}": (Butterworth(n, 0.5, 40.0),) for n in range(1, 9)},
    **{f"high-pass 0.5 Hz, order {n}": (Butterworth(n, 0.5),) for n in range(1, 9)},
    **{f"low-pass 40 Hz, order {n}": (Butterworth(n, None, 40.0),) for n in range(1, 9)},
    "notch 50 Hz, Q 30": (Notch(50.0, 30.0),),
    "notch 60 Hz, Q 30": (Notch(60.0, 30.0),),
    "medians of 200 and 600 ms": (MedianBaseline((0.2, 0.6)),),
}


def sets(data: Path, most: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, rate and records ``(N, 12, T)`` of 10 s."""
    ptbxl = data / "ptb-xl-500"
    for fs in (500, 100):
        names = (ptbxl / f"RECORDS{fs}").read_text().split()
        yield f"PTB-XL, {fs} Hz", fs, _read([ptbxl / f"{name}.hea" for name in names], fs, most)
    challenge = sorted((data / "challenge-2021").rglob("*.hea"))
    challenge = [path for path in challenge if "ptb-xl" not in path.parts]  # twice, otherwise
    yield "Challenge 2021, 500 Hz", 500, _read(challenge, 500, most)
    code15 = sorted((data / "code15-153").rglob("*.hea"))
    yield "CODE-15, 400 Hz", 400, _read(code15, 400, most)


def _read(paths: list[Path], fs: int, most: int) -> np.ndarray:
    records = []
    for path in paths[:: max(1, len(paths) // most)]:
        ecg = read_wfdb(path).signal.astype(np.float32)
        if ecg.shape[0] == 12 and ecg.shape[1] >= 10 * fs and np.isfinite(ecg).all():
            records.append(ecg[:, : 10 * fs])
    return np.stack(records[:most])


def errors(recipe: Recipe, ecg: np.ndarray, fs: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each record, over the peak of the result and over that of the signal, both in mV."""
    plain = replace(recipe, words=tuple(w for w in recipe.words if not isinstance(w, Normalise)))
    of_result, of_signal = [], []
    for start in range(0, len(ecg), CHUNK):
        part = ecg[start : start + CHUNK]
        truth = recipe.reference(part, fs)
        got = preprocess(torch.from_numpy(part), recipe=recipe, fs=fs).double().numpy()
        worst = np.abs(got - truth).max(axis=(1, 2))
        peak = np.abs(truth).max(axis=(1, 2))
        worst /= np.where(peak > 0, peak, 1)
        millivolts = truth if plain == recipe else plain.reference(part, fs)
        left = np.abs(millivolts).max(axis=(1, 2)) / np.abs(part).max(axis=(1, 2))
        of_result.append(worst)
        of_signal.append(worst * np.minimum(left, 1))
    return np.concatenate(of_result), np.concatenate(of_signal)


def usable(recipe: Recipe, ecg: np.ndarray, fs: int) -> tuple[np.ndarray, int]:
    """Records whose beats are found, and found alike in both precisions; how many are not."""
    kinds = [type(word).__name__ for word in recipe.words]
    before = Recipe("before", "", recipe.words[: kinds.index("MedianBeat")])
    beat = recipe.words[kinds.index("MedianBeat")]
    rate, samples = before.result(fs, ecg.shape[2])
    kept = []
    for n in range(len(ecg)):
        exact = torch.from_numpy(before.reference(ecg[n : n + 1], fs).copy())
        plain = preprocess(torch.from_numpy(ecg[n : n + 1]), recipe=before, fs=fs)
        (a,), (b,) = (r_peaks(x, fs=rate, clean=False) for x in (exact, plain))
        whole = (a >= beat.before) & (a - beat.before + beat.samples <= samples)
        if whole.sum() >= beat.least and np.array_equal(a, b):
            kept.append(n)
    return ecg[kept], len(ecg) - len(kept)


@contextmanager
def level(name: str) -> Iterator[None]:
    """Runs an instruction set, or the CUDA kernels on the CPU."""
    if name == "emulated CUDA":
        shared = [n for n in set(dir(_C)) & set(dir(_emulated)) if not n.startswith("__")]
        before = {n: getattr(_C, n) for n in shared}
        for n in shared:
            setattr(_C, n, getattr(_emulated, n))
        yield
        for n, function in before.items():
            setattr(_C, n, function)
        return
    before = _C.build_info()["isa"]
    _C.use_isa(name)
    yield
    _C.use_isa(before)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("data", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--most", type=int, default=1000, help="records of a set")
    words.add_argument("--only", default="", help="part of a case's name")
    given = words.parse_args()
    info = _C.build_info()
    best, others = info["isa"], [isa for isa in info["isa_here"] if isa != info["isa"]]
    others += ["emulated CUDA"] if _emulated is not None else []
    table, worst, device = [], np.zeros(2), np.zeros(2)
    for name, fs, ecg in sets(given.data, given.most):
        for case, what in CASES.items():
            if given.only not in case:
                continue
            recipe = what if isinstance(what, Recipe) else Recipe(case, "", what)
            if recipe.unscaled() != recipe:
                recipe = recipe.scaled(0.0, 0.25)
            try:
                recipe.places(fs, ecg.shape[2])
            except ValueError as error:
                table.append(f"| {name} | {case} | | | | refused: {error} |")
                continue
            records, left_out = usable(recipe, ecg, fs) if case == "dual_attention" else (ecg, 0)
            of_result, of_signal = errors(recipe, records, fs)
            worst = np.maximum(worst, [of_result.max(), of_signal.max()])
            few = []
            for other in others:
                with level(other):
                    result, signal = (made.max() for made in errors(recipe, records[:FEW], fs))
                few.append(f"{other} {result:.1e}, {signal:.1e}")
                if other == "emulated CUDA":
                    device = np.maximum(device, [result, signal])
            note = f"; {left_out} left out" if left_out else ""
            table.append(
                f"| {name} | {case} | {len(records)}{note} | {of_result.max():.1e},"
                f" {of_signal.max():.1e} | {np.percentile(of_result, 99):.1e},"
                f" {np.percentile(of_signal, 99):.1e} | {'; '.join(few)} |"
            )
            print(table[-1], flush=True)
    given.output.write_text(
        TEXT.format(
            worst=" and ".join(f"{value:.1e}" for value in worst),
            device=" and ".join(f"{value:.1e}" for value in device),
            best=best,
            most="" if given.most == 1000 else f" --most {given.most}",
            few=FEW,
            versions=f"torch {torch.__version__}, scipy {scipy.__version__}, numpy"
            f" {np.__version__}, Python {platform.python_version()}",
            table="\n".join(table),
        )
    )


TEXT = """# Recipes and filters against scipy on real records

    python bench/preprocess_parity.py ../shared/data docs/results/preprocess-parity.md{most}

{versions}; instruction set {best}.
Truth is scipy or numpy in float64 on the same float32 samples (`Recipe.reference`; the tests hold
it to the published chains, written out once more, within 1e-9).

The error of a record is its largest difference, given twice: over the largest value of the
**result**, and over that of the **signal** that went in (both in mV, before any normalisation).
They part where a filter takes most of a record away: single precision rounds in proportion to what
is there before. Columns: records, the worst of them, the 99th percentile, and the worst of the
first {few} by the other instruction sets and by the CUDA kernels in the emulator (no GPU has run
them here). Records are cropped to 10 s; of Challenge 2021 what comes from PTB-XL is left out.

Asked for: at most 1e-6 of the signal's peak. **Worst of all, of the result and of the signal:
{worst}** on the CPU; {device} in the emulator.

`dual_attention`: left out are records with fewer than three whole beats, and those where float32
and float64 put an R peak at another sample (a tie).

| records | what | n | worst | 99 % | others |
|---|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    main()
