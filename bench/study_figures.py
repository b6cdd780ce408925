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

NEVER = 0.4  # where a record that nobody chooses is drawn on an axis of logarithms
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
        f"Own patient nearest\n({ptbxl.name})": lambda c: first_of(ptbxl, c, out, False),
        f"Same person on another\nday nearest ({persons.name})": (
            lambda c: first_of(persons, c, out, True)
        ),
        f"NORM, AUROC\n(15-NN, {ptbxl.name})": lambda c: area_of(ptbxl, c, out, "norm"),
        f"Sex, AUROC\n(15-NN, {ptbxl.name})": lambda c: area_of(ptbxl, c, out, "sex"),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WHOLE, 3.1), layout="constrained")
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
            ax.set_xlim((0.38, 0.95) if areas else (-0.03, 1.0))
            if areas:
                ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
            ax.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(ROWS)), list(ROWS))
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.savefig(out / "mining-study.png")


def draw_hubs(records: Records, panels: list[tuple[str, AnyCase, bool]], out: Path) -> None:
    """How often each record is near, or far, before and after a correction."""
    colours = dict(zip(CORRECTIONS, (BLUE, ORANGE, GREEN), strict=True))
    count = len(records.ecg)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WHOLE, 2.6), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (title, case, far) in zip(axes, panels, strict=True):
            distance = distances(records, case, out)
            for name in CORRECTIONS:
                whole = corrected(distance, name)
                if far:
                    chosen = neighbours(whole, [np.arange(count)]).farthest
                    often = np.bincount(chosen.reshape(-1), minlength=count)
                else:
                    often = occurrence(whole, 10)
                heights = np.maximum(np.sort(often)[::-1], NEVER)
                style = {"color": colours[name], "label": name, "linewidth": 1.3}
                ax.plot(np.arange(1, count + 1), heights, drawstyle="steps-mid", **style)
            ax.axhline(2 if far else 10, color=GREY, linewidth=0.8, linestyle=":")
            ax.set(xscale="log", yscale="log", ylim=(NEVER, count), xlim=(0.9, count))
            ax.set_title(f"{title}\namong the {'2 farthest' if far else '10 nearest'}", loc="left")
            ax.set_xticks([1, 10, 100], ["1", "10", "100"])
            ax.set_yticks([NEVER, 1, 10, 100], ["0", "1", "10", "100"])
            ax.minorticks_off()
        axes[0].set_ylabel("anchors that choose it")
        figure.supxlabel(f"records of {records.name}, the most chosen first", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        names = ["no correction" if label == "none" else label for label in labels]
        figure.legend(handles, names, loc="outside upper center", ncols=3)
        figure.savefig(out / "mining-study-hubs.png")
