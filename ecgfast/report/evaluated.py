"""What the page says of groups, gaps, other runs, seeds, visits and other stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecgfast.report import figures, words
from ecgfast.report.visits import trends

IN_GROUPS = {
    "classification": ("auroc",),
    "regression": ("mae", "pearson_r"),
    "multiclass": ("auroc_macro",),
    "survival": ("c_index",),
}
MOST_FIGURES = 6  # forests of subgroups: the rest stands in the table


def subgroups(facts: Mapping[str, Any], unit: str, *, synthetic: bool) -> dict[str, Any]:
    """Forests, counts of groups and gaps between them."""
    names = IN_GROUPS.get(str(facts.get("task")), ())
    by = {n: [r for r in facts.get("metrics", []) if r["name"] == n] for n in names}
    if not any(len(rows) > 1 for rows in by.values()):
        return {"missing": "nothing is known by which to group the records", "pictures": []}
    pictures = []
    for name, rows in by.items():
        after = f" ({unit})" if unit and name in words.IN_UNITS else ""
        title = f"{words.metric(name)} by subgroup"
        axis = f"{words.metric(name)}{after}, 95 % interval"
        pictures.append(figures.forest(title, rows, label=axis, synthetic=synthetic))
    told = {g["group"]: g for g in facts.get("groups", [])}
    table = [
        {
            "group": words.group(r["subgroup"]),
            "name": words.metric(r["name"]),
            "value": words.estimate(r, unit),
            "share": _share(told.get(r["subgroup"])),
            "few": bool(told.get(r["subgroup"], {}).get("under_represented")),
        }
        | {k: r[k] for k in ("n", "patients", "positives")}
        for rows in by.values()
        for r in rows
    ]
    return {
        "missing": None,
        "pictures": pictures[:MOST_FIGURES],
        "table": table,
        "unknown": [g for g in facts.get("groups", []) if not g["known"]],
        "gaps": [_gap(g, unit) for g in facts.get("gaps", [])],
        "without_gap": _without(facts.get("gaps", [])),
    }


def _share(group: Mapping[str, Any] | None) -> str:
    return words.DASH if group is None else f"{100 * group['share']:.1f} %"


def _gap(gap: Mapping[str, Any], unit: str) -> dict[str, Any]:
    line = {
        "name": words.metric(gap["name"]),
        "by": gap["by"],
        "known": gap["estimate"] is not None,
    }
    if not line["known"]:
        return line
    after = f" {unit}" if unit and gap["name"] in words.IN_UNITS else ""
    return line | {
        "value": f"{gap['estimate']:.3f} [{gap['lo']:.3f}, {gap['hi']:.3f}]{after}",
        "mean": f"{gap['mean_gap']:.3f} [{gap['mean_lo']:.3f}, {gap['mean_hi']:.3f}]",
        "chance": f"{gap['chance']:.3f}",
        "p": words.p_value(gap["p"]),
        "highest": words.group(gap["highest"]),
        "lowest": words.group(gap["lowest"]),
    }


def _without(gaps: list[Mapping[str, Any]]) -> list[str]:
    """By reason, of which columns and metrics there is no gap."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        if gap["estimate"] is None:
            reasons.setdefault((gap["by"], gap["reason"]), []).append(words.metric(gap["name"]))
    return [f"{by}, {', '.join(names)}: {why}" for (by, why), names in reasons.items()]


def comparisons(facts: Mapping[str, Any], unit: str, *, synthetic: bool) -> list[dict[str, Any]]:
    """For each other run a forest of shares and areas, and a table of all differences."""
    found, time = [], (facts.get("survival") or {}).get("unit", "")
    for other in facts.get("comparisons") or []:
        known = [r for r in other["metrics"] if r["estimate"] is not None]
        # what has the label's unit would squeeze what lies between 0 and 1
        in_units = words.IN_UNITS | {"calibration_intercept", "calibration_slope"}
        free = [r for r in known if r["name"] not in in_units]
        drawn = None
        if free:
            drawn = figures.forest(
                "Difference to the other run",
                free,
                label=f"this run {words.MINUS} the other, 95 % interval",
                names=[words.metric(r["name"], time) for r in free],
                at=0.0,
                synthetic=synthetic,
            )
        rows = [
            {
                "name": words.metric(r["name"], time),
                "value": words.estimate(r, unit),
                "p": words.p_value(r["p"]),
                "holm": words.p_value(r["p_holm"]),
                "test": r["test"],
            }
            for r in other["metrics"]
        ]
        found.append({"against": other["against"], "picture": drawn, "rows": rows})
    return found


def visits(facts: Mapping[str, Any], quantity: str, *, synthetic: bool) -> dict[str, Any] | None:
    """Numbers of change over visits, and the panels of patients; None where nobody asked."""
    serial = facts.get("serial")
    if not serial:
        return None
    if serial["missing"]:
        return {"missing": serial["missing"]}
    shown = serial["shown"]
    rows = [
        {"name": words.metric(r["name"]), "value": words.estimate(r), "positives": None}
        | {k: r[k] for k in ("n", "patients")}
        for r in serial["metrics"]
    ]
    drawn = trends(shown, quantity=quantity, order=serial["order"], synthetic=synthetic)
    return {"missing": None, "rows": rows, "picture": drawn, "shown": len(shown)} | {
        k: serial[k] for k in ("order", "least_visits", "patients", "visits")
    }


def seeds(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Single runs beside the mean of their scores."""
    if not (ensemble := facts.get("ensemble")):
        return None
    together = {r["name"]: r for r in facts["metrics"] if r["subgroup"] is None}
    rows = [
        {
            "name": words.metric(line["name"]),
            "mean": f"{line['mean']:.3f} ± {line['sd']:.3f}".replace("-", words.MINUS),
            "ensemble": words.estimate(together[line["name"]]),
            "each": [f"{v:.3f}".replace("-", words.MINUS) for v in line["each"]],
        }
        for line in ensemble["metrics"]
        if line["name"] in together
    ]
    return {"runs": ensemble["runs"], "rows": rows}


def shift(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was trained on beside what is scored, where the stores differ."""
    if not (found := facts.get("shift")):
        return None

    def side(part: Mapping[str, Any]) -> str:
        if part["mean"] is None:
            return f"not known (n = {part['n']:,})"
        return f"{part['mean']:.3g} ± {part['sd']:.3g} (n = {part['n']:,})"

    rows = [
        {
            "name": words.quantity(r["name"])[0],
            "trained": side(r["trained"]),
            "scored": side(r["scored"]),
            "apart": words.DASH if r["standardised"] is None else f"{r['standardised']:+.2f}",
        }
        for r in found["rows"]
    ]
    return {
        "missing": found["missing"],
        "trained_from": ", ".join(facts.get("trained_from") or ()),
        "rows": rows,
    }
