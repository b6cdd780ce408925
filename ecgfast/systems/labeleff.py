"""Wiring of label efficiency: every start on every share of the labels, cell by cell."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit
from ecgfast.config.labeleff import Config, Start
from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.data.subsets import (
    CELL,
    Subset,
    cohort_hash,
    draw_subsets,
    keep_subsets,
    records_hash,
)
from ecgfast.data.tables import read_table, write_table
from ecgfast.eval.label_efficiency import statistic
from ecgfast.eval.studies import by_study
from ecgfast.systems.label_starts import (
    Cohort,
    Learner,
    digest,
    learner,
    network_of,
    videos_of,
)
from ecgfast.systems.parts import check_source
from ecgfast.systems.windows import fit_of_net
from ecgfast.train.checkpoint import load_contract, write_at_once
from ecgfast.train.contract import Contract
from ecgfast.train.errors import RunError

Floats = NDArray[np.floating[Any]]


class Cell(NamedTuple):
    """A start on a subset.

    Attributes:
        score: Of the test records.
        metrics: By name; None where one is undefined.
        facts: What the start tells of itself.
    """

    score: Floats
    metrics: dict[str, float | None]
    facts: dict[str, Any]


class Sweep(NamedTuple):
    """All cells, and what they are of.

    Attributes:
        starts: Lines of the table.
        cells: By start, fraction and seed.
        subsets: By fraction and seed.
        cohort: What was learned from and scored.
        synthetic: Whether any of it was made up.
        subsets_sha256: Of the file of subsets.
        notes: What a reader of the table must know.
    """

    starts: list[Start]
    cells: dict[tuple[str, float, int], Cell]
    subsets: dict[CELL, Subset]
    cohort: Cohort
    synthetic: bool
    subsets_sha256: str
    notes: list[str]


def sweep(config: Config, say: Callable[[str], None] = print) -> Sweep:
    """Does every cell that is not done yet.

    A finished cell is a file and is never done again; one of other settings is refused, not used.

    Args:
        config: What to compare on what.
        say: Gets a line a cell.

    Raises:
        ContractError: A run is none, or expects other signals than the records have.
        DataError: There are no such records or labels; test records were trained on; the folder
            holds subsets of something else.
        RunError: The folder holds cells of other settings.
    """
    starts, out = config.starts(), Path(config.out)
    runs = {run: s.name for s in starts for seed in range(config.seeds) if (run := s.run(seed))}
    contracts = {run: load_contract(run) for run in runs}
    signal = next(iter(contracts.values())).signal if contracts else config.signal
    first = next(iter(contracts.values()), None)
    clips = fit_of_net(config.clip) if first is None else first.clips
    cohort = _open(config, signal, clips)
    for source in (cohort.train, cohort.test):
        if not contracts:
            check_source(source, signal, chosen=True, model=_asked(config))
        for contract in contracts.values():
            check_source(source, contract.signal, model=contract.model)
    if not cohort.train.signals and (voting := [s.name for s in starts if s.distance is not None]):
        raise RunError(
            f"error[init] {', '.join(voting)} compares signals, and the records are "
            f"{'videos' if cohort.train.clips else 'pages'}: name others (--init random@full)",
            code=2,
        )
    notes = _judge(contracts, runs, cohort)
    network = network_of(config, contracts, cohort.train)

    classes = config.task != "regression"
    subsets = draw_subsets(
        cohort.train.table,
        cohort.target,
        classes=classes,
        fractions=config.fractions,
        seeds=config.seeds,
    )
    about = {
        "label": config.label,
        "task": config.task,
        "threshold": config.threshold,
        "cohort": cohort.sha256,
    }
    out.mkdir(parents=True, exist_ok=True)
    sha256 = keep_subsets(out / "subsets.json", cohort.train.table, subsets, about)

    learners = {s.name: learner(s, config, cohort, contracts, network, say) for s in starts}
    settings = {
        (start.name, fraction, seed): _settings(
            about, config, learners[start.name], seed, cohort, subsets[fraction, seed]
        )
        for start in starts
        for seed in range(config.seeds)
        for fraction in sorted(config.fractions)
    }
    cells = {key: _read(out, key, settings[key], cohort) for key in settings}
    left = [key for key, cell in cells.items() if cell is None]
    if 0 < len(left) < len(cells):
        say(f"{out}: {len(cells) - len(left)} of {len(cells)} cells are done, {len(left)} to go")
    for number, key in enumerate(left, 1):
        name, fraction, seed = key
        subset = subsets[fraction, seed]
        began = time.perf_counter()
        score, facts = learners[name].scores(subset.rows, seed, f"{name}/{_stem(fraction, seed)}")
        score = cohort.of_studies(score)
        cell = Cell(score, _metrics(config, cohort, score), facts)
        _write(out, key, settings[key], cell, subset, cohort)
        cells[key] = cell
        took = time.perf_counter() - began
        say(f"[{number}/{len(left)}] {_line(config, key, subset, cell)}, {took:.1f} s")
    done = {key: cell for key, cell in cells.items() if cell is not None}
    synthetic = (
        cohort.train.synthetic
        or cohort.test.synthetic
        or any(contract.synthetic for contract in contracts.values())
    )
    return Sweep(starts, done, subsets, cohort, synthetic, sha256, notes)


def _open(config: Config, signal: Signal, clips: ClipFit | None) -> Cohort:
    """Training and test records that have a label, without a patient in both."""

    def part(
        splits: tuple[str, ...], limit: int = 0, classes: tuple[str, ...] | None = None
    ) -> Source:
        return open_source(
            config.data.paths,
            splits,
            signal=signal,
            patients=config.data.patients,
            label=config.label,
            limit=limit,
            classes=classes,
            clips=clips,
        )

    several = config.task == "multiclass"
    train = part(config.data.splits, config.data.limit, () if several else None)
    test = part((config.test,), classes=train.classes)
    patient, test_patient = train.patients(), test.patients()
    shared = set(test_patient) & set(patient)
    if shared:
        first = test.column("patient_id")[np.isin(test_patient, list(shared))][0]
        raise DataError(
            f"error[split_leak] {len(shared)} patients are in {', '.join(config.data.splits)} and "
            f"in {config.test} (first: {first}). Split by patient: ecgfast split STORE --by "
            "patient; or name other --data.splits"
        )
    target = _target(config, train, "training")
    test_target = _target(config, test, config.test)
    kinds = len(train.classes or (0, 1))
    if config.task != "regression" and len(set(test_target)) < kinds:
        raise DataError(
            f"error[label] {len(test)} records of {config.test} have {len(set(test_target))} of "
            f"{kinds} classes: the others cannot be told apart; choose another --threshold or "
            "label, or split again"
        )
    sha256 = digest([cohort_hash(source.table, config.label) for source in (train, test)])
    records = digest([records_hash(source.table) for source in (train, test)])
    scored = {n: test.column(n).astype(str) for n in ("record_id", "patient_id")}
    scored["label"] = test.column(config.label)
    if test.clips:
        try:
            codes = {"target": test_target, "patient": test_patient}
            found = by_study({**videos_of(test), "label": scored["label"], **codes})
        except ValueError as error:
            raise DataError(str(error)) from error
        test_target, test_patient = found["target"], found["patient"]
        scored = {name: found[name] for name in scored}
    return Cohort(train, test, target, test_target, patient, test_patient, scored, sha256, records)


def _asked(config: Config) -> dict[str, Any] | None:
    """The network of random weights, as a contract would describe it, if it sees no signals."""
    if config.clip.net != "none":
        arguments = {"size": config.clip.size, "grey": config.clip.grey}
        return {"class": "ClipEncoder", "arguments": arguments}
    return None


def _target(config: Config, source: Source, what: str) -> NDArray[np.float64]:
    """What is learned: the value, or 0 and 1."""
    label = source.labels()
    if config.task != "classification":
        return label
    if config.threshold is None:
        wrong = label[~np.isin(label, (0, 1))]
        if len(wrong):
            raise DataError(
                f"error[label] {len(wrong)} of {len(label)} labels {config.label} of {what} "
                f"records are not 0 or 1 (first: {wrong[0]:g}): name a --threshold, or --task "
                "regression"
            )
        return label
    target = (label > config.threshold).astype(np.float64)
    if target.all() or not target.any():
        raise DataError(
            f"error[label] {int(target.sum())} of {len(label)} {what} records have {config.label} "
            f"> {config.threshold:g}: a class needs both kinds"
        )
    return target


def _judge(contracts: dict[str, Contract], names: dict[str, str], cohort: Cohort) -> list[str]:
    """Refuses runs that have seen test records; notes those that have learned from labels."""
    ids = cohort.test.column("record_id").astype(str)
    notes = []
    for run, contract in contracts.items():
        seen = contract.trained_on.hold(ids)
        if contract.pretrained_on is not None:
            seen |= contract.pretrained_on.hold(ids)
        if seen.any():
            raise DataError(
                f"error[contamination] {int(seen.sum())} of {len(seen)} test records were trained "
                f"on by {names[run]} ({run}; first: {ids[seen.argmax()]}). Its scores would say "
                "nothing about new patients: pretrain without the test part"
            )
        if contract.task is not None:
            notes.append(
                f"{names[run]} begins from {run}, which has learned from labels already: its share "
                "of labels is larger than it says"
            )
    return notes


def _settings(
    about: dict[str, Any],
    config: Config,
    how: Learner,
    seed: int,
    cohort: Cohort,
    subset: Subset,
) -> dict[str, Any]:
    """All that a cell's numbers depend on."""
    ids = cohort.train.column("record_id")[subset.rows].astype(str).tolist()
    return {**about, "test": config.test, "records": digest(ids), **how.identity(seed)}


def _metrics(config: Config, cohort: Cohort, score: Floats) -> dict[str, float | None]:
    of = statistic(config.task, cohort.test_target, score, cohort.test_patient)
    found = of(np.ones((1, len(cohort.test_target))))
    values = {name: float(value[0]) for name, value in found.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _stem(fraction: float, seed: int) -> str:
    return f"{fraction:g}-seed{seed}"


def _path(out: Path, key: tuple[str, float, int], suffix: str) -> Path:
    name, fraction, seed = key
    return out / "cells" / name / f"{_stem(fraction, seed)}.{suffix}"


def _write(
    out: Path,
    key: tuple[str, float, int],
    settings: dict[str, Any],
    cell: Cell,
    subset: Subset,
    cohort: Cohort,
) -> None:
    """The JSON comes last: where it is, the scores are."""
    path = _path(out, key, "json")
    names = _score_columns(cohort)
    columns = {
        **cohort.scored,
        "target": cohort.test_target,
        **{name: column for name, column in zip(names, np.atleast_2d(cell.score.T), strict=True)},
    }
    write_at_once(path.with_suffix(".parquet"), lambda file: write_table(file, columns))
    content = {
        "start": key[0],
        "fraction": key[1],
        "seed": key[2],
        "patients": subset.patients,
        "records": len(subset.rows),
        "positives": subset.positives,
        "positive_patients": subset.positive_patients,
        "metrics": cell.metrics,
        "facts": cell.facts,
        "settings": settings,
    }
    write_at_once(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _read(
    out: Path, key: tuple[str, float, int], settings: dict[str, Any], cohort: Cohort
) -> Cell | None:
    """A finished cell, or None.

    Raises:
        RunError: It is of other settings, or damaged.
    """
    path = _path(out, key, "json")
    if not path.is_file():
        return None
    way = f"Take another folder with --out, or remove {path.parent} to do that start again"
    try:
        content = json.loads(path.read_bytes())
        before, metrics, facts = content["settings"], content["metrics"], content["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"error[cell] {path} cannot be read ({error}). {way}", code=2) from error
    now = json.loads(json.dumps(settings))
    if before != now:
        raise RunError(
            f"error[cell] {path} was made with other settings ({_differ(before, now)}). {way}",
            code=2,
        )
    scores = read_table(path.with_suffix(".parquet"))
    if scores["record_id"].tolist() != cohort.scored["record_id"].tolist():
        raise RunError(f"error[cell] {path} scores other records than its settings say. {way}", 2)
    score = np.stack([scores[name] for name in _score_columns(cohort)], axis=1)
    return Cell(score if score.shape[1] > 1 else score[:, 0], metrics, facts)


def _score_columns(cohort: Cohort) -> list[str]:
    """A column, or one a class."""
    return [f"score_{name}" for name in cohort.train.classes or ()] or ["score"]


def _differ(before: Any, now: dict[str, Any]) -> str:
    """Which settings differ, and how."""
    old, new = _flat(before), _flat(now)
    names = [k for k in {**new, **old} if old.get(k) != new.get(k)]
    told = [f"{k}: {str(old.get(k))[:40]} there, {str(new.get(k))[:40]} now" for k in names[:4]]
    return "; ".join(told + ["..."] * (len(names) > 4))


def _flat(content: Any, before: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {before.rstrip("."): content}
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        leaves |= _flat(value, f"{before}{key}.")
    return leaves


def _line(config: Config, key: tuple[str, float, int], subset: Subset, cell: Cell) -> str:
    """One line for people."""
    name, fraction, seed = key
    metric, value = next(iter(cell.metrics.items()))
    told = "undefined" if value is None else f"{value:.3f}"
    positives = "" if subset.positives is None else f", {subset.positives} positive"
    return (
        f"{name} at {100 * fraction:g} %, seed {seed}: {metric} {told} from {subset.patients} "
        f"patients ({len(subset.rows)} records{positives})"
    )
