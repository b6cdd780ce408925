"""ECG and report on 500 records of PTB-XL: ``python bench/ecg_report.py OUT STAGE [SHARED]``.

Five times another two of the ten folds are the test part, and the other eight are learned from,
with another seed: every record is tested once.

    stores   median beats of the records of SHARED/ptb-xl-500, once for each of the five
    runs     of each of ARMS a pretraining a seed, and its zero-shot scores
    table    AUROC of the diagnostic superclasses, from prompts alone and by a logistic regression
             on frozen embeddings: the mean over seeds [95 % interval by Student]

Stages skip what is there. ARMS and STEPS are environment variables.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from ecgfast.cli import main as ecgfast
from ecgfast.eval.label_efficiency import over_seeds
from ecgfast.eval.probe import linear_probe
from ecgfast.systems.predict import predict

SEEDS = range(5)
CLASSES = ("NORM", "STTC", "CD", "MI", "HYP")
COLUMNS = tuple(name.lower() for name in CLASSES)
STEPS = os.environ.get("STEPS", "200")
ARMS = {  # what pretraining is told; random weights are those of one step at a rate of nothing
    "random": ["--fit.steps", "1", "--optim.lr", "1e-12"],
    "reconstruction": ["--align", "none"],
    "statements": ["--text.column", "scp_codes"],
    "reports": [],
    "published": ["--text.column", "scp_codes", "--config", "published"],
}
CHOSEN = os.environ.get("ARMS", "random reconstruction statements reports").split()


def main() -> None:
    out, stage = Path(sys.argv[1]), sys.argv[2]
    if stage == "table":
        table(out)
        return
    shared = Path(sys.argv[3]) / "ptb-xl-500"
    {"stores": stores, "runs": runs}[stage](out, shared)


def stores(out: Path, data: Path) -> None:
    whole = out / "store"
    if not (whole / "store.json").exists():
        words = ["convert", "--fs", "100", "--seconds", "10", "--recipe", "dual_attention"]
        ecgfast([*words, "--records", str(data / "RECORDS100"), str(data), str(whole)])
    for seed in SEEDS:
        path = out / f"store-{seed}"
        if not path.exists():
            shutil.copytree(whole, path)
            folds = f"{2 * seed + 1},{2 * seed + 2}"
            words = ["split", str(path), "--by", "patient", "--scheme", "ptbxl"]
            val = 2 * seed + 3 if seed < 4 else 1
            ecgfast([*words, "--val-folds", str(val), "--test-folds", folds])


def runs(out: Path, data: Path) -> None:
    for seed in SEEDS:
        for arm in CHOSEN:
            path, store = out / f"{arm}-{seed}", out / f"store-{seed}"
            if not (path / "contract.json").exists():
                words = ["pretrain", "ecg-report", "--data.paths", f"[{store}]"]
                words += ["--data.splits", "[train, val]", "--text.statements"]
                words += [str(data / "scp_statements.csv"), "--text.unlikely", "0"]
                words += ["--signal.fs", "500", "--signal.seconds", "1.216", "--signal.recipe", ""]
                words += ["--signal.stored_recipe", "dual_attention", "--fit.batch_size", "64"]
                words += ["--fit.steps", STEPS, "--fit.seed", str(seed), "--fit.progress", "false"]
                ecgfast([*words, *ARMS[arm], "--fit.out", str(path)])
            if arm != "reconstruction" and not (path / "zero-shot-test").exists():
                words = ["zero-shot", str(path), str(store), "--least", "3"]
                ecgfast([*words, "--statements", str(data / "scp_statements.csv")])


def table(out: Path) -> None:
    for title, of in (("From prompts alone", zero_shot), ("Logistic regression", probed)):
        print(f"| {title} | " + " | ".join((*CLASSES, "mean of the five")) + " |")
        print("|---|" + "---|" * (len(CLASSES) + 1))
        for arm in CHOSEN:
            rows = [of(out, arm, seed) for seed in SEEDS if (out / f"{arm}-{seed}").exists()]
            if not any(rows):
                continue
            cells = [[row[name] for row in rows] for name in CLASSES]
            cells.append([float(np.mean(list(row.values()))) for row in rows])
            print(f"| {arm} | " + " | ".join(map(interval, cells)) + " |")
        print()


def zero_shot(out: Path, arm: str, seed: int) -> dict[str, float]:
    path = out / f"{arm}-{seed}" / "zero-shot-test" / "metrics.json"
    if not path.exists():
        return {}
    groups = json.loads(path.read_text())["classes"]
    rows = next(group for group in groups if group["group"] == "superclasses")["metrics"]
    found = {row["name"].removeprefix("auroc_of_"): row["estimate"] for row in rows}
    return {name: found[name] for name in CLASSES}


def probed(out: Path, arm: str, seed: int) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    run, store = out / f"{arm}-{seed}", out / f"store-{seed}"
    parts = [
        predict(run, store, splits=splits, extra=COLUMNS)
        for splits in (("train", "val"), ("test",))
    ]
    train, test = (part["embedding"].astype(np.float64) for part in parts)
    mean, sd = train.mean(axis=0), train.std(axis=0) + 1e-9
    found = {}
    for name in CLASSES:
        mine, theirs = (np.asarray(part[name.lower()], np.float64) for part in parts)
        probe = linear_probe((train - mean) / sd, mine, parts[0]["patient_id"], classes=True)
        found[name] = float(roc_auc_score(theirs, probe.score((test - mean) / sd)))
    return found


def interval(values: list[float]) -> str:
    found = over_seeds(values)
    if found["lo"] is None:
        return f"{found['estimate']:.3f}"
    return f"{found['estimate']:.3f} [{found['lo']:.3f}, {found['hi']:.3f}]"


if __name__ == "__main__":
    main()
