"""A run folder as if it had been trained and evaluated. All its numbers are SYNTHETIC."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ecgfast.data.tables import write_table
from ecgfast.eval import (
    calibration_rows,
    classification_rows,
    ranking_rows,
    regression_rows,
    reliability,
    subgroups,
)

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
SIGNAL = {
    "leads": LEADS,
    "fs": 250.0,
    "seconds": 10.0,
    "band": [0.5, 40.0],
    "notch": None,
    "normalise": "none",
    "samples": 2500,
    "units": "mV",
}


def made_ecg(seed: int, fs: float = 250.0, seconds: float = 10.0) -> np.ndarray:
    """Something to draw, ``(12, T)`` in mV: waves along a moving axis, with noise."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(fs * seconds)) / fs
    beat = (t * draw.uniform(0.9, 1.5) + draw.random()) % 1.0
    waves = [(0.18, 0.022, 0.12), (0.36, 0.008, -0.12), (0.38, 0.011, 1.1), (0.405, 0.01, -0.25)]
    waves += [(0.62, 0.045, 0.3)]
    turn = draw.uniform(-0.4, 0.4)
    angles = dict(zip(LEADS[:2], (0.0, np.pi / 3), strict=True))
    ecg = np.zeros((12, len(t)))
    for at, width, size in waves:
        wave = size * np.exp(-(((beat - at) / width) ** 2) / 2)
        axis = 0.9 + turn + draw.normal(0, 0.2)
        for row, name in enumerate(LEADS[:2]):
            ecg[row] += wave * np.cos(angles[name] - axis)
        for row in range(6, 12):
            ecg[row] += wave * 1.2 * np.cos((row - 9.5) * 0.55 - turn)
    ecg[2] = ecg[1] - ecg[0]
    ecg[3], ecg[4], ecg[5] = -(ecg[0] + ecg[1]) / 2, ecg[0] - ecg[1] / 2, ecg[1] - ecg[0] / 2
    wander = 0.08 * np.sin(2 * np.pi * 0.2 * t + draw.random())
    return ecg + wander + draw.normal(0, 0.01, ecg.shape)


def cohort(task: str, patients: int = 160, seed: int = 0) -> dict[str, np.ndarray]:
    """Scored records of made patients, some of unknown sex or age, and their embeddings."""
    draw = np.random.default_rng(seed)
    visits = draw.integers(1, 4, size=patients)
    patient = np.repeat(np.arange(patients), visits)
    n = len(patient)
    sex = np.repeat(draw.integers(0, 2, patients).astype(float), visits)
    age = np.repeat(draw.uniform(20, 92, patients), visits)
    sex[patient == 3], age[patient == 5] = np.nan, np.nan
    pressure = np.repeat(draw.gamma(4, 4, patients), visits) + draw.normal(0, 2, n)
    guess = 8 + 0.5 * pressure + draw.normal(0, 4, n)
    ways = draw.normal(size=(4, 32))
    parts = np.stack([pressure / 8, np.nan_to_num(sex), guess / 6, draw.normal(size=n)], axis=1)
    own = np.repeat(draw.normal(size=(patients, 32)), visits, axis=0)
    columns = {
        "record_id": np.array([f"p{p:04d}v{i:04d}" for i, p in enumerate(patient)]),
        "patient_id": np.array([f"p{p:04d}" for p in patient]),
        "label": pressure,
        "score": guess,
        "sex": sex,
        "age": age,
        "embedding": (parts @ ways + own + 0.5 * draw.normal(size=(n, 32))).astype(np.float32),
    }
    if task == "classification":
        columns["label"] = (pressure > 18).astype(float)
        columns["score"] = 1 / (1 + np.exp(-(guess - 17) / 2.5))
    return columns


def curves(path: Path, names: dict[str, tuple[float, float]], steps: int, seed: int) -> None:
    """Learning curves that fall from the first number to the second."""
    draw = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, ["step", "epoch", *names, "lr", "records_per_s", "waiting"])
        out.writeheader()
        for step in range(10, steps + 1, 10):
            row = {"step": step, "epoch": step / 40, "lr": 1e-4 * np.cos(step / steps * np.pi / 2)}
            row |= {"records_per_s": 300 + draw.normal(0, 8), "waiting": abs(draw.normal(0, 0.01))}
            for name, (start, end) in names.items():
                if not name.startswith("val_") or step % 50 == 0:
                    value = end + (start - end) * np.exp(-4 * step / steps)
                    row[name] = value * (1 + draw.normal(0, 0.03))
            out.writerow(row)


def make_run(
    root: Path,
    task: str,
    *,
    synthetic: bool = True,
    draws: int = 200,
    columns: dict[str, np.ndarray] | None = None,
) -> Path:
    """Writes runs of pre-training and of fine-tuning, the latter evaluated; gives the latter."""
    before, run = root / "pretrain", root / f"mpcwp-{task}"
    for folder in (before, run):
        folder.mkdir(parents=True, exist_ok=True)
    names = {"loss": (0.22, 0.06), "positive_distance": (1.0, 0.6), "embedding_std": (0.2, 0.7)}
    curves(before / "metrics.csv", names, 600, 1)
    loss = (1.0, 0.4) if task == "regression" else (0.69, 0.4)
    score = {"val_rmse": (8, 5.5)} if task == "regression" else {"val_auroc": (0.55, 0.84)}
    curves(run / "metrics.csv", {"loss": loss, "val_loss": loss, **score}, 400, 2)
    contract = {
        "version": 1,
        "signal": SIGNAL,
        "embedding_dim": 128,
        "model": {"class": "ResNet1d", "arguments": {"num_leads": 12, "embedding_dim": 128}},
        "head": {"class": "Head", "arguments": {"embedding_dim": 128, "hidden": 128}},
        "task": {"kind": task, "label": "mpcwp", "threshold": 18.0},
        "synthetic": synthetic,
        "step": 400,
    }
    (run / "contract.json").write_text(json.dumps(contract))
    (run / "config.yaml").write_text(
        f"init: {before}\nlabel: mpcwp\ntask: {task}\nfit:\n  steps: 400\n  out: {run}\n"
    )
    (run / "command.txt").write_text(f"ecgfast finetune --init {before} --task {task}\n")
    (run / "env.json").write_text(json.dumps({"ecgfast": "0.1.0", "python": "3.11", "cpus": 2}))
    evaluated(run, columns or cohort(task), task, synthetic=synthetic, draws=draws)
    return run


def evaluated(
    run: Path,
    columns: dict[str, np.ndarray],
    task: str,
    *,
    synthetic: bool = True,
    draws: int,
    threshold: float = 0.4,
) -> None:
    """What `ecgfast evaluate` would have written."""
    folder = run / "evaluation-test"
    folder.mkdir(exist_ok=True)
    label, score, patient = (columns[k] for k in ("label", "score", "patient_id"))
    groups = subgroups(sex=columns["sex"], age=columns["age"])
    facts = {
        "run": str(run),
        "store": None,
        "stores": [],
        "split": "test",
        "synthetic": synthetic,
        "task": task,
        "label": "mpcwp",
        "label_above": 18.0 if task == "classification" else None,
        "threshold": None,
        "threshold_from": None,
        "command": f"ecgfast evaluate {run}",
        "draws": draws,
        "seed": 0,
        "level": 0.95,
        "records": len(label),
        "seen": 0,
        "unlabelled": 7,
        "unknown": {"sex": 2, "age": 3},
        "calibration": {},
    }
    if task == "classification":
        facts |= {"threshold": threshold, "threshold_from": "90 % sensitivity on the val part"}
        rows = classification_rows(
            label, score, patient, threshold=threshold, groups=groups, draws=draws
        )
        rows += calibration_rows(label, score, patient, draws=draws)
        facts["calibration"] = {"points": reliability(label, score, patient, draws=draws)}
        rows += ranking_rows(columns["embedding"], patient, label=label, draws=draws)
    else:
        rows = regression_rows(label, score, patient, groups=groups, draws=draws)
        rows += ranking_rows(columns["embedding"], patient, draws=draws)
    facts["metrics"] = rows
    (folder / "metrics.json").write_text(json.dumps(facts, allow_nan=False))
    table = {k: v for k, v in columns.items() if k != "embedding"}
    write_table(folder / "predictions.parquet", table)
    ids = {"record_id": columns["record_id"], "embedding": columns["embedding"]}
    np.savez(folder / "embeddings.npz", **ids)
