"""The model card: what a run's folder says of itself, in words; nothing is made up."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import yaml

from ecgfast.train.checkpoint import load_contract, write_at_once
from ecgfast.train.contract import Contract

CARD = "card.md"
MOST_BYTES = 64 * 2**20
SHOWN = ("auroc", "auprc", "brier", "mae", "rmse", "bias", "pearson_r", "r2")


def write_card(
    folder: str | Path, *, out: str | Path | None = None, patients: int | None = None
) -> str:
    """Writes ``card.md`` from what lies in a run's folder, and gives its text.

    Args:
        folder: Of a finished run; its evaluations are told, too, if there are any.
        out: Folder of the card; the run's own if it is not named.
        patients: That it was trained on, where the caller knows.
    """
    folder = Path(folder)
    text = "\n".join(_lines(folder, load_contract(folder), patients)) + "\n"
    write_at_once(Path(out or folder) / CARD, text.encode())
    return text


def _lines(folder: Path, contract: Contract, patients: int | None) -> list[str]:
    task = contract.task
    config = _read(folder / "config.yaml")
    data = _inside(config, "data")
    parts = ", ".join(str(name) for name in data.get("splits") or ())
    stores = ", ".join(str(path) for path in data.get("paths") or ())
    made = (
        " (SYNTHETIC: what it learned from was made, in part or all)" if contract.synthetic else ""
    )
    arguments = ", ".join(f"{k} {v}" for k, v in contract.model["arguments"].items())
    lines = [
        f"# Model card: {folder.name}",
        "",
        "Research use only. Not a medical device; not for diagnosis or treatment.",
        "",
        "## What it is",
        "",
        f"- encoder: {contract.model['class']} ({arguments})",
        f"- gives: embeddings of {contract.embedding_dim} numbers{_task(task)}",
        f"- steps: {contract.step}; the weights are those of step {contract.weights_step}",
        *(f"- SHA-256 of {name}: {sha}" for name, sha in sorted(contract.sha256.items())),
        "",
        "## What it expects",
        "",
        *_expected(contract),
        "",
        "## Data",
        "",
        f"- training records: {len(contract.trained_on.hashes)}{made}",
        f"- training patients: {patients if patients is not None else 'not written down'}",
        f"- stores: {stores or ('the SYNTHETIC cohort' if contract.synthetic else 'unknown')}",
        f"- parts: {parts or 'not written down'}",
    ]
    if contract.pretrained_on is not None:
        lines.append(f"- records of the pretraining: {len(contract.pretrained_on.hashes)}")
    if task is not None and task["kind"] == "regression":
        lines.append(
            f"- training labels: mean {task['mean']:.4g}, standard deviation {task['sd']:.4g}"
        )
    lines += ["", "## Training", ""]
    lines += [f"    {line}" for line in _text(folder / "command.txt").splitlines()[-1:]]
    versions = _read(folder / "env.json")
    packages = _inside(versions, "packages")
    named = {"ecgfast": versions.get("ecgfast"), "torch": packages.get("torch")}
    told = [f"{name} {version}" for name, version in named.items() if version]
    lines += ["", f"With {', '.join(told)}; all settings are in config.yaml."] if told else []
    lines += ["", "## Performance", "", *_performance(folder)]
    return [
        *lines,
        "",
        "## Intended use, and limits",
        "",
        "- For research on records like those it was trained on. On other hospitals, devices,",
        "  populations or filters it has to be evaluated first (`ecgfast evaluate`).",
        "- It was not tested for safety, and not for fairness beyond the subgroups of its "
        "evaluation.",
        "- An estimate is no measurement; an interval holds for patients like those it was "
        "measured on.",
        "- contract.json holds salted hashes of the training records' names: who knows a name can "
        "test",
        "  whether it was among them.",
        "",
        "## Licence",
        "",
        "Of the weights: not stated. Who publishes them decides, within the licences of the data.",
    ]


def _expected(contract: Contract) -> list[str]:
    signal = contract.signal
    if contract.pages is not None:
        return [f"- pictures of ECGs (PNG, JPEG, TIFF, PDF), brought to {contract.pages.line()}"]
    if contract.clips is not None:
        words = contract.model["arguments"]
        return [
            f"- videos of echocardiograms, brought to {contract.clips.line()}",
            f"- clips of {words.get('frames')} frames, one of every {words.get('step')}",
        ]
    band = "none" if signal.band is None else f"{signal.band[0]:g} to {signal.band[1]:g} Hz"
    return [
        f"- leads, in this order: {' '.join(signal.leads)}",
        f"- {signal.fs:g} Hz, {signal.seconds:g} s ({signal.samples} samples), mV",
        f"- then prepared: band {band}, notch {signal.notch or 'none'}, normalise "
        f"{signal.normalise}, recipe {signal.recipe or 'none'}",
        f"- recipe that records have been through before: {signal.stored_recipe or 'none'}",
    ]


def _task(task: dict[str, Any] | None) -> str:
    if task is None:
        return "; no head"
    if task["kind"] == "regression":
        return f", and {task['label']} as a value"
    if task["kind"] == "survival":
        return f", and the log hazard of {task['event']}"
    if task["kind"] == "multiclass":
        return f", and probabilities of {task['label']}: {', '.join(map(str, task['classes']))}"
    above = "" if task["threshold"] is None else f" > {task['threshold']:g}"
    return f", and the probability of {task['label']}{above}"


def _performance(folder: Path) -> list[str]:
    """Rows of every evaluation that lies in the folder."""
    lines = []
    for path in sorted(folder.glob("evaluation-*/metrics.json")):
        facts = _read(path)
        rows = facts.get("metrics")
        chosen = [
            row
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, dict) and row.get("subgroup") is None and row.get("name") in SHOWN
        ]
        if not chosen:
            continue
        made = ", SYNTHETIC" if facts.get("synthetic") else ""
        lines += [f"Part {facts.get('split')} of {facts.get('store') or 'its records'}{made}:", ""]
        lines += [
            "| metric | estimate | 95 % interval | records | patients |",
            "|---|---|---|---|---|",
        ]
        with contextlib.suppress(KeyError, TypeError, ValueError):
            for row in chosen:
                interval = f"{row['lo']:.3f} to {row['hi']:.3f}"
                cells = (row["name"], f"{row['estimate']:.3f}", interval, row["n"], row["patients"])
                lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    return lines or ["Not evaluated (`ecgfast evaluate`)."]


def _inside(content: dict[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _read(path: Path) -> dict[str, Any]:
    """A file's keys and values; none where it is not what it should be."""
    try:
        content = json.loads(_text(path)) if path.suffix == ".json" else yaml.safe_load(_text(path))
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
