"""The two figures of the study."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from cases import AnyCase, Case, Records, distances
from matplotlib.figure import Figure
from neighbours import (
    CORRECTIONS,
    Estimate,
    corrected,
    estimated,
    mean,
    neighbours,
    occurrence,
    predicted,
    rank_of_own,
    statistic_of,
)
from tables import NEAREST

from ecgfast.report.style import BLUE, GREEN, GREY, ORANGE, STYLE, WHOLE

COLOURS = {"none": BLUE, "lead": ORANGE}
WORDS = {"none": "millivolts", "lead": "z-scored leads"}
ROWS = {
    "Euclidean": ("euclidean", None, "record", 100.0),
    "mean L1": ("mean_l1", None, "record", 100.0),
    "magnitude spectrum": ("spectrum", None, "record", 100.0),
    "DTW l1, 0.2 s": ("dtw l1", 0.2, "record", 50.0),
    "DTW l1, 0.5 s": ("dtw l1", 0.5, "record", 50.0),
    "DTW l1, 1 s": ("dtw l1", 1.0, "record", 50.0),
    "DTW l1 of slopes, 0.5 s": ("dtw l1", 0.5, "slope", 50.0),
    "mean L1 of median beats": ("mean_l1", None, "beat", 100.0),
    "DTW l1 of median beats, 0.1 s": ("dtw l1", 0.1, "beat", 100.0),
}


def first_of(records: Records, case: AnyCase, out: Path, another_day: bool) -> Estimate:
    """Share of records whose nearest is the patient's, of those that have one."""
    day = records.day if another_day else None
    rank = rank_of_own(distances(records, case, out), records.patient, day)
    known = np.isfinite(rank)
    return estimated(mean((rank[known] == 0) * 1.0), "x", records.patient[known])


def area_of(records: Records, case: AnyCase, out: Path, key: str) -> Estimate:
    """Area under the curve of the label, from the nearest of other patients."""
    value = records.labels[key]
    score = predicted(distances(records, case, out), value, records.patient, NEAREST)
    return estimated(statistic_of("auroc", value, score), "auroc", records.patient)


def draw_main(ptbxl: Records, persons: Records, out: Path) -> None:
    """By distance: the patient found again, in two sets, and two labels."""
    panels = {
        f"{ptbxl.name}: own patient nearest": lambda c: first_of(ptbxl, c, out, False),
        f"{persons.name}, lead I: same person,\nother day, nearest": (
            lambda c: first_of(persons, c, out, True)
        ),
        f"{ptbxl.name}: NORM, AUROC of 15-NN": lambda c: area_of(ptbxl, c, out, "norm"),
        f"{ptbxl.name}: sex, AUROC of 15-NN": lambda c: area_of(ptbxl, c, out, "sex"),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WHOLE, 2.9), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (title, of) in zip(axes, panels.items(), strict=True):
            for n, (metric, radius, view, fs) in enumerate(ROWS.values()):
                for scale, shift in (("none", -0.14), ("lead", 0.14)):
                    value, low, high = of(Case(scale, metric, fs, radius, view))
                    y, style = n + shift, {"color": COLOURS[scale]}
                    if low is not None and high is not None:
                        ax.plot([low, high], [y, y], **style, linewidth=1.2)
                    label = WORDS[scale] if n == 0 else None
                    ax.plot([value], [y], "o", **style, markersize=3.5, label=label)
            ax.set_title(title, loc="left")
            areas = "AUROC" in title
            ax.set_xlim((0.45, 0.95) if areas else (-0.03, 1.0))
            if areas:
                ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
            ax.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(ROWS)), list(ROWS))
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.savefig(out / "mining-study.png")


def draw_hubs(records: Records, cases: list[Case], out: Path) -> None:
    """How often each record is near and far, before and after a correction."""
    colours = dict(zip(CORRECTIONS, (BLUE, ORANGE, GREEN), strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WHOLE, 2.5), layout="constrained")
        axes = figure.subplots(1, 2 * len(cases))
        count = len(records.ecg)
        for n, case in enumerate(cases):
            distance = np.asarray(distances(records, case, out), np.float64)
            for name, correct in CORRECTIONS.items():
                whole = corrected(distance, name)
                found = neighbours(distance, [np.arange(count)], correct)
                far = np.bincount(found.farthest.reshape(-1), minlength=count)
                for ax, often in zip(
                    (axes[n], axes[len(cases) + n]), (occurrence(whole, 10), far), strict=True
                ):
                    ranks = np.arange(1, count + 1)
                    style = {"color": colours[name], "label": name}
                    ax.plot(ranks, np.maximum(np.sort(often)[::-1], 0.3), **style)
            for ax, what in ((axes[n], "10 nearest"), (axes[len(cases) + n], "2 farthest")):
                ax.set(xscale="log", yscale="log", ylim=(0.3, count), xlabel="record, by rank")
                ax.set_title(f"{case}:\namong the {what} of", loc="left")
                ax.set_yticks([0.3, 1, 10, 100], ["0", "1", "10", "100"])
                ax.minorticks_off()
        axes[0].set_ylabel("anchors")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, title="correction")
        figure.savefig(out / "mining-study-hubs.png")
