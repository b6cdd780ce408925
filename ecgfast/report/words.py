"""Names, units and formats: how numbers of a file read on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ecgfast.config import QUANTITIES

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
METRICS = {
    "auroc": "AUROC",
    "auroc_macro": "AUROC, mean over the classes",
    "auprc": "AUPRC (average precision)",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "prevalence": "prevalence",
    "rmse": "RMSE",
    "mae": "MAE",
    "pearson_r": "Pearson r",
    "r2": "R²",
    "bias": f"bias (predicted {MINUS} measured)",
    "loa_lower": "lower limit of agreement",
    "loa_upper": "upper limit of agreement",
    "ece": "expected calibration error",
    "calibration_slope": "calibration slope (ideal 1)",
    "calibration_intercept": "calibration intercept (ideal 0)",
}
METRICS |= {
    "auroc_macro": "macro AUROC",
    "balanced_accuracy": "balanced accuracy",
    "change_pearson_r": "Pearson r of changes between visits",
    "within_patient_r": "correlation within patients",
    "change_sign_agreement": "changes of the right direction (chance 0.5)",
}
METRICS |= {
    "c_index": "C-index (Harrell)",
    "uno_c": "C-index (Uno)",
    "ibs": "integrated Brier score",
    "ibs_km": "the same of one Kaplan-Meier curve for all",
}
AT = {"auc": "AUC", "brier": "Brier score", "observed_expected": "observed / expected risk"}
YEAR = {"days": 365.25, "weeks": 365.25 / 7, "months": 12.0, "years": 1.0}
IN_UNITS = {"rmse", "mae", "bias", "loa_lower", "loa_upper"}


def quantity(label: str) -> tuple[str, str]:
    """How a label is called, and its unit (empty if none is known)."""
    return QUANTITIES.get(label.lower(), (label, ""))


def duration(at: float, unit: str) -> str:
    """A time in years where it is a whole number of them, else in its unit.

    Example:
        >>> duration(1095.75, "days"), duration(90, "days"), duration(52, "")
        ('3 years', '90 days', 'time 52')
    """
    years = at / YEAR[unit] if unit in YEAR else 0.0
    if years >= 1 and abs(years - round(years)) < 1e-6:
        return f"{years:.0f} year{'s' if round(years) > 1 else ''}"
    return f"{at:g} {unit}" if unit else f"time {at:g}"


def metric(name: str, unit: str = "") -> str:
    """How a metric is called; the unit is that of time, where its name has one."""
    kind, at, horizon = name.partition("_at_")
    if at and kind in AT:
        return f"{AT[kind]} at {duration(float(horizon), unit)}"
    if name.startswith("recall_at_"):
        k, _, what = name.removeprefix("recall_at_").partition("_")
        return f"recall@{k}, same {what}"
    if name.endswith("_at_90_sensitivity"):
        return f"{METRICS.get(name.split('_')[0], name.split('_')[0])} at 90 % sensitivity"
    if name.startswith("auroc_of_"):
        return f"AUROC of {name.removeprefix('auroc_of_')}"
    before, above, cut = name.partition("_above_")
    if above:
        return f"{METRICS.get(before, before)} of measured > {cut}"
    return METRICS.get(name, name)


def group(name: str | None) -> str:
    """How a subgroup is called: ``age=[35,50)`` is age 35 to < 50."""
    if name is None:
        return "all records"
    if " & " in name:
        return ", ".join(group(part) for part in name.split(" & "))
    if "=" not in name:
        return name.replace("<", " < ", 1)
    kind, _, value = name.partition("=")
    if value.startswith("[") and value.endswith(")"):
        low, _, high = value.strip("[)").partition(",")
        return f"{kind} {low} to < {high}"
    if kind.endswith(">"):
        return f"{kind[:-1]} ≥ {value}"
    if kind == "sex" and value != "unknown":
        return value
    return f"{kind} {value}"


def p_value(p: float | None) -> str:
    """To three digits; a dash where there is none."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def estimate(row: Mapping[str, Any], unit: str = "") -> str:
    """``0.861 [0.802, 0.913]``, or why there is no such thing."""
    if row["estimate"] is None:
        return f"not computed: {row['reason']}"
    digits = 2 if row["name"] in IN_UNITS else 3
    after = f" {unit}" if unit and row["name"] in IN_UNITS else ""
    value, lo, hi = (
        None if row[k] is None else f"{row[k]:.{digits}f}".replace("-", MINUS)
        for k in ("estimate", "lo", "hi")
    )
    if lo is None:
        return f"{value}{after} (interval not computed: {row['reason']})"
    return f"{value} [{lo}, {hi}]{after}"


def count(value: Any) -> str:
    """With commas at thousands; a dash where there is nothing to count."""
    return DASH if value is None else f"{int(value):,}"


def plain(value: Any) -> str:
    """A value of a configuration on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "not finite" if not math.isfinite(value) else f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(part) for part in value) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {plain(v)}" for k, v in value.items()) or "none"
    return str(value)


def contract(facts: Mapping[str, Any]) -> list[str]:
    """The signal contract as sentences."""
    signal = facts.get("signal")
    if isinstance(facts.get("clips"), Mapping):
        return _clips(facts["clips"], (facts.get("model") or {}).get("arguments") or {})
    if not isinstance(signal, Mapping):
        return []
    leads = [str(name) for name in signal.get("leads", ())]
    seconds, fs = signal.get("seconds"), signal.get("fs")
    stored, recipe = signal.get("stored_recipe"), facts.get("recipe")
    unit = f"as recipe {stored} left them when they were stored" if stored else "in mV"
    lines = [
        f"{len(leads)} leads, chosen by name, in this order: {', '.join(leads)}.",
        f"{plain(seconds)} s at {plain(fs)} Hz ({plain(signal.get('samples'))} samples), {unit}.",
    ]
    refused = "A signal that differs in leads, rate, length or unit is refused, not adapted."
    if isinstance(recipe, Mapping):
        steps = [
            f"{step.get('step')} ({plain({k: v for k, v in step.items() if k != 'step'})})"
            for step in recipe.get("steps", ())
            if isinstance(step, Mapping)
        ]
        then = ", then ".join(steps)
        return [*lines, f"Prepared by recipe {plain(recipe.get('name'))}: {then}.", refused]
    if band := signal.get("band"):
        lines.append(
            f"Band-pass {plain(band[0])} to {plain(band[1])} Hz, zero phase (Butterworth, order 2, "
            "forward and backward)."
        )
    else:
        lines.append("No band-pass filter.")
    notch = signal.get("notch")
    lines.append(f"Mains notch at {plain(notch)} Hz." if notch else "No mains notch.")
    kinds = {
        "none": f"No {'further ' if stored else ''}normalisation: amplitudes are kept.",
        "lead": "Each lead of each record is brought to zero mean and unit variance.",
        "record": "Each record is divided by its root mean square.",
    }
    normalise = str(signal.get("normalise"))
    lines.append(kinds.get(normalise, f"Normalisation: {normalise}."))
    return [*lines, refused]


def _clips(fit: Mapping[str, Any], network: Mapping[str, Any]) -> list[str]:
    size, colour = plain(fit.get("size")), "grey" if fit.get("grey") else "colour"
    masks = {
        "sector": "Around the fan of the ultrasound all is black: names and scales are gone.",
        "none": "Frames are whole: what was burnt into them is there.",
    }
    scales = {
        "min_max": "Each clip is brought to [0, 1] by its own darkest and brightest pixel.",
        "standard": "Each clip is brought to zero mean and unit variance.",
        "kinetics": "Levels are scaled by the mean and SD of Kinetics-400.",
    }
    lines = [
        f"Frames of {size} x {size} pixels in {colour}, reduced by their areas.",
        masks.get(str(fit.get("mask")), f"Mask: {plain(fit.get('mask'))}."),
        f"Clips of {plain(network.get('frames'))} frames, {plain(network.get('step'))} apart.",
        scales.get(str(network.get("scale")), f"Scale: {plain(network.get('scale'))}."),
    ]
    if fit.get("fps"):
        lines.append(f"Videos are brought to {plain(fit['fps'])} frames a second.")
    refused = "A store whose frames differ in size, colour, mask or rate is refused, not adapted."
    return [*lines, refused]
