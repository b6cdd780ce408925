"""Prints the tables of bench/real_ecgs.sh: ``python bench/real_ecgs_table.py OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgfast.data.tables import read_table
from ecgfast.eval.classification import classification_rows
from ecgfast.eval.comparison import difference
from ecgfast.systems.predict import predict

SEEDS = (0, 1, 2)
HOW = {"full": "whole network", "probe": "linear probe", "logistic": "logistic regression"}
STARTS = ("dtw", "mean_l1", "euclidean", "random")
LABELS = {"sex": "sex (1 = male)", "norm": "NORM or not"}


def scored(out: Path, label: str, start: str, how: str, seed: int) -> tuple[dict, dict]:
    """The AUROC row and the predictions of one run on the test part, in the order of records."""
    if how == "logistic":
        columns = regressed(out, label, start, seed)
    else:
        run = out / f"{label}-{start}-{how}-{seed}"
        columns = read_table(run / "evaluation-test/predictions.parquet")
    order = np.argsort(columns["record_id"])
    columns = {name: values[order] for name, values in columns.items()}
    rows = classification_rows(columns["label"], columns["score"], columns["patient_id"])
    return next(row for row in rows if row["name"] == "auroc"), columns


def regressed(out: Path, label: str, start: str, seed: int) -> dict:
    """Logistic regression on the embeddings, each brought to variance 1: its scale plays no part.

    The penalty is chosen among training patients. A frozen encoder with random weights is kept by
    its probe.
    """
    kept = f"{label}-random-probe-{seed}" if start == "random" else f"pretrain-{start}-{seed}"
    train, test = (
        predict(out / kept, out / "ptb-xl", splits=splits, label=label)
        for splits in (("train", "val"), ("test",))
    )
    model = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": np.logspace(-4, 1, 11)},
        scoring="roc_auc",
        cv=GroupKFold(5),
    ).fit(train["embedding"], train["label"], groups=train["patient_id"])
    return test | {"score": model.predict_proba(test["embedding"])[:, 1]}


def curves(run: Path) -> np.ndarray:
    """What a run logged, by the names of its columns."""
    return np.genfromtxt(run / "metrics.csv", delimiter=",", names=True)


def written(row: dict) -> str:
    """Estimate and interval."""
    return f"{row['estimate']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]"


def main(out: Path) -> None:
    """Prints Markdown."""
    print("| label | trained | start | seed 0 | seed 1 | seed 2 | mean |")
    print("|---|---|---|---|---|---|---|")
    compared = []
    for label, name in LABELS.items():
        for how, trained in HOW.items():
            scores = {}
            for start in STARTS:
                found = [scored(out, label, start, how, seed) for seed in SEEDS]
                cells = " | ".join(written(row) for row, _ in found)
                mean = np.mean([row["estimate"] for row, _ in found])
                print(f"| {name} | {trained} | {start} | {cells} | {mean:.3f} |")
                scores[start] = np.stack([columns["score"] for _, columns in found])
                test = found[0][1]
            rows = [
                difference("auroc", test["label"], scores["dtw"], scores[other], test["patient_id"])
                for other in STARTS[1:]
            ]
            count = f"{rows[0]['n']} / {rows[0]['patients']} / {rows[0]['positives']}"
            cells = " | ".join(written(row) for row in rows)
            compared.append(f"| {name} | {trained} | {cells} | {count} |")
    print("\nAUROC, dtw minus another start:\n")
    print(f"| label | trained | {' | '.join(STARTS[1:])} | records / patients / positives |")
    print("|---|---|---|---|---|---|")
    print("\n".join(compared))
    print("\nThe three pretrainings of each distance, at their last step:\n")
    print("| distance | loss | open hinges | embedding std at step 1, last | share of mining |")
    print("|---|---|---|---|---|")
    for start in STARTS[:-1]:
        runs = [curves(out / f"pretrain-{start}-{seed}") for seed in SEEDS]
        last = {name: [float(run[name][-1]) for run in runs] for name in ("loss", "active")}
        last = {name: ", ".join(f"{v:.2f}" for v in values) for name, values in last.items()}
        std = ", ".join(
            f"{float(run['embedding_std'][0]):.2f} to {float(run['embedding_std'][-1]):.2f}"
            for run in runs
        )
        mining = np.mean([np.mean(run["mining"][1:]) for run in runs])
        print(f"| {start} | {last['loss']} | {last['active']} | {std} | {100 * mining:.1f} % |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
