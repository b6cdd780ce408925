"""Prints the tables of bench/real_ecgs.sh: ``python bench/real_ecgs_table.py OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ecgfast.data.tables import read_table
from ecgfast.eval.comparison import difference

SEEDS = (0, 1, 2)
HOW = {"full": "whole network", "probe": "linear probe"}
LABELS = {"sex": "sex (1 = male)", "norm": "NORM or not"}


def scored(run: Path) -> tuple[dict, dict]:
    """The AUROC row and the predictions of one run on the test part, in the order of records."""
    rows = json.loads((run / "evaluation-test/metrics.json").read_text())["metrics"]
    auroc = next(row for row in rows if row["name"] == "auroc" and row["subgroup"] is None)
    columns = read_table(run / "evaluation-test/predictions.parquet")
    order = np.argsort(columns["record_id"])
    return auroc, {name: values[order] for name, values in columns.items()}


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
            for start in ("ssl-dml", "random"):
                found = [scored(out / f"{label}-{start}-{how}-{seed}") for seed in SEEDS]
                cells = " | ".join(written(auroc) for auroc, _ in found)
                mean = np.mean([auroc["estimate"] for auroc, _ in found])
                print(f"| {name} | {trained} | {start} | {cells} | {mean:.3f} |")
                scores[start] = np.stack([columns["score"] for _, columns in found])
                test = found[0][1]
            row = difference(
                "auroc", test["label"], scores["ssl-dml"], scores["random"], test["patient_id"]
            )
            count = f"{row['n']} / {row['patients']} / {row['positives']}"
            compared.append(f"| {name} | {trained} | {written(row)} | {count} |")
    print("\n| label | trained | AUROC, ssl-dml minus random | records / patients / positives |")
    print("|---|---|---|---|")
    print("\n".join(compared))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
