"""Score a fine-tuned run on held-out patients, with intervals."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser

KEPT = ("record_id", "patient_id", "label", "value", "score", "sex", "age")
LEVEL = 0.95


def options(parser: Parser) -> None:
    """What to score and how to bound it."""
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="folders of records; none takes what the run was trained from (its held-out part), "
        "which is the SYNTHETIC cohort if it was trained on that",
    )
    parser.add_argument("--split", type=str, default="test", help="part of the records to score")
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of patients")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--threshold",
        type=str,
        default="auto",
        help="a score at or above it is called positive; auto is the highest that finds nine "
        "tenths of the positives of the run's validation part",
    )
    parser.add_argument(
        "--above",
        type=float,
        nargs="*",
        default=[],
        help="for a regression, how well its values tell who lies above each of these",
    )
    parser.add_argument("--json", type=str, default="", help="write the numbers to this file, too")
    parser.add_argument("--workers", type=int, default=0, help="processes that load records")


def run(words: Namespace) -> None:
    """Scores, writes RUN/evaluation-SPLIT, and prints a table."""
    if words.bootstrap < 1:
        raise Fail(2, f"error: --bootstrap must be 1 or more, got {words.bootstrap}")
    if words.threshold != "auto":
        _number(words.threshold)
    from ecgfast.train.checkpoint import load_contract

    started = time.perf_counter()
    folder = Path(words.run)
    contract = load_contract(folder)
    config = _config(folder)
    stores = list(words.store) or list(config.get("data", {}).get("paths") or ())
    found = _predict(words, stores, config, words.split)
    _refuse_seen(found, words.split)
    facts, groups = _facts(words, contract, stores, found)
    if contract.task is not None and contract.task["kind"] == "classification":
        facts |= _threshold(words, contract.task, stores, config)
    facts |= _score(words, facts, found, groups)
    out = folder / f"evaluation-{words.split}"
    _write(out, facts, found)
    if words.json:
        Path(words.json).write_text(_to_json(facts), encoding="utf-8")
    _print(facts)
    print(f"wrote {out} in {time.perf_counter() - started:.1f} s; next: ecgfast report {words.run}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Fail(2, f"error: --threshold must be auto or a number, got {text}") from None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _predict(
    words: Namespace, stores: list[str], config: dict[str, Any], split: str
) -> dict[str, Any]:
    """Scores and what is known of each record; a patient whom nobody knows is one of their own."""
    import numpy as np

    from ecgfast.systems.predict import predict

    patients = int(config.get("data", {}).get("patients") or 400)
    found = predict(words.run, stores, splits=(split,), patients=patients, workers=words.workers)
    patient = np.asarray(found["patient_id"]).astype(str)
    unknown = np.isin(patient, ("", "None", "nan"))
    own = np.char.add("record ", np.asarray(found["record_id"]).astype(str))
    return found | {"patient_id": np.where(unknown, own, patient)}


def _refuse_seen(found: dict[str, Any], split: str) -> None:
    """A test on what was learned from is none."""
    fine, before = found["trained_on"], found["pretrained_on"]
    seen = fine | before
    if split != "test" or not seen.any():
        return
    first = found["record_id"][seen.argmax()]
    raise Fail(
        3,
        f"error[contamination] {int(seen.sum())} of {len(seen)} records of the test part were "
        f"trained on (first: {first}): {int(fine.sum())} by this run, {int(before.sum())} by the "
        "encoder it began from. Their scores say nothing about new patients. Split by patient "
        "(ecgfast split STORE --by patient) and train again without the test part, or score "
        "another part with --split",
    )


def _facts(
    words: Namespace, contract: Any, stores: list[str], found: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands above the numbers, and masks of subgroups."""
    import numpy as np

    from ecgfast.data.store import ECGStore
    from ecgfast.eval import subgroups

    opened = [ECGStore.open(path) for path in stores]
    everyone = sum(len(store.select((words.split,))) for store in opened)
    task = contract.task
    groups = subgroups(sex=found.get("sex"), age=found.get("age"))
    unknown = {}
    for kind in ("sex", "age"):
        masks = [mask for name, mask in groups.items() if name.startswith(kind)]
        unknown[kind] = int((~np.any(masks, axis=0)).sum()) if masks else len(found["record_id"])
    facts = {
        "run": words.run,
        "store": ", ".join(stores) or None,
        "stores": stores,
        "split": words.split,
        "synthetic": bool(contract.synthetic or not stores or any(s.synthetic for s in opened)),
        "task": "embedding" if task is None else task["kind"],
        "label": None if task is None else task["label"],
        "label_above": None if task is None else task["threshold"],
        "threshold": None,
        "threshold_from": None,
        "command": _command(words),
        "draws": words.bootstrap,
        "seed": words.seed,
        "level": LEVEL,
        "records": len(found["record_id"]),
        "unlabelled": max(0, everyone - len(found["record_id"])),
        "unknown": unknown,
        "seen": int((found["trained_on"] | found["pretrained_on"]).sum()),
    }
    return facts, groups


def _threshold(
    words: Namespace, task: dict[str, Any], stores: list[str], config: dict[str, Any]
) -> dict[str, Any]:
    """The score from which on a record is called positive, and where it comes from."""
    from ecgfast.data.records import DataError
    from ecgfast.eval import threshold_at_sensitivity

    if words.threshold != "auto":
        return {"threshold": _number(words.threshold), "threshold_from": "given"}
    part = str(config.get("validation") or "val")
    if part == words.split:
        return {"threshold": 0.5, "threshold_from": f"one half: {part} is what is scored"}
    try:
        held = _predict(words, stores, config, part)
        value = threshold_at_sensitivity(_classes(held["label"], task["threshold"]), held["score"])
    except (DataError, ValueError) as error:
        why = str(error).splitlines()[0][:120]
        return {
            "threshold": 0.5,
            "threshold_from": f"one half: no {part} part to choose by ({why})",
        }
    return {"threshold": value, "threshold_from": f"90 % sensitivity on the {part} part"}


def _classes(label: Any, above: float | None) -> Any:
    """0 or 1; a label without a threshold is that already."""
    import numpy as np

    values = np.asarray(label, np.float64)
    return values if above is None else (values > above).astype(np.float64)


def _score(
    words: Namespace, facts: dict[str, Any], found: dict[str, Any], groups: dict[str, Any]
) -> dict[str, Any]:
    """All rows of the table; for a class, `found` gets the class beside the value."""
    from ecgfast.eval import (
        calibration_rows,
        classification_rows,
        ranking_rows,
        regression_rows,
        reliability,
    )

    how: dict[str, Any] = {"draws": words.bootstrap, "seed": words.seed, "level": LEVEL}
    patient, score = found["patient_id"], found.get("score", ())
    rows: list[dict[str, Any]] = []
    calibration: dict[str, Any] = {}
    classes = None
    if facts["task"] == "classification":
        if facts["label_above"] is not None:
            found["value"] = found["label"]
        classes = found["label"] = _classes(found["label"], facts["label_above"])
        threshold = facts["threshold"]
        rows = classification_rows(
            classes, score, patient, threshold=threshold, groups=groups, **how
        )
        rows += calibration_rows(classes, score, patient, **how)
        calibration = {"points": reliability(classes, score, patient, **how)}
    elif facts["task"] == "regression":
        rows = regression_rows(found["label"], score, patient, groups=groups, **how)
        for cut in words.above:
            above = classification_rows(_classes(found["label"], cut), score, patient, **how)
            name = f"auroc_above_{cut:g}"
            rows += [row | {"name": name} for row in above if row["name"] == "auroc"]
    rows += ranking_rows(found["embedding"], patient, label=classes, **how)
    # a number without an interval is no number: it stands apart, with the reason
    without = [row | {"estimate": None} for row in rows if row["lo"] is None]
    return {
        "metrics": [row for row in rows if row["lo"] is not None],
        "not_computed": without,
        "calibration": calibration,
    }


def _command(words: Namespace) -> str:
    """The words that give these numbers again."""
    line = ["ecgfast", "evaluate", words.run]
    if words.store:
        line += ["--store", *words.store]
    for name, usual in (("split", "test"), ("bootstrap", 1000), ("seed", 0), ("threshold", "auto")):
        if words[name] != usual:
            line += [f"--{name}", str(words[name])]
    if words.above:
        line += ["--above", *(f"{cut:g}" for cut in words.above)]
    return shlex.join(line)


def _to_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1, allow_nan=False) + "\n"


def _write(out: Path, facts: dict[str, Any], found: dict[str, Any]) -> None:
    """metrics.json comes last: where it is, the rest is."""
    import numpy as np

    from ecgfast.data.tables import write_table

    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    write_table(out / "predictions.parquet", {k: found[k] for k in KEPT if k in found})
    np.savez(out / "embeddings.npz", record_id=found["record_id"], embedding=found["embedding"])
    (out / "metrics.json").write_text(_to_json(facts), encoding="utf-8")


def _print(facts: dict[str, Any]) -> None:
    """Numbers of all records, then the first metric by subgroup."""
    rows = facts["metrics"] + facts["not_computed"]
    whole = [row for row in rows if row["subgroup"] is None]
    chosen = whole + [
        row
        for row in rows
        if row["subgroup"] is not None and row["name"] in ("auroc", "mae", "pearson_r")
    ]
    lines = [("metric", "of", "estimate", "95 % interval", "n", "patients", "positives")]
    for row in chosen:
        estimate = "-" if row["estimate"] is None else f"{row['estimate']:.3f}"
        bounds = f"not computed: {row['reason']}"
        if row["lo"] is not None:
            bounds = f"[{row['lo']:.3f}, {row['hi']:.3f}]"
        positives = "" if row["positives"] is None else str(row["positives"])
        group = row["subgroup"] or "all"
        counts = (str(row["n"]), str(row["patients"]), positives)
        lines.append((row["name"], group, estimate, bounds, *counts))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        cells = [
            cell.ljust(width) if i in (0, 1, 3) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()
    if facts["threshold"] is not None:
        print(
            f"positive is a score of {facts['threshold']:.4g} or more ({facts['threshold_from']})"
        )
    if facts["unlabelled"]:
        print(f"{facts['unlabelled']} more records of this part have no label")
    if facts["seen"]:
        print(f"{facts['seen']} of {facts['records']} records were trained on")
    if facts["synthetic"]:
        print("SYNTHETIC data: these numbers say nothing about medicine")
