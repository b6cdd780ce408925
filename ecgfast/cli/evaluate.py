"""Score fine-tuned runs on held-out patients, with intervals, by groups and against others."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail, nearest
from ecgfast.cli.parser import Parser

KEPT = ("record_id", "patient_id", "label", "value", "score")
NOT_KEPT = ("trained_on", "pretrained_on", "embedding", "scores", "survival")
IN_SUBGROUPS = ("auroc", "mae", "pearson_r", "auroc_macro", "c_index")
USUAL = {"split": "test", "bootstrap": 1000, "seed": 0, "threshold": "auto", "order": "auto"}
USUAL |= {"by": "auto"}


def options(parser: Parser) -> None:
    """What to score and how to bound it."""
    parser.add_argument(
        "run", type=str, nargs="+", help="folder of a run; of several, the mean of their scores"
    )
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="folders of records; none takes what the run was trained from (its held-out part), "
        "which is the SYNTHETIC cohort if it was trained on that",
    )
    parser.add_argument("--split", type=str, default="test", help="part of the records to score")
    parser.add_argument(
        "--against",
        type=str,
        nargs="*",
        default=[],
        help="folders of runs to compare with, on the same records: DeLong's test of the AUROC, "
        "and an interval of every difference",
    )
    parser.add_argument(
        "--subgroups",
        type=str,
        nargs="*",
        default=None,
        help="columns of the manifest: site (each value), age:18,35,50,75 (bands), lvef "
        "(quartiles), site:each (each number), 'sex*age' (both); sex and age if not given",
    )
    parser.add_argument(
        "--least_share",
        type=float,
        default=0.05,
        help="a group with a smaller share of the patients is called under-represented",
    )
    parser.add_argument(
        "--least_patients", type=int, default=30, help="and so is one with fewer patients"
    )
    parser.add_argument(
        "--order",
        type=str,
        default="auto",
        help="column that tells the order of a patient's visits; auto takes the first of visit, "
        "date, recording_date, datetime, time, age",
    )
    parser.add_argument(
        "--keep", type=str, nargs="*", default=[], help="more columns to write beside the scores"
    )
    parser.add_argument(
        "--layouts",
        type=str,
        nargs="*",
        default=[],
        help="for runs that see pages: draw the records in each of these, too: 12x1, 6x2, 3x4, "
        "3x4+1, 3x4+3, or 3x4-shuffled:7",
    )
    parser.add_argument(
        "--by",
        type=Literal["auto", "record", "study"],
        default="auto",
        help="what is scored: each record, or each study by the mean over its videos; auto takes "
        "studies where records are videos",
    )
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
    parser.add_argument(
        "--horizons",
        type=float,
        nargs="*",
        default=[],
        help="for a time to an event, times at which its risk is scored, in the unit of the label; "
        "1, 3 and 5 years if none is named and the label's name tells its unit",
    )
    parser.add_argument("--out", type=str, default="", help="folder; RUN/evaluation-SPLIT if empty")
    parser.add_argument("--json", type=str, default="", help="write the numbers to this file, too")
    parser.add_argument("--workers", type=int, default=0, help="processes that load records")


def run(words: Namespace) -> None:
    """Scores, writes RUN/evaluation-SPLIT, and prints tables."""
    if words.bootstrap < 1:
        raise Fail(2, f"error: --bootstrap must be 1 or more, got {words.bootstrap}")
    threshold = None if words.threshold == "auto" else _number(words.threshold)
    if any(not 0 < at < float("inf") for at in words.horizons):
        raise Fail(2, f"error: --horizons must be finite times above 0, got {words.horizons}")
    from ecgfast.eval.subgroups import parse
    from ecgfast.systems.evaluate import evaluate
    from ecgfast.systems.scored import Asked, columns_of, stores_of
    from ecgfast.train.checkpoint import load_contract

    started = time.perf_counter()
    for folder in (*words.run, *words.against):
        load_contract(folder)  # before work is done
    try:
        chosen = None if words.subgroups is None else tuple(map(parse, words.subgroups))
        known = columns_of(stores_of(words.run[0], words.store), words.run[0])
        order = "" if words.order == "auto" else words.order
        asked = [cut.column for cuts in chosen or () for cut in cuts]
        _refuse_unknown([*asked, *words.keep, *filter(None, [order])], known)
        facts, found = evaluate(
            Asked(
                runs=tuple(words.run),
                stores=tuple(words.store),
                split=words.split,
                draws=words.bootstrap,
                seed=words.seed,
                threshold=threshold,
                above=tuple(words.above),
                horizons=tuple(words.horizons),
                subgroups=chosen,
                least_share=words.least_share,
                least_patients=words.least_patients,
                against=tuple(words.against),
                order=order,
                keep=tuple(words.keep),
                layouts=tuple(words.layouts),
                by=words.by,
                workers=words.workers,
            )
        )
    except ValueError as error:
        if str(error).startswith("error["):
            raise
        raise Fail(2, f"error: {error}") from error
    facts["command"] = _command(words)
    together = f"-ensemble-of-{len(words.run)}" if len(words.run) > 1 else ""
    name = f"evaluation-{words.split}{together}"
    out = Path(words.out) if words.out else Path(words.run[0]) / name
    _write(out, facts, found)
    if words.json:
        Path(words.json).write_text(_to_json(facts), encoding="utf-8")
    _print(facts)
    took = time.perf_counter() - started
    follow = "" if words.out else f"; next: ecgfast report {words.run[0]}"
    if follow and together:
        follow += f" --split {words.split}{together}"
    print(f"wrote {out} in {took:.1f} s{follow}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Fail(2, f"error: --threshold must be auto or a number, got {text}") from None


def _refuse_unknown(names: Sequence[str], known: Sequence[str]) -> None:
    """A wrong column is named, with the one that was perhaps meant."""
    for name in names:
        if name not in known:
            there = f"{nearest(name, known)} (there are {', '.join(known)})"
            raise Fail(2, f"error: the records have no column {name}{there}")


def _command(words: Namespace) -> str:
    """The words that give these numbers again."""
    line = ["ecgfast", "evaluate", *words.run]
    if words.store:
        line += ["--store", *words.store]
    for name, usual in USUAL.items():
        if words[name] != usual:
            line += [f"--{name}", str(words[name])]
    if words.above:
        line += ["--above", *(f"{cut:g}" for cut in words.above)]
    if words.horizons:
        line += ["--horizons", *(f"{at:.10g}" for at in words.horizons)]
    if words.subgroups is not None:
        line += ["--subgroups", *words.subgroups]
    for name, usual_number in (("least_share", 0.05), ("least_patients", 30)):
        if words[name] != usual_number:
            line += [f"--{name}", f"{words[name]:g}"]
    for name in ("keep", "against", "layouts"):
        if words[name]:
            line += [f"--{name}", *words[name]]
    return shlex.join(line)


def _to_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1, allow_nan=False) + "\n"


def _write(out: Path, facts: dict[str, Any], found: dict[str, Any]) -> None:
    """metrics.json comes last: where it is, the rest is."""
    import numpy as np

    from ecgfast.data.tables import write_table

    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    columns: dict[str, Any] = {name: found[name] for name in KEPT if name in found}
    if facts["task"] == "multiclass":
        score = columns.pop("score")
        columns |= {f"score_{c}": score[:, i] for i, c in enumerate(facts["classes"])}
    for place, score in enumerate(found.get("scores", ())):
        if len(facts["runs"]) > 1 and score.ndim == 1:
            columns[f"score_run_{place}"] = score
    columns |= {k: _plain(v) for k, v in found.items() if k not in (*KEPT, *NOT_KEPT)}
    write_table(out / "predictions.parquet", columns)
    np.savez(out / "embeddings.npz", record_id=found["record_id"], embedding=found["embedding"])
    (out / "metrics.json").write_text(_to_json(facts), encoding="utf-8")


def _plain(values: Any) -> Any:
    """Texts with None where there is none; numbers as they are."""
    if values.dtype.kind in "biufmM":
        return values
    return [None if v is None or v != v else str(v) for v in values.tolist()]


def _print(facts: dict[str, Any]) -> None:
    """Numbers of all records and of groups, gaps, seeds, visits, comparisons, what to know."""
    rows = facts["metrics"] + facts["not_computed"]
    whole = [row for row in rows if row["subgroup"] is None]
    some = [r for r in rows if r["subgroup"] is not None and r["name"] in IN_SUBGROUPS]
    few = {g["group"] for g in facts["groups"] if g["under_represented"]}
    lines = [("metric", "of", "estimate", "95 % interval", "n", "patients", "positives")]
    for row in whole + some:
        group = row["subgroup"] or "all"
        group += " (few)" if group in few else ""
        counts = (str(row["n"]), str(row["patients"]), _text(row["positives"], "d"))
        lines.append((row["name"], group, _text(row["estimate"]), _bounds(row), *counts))
    _table(lines, left=(0, 1, 3))
    for print_part in (
        _print_survival,
        _print_groups,
        _print_seeds,
        _print_visits,
        _print_comparisons,
        _print_layouts,
        _print_shift,
    ):
        print_part(facts)
    if facts["threshold"] is not None:
        print(
            f"positive is a score of {facts['threshold']:.4g} or more ({facts['threshold_from']})"
        )
    if facts["videos"]:
        print(f"a score is the mean over the videos of a study: {facts['videos']} videos")
    if facts["unlabelled"]:
        print(f"{facts['unlabelled']} more records of this part have no label")
    if facts["seen"]:
        print(f"{facts['seen']} of {facts['records']} records were trained on")
    if facts["synthetic"]:
        print("SYNTHETIC data: these numbers say nothing about medicine")


def _print_survival(facts: dict[str, Any]) -> None:
    if "survival" not in facts:
        return
    found = facts["survival"]
    unit = f" {found['unit']}" if found["unit"] else ""
    follow = found["median_follow_up"]
    print(
        f"{found['event']}: {found['events']} of {facts['records']} records; median follow-up "
        f"{'not reached' if follow is None else f'{follow:g}{unit}'}; tau {found['tau']:g}{unit}"
    )
    print(f"risks come from {found['chances_from']}" if found["chances"] else found["chances_from"])
    if not found["asked"]:
        print(f"no horizon: the unit of {found['time']} is not known; name some with --horizons")
    groups = found["groups"]
    test, ratio = groups["log_rank"], groups["hazard_ratio"]
    each = ", ".join(f"{c['name']} {c['events']} of {c['n']}" for c in groups["curves"])
    print(f"events by risk: {each} ({groups['cuts_from']}); log-rank p {_p(test['p'])}")
    if ratio["reason"] is None:
        print(f"hazard ratio, high against low: {_text(ratio['estimate'])} {_bounds(ratio)}")


def _print_groups(facts: dict[str, Any]) -> None:
    unknown = [g for g in facts["groups"] if not g["known"]]
    for group in unknown:
        print(f"{group['by']} is unknown of {group['n']} records ({group['patients']} patients)")
    few = [g for g in facts["groups"] if g["known"] and g["under_represented"]]
    if few:
        share, least = facts["few"]["least_share"], facts["few"]["least_patients"]
        named = ", ".join(f"{g['group']} {g['patients']}" for g in few)
        print(f"under-represented (fewer than {least} patients or {100 * share:g} %): {named}")
    gaps = [gap for gap in facts["gaps"] if gap["estimate"] is not None]
    if not gaps:
        return
    lines = [("gap of", "by", "largest", "95 % interval", "by chance", "p", "highest", "lowest")]
    for gap in gaps:
        numbers = (_text(gap["estimate"]), _bounds(gap), _text(gap["chance"]), _p(gap["p"]))
        lines.append((gap["name"], gap["by"], *numbers, gap["highest"], gap["lowest"]))
    _table(lines, left=(0, 1, 3, 6, 7))


def _print_seeds(facts: dict[str, Any]) -> None:
    if "ensemble" not in facts:
        return
    runs = facts["ensemble"]["runs"]
    together = {r["name"]: r for r in facts["metrics"] if r["subgroup"] is None}
    lines = [("metric", "mean of runs", "SD", "ensemble", *(Path(run).name for run in runs))]
    for line in facts["ensemble"]["metrics"]:
        both = together.get(line["name"], {}).get("estimate")
        each = (_text(value) for value in line["each"])
        lines.append((line["name"], _text(line["mean"]), _text(line["sd"]), _text(both), *each))
    _table(lines, left=(0,))


def _print_visits(facts: dict[str, Any]) -> None:
    serial = facts.get("serial") or {"missing": "no regression"}
    if serial["missing"] is not None:
        return
    lines = [(f"over visits by {serial['order']}", "estimate", "95 % interval", "n", "patients")]
    for row in serial["metrics"]:
        counts = (str(row["n"]), str(row["patients"]))
        lines.append((row["name"], _text(row["estimate"]), _bounds(row), *counts))
    _table(lines, left=(0, 2))


def _print_comparisons(facts: dict[str, Any]) -> None:
    if not facts["comparisons"]:
        return
    lines = [("difference of", "from", "estimate", "95 % interval", "p", "p (Holm)", "test")]
    for other in facts["comparisons"]:
        for row in other["metrics"]:
            p = (_p(row["p"]), _p(row["p_holm"]), row["test"])
            lines.append((row["name"], other["against"], _text(row["estimate"]), _bounds(row), *p))
    _table(lines, left=(0, 1, 3, 6))


def _print_layouts(facts: dict[str, Any]) -> None:
    if "layouts" not in facts:
        return
    own = facts["layouts"]["own"]
    head = ("layout", "drawn in", "metric", "estimate", "95 % interval", f"minus {own}", "", "p")
    lines = [head]
    for row in facts["layouts"]["rows"]:
        change = row["difference"]
        less = ("", "", "")
        if change is not None:
            less = (_text(change["estimate"], "+.3f"), _bounds(change), _p(change["p"]))
        named = (row["layout"], row["trained"], row["name"])
        lines.append((*named, _text(row["estimate"]), _bounds(row), *less))
    _table(lines, left=(0, 1, 2, 4, 6))


def _print_shift(facts: dict[str, Any]) -> None:
    if "shift" not in facts:
        return
    print(f"trained on {', '.join(facts['trained_from'])}; scored on {facts['store']}")
    if facts["shift"]["missing"]:
        print(f"not compared: {facts['shift']['missing']}")
        return
    lines = [("", "trained on", "n", "scored", "n", "difference in SD")]
    for row in facts["shift"]["rows"]:
        cells: list[str] = []
        for side in (row["trained"], row["scored"]):
            cells += [f"{_text(side['mean'])} ± {_text(side['sd'])}", str(side["n"])]
        lines.append((row["name"], *cells, _text(row["standardised"], "+.2f")))
    _table(lines, left=(0,))


def _text(value: float | None, form: str = ".3f") -> str:
    if value is None:
        return "" if form == "d" else "-"
    return format(value, form)


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bounds(row: dict[str, Any]) -> str:
    if row["lo"] is None:
        return f"not computed: {row['reason']}"
    return f"[{row['lo']:.3f}, {row['hi']:.3f}]"


def _table(lines: Sequence[tuple[str, ...]], *, left: tuple[int, ...]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()
