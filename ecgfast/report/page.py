"""From contents to one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ecgfast.eval import project, roc_band
from ecgfast.report import evaluated, figures, survival, words
from ecgfast.report.attention import attention_section
from ecgfast.report.classes import confusion_of_classes, roc_of_each
from ecgfast.report.contents import Contents, Evaluation, Training
from ecgfast.report.learning import learning_curves
from ecgfast.report.maps import embedding_map
from ecgfast.report.moving import clip_strip, moving_clip
from ecgfast.report.paper import fitting_page
from ecgfast.report.seen import seen_page
from ecgfast.report.strips import strips
from ecgfast.report.style import Picture

MOST_COLOURS = 7
BAND_AT = np.linspace(0, 1, 101)
SEX = {0.0: "female", 1.0: "male"}
HEADLINE = {
    "classification": ("auroc", "auprc", "brier"),
    "regression": ("mae", "rmse", "pearson_r"),
    "multiclass": ("auroc_macro", "accuracy", "balanced_accuracy"),
    "survival": ("c_index", "uno_c", "ibs"),
    "embedding": ("recall_at_1_patient", "recall_at_5_patient"),
}
DECISION = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "f1")


def render(contents: Contents) -> str:
    """The page as text.

    Everything that came from a file is escaped. Figures are inline SVG images, in which no script
    can run. What cannot be computed is said, with the reason.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.lstrip_blocks = True
    environment.filters |= {"count": words.count, "plain": words.plain}
    facts = contents.evaluation.facts if contents.evaluation else {}
    label, unit = words.quantity(str(facts.get("label") or ""))
    return environment.get_template("template.html").render(
        contents=contents,
        facts=facts,
        title=_title(contents, facts),
        label=label,
        unit=unit,
        tiles=_tiles(facts, unit),
        contract=words.contract(contents.contract),
        curves=[_learning(t, contents.synthetic) for t in contents.trainings],
        scores=_scores(contents, unit),
        subgroups=evaluated.subgroups(facts, unit, synthetic=contents.synthetic),
        comparisons=evaluated.comparisons(facts, unit, synthetic=contents.synthetic),
        visits=evaluated.visits(
            facts, f"{label} ({unit})" if unit else label, synthetic=contents.synthetic
        ),
        seeds=evaluated.seeds(facts),
        shift=evaluated.shift(facts),
        neighbours=[
            strips(
                some,
                title=f"Nearest neighbours of {some[0].record_id}",
                synthetic=contents.synthetic,
            )
            for some in contents.neighbours
        ],
        embedding=_embedding(contents),
        examples=_examples(contents),
        clips=_clips(contents),
        attention=attention_section(contents.attention, synthetic=contents.synthetic),
    )


def _title(contents: Contents, facts: Mapping[str, Any]) -> str:
    task = facts.get("task") or (contents.contract.get("task") or {}).get("kind")
    label = facts.get("label") or (contents.contract.get("task") or {}).get("label")
    videos = contents.contract.get("clips") is not None
    source = "echo videos" if videos else f"the {'12-lead ' if _twelve(contents) else ''}ECG"
    if not task or not label:
        return f"{'An echo' if videos else 'An ECG'} encoder learned without labels"
    name, unit = words.quantity(str(label))
    above = facts.get("label_above")
    if task == "survival":
        event = (facts.get("survival") or contents.contract.get("task") or {}).get("event")
        what = words.quantity(str(event or label))[0]
        return f"Time to {what} from {source}"
    if task == "regression":
        return f"{name} from {source}"
    what = f"{name} > {words.plain(above)} {unit}".strip() if above is not None else name
    return f"{what} from {source}"


def _twelve(contents: Contents) -> bool:
    signal = contents.contract.get("signal") or {}
    return len(signal.get("leads", ())) == 12


def _rows(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The lines of all records, by metric."""
    return {r["name"]: r for r in facts.get("metrics", []) if r["subgroup"] is None}


def _tiles(facts: Mapping[str, Any], unit: str) -> list[tuple[str, str]]:
    rows = _rows(facts)
    names = HEADLINE.get(str(facts.get("task")), ())
    return [(words.metric(n), words.estimate(rows[n], unit)) for n in names if n in rows]


def _table(
    rows: Mapping[str, dict[str, Any]], names: list[str], unit: str, time: str = ""
) -> list[dict[str, Any]]:
    keys = ("n", "patients", "positives")
    return [
        {"name": words.metric(n, time), "value": words.estimate(rows[n], unit)}
        | {k: rows[n][k] for k in keys}
        for n in names
        if n in rows
    ]


def _learning(training: Training, synthetic: bool) -> dict[str, Any]:
    if training.missing is not None:
        return {"title": training.title, "run": training.run, "missing": training.missing}
    drawn = learning_curves(
        f"{training.title}: learning curves", training.columns, synthetic=synthetic
    )
    return {"title": training.title, "run": training.run, "missing": None, "picture": drawn}


def _scores(contents: Contents, unit: str) -> dict[str, Any]:
    """Tables and figures of the task."""
    found = contents.evaluation
    if found is None:
        return {"missing": "this run was not evaluated; run `ecgfast evaluate` on it first"}
    if found.facts["task"] == "multiclass":
        return {"missing": None} | _several(found, contents.synthetic, unit)
    if not len(found.predictions.get("score", ())):
        return {"missing": "this run has no head: it gives embeddings and no scores"}
    if found.facts["task"] == "survival":
        return {"missing": None} | _hazards(found, contents.synthetic)
    of = _classes if found.facts["task"] == "classification" else _values
    return {"missing": None} | of(found, contents.synthetic, unit)


def _several(found: Evaluation, synthetic: bool, unit: str) -> dict[str, Any]:
    facts, rows = found.facts, _rows(found.facts)
    names = list(facts["classes"])
    label = np.asarray(found.predictions["label"], float)
    score = np.stack([np.asarray(found.predictions[f"score_{n}"], float) for n in names], axis=1)
    each = [f"auroc_of_{name}" for name in names]
    return {
        "tables": [
            ("All classes", _table(rows, ["auroc_macro", "accuracy", "balanced_accuracy"], unit)),
            ("Each class against the rest", _table(rows, each, unit)),
        ],
        "pictures": [
            roc_of_each(label, score, names, rows, synthetic=synthetic),
            confusion_of_classes(facts["confusion"], names, synthetic=synthetic),
        ],
        "notes": [],
    }


def _classes(found: Evaluation, synthetic: bool, unit: str) -> dict[str, Any]:
    facts, rows = found.facts, _rows(found.facts)
    label = np.asarray(found.predictions["label"], float)
    score = np.asarray(found.predictions["score"], float)
    threshold = float(facts["threshold"])
    pictures: list[Picture] = []
    notes: list[str] = []
    if label.any() and not label.all():
        try:
            draws, seed = int(facts["draws"]), int(facts["seed"])
            patient = found.predictions["patient_id"]
            lo, hi = roc_band(label, score, patient, at=BAND_AT, draws=draws, seed=seed)
            band = (BAND_AT, lo, hi)
        except ValueError as error:
            band = None
            notes.append(f"band of the ROC curve not computed: {error}")
        if band is not None and rows["auroc"]["lo"] is None:
            band = None
            notes.append(f"band of the ROC curve not computed: {rows['auroc']['reason']}")
        area = f"AUROC {words.estimate(rows['auroc'])}".split(" (interval")[0]
        pictures.append(
            figures.roc(
                label, score, band=band, area=area, threshold=threshold, synthetic=synthetic
            )
        )
        area = f"AP {words.estimate(rows['auprc'])}".split(" (interval")[0]
        pictures.append(
            figures.precision_recall(
                label, score, area=area, threshold=threshold, synthetic=synthetic
            )
        )
    else:
        notes.append("ROC and precision-recall curves not computed: all labels are the same")
    points = facts.get("calibration", {}).get("points", [])
    if points and score.min() >= 0 and score.max() <= 1:
        pictures.append(figures.calibration(points, label, score, synthetic=synthetic))
    else:
        notes.append("calibration curve not computed: scores are no probabilities")
    pictures.append(figures.confusion(label, score, threshold=threshold, synthetic=synthetic))
    fixed = [n for n in rows if n.endswith("_at_90_sensitivity")]
    tables = [
        ("Discrimination", _table(rows, ["auroc", "auprc", "prevalence"], unit)),
        (
            "Calibration",
            _table(rows, ["brier", "ece", "calibration_slope", "calibration_intercept"], unit),
        ),
        (
            f"Decision: score ≥ {threshold:.4g} is called positive ({facts['threshold_from']})",
            _table(rows, list(DECISION), unit),
        ),
        (
            "At the threshold of these records that finds 90 % of the positives",
            _table(rows, fixed, unit),
        ),
    ]
    return {"tables": tables, "pictures": pictures, "notes": notes}


def _values(found: Evaluation, synthetic: bool, unit: str) -> dict[str, Any]:
    facts, rows = found.facts, _rows(found.facts)
    label = np.asarray(found.predictions["label"], float)
    score = np.asarray(found.predictions["score"], float)
    name, _ = words.quantity(str(facts["label"]))
    quantity = f"{name} ({unit})" if unit else name
    r = words.estimate(rows["pearson_r"]).split(" (interval")[0]
    after = f" ({unit})" if unit else ""
    pictures = [
        figures.scatter(
            label, score, quantity=quantity, association=f"r = {r}", synthetic=synthetic
        ),
        figures.bland_altman(
            label, score, lines=rows, quantity=quantity, unit=after, synthetic=synthetic
        ),
    ]
    points = facts.get("calibration", {}).get("points", [])
    slope, intercept = (rows.get(f"calibration_{k}") for k in ("slope", "intercept"))
    if points:
        line = None
        if slope and intercept and None not in (slope["estimate"], intercept["estimate"]):
            line = (slope["estimate"], intercept["estimate"])
        pictures.append(
            figures.calibration_of_values(points, line, quantity=quantity, synthetic=synthetic)
        )
    above = [n for n in rows if "_above_" in n]
    fitted = ["calibration_slope", "calibration_intercept"]
    tables = [
        ("Error and association", _table(rows, ["mae", "rmse", "pearson_r", "r2"], unit)),
        ("Agreement (Bland-Altman)", _table(rows, ["bias", "loa_lower", "loa_upper"], unit)),
        ("Calibration: line of the measured on the predicted value", _table(rows, fitted, unit)),
    ]
    if above:
        tables.append(
            ("At cut-offs (called positive: predicted at or above it)", _table(rows, above, unit))
        )
    return {"tables": tables, "pictures": pictures, "notes": []}


def _hazards(found: Evaluation, synthetic: bool) -> dict[str, Any]:
    facts, rows = found.facts, _rows(found.facts)
    told = facts["survival"]
    pictures, notes = survival.pictures(facts, found.predictions, synthetic=synthetic)
    tau, follow = (
        "not reached" if told[k] is None else words.duration(told[k], told["unit"])
        for k in ("tau", "median_follow_up")
    )
    areas = [n for n in rows if n.startswith("auc_at_")]
    squares = [*(n for n in rows if n.startswith("brier_at_")), "ibs", "ibs_km"]
    ratios = [*(n for n in rows if n.startswith("observed_expected_at_")), "calibration_slope"]
    named = (
        ("Discrimination: who has the event earlier", ["c_index", "uno_c", *areas]),
        ("Chances over time (lower is better)", squares),
        ("Calibration (1 is right)", ratios),
    )
    tables = [(name, _table(rows, some, "", told["unit"])) for name, some in named]
    remarks = [
        f"{told['events']:,} of {facts['records']:,} records have the event "
        f"({facts['patients']:,} patients); median follow-up {follow}.",
        f"Uno's C and the integrated Brier score look up to tau, {tau}: until then a tenth of the "
        "records is observed. Events are counted until then, or until the horizon.",
        f"Risks: {told['chances_from']}. Groups: {told['groups']['cuts_from']}. Bands are "
        "pointwise, by record; the log-rank test takes records as independent.",
    ]
    tables = [table for table in tables if table[1]]
    return {"tables": tables, "pictures": pictures, "notes": notes, "remarks": remarks}


def _embedding(contents: Contents) -> dict[str, Any]:
    found = contents.evaluation
    if found is None:
        return {"missing": "this run was not evaluated", "pictures": [], "table": []}
    rows = {k: v for k, v in _rows(found.facts).items() if k.startswith("recall_at_")}
    table = [
        {
            "name": words.metric(r["name"]),
            "value": words.estimate(r),
            "chance": words.DASH if r.get("chance") is None else f"{r['chance']:.3f}",
            "n": r["n"],
            "patients": r["patients"],
        }
        for r in rows.values()
    ]
    try:
        points, axes = project(found.embeddings, method=contents.map_method)
    except ValueError as error:
        return {"missing": f"map not computed: {error}", "pictures": [], "table": table}
    pictures = []
    for title, values, names, quantity in _colourings(found, contents.colours):
        pictures.append(
            embedding_map(
                points,
                axes,
                values,
                title=f"Embeddings by {title}",
                names=names,
                quantity=quantity,
                synthetic=contents.synthetic,
            )
        )
    return {"missing": None, "pictures": pictures, "table": table}


def _colourings(
    found: Evaluation, more: tuple[str, ...]
) -> list[tuple[str, Any, dict[float, str] | None, str]]:
    """Title, values for each embedding, names of classes, and name of the quantity."""
    place = {str(name): i for i, name in enumerate(found.predictions.get("record_id", ()))}
    at = np.array([place.get(str(name), -1) for name in found.record_ids], dtype=np.int64)

    def column(name: str) -> Any:
        values = np.full(len(at), np.nan)
        if len(found.predictions.get(name, ())):
            known = at >= 0
            values[known] = np.asarray(found.predictions[name], float)[at[known]]
        return values

    name, unit = words.quantity(str(found.facts.get("label") or "label"))
    quantity = f"{name} ({unit})" if unit else name
    colourings: list[tuple[str, Any, dict[float, str] | None, str]] = []
    if found.facts.get("task") == "multiclass":
        called = {float(i): str(c) for i, c in enumerate(found.facts["classes"])}
        if len(called) <= MOST_COLOURS:
            colourings.append((name, column("label"), called, ""))
    elif found.facts.get("task") == "classification":
        classes = {0.0: "label 0", 1.0: "label 1"}
        colourings.append(("label", column("label"), classes, ""))
    elif found.facts.get("task") == "survival":
        seen = {0.0: "censored", 1.0: "with event"}
        colourings.append(("event", column("event"), seen, ""))
        colourings.append(("log hazard", column("score"), None, "log hazard"))
    elif np.isfinite(column("label")).any():
        colourings.append((name, column("label"), None, quantity))
    colourings.append(("sex", column("sex"), SEX, ""))
    for other in more:
        values = np.asarray(found.predictions[other])
        if values.dtype.kind in "biuf":
            several = np.unique(values[np.isfinite(values.astype(float))])
            named = {float(v): f"{other} {v:g}" for v in several}
            colourings.append((other, column(other), named if len(named) <= 4 else None, other))
            continue
        texts = np.array(["" if v is None else str(v) for v in values])
        often = [str(t) for t in np.unique(texts[texts != ""])]
        often.sort(key=lambda t: (-int((texts == t).sum()), t))
        codes = {t: i for i, t in enumerate(often[: MOST_COLOURS - 1])}
        rest = len(codes) if len(often) > len(codes) else -1
        numbers = np.array([codes.get(t, rest) if t else np.nan for t in texts], float)
        spread = np.full(len(at), np.nan)
        spread[at >= 0] = numbers[at[at >= 0]]
        called = {float(i): t for t, i in codes.items()}
        if rest >= 0:
            called[float(rest)] = f"{len(often) - len(codes)} others"
        colourings.append((other, spread, called, ""))
    return colourings


def _clips(contents: Contents) -> list[dict[str, Any]]:
    shown = []
    for one in contents.clips:
        how: dict[str, Any] = {"fps": one.fps, "synthetic": contents.synthetic}
        title = f"Video {one.video}"
        shown.append(
            {
                "kind": one.kind,
                "words": one.words,
                "record_id": one.record_id,
                "moving": moving_clip(one.frames, one.heat, title=title, **how),
                "strip": clip_strip(one.frames, one.heat, title=title, **how),
            }
        )
    return shown


def _examples(contents: Contents) -> list[dict[str, Any]]:
    return [
        {
            "kind": example.kind,
            "record_id": example.record_id,
            "words": example.words,
            "picture": fitting_page(
                example.ecg,
                example.leads,
                example.fs,
                title=f"Record {example.record_id}",
                synthetic=contents.synthetic,
            ),
            "seen": None
            if example.page is None or example.heat is None
            else seen_page(
                example.page,
                example.heat,
                title=f"Record {example.record_id}",
                synthetic=contents.synthetic,
            ),
        }
        for example in contents.examples
    ]
