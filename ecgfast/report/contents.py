"""What a page is made of, and what of it a run's folder holds."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from ecgfast.eval.attention import GroupMaps

Column = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Numbers that a run wrote while it trained.

    Attributes:
        title: As in "Pre-training".
        run: Its folder.
        columns: Values by name, NaN where a row has none; ``step`` is among them.
        missing: Why there are none.
    """

    title: str
    run: str
    columns: dict[str, list[float]] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `ecgfast evaluate` wrote.

    Attributes:
        facts: metrics.json.
        predictions: Columns of predictions.parquet: record_id, patient_id, label, score, and sex
            and age where they are known; empty for a run without a head.
        record_ids: Of the embeddings ``(N,)``.
        embeddings: ``(N, D)``.
    """

    facts: dict[str, Any]
    predictions: dict[str, Column]
    record_ids: Column
    embeddings: NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Where the records came from.

    Attributes:
        origin: In words.
        splits: A row each: split, records, patients, age, male, label (text).
        issues: A row each: issue, kept, rejected (counts), example.
        missing: Why the card is empty.
    """

    origin: str
    splits: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One ECG to show.

    Attributes:
        kind: best or worst.
        record_id: Of the store.
        words: What was measured and what was predicted.
        ecg: ``(L, T)`` mV, NaN where nothing was recorded.
        leads: Names.
        fs: Hz.
        page: ``(H, W, 3)`` uint8, as a network that sees pages has it, larger; None for others.
        heat: ``(h, w)`` from 0 to 1, where on it the score comes from.
    """

    kind: str
    record_id: str
    words: str
    ecg: NDArray[np.floating[Any]]
    leads: tuple[str, ...]
    fs: float
    page: NDArray[np.uint8] | None = None
    heat: NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class ClipExample:
    """One clip of an echocardiogram to show.

    Attributes:
        kind: As of an Example.
        record_id: Of what was scored: a study, or a video.
        video: Which video the clip is of.
        words: What was measured and what was predicted.
        frames: ``(F, S, S)`` uint8, grey.
        heat: ``(f, h, w)`` from 0 to 1, where the score comes from.
        fps: Frames of the clip a second; 0 is not known.
    """

    kind: str
    record_id: str
    video: str
    words: str
    frames: NDArray[np.uint8]
    heat: NDArray[np.floating[Any]]
    fps: float


@dataclass(frozen=True, kw_only=True)
class AttentionExample:
    """One record as a dual-attention network sees it.

    Attributes:
        kind: As in "highest score".
        record_id: Of the store.
        words: What is known of it.
        ecg: ``(12, T)``, without padding.
        painted: ``(12, T)``, attention over time in units of an even share; None without it.
        leads: ``(12, 12)``, attention over leads, query by key; None without it.
    """

    kind: str
    record_id: str
    words: str
    ecg: NDArray[np.floating[Any]]
    painted: NDArray[np.floating[Any]] | None
    leads: NDArray[np.floating[Any]] | None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What a dual-attention network attends to.

    Attributes:
        mixed: Whether it mixes leads before, as the published one does.
        groups: Mean maps over leads of all records and by risk; None without such attention.
        heads: ``(heads, 12, 12)``, the mean of each; None likewise.
        shown: Single records.
        leads: Names.
        fs: Hz, of what the network sees.
        units: mV, or none.
        scored: How many records were scored.
        empty: How many of those averaged the network sees nothing of.
    """

    mixed: bool
    groups: GroupMaps | None
    heads: NDArray[np.floating[Any]] | None
    shown: list[AttentionExample]
    leads: tuple[str, ...]
    fs: float
    units: str
    scored: int
    empty: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a page says.

    Attributes:
        run: Folder of the run.
        synthetic: Whether any of the records are made.
        contract: contract.json.
        config: config.yaml.
        environment: env.json.
        command: The words that started the run.
        trainings: Learning curves, in the order of work.
        data: The data card.
        evaluation: What was scored; None if nothing was yet.
        examples: ECGs to show.
        clips: Clips to show, of a run that sees videos.
        no_examples: Why there are none.
        map_method: pca or tsne.
        colours: Columns of the predictions by which maps are coloured, beside label and sex.
        neighbours: Records and those nearest to them, a list for each with the record first.
        attention: Of a dual-attention network.
    """

    run: str
    synthetic: bool
    contract: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    command: str
    trainings: list[Training]
    data: DataCard
    evaluation: Evaluation | None = None
    examples: list[Example] = field(default_factory=list)
    clips: list[ClipExample] = field(default_factory=list)
    no_examples: str = "no evaluation yet"
    map_method: Literal["pca", "tsne"] = "pca"
    colours: tuple[str, ...] = ()
    neighbours: list[list[Example]] = field(default_factory=list)
    attention: Attention | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Content of a file, empty if there is no such file.

    Raises:
        ValueError: It is not JSON, or not a mapping.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got a {type(content).__name__}")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """As `read_json`, of a YAML file."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got a {type(content).__name__}")
    return content


def read_training(title: str, run: Path) -> Training:
    """Learning curves of a run, or the reason why there are none."""
    path = run / "metrics.csv"
    if not path.is_file():
        return Training(title=title, run=str(run), missing=f"there is no {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name]
    columns = {name: [_number(row.get(name)) for row in rows] for name in names}
    if not rows or "step" not in columns:
        return Training(title=title, run=str(run), missing=f"{path} holds no steps")
    return Training(title=title, run=str(run), columns=columns)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
