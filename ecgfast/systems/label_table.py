"""From the cells of a sweep to its numbers: means, intervals, differences, ratios of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.config.labeleff import FALLING, METRICS, Config, Start
from ecgfast.eval.label_efficiency import (
    bounds,
    label_ratio,
    over_patients,
    over_seeds,
    statistic,
)
from ecgfast.systems.labeleff import Sweep

LEVEL = 0.95
Floats = NDArray[np.float64]


def label_table(config: Config, found: Sweep) -> dict[str, Any]:
    """All numbers of a sweep, as plain values.

    Returns:
        What the sweep was of, and ``subsets`` (a row each), ``rows`` (each start, fraction and
        metric), ``differences`` (from the reference), ``ratios`` (of labels, for the metric that is
        drawn). ``lo`` and ``hi`` are Student's interval over the seeds; ``patients_lo`` and
        ``patients_hi`` the bootstrap of the test patients, of the mean over the seeds.
    """
    cohort, names = found.cohort, [start.name for start in found.starts]
    fractions, seeds = sorted(config.fractions), range(config.seeds)
    metrics = METRICS[config.task]
    shown = config.metric or metrics[0]
    reference = config.reference or names[0]
    places = [(name, fraction) for name in names for fraction in fractions]
    values = {
        (metric, name): np.array(
            [[_number(found, name, f, seed, metric) for f in fractions] for seed in seeds]
        )
        for metric in metrics
        for name in names
    }
    statistics = [
        [
            statistic(
                config.task,
                cohort.test_target,
                found.cells[name, fraction, seed].score,
                cohort.test_patient,
            )
            for seed in seeds
        ]
        for name, fraction in places
    ]
    drawn = over_patients(statistics, cohort.test_patient, draws=config.bootstrap)
    by = {
        (metric, *place): drawn[metric][:, i]
        for metric in metrics
        for i, place in enumerate(places)
    }
    rows, differences = [], []
    for metric in metrics:
        for start in found.starts:
            for j, fraction in enumerate(fractions):
                own = values[metric, start.name][:, j]
                seen = by[metric, start.name, fraction]
                rows.append(_row(start, metric, fraction, own, seen) | _counts(found, fraction))
                if start.name == reference:
                    continue
                gap = own - values[metric, reference][:, j]
                seen = seen - by[metric, reference, fraction]
                row = _row(start, metric, fraction, gap, seen)
                differences.append(row | {"reference": reference})
    return {
        "label": config.label,
        "task": config.task,
        "threshold": config.threshold,
        "metric": shown,
        "falling": shown in FALLING,
        "reference": reference,
        "fractions": fractions,
        "seeds": config.seeds,
        "level": LEVEL,
        "draws": config.bootstrap,
        "synthetic": found.synthetic,
        "stores": list(config.data.paths),
        "cohort_sha256": cohort.sha256,
        "subsets_sha256": found.subsets_sha256,
        "notes": found.notes,
        "starts": [{"name": s.name, "runs": list(s.runs), "how": s.how} for s in found.starts],
        "train": {"records": len(cohort.train), "patients": len(set(cohort.patient))},
        "test": {
            "part": config.test,
            "records": len(cohort.test_target),
            "patients": len(set(cohort.test_patient)),
            "positives": int(cohort.test_target.sum()) if config.task == "classification" else None,
        },
        "subsets": [
            {
                "fraction": fraction,
                "seed": seed,
                "patients": subset.patients,
                "records": len(subset.rows),
                "positives": subset.positives,
                "positive_patients": subset.positive_patients,
            }
            for (fraction, seed), subset in sorted(found.subsets.items())
        ],
        "rows": rows,
        "differences": differences,
        "ratios": _ratios(config, names, reference, fractions, values, shown),
    }


def _number(found: Sweep, name: str, fraction: float, seed: int, metric: str) -> float:
    value = found.cells[name, fraction, seed].metrics[metric]
    return float("nan") if value is None else value


def _row(
    start: Start, metric: str, fraction: float, values: Floats, replicates: Floats
) -> dict[str, Any]:
    """One line: the interval over the seeds, and that over the patients beside it."""
    row = over_seeds(values, level=LEVEL)
    seen = bounds(row["estimate"], replicates, LEVEL)
    return {
        "start": start.name,
        "how": start.how,
        "fraction": fraction,
        "metric": metric,
        **row,
        "patients_lo": seen["lo"],
        "patients_hi": seen["hi"],
        "patients_reason": seen["reason"],
        "values": [float(v) if np.isfinite(v) else None for v in values],
    }


def _counts(found: Sweep, fraction: float) -> dict[str, Any]:
    """Labelled patients, records and positives, least and most over the seeds."""
    subsets = [subset for (f, _), subset in found.subsets.items() if f == fraction]
    told: dict[str, Any] = {}
    for name, counts in (
        ("patients", [s.patients for s in subsets]),
        ("records", [len(s.rows) for s in subsets]),
        ("positives", [s.positives for s in subsets if s.positives is not None]),
    ):
        told[name] = [min(counts), max(counts)] if counts else None
    return told


def _ratios(
    config: Config,
    names: list[str],
    reference: str,
    fractions: list[float],
    values: dict[tuple[str, str], Floats],
    metric: str,
) -> list[dict[str, Any]]:
    """Every start against the reference, in both directions."""
    ratios = []
    for name in names:
        if name == reference or len(fractions) < 2:
            continue
        for a, b in ((name, reference), (reference, name)):
            first, second = values[metric, a], values[metric, b]
            if not (np.isfinite(first).all() and np.isfinite(second).all()):
                continue
            rows = label_ratio(
                fractions, first, second, falling=metric in FALLING, draws=config.bootstrap
            )
            ratios += [{"a": a, "b": b, "metric": metric, **row} for row in rows]
    return ratios
